// Sends one HTTP request to the API, and converts its failures to problems. api.js has the calls and the token.

import { explain } from "./messages.js";

/** Time after which a connection counts as dead: longer than the server's longest deadline. */
const DEADLINE_MS = 75_000;

/** Codes of failures that a later repeat of the same request may solve. */
const TRANSIENT = ["no_answer", "bad_answer", "unavailable", "timeout", "rate_limited", "request_timeout"];

/**
 * A failure, identified by `code`: a code of the server (RFC 9457 problem documents), or one of this client: `no_answer` (no network,
 * or the response was lost), `bad_answer` (the response is not from the API), `storage_unreachable`, `storage_refused`,
 * `file_unreadable` and `internal`. Codes are an open set. The subclasses group them by the reaction of an app.
 */
export class Problem extends Error {
  /** @param {{ code: string, status?: number, detail?: string, errors?: { field: string, message: string }[], requestId?: string, retryAfter?: number }} failure */
  constructor({ code, status = 0, detail = "", errors = [], requestId, retryAfter }) {
    super(detail || code);
    this.name = new.target.name;
    /** Stable name of the failure. */
    this.code = code;
    /** HTTP status, or 0 without a response. */
    this.status = status;
    /** The server's description, for developers. */
    this.detail = detail;
    /** Fields of the request that were refused. */
    this.errors = errors;
    /** The request's id in the server's log. */
    this.requestId = requestId;
    /** Seconds until a repeat is welcome. */
    this.retryAfter = retryAfter;
  }

  /** Whether the same request may succeed later: every request of this API may be repeated. */
  get isTransient() {
    return TRANSIENT.includes(this.code);
  }

  /** One or two English sentences for the user: the failure and the remedy. */
  get userMessage() {
    return explain(this);
  }
}

/** The API or the store cannot be reached. */
export class NetworkProblem extends Problem {}
/** The token is not accepted, and `token` gave no other: the user has to sign in again. */
export class SessionProblem extends Problem {}
/** The file is never accepted as it is. A repeat with the same file is pointless. */
export class FileProblem extends Problem {}
/** The user's storage is full, or too many uploads are open. */
export class QuotaProblem extends Problem {}
/** The store answered with a refusal, or holds other bytes. */
export class StorageProblem extends Problem {}

const CLASSES = /** @type {const} */ ([
  [NetworkProblem, ["no_answer", "bad_answer", "storage_unreachable"]],
  [SessionProblem, ["token_missing", "token_invalid", "token_expired", "session_ended"]],
  [FileProblem, ["content_mismatch", "type_not_allowed", "file_too_large", "invalid_size", "invalid_file_name", "file_unreadable"]],
  [QuotaProblem, ["quota_exceeded", "too_many_pending"]],
  [StorageProblem, ["storage_refused", "object_missing", "object_mismatch", "parts_missing"]],
]);

/**
 * Returns a problem of the class of its code.
 * @param {ConstructorParameters<typeof Problem>[0]} failure
 * @returns {Problem}
 */
export function problem(failure) {
  const Class = CLASSES.find(([, codes]) => codes.some((code) => code === failure.code))?.[0] ?? Problem;
  return new Class(failure);
}

/** Returns a problem as it is, and any other error as a problem with this code. */
export const asProblem = (error, code) => (error instanceof Problem ? error : problem({ code, detail: String(error) }));

/** Calls `work` with a signal that is aborted with `signal`, after `ms` and at the end. */
export async function limited(signal, work, ms = 0) {
  const stopping = new AbortController();
  const stop = () => stopping.abort();
  if (signal?.aborted) stop();
  const timer = ms && setTimeout(stop, ms);
  signal?.addEventListener("abort", stop);
  try {
    return await work(stopping.signal);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
    stop();
  }
}

/** Sends a request; resolves at the head of its response. */
async function send(method, url, { accept = "application/json", body, token, key, lastEventId, signal, keepalive }) {
  const headers = { accept: `${accept}, application/problem+json` };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (token) headers.authorization = `Bearer ${token}`;
  if (key) headers["idempotency-key"] = key;
  if (lastEventId) headers["last-event-id"] = lastEventId;
  // `cache: "no-store"` would also forbid to cache preflights.
  return fetch(url, { method, headers, signal, keepalive, body: body && JSON.stringify(body), credentials: "omit", redirect: "error" });
}

/** Opens an event stream and returns its bytes, or throws a {@link Problem}. `options` are those of {@link send}. */
export async function openStream(method, url, options = {}) {
  let response;
  const exchange = async () => {
    response = await send(method, url, { ...options, accept: "text/event-stream" });
    return response.ok ? "" : response.text();
  };
  const text = await exchange().catch((error) => noAnswer(error, options.signal));
  if (!response.ok) throw refusal(response, text);
  if (!response.body || !/^text\/event-stream/.test(response.headers.get("content-type") ?? "")) {
    throw problem({ code: "bad_answer", status: response.status });
  }
  return response.body;
}

function noAnswer(error, signal) {
  if (signal?.aborted) throw signal.reason;
  throw asProblem(error, "no_answer");
}

function refusal(response, text) {
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    // The response is not from the API.
  }
  // Seconds or a date.
  const wait = response.headers.get("retry-after");
  const retryAfter = (isNaN(wait) ? (Date.parse(wait) - Date.now()) / 1000 : Number(wait)) || undefined;
  return problem({ code: "bad_answer", ...answer, status: response.status, retryAfter });
}

/** Sends JSON and returns the JSON of the response (`undefined` for a 204), or throws a {@link Problem}. */
export async function request(method, url, options = {}) {
  let response;
  const exchange = async (signal) => {
    response = await send(method, url, { ...options, signal });
    return response.text();
  };
  const text = await limited(options.signal, exchange, DEADLINE_MS).catch((error) => noAnswer(error, options.signal));
  if (!response.ok) throw refusal(response, text);
  try {
    return text ? JSON.parse(text) : undefined;
  } catch {
    throw problem({ code: "bad_answer", status: response.status });
  }
}
