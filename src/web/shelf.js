// Files that are being uploaded, kept in IndexedDB so that a reload goes on by itself. Small files are kept whole, in any
// browser; of large ones only the name is, and the person is asked for the file again. What cannot be kept is uploaded all the same.

import { Kept, locks } from "./storage.js";

const KEPT_MOST = 16 << 20;
/** So many bytes in all: the shelf is a net, not an archive. */
const SHELF_MOST = 512 << 20;

/** This tab, through its reloads. Others see by its lock whether it still runs. */
const tab = new Kept("sessionStorage", "valet.tab");
const TAB = (tab.value ??= String(Math.random()).slice(2));
const lockOf = (tab) => `valet.tab.${tab}`;
locks.then((manager) => manager?.request(lockOf(TAB), () => new Promise(() => {})));

let bytes = 0;
let opening;

function database() {
  opening ??= new Promise((resolve, reject) => {
    const asked = indexedDB.open("valet", 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore("files", { keyPath: "key" });
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
  return opening;
}

async function run(mode, work) {
  try {
    const store = (await database()).transaction("files", mode).objectStore("files");
    const asked = work(store);
    return await new Promise((resolve, reject) => {
      asked.onsuccess = () => resolve(asked.result);
      asked.onerror = asked.transaction.onabort = () => reject(asked.error ?? asked.transaction.error);
    });
  } catch {
    return undefined; // Private windows, a full disk: go on without.
  }
}

/** Whether the browser lets the page keep files at all. */
export const works = () => database().then(() => true, () => false);

/** Keeps a file, or its name when it is large, until {@link forget}. */
export async function keep(key, user, file) {
  const small = file.size <= KEPT_MOST && bytes + file.size <= SHELF_MOST;
  if (small) bytes += file.size;
  const { name, size, type, lastModified } = file;
  const put = (kept) => run("readwrite", (store) => store.put({ key, user, tab: TAB, name, size, type, lastModified, file: kept }));
  if ((await put(small ? file : null)) === undefined && small) await put(null);
}

/** Notes the upload's id: another tab must not offer to discard it. */
export async function note(key, id) {
  const record = await run("readonly", (store) => store.get(key));
  if (record) await run("readwrite", (store) => store.put({ ...record, id }));
}

export function forget(key) {
  return run("readwrite", (store) => store.delete(key));
}

export function forgetAll() {
  return run("readwrite", (store) => store.clear());
}

/**
 * What earlier visits left: `orphans` are this user's that no running tab works on, `busy` the ids that one does.
 * Without locks the other tabs cannot be told apart: then only what this very tab left is taken.
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
