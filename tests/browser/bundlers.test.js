// Covers builds of an app by bundlers with their default settings, from the package as npm packs it: the worker is in the build and
// runs, and files are uploaded.

import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { signUp, callAtEnd, BASE, drawPhotos, servePages, waitUntil, openContext } from "./harness.js";
import { readGallery } from "./uppy.js";

const HERE = new URL("bundlers/", import.meta.url).pathname;
const APP = `import { createUploader, FileProblem } from "valet-upload";
globalThis.start = (api, token) => { globalThis.uploader = createUploader({ api, token, store: null }); return FileProblem.name; };
document.querySelector("#files").addEventListener("change", (event) => uploader.add(event.target.files));
`;
const PAGE = (script) => `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>App</title><input type="file" id="files" multiple><script type="module" src="${script}"></script>`;
const TYPES = { html: "text/html", js: "text/javascript" };

/** Creates a folder with the app's source, and returns its path. */
function app(name) {
  const root = join(HERE, name);
  mkdirSync(root, { recursive: true });
  writeFileSync(join(root, "app.js"), APP);
  writeFileSync(join(root, "index.html"), PAGE("./app.js"));
  return root;
}

/** Functions that build the app in a folder into `dist`. */
const BUILDS = {
  async vite(root) {
    const { build } = await import("vite");
    await build({ root, configFile: false, logLevel: "error", build: { outDir: "dist" } });
  },
  async webpack(root) {
    const { default: webpack } = await import("webpack");
    const stats = await new Promise((resolve, reject) => {
      webpack({ mode: "production", context: root, entry: "./app.js", output: { path: join(root, "dist"), filename: "app.js" } },
        (error, done) => (error ? reject(error) : resolve(done)));
    });
    assert.equal(stats.hasErrors() || stats.hasWarnings(), false, stats.toString());
  },
  async esbuild(root) {
    const { build } = await import("esbuild");
    await build({
      absWorkingDir: root, entryPoints: { app: "./app.js", worker: "valet-upload/worker" }, bundle: true, minify: true, format: "esm", outdir: "dist", logLevel: "error",
    });
  },
};

/** Opens the page at this address, uploads a photo, and returns whether a worker ran. */
async function uploadsWithWorker(context, address) {
  const user = await signUp();
  const opened = await context.newPage();
  await opened.goto(address);
  await opened.waitForFunction(() => globalThis.start);
  await opened.evaluate(({ base, token }) => start(base, token), { base: BASE, token: user.token });
  await opened.locator("#files").setInputFiles(await drawPhotos(opened, 1, { width: 900, height: 700, noise: 0.8 }));
  await opened.evaluate(() => uploader.items[0].finished);
  await waitUntil(async () => Object.values(await readGallery(user)).every((image) => image.previewUrl && image.thumbHash), "a preview");
  assert.equal(Object.keys(await readGallery(user)).length, 1);
  return opened.workers().length > 0;
}

for (const [name, build] of Object.entries(BUILDS)) {
  test(`a build by ${name} uploads, with the worker`, async (t) => {
    const root = app(name);
    await build(root);
    const page = join(root, "dist", "index.html");
    if (!existsSync(page)) writeFileSync(page, PAGE("./app.js"));
    const port = await servePages(t, (request, response) => {
      const file = join(root, "dist", request.url === "/" ? "index.html" : request.url);
      if (!existsSync(file)) return response.writeHead(404).end();
      return response.setHeader("content-type", TYPES[file.split(".").pop()]).end(readFileSync(file));
    });
    const context = await openContext(t, {});
    assert.ok(await uploadsWithWorker(context, `http://localhost:${port}/`), "a worker runs");
  });
}

test("vite's development server has the worker too", async (t) => {
  const { createServer: serve } = await import("vite");
  const server = await serve({ root: app("vite-dev"), configFile: false, logLevel: "silent", server: { host: "localhost", port: 0 } });
  callAtEnd(t, () => server.close());
  await server.listen();
  assert.ok(await uploadsWithWorker(await openContext(t, {}), server.resolvedUrls.local[0]), "a worker runs");
});
