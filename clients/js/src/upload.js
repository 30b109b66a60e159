// The protocol of one upload, from a file to an image in the gallery. Clients in other languages can copy this module.
//
// Both kinds can be repeated from their first step: the server recognizes the bytes (by SHA-256 and size) or the key, and continues
// the upload.

import { limited, problem } from "./http.js";
import { RetryPolicy } from "./retry.js";
import { hasArrived, isRepeatable, put } from "./s3-put.js";

/**
 * Size in bytes above which a file is uploaded in parts, except files of native.js: a lost connection then costs one part, not the file.
 */
const MAX_SINGLE_PUT = 16 << 20;
const PARTS_AT_ONCE = 3;
/** Parts at a time on a connection that the browser reports as slow or metered. */
const PARTS_AT_ONCE_SLOW = 1;
const PART_BYTES = 8 << 20;
/** Parts that S3 accepts at most. */
const MAX_PARTS = 10_000;

/**
 * Uploads a file with this name and caption, and returns the image. `file` is a Blob, or a file of native.js, which has its own `inspect`
 * and `put` and is always sent in one PUT. `services` has `api` (the calls of api.js), `work` (worker-pool.js) and, if files wait for their turn to be sent,
 * `turns`. `events` has functions to call: `progress(bytes)`, `opened(id)`, `waiting("offline" | "again" | null)`,
 * `stage("preparing" | "opening" | "sending" | "confirming")`, `preview(blob)`, and `found(id)` if the gallery has these bytes already.
 */
export async function upload({ file, name, caption }, events, signal, services) {
  const retry = new RetryPolicy(signal, events.waiting);
  events.stage("preparing");
  const inParts = !file.put && file.size > MAX_SINGLE_PUT;
  const facts = await readable(file, () => inspect(file, !inParts, services));
  signal.throwIfAborted();
  if (facts.shown) events.preview(facts.shown);
  return (inParts ? uploadInParts : uploadWhole)(file, { ...facts, name, caption }, events, retry, services);
}

const inspect = (file, wantsDigest, { work }) => (file.inspect ? file.inspect() : work.inspect(file, wantsDigest));

/**
 * Uploads with a single PUT. After 200 or 412: confirm. 409, 5xx: repeat. 403: renew once. 400: the bytes changed. No response: repeat,
 * and try to confirm. A store may send errors without CORS headers (as R2 and proxies do), so that a 403 for an expired URL and a 412
 * for bytes that have arrived look like a lost connection.
 */
async function uploadWhole(file, facts, events, retry, services) {
  const { api } = services;
  const { signal } = retry;
  // Counts failed PUTs separately from failed requests to the API: the store may fail while the API responds.
  const store = new RetryPolicy(signal, events.waiting);
  const open = async () => timed(await opened(retry, events, () => api.openUpload(describe(file, facts), signal)));
  const reopen = async () => (facts = { ...facts, ...await readable(file, () => inspect(file, true, services)) }, open());
  events.stage("opening");
  let ticket = await open();
  if (ticket.state === "ready") events.found(ticket.id);
  for (let before = null, unanswered = 0; ticket.state === "pending";) {
    const { upload, previewUpload } = ticket;
    const [status] = await inTurn(events, signal, services, () => Promise.all([
      file.put ? file.put(upload, { signal, progress: events.progress }) : put(upload, file, { signal, progress: events.progress }),
      sendPreview(previewUpload, facts.preview, signal),
    ]));
    unanswered = status === 0 ? unanswered + 1 : 0;
    if (hasArrived(status)) {
      events.progress(file.size);
      events.stage("confirming");
      const { image, problem: failure } = await confirm(api, ticket.id, retry);
      if (image) return image;
      // A 412 for an object that was deleted since, or an upload that expired while this device slept.
      await store.wait(failure);
      if (failure.code !== "object_missing") ticket = await open();
      continue;
    }
    events.progress(0);
    const failure = problem({ code: status ? "storage_refused" : "no_answer", status });
    if (isRepeatable(status)) {
      await readable(file);
      await store.wait(unanswered > 1 ? problem({ code: "storage_unreachable" }) : failure);
      if (unanswered > 1 || (unanswered && Date.now() > ticket.urlExpiresAt)) {
        const { image } = await confirm(api, ticket.id, retry);
        if (image) return image;
        ticket = await reopen();
      }
    } else if (status === 403 && before !== 403) {
      ticket = await renew(api, ticket.id, retry) ?? await open();
    } else if (status === 400 && before !== 400) {
      ticket = await reopen();
    } else {
      throw failure;
    }
    before = isRepeatable(status) ? null : status;
  }
  return ticket.image;
}

