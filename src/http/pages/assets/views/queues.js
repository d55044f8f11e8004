// The queues: who owns each, and how many jobs of each state it holds.

import { FINAL, STATES, count, stateName } from '../format.js';
import { polledList } from './polled_list.js';

const capital = (word) => word[0].toUpperCase() + word.slice(1);
const inState = (item, state) => item.jobs?.[state] ?? 0;
const finished = (item) => STATES.filter((state) => FINAL.has(state)).reduce((sum, state) => sum + inState(item, state), 0);

export function queuesView() {
  return polledList(
    {
      title: 'Queues',
      path: '/v1/queues',
      intro: 'A queue routes jobs to the workers that ask for it, and is owned by one node at a time.',
      nothing: 'No queue has had a job yet. A queue is made by the first job that names it.',
    },
    [
      { label: 'Queue', head: true, class: 'name', text: (item) => item.queue, link: (item) => `#/jobs?queue=${encodeURIComponent(item.queue)}` },
      { label: 'Node', text: (item) => item.node },
      { label: 'Epoch', number: true, text: (item) => count(item.epoch) },
      ...STATES.filter((state) => !FINAL.has(state)).map((state) => ({
        label: capital(stateName(state)), number: true, text: (item) => count(inState(item, state)),
      })),
      { label: 'Finished', number: true, text: (item) => count(finished(item)) },
      { label: 'Claimable tasks', number: true, text: (item) => count(item.claimable) },
      { label: 'Workers', number: true, text: (item) => count(item.workers_alive) },
    ],
    (item) => item.queue,
  );
}
