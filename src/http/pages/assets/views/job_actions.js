// What can be done to a job, each behind a question. The node judges; this only offers what it would accept.

import { send } from '../api.js';
import { confirm } from '../dialogs.js';
import { h, keyed } from '../dom.js';
import { FINAL, count, plural } from '../format.js';

function radio(name, value, label, checked) {
  return h('label', { class: 'choice' }, h('input', { type: 'radio', name, value, checked }), label);
}

function cancelQuestion(job, post) {
  const { leased } = job.progress;
  return {
    title: `Cancel job ${job.id}?`,
    text: `${plural(job.progress.total - job.progress.succeeded - job.progress.failed, 'task')} will not be done. What is decided stays.`,
    action: 'Cancel job',
    danger: true,
    fields: [
      h(
        'label',
        { class: 'field' },
        `Let ${plural(leased, 'leased task')} still report for`,
        h('span', {}, h('input', { type: 'number', name: 'grace', min: 0, max: 604800, value: 0 }), ' seconds'),
      ),
    ],
    act: (form) => post('cancel', { grace_s: Number(form.get('grace')) }),
  };
}

function retryQuestion(job, post) {
  const undone = job.progress.total - job.progress.succeeded;
  return {
    title: `Run job ${job.id} again?`,
    text: `This starts run ${job.run + 1}.`,
    action: 'Start new run',
    fields: [
      h(
        'fieldset',
        {},
        h('legend', { text: 'Tasks to repeat' }),
        radio('only', 'failed', `The ${count(undone)} that did not succeed`, undone > 0),
        radio('only', 'all', `All ${count(job.progress.total)}`, undone === 0),
      ),
    ],
    act: (form) => post('retry', { only: form.get('only'), if_run: job.run }),
  };
}

const ACTIONS = [
  {
    key: 'start', label: 'Start', primary: true, offered: (job) => job.state === 'pending',
    ask: (job, post) => ({
      title: `Start job ${job.id} now?`, text: `Its ${plural(job.progress.total, 'task')} will be handed to workers of ${job.queue}.`,
      action: 'Start job', act: () => post('start'),
    }),
  },
  {
    key: 'pause', label: 'Pause', offered: (job) => job.state === 'running',
    ask: (job, post) => ({
      title: `Pause job ${job.id}?`, text: 'No further tasks are handed out. Leased tasks may finish and count.',
      action: 'Pause job', act: () => post('pause'),
    }),
  },
  {
    key: 'resume', label: 'Resume', primary: true, offered: (job) => job.state === 'paused',
    ask: (job, post) => ({
      title: `Resume job ${job.id}?`, text: 'Its tasks are handed out again.', action: 'Resume job', act: () => post('resume'),
    }),
  },
  {
    key: 'seal', label: 'Close to new tasks', offered: (job) => job.open && !FINAL.has(job.state),
    ask: (job, post) => ({
      title: `Close job ${job.id} to new tasks?`, text: 'It ends when the tasks it holds now are decided. This cannot be undone.',
      action: 'Close job', act: () => post('seal'),
    }),
  },
  {
    key: 'cancel', label: 'Cancel', danger: true, offered: (job) => ['pending', 'running', 'paused'].includes(job.state), ask: cancelQuestion,
  },
  {
    key: 'retry', label: 'Run again', primary: true, offered: (job) => FINAL.has(job.state) && job.progress.total > 0, ask: retryQuestion,
  },
  {
    key: 'delete', label: 'Delete', danger: true, offered: (job) => FINAL.has(job.state),
    ask: (job, post) => ({
      title: `Delete job ${job.id}?`, text: 'The job, its tasks, results and logs are removed for good.',
      action: 'Delete job', danger: true, act: () => post('delete'),
    }),
  },
];

/** `onChanged(job)` gets the node's answer; `onDeleted()` is called when there is nothing left to show. */
export function jobActions(onChanged, onDeleted) {
  const node = h('div', { class: 'actions', role: 'group', 'aria-label': 'Actions' });
  let job = null;
  const post = async (verb, body = {}) => {
    if (verb === 'delete') {
      await send('DELETE', `/v1/jobs/${job.id}`);
      onDeleted();
      return;
    }
    onChanged(await send('POST', `/v1/jobs/${job.id}/${verb}`, body));
  };
  function make(action) {
    const kind = action.danger ? 'button danger-quiet' : action.primary ? 'button primary' : 'button';
    const button = h('button', {
      type: 'button', class: kind, 'data-action': action.key, text: action.label,
      onclick: () => confirm(action.ask(job, post)),
    });
    return { node: button };
  }
  return {
    node,
    update(next) {
      job = next;
      keyed(node, ACTIONS.filter((action) => action.offered(job)), (action) => action.key, make, () => {});
    },
  };
}
