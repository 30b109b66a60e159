// `RetryPolicy` repeats requests: it waits for the network or for a busy server, and stops at once when the signal is aborted. `Turns` limits
// the number of jobs that run at a time.

import { Problem } from "./http.js";

/** Failures in a row, half a minute in all, after which the upload fails. Time offline does not count. */
const MAX_FAILURES = 7;
/** Longest pause between two requests. */
const MAX_PAUSE_MS = 15_000;

/** Returns an error as aborted functions of browsers throw it. React Native has no DOMException. */
export const abortError = () => Object.assign(new Error("The upload was cancelled or stopped."), { name: "AbortError" });

/**
 * Returns a promise that `begin` settles by `resolve` and `reject`, and that rejects with the signal's reason when it is aborted. `begin`
 * may return a function to call at the end.
 */
export function abortable(signal, begin) {
  let stop, end;
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    stop = () => reject(signal.reason);
    signal?.addEventListener("abort", stop);
    end = begin(resolve, reject);
  }).finally(() => {
    signal?.removeEventListener("abort", stop);
    end?.();
  });
}

/** Resolves after `ms`; rejects with the signal's reason when it is aborted. */
export const sleep = (ms, signal) => abortable(signal, (resolve) => {
  const timer = setTimeout(resolve, ms);
  return () => clearTimeout(timer);
});

/** Returns whether the browser reports that the device has no network. Other runtimes do not report it. */
const isOffline = () => typeof addEventListener === "function" && globalThis.navigator?.onLine === false;

/** Calls a function of the app, whose error has no effect. */
export function guarded(act) {
  try {
    act();
  } catch (error) {
    console.error(error);
  }
}

/** Counts failures in a row; each pause is about twice as long as the one before, with jitter. */
export class RetryPolicy {
  #failures = 0;

  constructor(signal, onwait = () => {}, most = MAX_FAILURES) {
    this.signal = signal;
    this.onwait = onwait;
    this.most = most;
  }

  reset() {
    this.#failures = 0;
  }

  /** Waits before the next attempt, or throws `problem` after too many failures. */
  async wait(problem) {
    if (isOffline()) {
      this.onwait("offline");
      await abortable(this.signal, (resolve) => {
        addEventListener("online", resolve);
        return () => removeEventListener("online", resolve);
      });
    } else {
      if (++this.#failures >= this.most) throw problem;
      const pause = Math.min(MAX_PAUSE_MS, 400 * 2 ** this.#failures) * (0.5 + Math.random() / 2);
      this.onwait("again");
      await sleep(Math.max(pause, (problem.retryAfter ?? 0) * 1000), this.signal);
    }
    this.onwait(null);
  }

  /** Repeats a request to the API while its problem is transient. An abort does not end a request without a signal of its own. */
  async run(call) {
    for (;;) {
      try {
        const answer = await abortable(this.signal, (resolve, reject) => { call().then(resolve, reject); });
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
  #waiting = new Set();

  constructor(most) {
    this.#free = most;
  }

  /** Adds this many turns, and begins as many waiting jobs. A negative number takes turns away, from running jobs when they end. */
  add(turns) {
    this.#free += turns;
    for (const begin of this.#waiting) {
      if (this.#free < 1) return;
      this.#free -= 1;
      this.#waiting.delete(begin);
      begin();
    }
  }

  /** Runs `work` when it is its turn; rejects if the signal is aborted before. */
  async run(signal, work) {
    await abortable(signal, (begin) => {
      this.#waiting.add(begin);
      this.add(0);
      return () => this.#waiting.delete(begin);
    });
    try {
      signal.throwIfAborted(); // Aborted when its turn came.
      return await work();
    } finally {
      this.add(1);
    }
  }
}
