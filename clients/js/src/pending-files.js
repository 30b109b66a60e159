// Stores the files of unfinished uploads, in IndexedDB or in memory, so that uploads continue after a reload. Small files are stored
// whole. Of large files, only a record without the bytes is stored, and the user has to choose them again.

import { limited } from "./http.js";
import { locks } from "./storage.js";

/** Largest file that is stored whole. */
const MAX_FILE_BYTES = 16 << 20;
/** Bytes of all stored files together. */
const MAX_TOTAL_BYTES = 512 << 20;
/** Time after which another tab's file is uploaded here if it is unknown whether that tab runs. At worst the bytes are sent twice. */
const BUSY_MS = 15 * 60_000;
/** Time that the page before a reload may take to release its lock. */
const RELOAD_MS = 1000;

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
    put: call("put"),
    delete: call("delete"),
    clear: call("clear"),
  };
}

/** Returns the store of this origin, or null without IndexedDB: even reading the property may throw. */
export function defaultStore() {
  try {
    return globalThis.indexedDB ? indexedDbStore() : null;
  } catch {
    return null;
  }
}

/**
 * Returns a store in memory, for Node and for tests. `records` outlives the uploader if the app keeps it.
 * @param {Map<string, import("./types.js").StoredFile | import("./types.js").StoredClaim>} [records]
 * @returns {import("./types.js").Store}
 */
export const memoryStore = (records = new Map()) => ({
  all: async () => [...records.values()],
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
    if (store) this.#tab = tab ??= ownTab();
  }

  /** Stores the file of an upload until {@link remove}. */
  async add({ key, name, caption, file }) {
    const { size, type, lastModified = 0 } = file;
    const put = (content) => this.#put({ key, name, size, type, lastModified, caption, file: content });
    // Of a phone's file, only the URI is stored.
    if (file.put) return put({ uri: file.uri });
    const small = size <= MAX_FILE_BYTES && this.#bytes + size <= MAX_TOTAL_BYTES;
    if (small) this.#count(key, size);
    if (await put(small ? file : null)) return;
    this.#count(key, 0);
    await put(null);
  }

  /**
   * Stores the upload's id and tab, so that other tabs neither upload the file nor offer to discard the upload. A record of its own, because
   * browsers would write the file again with the file's record.
   */
  claim(key, id) {
    return this.#put({ key: key + CLAIM, id });
  }

  remove(key) {
    this.#count(key, 0);
    return this.#attempt((store) => store.delete(key + CLAIM).then(() => store.delete(key)));
  }

  /**
   * Returns the files of earlier visits: `orphans` are this user's files that no running tab uploads, `busy` the ids of uploads that a
   * running tab has. Without locks, {@link BUSY_MS} decides.
   */
  async leftovers() {
    const stored = ((await this.#attempt((store) => store.all())) ?? []).filter((record) => record.user === this.#user);
    const known = new Map(stored.map((record) => [record.key, record]));
    const all = stored.filter(({ key }) => !key.endsWith(CLAIM)).map((record) => ({ ...record, ...known.get(record.key + CLAIM), key: record.key }));
    const own = await this.#tab;
    const held = (await (await locks)?.query())?.held.map((lock) => lock.name);
    const isBrowser = typeof document !== "undefined";
    const elsewhere = (record) => isBrowser && record.tab !== own && (held ? held.includes(lockOf(record.tab)) : Date.now() - record.storedAt < BUSY_MS);
    const orphans = all.filter((record) => !elsewhere(record));
    for (const { key, file } of orphans) this.#count(key, file?.size ?? 0);
    return {
      orphans,
      busy: new Set(all.filter(elsewhere).map((record) => record.id)),
    };
  }

  /** Stores a record; returns whether that succeeded. */
  #put(record) {
    return this.#attempt(async (store) => {
      await store.put({ ...record, user: this.#user, tab: await this.#tab, storedAt: Date.now() });
      return true;
    });
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

/** End of the key of the record with an upload's id. */
const CLAIM = ".id";
const lockOf = (tab) => `valet.tab.${tab}`;

let tab;
/**
 * Resolves to the id of this tab, which sessionStorage keeps through reloads. Its lock shows others that it runs; a duplicated tab does
 * not get it and takes another id.
 */
async function ownTab() {
  const [manager, fresh] = [await locks, String(Math.random()).slice(2)];
  const take = async (id) => {
    // Resolves when the tab has the lock, and never releases it.
    const hold = (signal) => new Promise((resolve, reject) => { manager.request(lockOf(id), { signal }, () => new Promise(resolve)).catch(reject); });
    if (manager) await limited(null, hold, RELOAD_MS);
    return (sessionStorage["valet.tab"] = id);
  };
  try {
    return await take(sessionStorage["valet.tab"] ?? fresh);
  } catch {
    take(fresh).catch(() => {}); // Without sessionStorage, the next load has another id.
    return fresh;
  }
}
