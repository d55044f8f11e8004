// The list of jobs: filters in the address, a page at a time, bars that move.

import { get, getIfThere, query } from '../api.js';
import { bar } from '../bar.js';
import { showConnection } from '../connection.js';
import { h, keyed, setAttribute, setText, show } from '../dom.js';
import { Feed } from '../feed.js';
import { FINAL, STATES, ago, count, decided, duration, full, percent, rate, stateName } from '../format.js';
import { stateBadge } from './state_badge.js';

const UNFINISHED = STATES.filter((state) => !FINAL.has(state));
const STATE_CHOICES = [
  ['', 'Any state'],
  [UNFINISHED.join(','), 'Not finished'],
  [STATES.filter((state) => FINAL.has(state)).join(','), 'Finished'],
  ...STATES.map((state) => [state, stateName(state)]),
];
/** Typing is waited for so long before it becomes a filter. */
const TYPING_MS = 250;
/** Lists are read anew at most so often when the stream says that jobs came, went or changed state. */
const RELIST_MS = 500;
/** The stream tells of the newest jobs only; a list that shows others is read anew so often. */
const BEYOND_MS = 3000;

function row() {
  const name = h('a', { class: 'job-link' });
  const sub = h('span', { class: 'sub' });
  const state = stateBadge();
  const tally = bar('');
  const share = h('span', { class: 'share' });
  const done = h('td', { role: 'cell', class: 'number done', 'data-label': 'Decided' });
  const failed = h('td', { role: 'cell', class: 'number failures', 'data-label': 'Failed' });
  const speed = h('td', { role: 'cell', class: 'number speed', 'data-label': 'Rate' });
  const left = h('td', { role: 'cell', class: 'number left', 'data-label': 'Time left' });
  const node = h(
    'tr',
    { role: 'row' },
    h('th', { role: 'rowheader', scope: 'row' }, name, sub),
    h('td', { role: 'cell', class: 'state-cell' }, state.node),
    h('td', { role: 'cell', class: 'bar-cell' }, h('div', { class: 'bar-and-share' }, tally.node, share)),
    done, failed, speed, left,
  );
  function update(job) {
    const { progress } = job;
    const final = FINAL.has(job.state);
    setText(name, job.name);
    setAttribute(name, 'href', `#/jobs/${job.id}`);
    setText(sub, `#${job.id} in ${job.queue}`);
    setAttribute(node, 'data-job', job.id);
    setAttribute(node, 'data-seq', progress.seq);
    state.update(job.state);
    setAttribute(tally.node, 'aria-label', `Job ${job.id}, ${job.name}`);
    tally.update(progress);
    setText(share, progress.fraction === null ? 'open' : percent(progress.fraction));
    setText(done, `${count(decided(progress))} / ${count(progress.total)}`);
    setText(failed, count(progress.failed));
    failed.classList.toggle('some', progress.failed > 0);
    setText(speed, job.state === 'running' ? rate(progress.rate_per_s) : '–');
    setText(left, final ? `ended ${ago(job.finished_at)}` : duration(progress.eta_s));
    left.classList.toggle('ended', final);
    setAttribute(left, 'data-label', final ? '' : 'Time left');
    setAttribute(left, 'title', final ? full(job.finished_at) : null);
  }
  return { node, update };
}

function teach() {
  return h(
    'section',
    { class: 'empty', hidden: true },
    h('h2', { text: 'No jobs yet' }),
    h('p', { text: 'A job holds tasks; workers lease them and post results. The shortest way to a first one is two commands: one submits a job, one works on it.' }),
    h('pre', {}, h('code', { text: `seq 1 1000 | tallykeeper submit --server ${location.origin} --name first --queue demo` })),
    h('pre', {}, h('code', { text: `tallykeeper work --server ${location.origin} --queue demo --exec 'sleep 0.1; echo {}'` })),
    h('p', {}, 'Programs use the ', h('a', { href: '/docs/', text: 'HTTP API' }), '. This list fills by itself.'),
  );
}

function filterForm(filter, onChange) {
  const text = h('input', { type: 'search', id: 'filter-text', value: filter.q, placeholder: 'Name contains…' });
  const state = h('select', { id: 'filter-state' });
  for (const [value, label] of STATE_CHOICES) state.append(h('option', { value, text: label }));
  if (!STATE_CHOICES.some(([value]) => value === filter.state)) {
    state.append(h('option', { value: filter.state, text: filter.state.replaceAll(',', ', ') }));
  }
  state.value = filter.state;
  const queues = h('datalist', { id: 'known-queues' });
  const queue = h('input', { type: 'text', id: 'filter-queue', value: filter.queue, placeholder: 'Any queue', list: 'known-queues' });
  getIfThere('/v1/queues')
    .then((list) => queues.append(...(list?.items ?? []).map((item) => h('option', { value: item.queue }))))
    .catch(() => {});
  let typing = null;
  const now = () => {
    clearTimeout(typing);
    onChange({ q: text.value.trim(), state: state.value, queue: queue.value.trim() });
  };
  const soon = () => {
    clearTimeout(typing);
    typing = setTimeout(now, TYPING_MS);
  };
  text.addEventListener('input', soon);
  queue.addEventListener('input', soon);
  state.addEventListener('change', now);
  const form = h(
    'form',
    { class: 'filters', role: 'search', 'aria-label': 'Filter jobs' },
    h('div', {}, h('label', { for: 'filter-text', text: 'Name' }), text),
    h('div', {}, h('label', { for: 'filter-state', text: 'State' }), state),
    h('div', {}, h('label', { for: 'filter-queue', text: 'Queue' }), queue, queues),
  );
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    now();
  });
  return form;
}

