// Deletes images with "Undo": the request is sent when the toast closes, since the server deletes permanently. When the user signs out,
// waiting deletions are sent first. When the page closes, requests that outlive it send them (`keepalive`); if one fails, its images stay.

import * as api from "./api.js";
import { announce, isTyping, toast } from "./dom.js";
import { count, explain } from "./messages.js";

const UNDO_SECONDS = 8;
/** Images whose deletions can wait at a time: requests that outlive a page have at most 64 KiB of bodies, and an id has 39 bytes. */
export const MAX_WAITING = 1500;

export class UndoDelete {
  #gallery;
  #done;
  #waiting = new Set();
  #sending = new Map(); // batch → promise of its requests
  #isStopped = false;

  /** `done` receives the ids of deleted images. */
  constructor(gallery, done) {
    this.#gallery = gallery;
    this.#done = done;
    // Requests under way end with the page, so their deletions are sent again.
    this.leave = () => [...this.#waiting, ...this.#sending.keys()].forEach((batch) => {
      this.#waiting.delete(batch);
      for (const ids of hundreds(batch.ids)) api.deleteImagesNow(ids);
    });
    this.key = (event) => {
      if (event.key === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey && !isTyping(event)) this.undo();
    };
    addEventListener("pagehide", this.leave);
    addEventListener("keydown", this.key);
  }

  stop() {
    this.#isStopped = true;
    for (const batch of this.#waiting) batch.close();
    this.leave();
    removeEventListener("pagehide", this.leave);
    removeEventListener("keydown", this.key);
  }

  /** Sends all deletions; resolves when those under way have ended too. */
  sendAll() {
    for (const batch of this.#waiting) this.#sendNow(batch);
    return Promise.all(this.#sending.values());
  }

  /** Whether more deletions wait or are under way than can outlive the page. */
  get needsPage() {
    return total([...this.#waiting, ...this.#sending.keys()]) > MAX_WAITING;
  }

  /** Hides images and deletes them later; `onrestore` is called after "Undo". If too many wait, the oldest are sent at once. */
  remove(ids, onrestore = () => {}) {
    if (!ids.length) return;
    const batch = { ids, onrestore, close() {} };
    this.#gallery.hide(ids);
    this.#waiting.add(batch);
    for (const oldest of this.#waiting) if (total(this.#waiting) > MAX_WAITING) this.#sendNow(oldest);
    const text = `${count(ids.length, "image")} deleted`;
    if (!this.#waiting.has(batch)) {
      toast(`Deleting ${count(ids.length, "image")}. Keep this page open.`);
      return announce(text, "deletion");
    }
    batch.close = toast(text, { action: "Undo", onaction: () => this.#restore(batch), seconds: 0 });
    batch.timer = setTimeout(() => this.#sendNow(batch), UNDO_SECONDS * 1000);
    announce(`${text}. Undo with Control Z.`, "deletion");
  }

  /** Cancels the deletion of an image that was uploaded again. */
  keep(id) {
    const batch = [...this.#waiting].find(({ ids }) => ids.includes(id));
    if (!batch) return;
    batch.ids = batch.ids.filter((other) => other !== id);
    this.#gallery.unhide([id]);
    if (batch.ids.length) return;
    batch.close();
    clearTimeout(batch.timer);
    this.#waiting.delete(batch);
  }

  undo() {
    const batch = [...this.#waiting].pop();
    if (!batch) return;
    batch.close();
    this.#restore(batch);
  }

  #restore(batch) {
    clearTimeout(batch.timer);
    if (!this.#waiting.delete(batch)) return;
    this.#gallery.unhide(batch.ids);
    announce("Restored", "deletion");
    batch.onrestore();
  }

  /** Closes a batch's toast and sends its deletions. */
  #sendNow(batch) {
    batch.close();
    clearTimeout(batch.timer);
    if (!this.#waiting.delete(batch)) return;
    this.#sending.set(batch, this.#send(batch).finally(() => this.#sending.delete(batch)));
  }

  async #send(batch) {
    const [all, failedIds] = [batch.ids, []];
    let why;
    for (const ids of hundreds(all)) {
      try {
        const { results } = await api.deleteImages(ids);
        const failed = results.filter((result) => result.problem && result.status !== 404);
        if (failed.length) why = failed[0].problem;
        failedIds.push(...failed.map((result) => result.id));
      } catch (problem) {
        why = problem;
        failedIds.push(...ids);
      }
      batch.ids = batch.ids.slice(ids.length);
    }
    const deletedIds = all.filter((id) => !failedIds.includes(id));
    this.#gallery.forget(deletedIds);
    this.#gallery.unhide(failedIds);
    if (why) {
      toast(`${count(failedIds.length, "image")} could not be deleted. ${explain(why)}`, { error: true, action: this.#isStopped ? "" : "Try again", onaction: () => this.remove(failedIds), seconds: 12 });
    }
    this.#done(deletedIds);
  }
}

const total = (batches) => [...batches].reduce((sum, { ids }) => sum + ids.length, 0);

/** Yields ids for one request each. */
function* hundreds(ids) {
  for (let from = 0; from < ids.length; from += 100) yield ids.slice(from, from + 100);
}
