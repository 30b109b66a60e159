// Sends changes of images to the other tabs of the same account, which then show the changes without a request.

import { channel } from "./valet-upload/storage.js";

/** Events: `changed` (detail: `{ added: image }`, `{ gone: ids }` or `{ described: { id, caption } }`), from another tab. */
export class Tabs extends EventTarget {
  #channel = channel("valet.gallery");
  #user;

  constructor(user) {
    super();
    this.#user = user;
    this.#channel.onmessage = ({ data }) => {
      if (data.user === user) this.dispatchEvent(new CustomEvent("changed", { detail: data }));
    };
  }

  send(change) {
    this.#channel.postMessage({ ...change, user: this.#user });
  }

  stop() {
    this.#channel.close();
  }
}
