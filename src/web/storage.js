// The browser's own stores, each of which it may deny (cookies blocked, a private window, a full disk): the page goes on in
// memory, and says what it cannot keep.

/** A text under a name, in localStorage or sessionStorage where they can be had, else for as long as the page lives. */
export class Kept {
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
    // An older value must not come back after a reload.
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

/** A channel to the other tabs; where the browser has none, one that leads nowhere. */
export function channel(name) {
  try {
    return new BroadcastChannel(name);
  } catch {
    return Object.assign(new EventTarget(), { postMessage() {}, close() {} });
  }
}

/** The browser's locks, or null where they cannot be had: on plain http, or where storage is denied. */
export const locks = (async () => {
  try {
    await navigator.locks.query();
    return navigator.locks;
  } catch {
    return null;
  }
})();
