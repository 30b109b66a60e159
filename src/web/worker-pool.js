// Runs `digest` and `inspect` of image-processing.js in workers, or on the page itself if workers are not available.

import * as onPage from "./image-processing.js";

/** At most two workers: each may have a decoded photo in memory, 200 MB for one of 50 megapixels. */
const MAX_WORKERS = Math.min(2, Math.max(1, (navigator.hardwareConcurrency || 2) - 1));

const open = new Map(); // number → { resolve, reject, job, input, worker }
const workers = [];
let next = 0;
let isUnavailable = typeof Worker === "undefined";

function startWorker() {
  const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  worker.load = 0;
  worker.onmessage = ({ data }) => {
    const { resolve, reject } = open.get(data.number);
    open.delete(data.number);
    worker.load -= 1;
    if (data.error) reject(Object.assign(new Error(data.error.message), { name: data.error.name }));
    else resolve(data.result);
  };
  // The script did not load (an old browser, a new release on the server), or memory ran out: continue without workers.
  worker.onerror = (event) => {
    event.preventDefault();
    isUnavailable = true;
    worker.terminate();
    for (const [number, task] of open) {
      if (task.worker !== worker) continue;
      open.delete(number);
      onPage[task.job](...task.input).then(task.resolve, task.reject);
    }
  };
  workers.push(worker);
  return worker;
}

function run(job, input) {
  if (isUnavailable) return onPage[job](...input);
  const idle = workers.find((worker) => worker.load === 0);
  let worker;
  try {
    worker = idle ?? (workers.length < MAX_WORKERS ? startWorker() : workers.reduce((a, b) => (a.load <= b.load ? a : b)));
  } catch {
    isUnavailable = true; // The browser denies workers, as it does together with storage.
    return onPage[job](...input);
  }
  return new Promise((resolve, reject) => {
    const number = next++;
    worker.load += 1;
    open.set(number, { resolve, reject, job, input, worker });
    worker.postMessage({ number, job, input });
  });
}

/** Returns the Base64 of the SHA-256 of a blob. */
export const digest = (blob) => run("digest", [blob]);
/** Returns what an upload declares of a file. */
export const inspect = (file, wantsDigest) => run("inspect", [file, wantsDigest]);
