// The worker: runs image-processing.js off the main thread. Answers each message with one message of the same job number.

import { digest, inspect } from "./image-processing.js";

const jobs = { digest, inspect };

onmessage = async ({ data: { number, job, input } }) => {
  try {
    postMessage({ number, result: await jobs[job](...input) });
  } catch (error) {
    postMessage({ number, error: { name: error.name, message: error.message } });
  }
};
