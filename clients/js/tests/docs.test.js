// Runs the examples of docs/client.md, except those for Expo and Capacitor (native.test.js) and React (tests/browser).

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import * as client from "valet-upload";
import { signUp, assertGallery, BASE, readGallery, makeImage, intercept, waitUntil } from "./harness.js";

const TEXT = readFileSync(new URL("../../../docs/client.md", import.meta.url), "utf8");
const AsyncFunction = (async () => {}).constructor;

/** Runs the example after this mark with these names in scope. */
async function run(mark, scope) {
  const [, code] = TEXT.match(new RegExp(`<!-- ${mark} -->\n\`\`\`js\n([\\s\\S]*?)\n\`\`\``)) ?? [];
  assert.ok(code, `docs/client.md has no example ${mark}`);
  const own = code.replace(/import (\{.*\}) from "valet-upload";/, "const $1 = client;").replaceAll("https://api.example.com", BASE);
  const names = { client, console: { log() {} }, ...scope };
  await new AsyncFunction(...Object.keys(names), own)(...Object.values(names));
}

test("a file is uploaded", async () => {
  const [user, file] = [await signUp(), makeImage("boat.png")];
  await run("upload", { file, accessToken: () => user.token });
  await assertGallery(user, [file]);
  assert.equal((await readGallery(user))[0].caption, "A boat");
});

test("a token is refreshed", async () => {
  const [user, files] = [await signUp(), [makeImage("one.png"), makeImage("two.png")]];
  let refreshes = 0;
  await run("token", { files, accessToken: () => (refreshes ? user.token : "expired"), refreshedToken: async () => { refreshes += 1; return user.token; } });
  assert.equal(refreshes, 1);
  await assertGallery(user, files);
});

test("progress is shown, and uploads are paused and cancelled", async (t) => {
  const [user, files, shown] = [await signUp(), [makeImage("one.png"), makeImage("two.png"), makeImage("three.png")], []];
  intercept(t);
  await run("progress", { files, accessToken: () => user.token, show: (text) => shown.push(text) });
  await assertGallery(user, [files[0], files[2]]);
  assert.ok(shown.includes("2 of 2 files, 100 %") && shown.includes("three.png"), String(shown));
});

test("uploads continue after a reload", async () => {
  const [user, file, shown] = [await signUp(), makeImage("kept.png"), []];
  const records = new Map([["key", { key: "key", user: user.user.id, tab: "1", name: file.name, size: file.size, type: file.type, lastModified: 1, file }]]);
  const inBrowser = { ...client, createUploader: (options) => client.createUploader({ ...options, store: client.memoryStore(records) }) };
  await run("restore", { client: inBrowser, userId: user.user.id, accessToken: () => user.token, show: (text) => shown.push(text) });
  assert.deepEqual(shown, ["Continuing kept.png"]);
  await waitUntil(() => records.size === 0, "the file is uploaded");
  await assertGallery(user, [file]);
});

test("problems are shown", async () => {
  const [user, shown] = [await signUp(), []];
  await run("problems", { file: new File(["text"], "notes.txt", { type: "text/plain" }), accessToken: () => user.token, show: (text) => shown.push(text) });
  assert.match(shown[0], /^notes\.txt: Files of this kind are not accepted/);
});

test("changes are followed", async () => {
  const [user, shown] = [await signUp(), []];
  let [reads, leave] = [0, () => {}];
  const followed = run("events", {
    accessToken: () => user.token, show: (text) => shown.push(text), readGallery: () => { reads += 1; }, onLeave: (stop) => { leave = stop; },
  });
  await waitUntil(() => reads === 1, "the gallery is read at the beginning");
  const [upload] = client.createUploader({ api: BASE, token: user.token }).add(makeImage("other-device.png"));
  const { id } = await upload.finished;
  await waitUntil(() => shown.length, "the change is shown");
  assert.deepEqual([shown, reads], [[`image.ready ${id}`], 1]);
  leave();
  await followed;
});
