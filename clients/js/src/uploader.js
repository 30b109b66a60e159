// The queue of uploads: a few at once, pause, retry, cancel, resume after a reload. upload.js has the protocol of one upload.

import { asProblem, FileProblem, NetworkProblem, problem } from "./http.js";
import { PendingFiles } from "./pending-files.js";
import { abortError, RetryPolicy, Turns } from "./retry.js";
import { upload } from "./upload.js";

const PAUSED = Symbol("paused");
const CANCELLED = Symbol("cancelled");

/** An upload in the list; types.js describes its public fields. `before` is the id that an earlier attempt has opened. */
export class Upload {
  constructor(uploader, { file = null, name, size, caption }, more = {}) {
    Object.assign(this, {
      key: newKey(), file, name, size, caption, state: "waiting", waitReason: null, sent: 0, problem: null, preview: null, id: null, image: null,
      duplicate: false, ...more,
    });
    // Bound, for handlers and for proxies (Vue).
    for (const action of ["pause", "resume", "retry", "cancel"]) this[action] = () => uploader[action](this);
    this.expect();
  }

  /** Makes `finished` the promise of the next attempt. */
  expect() {
    this.finished = new Promise((resolve, reject) => { this.settle = { resolve, reject }; });
    this.finished.catch(() => {}); // An app may read the state instead.
  }

  get active() {
    return ["preparing", "sending", "confirming"].includes(this.state);
  }

  get open() {
    return this.active || this.state === "waiting";
  }

  get isRetryable() {
    return this.state === "failed" && this.file !== null && !(this.problem instanceof FileProblem);
  }
}

/**
 * The queue; types.js describes its methods for apps. `api` has the calls of api.js, `work` the jobs of worker-pool.js, `revive` makes a file
 * of a stored record.
 */
export class Uploader extends EventTarget {
  items = [];
  paused = false;
  #services;
  #files;
  #concurrency;
  #revive;
  #running = new Set();
  #stopping = new AbortController();
  #isListed = true; // Whether the last restore() listed the open uploads.

