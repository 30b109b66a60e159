// Covers event streams in Node against a real server: reports, resuming a lost stream, resets, tokens.

import assert from "node:assert/strict";
import test from "node:test";
import { createUploader, SessionProblem, subscribe } from "valet-upload";
import { signUp, BASE, call, makeImage, intercept, makeResponse, waitUntil } from "./harness.js";

/** Subscribes with the token; returns the reported events, the promise of the subscription's end, and a function that ends it. */
function subscribed(t, token) {
  const [events, stopping] = [[], new AbortController()];
  const ended = subscribe({
    api: BASE, token, signal: stopping.signal, onReset: () => events.push("reset"), onEvent: ({ type, id }) => events.push(`${type} ${id}`),
  });
  ended.catch(() => {});
  t.after(() => stopping.abort());
  return { events, ended, stop: () => stopping.abort() };
}

/** Uploads an image, and returns its id. */
async function uploaded(user) {
  const [upload] = createUploader({ api: BASE, token: user.token }).add(makeImage("sea.png"));
  return (await upload.finished).id;
}

/** Passes a stream on until its first event, and then breaks it. */
function broken(response) {
  const decoder = new TextDecoder();
  return new Response(response.body.pipeThrough(new TransformStream({
    transform(chunk, controller) {
      controller.enqueue(chunk);
      if (decoder.decode(chunk).includes("event:")) setTimeout(() => controller.error(new TypeError("network error")));
    },
  })), response);
}

test("changes are reported until the subscription is stopped", async (t) => {
  const user = await signUp();
  const { events, ended, stop } = subscribed(t, user.token);
  await waitUntil(() => events.length, "the beginning");
  const id = await uploaded(user);
  await call("PATCH", `/api/images/${id}`, { token: user.token, body: { caption: "The sea" } });
  await call("DELETE", `/api/images/${id}`, user);
  await waitUntil(() => events.length >= 4, "three changes");
  assert.deepEqual(events, ["reset", `image.ready ${id}`, `image.updated ${id}`, `image.deleted ${id}`]);
  stop();
  await ended;
});

test("a lost stream is resumed where it was", async (t) => {
  const user = await signUp();
  const ids = [];
  const seen = [];
  intercept(t, async ({ kind, n, options }, send) => {
    if (kind !== "events") return undefined;
    seen.push(options.headers["last-event-id"]);
    if (n === 2) ids.push(await uploaded(user)); // Missed meanwhile.
    if (n === 3) return makeResponse(503, { code: "unavailable", status: 503 });
    return n < 3 ? broken(await send()) : send();
  });
  const { events } = subscribed(t, user.token);
  await waitUntil(() => events.length, "the beginning");
  ids.unshift(await uploaded(user));
  await waitUntil(() => events.length >= 3 && seen.length >= 4, "both changes and a fourth stream");
  assert.deepEqual(events, ["reset", ...ids.map((id) => `image.ready ${id}`)]);
  assert.ok(!seen[0] && seen[1] && seen[2] !== seen[1] && seen[3] === seen[2], String(seen));
});

test("a position that the server does not know leads to a reset", async (t) => {
  const user = await signUp();
  intercept(t, ({ kind, n, options }, send) => {
    if (kind === "events" && n === 2) options.headers["last-event-id"] = "1-2-3";
    return kind === "events" && n === 1 ? send().then(broken) : undefined;
  });
  const { events } = subscribed(t, user.token);
  await waitUntil(() => events.length, "the beginning");
  const id = await uploaded(user);
  await waitUntil(() => events.length >= 3, "a second reset");
  assert.deepEqual(events, ["reset", `image.ready ${id}`, "reset"]);
});

test("a refused token is replaced once, and the end of the session ends the subscription", async (t) => {
  const user = await signUp();
  const asked = [];
  const { events, ended } = subscribed(t, (stale) => { asked.push(stale); return stale ? user.token : "refused"; });
  await waitUntil(() => events.length, "the beginning");
  assert.deepEqual([events, asked], [["reset"], [undefined, "refused"]]);
  const other = subscribed(t, "refused");
  await assert.rejects(other.ended, (problem) => problem instanceof SessionProblem);
  assert.equal(await Promise.race([ended, Promise.resolve("goes on")]), "goes on");
});

test("errors of the app, and events without an image, do not end the stream", async (t) => {
  const user = await signUp();
  const [calls, stopping] = [[], new AbortController()];
  intercept(t, async ({ kind }, send) => {
    if (kind !== "events") return undefined;
    const response = await send();
    const unknown = new TextEncoder().encode("id: x\nevent: account.closed\ndata: none\n\nevent: quota.low\ndata: {}\n\n");
    const added = new TransformStream({ start: (controller) => controller.enqueue(unknown) });
    return new Response(response.body.pipeThrough(added), response);
  });
  const reported = t.mock.method(console, "error", () => {});
  const fails = (name) => () => {
    calls.push(name);
    throw new Error("of the app");
  };
  const ended = subscribe({ api: BASE, token: user.token, signal: stopping.signal, onReset: fails("reset"), onEvent: fails("event") });
  t.after(() => stopping.abort());
  await waitUntil(() => calls.includes("reset"), "the stream begins");
  await uploaded(user);
  await uploaded(user);
  await waitUntil(() => calls.filter((name) => name === "event").length === 2, "both events");
  assert.ok(reported.mock.callCount() >= 3, "the errors are reported");
  stopping.abort();
  await ended;
});
