// The stacked bar: five parts in a fixed order that always add up to the total.

import { h, setAttribute, setText } from './dom.js';
import { PARTS, count, decided, percent } from './format.js';

function sentence(progress) {
  const parts = PARTS.filter((part) => progress[part] > 0).map((part) => `${count(progress[part])} ${part}`);
  const share = progress.fraction === null ? 'open job' : `${percent(progress.fraction)} decided`;
  return `${share}; ${parts.join(', ') || 'no tasks'}`;
}

/** Makes a bar; `update(progress)` moves it. `label` names it to screen readers. */
export function bar(label, large = false) {
  const segments = PARTS.map((part) => h('span', { class: `segment ${part}`, 'data-part': part }));
  const node = h(
    'div',
    { class: large ? 'bar large' : 'bar', role: 'progressbar', 'aria-label': label, 'aria-valuemin': 0 },
    ...segments,
  );
  function update(progress) {
    segments.forEach((segment, at) => {
      const value = progress[PARTS[at]];
      segment.style.flexGrow = value;
      segment.hidden = value === 0;
    });
    setAttribute(node, 'aria-valuemax', Math.max(progress.total, 1));
    setAttribute(node, 'aria-valuenow', decided(progress));
    setAttribute(node, 'aria-valuetext', sentence(progress));
  }
  return { node, update };
}

/** The legend with the five numbers. */
export function legend() {
  const values = new Map();
  const node = h(
    'dl',
    { class: 'legend' },
    ...PARTS.map((part) => {
      const value = h('dd', { 'data-count': part, text: '–' });
      values.set(part, value);
      return h('div', {}, h('dt', {}, h('span', { class: `swatch ${part}`, 'aria-hidden': 'true' }), part), value);
    }),
  );
  return { node, update: (progress) => PARTS.forEach((part) => setText(values.get(part), count(progress[part]))) };
}

/** A plain bar for a single share, such as a stage. */
export function meter(label) {
  const fill = h('span', { class: 'segment reached' });
  const rest = h('span', { class: 'segment pending' });
  const node = h('div', { class: 'bar thin', role: 'progressbar', 'aria-label': label, 'aria-valuemin': 0 }, fill, rest);
  function update(reached, total) {
    fill.style.flexGrow = reached;
    fill.hidden = reached === 0;
    rest.style.flexGrow = Math.max(total - reached, 0);
    rest.hidden = total > 0 && reached >= total;
    setAttribute(node, 'aria-valuemax', Math.max(total, 1));
    setAttribute(node, 'aria-valuenow', reached);
    setAttribute(node, 'aria-valuetext', `${count(reached)} of ${count(total)}`);
  }
  return { node, update };
}
