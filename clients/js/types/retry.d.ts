/**
 * Returns a promise that `begin` settles by `resolve` and `reject`, and that rejects with the signal's reason when it is aborted. `begin`
 * may return a function to call at the end.
 */
export function abortable(signal: any, begin: any): Promise<any>;
/** Calls a function of the app, whose error has no effect. */
export function guarded(act: any): void;
export function abortError(): Error & {
    name: string;
};
export function sleep(ms: any, signal: any): Promise<any>;
/** Counts failures in a row; each pause is about twice as long as the one before, with jitter. */
export class RetryPolicy {
    constructor(signal: any, onwait?: () => void, most?: number);
    signal: any;
    onwait: () => void;
    most: number;
    reset(): void;
    /** Waits before the next attempt, or throws `problem` after too many failures. */
    wait(problem: any): Promise<void>;
    /** Repeats a request to the API while its problem is transient. An abort does not end a request without a signal of its own. */
    run(call: any): Promise<any>;
    #private;
}
/** Runs at most `most` jobs at a time, in the order of their calls. */
export class Turns {
    constructor(most: any);
    /** Adds this many turns, and begins as many waiting jobs. A negative number takes turns away, from running jobs when they end. */
    add(turns: any): void;
    /** Runs `work` when it is its turn; rejects if the signal is aborted before. */
    run(signal: any, work: any): Promise<any>;
    #private;
}
