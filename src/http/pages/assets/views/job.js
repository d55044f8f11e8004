// One job: its tally as it moves, how fast, how far, and what can be done about it.

import { download, get, token } from '../api.js';
import { bar, legend, meter } from '../bar.js';
import { showConnection } from '../connection.js';
import { announce, h, keyed, setAttribute, setText, show } from '../dom.js';
import { Feed } from '../feed.js';
import { FINAL, ago, count, decided, duration, full, percent, rate, stateName } from '../format.js';
import { Throughput, plot } from '../plot.js';
import { jobActions } from './job_actions.js';
import { jobCallback } from './job_callback.js';
import { jobFacts } from './job_facts.js';
import { jobLogs } from './job_logs.js';
import { stateBadge } from './state_badge.js';

function pair(label) {
  const value = h('dd', { text: '–' });
  const node = h('div', {}, h('dt', { text: label }), value);
  return { node, set: (text) => setText(value, text), value };
}

/** The big numbers: share, bar, legend. */
function tallyPanel(id) {
  const share = h('span', { class: 'tally-share' });
  const words = h('span', { class: 'sub' });
  const tally = bar(`Job ${id}`, true);
  const parts = legend();
  const node = h(
    'section',
    { class: 'panel tally live', 'aria-label': 'Tally' },
    h('div', { class: 'tally-head' }, share, words), tally.node, parts.node,
  );
  function update({ progress, open }) {
    setText(share, progress.fraction === null ? count(decided(progress)) : percent(progress.fraction));
    const of = `${count(decided(progress))} of ${count(progress.total)} tasks decided`;
    setText(words, open ? `${of}, open to more` : of);
    setAttribute(node, 'data-seq', progress.seq);
    tally.update(progress);
    parts.update(progress);
  }
  return { node, update };
}

/** Rate, time left, time spent, and the plot. */
function pacePanel() {
  const [speed, left, spent] = [pair('Rate'), pair('Time left'), pair('Running for')];
  const picture = plot();
  const history = new Throughput();
  let drawn = 0;
  const node = h(
    'section',
    { class: 'panel live', 'aria-label': 'Throughput' },
    h('h2', { text: 'Throughput' }),
    h('dl', { class: 'pace' }, speed.node, left.node, spent.node), picture.node,
  );
  function update(job) {
    const final = FINAL.has(job.state);
    const spentS = job.started_at
      ? ((job.finished_at ? Date.parse(job.finished_at) : Date.now()) - Date.parse(job.started_at)) / 1000
      : null;
    // Of a finished job the one honest rate is the mean of its whole run.
    setText(speed.node.firstChild, final ? 'Mean rate' : 'Rate');
    speed.set(final ? rate(spentS > 0 ? decided(job.progress) / spentS : null) : rate(job.progress.rate_per_s));
    left.set(final ? '–' : duration(job.progress.eta_s));
    setText(spent.node.firstChild, final ? 'Took' : 'Running for');
    spent.set(duration(spentS));
    if (history.points.length !== drawn || drawn === 0) {
      drawn = history.points.length;
      picture.update(history.points);
    }
    show(picture.node, !final || history.points.length > 1);
  }
  // Only words of the node make points: a clock that ticks here has learnt nothing.
  return { node, update, hear: ({ progress }) => history.record(progress), cut: () => history.cut() };
}

function stagesPanel() {
  const list = h('ul', { class: 'stages' });
  const node = h('section', { class: 'panel live', hidden: true }, h('h2', { text: 'Stages' }), list);
  function make(stage) {
    const name = h('span', {});
    const tally = meter(stage.name);
    const numbers = h('span', { class: 'number sub' });
    return {
      node: h('li', { 'data-stage': stage.key }, name, tally.node, numbers),
      update(now) {
        setText(name, now.name);
        tally.update(now.reached, now.total);
        setText(numbers, `${count(now.reached)} / ${count(now.total)}`);
      },
    };
  }
  return {
    node,
    update({ progress }) {
      show(node, progress.stages.length > 0);
      keyed(list, progress.stages, (stage) => stage.key, make, (entry, stage) => entry.update(stage));
    },
  };
}

function countersPanel() {
  const list = h('dl', { class: 'pairs inline' });
  const node = h('section', { class: 'panel live', hidden: true }, h('h2', { text: 'Counters' }), list);
  return {
    node,
    update({ progress }) {
      const entries = Object.entries(progress.counters);
      show(node, entries.length > 0);
      keyed(list, entries, ([name]) => name, ([name]) => pair(name), (entry, [, value]) => entry.set(count(value)));
    },
  };
}

const threshold = ({ failure_threshold: limit }) =>
  limit.count === undefined ? `more than ${percent(limit.ratio)} fail` : `more than ${count(limit.count)} fail`;

function detailsPanel() {
  const list = h('dl', { class: 'pairs' });
  const node = h('section', { class: 'panel' }, h('h2', { text: 'Details' }), list);
  function facts(job) {
    const { policy } = job;
    return [
      ['Created', full(job.created_at)],
      ['Started', full(job.started_at)],
      ['Finished', full(job.finished_at)],
      ['Priority', count(job.priority)],
      ['Attempts per task', count(policy.max_attempts)],
      ['Lease lasts', duration(policy.lease_timeout_s)],
      ['Counts as failed if', threshold(policy)],
      policy.max_in_flight && ['Leased at once, at most', count(policy.max_in_flight)],
      job.node && ['Node', `${job.node}, epoch ${job.epoch}`],
      ...Object.entries(job.labels).map(([name, value]) => [name, value || '–']),
    ].filter(Boolean);
  }
  return {
    node,
    update(job) {
      keyed(list, facts(job), ([name]) => name, ([name]) => pair(name), (entry, [, value]) => entry.set(value));
    },
  };
}

