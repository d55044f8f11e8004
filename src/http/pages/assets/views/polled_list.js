// A page that is one list, asked for again and again.

import { h, show } from '../dom.js';
import { poller } from '../poller.js';
import { table } from '../table.js';

// `about`: its title and path, what it says above the list, and instead of an empty one. `key` tells items apart.
export function polledList(about, columns, key) {
  const list = table(about.title, columns, key);
  const none = h('p', { class: 'nothing', hidden: true, text: about.nothing });
  const problem = h('p', { class: 'problem', role: 'alert' });
  const intro = h('p', { class: 'intro', text: about.intro });
  list.node.classList.add('live');
  show(list.node, false);
  const asking = poller(about.path, (answer) => {
    list.update(answer.items);
    show(list.node, answer.items.length > 0);
    show(none, answer.items.length === 0);
  }, (error) => {
    problem.textContent = error.message;
  });
  return {
    title: about.title,
    node: h('section', {}, h('h1', { text: about.title }), intro, problem, list.node, none),
    close: asking.close,
  };
}
