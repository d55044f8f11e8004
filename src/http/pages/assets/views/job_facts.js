// What people ask next: why is it not done, what failed, who holds what. Asked for plainly, a little behind the tally; whatever the tally
// itself can tell is told from it, so that no two numbers on the page disagree.

import { getIfThere } from '../api.js';
import { h, keyed, setText, show } from '../dom.js';
import { FINAL, ago, count, full, plural, roughly } from '../format.js';
import { table } from '../table.js';

/** While a job goes on, its facts are asked for so often. */
const EVERY_MS = 3000;
/** Undecided tasks asked for, and shown as rows; workers are told from all of them. */
const ASKED = 500;
const SHOWN = 50;
/** Reasons that the tally cannot tell; the others are made from it. */
const NODE_REASONS = new Set(['store_unavailable', 'starts_later', 'max_in_flight', 'no_workers']);

const nameOf = (task) => (task.key === null ? `${task.task}` : `${task.task} · ${task.key}`);

const inTime = (moment) => {
  const seconds = (Date.parse(moment) - Date.now()) / 1000;
  return seconds > 0 ? `in ${roughly(seconds)}` : 'now';
};

function since(task) {
  if (task.state === 'leased') return `held ${roughly(task.lease_age_s ?? 0)}, ends ${inTime(task.expires_at)}`;
  if (task.retry_at) return `again ${inTime(task.retry_at)}`;
  return null;
}

const said = (task) => [task.stage, task.note, task.last_error && `last: ${task.last_error}`].filter(Boolean).join('; ') || null;

