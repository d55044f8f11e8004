// Routes: #/jobs, #/jobs/7, #/workers, #/queues. Every view is { node, close?, title }; a route is a permalink.

import { forgetToken, token } from './api.js';
import { showConnection } from './connection.js';
import { h } from './dom.js';
import { jobView } from './views/job.js';
import { jobsView } from './views/jobs.js';
import { queuesView } from './views/queues.js';
import { workersView } from './views/workers.js';

const main = document.getElementById('main');
let current = null;

function nowhere() {
  return {
    title: 'Nothing here',
    node: h('section', { class: 'empty' }, h('h1', { text: 'Nothing here' }), h('a', { href: '#/jobs', text: 'To the jobs' })),
  };
}

function resolve(path, search) {
  const job = /^\/jobs\/([1-9]\d{0,15})$/.exec(path);
  if (job) return [jobView(Number(job[1])), 'jobs'];
  if (path === '/' || path === '' || path === '/jobs') return [jobsView(search), 'jobs'];
  if (path === '/workers') return [workersView(), 'workers'];
  if (path === '/queues') return [queuesView(), 'queues'];
  return [nowhere(), ''];
}

function navigate() {
  const [path, search = ''] = location.hash.slice(1).split('?');
  if (current?.stays?.(path, search)) return;
  const isFirst = current === null;
  current?.close?.();
  showConnection({ state: 'idle' });
  const [view, section] = resolve(path, search);
  current = view;
  document.title = `${view.title} · Tallykeeper`;
  for (const link of document.querySelectorAll('nav a')) {
    if (link.dataset.section === section) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  main.replaceChildren(view.node);
  scrollTo(0, 0);
  // A reader of screens starts at the new view's heading; the first view leaves the focus where browsers put it.
  if (!isFirst) main.focus({ preventScroll: true });
}

const leave = document.getElementById('forget-token');
leave.addEventListener('click', forgetToken);
function showToken() {
  leave.hidden = token() === null;
}
addEventListener('token-changed', showToken);
showToken();

// The address after # is the route, so a plain link to #main would leave the view.
document.getElementById('skip').addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});

addEventListener('hashchange', navigate);
navigate();
