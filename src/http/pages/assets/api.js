// Calls to the node. The token lives in sessionStorage and in the Authorization header, never in an address.

import { askForToken } from './dialogs.js';

const KEY = 'tallykeeper-token';

/** An answer that was not good, or none at all (`status` 0). */
export class ApiError extends Error {
  constructor(status, detail, code) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

export const token = () => sessionStorage.getItem(KEY);

export function forgetToken() {
  sessionStorage.removeItem(KEY);
  dispatchEvent(new Event('token-changed'));
}

let asking = null;

/** Is somebody being asked for a token? Until there is one, the node refuses everything. */
export const asksForToken = () => asking !== null;

/** Asks for a token, once however many calls were refused at the same time. */
function login(refused) {
  if (asking) return asking;
  asking = askForToken(refused)
    .then((given) => sessionStorage.setItem(KEY, given))
    .finally(() => {
      asking = null;
    });
  asking.then(() => dispatchEvent(new Event('token-changed')), () => {});
  dispatchEvent(new Event('token-asked'));
  return asking;
}

/** Sends a request; answers the Response if its status is good. */
export async function request(method, path, { body, accept, signal, timeoutMs = 15000 } = {}) {
  for (;;) {
    const held = token();
    const headers = {};
    if (held) headers.Authorization = `Bearer ${held}`;
    if (accept) headers.Accept = accept;
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    const signals = [AbortSignal.timeout(timeoutMs)];
    if (signal) signals.push(signal);
    let response;
    try {
      response = await fetch(path, {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: AbortSignal.any(signals),
        cache: 'no-store',
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError(0, 'The node does not answer.', 'unreachable');
    }
    if (response.status === 401) {
      // Another call may have brought a new token meanwhile.
      if (token() === held) await login(held !== null);
      continue;
    }
    if (response.ok) return response;
    let problem = {};
    try {
      problem = await response.json();
    } catch {
      // Not a problem document: the status has to do.
    }
    throw new ApiError(response.status, problem.detail ?? problem.title ?? `status ${response.status}`, problem.code);
  }
}

export async function get(path, options) {
  return (await request('GET', path, options)).json();
}

export async function send(method, path, body) {
  const response = await request(method, path, { body });
  return response.status === 204 ? null : response.json();
}

/** Like `get`, but null where the path does not exist or the token may not ask. */
export async function getIfThere(path, options) {
  try {
    return await get(path, options);
  } catch (error) {
    if (error.status === 404 || error.status === 403) return null;
    throw error;
  }
}

/** A query string of the members that are set; lists are joined by commas. */
export function query(members) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(members)) {
    const text = Array.isArray(value) ? value.join(',') : value;
    if (text !== null && text !== undefined && text !== '') search.set(name, text);
  }
  const text = search.toString();
  return text ? `?${text}` : '';
}

/** The address of a stream. With a token it carries a single-use ticket instead. */
export async function streamAddress(path) {
  const address = new URL(path, location.href);
  if (token()) {
    const { ticket } = await send('POST', '/v1/tickets', { path: address.pathname });
    address.searchParams.set('ticket', ticket);
  }
  address.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  return address.href;
}

/** Downloads through a call, since a link can carry neither a token nor an Accept header. */
export async function download(path, name, accept, onBytes) {
  const response = await request('GET', path, { accept, timeoutMs: 3_600_000 });
  const chunks = [];
  let bytes = 0;
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    chunks.push(value);
    bytes += value.length;
    onBytes?.(bytes);
  }
  const url = URL.createObjectURL(new Blob(chunks, { type: response.headers.get('content-type') ?? '' }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
