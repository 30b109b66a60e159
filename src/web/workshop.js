// Hands work to workers, and does it itself where there are none: `digest` and `inspect` of darkroom.js, off the main thread.

import * as here from "./darkroom.js";

/** Two at most: each may hold a decoded photo, which is 200 MB for one of 50 megapixels. */
const MOST = Math.min(2, Math.max(1, (navigator.hardwareConcurrency || 2) - 1));

const open = new Map(); // number → { resolve, reject, job, input, worker }
const workers = [];
let next = 0;
let broken = typeof Worker === "undefined";

function hire() {
  const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  worker.load = 0;
  worker.onmessage = ({ data }) => {
    const { resolve, reject } = open.get(data.number);
    open.delete(data.number);
    worker.load -= 1;
    if (data.error) reject(Object.assign(new Error(data.error.message), { name: data.error.name }));
    else resolve(data.result);
  };
  // Its script did not load (an old browser, a new release on the server), or it ran out of memory: go on without.
  worker.onerror = (event) => {
    event.preventDefault();
    broken = true;
    worker.terminate();
    for (const [number, task] of open) {
      if (task.worker !== worker) continue;
      open.delete(number);
      here[task.job](...task.input).then(task.resolve, task.reject);
    }
  };
  workers.push(worker);
  return worker;
}

function order(job, input) {
  if (broken) return here[job](...input);
  const idle = workers.find((worker) => worker.load === 0);
  let worker;
  try {
    worker = idle ?? (workers.length < MOST ? hire() : workers.reduce((a, b) => (a.load <= b.load ? a : b)));
  } catch {
    broken = true; // The browser allows the page none, as where storage is denied.
    return here[job](...input);
  }
  return new Promise((resolve, reject) => {
    const number = next++;
    worker.load += 1;
    open.set(number, { resolve, reject, job, input, worker });
    worker.postMessage({ number, job, input });
  });
}

/** Base64 of the SHA-256 of a blob. */
export const digest = (blob) => order("digest", [blob]);
/** What is declared of a file. */
export const inspect = (file, wantsDigest) => order("inspect", [file, wantsDigest]);
