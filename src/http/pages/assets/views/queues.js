// The queues: who owns each, and how many jobs of each state it holds.

import { h, show } from '../dom.js';
import { FINAL, STATES, count, stateName } from '../format.js';
import { poller } from '../poller.js';
import { table } from '../table.js';

const capital = (word) => word[0].toUpperCase() + word.slice(1);
const inState = (item, state) => item.jobs?.[state] ?? 0;
const finished = (item) => STATES.filter((state) => FINAL.has(state)).reduce((sum, state) => sum + inState(item, state), 0);

export function queuesView() {
  const list = table(
    'Queues',
    [
      { label: 'Queue', head: true, text: (item) => item.queue, link: (item) => `#/jobs?queue=${encodeURIComponent(item.queue)}` },
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
  const none = h('p', { class: 'nothing', hidden: true, text: 'No queue has had a job yet. A queue is made by the first job that names it.' });
  const problem = h('p', { class: 'problem', role: 'alert' });
  const intro = h('p', { class: 'intro', text: 'A queue routes jobs to the workers that ask for it, and is owned by one node at a time.' });
  list.node.classList.add('live');
  show(list.node, false);
  const asking = poller('/v1/queues', (answer) => {
    list.update(answer.items);
    show(list.node, answer.items.length > 0);
    show(none, answer.items.length === 0);
  }, (error) => {
    problem.textContent = error.message;
  });
  return {
    title: 'Queues',
    node: h('section', {}, h('h1', { text: 'Queues' }), intro, problem, list.node, none),
    close: asking.close,
  };
}
