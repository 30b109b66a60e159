// An HTTP proxy between a browser and everything else, which breaks connections at any byte and answers in the place of servers.

import { createServer, request as send } from "node:http";

/** Faults of a proxy, in place of passing a request on. */
const FAULTS = {
  /** Nothing arrives. */
  drop: (request) => request.socket.destroy(),
  /** The request arrives at the proxy, and no answer comes. */
  hold: (request) => request.resume(),
  /** The connection breaks in the middle of the request's body. */
  cut: (request, response) => forward(request, response, { requestBytes: 20_000 }),
  /** The request arrives, the response does not. */
  lose: (request, response) => forward(request, response, { isAnswered: false }),
  /** The response breaks off. */
  tear: (request, response) => forward(request, response, { responseBytes: 30 }),
};

/** Passes a request on: at most so many bytes of the request and of the response, and the response only if `isAnswered`. */
function forward(request, response, { requestBytes = Infinity, responseBytes = Infinity, isAnswered = true } = {}) {
  const { host, hostname, port, pathname, search } = new URL(request.url);
  const stop = () => request.socket.destroy();
  const headers = { ...request.headers, host };
  delete headers["proxy-connection"];
  const onward = send({ hostname, port, path: pathname + search, method: request.method, headers, agent: false }, (answer) => {
    if (!isAnswered) return answer.resume().on("end", stop);
    response.writeHead(answer.statusCode, answer.rawHeaders);
    let left = responseBytes;
    answer.on("data", (piece) => {
      response.write(piece.subarray(0, left));
      left -= piece.length;
      if (left <= 0) stop();
    });
    answer.on("error", stop);
    return answer.on("end", () => response.end());
  });
  onward.on("error", stop);
  request.on("error", () => onward.destroy());
  response.on("close", () => { if (!response.writableEnded && isAnswered) onward.destroy(); });
  let left = requestBytes;
  request.on("data", (piece) => {
    left -= piece.length;
    if (left <= 0) {
      onward.destroy();
      stop();
    } else if (!onward.write(piece)) {
      request.pause();
      onward.once("drain", () => request.resume());
    }
  });
  request.on("end", () => onward.end());
}

/**
 * Starts a proxy. `rule(request)` returns undefined to pass a request on, the name of a fault, or a response
 * `{ status, headers, body }`. Returns the proxy's address, the counts of faults and statuses, and a function that ends it.
 */
export async function startProxy(rule) {
  const counts = {};
  const server = createServer((request, response) => {
    const verdict = rule(request);
    const name = verdict === undefined ? "passed" : verdict.status ?? verdict;
    counts[name] = (counts[name] ?? 0) + 1;
    if (verdict === undefined) return forward(request, response);
    if (typeof verdict === "string") return FAULTS[verdict](request, response);
    // The body is read first, or the browser reports a broken connection instead of the answer.
    request.on("error", () => {});
    return request.resume().on("end", () => response.writeHead(verdict.status, verdict.headers).end(verdict.body));
  });
  server.on("connection", (socket) => socket.on("error", () => {}));
  server.on("clientError", (_, socket) => socket.destroy());
  await new Promise((ready) => { server.listen(0, "127.0.0.1", ready); });
  return {
    address: `http://127.0.0.1:${server.address().port}`,
    counts,
    close() { server.close(); server.closeAllConnections(); },
  };
}
