// Runs `digest` and `inspect` of image-processing.js in workers, or on the page itself if workers are not available.

import { digest, inspect } from "./image-processing.js";
import { abortError } from "./retry.js";

/** Each worker may have a decoded photo in memory, 200 MB for one of 50 megapixels. */
const MAX_WORKERS = Math.min(2, Math.max(1, (globalThis.navigator?.hardwareConcurrency || 2) - 1));

const onPage = { digest, inspect };

export class WorkerPool {
  #open = new Map(); // job number → { resolve, reject, job, input, worker }
  #workers = [];
  #next = 0;
  #create;
  // A script of Bun or Deno would not end while a worker runs.
  #isUnavailable = typeof document === "undefined";

  /** `create` returns a new worker that runs worker.js. */
  constructor(create = () => new Worker(new URL("./worker.js", import.meta.url), { type: "module" })) {
    this.#create = create;
  }

  digest(blob) {
    return this.#run("digest", [blob]);
  }

  inspect(file, wantsDigest) {
    return this.#run("inspect", [file, wantsDigest]);
  }

  /** Ends the workers; their jobs reject. A later job starts new ones. */
  close() {
    for (const worker of this.#workers.splice(0)) worker.terminate();
    for (const { reject } of this.#open.values()) reject(abortError());
    this.#open.clear();
  }

  #start() {
    const worker = this.#create();
    worker.load = 0;
    worker.onmessage = ({ data }) => {
      const { resolve, reject } = this.#open.get(data.number);
      this.#open.delete(data.number);
      worker.load -= 1;
      if (data.error) reject(Object.assign(new Error(), data.error));
      else resolve(data.result);
    };
    // The script did not load, or memory ran out: the page runs the jobs.
    worker.onerror = (event) => {
      event.preventDefault();
      this.#isUnavailable = true;
      worker.terminate();
      for (const [number, task] of this.#open) {
        if (task.worker !== worker) continue;
        this.#open.delete(number);
        onPage[task.job](...task.input).then(task.resolve, task.reject);
      }
    };
    this.#workers.push(worker);
    return worker;
  }

  /** Runs a job in an idle worker, a new one, or the one with the fewest jobs. */
  #run(job, input) {
    let [worker] = this.#workers.sort((a, b) => a.load - b.load);
    try {
      if (!this.#isUnavailable && worker?.load !== 0 && this.#workers.length < MAX_WORKERS) worker = this.#start();
    } catch {
      this.#isUnavailable = true; // The browser denies workers.
    }
    if (this.#isUnavailable) return onPage[job](...input);
    return new Promise((resolve, reject) => {
      const number = this.#next++;
      worker.load += 1;
      this.#open.set(number, { resolve, reject, job, input, worker });
      worker.postMessage({ number, job, input });
    });
  }
}
