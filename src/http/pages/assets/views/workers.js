// The workers: who was seen when, what each holds, and what each has done.

import { h, show } from '../dom.js';
import { ago, count, full, plural } from '../format.js';
import { poller } from '../poller.js';
import { table } from '../table.js';

const standing = (worker) => {
  if (worker.waiting) return 'waiting for work';
  return worker.alive ? 'alive' : 'not seen lately';
};

const holding = (worker) => {
  if (worker.held === 0) return null;
  return `${plural(worker.held, 'task')} of ${worker.holds.map((held) => `#${held.job}`).join(', ')}`;
};

export function workersView() {
  const list = table(
    'Workers',
    [
      { label: 'Worker', head: true, text: (worker) => worker.worker },
      { label: 'Standing', text: standing },
      { label: 'Holds', text: holding },
      { label: 'Queues', text: (worker) => worker.queues.join(', ') },
      { label: 'Done', number: true, text: (worker) => count(worker.done) },
      { label: 'Failed', number: true, text: (worker) => count(worker.failed) },
      { label: 'Last seen', number: true, text: (worker) => ago(worker.last_seen), title: (worker) => full(worker.last_seen) },
    ],
    (worker) => worker.worker,
  );
  const none = h('p', { class: 'nothing', hidden: true, text: 'No worker has called since this node started.' });
  const problem = h('p', { class: 'problem', role: 'alert' });
  const intro = h('p', { class: 'intro', text: 'Every call of a worker is a sign of life. What is counted here is counted since it was first seen; the tally of a job is exact whatever happens to its workers.' });
  list.node.classList.add('live');
  show(list.node, false);
  const asking = poller('/v1/workers', (answer) => {
    list.update(answer.items);
    show(list.node, answer.items.length > 0);
    show(none, answer.items.length === 0);
  }, (error) => {
    problem.textContent = error.message;
  });
  return {
    title: 'Workers',
    node: h('section', {}, h('h1', { text: 'Workers' }), intro, problem, list.node, none),
    close: asking.close,
  };
}
