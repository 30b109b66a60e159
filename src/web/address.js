// Addresses of the dialogs over the gallery: `#image/ID`, `#account`. Back closes the dialog; a reload, Forward or a link opens it again.
// Opening adds one entry to the browser's history, the next image replaces that entry, and closing goes back to the entry before.

const KNOWN = /^#(image|account)(?:\/([\w-]+))?$/;

/** Events: `change`, after Back, Forward or a link. */
export class Address extends EventTarget {
  #leaving = null; // promise of a `history.back()`
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

  /** The dialog in the address: `{ kind: "image", id }`, `{ kind: "account" }`, or no members. */
  get dialog() {
    const [, kind, id] = KNOWN.exec(location.hash) ?? [];
    return { kind, id };
  }

  /** Sets the address of a dialog that was opened. */
  async open(kind, id) {
    await this.#leaving;
    const hash = id ? `#${kind}/${id}` : `#${kind}`;
    if (location.hash === hash) return;
    if (this.dialog.kind) return history.replaceState(history.state, "", hash);
    // When the image is closed, the grid itself scrolls to the tile of the last image.
    history.scrollRestoration = "manual";
    history.pushState({ opened: true }, "", hash);
  }

  /** Removes the address of a dialog that was closed. */
  close(kind) {
    if (this.dialog.kind !== kind) return;
    // Opened by a link: the entry before belongs to another page.
    if (!history.state?.opened) return history.replaceState(null, "", location.pathname + location.search);
    this.#leaving = new Promise((resolve) => { addEventListener("popstate", resolve, { once: true }); }).then(() => {
      this.#leaving = null;
      history.scrollRestoration = "auto";
    });
    history.back();
  }
}
