// What people ask next: why is it not done, what failed, who holds what. Asked for plainly, a little behind the tally.

import { getIfThere, query } from '../api.js';
import { h, keyed, setText, show } from '../dom.js';
import { FINAL, ago, count, full, plural, roughly } from '../format.js';
import { table } from '../table.js';

/** While a job goes on, its facts are asked for so often. */
const EVERY_MS = 3000;
/** Failures are read from the results, which may be many: more seldom, and only if there are new ones. */
const FAILURES_EVERY_MS = 10000;
/** Tasks and failures shown, at most. */
const SHOWN = 50;
const LEASED_READ = 500;

const fromNow = (moment) => {
  const seconds = (Date.parse(moment) - Date.now()) / 1000;
  return seconds > 0 ? `in ${roughly(seconds)}` : 'now';
};

const nameOf = (task) => (task.key === null || task.key === undefined ? `${task.task}` : `${task.task} · ${task.key}`);

/** Why a job is not done, in sentences made of its own numbers. */
function reasons({ state, open, queue, progress }) {
  const { pending, leased, retrying, total } = progress;
  const said = [];
  if (state === 'pending') said.push('It has not been started.');
  if (state === 'paused') said.push('It is paused: nothing is handed out until it is resumed.');
  if (state === 'canceling') said.push('It is being cancelled: leased tasks may still report until their grace ends.');
  if (leased > 0) said.push(`${plural(leased, 'task')} ${leased === 1 ? 'is' : 'are'} leased to workers.`);
  if (retrying > 0) said.push(`${plural(retrying, 'task')} failed and ${retrying === 1 ? 'waits' : 'wait'} for another attempt.`);
  if (pending > 0 && state === 'running') {
    const idle = leased === 0 ? ` No worker has asked for one: is there any for queue ${queue}?` : '';
    said.push(`${plural(pending, 'task')} ${pending === 1 ? 'waits' : 'wait'} to be leased.${idle}`);
  }
  if (open) {
    const rest = total === progress.succeeded + progress.failed ? 'Every task it holds is decided, but it' : 'It';
    said.push(`${rest} is open to more tasks, and ends only once it is closed.`);
  }
  return said;
}

function explainPanel() {
  const list = h('ul', { class: 'reasons' });
  const tasks = table(
    'Undecided tasks',
    [
      { label: 'Task', head: true, text: nameOf },
      { label: 'State', text: (task) => task.state },
      { label: 'Worker', text: (task) => task.worker },
      { label: 'Attempt', number: true, text: (task) => count(task.attempt) },
      { label: 'Lease ends', text: (task) => task.expires_at && fromNow(task.expires_at), title: (task) => task.expires_at && full(task.expires_at) },
    ],
    (task) => task.task,
  );
  const node = h('section', { class: 'panel live', hidden: true }, h('h2', { text: 'Why is it not done?' }), list, tasks.node);
  function update(job, undecided) {
    show(node, !FINAL.has(job.state));
    keyed(list, reasons(job), (text) => text, (text) => ({ node: h('li', { text }) }), () => {});
    tasks.update(undecided.slice(0, SHOWN));
    show(tasks.node, undecided.length > 0);
  }
  return { node, update };
}

function workersPanel() {
  const list = h('ul', { class: 'holders' });
  const none = h('p', { class: 'hint', text: 'Nobody holds a task of this job.' });
  const more = h('p', { class: 'hint', hidden: true, text: `Of the first ${count(LEASED_READ)} leased tasks.` });
  const node = h('section', { class: 'panel live', hidden: true }, h('h2', { text: 'Workers' }), list, none, more);
  function make() {
    const [name, held, which] = [h('span', { class: 'holder' }), h('span', { class: 'sub' }), h('p', { class: 'sub held' })];
    return { node: h('li', {}, h('div', {}, name, held), which), name, held, which };
  }
  function fill(entry, [worker, tasks]) {
    setText(entry.name, worker);
    setText(entry.held, plural(tasks.length, 'task'));
    const shown = tasks.slice(0, 6).map((task) => task.key ?? String(task.task)).join(', ');
    setText(entry.which, tasks.length > 6 ? `${shown} and ${count(tasks.length - 6)} more` : shown);
  }
  function update(job, leased, hasMore) {
    const holders = new Map();
    for (const task of leased) {
      const worker = task.worker ?? '–';
      holders.set(worker, [...(holders.get(worker) ?? []), task]);
    }
    const sorted = [...holders].sort(([one], [two]) => one.localeCompare(two));
    show(node, !FINAL.has(job.state));
    show(none, sorted.length === 0);
    show(more, hasMore);
    keyed(list, sorted, ([worker]) => worker, make, fill);
  }
  return { node, update };
}

