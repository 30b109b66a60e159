export class WorkerPool {
    digest(blob: any): any;
    inspect(file: any, wantsDigest: any): any;
    /** Ends the workers; their jobs reject with an AbortError. A later job starts new ones. */
    close(): void;
    #private;
}
