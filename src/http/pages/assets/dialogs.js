// Questions the page asks, in native dialogs: focus stays inside, Escape leaves, the button that opened one gets the focus back.

import { h } from './dom.js';

function open(dialog) {
  document.body.append(dialog);
  dialog.addEventListener('close', () => dialog.remove());
  dialog.showModal();
}

let serial = 0;

/**
 * Asks before something is done, does it, and stays open with the reason if it fails.
 * `fields` are nodes shown between text and buttons; `act` gets the form and may throw.
 */
export function confirm({ title, text, action, danger = false, fields = [], act }) {
  const id = `dialog-${(serial += 1)}`;
  const problem = h('p', { class: 'problem', role: 'alert' });
  const cancel = h('button', { type: 'button', class: 'button', text: 'Leave it', onclick: () => dialog.close() });
  const submit = h('button', { type: 'submit', class: danger ? 'button danger' : 'button primary', text: action });
  const form = h(
    'form',
    { method: 'dialog' },
    h('h2', { id: `${id}-title`, text: title }),
    h('p', { id: `${id}-text`, text }),
    ...fields,
    problem,
    h('div', { class: 'dialog-buttons' }, cancel, submit),
  );
  const dialog = h('dialog', { 'aria-labelledby': `${id}-title`, 'aria-describedby': `${id}-text` }, form);
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    submit.disabled = true;
    problem.textContent = '';
    try {
      await act(new FormData(form));
      dialog.close();
    } catch (error) {
      problem.textContent = error.message;
      submit.disabled = false;
      submit.focus();
    }
  });
  open(dialog);
  // A dangerous answer is never one stray Enter away.
  (danger ? cancel : submit).focus();
}

/** Asks for a token until one is given. */
export function askForToken(refused) {
  return new Promise((resolve) => {
    const input = h('input', {
      id: 'token-input', name: 'token', type: 'password', autocomplete: 'off', required: true, spellcheck: 'false',
    });
    const form = h(
      'form',
      { method: 'dialog' },
      h('h2', { id: 'token-title', text: 'This node asks for a token' }),
      refused && h('p', { class: 'problem', role: 'alert', text: 'The token was refused.' }),
      h('p', { id: 'token-text', text: 'It is kept for this tab only and forgotten when the tab closes.' }),
      h('label', { for: 'token-input', text: 'Token' }),
      input,
      h('p', { class: 'hint' }, 'Make one with ', h('code', { text: 'tallykeeper token create --name me --scope read' })),
      h('div', { class: 'dialog-buttons' }, h('button', { type: 'submit', class: 'button primary', text: 'Use token' })),
    );
    const dialog = h('dialog', { 'aria-labelledby': 'token-title', 'aria-describedby': 'token-text' }, form);
    // Without a token there is nothing to show, so leaving is no answer.
    dialog.addEventListener('cancel', (event) => event.preventDefault());
    form.addEventListener('submit', () => {
      resolve(input.value.trim());
    });
    open(dialog);
    input.focus();
  });
}
