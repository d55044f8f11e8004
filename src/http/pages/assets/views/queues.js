import { h } from '../dom.js';
export const queuesView = () => ({ title: 'Queues', node: h('h1', { text: 'Queues' }) });
