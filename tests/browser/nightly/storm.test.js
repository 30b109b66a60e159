// Covers the package in a storm: for VALET_STORM_SECONDS, tabs are opened, reloaded, closed and killed, uploads are paused, resumed,
// cancelled and added twice, the device goes offline, tokens and URLs expire, connections break and servers answer with errors. In the end
// every file is in the gallery once, nothing is pending, and the usage is the sum of the images. VALET_STORM_SEED repeats the choices.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import test from "node:test";
import { signUp, callAtEnd, BASE, browser } from "../harness.js";
import { startProxy } from "./faulty_proxy.js";
import { servePackage } from "./pages.js";

const SECONDS = Number(process.env.VALET_STORM_SECONDS ?? 1800);
const SEED = Number(process.env.VALET_STORM_SEED ?? Math.floor(Math.random() * 2 ** 32));
const PNG = readFileSync(`${process.env.VALET_FIXTURES}/plain.png`);
/** Uploads that are under way or wait, at most, so that the storm does not only make a queue longer. */
const MAX_OPEN = 40;
/** Time in which every upload ends after the storm. The longest pause of the package is 15 seconds. */
const CALM_SECONDS = 300;
/** Time until a cancelled upload is no longer counted: its URL expires, and the slowest transfer of a part that the server waits for ends. */
const USAGE_SECONDS = 330;

/** Waits until `check` returns a true value, for longer than other tests wait for a page. */
async function within(seconds, check, condition) {
  for (const end = Date.now() + seconds * 1000; Date.now() < end;) {
    if (await check()) return;
    await new Promise((done) => { setTimeout(done, 200); });
  }
  assert.fail(`not within ${seconds} s: ${condition}`);
}

