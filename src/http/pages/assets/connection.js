// The connection as people see it: a word in the header, and a banner with the moment since which numbers are old.

import { announce, h, setText, show } from './dom.js';
import { clock, roughly } from './format.js';

const WORDS = {
  idle: '', connecting: 'Connecting', live: 'Live', polling: 'Polling', stale: 'Not live', locked: 'No token', ended: 'Final',
};

const word = document.getElementById('connection');
const banner = document.getElementById('banner');
const why = h('span', {});
const again = h('button', { type: 'button', class: 'button small', text: 'Try now', onclick: () => retry?.() });
banner.append(why, again);

let status = { state: 'idle' };
let retry = null;
let announced = 'idle';

/** Shows a feed's status; `retryNow` is what the banner's button does. */
export function showConnection(next, retryNow = null) {
  status = next;
  retry = retryNow;
  paint();
  const lost = status.state === 'stale';
  // Only the turns are said aloud: losing the node, and having it back.
  if (lost && announced !== 'stale') announce('Connection lost. The numbers shown are old.');
  if (!lost && announced === 'stale' && (status.state === 'live' || status.state === 'polling')) announce('Connected again.');
  if (lost || status.state === 'live' || status.state === 'polling') announced = status.state;
}

function paint() {
  const { state, since, retryAt, error } = status;
  setText(word, WORDS[state]);
  word.dataset.state = state;
  const stale = state === 'stale';
  document.documentElement.dataset.connection = state;
  show(banner, stale);
  if (!stale) return;
  const age = since ? `Not live since ${clock(since)}, ${roughly((Date.now() - since) / 1000)} ago.` : 'The node does not answer.';
  const reason = error?.status > 0 ? ` ${error.message}.` : '';
  const wait = Math.ceil((retryAt - Date.now()) / 1000);
  setText(why, `${age}${reason} ${wait > 0 ? `Trying again in ${wait} s.` : 'Trying again.'}`);
}

setInterval(() => status.state === 'stale' && paint(), 1000);
