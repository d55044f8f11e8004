// A job's state as a word with a mark: never by colour alone.

import { h, setAttribute, setText } from '../dom.js';
import { stateName } from '../format.js';

export function stateBadge() {
  const word = h('span', {});
  const node = h('span', { class: 'state' }, h('span', { class: 'dot', 'aria-hidden': 'true' }), word);
  return {
    node,
    update(state) {
      setAttribute(node, 'data-state', state);
      setText(word, stateName(state));
    },
  };
}
