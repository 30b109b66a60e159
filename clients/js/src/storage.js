// Storage, channels and locks of the browser. The browser may deny each of them (cookies blocked, a private window, a full disk): the
// page continues in memory, and shows a notice.

/** A text in localStorage or sessionStorage, or in memory if the browser denies them. */
export class StoredText {
  #area;
  #name;
  #memory = null;
  /** Whether the last write outlives the page. */
  lasting;

  /** `area` is "localStorage" or "sessionStorage": reading the property itself may throw. */
  constructor(area, name) {
    this.#area = area;
    this.#name = name;
    this.lasting = this.#attempt((store) => {
      store.setItem(`${name}.probe`, "");
      store.removeItem(`${name}.probe`);
      return true;
    }) ?? false;
  }

  get value() {
    return this.#memory ?? this.#attempt((store) => store.getItem(this.#name)) ?? null;
  }

  set value(text) {
    this.#memory = null;
    this.lasting = this.#attempt((store) => {
      store.setItem(this.#name, text);
      return true;
    }) ?? false;
    if (this.lasting) return;
    this.#memory = text;
    // An older value must not return after a reload.
    this.#attempt((store) => store.removeItem(this.#name));
  }

  clear() {
    this.#memory = null;
    this.#attempt((store) => store.removeItem(this.#name));
  }

  #attempt(work) {
    try {
      return work(globalThis[this.#area]);
    } catch {
      return undefined;
    }
  }
}

/** Returns a channel to the other tabs, or one without effect if the browser denies it. */
export function channel(name) {
  try {
    return new BroadcastChannel(name);
  } catch {
    return Object.assign(new EventTarget(), { postMessage() {}, close() {} });
  }
}

/** Resolves to the browser's locks, or null on plain http or if storage is denied. A lock would keep a script of Deno from ending. */
export const locks = (async () => {
  if (typeof document === "undefined") return null;
  try {
    await navigator.locks.query();
    return navigator.locks;
  } catch {
    return null;
  }
})();
