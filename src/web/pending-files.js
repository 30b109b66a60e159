// Stores the files of unfinished uploads in IndexedDB, so that uploads continue after a reload. Small files are stored whole; of large
// files only the name, and the user has to choose the file again. A file that cannot be stored is uploaded all the same.

import { StoredText, locks } from "./storage.js";

/** Largest file that is stored whole. */
const MAX_FILE_BYTES = 16 << 20;
/** Bytes of all stored files together. */
const MAX_TOTAL_BYTES = 512 << 20;

/** Id of this tab, through its reloads. Its lock shows other tabs that it still runs. */
const tab = new StoredText("sessionStorage", "valet.tab");
const TAB = (tab.value ??= String(Math.random()).slice(2));
const lockOf = (tab) => `valet.tab.${tab}`;
locks.then((manager) => manager?.request(lockOf(TAB), () => new Promise(() => {})));

let bytes = 0;
let opening;

function database() {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("valet", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("files", { keyPath: "key" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opening;
}

async function run(mode, work) {
  try {
    const store = (await database()).transaction("files", mode).objectStore("files");
    const request = work(store);
    return await new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = request.transaction.onabort = () => reject(request.error ?? request.transaction.error);
    });
  } catch {
    return undefined; // Private windows, a full disk: uploads continue without stored files.
  }
}

/** Resolves to whether the browser lets the page store files. */
export const isAvailable = () => database().then(() => true, () => false);

/** Stores a file, or the name of a large one, until {@link remove}. */
export async function add(key, user, file) {
  const small = file.size <= MAX_FILE_BYTES && bytes + file.size <= MAX_TOTAL_BYTES;
  if (small) bytes += file.size;
  const { name, size, type, lastModified } = file;
  const put = (content) => run("readwrite", (store) => store.put({ key, user, tab: TAB, name, size, type, lastModified, file: content }));
  if ((await put(small ? file : null)) === undefined && small) await put(null);
}

/** Stores the upload's id, so that other tabs do not offer to discard the upload. */
export async function setId(key, id) {
  const record = await run("readonly", (store) => store.get(key));
  if (record) await run("readwrite", (store) => store.put({ ...record, id }));
}

export function remove(key) {
  return run("readwrite", (store) => store.delete(key));
}

export function removeAll() {
  return run("readwrite", (store) => store.clear());
}

/**
 * Returns the files of earlier visits: `orphans` are this user's files that no running tab uploads, `busy` the ids of uploads that a
 * running tab has. Without locks it is unknown which tabs run: then only files of this tab are returned.
 */
export async function leftovers(user) {
  const all = ((await run("readonly", (store) => store.getAll())) ?? []).filter((record) => record.user === user);
  const manager = await locks;
  const held = new Set(((await manager?.query())?.held ?? []).map((lock) => lock.name));
  const elsewhere = (record) => record.tab !== TAB && (!manager || held.has(lockOf(record.tab)));
  return {
    orphans: all.filter((record) => !elsewhere(record)),
    busy: new Set(all.filter(elsewhere).map((record) => record.id)),
  };
}
