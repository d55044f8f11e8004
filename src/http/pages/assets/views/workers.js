// The workers: who was seen when, what each holds, and what each has done.

import { ago, count, full, plural } from '../format.js';
import { polledList } from './polled_list.js';

const standing = (worker) => {
  if (worker.waiting) return 'waiting for work';
  return worker.alive ? 'alive' : 'not seen lately';
};

const holding = (worker) => {
  if (worker.held === 0) return null;
  return `${plural(worker.held, 'task')} of ${worker.holds.map((held) => `#${held.job}`).join(', ')}`;
};

export function workersView() {
  return polledList(
    {
      title: 'Workers',
      path: '/v1/workers',
      intro: 'Every call of a worker is a sign of life. What is counted here is counted since it was first seen; the tally of a job is exact whatever happens to its workers.',
      nothing: 'No worker has called since this node started.',
    },
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
}
