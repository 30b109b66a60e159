// Waiting well: for the network, for a server that is busy, and not at all once nobody wants the answer.

import { Problem } from "./http.js";

/** After so many failures in a row, half a minute in all, a person is asked. Being offline does not count. */
const ATTEMPTS = 7;
const LONGEST_MS = 15_000;

/** Resolves after `ms`; rejects with the signal's reason when it is aborted. */
export function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const stop = () => { clearTimeout(timer); reject(signal.reason); };
    const timer = setTimeout(() => { signal?.removeEventListener("abort", stop); resolve(); }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Resolves when the browser believes that there is a network. */
export function online(signal) {
  if (navigator.onLine) return Promise.resolve();
  return new Promise((resolve, reject) => {
    addEventListener("online", () => resolve(), { once: true, signal });
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

/** Counts failures in a row; each `wait` is about twice as long as the one before, with jitter. */
export class Patience {
  #failures = 0;

  constructor(signal, onwait = () => {}) {
    this.signal = signal;
    this.onwait = onwait;
  }

  /** Something worked: the next failure is the first again. */
  reset() {
    this.#failures = 0;
  }

  /** Waits before the next attempt, or throws `problem` when it is time to give up. */
  async wait(problem) {
    if (!navigator.onLine) {
      this.onwait("offline");
      await online(this.signal);
      this.onwait(null);
      return;
    }
    if (++this.#failures >= ATTEMPTS) throw problem;
    const pause = Math.min(LONGEST_MS, 400 * 2 ** this.#failures) * (0.5 + Math.random() / 2);
    this.onwait("again");
    await sleep(Math.max(pause, (problem.retryAfter ?? 0) * 1000), this.signal);
    this.onwait(null);
  }

  /** Repeats a call of the API for as long as its problem is one that passes. */
  async persist(call) {
    for (;;) {
      try {
        const answer = await call();
        this.reset();
        return answer;
      } catch (error) {
        if (!(error instanceof Problem) || !error.passing) throw error;
        await this.wait(error);
      }
    }
  }
}