function filesPanel(id) {
  const status = h('p', { class: 'hint', role: 'status' });
  const fetched = (label, path, name, accept) => h('button', {
    type: 'button', class: 'button', text: label,
    async onclick() {
      try {
        await download(path, name, accept, (bytes) => setText(status, `${(bytes / 1e6).toFixed(1)} MB received`));
      } catch (error) {
        setText(status, error.message);
      }
    },
  });
  const report = h('a', {
    class: 'button', href: `/v1/jobs/${id}/report`, target: '_blank', text: 'Report',
    // A link cannot carry a token, so with one the report is fetched and saved.
    onclick(event) {
      if (!token()) return;
      event.preventDefault();
      download(`/v1/jobs/${id}/report`, `job-${id}-report.html`, 'text/html').catch((error) => setText(status, error.message));
    },
  });
  return h(
    'section',
    { class: 'panel' },
    h('h2', { text: 'Take away' }),
    h('div', { class: 'actions' },
      fetched('Results (NDJSON)', `/v1/jobs/${id}/results`, `job-${id}-results.ndjson`, 'application/x-ndjson'), report),
    status,
  );
}

function headOf(id, onChanged, onDeleted) {
  const title = h('h1', { text: `Job ${id}` });
  const state = stateBadge();
  const [number, queue, run, age] = [h('span', { text: `#${id}` }), h('span', {}), h('span', {}), h('span', {})];
  const error = h('p', { class: 'problem' });
  const actions = jobActions(onChanged, onDeleted);
  const node = h(
    'div', {},
    h('nav', { class: 'crumbs', 'aria-label': 'Breadcrumb' }, h('a', { href: '#/jobs', text: 'Jobs' }), ` / ${id}`),
    h('div', { class: 'job-head' },
      h('div', {}, title, h('div', { class: 'facts' }, state.node, number, queue, run, age), error), actions.node),
  );
  function update(job) {
    setText(title, job.name);
    state.update(job.state);
    setText(queue, `queue ${job.queue}`);
    setText(run, `run ${job.run}`);
    setText(age, job.finished_at ? `finished ${ago(job.finished_at)}` : `created ${ago(job.created_at)}`);
    setText(error, job.error ? (job.error.message ?? job.error.code ?? '') : '');
    actions.update(job);
  }
  return { node, update };
}

export function jobView(id) {
  let job = null;
  let feed = null;
  const problem = h('p', { class: 'problem', role: 'alert' });
  const head = headOf(id, (changed) => take(changed, true), () => {
    feed?.close();
    location.hash = '#/jobs';
  });
  const pace = pacePanel();
  const facts = jobFacts(id);
  const logs = jobLogs(id);
  const callback = jobCallback(id);
  const panels = [head, tallyPanel(id), pace, stagesPanel(), countersPanel(), detailsPanel(), callback];
  const [, tally, , stages, counters, details] = panels;
  const body = h(
    'div',
    { class: 'columns', hidden: true },
    h('div', { class: 'column' }, tally.node, pace.node, stages.node, facts.explain, facts.failures, logs.node),
    h('div', { class: 'column' }, filesPanel(id), counters.node, facts.workers, details.node, callback.node),
  );
  const node = h('article', {}, head.node, problem, body);

  function take(next, isAnswer = false) {
    const known = job;
    if (known && next.run < known.run) return;
    if (known && next.run === known.run && next.progress.seq < known.progress.seq) return;
    job = next;
    if (!FINAL.has(job.state) || known) pace.hear(job);
    show(body, true);
    for (const panel of panels) panel.update(job);
    facts.say(job);
    document.title = `${FINAL.has(job.state) ? stateName(job.state) : percent(job.progress.fraction)} · ${job.name} · Tallykeeper`;
    if (known && known.state !== job.state) {
      announce(`The job is ${stateName(job.state)}.`);
      facts.refresh(job);
      // A finished job's stream has ended; a new run has a new one.
      if (FINAL.has(known.state) && !FINAL.has(job.state)) feed?.retryNow();
    }
    if (!known) {
      facts.refresh(job);
      logs.start();
    }
    if (isAnswer) problem.textContent = '';
  }

  function hear(message) {
    if (message.job) take(message.job);
    else if (job && message.progress) take({ ...job, progress: message.progress });
  }

  async function poll(options) {
    try {
      take(await get(`/v1/jobs/${id}`, options));
      problem.textContent = '';
    } catch (error) {
      if (error.status === 404) {
        problem.textContent = 'There is no such job, or the token may not see it.';
        feed?.close();
        showConnection({ state: 'idle' });
      }
      throw error;
    }
  }

  const ticking = setInterval(() => {
    if (!job || document.documentElement.dataset.connection === 'stale') return;
    head.update(job);
    pace.update(job);
    if (!FINAL.has(job.state)) facts.refreshIfOld(job);
  }, 1000);

  function onStatus(status) {
    if (status.state === 'stale') pace.cut();
    showConnection(status, feed?.retryNow);
    if (status.state === 'ended') facts.refresh(job);
  }
  // The plain call first: it tells a job that does not exist from a node that does not answer.
  const leaving = new AbortController();
  const watch = (error) => {
    if (leaving.signal.aborted || error?.status === 404) return;
    if (error?.status === 403) problem.textContent = error.message;
    else feed = new Feed({ path: `/v1/jobs/${id}/progress`, poll, onMessage: hear, onStatus });
  };
  poll({ signal: leaving.signal }).then(() => watch(), watch);
  return {
    title: `Job ${id}`,
    node,
    close() {
      leaving.abort();
      clearInterval(ticking);
      logs.close();
      facts.close();
      callback.close();
      feed?.close();
    },
  };
}
