// Throughput over time, from what was seen while watching. A gap in the watching is a gap in the line, never a guess.

import { h, setAttribute, setText, svg } from './dom.js';
import { decided, duration, rate } from './format.js';

const WIDTH = 600;
const HEIGHT = 96;
/** Points kept; when they are full, neighbours are merged and the step doubles. */
const POINTS = 240;
const STEP_MS = 1000;

/** Collects (moment, decided) and makes rates of it. */
export class Throughput {
  #stepMs = STEP_MS;
  #points = [];
  #last = null;

  /** A progress heard at `now`. */
  record(progress, now = Date.now()) {
    const done = decided(progress);
    if (!this.#last || done < this.#last.done) {
      // The first word, or a new run: nothing to compare with.
      this.#last = { now, done };
      return;
    }
    const elapsed = now - this.#last.now;
    if (elapsed < this.#stepMs) return;
    this.#points.push({ from: this.#last.now, to: now, perS: ((done - this.#last.done) * 1000) / elapsed });
    this.#last = { now, done };
    if (this.#points.length > POINTS) this.#merge();
  }

  /** The line was cut: what happens until the next word is not known. */
  cut() {
    this.#last = null;
  }

  get points() {
    return this.#points;
  }

  #merge() {
    const merged = [];
    for (let at = 0; at < this.#points.length; at += 1) {
      const [one, two] = [this.#points[at], this.#points[at + 1]];
      if (!two || two.from !== one.to) {
        merged.push(one);
        continue;
      }
      const done = one.perS * (one.to - one.from) + two.perS * (two.to - two.from);
      merged.push({ from: one.from, to: two.to, perS: done / (two.to - one.from) });
      at += 1;
    }
    this.#points = merged;
    this.#stepMs *= 2;
  }
}

/** A ceiling that is easy to read: 1, 2 or 5 times a power of ten. */
function ceiling(value) {
  if (value <= 0) return 1;
  const scale = 10 ** Math.floor(Math.log10(value));
  return scale * [1, 2, 5, 10].find((step) => step * scale >= value * 0.999);
}

/** Makes the plot; `update(points)` draws it. */
export function plot() {
  const area = svg('path', { class: 'plot-area' });
  const line = svg('path', { class: 'plot-line' });
  const middle = svg('line', { class: 'plot-grid', x1: 0, x2: WIDTH, y1: HEIGHT / 2, y2: HEIGHT / 2 });
  const top = svg('line', { class: 'plot-grid', x1: 0, x2: WIDTH, y1: 0.5, y2: 0.5 });
  const base = svg('line', { class: 'plot-base', x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 });
  const picture = svg(
    'svg',
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img' },
    top, middle, area, line, base,
  );
  const most = h('span', { class: 'plot-most' });
  const start = h('span', {});
  const note = h('p', { class: 'plot-note', text: 'Collecting while you watch.' });
  const node = h(
    'div',
    { class: 'plot' },
    h('div', { class: 'plot-frame' }, picture, most, note),
    h('div', { class: 'plot-axis', 'aria-hidden': 'true' }, start, h('span', { text: 'now' })),
  );
  function update(points) {
    note.hidden = points.length > 1;
    picture.style.visibility = points.length > 1 ? 'visible' : 'hidden';
    if (points.length < 2) {
      setAttribute(picture, 'aria-label', 'Throughput over time: nothing seen yet');
      return;
    }
    const from = points[0].from;
    const span = Math.max(points.at(-1).to - from, 1);
    const peak = Math.max(...points.map((point) => point.perS));
    const high = ceiling(peak);
    const x = (moment) => (((moment - from) / span) * WIDTH).toFixed(1);
    const y = (perS) => (HEIGHT - 1 - (perS / high) * (HEIGHT - 4)).toFixed(1);
    let [strokes, fills] = ['', ''];
    let previous = null;
    for (const point of points) {
      if (previous?.to === point.from) {
        strokes += `V${y(point.perS)}H${x(point.to)}`;
      } else {
        if (previous) fills += `V${HEIGHT}Z`;
        strokes += `M${x(point.from)},${y(point.perS)}H${x(point.to)}`;
        fills += `M${x(point.from)},${HEIGHT}`;
      }
      fills += `V${y(point.perS)}H${x(point.to)}`;
      previous = point;
    }
    setAttribute(line, 'd', strokes);
    setAttribute(area, 'd', `${fills}V${HEIGHT}Z`);
    setText(most, rate(high));
    setText(start, `${duration(span / 1000)} ago`);
    const words = `Throughput over ${duration(span / 1000)}: now ${rate(points.at(-1).perS)}, at most ${rate(peak)}`;
    setAttribute(picture, 'aria-label', words);
  }
  return { node, update };
}
