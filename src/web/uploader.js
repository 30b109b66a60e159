// The queue of uploads: a few at once, pause, retry, cancel, resume after a reload. upload.js has the protocol of one upload.

import * as api from "./api.js";
import { Problem } from "./http.js";
import * as pendingFiles from "./pending-files.js";
import { upload } from "./upload.js";

const AT_ONCE = 3;
const PAUSED = Symbol("paused");
const CANCELLED = Symbol("cancelled");

/** Codes of problems that a repeat with the same file does not solve. */
const FINAL_CODES = new Set(["content_mismatch", "type_not_allowed", "file_too_large", "invalid_size", "invalid_file_name", "file_unreadable"]);

let numbers = 0;

/**
 * An upload in the list. `state`: waiting → preparing → sending → confirming → done, or failed; and `lost`: open on the server, but
 * its file has to be chosen again. `duplicate`: done, and the gallery had the image before. `before`: the id of an earlier attempt at
 * this upload. `hold`: null, "offline" or "again" while an attempt waits.
 */
class Item {
  constructor(file, more = {}) {
    Object.assign(this, {
      number: (numbers += 1), key: null, file, name: file.name, size: file.size, state: "waiting", hold: null, sent: 0,
      problem: null, preview: null, id: null, image: null, controller: null, before: null, duplicate: false, ...more,
    });
  }

  get active() {
    return ["preparing", "sending", "confirming"].includes(this.state);
  }

  /** Whether a repeat with the same file can succeed. */
  get isRetryable() {
    return this.state === "failed" && this.file && !FINAL_CODES.has(this.problem.code);
  }

  get open() {
    return this.active || this.state === "waiting";
  }
}

/** Events: `change` (detail: the item, or nothing when several changed) and `uploaded` (detail: the item, with its image). */
export class Uploader extends EventTarget {
  items = [];
  paused = false;
  #user;

  constructor(user) {
    super();
    this.#user = user;
    // Uploads that failed without a network are repeated when it is back.
    this.online = () => this.items.filter((item) => ["no_answer", "storage_unreachable"].includes(item.problem?.code)).forEach((item) => this.retry(item));
    addEventListener("online", this.online);
  }

  /** Queues files, except those that are queued already. */
  add(files) {
    const same = (a, b) => a.file && a.name === b.name && a.size === b.size && a.file.lastModified === b.lastModified;
    const fresh = [...files].filter((file) => !this.items.some((item) => item.open && same(item, file)));
    for (const file of fresh) this.#queue(new Item(file, { key: crypto.getRandomValues(new Uint32Array(4)).join("-") }), true);
    this.#changed();
    this.#next();
    return fresh.length;
  }

  #queue(item, store) {
    this.items.push(item);
    if (store) item.stored = pendingFiles.add(item.key, this.#user, item.file);
  }

  /** Resumes the uploads of an earlier visit, and lists other uploads that are open on the server. */
  async resume() {
    const { orphans, busy } = await pendingFiles.leftovers(this.#user);
    for (const record of orphans) {
      if (!record.file) {
        pendingFiles.remove(record.key);
        continue;
      }
      const file = new File([record.file], record.name, { type: record.type, lastModified: record.lastModified });
      this.#queue(new Item(file, { key: record.key, id: record.id ?? null }));
    }
    const known = new Set([...busy, ...this.items.map((item) => item.id)]);
    let cursor;
    do {
      const page = await api.pending(100, cursor);
      for (const open of page.uploads.filter((open) => !known.has(open.id))) {
        this.items.push(new Item({ name: open.fileName, size: open.size }, { file: null, state: "lost", id: open.id }));
      }
      cursor = page.nextCursor;
    } while (cursor);
    this.#changed();
    this.#next();
  }

  pause() {
    this.paused = true;
    for (const item of this.items.filter((item) => item.active)) item.controller.abort(PAUSED);
    this.#changed();
  }

  unpause() {
    this.paused = false;
    this.#changed();
    this.#next();
  }

  retry(item) {
    if (!item.isRetryable) return;
    Object.assign(item, { state: "waiting", problem: null, sent: 0 });
    this.#changed(item);
    this.#next();
  }

  /** Removes an upload from the list and from the server. */
  cancel(item) {
    this.items.splice(this.items.indexOf(item), 1);
    item.controller?.abort(CANCELLED);
    this.#forget(item);
    if (item.id && item.state !== "done") api.remove(item.id).catch(() => {}); // If that fails, the upload expires.
    this.#changed();
    this.#next();
  }

  clearDone() {
    this.items = this.items.filter((item) => item.state !== "done");
    this.#changed();
  }

  /** Stops all uploads without a request to the server: for signing out. */
  stop() {
    removeEventListener("online", this.online);
    this.paused = true;
    for (const item of this.items) item.controller?.abort(CANCELLED);
  }

  #next() {
    if (this.paused) return;
    const free = AT_ONCE - this.items.filter((item) => item.active).length;
    for (const item of this.items.filter((item) => item.state === "waiting").slice(0, Math.max(0, free))) this.#run(item);
  }

  async #run(item) {
    const controller = (item.controller = new AbortController());
    item.before = item.id;
    Object.assign(item, { state: "preparing", hold: null });
    const set = (values) => {
      if (item.controller !== controller || controller.signal.aborted) return;
      Object.assign(item, values);
      this.#changed(item);
    };
    try {
      item.image = await upload(item.file, {
        stage: (state) => set({ state }),
        progress: (sent) => set({ sent: Math.min(sent, item.size) }),
        waiting: (hold) => set({ hold }),
        preview: (preview) => set({ preview }),
        opened: (id) => this.#opened(item, id, set),
        // Unless this upload was confirmed before and the response was lost.
        found: (id) => set({ duplicate: item.before !== id }),
      }, controller.signal);
      controller.signal.throwIfAborted();
      // If two lines have the same image, only the first has uploaded it.
      const isRepeated = this.items.some((other) => other !== item && other.state === "done" && !other.duplicate && other.image?.id === item.image.id);
      Object.assign(item, { state: "done", sent: item.size, hold: null, duplicate: item.duplicate || isRepeated });
      this.#forget(item);
      this.dispatchEvent(new CustomEvent("uploaded", { detail: item }));
    } catch (error) {
      if (controller.signal.aborted) {
        if (controller.signal.reason === PAUSED) Object.assign(item, { state: "waiting", hold: null, sent: 0 });
      } else {
        if (!(error instanceof Problem)) console.error(error);
        Object.assign(item, { state: "failed", hold: null, problem: error instanceof Problem ? error : new Problem({ code: "internal" }) });
        // A file that is never accepted is not uploaded again after a reload.
        if (!item.isRetryable) this.#forget(item);
      }
    }
    this.#changed(item);
    this.#next();
  }

  #opened(item, id, set) {
    if (item.id !== id) item.stored?.then(() => pendingFiles.setId(item.key, id));
    // An unfinished upload was waiting for this file.
    const lost = this.items.findIndex((other) => other !== item && other.state === "lost" && other.id === id);
    if (lost >= 0) {
      this.items.splice(lost, 1);
      item.before = id;
    }
    set({ id });
    if (lost >= 0) this.#changed();
  }

  async #forget(item) {
    await item.stored;
    await pendingFiles.remove(item.key);
  }

  #changed(item) {
    this.dispatchEvent(new CustomEvent("change", { detail: item }));
  }
}
