// Covers sources of tokens that fail or return a refused token, in Node against a real server.

import assert from "node:assert/strict";
import test from "node:test";
import { createUploader, Problem, SessionProblem, subscribe } from "valet-upload";
import { signUp, assertGallery, BASE, makeImage, loseConnection, waitUntil } from "./harness.js";

test("a source of tokens without a network is asked again, for uploads and for events", async () => {
  const user = await signUp();
  let failures = 4;
  const token = async () => (failures-- > 0 ? loseConnection() : user.token);
  const uploader = createUploader({ api: BASE, token });
  const stopping = new AbortController();
  let resets = 0;
  const followed = subscribe({ api: BASE, token, onEvent() {}, onReset: () => { resets += 1; }, signal: stopping.signal });
  const file = makeImage("one.png");
  await uploader.add(file)[0].finished;
  await assertGallery(user, [file]);
  await waitUntil(() => resets > 0, "the stream is open");
  stopping.abort();
  await followed;
});

test("a source of tokens that fails after a refusal is asked again", async () => {
  const user = await signUp();
  let failures = 2;
  const token = async (stale) => (!stale ? "wrong" : failures-- > 0 ? loseConnection() : user.token);
  await createUploader({ api: BASE, token }).add(makeImage("one.png"))[0].finished;
});

test("a problem that a source of tokens throws is the upload's problem", async () => {
  const ended = new SessionProblem({ code: "session_ended", status: 401 });
  const [item] = createUploader({ api: BASE, token: () => { throw ended; } }).add(makeImage("one.png"));
  await assert.rejects(item.finished, (problem) => problem instanceof Problem && problem === ended);
});

test("a source that returns the refused token is asked again at the next refusal", async () => {
  const user = await signUp();
  const asked = [];
  const token = (stale) => {
    if (stale) asked.push(stale);
    return asked.length < 2 ? "wrong" : user.token;
  };
  const uploader = createUploader({ api: BASE, token });
  const [item] = uploader.add(makeImage("one.png"));
  await assert.rejects(item.finished, SessionProblem);
  item.retry();
  await item.finished;
  assert.deepEqual(asked, ["wrong", "wrong"]);
});

test("without a token, as before a user has signed in, an upload fails at once", async () => {
  const [item] = createUploader({ api: BASE, token: /** @type {any} */ (undefined) }).add(makeImage("one.png"));
  await assert.rejects(item.finished, SessionProblem);
});