export function jobsView(search) {
  const given = new URLSearchParams(search);
  let filter = { q: given.get('q') ?? '', state: given.get('state') ?? '', queue: given.get('queue') ?? '' };
  let cursor = given.get('cursor') ?? '';
  let jobs = new Map();
  let nextCursor = null;
  let feed = null;
  let relisting = null;
  /** Ids that the stream tells of. */
  let streamed = new Set();

  const body = h('tbody', { role: 'rowgroup' });
  const column = (text, kind = '') => h('th', { role: 'columnheader', scope: 'col', class: kind, text });
  const table = h(
    'table',
    { class: 'jobs live', role: 'table', 'aria-label': 'Jobs' },
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, column('Job'), column('State'), column('Progress'),
      column('Decided', 'number'), column('Failed', 'number'), column('Rate', 'number'), column('Time left', 'number'))),
    body,
  );
  const lesson = teach();
  const none = h('p', { class: 'nothing', hidden: true, text: 'No job matches these filters.' });
  const problem = h('p', { class: 'problem', role: 'alert' });
  const newest = h('a', { class: 'button', text: 'Newest' });
  const older = h('a', { class: 'button', text: 'Older jobs' });
  const pages = h('nav', { class: 'pages', 'aria-label': 'Pages' }, newest, older);

  const address = (at) => `#/jobs${query({ ...filter, cursor: at })}`;

  function paint() {
    const items = [...jobs.values()].sort((one, two) => two.id - one.id);
    keyed(body, items, (job) => job.id, row, (entry, job) => entry.update(job));
    const filtered = filter.q || filter.state || filter.queue || cursor;
    show(table, items.length > 0);
    show(none, items.length === 0 && Boolean(filtered));
    show(lesson, items.length === 0 && !filtered);
    show(newest, cursor !== '');
    show(older, nextCursor !== null);
    newest.href = address('');
    older.href = address(nextCursor ?? '');
  }

  async function list(options) {
    const asked = JSON.stringify([filter, cursor]);
    try {
      const answer = await get(`/v1/jobs${query({ ...filter, cursor })}`, options);
      if (asked !== JSON.stringify([filter, cursor])) return;
      jobs = new Map(answer.items.map((job) => [job.id, newer(jobs.get(job.id), job)]));
      nextCursor = answer.next_cursor ?? null;
      problem.textContent = '';
      paint();
    } catch (error) {
      if (error.status >= 400 && error.status < 500) problem.textContent = error.message;
      throw error;
    }
  }

  function relistSoon() {
    relisting ??= setTimeout(() => {
      relisting = null;
      list().catch(() => {});
    }, RELIST_MS);
  }

  function hear({ type, id, ...message }) {
    if (type === 'listed') return;
    if (type === 'gone') {
      streamed.delete(id);
      if (jobs.has(id)) relistSoon();
      return;
    }
    streamed.add(id);
    const known = jobs.get(id);
    if (!known) {
      if (cursor === '' && type !== 'progress') relistSoon();
      return;
    }
    if (message.job) jobs.set(id, newer(known, message.job));
    else jobs.set(id, newer(known, { ...known, progress: message.progress }));
    if (jobs.get(id).state !== known.state) relistSoon();
    paint();
  }

  function watch() {
    feed?.close();
    feed = new Feed({
      path: `/v1/progress${query({ state: filter.state, queue: filter.queue })}`,
      poll: list,
      onMessage: hear,
      onStatus(status) {
        if (status.state !== 'live') streamed = new Set();
        showConnection(status, feed?.retryNow);
      },
    });
    list().catch(() => {});
  }

  const beyond = setInterval(() => {
    const isBeyond = (job) => !FINAL.has(job.state) && !streamed.has(job.id);
    if (document.documentElement.dataset.connection === 'live' && [...jobs.values()].some(isBeyond)) list().catch(() => {});
  }, BEYOND_MS);

  const form = filterForm(filter, (next) => {
    filter = next;
    cursor = '';
    history.replaceState(null, '', address(''));
    watch();
  });
  const node = h(
    'section', {},
    h('h1', { text: 'Jobs' }), form, problem, table, none, lesson, pages,
  );
  show(table, false);
  show(pages.firstChild, false);
  show(older, false);
  watch();
  return {
    title: 'Jobs',
    node,
    close() {
      clearTimeout(relisting);
      clearInterval(beyond);
      feed.close();
    },
  };
}

/** The later of two views of one job: a list that was read before a message came must not undo it. */
function newer(known, job) {
  if (!known || job.run !== known.run) return known && job.run < known.run ? known : job;
  return job.progress.seq < known.progress.seq ? known : job;
}
