// `RetryPolicy` repeats requests: it waits for the network or for a busy server, and stops at once when the signal is aborted. `Turns` limits
// the number of jobs that run at a time.

import { Problem } from "./http.js";

/** Failures in a row, half a minute in all, after which an attempt fails. Time offline does not count. */
const MAX_FAILURES = 7;
/** Longest pause between two attempts. */
const MAX_PAUSE_MS = 15_000;

/** Returns an error as aborted functions of browsers throw it. React Native has no DOMException. */
export const abortError = (text) => Object.assign(new Error(text), { name: "AbortError" });

/** Resolves after `ms`; rejects with the signal's reason when it is aborted. */
export function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const stop = () => { clearTimeout(timer); reject(signal.reason); };
    const timer = setTimeout(() => { signal?.removeEventListener("abort", stop); resolve(); }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Returns whether the device has no network. Only browsers know. */
const isOffline = () => typeof addEventListener === "function" && globalThis.navigator?.onLine === false;

/** Resolves when the browser reports a network. */
export function online(signal) {
  if (!isOffline()) return Promise.resolve();
  return new Promise((resolve, reject) => {
    addEventListener("online", () => resolve(), { once: true, signal });
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

/** Settles as `work`, or rejects with the signal's reason when it is aborted. */
const unlessAborted = (signal, work) => new Promise((resolve, reject) => {
  const stop = () => reject(signal.reason);
  signal.addEventListener("abort", stop);
  work.finally(() => signal.removeEventListener("abort", stop)).then(resolve, reject);
});

/** Counts failures in a row; each pause is about twice as long as the one before, with jitter. */
export class RetryPolicy {
  #failures = 0;

  constructor(signal, onwait = () => {}, most = MAX_FAILURES) {
    this.signal = signal;
    this.onwait = onwait;
    this.most = most;
  }

  /** Resets the count after a success. */
  reset() {
    this.#failures = 0;
  }

  /** Waits before the next attempt, or throws `problem` after too many failures. */
  async wait(problem) {
    this.signal.throwIfAborted();
    if (isOffline()) {
      this.onwait("offline");
      await online(this.signal);
      this.onwait(null);
      return;
    }
    if (++this.#failures >= this.most) throw problem;
    const pause = Math.min(MAX_PAUSE_MS, 400 * 2 ** this.#failures) * (0.5 + Math.random() / 2);
    this.onwait("again");
    await sleep(Math.max(pause, (problem.retryAfter ?? 0) * 1000), this.signal);
    this.onwait(null);
  }

  /** Repeats a request to the API while its problem is transient. An abort does not end a request without a signal of its own. */
  async run(call) {
    for (;;) {
      this.signal.throwIfAborted();
      try {
        const answer = await unlessAborted(this.signal, call());
        this.reset();
        return answer;
      } catch (error) {
        if (!(error instanceof Problem) || !error.isTransient) throw error;
        await this.wait(error);
      }
    }
  }
}

/** Runs at most `most` jobs at a time, in the order of their calls. */
export class Turns {
  #free;
  #waiting = /** @type {(() => void)[]} */ ([]);

  constructor(most) {
    this.#free = most;
  }

  /** Runs `work` when it is its turn; rejects if the signal is aborted before. */
  async run(signal, work) {
    await this.#take(signal);
    try {
      return await work();
    } finally {
      this.#free += 1;
      this.#waiting.shift()?.();
    }
  }

  async #take(signal) {
    while (this.#free === 0) {
      await new Promise((resolve, reject) => {
        this.#waiting.push(resolve);
        signal.addEventListener("abort", () => {
          this.#waiting = this.#waiting.filter((one) => one !== resolve);
          reject(signal.reason);
        }, { once: true });
      });
    }
    if (signal.aborted) {
      this.#waiting.shift()?.(); // Wakes the next job instead.
      throw signal.reason;
    }
    this.#free -= 1;
  }
}
