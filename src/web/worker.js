// The worker: darkroom.js off the main thread. One message in, one out, by the number of the job.

import { digest, inspect } from "./darkroom.js";

const jobs = { digest, inspect };

onmessage = async ({ data: { number, job, input } }) => {
  try {
    postMessage({ number, result: await jobs[job](...input) });
  } catch (error) {
    postMessage({ number, error: { name: error.name, message: error.message } });
  }
};
