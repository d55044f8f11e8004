// How numbers, durations and moments are written. Widths stay put: tabular figures and fixed digits.

const whole = new Intl.NumberFormat('en');

export const count = (value) => (value === null || value === undefined ? '–' : whole.format(value));

export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/** A share from 0 to 1. Rounded down: 100 % is only written when it is true, and 0 % only when nothing is done. */
export function percent(share, digits = 0) {
  if (share === null || share === undefined) return '–';
  const scale = 10 ** digits;
  const value = Math.floor(share * 100 * scale + 1e-9) / scale;
  if (share > 0 && value === 0) return `<${(1 / scale).toFixed(digits)}%`;
  return `${value.toFixed(digits)}%`;
}

/** Tasks per second, or per minute or hour where that reads better. */
export function rate(perSecond) {
  if (perSecond === null || perSecond === undefined) return '–';
  if (perSecond >= 100) return `${whole.format(Math.round(perSecond))}/s`;
  if (perSecond >= 1) return `${perSecond.toFixed(1)}/s`;
  if (perSecond * 60 >= 1) return `${(perSecond * 60).toFixed(1)}/min`;
  if (perSecond * 3600 >= 0.1) return `${(perSecond * 3600).toFixed(1)}/h`;
  return '0/s';
}

/** A duration in its two largest units. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return '–';
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${String(s % 60).padStart(2, '0')} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, '0')} min`;
  return `${whole.format(Math.floor(s / 86400))} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** A duration in its largest unit. */
export function roughly(seconds) {
  const s = Math.max(0, seconds);
  if (s < 60) return `${Math.round(s)} s`;
  if (s < 3600) return `${Math.round(s / 60)} min`;
  if (s < 86400) return `${Math.round(s / 3600)} h`;
  return `${whole.format(Math.round(s / 86400))} d`;
}

export function ago(moment, now = Date.now()) {
  if (!moment) return '–';
  const seconds = (now - Date.parse(moment)) / 1000;
  if (seconds < 5) return 'just now';
  return `${roughly(seconds)} ago`;
}

const clockFormat = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const fullFormat = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'medium' });

export const clock = (moment) => clockFormat.format(new Date(moment));
export const full = (moment) => (moment ? fullFormat.format(new Date(moment)) : '–');

export const STATES = [
  'pending', 'running', 'paused', 'canceling', 'succeeded', 'partially_succeeded', 'failed', 'canceled',
];
export const FINAL = new Set(['succeeded', 'partially_succeeded', 'failed', 'canceled']);
export const stateName = (state) => state.replaceAll('_', ' ');

/** The five places a task can be in, in the order every bar shows them. */
export const PARTS = ['succeeded', 'failed', 'leased', 'retrying', 'pending'];

export const decided = (progress) => progress.succeeded + progress.failed;
