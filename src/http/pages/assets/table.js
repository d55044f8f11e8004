// A plain table whose rows keep their nodes from one answer to the next.

import { h, keyed, setAttribute, setText } from './dom.js';

/**
 * `columns`: { label, number?, text(item), link?(item), title?(item), head? }; the one with `head` names its row.
 * A text may be null for "nothing to say".
 */
export function table(label, columns, keyOf) {
  const body = h('tbody');
  const node = h(
    'div', { class: 'scroller', role: 'region', 'aria-label': label, tabindex: '0' },
    h('table', { 'aria-label': label },
      h('thead', {}, h('tr', {}, ...columns.map((column) => h('th', { scope: 'col', class: column.number ? 'number' : null, text: column.label })))),
      body),
  );
  function make() {
    const cells = columns.map((column) => {
      const inner = column.link ? h('a', { class: column.class ?? null }) : h('span', { class: column.class ?? null });
      const cell = h(column.head ? 'th' : 'td', { class: column.number ? 'number' : null, scope: column.head ? 'row' : null }, inner);
      return { cell, inner };
    });
    return { node: h('tr', {}, ...cells.map(({ cell }) => cell)), cells };
  }
  function fill({ cells }, item) {
    columns.forEach((column, at) => {
      const { inner } = cells[at];
      setText(inner, column.text(item) ?? '–');
      if (column.link) setAttribute(inner, 'href', column.link(item));
      if (column.title) setAttribute(inner, 'title', column.title(item));
    });
  }
  return { node, update: (items) => keyed(body, items, keyOf, make, fill) };
}
