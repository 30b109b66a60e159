// Sends one HTTP request to the API, and converts its failures. Tokens are in session.js, resources in api.js.

/**
 * A failure, identified by `code`: a code of the server (RFC 9457 problem documents), or one of this client: `no_answer` (no network,
 * or the response was lost) and `bad_answer` (the response is not from the API).
 */
export class Problem extends Error {
  constructor({ code, status = 0, detail = "", errors = [], requestId, retryAfter }) {
    super(detail || code);
    this.name = "Problem";
    Object.assign(this, { code, status, detail, errors, requestId, retryAfter });
  }

  /** Whether the same request may succeed later: every request of this API may be repeated. */
  get isTransient() {
    return ["no_answer", "bad_answer", "unavailable", "timeout", "rate_limited", "request_timeout"].includes(this.code);
  }
}

/** Sends JSON and returns the JSON of the response (`undefined` for a 204), or throws a {@link Problem}. */
export async function request(method, path, { body, token, key, signal, keepalive } = {}) {
  const headers = { accept: "application/json, application/problem+json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (token) headers.authorization = `Bearer ${token}`;
  if (key) headers["idempotency-key"] = key;
  let response, text;
  try {
    response = await fetch(path, {
      method, headers, signal, keepalive, body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store", credentials: "omit", redirect: "error",
    });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    throw new Problem({ code: "no_answer", detail: error.message });
  }
  let answer;
  try {
    answer = text ? JSON.parse(text) : undefined;
  } catch {
    throw new Problem({ code: "bad_answer", status: response.status });
  }
  if (response.ok) return answer;
  const retryAfter = Number(response.headers.get("retry-after")) || undefined;
  throw new Problem({ code: "bad_answer", ...answer, status: response.status, retryAfter });
}
