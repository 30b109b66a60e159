export class WorkerPool {
    /** Returns the Base64 of the SHA-256 of a blob. */
    digest(blob: any): any;
    /** Returns what an upload declares of a file. */
    inspect(file: any, wantsDigest: any): any;
    /** Ends the workers; their jobs reject with an AbortError. A later job starts new ones. */
    close(): void;
    #private;
}
