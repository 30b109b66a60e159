// Deletes images with "Undo": the request is sent when the toast closes, since the server deletes permanently. When the page closes,
// pending deletions are sent by a request that outlives the page (`keepalive`). If that fails too, the images stay.

import * as api from "./api.js";
import { isTyping, say, toast } from "./dom.js";
import { count, explain } from "./messages.js";

const UNDO_SECONDS = 8;

export class UndoDelete {
  #gallery;
  #done;
  #waiting = new Set();

  /** `done` receives the ids of deleted images. */
  constructor(gallery, done) {
    this.#gallery = gallery;
    this.#done = done;
    this.leave = () => this.#waiting.forEach((batch) => { this.#waiting.delete(batch); for (const ids of hundreds(batch.ids)) api.removeManyNow(ids); });
    this.key = (event) => {
      if (event.key === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey && !isTyping(event)) this.undo();
    };
    addEventListener("pagehide", this.leave);
    addEventListener("keydown", this.key);
  }

  stop() {
    for (const batch of this.#waiting) batch.close();
    this.leave();
    removeEventListener("pagehide", this.leave);
    removeEventListener("keydown", this.key);
  }

  /** Hides images and deletes them later; `onrestore` is called after "Undo". */
  remove(ids, onrestore = () => {}) {
    if (!ids.length) return;
    const batch = { ids, onrestore };
    this.#gallery.hide(ids);
    this.#waiting.add(batch);
    const text = `${count(ids.length, "image")} deleted`;
    batch.close = toast(text, { action: "Undo", onaction: () => this.#restore(batch), seconds: 0 });
    batch.timer = setTimeout(() => { batch.close(); this.#send(batch); }, UNDO_SECONDS * 1000);
    say(`${text}. Undo with Control Z.`, "deletion");
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

  /** Undoes the last deletion. */
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
    say("Restored", "deletion");
    batch.onrestore();
  }

  async #send(batch) {
    if (!this.#waiting.delete(batch)) return;
    const kept = [];
    let why;
    for (const ids of hundreds(batch.ids)) {
      try {
        const { results } = await api.removeMany(ids);
        const failed = results.filter((result) => result.problem && result.status !== 404);
        if (failed.length) why = failed[0].problem;
        kept.push(...failed.map((result) => result.id));
      } catch (problem) {
        why = problem;
        kept.push(...ids);
      }
    }
    const gone = batch.ids.filter((id) => !kept.includes(id));
    this.#gallery.forget(gone);
    this.#gallery.unhide(kept);
    if (why) {
      toast(`${count(kept.length, "image")} could not be deleted. ${explain(why)}`, { error: true, action: "Try again", onaction: () => this.remove(kept), seconds: 12 });
    }
    this.#done(gone);
  }
}

function* hundreds(ids) {
  for (let from = 0; from < ids.length; from += 100) yield ids.slice(from, from + 100);
}