/** Opens an upload and reports its id, also after an abort: a cancelled upload can then be deleted. */
const opened = (retry, events, open) => retry.run(async () => {
  const ticket = await open();
  if (ticket.state !== "ready") events.opened(ticket.id);
  return ticket;
});

/** Waits for this file's turn to be sent, then calls `send`. Meanwhile other files are prepared and confirmed. */
function inTurn(events, signal, { turns }, send) {
  const work = () => {
    events.stage("sending");
    return send();
  };
  return turns ? turns.run(signal, work) : work();
}

/** Sets the expiry of the URL by this device's clock, which may differ from the server's. */
const timed = (ticket) => Object.assign(ticket, { urlExpiresAt: Date.now() + (ticket.upload?.expiresIn ?? 0) * 1000 });

/** Throws a failure other than the end of the upload, which is then opened again. */
const expectEnd = (failure) => {
  if (!["upload_expired", "not_found"].includes(failure.code)) throw failure;
};

/** Confirms an upload. Resolves to `{ image }`, or `{ problem }` if the bytes have not arrived or the upload has ended. */
const confirm = (api, id, retry) => retry.run(() => api.confirm(id, retry.signal)).then((image) => ({ image }), (failure) => {
  if (failure.code !== "object_missing") expectEnd(failure);
  return { problem: failure };
});

/** Resolves to the upload with a new URL, or undefined if the upload has ended. */
const renew = (api, id, retry) => retry.run(() => api.renew(id, retry.signal)).then(timed, expectEnd);

/** Sends the preview. The upload succeeds also without it. */
async function sendPreview(presigned, preview, signal) {
  if (!presigned || !preview) return;
  for (let attempt = 0; attempt < 3; attempt += 1) {
    if (!isRepeatable(await put(presigned, preview.blob, { signal }))) return;
  }
}

/** Uploads in parts: sends the parts that S3 does not list, then confirms, which fails if a part is missing. */
async function uploadInParts(file, facts, events, retry, services) {
  const { api, work } = services;
  const { signal } = retry;
  const partSize = Math.max(PART_BYTES, Math.ceil(file.size / MAX_PARTS / (1 << 20)) * (1 << 20));
  const digests = await digestParts(file, partSize, signal, work);
  events.stage("opening");
  const declared = { ...describe(file, { ...facts, preview: undefined }), partSize, partChecksums: "sha256" };
  // Equal bytes and declarations have equal keys, so that a file that is chosen again continues its upload.
  const key = `parts ${await work.digest(new Blob([JSON.stringify(declared), ...digests]))}`;
  for (let round = 0; ; round += 1) {
    const ticket = await opened(retry, events, () => api.openMultipart(declared, key));
    try {
      const { parts } = await retry.run(() => api.storedParts(ticket.id, signal));
      if (round === 0 && parts.length === ticket.partCount) events.found(ticket.id);
      const stored = new Set(parts.map((part) => part.partNumber));
      await inTurn(events, signal, services, () => sendMissing(file, { ...ticket, digests, api }, stored, events, retry));
      events.stage("confirming");
      return await retry.run(() => api.confirm(ticket.id, signal));
    } catch (failure) {
      if (failure.code === "upload_complete") return retry.run(() => api.confirm(ticket.id, signal));
      const canContinue = ["parts_missing", "object_missing", "upload_expired", "not_found"].includes(failure.code);
      if (!canContinue || round === 3) throw failure;
    }
  }
}

