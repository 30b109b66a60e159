// Covers the files that are stored for a later visit: their total size is limited, and removed files make room.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import test from "node:test";
import { promisify } from "node:util";
import { memoryStore } from "valet-upload";
import { PendingFiles } from "../src/pending-files.js";
import { MIB } from "./harness.js";

/** A file of the largest size that is stored whole, 16 MiB: 32 of them fit into the limit of 512 MiB. */
const FILE = new File([new Uint8Array(16 * MIB)], "one.png");

/** Stores `count` files and returns whether the bytes of each are stored. */
async function add(files, records, name, count) {
  const keys = Array.from({ length: count }, (_, i) => `${name} ${i}`);
  for (const key of keys) await files.add({ key, name: FILE.name, file: FILE });
  return keys.map((key) => Boolean(records.get(key).file));
}

test("removed files make room for others, however many a tab has stored", async () => {
  const records = new Map();
  const files = new PendingFiles(memoryStore(records), "ada");
  for (let round = 0; round < 3; round += 1) {
    assert.deepEqual(await add(files, records, `round ${round}`, 33), [...Array(32).fill(true), false], `round ${round}`);
    for (const key of [...records.keys()]) await files.remove(key);
  }
});

test("files of an earlier visit count", async () => {
  const records = new Map();
  const before = new PendingFiles(memoryStore(records), "ada");
  await add(before, records, "before", 31);
  const files = new PendingFiles(memoryStore(records), "ada");
  assert.equal((await files.leftovers()).orphans.length, 31);
  assert.deepEqual(await add(files, records, "after", 2), [true, false]);
  await files.leftovers();
  await files.remove("before 0");
  assert.deepEqual(await add(files, records, "later", 2), [true, false]);
});

test("a file that could not be stored takes no room", async () => {
  const records = new Map();
  let isFull = true;
  const store = memoryStore(records);
  const files = new PendingFiles({ ...store, put: (record) => (isFull && record.file ? Promise.reject(new Error("full")) : store.put(record)) }, "ada");
  assert.deepEqual(await add(files, records, "full", 32), Array(32).fill(false));
  isFull = false;
  assert.deepEqual(await add(files, records, "free", 32), Array(32).fill(true));
});

test("the id of an upload is stored beside its file, and both are removed", async () => {
  const records = new Map();
  const files = new PendingFiles(memoryStore(records), "ada");
  await files.add({ key: "one", name: FILE.name, file: FILE });
  await files.claim("one", "id of one");
  const later = new PendingFiles(memoryStore(records), "ada");
  const { orphans } = await later.leftovers();
  assert.deepEqual(orphans.map(({ key, id, file, name }) => [key, id, file, name]), [["one", "id of one", FILE, "one.png"]]);
  await later.remove("one");
  assert.deepEqual([...records.keys()], []);
});

test("records of earlier versions have the id in the file's record", async () => {
  const record = { key: "one", user: "ada", tab: "1", name: "one.png", size: FILE.size, type: "", lastModified: 1, file: FILE, id: "id of one" };
  const { orphans } = await new PendingFiles(memoryStore(new Map([["one", record]])), "ada").leftovers();
  assert.deepEqual(orphans.map(({ key, id }) => [key, id]), [["one", "id of one"]]);
});

test("scripts of runtimes that have Web Locks take none: a lock would keep them from ending", async () => {
  // Deno and later versions of Node have `navigator.locks`; the Node of these tests does not.
  const code = `
    const request = () => new Promise(() => console.log("requested"));
    Object.defineProperty(globalThis, "navigator", { value: { locks: { query: async () => ({ held: [] }), request } } });
    const [{ PendingFiles }, { memoryStore }] = [await import(${JSON.stringify(import.meta.resolve("../src/pending-files.js"))}), await import(${JSON.stringify(import.meta.resolve("valet-upload"))})];
    const files = new PendingFiles(memoryStore(), "ada");
    await files.add({ key: "one", name: "one.png", file: new Blob(["x"]) });
    console.log((await files.leftovers()).orphans.length);`;
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "--eval", code], { timeout: 60_000 });
  assert.equal(stdout, "1\n");
});
