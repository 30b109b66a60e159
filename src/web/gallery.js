// The loaded images, newest first by upload or by the time taken: loads pages on demand, merges changes of other devices, and
// renews URLs before they expire. grid.js shows the images.

import * as api from "./api.js";
import { Problem } from "./valet-upload/http.js";

/** Images of one request, at most. */
const PAGE = 100;
/** New images after which a refresh replaces the list. */
const MAX_NEW = 1000;
/** Members that an update may remove. */
const OPTIONAL = ["caption", "previewUrl", "previews", "thumbHash"];
/** URLs that expire within this time are renewed before they are used. */
const RENEWAL_MS = 20_000;

/** Events: `change`. */
export class Gallery extends EventTarget {
  images = [];
  /** Order of the images: "uploaded" or "taken". */
  sort = "uploaded";
  complete = false;
  problem = null;
  #seen = new Set(); // ids of all images that were received, even if they are deleted or not loaded
  #hasRefreshed = false;
  #known = new Map(); // id → image, hidden ones too
  #hidden = new Set(); // ids of images whose deletion waits for "Undo"
  #deleted = new Set(); // ids of deleted images: an older response does not restore them
  #cursor;
  #loading;
  #refreshing;
  #again = false; // whether another refresh follows
  #first = 0; // smallest `order`, by which images are sorted
  #last = 0; // largest `order`

