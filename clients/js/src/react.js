"use client";
// `valet-upload/react`: one hook. It renders on servers too, where it shows no uploads and makes no requests.

import { useEffect, useInsertionEffect, useState, useSyncExternalStore } from "react";
import { createUploader } from "./index.js";

/**
 * @typedef {import("./types.js").AddOptions} AddOptions
 * @typedef {import("./types.js").Input} Input
 * @typedef {import("./types.js").Upload} Upload
 * @typedef {import("./types.js").Uploader} Uploader
 * @typedef {import("./types.js").UploaderOptions} UploaderOptions
 */

/** @typedef {Readonly<Upload>} UploadView An upload as it was at one render: another object after each change, the same one otherwise. */

/**
 * @typedef {object} UploadQueue
 * @property {readonly UploadView[]} uploads All uploads, oldest first.
 * @property {Uploader["progress"]} progress
 * @property {boolean} paused Whether the whole queue is paused.
 * @property {(input: Input, options?: AddOptions) => Upload[]} add The same as `add` of an uploader; the functions below too. Each is the
 *   same function at every render. After the component is unmounted, `add` throws and the others do nothing.
 * @property {() => Promise<void>} restore
 * @property {() => void} pause Pauses all uploads; `upload.pause()` pauses one.
 * @property {() => void} resume
 * @property {() => void} clearDone
 */

/** Milliseconds between two renders for changes of single uploads: each compares the whole list. */
const UPDATE_MS = 50;

const NOTHING = { uploads: [], progress: { sent: 0, size: 0, done: 0, count: 0 }, paused: false };

/**
 * Returns the uploads of an uploader, and functions that change them. With options, the component has its own uploader, for as long as it
 * is mounted and `api` and `user` are the same; `token` may be another function at each render. With an uploader of `createUploader`, the
 * uploads continue when the component is unmounted.
 * @param {UploaderOptions | Uploader} source
 * @returns {UploadQueue}
 */
export function useUploader(source) {
  const [watcher] = useState(() => new Watcher(source));
  // Before all other effects: those of a child may add files already.
  useInsertionEffect(() => watcher.render(source));
  // StrictMode does not repeat insertion effects, so this cleanup runs only when the component is unmounted.
  useInsertionEffect(() => watcher.mount(), [watcher]);
  const { given, api, user } = keyOf(source);
  useEffect(() => {
    watcher.open();
    return () => watcher.close();
  }, [watcher, given, api, user]);
  return { ...useSyncExternalStore(watcher.subscribe, watcher.read, watcher.readOnServer), ...watcher.methods };
}

/** Returns the properties that identify an uploader: if one changes, another uploader is needed. */
const keyOf = (source) => (source instanceof EventTarget ? { given: source } : { api: source.api, user: source.user });

/** An uploader and its snapshot, as useSyncExternalStore reads it. */
class Watcher {
  #source;
  #uploader = null;
  #own = null; // Options of the component's own uploader, or null. They supply each token.
  #isUnmounted = false;
  #listeners = new Set();
  #shown = NOTHING;
  #timer;

  constructor(source) {
    this.#source = source;
    const { given } = keyOf(source);
    if (given) this.#shown = snapshot(given, NOTHING);
  }

  /** Stores the source of the newest render. The token is updated only if the user is the same. */
  render(source) {
    this.#source = source;
    const own = this.#own;
    if (own && own.api === source.api && own.user === source.user) own.token = source.token;
  }

  /** Returns a function that ends the component's own uploader, also if it was opened after the effects had ended. */
  mount() {
    this.#isUnmounted = false;
    return () => {
      this.#isUnmounted = true;
      // An insertion effect must not update another component.
      queueMicrotask(() => {
        if (this.#isUnmounted) this.close();
      });
    };
  }

  /** Returns the uploader, and creates it if it is the component's own. */
  open() {
    if (this.#uploader) return this.#uploader;
    const { given } = keyOf(this.#source);
    if (!given) {
      const own = (this.#own = { ...this.#source });
      const token = (stale) => (typeof own.token === "function" ? own.token(stale) : own.token);
      this.#uploader = createUploader({ ...own, token });
    } else this.#uploader = given;
    this.#uploader.addEventListener("change", this.#update);
    this.#refresh();
    return this.#uploader;
  }

  /** Stops the component's own uploader. Its files stay stored for `restore`. */
  close() {
    this.#uploader?.removeEventListener("change", this.#update);
    if (this.#own) this.#uploader?.stop();
    this.#uploader = this.#own = null;
    this.#show(NOTHING);
  }

  subscribe = (listener) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  read = () => this.#shown;
  readOnServer = () => NOTHING;

  methods = {
    add: (input, options) => {
      const uploader = this.#live();
      if (!uploader) throw new Error("The component is unmounted.");
      return uploader.add(input, options);
    },
    restore: async () => this.#live()?.restore(),
    pause: () => this.#live()?.pause(),
    resume: () => this.#live()?.resume(),
    clearDone: () => this.#live()?.clearDone(),
  };

  /** Returns the uploader, except one of an unmounted component's own: nothing would stop it. */
  #live = () => (this.#isUnmounted && !keyOf(this.#source).given ? null : this.open());

  /** Shows changes of one upload, such as its progress, together with those that follow shortly. */
  #update = ({ detail }) => {
    if (detail) this.#timer ??= setTimeout(this.#refresh, UPDATE_MS);
    else this.#refresh();
  };

  #refresh = () => {
    this.#timer = clearTimeout(this.#timer);
    if (this.#uploader) this.#show(snapshot(this.#uploader, this.#shown));
  };

  #show(shown) {
    this.#shown = shown;
    for (const listener of this.#listeners) listener();
  }
}

/** Returns the state of an uploader, with the same objects as `before` for uploads that have not changed. */
function snapshot({ items, progress, paused }, before) {
  const known = new Map(before.uploads.map((upload) => [upload.key, upload]));
  return { uploads: items.map((item) => view(item, known.get(item.key))), progress, paused };
}

/** Returns a copy of an upload's fields, or the copy of before if nothing has changed. */
function view(item, before) {
  if (before && Object.entries(item).every(([field, value]) => before[field] === value)) return before;
  return Object.freeze({ ...item, active: item.active, open: item.open, isRetryable: item.isRetryable });
}