/** Groups failures that share an error, the most frequent first. */
function grouped(failures) {
  const groups = new Map();
  for (const { task, error, committed_at: at } of failures) {
    const group = groups.get(error) ?? { error, tasks: [], last: at };
    group.tasks.push(task);
    if (at > group.last) group.last = at;
    groups.set(error, group);
  }
  return [...groups.values()].sort((one, two) => two.tasks.length - one.tasks.length || one.error.localeCompare(two.error));
}

function failuresPanel() {
  const groups = table(
    'Failures by error',
    [
      { label: 'Tasks', number: true, text: (group) => count(group.tasks.length) },
      { label: 'Error', head: true, class: 'error-text', text: (group) => group.error || '(no message)' },
      { label: 'For example task', text: (group) => group.tasks.slice(0, 3).join(', ') },
      { label: 'Last', text: (group) => ago(group.last), title: (group) => full(group.last) },
    ],
    (group) => group.error,
  );
  const more = h('p', { class: 'hint' });
  const node = h('section', { class: 'panel live', hidden: true }, h('h2', { text: 'Failures by error' }), groups.node, more);
  function update(job, failures, hasMore) {
    show(node, failures.length > 0);
    groups.update(grouped(failures).slice(0, SHOWN));
    setText(more, hasMore ? `Of the first ${count(failures.length)} failed tasks; all are in the report.` : '');
  }
  return { node, update };
}

export function jobFacts(id) {
  const [explain, workers, failures] = [explainPanel(), workersPanel(), failuresPanel()];
  const leaving = new AbortController();
  let askedAt = 0;
  let failuresAt = 0;
  let failuresOf = '';

  const tasksIn = (state, limit) => getIfThere(`/v1/jobs/${id}/tasks${query({ state, limit })}`, { signal: leaving.signal });

  async function refresh(job) {
    askedAt = Date.now();
    try {
      if (!FINAL.has(job.state)) {
        const [leased, retrying] = await Promise.all([tasksIn('leased', LEASED_READ), tasksIn('retrying', SHOWN)]);
        if (leaving.signal.aborted || !leased || !retrying) return;
        explain.update(job, [...leased.items, ...retrying.items]);
        workers.update(job, leased.items, Boolean(leased.next_cursor));
      } else {
        explain.update(job, []);
        workers.update(job, [], false);
      }
      const seen = `${job.run} ${job.progress.failed}`;
      if (seen !== failuresOf && (FINAL.has(job.state) || Date.now() - failuresAt >= FAILURES_EVERY_MS)) {
        const page = job.progress.failed === 0
          ? { items: [] }
          : await getIfThere(`/v1/jobs/${id}/results${query({ status: 'failed', limit: 500 })}`, { signal: leaving.signal });
        if (leaving.signal.aborted || !page) return;
        failures.update(job, page.items.filter((item) => !item.late), Boolean(page.next_cursor));
        failuresOf = seen;
        failuresAt = Date.now();
      }
    } catch {
      // The banner tells of a node that does not answer; what stood here before is shown as old with the rest.
    }
  }

  return {
    explain: explain.node,
    workers: workers.node,
    failures: failures.node,
    refresh,
    refreshIfOld(job) {
      if (Date.now() - askedAt >= EVERY_MS) refresh(job);
    },
    close: () => leaving.abort(),
  };
}
