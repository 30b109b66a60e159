// The protocol of an upload, without any page around it: from a file to an image in the gallery. This is the part to copy.
//
// Both kinds are repeatable from their first step: the server knows the bytes (by SHA-256 and size) or the key, and goes
// on with what it has. So resuming after a reload is uploading the same file again.

import * as api from "./api.js";
import { Problem } from "./http.js";
import { Patience } from "./patience.js";
import { arrived, put, worthRepeating } from "./put.js";
import { digest, inspect } from "./workshop.js";

/** Larger files go in parts, so that a lost connection costs one part and not all of it. */
const WHOLE_MOST = 16 << 20;
const PARTS_AT_ONCE = 3;
const PART = 8 << 20;
/** S3 takes no more. */
const MOST_PARTS = 10_000;

/**
 * Uploads a file. `told` hears of what happens: `progress(bytes)`, `opened(id)`, `waiting("offline" | "again" | null)`,
 * `stage("preparing" | "sending" | "confirming")`, `preview(blob)`, `found(id)`: these bytes were there already.
 */
export async function upload(file, told, signal) {
  const patience = new Patience(signal, told.waiting);
  told.stage("preparing");
  const facts = await readable(file, () => inspect(file, file.size <= WHOLE_MOST));
  signal.throwIfAborted();
  if (facts.shown) told.preview(facts.shown);
  return file.size > WHOLE_MOST ? inParts(file, facts, told, patience) : whole(file, facts, told, patience);
}

/**
 * The rules for the PUT: 200 or 412: confirm. 409, 5xx: repeat. 403: renew once. 400: the bytes changed. No answer: repeat, and
 * look at what that hides. A store may send its errors without CORS headers (R2 does, and proxies), so that a 403 for a URL
 * that has died and a 412 for bytes that have arrived look like a lost connection.
 */
async function whole(file, facts, told, patience) {
  const { signal } = patience;
  // Counts the PUTs apart from the API's calls: that the API answers says nothing about the store.
  const store = new Patience(signal, told.waiting);
  const open = async (known) => timed(await patience.persist(() => api.openUpload(describe(file, known), signal)));
  const reopen = async () => (facts = await readable(file, () => inspect(file, true)), open(facts));
  let ticket = await open(facts);
  if (ticket.state === "ready") told.found(ticket.id);
  for (let before = null, unread = 0; ticket.state === "pending";) {
    told.opened(ticket.id);
    told.stage("sending");
    const [status] = await Promise.all([
      put(ticket.upload, file, { signal, progress: told.progress }),
      sendPreview(ticket.previewUpload, facts.preview, signal),
    ]);
    unread = status === 0 ? unread + 1 : 0;
    if (arrived(status)) {
      told.progress(file.size);
      told.stage("confirming");
      const { image, problem } = await confirmed(ticket.id, patience);
      if (image) return image;
      // A 412 for an object that has been taken away since, or an upload that ended while this device slept.
      if (problem.code === "object_missing") await store.wait(problem);
      else ticket = await open(facts);
      continue;
    }
    told.progress(0);
    const problem = new Problem({ code: status ? "storage_refused" : "no_answer", status });
    if (worthRepeating(status)) {
      await readable(file);
      await store.wait(unread > 1 ? new Problem({ code: "storage_unreachable" }) : problem);
      if (unread > 1 || (unread && Date.now() > ticket.dies)) {
        const { image } = await confirmed(ticket.id, patience);
        if (image) return image;
        ticket = await reopen();
      }
    } else if (status === 403 && before !== 403) {
      ticket = await renewed(ticket.id, patience) ?? await open(facts);
    } else if (status === 400 && before !== 400) {
      ticket = await reopen();
    } else {
      throw problem;
    }
    before = worthRepeating(status) ? null : status;
  }
  return ticket.image;
}

/** Notes when the URL dies, by this device's clock: the server's may be another. */
const timed = (ticket) => Object.assign(ticket, { dies: Date.now() + (ticket.upload?.expiresIn ?? 0) * 1000 });

/** The upload is over, or not there any more: what helps is opening it again. */
const OVER = ["upload_expired", "not_found"];

/** `{ image }`, or `{ problem }` when the bytes have not arrived or the upload is over. */
async function confirmed(id, patience) {
  try {
    return { image: await patience.persist(() => api.confirm(id, patience.signal)) };
  } catch (problem) {
    if (problem.code === "object_missing" || OVER.includes(problem.code)) return { problem };
    throw problem;
  }
}

/** The upload with a fresh URL, or null when it is over. */
async function renewed(id, patience) {
  try {
    return timed(await patience.persist(() => api.renew(id, patience.signal)));
  } catch (problem) {
    if (OVER.includes(problem.code)) return null;
    throw problem;
  }
}

/** The preview is a convenience: the upload does not fail for it. */
async function sendPreview(presigned, preview, signal) {
  if (!presigned || !preview) return;
  for (let attempt = 0; attempt < 3; attempt += 1) {
    if (!worthRepeating(await put(presigned, preview.blob, { signal }))) return;
  }
}