/** Why a job is not done, as far as its tally tells. */
function reasons({ state, open, progress }) {
  const { pending, leased, retrying, total } = progress;
  const list = [];
  if (state === 'pending') list.push('It has not been started.');
  if (state === 'paused') list.push('It is paused: nothing is handed out until it is resumed.');
  if (state === 'canceling') list.push('It is being cancelled: leased tasks may still report until their grace ends.');
  if (leased > 0) list.push(`${plural(leased, 'task')} ${leased === 1 ? 'is' : 'are'} leased to workers.`);
  if (retrying > 0) list.push(`${plural(retrying, 'task')} failed and ${retrying === 1 ? 'waits' : 'wait'} for another attempt.`);
  if (pending > 0) list.push(`${plural(pending, 'task')} ${pending === 1 ? 'waits' : 'wait'} to be leased.`);
  if (open) {
    const rest = total === progress.succeeded + progress.failed ? 'Every task it holds is decided, but it' : 'It';
    list.push(`${rest} is open to more tasks, and ends only once it is closed.`);
  }
  return list;
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

function explainPanel() {
  const list = h('ul', { class: 'reasons' });
  const tasks = table(
    'Undecided tasks',
    [
      { label: 'Task', head: true, text: nameOf },
      { label: 'State', text: (task) => task.state },
      { label: 'Worker', text: (task) => task.worker ?? task.last_worker },
      { label: 'Attempts used', number: true, text: (task) => count(task.attempts) },
      { label: 'When', text: since, title: (task) => full(task.expires_at ?? task.retry_at) },
      { label: 'Said', class: 'wrap', text: said },
    ],
    (task) => task.task,
  );
  const node = h('section', { class: 'panel live', hidden: true }, h('h2', { text: 'Why is it not done?' }), list, tasks.node);
  let more = [];
  function say(job) {
    show(node, !FINAL.has(job.state));
    keyed(list, [...reasons(job), ...more], (text) => text, (text) => ({ node: h('li', { text }) }), () => {});
  }
  function update({ waits_for: waits, undecided }) {
    more = waits.filter(({ code }) => NODE_REASONS.has(code)).map(({ message }) => sentence(message));
    tasks.update(undecided.slice(0, SHOWN));
    show(tasks.node, undecided.length > 0);
  }
  return { node, say, update };
}

function workersPanel() {
  const list = h('ul', { class: 'holders' });
  const none = h('p', { class: 'hint', text: 'Nobody holds a task of this job.' });
  const more = h('p', { class: 'hint', hidden: true, text: `Of the first ${count(ASKED)} undecided tasks.` });
  const node = h('section', { class: 'panel live', hidden: true }, h('h2', { text: 'Workers' }), list, none, more);
  function make() {
    const [name, held, which] = [h('span', { class: 'holder' }), h('span', { class: 'sub' }), h('p', { class: 'sub held' })];
    return { node: h('li', {}, h('div', {}, name, held), which), name, held, which };
  }
  function fill(entry, [worker, tasks]) {
    setText(entry.name, worker);
    setText(entry.held, plural(tasks.length, 'task'));
    const shown = tasks.slice(0, 3).map((task) => task.key ?? String(task.task)).join(', ');
    setText(entry.which, tasks.length > 3 ? `${shown} and ${count(tasks.length - 3)} more` : shown);
  }
  function update(job, { undecided, undecided_total: total }) {
    const holders = new Map();
    for (const task of undecided) {
      if (task.state !== 'leased') continue;
      if (!holders.has(task.worker)) holders.set(task.worker, []);
      holders.get(task.worker).push(task);
    }
    const sorted = [...holders].sort(([one], [two]) => one.localeCompare(two));
    show(node, !FINAL.has(job.state));
    show(none, sorted.length === 0);
    show(more, undecided.length < total && undecided.at(-1)?.state === 'leased');
    keyed(list, sorted, ([worker]) => worker, make, fill);
  }
  return { node, update };
}

function failuresPanel() {
  const groups = table(
    'Failures by error',
    [
      { label: 'Tasks', number: true, text: (group) => count(group.count) },
      { label: 'Error', head: true, class: 'error-text', text: (group) => group.example || '(no message)' },
      { label: 'For example task', text: (group) => group.tasks.slice(0, 3).join(', ') },
      { label: 'Last', text: (group) => ago(group.last_at), title: (group) => full(group.last_at) },
    ],
    (group) => group.error,
  );
  const more = h('p', { class: 'hint' });
  const node = h(
    'section', { class: 'panel live', hidden: true }, h('h2', { text: 'Failures by error' }),
    h('p', { class: 'hint', text: 'Errors that differ in numbers only count as one.' }), groups.node, more,
  );
  function update({ groups: found, other, complete }) {
    show(node, found.length > 0);
    groups.update(found);
    const rest = other > 0 ? `${plural(other, 'failure')} of other kinds. ` : '';
    setText(more, complete ? rest : `${rest}There are more failures than were read; all are in the report.`);
  }
  return { node, update };
}

export function jobFacts(id) {
  const [explain, workers, failures] = [explainPanel(), workersPanel(), failuresPanel()];
  const leaving = new AbortController();
  const ask = (what) => getIfThere(`/v1/jobs/${id}/${what}`, { signal: leaving.signal });
  let askedAt = 0;
  let failuresOf = '';
  let latest = null;

  function say(job) {
    latest = job;
    explain.say(job);
  }

  async function refresh(job) {
    askedAt = Date.now();
    try {
      const told = FINAL.has(job.state) ? { waits_for: [], undecided: [], undecided_total: 0 } : await ask(`explain?limit=${ASKED}`);
      if (leaving.signal.aborted) return;
      if (told) {
        explain.update(told);
        explain.say(latest);
        workers.update(job, told);
      }
      const seen = `${job.run} ${job.progress.failed}`;
      if (seen === failuresOf) return;
      const found = job.progress.failed === 0 ? { groups: [], other: 0, complete: true } : await ask('failures');
      if (leaving.signal.aborted || !found) return;
      failures.update(found);
      failuresOf = seen;
    } catch {
      // The banner tells of a node that does not answer; what stood here before is shown as old with the rest.
    }
  }

  return {
    explain: explain.node,
    workers: workers.node,
    failures: failures.node,
    say,
    refresh,
    refreshIfOld(job) {
      if (Date.now() - askedAt >= EVERY_MS) refresh(job);
    },
    close: () => leaving.abort(),
  };
}
