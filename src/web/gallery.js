// The loaded images, newest first: loads pages on demand, merges changes made elsewhere, and renews URLs before they expire.
// Elements are in grid.js.

import * as api from "./api.js";
import { Problem } from "./valet-upload/http.js";

const PAGE = 100;
/** New images after which a refresh replaces the list. */
const MAX_NEW = 1000;
/** Members that an update may remove. */
const OPTIONAL = ["caption", "previewUrl", "thumbHash"];
/** URLs that expire within this time are renewed before they are used. */
const RENEWAL_MS = 20_000;

/** Events: `change`. */
export class Gallery extends EventTarget {
  images = [];
  complete = false;
  problem = null;
  #known = new Map(); // id → image, hidden ones too
  #hidden = new Set();
  #gone = new Set(); // deleted here: an older response does not restore them
  #cursor;
  #loading;
  #refreshing;
  #again = false;
  #first = 0;
  #last = 0;

  /** Loads the next page, unless one is being loaded or there is none. */
  more() {
    if (this.complete) return Promise.resolve();
    this.#loading ??= this.#page().finally(() => { this.#loading = null; });
    return this.#loading;
  }

  /** Loads all pages. Throws the problem of a page that cannot be loaded. */
  async all() {
    while (!this.complete) {
      await this.more();
      if (this.problem) throw this.problem;
    }
  }

  /** Loads pages until the one with this image. */
  async until(id) {
    while (!this.complete && !this.problem && !this.#known.has(id)) await this.more();
  }

  /** Returns an image, also of a page that is not loaded yet; null if it does not exist any more. */
  async find(id) {
    if (this.#hidden.has(id) || this.#gone.has(id)) return null;
    if (this.#known.has(id)) return this.#known.get(id);
    const { results: [{ image, problem, status }] } = await api.read([id]);
    if (problem && status !== 404) throw new Problem(problem);
    return this.#known.get(id) ?? image ?? null;
  }

  /** Merges images that were added, changed or deleted elsewhere. A call during a refresh causes one more refresh. */
  refresh() {
    if (!this.#known.size && !this.complete) return this.more();
    this.#again = true;
    this.#refreshing ??= this.#refresh().finally(() => { this.#refreshing = null; });
    return this.#refreshing;
  }

  async #refresh() {
    while (this.#again) {
      this.#again = false;
      const before = { ids: new Set(this.#known.keys()), first: this.#first };
      const fetched = [];
      let cursor, met;
      do {
        const page = await api.gallery(PAGE, cursor);
        fetched.push(...page.images);
        cursor = page.nextCursor;
        met = page.images.some(({ id }) => before.ids.has(id));
      } while (cursor && !met && fetched.length < MAX_NEW);
      this.#merge(fetched, cursor, before, met);
    }
  }

  /** Merges `fetched`, the newest images; `before` is the list at the time of the request. */
  #merge(fetched, cursor, before, met) {
    const there = new Set(fetched.map(({ id }) => id));
    // Images beyond the oldest known image of the response are unaffected.
    const edge = cursor && met ? Math.max(...fetched.map(({ id }) => this.#known.get(id)?.order ?? -Infinity)) : Infinity;
    for (const [id, { order }] of this.#known) if (before.ids.has(id) && !there.has(id) && order < edge) this.#drop(id);
    if (!cursor) this.complete = true;
    if (cursor && !met) [this.#cursor, this.complete] = [cursor, false];
    const since = [...this.#known.values()].filter(({ id, order }) => order < before.first && !there.has(id)).sort((a, b) => b.order - a.order);
    this.#first -= fetched.length;
    fetched.forEach((image, i) => this.#store(image, this.#first + i));
    for (const image of since) image.order = this.#first -= 1;
    this.problem = null;
    this.#changed();
  }

  async #page() {
    try {
      const { images, nextCursor } = await api.gallery(PAGE, this.#cursor);
      this.problem = null;
      this.#cursor = nextCursor;
      this.complete = !nextCursor;
      for (const image of images.filter((image) => !this.#known.has(image.id))) this.#store(image, (this.#last += 1));
    } catch (problem) {
      this.problem = problem;
    }
    this.#changed();
  }

  /** Adds an image that was uploaded here or in another tab. `local` is a URL of bytes that this page has. */
  add(image, local) {
    const known = this.#known.get(image.id);
    this.#gone.delete(image.id);
    const order = known?.order ?? this.#orderOf(image);
    if (order === undefined) return;
    this.#store(local && !known ? Object.assign(image, { local }) : image, order);
    this.#changed();
  }

  /** Returns the position that the server lists an image at: parallel uploads are confirmed in any order. Undefined if its page is not loaded yet. */
  #orderOf(image) {
    const place = this.images.findIndex((other) => isNewer(image, other));
    if (place < 0 && this.images.length) return this.complete ? (this.#last += 1) : undefined;
    if (place > 0) return (this.images[place - 1].order + this.images[place].order) / 2;
    return (this.#first -= 1);
  }

  #store(image, order) {
    if (this.#gone.has(image.id)) return;
    const known = this.#known.get(image.id);
    if (!known) return this.#known.set(image.id, Object.assign(image, { order }));
    for (const name of OPTIONAL) if (!(name in image)) delete known[name];
    Object.assign(known, image, { order });
  }

  /** Sets the caption; an empty one removes it. */
  describe(id, caption) {
    const image = this.#known.get(id);
    if (!image) return;
    image.caption = caption || undefined;
    this.#changed();
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

  /** Removes deleted images. */
  forget(ids) {
    for (const id of ids) {
      this.#gone.add(id);
      this.#drop(id);
    }
    this.#changed();
  }

  #drop(id) {
    const local = this.#known.get(id)?.local;
    if (local) URL.revokeObjectURL(local);
    this.#known.delete(id);
    this.#hidden.delete(id);
  }

  /** Renews the URLs of these images that expire soon; with `all`, of every image, since a URL was refused. */
  async freshen(images, all = false) {
    const stale = images.filter((image) => all || Date.parse(image.urlExpiresAt) - Date.now() < RENEWAL_MS);
    for (let from = 0; from < stale.length; from += 100) {
      const { results } = await api.read(stale.slice(from, from + 100).map((image) => image.id));
      for (const { id, image } of results) if (image) Object.assign(this.#known.get(id) ?? stale.find((image) => image.id === id), image);
    }
  }

  #changed() {
    this.images = [...this.#known.values()].filter((image) => !this.#hidden.has(image.id)).sort((a, b) => a.order - b.order);
    this.dispatchEvent(new Event("change"));
  }
}

/** Returns whether the server lists `image` before `other`: by the time of the upload, then by id. */
function isNewer(image, other) {
  const [at, otherAt] = [image, other].map(({ uploadedAt }) => Date.parse(uploadedAt));
  return at === otherAt ? image.id > other.id : at > otherAt;
}

/** Returns the image's caption, or its file name. */
export const nameOf = (image) => image.caption || image.fileName;
