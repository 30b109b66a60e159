/**
 * Calls `onEvent` for each change of the user's images, on any device, until `signal` is aborted, and `onReset` whenever changes may
 * have been missed, at the beginning too: the app then reads again what it shows. Reconnects by itself. Resolves after an abort; rejects
 * with a Problem that a repeat does not solve, such as the end of the session.
 * @param {{ events: (lastEventId: string | undefined, signal: AbortSignal) => Promise<ReadableStream<Uint8Array>> }} api
 * @param {import("./types.js").EventHandlers} handlers
 */
export function follow(api: {
    events: (lastEventId: string | undefined, signal: AbortSignal) => Promise<ReadableStream<Uint8Array>>;
}, { onEvent, onReset, signal }: import("./types.js").EventHandlers): Promise<void>;
