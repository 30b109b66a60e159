/** An upload in the list; types.js describes its public fields. `before` is the id that an earlier attempt has opened. */
export class Upload {
    constructor(uploader: any, { file, name, size, caption }: {
        file?: any;
        name: any;
        size: any;
        caption: any;
    }, more?: {});
    /** Makes `finished` the promise of the next attempt. */
    expect(): void;
    finished: Promise<any>;
    settle: {
        resolve: (value: any) => void;
        reject: (reason?: any) => void;
    };
    /** Whether requests are under way. */
    get active(): boolean;
    /** Whether the upload is under way or will start by itself. */
    get open(): boolean;
    /** Whether a repeat with the same file can succeed. */
    get isRetryable(): boolean;
    pause(): void;
    resume(): void;
    retry(): void;
    cancel(): void;
    #private;
}
/**
 * The queue; types.js describes its methods for apps. `api` has the calls of api.js, `work` the jobs of worker-pool.js, `revive` makes a file
 * of a stored record.
 */
export class Uploader extends EventTarget {
    constructor({ api, work, store, user, concurrency, revive }: {
        api: any;
        work: any;
        store: any;
        user: any;
        concurrency?: number;
        revive?: typeof reviveBlob;
    });
    items: any[];
    paused: boolean;
    online: () => void;
    get progress(): {
        sent: any;
        size: any;
        done: any;
        count: number;
    };
    /** Queues files, except those that are queued already. */
    add(input: any, { name, caption, signal }?: {}): Upload[];
    /** Resumes the uploads of an earlier visit, and lists other uploads that are open on the server as `needs-file`. */
    restore(): Promise<void>;
    pause(item: any): void;
    resume(item: any): void;
    retry(item: any): void;
    /** Removes an upload from the list and, unless it is complete, from the server. */
    cancel(item: any): void;
    /** Removes the uploads that are done from the list. */
    clearDone(): void;
    /** Stops all uploads without a request to the server, and ends the workers. Stored files stay for {@link restore}. */
    stop(): void;
    #private;
}
/** Returns the file of a stored record. */
declare function reviveBlob({ file, name, type, lastModified }: {
    file: any;
    name: any;
    type: any;
    lastModified: any;
}): any;
export {};
