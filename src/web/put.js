// One presigned PUT, with progress. XMLHttpRequest, since fetch cannot tell how much of a body has been sent.

/** Without any progress for so long the connection is taken for dead. */
const STALL_MS = 60_000;

/**
 * Sends `body` exactly as `presigned` says. Resolves with the status, or 0 when there was no answer;
 * rejects only with the signal's reason. S3's error bodies hold nothing a client could act on that its status does not say.
 */
export function put(presigned, body, { signal, progress = () => {} } = {}) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const xhr = new XMLHttpRequest();
    const abort = () => xhr.abort();
    let stall;
    const alive = () => {
      clearTimeout(stall);
      stall = setTimeout(abort, STALL_MS);
    };
    xhr.open(presigned.method, presigned.url);
    for (const [name, value] of Object.entries(presigned.headers)) xhr.setRequestHeader(name, value);
    xhr.upload.onprogress = ({ loaded }) => {
      alive();
      progress(loaded);
    };
    xhr.onloadend = () => {
      clearTimeout(stall);
      signal?.removeEventListener("abort", abort);
      if (signal?.aborted) reject(signal.reason);
      else resolve(xhr.status);
    };
    signal?.addEventListener("abort", abort, { once: true });
    alive();
    xhr.send(body);
  });
}

/** S3 has the bytes: just now (2xx), or from an attempt whose answer was lost (412: once only). */
export const arrived = (status) => (status >= 200 && status < 300) || status === 412;
/** S3 may take the same request later. */
export const worthRepeating = (status) => status === 0 || status === 409 || status === 408 || status === 429 || status >= 500;
