export class WorkerPool {
    /** `create` returns a new worker that runs worker.js. */
    constructor(create?: () => Worker);
    digest(blob: any): any;
    inspect(file: any, wantsDigest: any): any;
    /** Ends the workers; their jobs reject. A later job starts new ones. */
    close(): void;
    #private;
}
