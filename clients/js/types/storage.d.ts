/** Returns a channel to the other tabs, or one without effect if the browser denies it. */
export function channel(name: any): BroadcastChannel | (EventTarget & {
    postMessage(): void;
    close(): void;
});
/** A text in localStorage or sessionStorage, or in memory if the browser denies them. */
export class StoredText {
    /** `area` is "localStorage" or "sessionStorage": reading the property itself may throw. */
    constructor(area: any, name: any);
    /** Whether the last write outlives the page. */
    lasting: any;
    set value(text: any);
    get value(): any;
    clear(): void;
    #private;
}
/** Resolves to the browser's locks, or null on plain http or if storage is denied. A lock would keep a script of Deno from ending. */
export const locks: Promise<LockManager>;
