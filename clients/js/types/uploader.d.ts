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
    get active(): boolean;
    get open(): boolean;
    get isRetryable(): boolean;
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
        sent: number;
        size: number;
        done: number;
        count: number;
    };
    /** Queues files, except named ones that are queued already. */
    add(input: any, options?: {}): Upload[];
    restore(): Promise<void>;
    pause(item: any): void;
    resume(item: any): void;
    retry(item: any): void;
    cancel({ key }: {
        key: any;
    }): void;
    clearDone(): void;
    stop(): void;
    #private;
}
declare function reviveBlob({ file, name, type, lastModified }: {
    file: any;
    name: any;
    type: any;
    lastModified: any;
}): any;
export {};
