// A view that asks again and again: what no stream tells. Honest in the same way as a stream: old is old, and since when.

import { ApiError, get } from './api.js';
import { showConnection } from './connection.js';

const EVERY_MS = 2000;
const BACKOFF_MS = [1000, 2000, 4000, 8000, 15000];

/** Asks `path` until closed, and hands on each answer; a refusal (4xx) goes to `refuse` and ends it. */
export function poller(path, take, refuse) {
  const leaving = new AbortController();
  let timer = null;
  let heardAt = null;
  let failures = 0;

  async function ask() {
    clearTimeout(timer);
    try {
      const answer = await get(path, { signal: leaving.signal });
      if (leaving.signal.aborted) return;
      heardAt = Date.now();
      failures = 0;
      take(answer);
      showConnection({ state: 'polling', since: heardAt });
      timer = setTimeout(ask, EVERY_MS);
    } catch (error) {
      if (leaving.signal.aborted) return;
      if (error.status >= 400 && error.status < 500) {
        showConnection({ state: 'idle' });
        refuse(error);
        return;
      }
      const wait = BACKOFF_MS[Math.min(failures, BACKOFF_MS.length - 1)];
      failures += 1;
      const problem = error instanceof ApiError ? error : undefined;
      showConnection({ state: 'stale', since: heardAt, retryAt: Date.now() + wait, error: problem }, ask);
      timer = setTimeout(ask, wait);
    }
  }

  showConnection({ state: 'connecting' });
  ask();
  return {
    close() {
      leaving.abort();
      clearTimeout(timer);
    },
  };
}

