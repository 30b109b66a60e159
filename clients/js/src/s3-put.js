// Sends one presigned PUT. In browsers with XMLHttpRequest, since fetch does not report how much of a body was sent; else with fetch.

import { limited } from "./http.js";
import { abortable } from "./retry.js";

/** Time without progress after which the connection counts as dead. */
const STALL_MS = 60_000;
/** Transfer rate in bytes per millisecond from which the deadline is computed if progress is unknown (fetch). */
const SLOWEST = 16;

/**
 * Sends `body` with the method, URL and headers of `presigned`. Resolves with the status, or 0 without a response; rejects only with
 * the signal's reason. The status suffices: S3's error bodies contain nothing else that a client could act on.
 */
export function put(presigned, body, { signal, progress = () => {} } = {}) {
  return typeof XMLHttpRequest === "undefined" ? putByFetch(presigned, body, signal, progress) : putByXhr(presigned, body, signal, progress);
}

function putByXhr(presigned, body, signal, progress) {
  return abortable(signal, (resolve) => {
    const xhr = new XMLHttpRequest();
    const abort = () => xhr.abort();
    let stall;
    const restartStallTimer = () => {
      clearTimeout(stall);
      stall = setTimeout(abort, STALL_MS);
    };
    xhr.open(presigned.method, presigned.url);
    xhr.responseType = "text"; // Otherwise Firefox parses the response as XML, and logs an error for an empty one.
    for (const [name, value] of Object.entries(presigned.headers)) xhr.setRequestHeader(name, value);
    xhr.upload.onprogress = ({ loaded }) => {
      restartStallTimer();
      progress(loaded);
    };
    xhr.onloadend = () => resolve(xhr.status);
    restartStallTimer();
    xhr.send(body);
    return () => {
      clearTimeout(stall);
      abort();
    };
  });
}

async function putByFetch({ method, url, headers }, body, signal, progress) {
  signal?.throwIfAborted();
  try {
    return await limited(signal, async (limitedSignal) => {
      const response = await fetch(url, { method, headers, body, signal: limitedSignal, redirect: "error" });
      await response.arrayBuffer(); // Otherwise the connection is not used again.
      if (response.ok) progress(body.size);
      return response.status;
    }, STALL_MS + body.size / SLOWEST);
  } catch {
    signal?.throwIfAborted();
    return 0;
  }
}

/** Returns whether S3 has the bytes: from this PUT (2xx), or from an earlier one whose response was lost (412: the URL writes once). */
export const hasArrived = (status) => (status >= 200 && status < 300) || status === 412;
/** Returns whether S3 may accept the same request later. */
export const isRepeatable = (status) => [0, 408, 409, 429].includes(status) || status >= 500;