  constructor({ api, work, store, user, concurrency = 3, revive = reviveBlob }) {
    super();
    this.#services = { api, work, turns: new Turns(concurrency) };
    this.#revive = revive;
    this.#files = new PendingFiles(store, user);
    this.#concurrency = concurrency;
    // Retries uploads and the list that failed without a network.
    this.online = () => {
      this.items.filter((item) => item.problem instanceof NetworkProblem).forEach((item) => this.retry(item));
      if (!this.#isListed) this.restore().catch(() => {});
    };
    globalThis.addEventListener?.("online", this.online);
  }

  get progress() {
    const total = { sent: 0, size: 0, done: 0, count: 0 };
    for (const { state, sent, size } of this.items) {
      if (["needs-file", "failed", "cancelled"].includes(state)) continue;
      total.sent += sent;
      total.size += size;
      total.done += Number(state === "done");
      total.count += 1;
    }
    return total;
  }

  /** Queues files, except named ones that are queued already. */
  add(input, options = {}) {
    const { name, caption, signal } = options;
    const keyOf = (name, { uri, size, lastModified }) => uri ?? `${size} ${lastModified} ${name}`;
    const queued = new Set(this.items.map((item) => item.open && item.file && keyOf(item.name, item.file)));
    const added = [];
    for (const file of Symbol.iterator in input ? input : [input]) {
      if (!isStream(file) && queued.has(keyOf(file.name, file))) continue;
      const item = new Upload(this, { file, name: file.name || name || "image", size: file.size, caption });
      this.items.push(item);
      added.push(item);
      queued.add(keyOf(item.name, file));
      if (!isStream(file)) item.stored = this.#files.add(item);
    }
    const cancel = () => added.forEach((item) => this.cancel(item));
    signal?.addEventListener("abort", cancel, { once: true });
    if (signal?.aborted || this.#stopping.signal.aborted) cancel();
    this.#changed();
    this.#next();
    return added;
  }

  async restore() {
    const { orphans, busy } = await this.#files.leftovers();
    const { signal } = this.#stopping;
    if (signal.aborted) return;
    for (const record of orphans) {
      if (this.items.some((item) => item.key === record.key)) continue;
      if (!record.file) {
        // Only a mark for other tabs.
        this.#files.remove(record.key);
        continue;
      }
      const { name, key, caption, id } = record;
      const file = this.#revive(record);
      this.items.push(new Upload(this, { file, name, size: file.size, caption }, { key, id: id ?? null, stored: this.#files.claim(key, id) }));
    }
    // Stored files are uploaded before the list, which may wait for a network.
    this.#changed();
    this.#next();
    const retry = new RetryPolicy(signal);
    this.#isListed = false;
    let cursor;
    do {
      const page = await retry.run(() => this.#services.api.pending(100, cursor, signal)).catch((error) => { if (!signal.aborted) throw error; });
      if (!page) return;
      for (const open of page.uploads.filter(({ id }) => !busy.has(id) && !this.#has(id))) {
        this.items.push(new Upload(this, { name: open.fileName, size: open.size }, { state: "needs-file", id: open.id }));
      }
      cursor = page.nextCursor;
    } while (cursor);
    this.#isListed = true;
    this.#changed();
  }

  pause(item) {
    if (!item) this.paused = true;
    for (const one of item ? [item] : this.items) {
      const wasActive = one.active;
      if (item && one.open) Object.assign(one, { state: "paused", waitReason: null });
      if (wasActive) one.controller?.abort(PAUSED);
    }
    this.#changed(item);
    this.#next();
  }

  resume(item) {
    if (!item) this.paused = false;
    else if (item.state === "paused") Object.assign(item, { state: "waiting", sent: 0 });
    this.#changed(item);
    this.#next();
  }

  retry(item) {
    if (!item.isRetryable || this.#stopping.signal.aborted) return;
    Object.assign(item, { state: "waiting", problem: null, sent: 0 });
    item.expect();
    this.#changed(item);
    this.#next();
  }

  cancel({ key }) {
    const item = this.items.find((one) => one.key === key); // It may be given as a proxy or a copy.
    if (!item) return;
    // Another list, since the app may loop over this one.
    this.items = this.items.filter((other) => other !== item);
    item.controller?.abort(CANCELLED);
    this.#forget(item);
    if (item.state !== "done") {
      this.#discard(item.id);
      item.state = "cancelled";
      item.settle.reject(abortError());
    }
    this.#changed();
    this.#next();
  }

  clearDone() {
    this.items = this.items.filter((item) => item.state !== "done");
    this.#changed();
  }

  stop() {
    globalThis.removeEventListener?.("online", this.online);
    this.paused = true;
    this.#stopping.abort();
    for (const item of this.items) {
      item.controller?.abort(CANCELLED);
      item.settle.reject(abortError());
    }
    this.#services.work.close();
  }

  #has(id) {
    return this.items.some((item) => item.id === id);
  }

  /** Deletes an upload from the server, unless it is complete. Files of the same bytes have one upload. */
  #discard(id) {
    if (id && !this.#has(id)) this.#services.api.discard(id);
  }

  #next() {
    // Each start dispatches `change`, whose listeners may add files.
    for (let item = this.#startable(); item; item = this.#startable()) this.#run(item);
  }

  /** Returns the next upload to start: a few are inspected at once, and eight times as many active, to fill batches. */
  #startable() {
    const active = [...this.#running].filter((item) => item.active);
    const count = active.filter((item) => item.step === "preparing").length;
    const canStart = !this.paused && !this.#stopping.signal.aborted && count < this.#concurrency && active.length < 8 * this.#concurrency;
    // A stopped attempt may still compute a digest: a second attempt beside it would send the bytes twice.
    return canStart ? this.items.find((item) => item.state === "waiting" && !this.#running.has(item)) : undefined;
  }

  async #run(item) {
    const controller = (item.controller = new AbortController());
    this.#running.add(item);
    Object.assign(item, { state: "preparing", step: "preparing", waitReason: null, before: item.id });
    const set = (values) => {
      if (controller.signal.aborted) return;
      Object.assign(item, values);
      this.#changed(item);
    };
    try {
      if (isStream(item.file)) {
        item.file = await collect(item.file);
      } else if (item.file.load) {
        await item.file.load();
        set({ size: item.file.size });
      }
      item.image = await upload(item, {
        stage: (step) => {
          item.step = step;
          set({ state: step === "opening" ? "preparing" : step });
          this.#next();
        },
        progress: (sent) => set({ sent: Math.min(sent, item.size) }),
        waiting: (waitReason) => set({ waitReason }),
        preview: (preview) => set({ preview }),
        opened: (id) => this.#opened(item, id),
        // A duplicate, unless this upload was confirmed before and the response was lost.
        found: (id) => set({ duplicate: item.before !== id }),
      }, controller.signal, this.#services);
      controller.signal.throwIfAborted();
      // If two items have the same image, only the first has uploaded it.
      const isRepeated = this.items.some((other) => other !== item && other.state === "done" && !other.duplicate && other.image?.id === item.image?.id);
      Object.assign(item, { state: "done", sent: item.size, waitReason: null, duplicate: item.duplicate || isRepeated });
      this.#forget(item);
      item.settle.resolve(item.image);
      this.dispatchEvent(new CustomEvent("uploaded", { detail: item }));
    } catch (error) {
      this.#stopped(item, controller.signal, error);
    }
    this.#running.delete(item);
    this.#changed(item);
    this.#next();
  }

  #stopped(item, signal, error) {
    if (signal.aborted) {
      // An upload that was paused alone keeps its state `paused`; the others return to the queue.
      if (signal.reason === PAUSED && item.active) Object.assign(item, { state: "waiting", waitReason: null, sent: 0 });
      return;
    }
    Object.assign(item, { state: "failed", waitReason: null, problem: asProblem(error, "internal") });
    if (item.problem !== error) console.error(error);
    // A file that is never accepted is not uploaded again after a reload.
    if (!item.isRetryable) this.#forget(item);
    item.settle.reject(item.problem);
    this.dispatchEvent(new CustomEvent("failed", { detail: item }));
  }

  /** Records the id of an opened upload. Removes the item that needed this file, because this item continues its upload. */
  #opened(item, id) {
    if (item.state === "cancelled") return this.#discard(id);
    // `#forget` waits for this.
    if (item.id !== id) item.stored = item.stored?.then(() => this.#files.claim(item.key, id));
    const needsFile = this.items.findIndex((other) => other !== item && other.state === "needs-file" && other.id === id);
    if (needsFile >= 0) {
      this.items.splice(needsFile, 1);
      item.before = id;
    }
    item.id = id;
    this.#changed(needsFile < 0 ? item : undefined);
  }

  async #forget(item) {
    await item.stored;
    await this.#files.remove(item.key);
  }

  #changed(item) {
    this.dispatchEvent(new CustomEvent("change", { detail: item }));
  }
}

function reviveBlob({ file, name, type, lastModified }) {
  return globalThis.File ? new File([file], name, { type, lastModified }) : file;
}

// A Blob, also one of another frame, has a method of this name.
const isStream = ({ stream }) => typeof stream === "object";

async function collect({ stream, size, type = "" }) {
  const blob = await new Response(stream).blob().catch(() => null);
  if (blob?.size !== size) throw problem({ code: "file_unreadable" });
  return new Blob([blob], { type });
}

/** Returns a random key. */
const newKey = () => Array.from({ length: 3 }, () => String(Math.random()).slice(2)).join("-");