/** S3 lists what it has, the rest is sent, confirm puts the parts together and says so if one is missing after all. */
async function inParts(file, facts, told, patience) {
  const { signal } = patience;
  const partSize = Math.max(PART, Math.ceil(file.size / MOST_PARTS / (1 << 20)) * (1 << 20));
  const digests = await digestParts(file, partSize, signal);
  const asked = { ...describe(file, facts), partSize, partChecksums: "sha256" };
  delete asked.sha256;
  delete asked.preview;
  // The same bytes declared the same way have the same key: so a file that is chosen again is known, and never mistaken for another.
  const key = `parts ${await digest(new Blob([JSON.stringify(asked), ...digests]))}`;
  for (let round = 0; ; round += 1) {
    const ticket = await patience.persist(() => api.openMultipart(asked, key, signal));
    told.opened(ticket.id);
    told.stage("sending");
    try {
      const { parts } = await patience.persist(() => api.storedParts(ticket.id, signal));
      if (round === 0 && parts.length === ticket.partCount) told.found(ticket.id);
      await sendMissing(file, { ...ticket, digests }, new Set(parts.map((part) => part.partNumber)), told, patience);
      told.stage("confirming");
      return await patience.persist(() => api.confirm(ticket.id, signal));
    } catch (problem) {
      if (problem.code === "upload_complete") return patience.persist(() => api.confirm(ticket.id, signal));
      const goesOn = ["parts_missing", "object_missing", "upload_expired", "not_found"].includes(problem.code);
      if (!goesOn || round === 3) throw problem;
    }
  }
}

async function digestParts(file, partSize, signal) {
  const digests = [];
  const starts = Array.from({ length: Math.ceil(file.size / partSize) }, (_, i) => i * partSize);
  const lane = async () => {
    for (let from = starts.shift(); from !== undefined; from = starts.shift()) {
      signal.throwIfAborted();
      const start = from;
      digests[start / partSize] = await readable(file, () => digest(file.slice(start, start + partSize)));
    }
  };
  await Promise.all([lane(), lane()]);
  return digests;
}

async function sendMissing(file, { id, partSize, partCount, digests }, stored, told, patience) {
  const sizeOf = (number) => Math.min(partSize, file.size - (number - 1) * partSize);
  const sent = new Map([...stored].map((number) => [number, sizeOf(number)]));
  const report = (number, bytes) => {
    sent.set(number, bytes);
    told.progress([...sent.values()].reduce((sum, n) => sum + n, 0));
  };
  const missing = Array.from({ length: partCount }, (_, i) => i + 1).filter((number) => !stored.has(number));
  told.progress([...sent.values()].reduce((sum, n) => sum + n, 0));
  // When one lane gives up, the others stop too.
  const lanes = new AbortController();
  const signal = AbortSignal.any([patience.signal, lanes.signal]);
  const lane = async () => {
    const own = { calls: new Patience(signal, patience.onwait), store: new Patience(signal, patience.onwait) };
    for (let number = missing.shift(); number; number = missing.shift()) {
      const from = (number - 1) * partSize;
      await sendPart(file, { id, number, sha256: digests[number - 1], bytes: file.slice(from, from + partSize) }, report, own);
    }
  };
  try {
    await Promise.all(Array.from({ length: PARTS_AT_ONCE }, lane));
  } catch (error) {
    lanes.abort(error);
    throw error;
  }
}

/** Each attempt has a URL of its own, so that none has died. */
async function sendPart(file, { id, number, sha256, bytes }, report, { calls, store }) {
  const { signal } = calls;
  for (let refused = 0; ;) {
    const { parts } = await calls.persist(() => api.signParts(id, [{ partNumber: number, sha256 }], signal));
    const status = await put(parts[0].request, bytes, { signal, progress: (n) => report(number, n) });
    if (arrived(status)) {
      store.reset();
      return report(number, bytes.size);
    }
    report(number, 0);
    if (worthRepeating(status)) {
      await readable(file);
      await store.wait(new Problem({ code: status ? "storage_refused" : "storage_unreachable", status }));
    } else if (refused++) throw new Problem({ code: "storage_refused", status });
  }
}

/** What is declared. The name alone: folders stay at home. */
function describe(file, { contentType, sha256, preview, thumbHash }) {
  const declared = { fileName: file.name, contentType, size: file.size, sha256 };
  if (thumbHash) declared.thumbHash = thumbHash;
  if (preview) declared.preview = { contentType: preview.blob.type, size: preview.blob.size, sha256: preview.sha256 };
  return declared;
}

/** Does `work`, or throws `file_unreadable`: the file was moved, changed or taken away while we were at it. */
async function readable(file, work = () => file.slice(0, 1).arrayBuffer()) {
  try {
    return await work();
  } catch (error) {
    if (error?.name === "NotReadableError" || error?.name === "NotFoundError") throw new Problem({ code: "file_unreadable" });
    throw error;
  }
}