/** Returns a function that returns the next number from 0 to 1 (mulberry32). */
function numbers(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Random choices from a seed. Faults and actions have separate seeds, because the number of requests depends on time. */
class Choices {
  #next;

  constructor(seed) {
    this.#next = numbers(seed);
  }

  chance = (probability) => this.#next() < probability;
  between = (from, to) => from + Math.floor(this.#next() * (to - from + 1));
  of = (list) => list[Math.floor(this.#next() * list.length)];
}

/** Returns the bytes of a file: an image, the seed and the file's name, and zeros up to its size. */
const bytesOf = ({ name, size }) => Buffer.concat([PNG, Buffer.from(`storm ${SEED} ${name}`)], size);

/** Headers with which a page of another origin can read a response. */
const readable = { "access-control-allow-origin": "*", "access-control-expose-headers": "retry-after" };
const problem = (status, code, headers = {}) => ({
  status, headers: { ...readable, ...headers, "content-type": "application/problem+json" },
  body: JSON.stringify({ type: "about:blank", title: "Storm", status, code, detail: "Repeat the request." }),
});
/** Faults of requests to the store: names of faults of faulty_proxy.js, or responses. */
const STORE_FAULTS = [
  "drop", "cut", "lose", "tear", ...[409, 412, 403, 500, 503].map((status) => ({ status, headers: readable })),
  // A store may send errors without CORS headers, which a page cannot read.
  { status: 403, headers: {} }, { status: 503, headers: {} },
];
/** Faults of requests to the API. */
const API_FAULTS = [
  "drop", "cut", "lose", "tear", problem(503, "unavailable"), problem(500, "unavailable"), problem(429, "rate_limited", { "retry-after": "1" }),
  problem(401, "token_expired"), { status: 502, headers: { ...readable, "content-type": "text/html" }, body: "<h1>Bad gateway</h1>" },
];

/** Starts the proxy. While `weather.isBad`, it breaks requests to the API and the store, in waves. */
const breaking = (choices, weather) => startProxy((request) => {
  const { origin, port } = new URL(request.url);
  if (!weather.isBad || port === weather.appPort) return undefined;
  const isRough = Math.floor(Date.now() / 5000) % 2 === 0;
  if (!choices.chance(isRough ? 0.4 : 0.08)) return undefined;
  const isApi = origin === new URL(BASE).origin;
  // Preflights are answered, or the connection breaks.
  if (request.method === "OPTIONS") return choices.chance(0.2) ? "drop" : undefined;
  return choices.of(isApi ? API_FAULTS : STORE_FAULTS);
});

/** Keeps a session of the user fresh for all tabs: one refresh at a time. */
function session(user) {
  let [current, refreshing] = [user, null];
  const refresh = async () => {
    const answer = await fetch(`${BASE}/api/auth/refresh`, {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ refreshToken: current.refreshToken }),
    });
    assert.equal(answer.status, 200, "the session is refreshed");
    current = await answer.json();
  };
  return {
    /** Returns a token other than `stale`. */
    async token(stale) {
      if (stale && stale === current.token) await (refreshing ??= refresh().finally(() => { refreshing = null; }));
      return current.token;
    },
    async api(path) {
      for (let attempt = 0; ; attempt += 1) {
        const { token } = current;
        const answer = await fetch(BASE + path, { headers: { authorization: `Bearer ${token}` } });
        if (answer.status !== 401 || attempt) return answer.json();
        await this.token(token);
      }
    },
    async images() {
      const images = [];
      for (let cursor = ""; cursor !== undefined;) {
        const page = await this.api(`/api/images/gallery?limit=100${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
        images.push(...page.images);
        cursor = page.nextCursor;
      }
      return images;
    },
  };
}

/** Opens a tab with an uploader that has restored what other tabs have left. */
async function openTab(context, address, { base, id }) {
  const page = await context.newPage();
  await page.goto(address);
  await start(page, { base, id });
  return page;
}

/** Runs the app in a page that was loaded. */
const start = (page, app) => page.evaluate(async ({ base, id, png, seed }) => {
  const { createUploader } = await import("/src/index.js");
  globalThis.uploader = createUploader({ api: base, user: id, token: (stale) => freshToken(stale ?? null) });
  const prefix = Uint8Array.from(atob(png), (character) => character.charCodeAt(0));
  /** Adds a file; returns whether it is stored, so that it survives the tab. */
  globalThis.offer = async ({ name, size }) => {
    const label = new TextEncoder().encode(`storm ${seed} ${name}`);
    const file = new File([prefix, label, new Uint8Array(size - prefix.length - label.length)], name, { type: "image/png", lastModified: 1 });
    const [item] = uploader.add(file);
    return Boolean(await item?.stored);
  };
  // Repeats a failed `restore()`, as an app does.
  globalThis.restored = (async () => {
    for (;;) {
      try {
        return await uploader.restore();
      } catch {
        await new Promise((done) => { setTimeout(done, 1000); });
      }
    }
  })();
}, { ...app, png: PNG.toString("base64"), seed: SEED });

/** Actions on a tab, with their weights. Each gets the page and the storm. */
const ACTS = {
  pause: [8, (page, { choices }) => page.evaluate((n) => uploader.items[n % (uploader.items.length || 1)]?.pause(), choices.between(0, 999))],
  resume: [8, (page) => page.evaluate(() => uploader.items.forEach((item) => item.resume()))],
  "pause all": [3, (page) => page.evaluate(() => uploader.pause())],
  "resume all": [6, (page) => page.evaluate(() => uploader.resume())],
  retry: [10, (page) => page.evaluate(() => uploader.items.forEach((item) => item.retry()))],
  cancel: [3, async (page, { choices, cancelled }) => {
    const name = await page.evaluate((n) => {
      const open = uploader.items.filter((item) => item.state !== "done");
      return open[n % (open.length || 1)]?.name;
    }, choices.between(0, 999));
    if (!name) return;
    // Recorded before the call, because the tab may end during it.
    cancelled.add(name);
    await page.evaluate((name) => uploader.items.filter((item) => item.name === name && item.state !== "done").forEach((item) => item.cancel()), name);
  }],
  reload: [6, async (page, { app }) => { await page.reload(); await start(page, app); }],
  close: [3, (page) => page.close()],
  kill: [2, async (page) => {
    const cdp = await page.context().newCDPSession(page);
    const crashed = page.waitForEvent("crash");
    cdp.send("Page.crash").catch(() => {});
    await crashed;
    await page.close();
  }],
  offline: [2, async (page, { choices }) => {
    await page.context().setOffline(true);
    await new Promise((done) => { setTimeout(done, choices.between(300, 6000)); });
    await page.context().setOffline(false);
  }],
  clear: [2, (page) => page.evaluate(() => uploader.clearDone())],
};

/** One run of the storm. */
class Storm {
  offered = new Map(); // name → { name, size, isLarge, isDurable: whether the page has stored its bytes }
  cancelled = new Set(); // names
  done = {}; // number of times each action was done
  tabs = [];

  constructor(choices, context, address, app) {
    Object.assign(this, { choices, context, address, app });
  }

  /** Offers new files to a tab, or one that another tab has too. */
  async #offer(page) {
    const { choices, offered } = this;
    if ((await page.evaluate(() => uploader.items.filter((item) => item.open).length)) > MAX_OPEN) return;
    const known = [...offered.values()].filter(({ name }) => !this.cancelled.has(name));
    if (known.length && choices.chance(0.15)) {
      const again = choices.of(known.slice(-30));
      const isStored = await page.evaluate((file) => offer(file), again);
      again.isDurable ||= isStored && !again.isLarge;
      return;
    }
    for (let n = choices.between(1, 8); n > 0; n -= 1) {
      const isLarge = choices.chance(0.05);
      const name = `storm-${String(offered.size).padStart(5, "0")}.png`;
      const file = { name, size: isLarge ? choices.between(17 << 20, 26 << 20) : choices.between(2000, 600_000), isLarge, isDurable: false };
      offered.set(name, file);
      file.isDurable = (await page.evaluate((file) => offer(file), file)) && !isLarge;
    }
  }

  /** Does one action in one tab, or opens another tab first. */
  async #act() {
    const { choices } = this;
    if (!this.tabs.length || (this.tabs.length < 3 && choices.chance(0.05))) this.tabs.push(await openTab(this.context, this.address, this.app));
    const page = choices.of(this.tabs);
    if (choices.chance(0.35)) return this.#offer(page);
    const weighted = Object.entries(ACTS).flatMap(([name, [weight]]) => Array.from({ length: weight }, () => name));
    const name = choices.of(weighted);
    this.done[name] = (this.done[name] ?? 0) + 1;
    await ACTS[name][1](page, this);
    if (page.isClosed()) this.tabs = this.tabs.filter((tab) => tab !== page);
    return undefined;
  }

  /** Acts on the tabs for this time. */
  async rage(seconds) {
    for (const end = Date.now() + seconds * 1000; Date.now() < end;) {
      await this.#act();
      await new Promise((done) => { setTimeout(done, this.choices.between(50, 900)); });
    }
  }

  /** Closes all tabs, and lets a new tab finish all uploads: files that were not stored are chosen again. Returns its page. */
  async calm() {
    for (const tab of this.tabs) await tab.close();
    const page = await openTab(this.context, this.address, this.app);
    await page.evaluate(() => restored);
    for (const file of this.offered.values()) {
      if (file.isDurable || this.cancelled.has(file.name)) continue;
      await page.evaluate((file) => offer(file), file);
    }
    const open = () => page.evaluate((cancelled) => {
      for (const item of [...uploader.items]) {
        if (item.state === "failed") item.retry();
        if (item.state === "paused") item.resume();
        // A cancelled file, or an upload that an earlier tab left and whose bytes another upload has delivered.
        if (item.state === "needs-file" && cancelled.includes(item.name)) item.cancel();
      }
      return uploader.items.filter((item) => item.state !== "done").map(({ name, state, waitReason, problem }) => `${name} ${state} ${waitReason ?? ""} ${problem?.code ?? ""}`);
    }, [...this.cancelled]);
    await within(CALM_SECONDS, async () => (await open()).length === 0, "every upload ends").catch(async (error) => {
      throw new Error(`${error.message}: ${await open()}`);
    });
    return page;
  }
}

/** Asserts that every file that was not cancelled is in the gallery once, with its bytes. */
async function assertImages(storm, images) {
  const times = new Map();
  for (const { fileName } of images) times.set(fileName, (times.get(fileName) ?? 0) + 1);
  const wrong = [];
  for (const { name, isDurable, size } of storm.offered.values()) {
    const count = times.get(name) ?? 0;
    if (storm.cancelled.has(name) ? count > 1 : count !== 1) wrong.push(`${name}, ${size} bytes, ${isDurable ? "stored" : "chosen again"}: ${count} times`);
  }
  assert.deepEqual(wrong, [], "every file is in the gallery once");
  assert.deepEqual([...times.keys()].filter((name) => !storm.offered.has(name)), [], "no other image is in the gallery");
  for (const image of images) {
    const file = storm.offered.get(image.fileName);
    assert.equal(image.size, file.size, image.fileName);
    if (image.sha256) assert.equal(image.sha256, createHash("sha256").update(bytesOf(file)).digest("base64"), image.fileName);
  }
}

/** Returns the bytes of the images' previews, which are counted too. */
async function previewBytes(images) {
  let sum = 0;
  const left = images.map(({ previewUrl }) => previewUrl).filter(Boolean);
  const lane = async () => {
    for (let url = left.pop(); url; url = left.pop()) {
      const answer = await fetch(url);
      assert.equal(answer.status, 200, "a preview");
      sum += (await answer.arrayBuffer()).byteLength;
    }
  };
  await Promise.all(Array.from({ length: 8 }, lane));
  return sum;
}

/** Compares the user's usage with the sum of the images and their previews. */
async function compareUsage(userSession) {
  const images = await userSession.images();
  const bytes = images.reduce((sum, { size }) => sum + size, 0) + (await previewBytes(images));
  const { usage } = await userSession.api("/api/auth/me");
  return { areEqual: usage.images === images.length && usage.pending === 0 && usage.bytes === bytes, usage, images: images.length, bytes };
}

test(`a storm of ${SECONDS} seconds: every file is in the gallery once`, { timeout: (SECONDS + CALM_SECONDS + USAGE_SECONDS + 300) * 1000 }, async (t) => {
  console.log(`VALET_STORM_SEED=${SEED} VALET_STORM_SECONDS=${SECONDS}`);
  const [user, served] = [await signUp(), await servePackage()];
  callAtEnd(t, () => served.close());
  const weather = { isBad: true, appPort: new URL(served.address).port };
  const proxy = await breaking(new Choices(SEED + 1), weather);
  callAtEnd(t, () => proxy.close());
  const context = await browser.newContext({ proxy: { server: proxy.address, bypass: "<-loopback>" } });
  callAtEnd(t, () => context.close());
  context.setDefaultTimeout(60_000);
  const pageErrors = [];
  context.on("weberror", (error) => pageErrors.push(String(error.error().stack ?? error.error())));
  context.on("console", (message) => {
    if (message.type() === "error" && !/Failed to load resource|CORS policy|ERR_/.test(message.text())) pageErrors.push(message.text());
  });
  const userSession = session(user);
  await context.exposeFunction("freshToken", (stale) => userSession.token(stale));
  const storm = new Storm(new Choices(SEED), context, served.address, { base: BASE, id: user.user.id });
  await storm.rage(SECONDS);
  weather.isBad = false;
  const page = await storm.calm();
  console.log(`${storm.offered.size} files, ${storm.cancelled.size} cancelled; acts ${JSON.stringify(storm.done)}; requests ${JSON.stringify(proxy.counts)}`);
  const images = await userSession.images();
  await assertImages(storm, images);
  assert.deepEqual(pageErrors, [], "no exception in a page");
  const stored = await page.evaluate(async () => {
    const { indexedDbStore } = await import("/src/index.js");
    return (await indexedDbStore().all()).map(({ name }) => name);
  });
  assert.deepEqual(stored, [], "no file is stored longer than it is needed");
  assert.deepEqual((await userSession.api("/api/images/pending?limit=100")).uploads, []);
  // The gallery is read again each time: a sweeper adds previews that arrived after an image was confirmed.
  let comparison;
  await within(USAGE_SECONDS, async () => {
    comparison = await compareUsage(userSession);
    if (!comparison.areEqual) await new Promise((done) => { setTimeout(done, 5000); });
    return comparison.areEqual;
  }, "the usage is the sum of the images").catch((error) => {
    throw new Error(`${error.message}: ${JSON.stringify(comparison)}`);
  });
});