async function digestParts(file, partSize, signal, work) {
  const digests = [];
  const starts = Array.from({ length: Math.ceil(file.size / partSize) }, (_, i) => i * partSize);
  const lane = async () => {
    for (let from = starts.shift(); from !== undefined; from = starts.shift()) {
      signal.throwIfAborted();
      const start = from;
      digests[start / partSize] = await readable(file, () => work.digest(file.slice(start, start + partSize)));
    }
  };
  await Promise.all([lane(), lane()]);
  return digests;
}

async function sendMissing(file, { id, partSize, partCount, digests, api }, stored, events, retry) {
  const sizeOf = (number) => Math.min(partSize, file.size - (number - 1) * partSize);
  const sent = new Map([...stored].map((number) => [number, sizeOf(number)]));
  const reportSum = () => events.progress([...sent.values()].reduce((sum, bytes) => sum + bytes, 0));
  const report = (number, bytes) => {
    sent.set(number, bytes);
    reportSum();
  };
  const missing = Array.from({ length: partCount }, (_, i) => i + 1).filter((number) => !stored.has(number));
  reportSum();
  const lane = async (signal) => {
    const own = { calls: new RetryPolicy(signal, retry.onwait), store: new RetryPolicy(signal, retry.onwait) };
    for (let number = missing.shift(); number; number = missing.shift()) {
      const from = (number - 1) * partSize;
      await sendPart(api, file, { id, number, sha256: digests[number - 1], bytes: file.slice(from, from + partSize) }, report, own);
    }
  };
  // If one lane fails, the others stop too.
  await limited(retry.signal, (signal) => Promise.all(Array.from({ length: isSlow() ? PARTS_AT_ONCE_SLOW : PARTS_AT_ONCE }, () => lane(signal))));
}

/** Whether the browser reports a connection that several transfers at a time would clog. */
const isSlow = () => {
  const { saveData, effectiveType } = globalThis.navigator?.connection ?? {};
  return saveData || /2g/.test(effectiveType);
};

/** Sends one part. Each attempt gets a new URL, so that no URL has expired. */
async function sendPart(api, file, { id, number, sha256, bytes }, report, { calls, store }) {
  const { signal } = calls;
  for (let refused = 0; ;) {
    const { parts } = await calls.run(() => api.signParts(id, [{ partNumber: number, sha256 }], signal));
    const status = await put(parts[0].request, bytes, { signal, progress: (n) => report(number, n) });
    if (hasArrived(status)) {
      store.reset();
      return report(number, bytes.size);
    }
    report(number, 0);
    if (isRepeatable(status)) {
      await readable(file);
      await store.wait(problem({ code: status ? "storage_refused" : "storage_unreachable", status }));
    } else if (refused++) throw problem({ code: "storage_refused", status });
  }
}

/** Returns a text without half characters, such as one that was cut in an emoji has: no server accepts them in JSON. */
const wellFormed = (text) => String(text).replace(/[\ud800-\udfff]/gu, "\ufffd");

/** Returns the declaration of an upload. The name has no folders. */
function describe({ size }, { name, caption, contentType, sha256, preview, thumbHash }) {
  return {
    fileName: wellFormed(name), contentType, size, sha256, caption: caption ? wellFormed(caption) : undefined, thumbHash,
    preview: preview && { contentType: preview.blob.type, size: preview.blob.size, sha256: preview.sha256 },
  };
}

/** Runs `work`, or throws `file_unreadable` if the file was moved, changed or deleted meanwhile. */
async function readable(file, work = () => file.slice(0, 1).arrayBuffer()) {
  try {
    return await work();
  } catch (error) {
    if (error?.name === "NotReadableError" || error?.name === "NotFoundError") throw problem({ code: "file_unreadable" });
    throw error;
  }
}
