// Calls of the API for uploads and event streams, with the app's token. The server's /docs has the request and response types.

import { openStream, Problem, problem, request } from "./http.js";

/** Time in milliseconds that the first call waits for further calls; after a batch, for each call that it had. */
const GATHER_MS = 10;
/** The same at most, while a batch is under way. */
const MOST_GATHER_MS = 500;
/** Calls in one batch, at most. The server accepts 100. */
const MOST_IN_BATCH = 50;
/** Number of refused tokens that are remembered. */
const MOST_STALE = 10;

/**
 * Returns a function that returns the token of a request, and exchanges a rejected one once for all requests.
 * @param {string | ((stale?: string) => string | Promise<string>)} source
 */
function tokens(source) {
  const stale = new Set(); // The latest refused tokens: a slow call may be refused with an older one.
  let fresh;
  // A source that fails has no network, unless it throws another problem.
  const ask = async (refused) => {
    try {
      return await source(refused);
    } catch (error) {
      throw error instanceof Problem ? error : problem({ code: "no_answer", detail: String(error) });
    }
  };
  return async (refused) => {
    if (typeof source !== "function") {
      if (refused) throw problem({ code: "token_invalid", status: 401 });
      return source;
    }
    if (!refused) {
      await fresh?.catch(() => {});
      return ask();
    }
    if (!stale.has(refused) || !fresh) {
      if (stale.size === MOST_STALE) stale.delete(stale.values().next().value);
      stale.add(refused);
      fresh = ask(refused);
      // After a failure or a refused token, the next request tries again.
      fresh.then((token) => { if (stale.has(token)) throw token; }).catch(() => { fresh = undefined; });
    }
    return fresh;
  };
}

/**
 * Sends calls that are made at about the same time as one batch. Each caller gets its own result. An abort ends only a call that is not
 * sent yet.
 */
function gathered(one, many) {
  let waiting = [];
  let underWay = 0;
  let timer;
  const alone = ({ input, resolve, reject }) => one(input).then(resolve, reject);
  const sendIn = (ms) => {
    clearTimeout(timer);
    timer = setTimeout(send, ms);
  };
  const send = async () => {
    const calls = waiting.splice(0, MOST_IN_BATCH).filter((call) => !call.signal.aborted);
    if (waiting.length) sendIn(0);
    underWay += 1;
    await answer(calls);
    underWay -= 1;
    if (waiting.length && !underWay) sendIn(GATHER_MS * calls.length);
  };
  const answer = async (calls) => {
    if (calls.length < 2) return Promise.all(calls.map(alone));
    try {
      const { results } = await many(calls.map((call) => call.input));
      calls.forEach(({ resolve, reject }, i) => {
        const { status, problem: failure, ...result } = results[i];
        if (failure) reject(problem({ ...failure, status }));
        else resolve(result.ticket ?? result.image);
      });
    } catch (error) {
      // One malformed call makes the whole batch malformed, or all together are too large.
      const mayBeOneCall = error instanceof Problem && (error.status === 400 || error.status === 413);
      calls.forEach(mayBeOneCall ? alone : ({ reject }) => reject(error));
    }
  };
  return (input, signal) => new Promise((resolve, reject) => {
    waiting.push({ input, signal, resolve, reject });
    if (waiting.length === 1) sendIn(underWay ? MOST_GATHER_MS : GATHER_MS);
  });
}

/**
 * Returns the calls, for a server at `base`.
 * @param {{ api: string, token: string | ((stale?: string) => string | Promise<string>) }} options
 */
export function createApi({ api, token }) {
  const base = api.replace(/\/+$/, "");
  const bearer = tokens(token);

  /** Sends a request with a token, and repeats it once with a new token if the server refuses the first. */
  async function call(method, path, options = {}, send = request) {
    const first = await bearer();
    try {
      return await send(method, base + path, { ...options, token: first });
    } catch (error) {
      // `invalid_credentials` is a wrong password, not an invalid token.
      if (!(error instanceof Problem) || error.status !== 401 || error.code === "invalid_credentials") throw error;
      return send(method, base + path, { ...options, token: await bearer(first) });
    }
  }

  const at = (id) => `/api/images/${encodeURIComponent(id)}`;
  const openUpload = (upload) => call("POST", "/api/images/upload", { body: upload });
  const confirm = (id) => call("POST", `${at(id)}/confirm`);
  return {
    call,
    pending: (limit, cursor, signal) => call("GET", `/api/images/pending?limit=${limit}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`, { signal }),
    // An upload that is complete meanwhile stays an image. If the request fails, the upload expires.
    discard: (id) => call("DELETE", `${at(id)}?onlyPending=true`).catch(() => {}),
    openUpload: gathered(openUpload, (items) => call("POST", "/api/images/upload/batch", { body: { items } })),
    confirm: gathered(confirm, (ids) => call("POST", "/api/images/confirm", { body: { ids } })),
    renew: (id, signal) => call("POST", `${at(id)}/renew`, { signal }),
    openMultipart: (upload, key) => call("POST", "/api/images/multipart", { body: upload, key }),
    signParts: (id, parts, signal) => call("POST", `${at(id)}/parts`, { body: { parts }, signal }),
    events: (lastEventId, signal) => call("GET", "/api/events", { lastEventId, signal }, openStream),
    storedParts: (id, signal) => call("GET", `${at(id)}/parts`, { signal }),
  };
}
