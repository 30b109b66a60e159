// What is open over the gallery has an address: `#image/ID`, `#account`. Back closes it; a reload, Forward or a link opens it again.
// Opening adds one entry to the browser's history, going on to the next image replaces that entry, closing goes back before it.

const KNOWN = /^#(image|account)(?:\/([\w-]+))?$/;

/** Events: `change`, when the person went back or forward, or followed a link. */
export class Address extends EventTarget {
  #leaving = null;
  #stopping = new AbortController();

  constructor() {
    super();
    addEventListener("popstate", () => {
      if (!this.#leaving) this.dispatchEvent(new Event("change"));
    }, { signal: this.#stopping.signal });
  }

  stop() {
    this.#stopping.abort();
  }

  /** What is open by the address: `{ kind: "image", id }`, `{ kind: "account" }`, or `{}`. */
  get place() {
    const [, kind, id] = KNOWN.exec(location.hash) ?? [];
    return { kind, id };
  }

  /** Makes this the address of the page. */
  async open(kind, id) {
    await this.#leaving;
    const hash = id ? `#${kind}/${id}` : `#${kind}`;
    if (location.hash === hash) return;
    if (this.place.kind) return history.replaceState(history.state, "", hash);
    // The grid decides itself where it scrolls to when the image is closed: at the tile of the last one.
    history.scrollRestoration = "manual";
    history.pushState({ opened: true }, "", hash);
  }

  /** The dialog of this kind is closed. */
  close(kind) {
    if (this.place.kind !== kind) return;
    // Opened by a link: the entry before is another page's.
    if (!history.state?.opened) return history.replaceState(null, "", location.pathname + location.search);
    this.#leaving = new Promise((resolve) => { addEventListener("popstate", resolve, { once: true }); }).then(() => {
      this.#leaving = null;
      history.scrollRestoration = "auto";
    });
    history.back();
  }
}
