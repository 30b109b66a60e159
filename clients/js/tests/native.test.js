// Covers `valet-upload/expo` and `valet-upload/capacitor` in Node, against a real server: the packages' native calls are fakes typed by the
// packages, which send the bytes over HTTP. The recorded PUTs are compared with the headers that the server has signed.

import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";
import { memoryStore } from "valet-upload";
import { createUploader as createCapacitorUploader } from "valet-upload/capacitor";
import { createUploader as createExpoUploader, FileProblem, fileStore } from "valet-upload/expo";
import { container, Filesystem, FileTransfer, listeners } from "./capacitor-native.js";
import { uploads } from "./expo-native.js";
import { signUp, assertGallery, BASE, call, makeImage, intercept, MIB, waitUntil } from "./harness.js";
import { assertSigned, recordPuts, ROOT, saveFile, recordTickets } from "./phone.js";

/** Bundles the JavaScript of expo-file-system with expo-native.js as its native half, and imports it. */
async function expoFileSystem() {
  const outfile = new URL("expo-file-system.bundle.mjs", import.meta.url);
  const native = { name: "native", setup({ onResolve }) { onResolve({ filter: /^(expo-modules-core|react-native)$/ }, () => ({ path: "./expo-native.js", external: true })); } };
  await build({ stdin: { contents: 'export * from "expo-file-system"', resolveDir: import.meta.dirname ?? fileURLToPath(new URL(".", import.meta.url)) }, bundle: true, format: "esm", outfile: fileURLToPath(outfile), plugins: [native], logLevel: "error" });
  return import(outfile);
}

const FileSystem = await expoFileSystem();

/** Each kind of app; `stops`: whether it can stop a PUT that is under way. */
const APPS = {
  expo: { create: (options) => createExpoUploader({ FileSystem, ...options }), stops: true },
  "expo before SDK 58": {
    create: (options) => {
      class File extends FileSystem.File { digest = undefined; }
      return createExpoUploader({ FileSystem: { ...FileSystem, File }, ...options });
    },
    stops: true,
  },
  capacitor: { create: (options) => createCapacitorUploader({ FileTransfer, Filesystem, ...options }), stops: false },
};

/**
 * Starts a recorder with `rule` (phone.js), and an uploader of the app for a new account. Returns also `wire`, the recorded PUTs,
 * `given`, the presigned PUTs of the tickets, and `seen`, the kinds of all requests.
 */
async function started(t, app, rule, options) {
  const user = await signUp();
  const wire = await recordPuts(t, rule);
  const seen = intercept(t);
  const given = recordTickets(t);
  return { user, wire, given, seen, uploader: APPS[app].create({ api: BASE, token: user.token, store: null, ...options }) };
}

