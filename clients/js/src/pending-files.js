// Stores the files of unfinished uploads, in IndexedDB or in memory, so that uploads continue after a reload. Small files are stored
// whole. Of large files, only a record without the bytes is stored, and the user has to choose them again.

import { locks } from "./storage.js";

/** Largest file that is stored whole. */
const MAX_FILE_BYTES = 16 << 20;
/** Bytes of all stored files together. */
const MAX_TOTAL_BYTES = 512 << 20;
/** Time after which another tab's file is uploaded here if it is unknown whether that tab runs. At worst the bytes are sent twice. */
const BUSY_MS = 15 * 60_000;

/**
 * Returns the store of this origin's IndexedDB database `name`. Its methods reject where the browser denies it.
 * @param {string} [name]
 * @returns {import("./types.js").Store}
 */
export function indexedDbStore(name = "valet") {
  let opening;
  const database = () => (opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => request.result.createObjectStore("files", { keyPath: "key" });
    request.onsuccess = () => {
      const { result } = request;
      // Another tab deletes the database, or the connection is lost: the next call opens it again.
      result.onclose = result.onversionchange = () => {
        result.close();
        opening = null;
      };
      resolve(result);
    };
    request.onerror = () => reject(request.error);
  }));
  const call = (method, mode = "readwrite") => async (...input) => {
    const transaction = (await database()).transaction("files", mode);
    const request = transaction.objectStore("files")[method](...input);
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error);
    });
  };
  return {
    all: call("getAll", "readonly"),
    get: call("get", "readonly"),
    put: call("put"),
    delete: call("delete"),
    clear: call("clear"),
  };
}

/**
 * Returns a store in memory, for Node and for tests. `records` outlives the uploader if the app keeps it.
 * @param {Map<string, import("./types.js").StoredFile>} [records]
 * @returns {import("./types.js").Store}
 */
export const memoryStore = (records = new Map()) => ({
  all: async () => [...records.values()],
  get: async (key) => records.get(key),
  put: async (record) => records.set(record.key, record),
  delete: async (key) => records.delete(key),
  clear: async () => records.clear(),
});

/** Resolves to whether the store works. */
export const isAvailable = (store = indexedDbStore()) => store.all().then(() => true, () => false);

/** The unfinished uploads of one user in a store. */
export class PendingFiles {
  #store;
  #user;
  #tab;
  #bytes = 0;
  #sizes = new Map(); // key → bytes

  /** @param {import("./types.js").Store | null} store @param {string} user */
  constructor(store, user) {
    this.#store = store;
    this.#user = user;
    // Id of this tab, through its reloads if the browser allows that. Its lock shows other tabs that it still runs.
    this.#tab = String(Math.random()).slice(2);
    try {
      this.#tab = sessionStorage["valet.tab"] ??= this.#tab;
    } catch {
      // The next load has another id.
    }
    if (store) locks.then((manager) => manager?.request(lockOf(this.#tab), { mode: "shared" }, () => new Promise(() => {})));
  }

  /** Stores a file until {@link remove}. */
  async add(key, file) {
    const { name, size, type, lastModified, caption } = file;
    const put = (content) => this.#attempt((store) => store.put({ key, user: this.#user, tab: this.#tab, storedAt: Date.now(), name, size, type, lastModified, caption, file: content }).then(() => true));
    // Of a phone's file, only the URI is stored.
    if (file.put) return put({ uri: file.uri });
    const small = size <= MAX_FILE_BYTES && this.#bytes + size <= MAX_TOTAL_BYTES;
    if (small) this.#count(key, size);
    if (await put(small ? file : null)) return;
    this.#count(key, 0);
    await put(null);
  }

  /** Stores the upload's id and tab, so that other tabs neither upload the file nor offer to discard the upload. */
  async claim(key, id) {
    const record = await this.#attempt((store) => store.get(key));
    if (record && (record.id !== id || record.tab !== this.#tab)) await this.#attempt((store) => store.put({ ...record, id, tab: this.#tab, storedAt: Date.now() }));
  }

  remove(key) {
    this.#count(key, 0);
    return this.#attempt((store) => store.delete(key));
  }

  /**
   * Returns the files of earlier visits: `orphans` are this user's files that no running tab uploads, `busy` the ids of uploads that a
   * running tab has. Without locks, {@link BUSY_MS} decides.
   */
  async leftovers() {
    const all = ((await this.#attempt((store) => store.all())) ?? []).filter((record) => record.user === this.#user);
    const manager = await locks;
    const held = new Set(((await manager?.query())?.held ?? []).map((lock) => lock.name));
    const isBrowser = typeof document !== "undefined";
    const elsewhere = (record) => isBrowser && record.tab !== this.#tab && (manager ? held.has(lockOf(record.tab)) : Date.now() - record.storedAt < BUSY_MS);
    const orphans = all.filter((record) => !elsewhere(record));
    for (const { key, file } of orphans) this.#count(key, file?.size ?? 0);
    return {
      orphans,
      busy: new Set(all.filter(elsewhere).map((record) => record.id)),
    };
  }

  /** Sets the number of bytes that are stored for a file. A file of a phone takes none. */
  #count(key, bytes) {
    this.#bytes += bytes - (this.#sizes.get(key) ?? 0);
    this.#sizes.set(key, bytes);
  }

  /** Calls the store; returns undefined without a store, and if the call fails. */
  async #attempt(work) {
    try {
      return this.#store ? await work(this.#store) : undefined;
    } catch {
      return undefined; // In a private window or on a full disk, uploads continue without stored files.
    }
  }
}

const lockOf = (tab) => `valet.tab.${tab}`;
