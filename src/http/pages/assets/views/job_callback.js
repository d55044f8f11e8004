// Whether somebody was told of a job's end: asked for once it has ended, and again while that is still to be done.

import { getIfThere, send } from '../api.js';
import { h, setText, show } from '../dom.js';
import { FINAL, full, plural, roughly } from '../format.js';

const EVERY_MS = 3000;

function standing({ state, attempts, next_at: next, delivered_at: delivered, given_up_at: givenUp }) {
  const tried = plural(attempts, 'attempt');
  if (state === 'delivered') return `Delivered ${full(delivered)}, at attempt ${attempts}.`;
  if (state === 'failed') return `Given up ${full(givenUp)}, after ${tried}.`;
  const wait = (Date.parse(next) - Date.now()) / 1000;
  return `Not delivered after ${tried}; next ${wait > 0 ? `in ${roughly(wait)}` : 'now'}.`;
}

export function jobCallback(id) {
  const path = `/v1/jobs/${id}/callbacks`;
  const leaving = new AbortController();
  const [words, url, problem] = [h('p'), h('p', { class: 'sub' }), h('p', { class: 'problem', role: 'status' })];
  const again = h('button', { type: 'button', class: 'button', text: 'Send again', onclick: redeliver });
  const node = h(
    'section', { class: 'panel', hidden: true, 'aria-label': 'Callback' },
    h('h2', { text: 'Callback' }), words, url, problem, h('div', { class: 'actions' }, again),
  );
  let run = null;
  let shown = null;
  let timer = null;

  function say(callback) {
    shown = callback;
    show(node, true);
    node.dataset.state = callback.state;
    setText(words, standing(callback));
    setText(url, callback.url);
    setText(problem, callback.last_error ?? '');
  }

  async function look() {
    clearTimeout(timer);
    try {
      const list = await getIfThere(`${path}?limit=1`, { signal: leaving.signal });
      const last = list?.items[0];
      if (leaving.signal.aborted || run === null || last?.run !== run) return;
      say(last);
      if (last.state !== 'pending') return;
    } catch {
      // The banner tells of a node that does not answer.
    }
    if (!leaving.signal.aborted && run !== null) timer = setTimeout(look, EVERY_MS);
  }

  async function redeliver() {
    again.disabled = true;
    try {
      say(await send('POST', `${path}/${shown.id}/redeliver`, {}));
      await look();
    } catch (error) {
      setText(problem, error.message);
    } finally {
      again.disabled = false;
    }
  }

  return {
    node,
    update(job) {
      const ended = FINAL.has(job.state) ? job.run : null;
      if (ended === run) return;
      run = ended;
      show(node, false);
      if (run !== null) look();
    },
    close() {
      leaving.abort();
      clearTimeout(timer);
    },
  };
}
