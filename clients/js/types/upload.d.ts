/**
 * Uploads a file with this name and caption, and returns the image. `file` is a Blob, or a file of native.js, which has its own `inspect`
 * and `put` and is always sent in one PUT. `services` has `api` (the calls of api.js), `work` (worker-pool.js) and, if files wait for their turn to be sent,
 * `turns`. `events` has functions to call: `progress(bytes)`, `opened(id)`, `waiting("offline" | "again" | null)`,
 * `stage("preparing" | "opening" | "sending" | "confirming")`, `preview(blob)`, and `found(id)` if the gallery has these bytes already.
 */
export function upload({ file, name, caption }: {
    file: any;
    name: any;
    caption: any;
}, events: any, signal: any, services: any): Promise<any>;
