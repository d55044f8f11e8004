import { h } from '../dom.js';
export function jobFacts() {
  const none = () => h('section', { hidden: true });
  return { explain: none(), failures: none(), workers: none(), refresh() {}, refreshIfOld() {}, close() {} };
}
