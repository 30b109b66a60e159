// Follows the changes of the user's images on other devices while the page is visible, and passes them on to the other tabs. Browsers
// open few connections to one server: of the visible tabs, the one with a Web Lock has the stream. When a stream begins, the gallery is
// refreshed.

import * as api from "./api.js";
import { follow } from "./valet-upload/events.js";
import { Problem } from "./valet-upload/http.js";
import { channel, locks } from "./valet-upload/storage.js";

/** Time in which ids of images are gathered, to be read with one request. */
const GATHER_MS = 150;
/** Images that one request reads, at most. */
const MAX_IMAGES = 100;
/** Time for which a hidden page keeps its stream. */
const HIDDEN_MS = 5_000;

/** Events: `missed`, when changes may have been missed; `gone` (detail: ids of deleted images); `changed` (detail: images as they are now). */
export class Changes extends EventTarget {
  #stopping = new AbortController();
  #stream;
  #waiting = new Map(); // id → whether it is read even if the gallery has it
  #isKnown;
  #user;
  #channel = channel("valet.changes");
  #timer;
  #hideTimer;

  /** `isKnown` returns whether the gallery has an image: the stream also reports uploads of this page. */
  constructor(user, isKnown) {
    super();
    this.#user = user;
    this.#isKnown = isKnown;
    this.#channel.onmessage = ({ data: { user: other, name, detail } }) => { if (other === user) this.#report(name, detail); };
    document.addEventListener("visibilitychange", () => this.#followVisibility(), { signal: this.#stopping.signal });
    this.#followVisibility();
  }

  #followVisibility() {
    clearTimeout(this.#hideTimer);
    if (document.visibilityState === "visible") {
      if (!this.#stream) this.#begin();
    } else this.#hideTimer = setTimeout(() => this.#end(), HIDDEN_MS);
  }

  #begin() {
    const { signal } = this.#stream = new AbortController();
    const run = () => follow(api.client, {
      signal,
      onReset: () => this.#reportToTabs("missed"),
      onEvent: ({ type, id }) => {
        if (type === "image.deleted") this.#reportToTabs("gone", [id]);
        if (type === "image.ready" || type === "image.updated") this.#read(id, type === "image.updated");
      },
    });
    const inOneTab = (manager) => (manager ? manager.request(`valet.events.${this.#user}`, { signal }, run) : run());
    // The page works without a stream: it is refreshed when the user returns to it.
    locks.then(inOneTab).catch((problem) => { if (!signal.aborted && !(problem instanceof Problem)) throw problem; });
  }

  #report(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #reportToTabs(name, detail) {
    this.#channel.postMessage({ user: this.#user, name, detail });
    this.#report(name, detail);
  }

  #read(id, isUpdate) {
    this.#waiting.set(id, isUpdate || this.#waiting.get(id));
    this.#timer ??= setTimeout(() => this.#flush(), GATHER_MS);
  }

  async #flush() {
    this.#timer = undefined;
    const gathered = [...this.#waiting].slice(0, MAX_IMAGES);
    for (const [id] of gathered) this.#waiting.delete(id);
    if (this.#waiting.size) this.#timer = setTimeout(() => this.#flush(), GATHER_MS);
    const ids = gathered.filter(([id, isUpdate]) => isUpdate || !this.#isKnown(id)).map(([id]) => id);
    if (!ids.length) return;
    try {
      const { results } = await api.readImages(ids);
      if (!this.#stopping.signal.aborted) this.#reportToTabs("changed", results.flatMap(({ image }) => image ?? []));
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (!this.#stopping.signal.aborted) this.#reportToTabs("missed");
    }
  }

  #end() {
    this.#stream?.abort();
    this.#stream = undefined;
  }

  stop() {
    clearTimeout(this.#timer);
    clearTimeout(this.#hideTimer);
    this.#stopping.abort();
    this.#end();
    this.#channel.close();
  }
}
