// One live stream, kept alive: WebSocket first, polling where that cannot be had, and always honest about which.
//
// Invariant: `live` and `polling` are only reported while the node was heard from within `SILENCE_MS`; everything else is `stale`, with the
// moment the node was last heard. What was shown before stays on the screen, marked as old.

import { ApiError, asksForToken, streamAddress } from './api.js';

/** Without a word for so long, the node is asked by a plain call whether it is still there. */
const SILENCE_MS = 8000;
const PROBE_TIMEOUT_MS = 5000;
const POLL_MS = 2000;
const BACKOFF_MS = [500, 1000, 2000, 4000, 8000, 15000];
/** So many sockets that never opened, while calls are answered: something between here and there does not let sockets through. */
const SOCKETS_TRIED = 3;
/** While polling, a socket is tried again after so long. */
const SOCKET_AGAIN_MS = 30000;

export class Feed {
  #path;
  #poll;
  #onMessage;
  #onStatus;
  #socket = null;
  #timer = null;
  #watch = null;
  #abort = new AbortController();
  #failures = 0;
  #unopened = 0;
  #heardAt = null;
  #status = { state: 'connecting' };

  /**
   * `path`: the stream. `poll(signal)`: the same facts by a plain call, handing them on itself; it throws if there is no answer.
   * `onMessage(message)`: a message of the stream. `onStatus({state, since?, retryAt?})`: connecting, live, polling, stale, locked, ended.
   */
  constructor({ path, poll, onMessage, onStatus }) {
    this.#path = path;
    this.#poll = poll;
    this.#onMessage = onMessage;
    this.#onStatus = onStatus;
    addEventListener('online', this.#hurry);
    addEventListener('token-changed', this.#restart);
    addEventListener('token-asked', this.#await);
    document.addEventListener('visibilitychange', this.#hurry);
    this.#report('connecting');
    this.#connect();
  }

  close() {
    this.#abort.abort();
    this.#drop();
    removeEventListener('online', this.#hurry);
    removeEventListener('token-changed', this.#restart);
    removeEventListener('token-asked', this.#await);
    document.removeEventListener('visibilitychange', this.#hurry);
  }

  /** Tries again now instead of when the wait is over. */
  retryNow = () => {
    if (this.#abort.signal.aborted) return;
    this.#drop();
    this.#connect();
  };

  #hurry = () => {
    if (document.visibilityState === 'visible' && this.#status.state === 'stale') this.retryNow();
  };

  /** Without a token there is nothing to try, and the node is not to blame. */
  #await = () => {
    if (this.#abort.signal.aborted || this.#status.state === 'ended') return;
    this.#drop();
    this.#report('locked');
  };

  #restart = () => {
    if (this.#status.state !== 'ended') this.retryNow();
  };

  #report(state, more = {}) {
    this.#status = { state, since: this.#heardAt, ...more };
    this.#onStatus(this.#status);
  }

  #heard(state) {
    this.#heardAt = Date.now();
    this.#failures = 0;
    if (this.#status.state !== state) this.#report(state);
  }

  #drop() {
    clearTimeout(this.#timer);
    clearTimeout(this.#watch);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  async #connect() {
    if (asksForToken()) return this.#await();
    let address;
    try {
      address = await streamAddress(this.#path);
    } catch (error) {
      this.#lost(error);
      return;
    }
    if (this.#abort.signal.aborted || this.#socket) return;
    const socket = new WebSocket(address);
    this.#socket = socket;
    let opened = false;
    let ended = false;
    socket.addEventListener('open', () => {
      opened = true;
      this.#unopened = 0;
      this.#listen(socket);
    });
    socket.addEventListener('message', (event) => {
      if (this.#socket !== socket) return;
      const message = JSON.parse(event.data);
      ended = message.type === 'final';
      this.#heard('live');
      this.#listen(socket);
      this.#onMessage(message);
    });
    socket.addEventListener('close', (event) => {
      if (this.#socket !== socket) return;
      this.#socket = null;
      clearTimeout(this.#watch);
      if (ended && event.code === 1000) {
        this.#report('ended');
        return;
      }
      if (!opened) this.#unopened += 1;
      this.#lost();
    });
  }

  /** A silent socket may be a quiet job or a dead line: ask. */
  #listen(socket) {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(async () => {
      try {
        await this.#ask();
        if (this.#socket !== socket) return;
        this.#heard('live');
        this.#listen(socket);
      } catch (error) {
        if (this.#socket !== socket) return;
        this.#drop();
        this.#lost(error);
      }
    }, SILENCE_MS);
  }

  #ask() {
    return this.#poll({ signal: this.#abort.signal, timeoutMs: PROBE_TIMEOUT_MS });
  }

  async #lost(error) {
    if (this.#abort.signal.aborted) return;
    if (asksForToken()) return this.#await();
    const wait = BACKOFF_MS[Math.min(this.#failures, BACKOFF_MS.length - 1)] * (0.75 + Math.random() / 2);
    this.#failures += 1;
    this.#report('stale', { retryAt: Date.now() + wait, error: error instanceof ApiError ? error : undefined });
    this.#timer = setTimeout(() => {
      if (this.#unopened >= SOCKETS_TRIED) this.#keepPolling(Date.now() + SOCKET_AGAIN_MS);
      else this.#connect();
    }, wait);
  }

  async #keepPolling(until) {
    try {
      await this.#ask();
    } catch (error) {
      if (!this.#abort.signal.aborted) {
        this.#unopened = 0;
        this.#lost(error);
      }
      return;
    }
    if (this.#abort.signal.aborted || this.#socket) return;
    this.#heard('polling');
    this.#timer = setTimeout(() => {
      if (Date.now() < until) {
        this.#keepPolling(until);
        return;
      }
      // One more try; its failure leads back here.
      this.#unopened = SOCKETS_TRIED - 1;
      this.#connect();
    }, POLL_MS);
  }
}
