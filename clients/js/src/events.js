// Follows the server's event stream: reads it, resumes it after the last event, and reports when events may have been missed.

import { asProblem, Problem, problem } from "./http.js";
import { guarded, RetryPolicy } from "./retry.js";

/** Time without a byte after which a stream is given up: the server sends a heartbeat every 20 s. */
const SILENCE_MS = 50_000;
/** Longest block of a stream that is read, in characters. */
const MAX_BLOCK = 65_536;

/**
 * Calls `onEvent` for each change of the user's images, on any device, until `signal` is aborted, and `onReset` whenever changes may
 * have been missed, at the beginning too: the app then reads again what it shows. Reconnects by itself. Resolves after an abort; rejects
 * with a Problem that a repeat does not solve, such as the end of the session.
 * @param {{ events: (lastEventId: string | undefined, signal: AbortSignal) => Promise<ReadableStream<Uint8Array>> }} api
 * @param {import("./types.js").EventHandlers} handlers
 */
export async function follow(api, { onEvent, onReset = () => {}, signal = new AbortController().signal }) {
  const policy = new RetryPolicy(signal, undefined, Infinity);
  let lastEventId;
  const take = (block) => {
    const { id, event, data } = fields(block);
    const image = idIn(data);
    if (event === "reset") guarded(onReset);
    else if (event && image) guarded(() => onEvent({ type: event, id: image }));
    lastEventId = id || lastEventId;
  };
  while (!signal.aborted) {
    try {
      const known = lastEventId;
      await read(api, known, signal, take, () => {
        if (!known) guarded(onReset);
        policy.reset();
      });
      // The server ended the stream: after half an hour, or because it stops.
      await policy.wait({});
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Problem) || !(error.isTransient || error.status >= 500)) throw error;
      await policy.wait(error).catch(() => {});
    }
  }
}

/** Returns the image's id in the data of an event. Later types of events may have none. */
function idIn(data) {
  try {
    const { id } = JSON.parse(data);
    return typeof id === "string" ? id : undefined;
  } catch {
    return undefined;
  }
}

async function read(api, lastEventId, signal, take, onBegin) {
  const stopping = new AbortController();
  const stop = () => stopping.abort(signal.reason);
  signal.addEventListener("abort", stop);
  let timer;
  const watch = () => {
    clearTimeout(timer);
    timer = setTimeout(() => stopping.abort(problem({ code: "no_answer" })), SILENCE_MS);
  };
  try {
    watch();
    const reader = (await api.events(lastEventId, stopping.signal)).pipeThrough(new TextDecoderStream()).getReader();
    onBegin();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read().catch((error) => {
        throw stopping.signal.aborted ? stopping.signal.reason : asProblem(error, "no_answer");
      });
      if (done) return;
      watch();
      const blocks = (text + value).split("\n\n");
      text = blocks.pop() ?? "";
      blocks.forEach(take);
      if (text.length > MAX_BLOCK) throw problem({ code: "bad_answer", status: 200 });
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
    stopping.abort();
  }
}

/** Returns the fields of a block, which ends at an empty line. */
function fields(block) {
  const found = { id: "", event: "", data: "" };
  for (const line of block.split("\n")) {
    const [, name, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
    if (name && name in found) found[name] = value;
  }
  return found;
}