for (const app of Object.keys(APPS)) {
  test(`${app}: a file is sent with exactly the ticket's headers, and nothing else is signed`, async (t) => {
    const { user, wire, given, uploader } = await started(t, app);
    const file = makeImage("boat.png", 3 * MIB + 7);
    const uri = await saveFile(file);
    const seen = [];
    uploader.addEventListener("change", ({ detail }) => detail && seen.push([detail.state, detail.sent]));
    const [upload] = uploader.add({ uri, fileName: "boat.png", type: "image", mimeType: "image/jpeg" }, { caption: "A boat" });
    const done = await upload.finished;
    assert.deepEqual([done.fileName, done.contentType, done.caption, done.size], ["boat.png", "image/png", "A boat", file.size]);
    assert.equal(wire.length, 1);
    assertSigned(wire[0], given, file);
    assert.ok(seen.some(([state, sent]) => state === "sending" && sent > 0 && sent < file.size), "progress");
    assert.deepEqual([upload.size, upload.sent], [file.size, file.size]);
    await assertGallery(user, [file]);
    assert.equal(listeners.size, 0, "no listener is left");
  });

  test(`${app}: a file of more than a part's size is one PUT, read in pieces`, async (t) => {
    const { user, wire, given, uploader } = await started(t, app);
    const file = makeImage("large.png", 18 * MIB + 1);
    await uploader.add(await saveFile(file), { name: "large.png" })[0].finished;
    assert.equal(wire.length, 1);
    assertSigned(wire[0], given, file);
    await assertGallery(user, [file]);
  });

  /** Each answer of the store to the first PUT, with the calls that repair it. */
  const answers = {
    "no answer": ["broken", { puts: 2 }],
    "an answer that is lost after the bytes arrived": ["lost", { puts: 2 }],
    "409": [409, { puts: 2 }],
    "503": [503, { puts: 2 }],
    "412 although nothing is there": [412, { puts: 2, confirm: 2 }],
    "403": [403, { puts: 2, renew: 1 }],
    "400": [400, { puts: 2, upload: 2 }],
  };
  for (const [label, [answer, { puts, ...calls }]] of Object.entries(answers)) {
    test(`${app}: a PUT answered with ${label}: one image in the end`, async (t) => {
      const { user, wire, given, seen, uploader } = await started(t, app, (n) => (n === 1 ? answer : undefined));
      const file = makeImage("one.png", 300_000);
      await uploader.add(await saveFile(file), { name: "one.png" })[0].finished;
      await assertGallery(user, [file]);
      assert.equal(wire.length, puts);
      assertSigned(wire.at(-1), given, file);
      for (const [kind, count] of Object.entries({ upload: 1, confirm: 1, renew: 0, ...calls })) assert.equal(seen.filter((one) => one === kind).length, count, `${kind} in ${seen}`);
    });
  }

  test(`${app}: a file that is not there, or goes meanwhile, fails without a repeat`, async (t) => {
    const file = makeImage("gone.png", 300_000);
    const uri = await saveFile(file);
    const { uploader } = await started(t, app, () => { rmSync(fileURLToPath(uri), { force: true }); return 503; });
    const unreadable = (problem) => problem instanceof FileProblem && problem.code === "file_unreadable";
    await assert.rejects(uploader.add(`${uri}-not`)[0].finished, unreadable);
    const [upload] = uploader.add(uri);
    await assert.rejects(upload.finished, unreadable);
    assert.equal(upload.isRetryable, false);
  });

  test(`${app}: a file that changes between two attempts is hashed again`, async (t) => {
    const [before, after] = [makeImage("edited.png", 300_000), makeImage("edited.png", 310_000)];
    const uri = await saveFile(before);
    const { user, wire, given, uploader } = await started(t, app, async (n, entry, body) => {
      if (n > 1) return undefined;
      await body; // Writing truncates the file first: a request that still reads it would not end.
      writeFileSync(fileURLToPath(uri), Buffer.from(await after.arrayBuffer()));
      return 400;
    });
    await uploader.add({ uri, name: "edited.png" })[0].finished;
    await assertGallery(user, [after]);
    assertSigned(wire.at(-1), given, after);
  });

  test(`${app}: pause and resume`, async (t) => {
    let hold = true;
    let release;
    const held = new Promise((resolve) => { release = resolve; });
    const { user, wire, uploader } = await started(t, app, async () => { if (hold) await held; });
    const file = makeImage("paused.png", 300_000);
    const [upload] = uploader.add(await saveFile(file), { name: "paused.png" });
    await waitUntil(() => wire.length === 1, "the upload is sent");
    upload.pause();
    await waitUntil(() => upload.state === "paused", "the upload is paused");
    if (APPS[app].stops) await waitUntil(() => wire[0].aborted, "the system stops sending");
    hold = false;
    upload.resume();
    await waitUntil(() => ["sending", "confirming", "done"].includes(upload.state), "the upload goes on");
    release();
    await upload.finished;
    assert.equal(wire.length, APPS[app].stops ? 2 : 1, "an upload that the plugin cannot stop is awaited, and not sent twice");
    await assertGallery(user, [file]);
  });

  test(`${app}: a cancelled upload leaves nothing behind`, async (t) => {
    const { user, wire, uploader } = await started(t, app, () => "held");
    const controller = new AbortController();
    const [upload] = uploader.add(await saveFile(makeImage("one.png", 300_000)), { signal: controller.signal });
    await waitUntil(() => wire.length === 1, "the upload is sent");
    controller.abort();
    await assert.rejects(upload.finished, { name: "AbortError" });
    await waitUntil(async () => (await call("GET", "/api/images/pending", user)).uploads.length === 0, "no upload is open");
    if (APPS[app].stops) await waitUntil(() => wire[0].aborted, "the system stops sending");
  });

  test(`${app}: after a restart of the app, uploads continue by their URI`, async (t) => {
    let hold = true;
    const records = new Map();
    const store = app === "capacitor" ? memoryStore(records) : fileStore(FileSystem);
    const { user, wire, uploader } = await started(t, app, () => (hold ? "held" : undefined), { store });
    const file = makeImage("kept.png", 300_000);
    uploader.add({ uri: await saveFile(file), name: "kept.png" }, { caption: "kept" });
    await waitUntil(() => wire.length === 1, "the upload is sent");
    uploader.stop();
    hold = false;
    const second = APPS[app].create({ api: BASE, token: user.token, store });
    await second.restore();
    assert.deepEqual(second.items.map(({ name, caption }) => [name, caption]), [["kept.png", "kept"]]);
    await second.items[0].finished;
    await assertGallery(user, [file]);
    await waitUntil(async () => (await store.all()).length === 0, "nothing is kept longer than it is needed");
  });

  test(`${app}: the same file twice is queued once, and its bytes twice are one image`, async (t) => {
    const { user, wire, uploader } = await started(t, app);
    const file = makeImage("one.png", 300_000);
    const [uri, copy] = [await saveFile(file), await saveFile(file)];
    const [upload] = uploader.add(uri, { name: "one.png" });
    assert.deepEqual(uploader.add(uri), []);
    const { id } = await upload.finished;
    const [again] = uploader.add(copy, { name: "one.png" });
    assert.equal((await again.finished).id, id);
    assert.ok(again.duplicate);
    assert.equal(wire.length, 1);
    assert.equal((await call("GET", "/api/auth/me", user)).usage.images, 1);
  });
}

