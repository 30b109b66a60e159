// The queue of uploads: a few at once, pause, retry, cancel, resume after a reload. What one upload does is in upload.js.

import * as api from "./api.js";
import { Problem } from "./http.js";
import * as shelf from "./shelf.js";
import { upload } from "./upload.js";

const AT_ONCE = 3;
const PAUSED = Symbol("paused");
const CANCELLED = Symbol("cancelled");

/** What the file itself is the reason for. */
const FINAL = new Set(["content_mismatch", "type_not_allowed", "file_too_large", "invalid_size", "invalid_file_name", "file_unreadable"]);

let numbers = 0;

/**
 * An upload as it is shown. `state`: waiting → preparing → sending → confirming → done, or failed; and `lost`: open on the
 * server, but its file is needed again. `duplicate`: done, and the image was in the gallery before. `before`: the id from an
 * earlier attempt at this upload. `hold`: null, "offline" or "again" while an attempt waits.
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

  /** Whether trying again can help: the same file, declared the same way. */
  get hopeful() {
    return this.state === "failed" && this.file && !FINAL.has(this.problem.code);
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
    // A failure for want of a network is no longer one when the network is back.
    this.online = () => this.items.filter((item) => ["no_answer", "storage_unreachable"].includes(item.problem?.code)).forEach((item) => this.retry(item));
    addEventListener("online", this.online);
  }

  /** Queues files. Those that are queued already are not queued twice. */
  add(files) {
    const same = (a, b) => a.file && a.name === b.name && a.size === b.size && a.file.lastModified === b.lastModified;
    const fresh = [...files].filter((file) => !this.items.some((item) => item.open && same(item, file)));
    for (const file of fresh) this.#queue(new Item(file, { key: crypto.getRandomValues(new Uint32Array(4)).join("-") }), true);
    this.#changed();
    this.#next();
    return fresh.length;
  }

  #queue(item, keep) {
    this.items.push(item);
    if (keep) item.kept = shelf.keep(item.key, this.#user, item.file);
  }

  /** Goes on with what an earlier visit left, and lists what else is open on the server. */
  async resume() {
    const { orphans, busy } = await shelf.leftovers(this.#user);
    for (const record of orphans) {
      if (!record.file) {
        shelf.forget(record.key);
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
    if (!item.hopeful) return;
    Object.assign(item, { state: "waiting", problem: null, sent: 0 });
    this.#changed(item);
    this.#next();
  }

  /** Takes it off the list; what the server holds of it goes too. */
  cancel(item) {
    this.items.splice(this.items.indexOf(item), 1);
    item.controller?.abort(CANCELLED);
    this.#leave(item);
    if (item.id && item.state !== "done") api.remove(item.id).catch(() => {}); // If that fails, it expires by itself.
    this.#changed();
    this.#next();
  }

  clearDone() {
    this.items = this.items.filter((item) => item.state !== "done");
    this.#changed();
  }

  /** Ends all of it without a word to the server: for signing out. */
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
        // Unless it is this very upload, whose last answer was lost.
        found: (id) => set({ duplicate: item.before !== id }),
      }, controller.signal);
      controller.signal.throwIfAborted();
      // Of two lines for one image, one has uploaded it.
      const twice = this.items.some((other) => other !== item && other.state === "done" && !other.duplicate && other.image?.id === item.image.id);
      Object.assign(item, { state: "done", sent: item.size, hold: null, duplicate: item.duplicate || twice });
      this.#leave(item);
      this.dispatchEvent(new CustomEvent("uploaded", { detail: item }));
    } catch (error) {
      if (controller.signal.aborted) {
        if (controller.signal.reason === PAUSED) Object.assign(item, { state: "waiting", hold: null, sent: 0 });
      } else {
        if (!(error instanceof Problem)) console.error(error);
        Object.assign(item, { state: "failed", hold: null, problem: error instanceof Problem ? error : new Problem({ code: "internal" }) });
        // A file that will never be accepted is not tried again after a reload.
        if (!item.hopeful) this.#leave(item);
      }
    }
    this.#changed(item);
    this.#next();
  }

  #opened(item, id, set) {
    if (item.id !== id) item.kept?.then(() => shelf.note(item.key, id));
    // The file that an unfinished upload was waiting for.
    const lost = this.items.findIndex((other) => other !== item && other.state === "lost" && other.id === id);
    if (lost >= 0) {
      this.items.splice(lost, 1);
      item.before = id;
    }
    set({ id });
    if (lost >= 0) this.#changed();
  }

  async #leave(item) {
    await item.kept;
    await shelf.forget(item.key);
  }

  #changed(item) {
    this.dispatchEvent(new CustomEvent("change", { detail: item }));
  }
}