  /** Lists the images in another order, from the first one. */
  sortBy(sort) {
    this.sort = sort;
    for (const { local } of this.#known.values()) if (local) URL.revokeObjectURL(local);
    this.#known = new Map();
    this.#cursor = this.#loading = undefined;
    [this.complete, this.problem] = [false, null];
    this.#changed();
    return this.more();
  }

  /** Loads the next page, unless one is being loaded or there is none. */
  more() {
    if (this.complete) return Promise.resolve();
    const known = this.#known;
    this.#loading ??= this.#page(known).finally(() => { if (known === this.#known) this.#loading = null; });
    return this.#loading;
  }

  /** Loads all pages. Throws the problem of a page that cannot be loaded. */
  async all() {
    while (!this.complete) {
      await this.more();
      if (this.problem) throw this.problem;
    }
  }

  /** Loads pages until an image is loaded. */
  async until(id) {
    while (!this.complete && !this.problem && !this.#known.has(id)) await this.more();
  }

  /** Loads pages until a month's first row, and returns its first image; undefined if the month has none. */
  async untilMonth(month) {
    const known = this.#known;
    const isBefore = () => !this.images.length || this.images.at(-1).month > month;
    while (!this.complete && !this.problem && isBefore()) await this.more();
    await this.more();
    return known === this.#known ? this.images.find((image) => image.month <= month) : undefined;
  }

  /** Returns an image, also of a page that is not loaded yet; null if it does not exist any more. */
  async find(id) {
    if (this.#hidden.has(id) || this.#deleted.has(id)) return null;
    if (this.#known.has(id)) return this.#known.get(id);
    const { results: [{ image, problem, status }] } = await api.readImages([id]);
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
      const known = this.#known;
      const before = new Set(known.keys()), seen = new Set(this.#seen);
      const fetched = [];
      // In the order "taken" the newest uploads may not be loaded, so the first refresh reads one page.
      let cursor, hasMet = this.sort === "taken" && !this.#hasRefreshed;
      do {
        const page = await api.readGallery(PAGE, cursor, "uploaded");
        fetched.push(...page.images);
        cursor = page.nextCursor;
        hasMet ||= page.images.some(({ id }) => seen.has(id));
      } while (cursor && !hasMet && fetched.length < MAX_NEW);
      this.#hasRefreshed = true;
      if (known !== this.#known) continue;
      if (cursor && !hasMet) this.sortBy(this.sort);
      else this.#merge(fetched, cursor, before);
    }
  }

  /** Merges the newest uploads; `before` are the images at the time of the request. Older uploads are unaffected. */
  #merge(fetched, cursor, before) {
    const fetchedIds = new Set(fetched.map(({ id }) => id));
    const isCovered = (image) => !cursor || isNewer(image, fetched.at(-1), uploadTime);
    for (const [id, image] of this.#known) if (before.has(id) && !fetchedIds.has(id) && isCovered(image)) this.#drop(id);
    this.#list();
    for (const image of fetched) this.#put(image);
    this.problem = null;
    this.#changed();
  }

  async #page(known) {
    try {
      const { images, nextCursor } = await api.readGallery(PAGE, this.#cursor, this.sort);
      if (known !== this.#known) return; // The order has changed.
      this.problem = null;
      this.#cursor = nextCursor;
      this.complete = !nextCursor;
      for (const image of images.filter((image) => !this.#known.has(image.id))) this.#store(image, (this.#last += 1));
    } catch (problem) {
      if (known !== this.#known) return;
      this.problem = problem;
    }
    this.#changed();
  }

  /** Adds an image that was uploaded here or in another tab. `local` is a URL of bytes that this page has. */
  add(image, local) {
    this.#deleted.delete(image.id);
    this.#put(local && !this.#known.has(image.id) ? Object.assign(image, { local }) : image);
    this.#changed();
  }

  /** Stores an image where the server lists it, unless that page is not loaded: parallel uploads are confirmed in any order. */
  #put(image) {
    this.#seen.add(image.id);
    const known = this.#known.get(image.id);
    if (known) return this.#store(image, known.order);
    if (this.#deleted.has(image.id)) return;
    const { images } = this;
    const time = this.sort === "taken" ? localTime : uploadTime;
    const found = images.findIndex((other) => isNewer(image, other, time));
    const index = found < 0 ? images.length : found;
    if (index && found < 0 && !this.complete) return;
    const between = () => (found < 0 ? (this.#last += 1) : (images[index - 1].order + images[index].order) / 2);
    this.#store(image, index ? between() : (this.#first -= 1));
    images.splice(index, 0, image);
  }

  #store(image, order) {
    if (this.#deleted.has(image.id)) return;
    this.#seen.add(image.id);
    // YYYY-MM-DD, as in Swedish; an upload's date is in the zone of this device.
    const date = this.sort === "taken" ? image.takenAt ?? image.createdAt : new Date(image.uploadedAt).toLocaleDateString("sv");
    image.month = date.slice(0, 7);
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
      this.#deleted.add(id);
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

  /** Renews the URLs of these images that expire soon; with `all`, of each: a URL was rejected. */
  async freshen(images, { all } = {}) {
    const stale = images.filter((image) => all || Date.parse(image.urlExpiresAt) - Date.now() < RENEWAL_MS);
    for (let from = 0; from < stale.length; from += PAGE) {
      const { results } = await api.readImages(stale.slice(from, from + PAGE).map((image) => image.id));
      for (const { id, image } of results) if (image) Object.assign(this.#known.get(id) ?? stale.find((image) => image.id === id), image);
    }
  }

  #changed() {
    this.#list();
    this.dispatchEvent(new Event("change"));
  }

  #list() {
    this.images = [...this.#known.values()].filter((image) => !this.#hidden.has(image.id)).sort((a, b) => a.order - b.order);
  }
}

const uploadTime = ({ uploadedAt }) => Date.parse(uploadedAt);

/** Returns the time that sorts an image in the order "taken": its local time, read as UTC. */
const localTime = ({ takenAt, createdAt }) => Date.parse(takenAt ? `${takenAt.slice(0, 19)}Z` : createdAt);

/** Returns whether the server lists `image` before `other`: by this time, then by id. */
function isNewer(image, other, time) {
  const [at, otherAt] = [time(image), time(other)];
  return at === otherAt ? image.id > other.id : at > otherAt;
}

/** Returns the candidates of `srcset`: the previews, by width. */
export const srcset = ({ previews = [] }) => previews.map(({ url, width }) => `${url} ${width}w`).join(", ");

export const nameOf = (image) => image.caption || image.fileName;
