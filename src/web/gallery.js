// The images that are known so far, newest first: pages on demand, what changed elsewhere, fresh URLs before the old ones die.
// No elements here (grid.js).

import * as api from "./api.js";
import { Problem } from "./http.js";

const PAGE = 100;
/** So many new images are fetched at once before the list begins anew. */
const NEW_MOST = 1000;
/** Members that an image may lose. */
const OPTIONAL = ["caption", "previewUrl", "thumbHash"];
/** A URL that dies within this is replaced before it is used. */
const SPARE_MS = 20_000;

/** Events: `change`. */
export class Gallery extends EventTarget {
  images = [];
  complete = false;
  problem = null;
  #known = new Map(); // id → image, hidden ones too
  #hidden = new Set();
  #gone = new Set(); // deleted here: an answer from before does not bring them back
  #cursor;
  #loading;
  #refreshing;
  #again = false;
  #first = 0;
  #last = 0;

  /** The next page, if there is one and none is on its way. */
  more() {
    if (this.complete) return Promise.resolve();
    this.#loading ??= this.#page().finally(() => { this.#loading = null; });
    return this.#loading;
  }

  /** All pages. Throws the problem that keeps some away. */
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

  /** An image that may be on a page that is still to come, or null when it is not there any more. */
  async find(id) {
    if (this.#hidden.has(id) || this.#gone.has(id)) return null;
    if (this.#known.has(id)) return this.#known.get(id);
    const { results: [{ image, problem, status }] } = await api.read([id]);
    if (problem && status !== 404) throw new Problem(problem);
    return this.#known.get(id) ?? image ?? null;
  }

  /** Looks for what was added, changed or deleted elsewhere since; asked again meanwhile, it looks once more. */
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
      } while (cursor && !met && fetched.length < NEW_MOST);
      this.#merge(fetched, cursor, before, met);
    }
  }

  /** `fetched` is the newest end of the list, `before` what was known when it was asked for. */
  #merge(fetched, cursor, before, met) {
    const there = new Set(fetched.map(({ id }) => id));
    // Beyond the oldest that was met nothing is known about the others.
    const edge = cursor && met ? Math.max(...fetched.map(({ id }) => this.#known.get(id)?.order ?? -Infinity)) : Infinity;
    for (const [id, { order }] of this.#known) if (before.ids.has(id) && !there.has(id) && order < edge) this.#drop(id);
    if (!cursor) this.complete = true;
    if (cursor && !met) [this.#cursor, this.complete] = [cursor, false];
    const since = [...this.#known.values()].filter(({ id, order }) => order < before.first && !there.has(id)).sort((a, b) => b.order - a.order);
    this.#first -= fetched.length;
    fetched.forEach((image, i) => this.#learn(image, this.#first + i));
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
      for (const image of images.filter((image) => !this.#known.has(image.id))) this.#learn(image, (this.#last += 1));
    } catch (problem) {
      this.problem = problem;
    }
    this.#changed();
  }

  /** One that has just been uploaded, here or in another tab. `local` is a URL of bytes this page has itself. */
  add(image, local) {
    const known = this.#known.get(image.id);
    this.#gone.delete(image.id);
    const order = known?.order ?? this.#orderOf(image);
    if (order === undefined) return;
    this.#learn(local && !known ? Object.assign(image, { local }) : image, order);
    this.#changed();
  }

  /** Where the server lists it: uploads that end at once are confirmed in any order. Undefined on a page that is still to come. */
  #orderOf(image) {
    const place = this.images.findIndex((other) => isNewer(image, other));
    if (place < 0 && this.images.length) return this.complete ? (this.#last += 1) : undefined;
    if (place > 0) return (this.images[place - 1].order + this.images[place].order) / 2;
    return (this.#first -= 1);
  }

  #learn(image, order) {
    if (this.#gone.has(image.id)) return;
    const known = this.#known.get(image.id);
    if (!known) return this.#known.set(image.id, Object.assign(image, { order }));
    for (const name of OPTIONAL) if (!(name in image)) delete known[name];
    Object.assign(known, image, { order });
  }

  /** What its owner calls it; nothing for no caption. */
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

  /** They are deleted. */
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

  /** Gives those of these images fresh URLs whose own are about to die; `all` of them when they were refused already. */
  async freshen(images, all = false) {
    const stale = images.filter((image) => all || Date.parse(image.urlExpiresAt) - Date.now() < SPARE_MS);
    for (let from = 0; from < stale.length; from += 100) {
      const { results } = await api.read(stale.slice(from, from + 100).map((image) => image.id));
      for (const { id, image } of results) if (image) Object.assign(this.#known.get(id) ?? stale.find((one) => one.id === id), image);
    }
  }

  #changed() {
    this.images = [...this.#known.values()].filter((image) => !this.#hidden.has(image.id)).sort((a, b) => a.order - b.order);
    this.dispatchEvent(new Event("change"));
  }
}

/** As the server sorts: by the time of the upload, then by id. */
function isNewer(one, other) {
  const [at, otherAt] = [one, other].map(({ uploadedAt }) => Date.parse(uploadedAt));
  return at === otherAt ? one.id > other.id : at > otherAt;
}

/** What to call it. */
export const nameOf = (image) => image.caption || image.fileName;
