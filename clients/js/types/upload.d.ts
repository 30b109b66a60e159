/**
 * Uploads a file: a Blob with a name, or a file of native.js, which has its own `inspect` and `put` and is always sent in one PUT. `means` has the calls of api.js and
 * the `work` of worker-pool.js, and `turns` if files wait for their turn to be sent. Calls the functions of `events`: `progress(bytes)`, `opened(id)`, `waiting("offline" | "again" | null)`, `stage("preparing" | "sending" | "confirming")`, `preview(blob)`, `found(id)` if the gallery has these bytes already.
 */
export function upload(file: any, events: any, signal: any, means: any): Promise<any>;
