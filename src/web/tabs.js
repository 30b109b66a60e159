// News for the other tabs of the same account, so that they show it without asking: images that came, went or were described.

import { channel } from "./storage.js";

/** Events: `news` (detail: `{ added: image }`, `{ gone: ids }` or `{ described: { id, caption } }`), from another tab. */
export class Tabs extends EventTarget {
  #channel = channel("valet.gallery");
  #user;

  constructor(user) {
    super();
    this.#user = user;
    this.#channel.onmessage = ({ data }) => {
      if (data.user === user) this.dispatchEvent(new CustomEvent("news", { detail: data }));
    };
  }

  tell(news) {
    this.#channel.postMessage({ ...news, user: this.#user });
  }

  stop() {
    this.#channel.close();
  }
}
