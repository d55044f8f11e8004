// A job's log: its newest entries, then each new one as it is written.

import { getIfThere, query } from '../api.js';
import { h, keyed, setText, show } from '../dom.js';
import { clock, full } from '../format.js';

const TAIL_MS = 2000;
const PAGE = 200;
/** Entries kept on the screen; the older ones stay in the log. */
const KEPT = 1000;

function line(entry) {
  const who = [entry.worker, entry.task !== null && entry.task !== undefined && `task ${entry.task}`].filter(Boolean).join(', ');
  return {
    node: h(
      'li', { 'data-level': entry.level },
      h('time', { class: 'quiet', datetime: entry.at, title: full(entry.at), text: clock(entry.at) }),
      h('span', { class: 'level', text: entry.level }),
      h('span', { class: 'message' }, entry.message, who && h('span', { class: 'quiet', text: `  ${who}` })),
    ),
  };
}

export function jobLogs(id) {
  const list = h('ol', { class: 'log', tabindex: '0', 'aria-label': 'Log entries, newest last' });
  const none = h('p', { class: 'hint', text: 'Nothing was logged.' });
  const level = h(
    'select', { id: 'log-level' },
    h('option', { value: '', text: 'all' }), ...['info', 'warn', 'error'].map((value) => h('option', { value, text: value })),
  );
  const node = h(
    'section', { class: 'panel live', hidden: true },
    h('div', { class: 'panel-head' }, h('h2', { text: 'Log' }), h('span', {}, h('label', { for: 'log-level', text: 'From level ' }), level)),
    list, none,
  );
  const leaving = new AbortController();
  let entries = [];
  let after = null;
  let timer = null;
  let asked = 0;

  async function read() {
    clearTimeout(timer);
    asked += 1;
    const mine = asked;
    let page = null;
    try {
      page = await getIfThere(`/v1/jobs/${id}/logs${query({ after, level: level.value, limit: PAGE })}`, { signal: leaving.signal });
    } catch {
      // The banner tells of a node that does not answer; the tail goes on when it does again.
      if (!leaving.signal.aborted) timer = setTimeout(read, TAIL_MS);
      return;
    }
    if (leaving.signal.aborted || mine !== asked || page === null) return;
    show(node, true);
    if (page.items.length > 0) {
      const follows = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
      entries = entries.concat(page.items).slice(-KEPT);
      after = page.items.at(-1).id;
      keyed(list, entries, (entry) => entry.id, line, () => {});
      // Whoever scrolled up to read is left there.
      if (follows) list.scrollTop = list.scrollHeight;
    }
    show(list, entries.length > 0);
    show(none, entries.length === 0);
    setText(none, level.value ? `Nothing was logged from level ${level.value} on.` : 'Nothing was logged.');
    timer = setTimeout(read, page.items.length === PAGE ? 0 : TAIL_MS);
  }

  level.addEventListener('change', () => {
    entries = [];
    after = null;
    keyed(list, [], (entry) => entry.id, line, () => {});
    read();
  });
  return {
    node,
    start: read,
    close() {
      leaving.abort();
      clearTimeout(timer);
    },
  };
}
