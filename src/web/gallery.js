// The images that are known so far, newest first: pages on demand, fresh URLs before the old ones die. No elements here (grid.js).

import * as api from "./api.js";

const PAGE = 100;
/** A URL that dies within this is replaced before it is used. */
const SPARE_MS = 20_000;

/** Events: `change`. */
export class Gallery extends EventTarget {
  images = [];
  complete = false;
  problem = null;
  #known = new Map(); // id → image, hidden ones too
  #hidden = new Set();
  #cursor;
  #loading;
  #first = 0;
  #last = 0;

  /** The next page, if there is one and none is on its way. */
  more() {
    if (this.complete) return Promise.resolve();
    this.#loading ??= this.#page().finally(() => { this.#loading = null; });
    return this.#loading;
  }

  async #page() {
    try {
      const { images, nextCursor } = await api.gallery(PAGE, this.#cursor);
      this.problem = null;
      this.#cursor = nextCursor;
      this.complete = !nextCursor;
      for (const image of images.filter((image) => !this.#known.has(image.id))) this.#learn(image, (this.#last += 1));
    } catch (problem) {
      this.problem = problem;
    }
    this.#changed();
  }

  /** One that has just been uploaded. `local` is a URL of bytes this page has itself. */
  add(image, local) {
    const known = this.#known.get(image.id);
    if (known) return Object.assign(known, image);
    this.#learn(Object.assign(image, { local }), (this.#first -= 1));
    this.#changed();
    return image;
  }

  #learn(image, order) {
    image.order = order;
    this.#known.set(image.id, image);
  }

  shows(id) {
    return this.#known.has(id) && !this.#hidden.has(id);
  }

  get(id) {
    return this.#known.get(id);
  }

  hide(ids) {
    for (const id of ids) this.#hidden.add(id);
    this.#changed();
  }

  unhide(ids) {
    for (const id of ids) this.#hidden.delete(id);
    this.#changed();
  }

  /** They are deleted. */
  forget(ids) {
    for (const id of ids) {
      const local = this.#known.get(id)?.local;
      if (local) URL.revokeObjectURL(local);
      this.#known.delete(id);
      this.#hidden.delete(id);
    }
    this.#changed();
  }

  /** Gives those of these images fresh URLs whose own are about to die; `all` of them when they were refused already. */
  async freshen(images, all = false) {
    const stale = images.filter((image) => all || Date.parse(image.urlExpiresAt) - Date.now() < SPARE_MS);
    for (let from = 0; from < stale.length; from += 100) {
      const { results } = await api.read(stale.slice(from, from + 100).map((image) => image.id));
      for (const { id, image } of results) if (image) Object.assign(this.#known.get(id) ?? {}, image);
    }
  }

  #changed() {
    this.images = [...this.#known.values()].filter((image) => !this.#hidden.has(image.id)).sort((a, b) => a.order - b.order);
    this.dispatchEvent(new Event("change"));
  }
}

/** What to call it. */
export const nameOf = (image) => image.caption || image.fileName;
