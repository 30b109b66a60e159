// Calls of the API for uploads and event streams, with the app's token. The server's /docs has the request and response types.

import { asProblem, openStream, Problem, problem, request } from "./http.js";

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
function tokenReader(source) {
  const stale = new Set(); // The latest refused tokens: a slow call may be refused with an older one.
  let exchange;
  // A source that fails has no network, unless it throws another problem.
  const readSource = async (refused) => {
    try {
      return await source(refused);
    } catch (error) {
      throw asProblem(error, "no_answer");
    }
  };
  return async (refused) => {
    if (typeof source !== "function") {
      if (refused) throw problem({ code: "token_invalid", status: 401 });
      return source;
    }
    if (!refused) {
      await exchange?.catch(() => {});
      return readSource();
    }
    if (!stale.has(refused) || !exchange) {
      if (stale.size === MOST_STALE) stale.delete([...stale][0]);
      stale.add(refused);
      exchange = readSource(refused);
      // After a failure or a token that was refused before, the next request tries again.
      exchange.then((token) => { if (stale.has(token)) throw token; }).catch(() => { exchange = undefined; });
    }
    return exchange;
  };
}

/**
 * Sends calls that are made at about the same time as one batch. Each caller gets its own result. A call that is aborted before it is
 * sent is left out; its promise stays pending.
 */
function batched(sendOne, sendBatch) {
  let waiting = [];
  let openBatches = 0;
  let timer;
  const sendAlone = ({ input, resolve, reject }) => sendOne(input).then(resolve, reject);
  const sendIn = (ms) => {
    clearTimeout(timer);
    timer = setTimeout(sendWaiting, ms);
  };
  const sendWaiting = async () => {
    const calls = waiting.splice(0, MOST_IN_BATCH).filter((call) => !call.signal.aborted);
    if (waiting.length) sendIn(0);
    openBatches += 1;
    await send(calls);
    openBatches -= 1;
    if (waiting.length && !openBatches) sendIn(GATHER_MS * calls.length);
  };
  const send = async (calls) => {
    if (calls.length < 2) return Promise.all(calls.map(sendAlone));
    try {
      const { results } = await sendBatch(calls.map((call) => call.input));
      calls.forEach(({ resolve, reject }, i) => {
        const { status, problem: failure, ticket, image } = results[i];
        if (failure) reject(problem({ ...failure, status }));
        else resolve(ticket ?? image);
      });
    } catch (error) {
      // One call may be malformed (400), or all together too large (413).
      const canSendAlone = error instanceof Problem && (error.status === 400 || error.status === 413);
      calls.forEach(canSendAlone ? sendAlone : ({ reject }) => reject(error));
    }
  };
  return (input, signal) => new Promise((resolve, reject) => {
    waiting.push({ input, signal, resolve, reject });
    if (waiting.length === 1) sendIn(openBatches ? MOST_GATHER_MS : GATHER_MS);
  });
}

/**
 * Returns the calls, for the server at `api`.
 * @param {{ api: string, token: string | ((stale?: string) => string | Promise<string>) }} options
 */
export function createApi({ api, token }) {
  const base = api.replace(/\/+$/, "");
  const readToken = tokenReader(token);

  /** Sends a request with a token, and repeats it once with a new token if the server refuses the first. */
  async function call(method, path, options = {}, send = request) {
    const first = await readToken();
    try {
      return await send(method, base + path, { ...options, token: first });
    } catch (error) {
      // `invalid_credentials` is a wrong password, not an invalid token.
      if (!(error instanceof Problem) || error.status !== 401 || error.code === "invalid_credentials") throw error;
      return send(method, base + path, { ...options, token: await readToken(first) });
    }
  }

  const pathOf = (id) => `/api/images/${encodeURIComponent(id)}`;
  return {
    call,
    pending: (limit, cursor, signal) => call("GET", `/api/images/pending?limit=${limit}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`, { signal }),
    // An upload that is complete meanwhile stays an image. If the request fails, the upload expires.
    discard: (id) => call("DELETE", `${pathOf(id)}?onlyPending=true`).catch(() => {}),
    openUpload: batched(
      (upload) => call("POST", "/api/images/upload", { body: upload }),
      (items) => call("POST", "/api/images/upload/batch", { body: { items } }),
    ),
    confirm: batched((id) => call("POST", `${pathOf(id)}/confirm`), (ids) => call("POST", "/api/images/confirm", { body: { ids } })),
    renew: (id, signal) => call("POST", `${pathOf(id)}/renew`, { signal }),
    openMultipart: (upload, key) => call("POST", "/api/images/multipart", { body: upload, key }),
    signParts: (id, parts, signal) => call("POST", `${pathOf(id)}/parts`, { body: { parts }, signal }),
    events: (lastEventId, signal) => call("GET", "/api/events", { lastEventId, signal }, openStream),
    storedParts: (id, signal) => call("GET", `${pathOf(id)}/parts`, { signal }),
  };
}