test("expo: iOS sends in a background session, unless the app wants another", async (t) => {
  const { uploader, user } = await started(t, "expo");
  uploads.length = 0;
  await uploader.add(await saveFile(makeImage("one.png")))[0].finished;
  const other = APPS.expo.create({ api: BASE, token: user.token, store: null, sessionType: "foreground" });
  await other.add(new FileSystem.File(await saveFile(makeImage("two.png"))))[0].finished;
  assert.deepEqual(uploads.map(({ sessionType }) => sessionType), ["background", "foreground"]);
});

test("expo: stored URIs follow the app's folders, and a record that was written in part is left out", async () => {
  const store = fileStore(FileSystem, "moved");
  const record = { key: "1-2", user: "", tab: "1", name: "x.png", size: 7, type: "", lastModified: 1, file: { uri: `${FileSystem.Paths.document.uri.replace(/\/?$/, "/")}x.png` } };
  await store.put(record);
  writeFileSync(join(ROOT, "document/moved/3-4.json"), '{"key":"3-');
  assert.deepEqual(await store.all(), [record]);
  const [text] = readdirSync(join(ROOT, "document/moved")).filter((name) => name === "1-2.json");
  assert.ok(!(await FileSystem.File.prototype.text.call({ path: join(ROOT, "document/moved", text) })).includes(ROOT), "no absolute path is stored");
  await store.clear();
  assert.deepEqual(await store.all(), []);
});

test("capacitor: uploads continue after an update of the app, which moves its folders on iOS", async (t) => {
  let isHeld = true;
  const records = new Map();
  const store = memoryStore(records);
  const { user, wire, uploader } = await started(t, "capacitor", () => (isHeld ? "held" : undefined), { store });
  const files = { "Documents/one.png": makeImage("one.png", 300_000), "Library/Caches/two.png": makeImage("two.png", 310_000), "tmp/three.png": makeImage("three.png", 320_000) };
  for (const [path, file] of Object.entries(files)) {
    mkdirSync(join(container.path, path, ".."), { recursive: true });
    writeFileSync(join(container.path, path), Buffer.from(await file.arrayBuffer()));
    uploader.add(pathToFileURL(join(container.path, path)).href);
  }
  const elsewhere = await saveFile(makeImage("four.png"));
  uploader.add(elsewhere);
  await waitUntil(() => wire.length === 3, "three files are sent");
  await waitUntil(() => [...records.values()].filter(({ id }) => id).length === 4, "the uploads are stored, also the one that waits for its turn");
  uploader.stop();
  isHeld = false;
  const uris = [...records.values()].filter(({ file }) => file).map(({ file }) => file.uri);
  assert.deepEqual(uris.sort(), ["CACHE:two.png", "DATA:one.png", "TEMPORARY:three.png", elsewhere], "no path of the container is stored");
  const moved = join(ROOT, "container-2");
  renameSync(container.path, moved);
  container.path = moved;
  const second = APPS.capacitor.create({ api: BASE, token: user.token, store });
  await second.restore();
  await Promise.all(second.items.map((item) => item.finished));
  assert.equal(second.items.length, 4);
  const images = (await call("GET", "/api/images/gallery", user)).images.map(({ fileName }) => fileName);
  for (const file of Object.values(files)) assert.ok(images.includes(file.name), String(images));
  await waitUntil(() => records.size === 0, "nothing is kept longer than it is needed");
});

test("capacitor: Blobs are uploaded as in a browser, which has no files", async (t) => {
  const { user, wire, uploader } = await started(t, "capacitor");
  const file = makeImage("blob.png");
  await uploader.add([file])[0].finished;
  assert.equal(wire.length, 0);
  await assertGallery(user, [file]);
});

for (const [mark, scope] of Object.entries({ expo: { FileSystem, createUploader: createExpoUploader }, capacitor: { FileTransfer, Filesystem, createUploader: createCapacitorUploader } })) {
  test(`the example of docs/client.md for ${mark} uploads`, async (t) => {
    await recordPuts(t);
    const [user, file] = [await signUp(), makeImage("boat.png")];
    const text = readFileSync(new URL("../../../docs/client.md", import.meta.url), "utf8");
    const [, code] = text.match(new RegExp(`<!-- ${mark} -->\n\`\`\`js\n([\\s\\S]*?)\n\`\`\``));
    const picked = { uri: await saveFile(file), name: "boat.png" };
    const names = { ...scope, asset: picked, photo: picked, accessToken: () => user.token, userId: user.user.id };
    const AsyncFunction = (async () => {}).constructor;
    await new AsyncFunction(...Object.keys(names), code.replace(/^import .*$/gm, "").replaceAll("https://api.example.com", BASE))(...Object.values(names));
    await assertGallery(user, [file]);
  });
}
