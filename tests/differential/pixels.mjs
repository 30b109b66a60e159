// Compares the pictures of rendered.jsonl, in the given folder, with Chromium's rendering of the same files at the same size, both on white:
// prints the mean differences of 0 to 255 over all channels, and exits 1 if one is more than 2.
//     CHROMIUM=/usr/bin/chromium node pixels.mjs FOLDER

import { createReadStream, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { basename, join } from "node:path";
import { chromium } from "playwright-core";

/** Mean difference of 0 to 255 that a picture may have, because JPEG loses detail and the filters for scaling differ. */
const MAX_DIFFERENCE = 2;
// Images whose rendering is not compared, with the reason.
const DECIDED = {
  "cicp-hlg.png": "how a high dynamic range is reduced is not standardised",
  "cicp-pq.png": "how a high dynamic range is reduced is not standardised",
};
const folder = process.argv[2];
const rows = readFileSync(join(folder, "rendered.jsonl"), "utf8").trim().split("\n").map((line) => JSON.parse(line));
const compared = rows.filter(({ path }) => !DECIDED[basename(path)]);
const pairs = compared.flatMap(({ path, format, pictures }) => pictures.map((picture) => ({ path, format, ...picture })));

const server = createServer((request, response) => {
  if (request.url === "/") return response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html>");
  const pair = pairs[Number(request.url.match(/^\/(?:original|picture)\/(\d+)$/)?.[1])];
  if (!pair) return response.writeHead(404).end();
  response.writeHead(200, { "content-type": "application/octet-stream" });
  createReadStream(request.url.startsWith("/original") ? pair.path : join(folder, pair.file)).pipe(response);
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  timeout: 180_000,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--force-color-profile=srgb"],
});

/** Runs in the page: returns the mean difference of each pair, or null if Chromium does not show the original, or not all of it. */
async function compare(batch) {
  async function pixels(url, width, height) {
    const blob = await (await fetch(url)).blob();
    const image = new Image();
    image.src = URL.createObjectURL(blob);
    const loaded = await new Promise((done) => { image.onload = () => done(true); image.onerror = () => done(false); });
    URL.revokeObjectURL(image.src);
    const whole = await createImageBitmap(blob).then((made) => (made.close(), true), () => false);
    if (!loaded || image.naturalWidth === 0 || !whole) return null;
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.fillStyle = "white";
    context.fillRect(0, 0, width, height);
    context.imageSmoothingQuality = "high";
    context.drawImage(image, 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  }
  const results = [];
  for (const { number, width, height } of batch) {
    const original = await pixels(`/original/${number}`, width, height);
    const picture = await pixels(`/picture/${number}`, width, height);
    let sum = 0;
    if (original && picture) {
      for (let at = 0; at < original.length; at += 4) {
        for (let channel = 0; channel < 3; channel++) sum += Math.abs(original[at + channel] - picture[at + channel]);
      }
    }
    // A picture that Chromium does not show has the greatest difference, 255.
    const difference = !picture ? 255 : original ? sum / (width * height * 3) : null;
    results.push({ number, difference });
  }
  return results;
}

const page = await browser.newPage();
await page.goto(`http://127.0.0.1:${server.address().port}/`);
for (let at = 0; at < pairs.length; at += 20) {
  const batch = pairs.slice(at, at + 20).map(({ width, height }, offset) => ({ number: at + offset, width, height }));
  for (const { number, difference } of await page.evaluate(compare, batch)) pairs[number].difference = difference;
}
await browser.close();
server.close();

const shown = pairs.filter(({ difference }) => difference !== null).sort((one, other) => other.difference - one.difference);
writeFileSync(join(folder, "differences.jsonl"), shown.map((pair) => `${JSON.stringify(pair)}\n`).join(""));
const line = ({ difference, path, width, height }) => `${difference.toFixed(2)} ${path} at ${width}x${height}`;
const wrong = shown.filter(({ difference }) => difference > MAX_DIFFERENCE);
const mean = shown.reduce((sum, { difference }) => sum + difference, 0) / shown.length;
console.log(`${shown.length} pictures compared, ${pairs.length - shown.length} that Chromium does not show; ` +
  `mean difference ${mean.toFixed(2)}, greatest ${shown[0]?.difference.toFixed(2)}, ${wrong.length} above ${MAX_DIFFERENCE}`);
console.log((process.argv.includes("--all") ? shown : wrong).map(line).join("\n"));
process.exit(wrong.length > 0 || shown.length === 0 ? 1 : 0);
