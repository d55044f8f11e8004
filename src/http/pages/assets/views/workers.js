import { h } from '../dom.js';
export const workersView = () => ({ title: 'Workers', node: h('h1', { text: 'Workers' }) });
