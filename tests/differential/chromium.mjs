// Lists the files of verdicts.jsonl, in the given folder, that Chromium can show and decode: writes chromium.jsonl. A file is shown if it has
// a natural size, and whole if all of it can be decoded.
//     CHROMIUM=/usr/bin/chromium node chromium.mjs FOLDER

import { createReadStream, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { chromium } from "playwright-core";

const folder = process.argv[2];
const files = readFileSync(join(folder, "verdicts.jsonl"), "utf8").trim().split("\n").map((line) => JSON.parse(line).file);

const server = createServer((request, response) => {
  if (request.url === "/") return response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html>");
  if (!/^\/\d+\.bin$/.test(request.url)) return response.writeHead(404).end();
  response.writeHead(200, { "content-type": "application/octet-stream" });
  createReadStream(join(folder, request.url)).pipe(response);
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const base = `http://127.0.0.1:${server.address().port}/`;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  timeout: 180_000,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});

/** Runs in the page: returns the size of each file, and whether Chromium shows it and decodes all of it. */
async function look(batch) {
  const LIMIT_MS = 20_000;
  return Promise.all(batch.map(async (file) => {
    const blob = await (await fetch(file)).blob();
    const image = new Image();
    image.src = URL.createObjectURL(blob);
    const within = (promise) => Promise.race([promise, new Promise((_, late) => setTimeout(late, LIMIT_MS))]);
    const loads = within(new Promise((done, failed) => { image.onload = () => done(true); image.onerror = failed; }));
    const loaded = await loads.catch(() => false);
    const bitmap = await within(createImageBitmap(blob)).then((made) => (made.close(), true), () => false);
    URL.revokeObjectURL(image.src);
    const [width, height] = loaded ? [image.naturalWidth, image.naturalHeight] : [0, 0];
    return { file, width, height, shown: width > 0, whole: width > 0 && bitmap };
  }));
}

const results = [];
let page;
for (let at = 0; at < files.length; at += 40) {
  // A page for each thousand: decoded images stay in memory as long as their page.
  if (at % 1000 === 0) {
    await page?.close();
    page = await browser.newPage();
    await page.goto(base);
  }
  results.push(...(await page.evaluate(look, files.slice(at, at + 40))));
}
writeFileSync(join(folder, "chromium.jsonl"), results.map((result) => `${JSON.stringify(result)}\n`).join(""));
await browser.close();
server.close();
