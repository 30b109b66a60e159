/**
 * Returns the store of this origin's IndexedDB database `name`. Its methods reject where the browser denies it.
 * @param {string} [name]
 * @returns {import("./types.js").Store}
 */
export function indexedDbStore(name?: string): import("./types.js").Store;
/** Returns the store of this origin, or null without IndexedDB: even reading the property may throw. */
export function defaultStore(): import("./types.js").Store;
export function memoryStore(records?: Map<string, import("./types.js").StoredFile | import("./types.js").StoredClaim>): import("./types.js").Store;
export function isAvailable(store?: import("./types.js").Store): Promise<boolean>;
/** The unfinished uploads of one user in a store. */
export class PendingFiles {
    /** @param {import("./types.js").Store | null} store @param {string} user */
    constructor(store: import("./types.js").Store | null, user: string);
    /** Stores the file of an upload until {@link remove}. */
    add({ key, name, caption, file }: {
        key: any;
        name: any;
        caption: any;
        file: any;
    }): Promise<any>;
    /**
     * Stores the upload's id and tab, so that other tabs neither upload the file nor offer to discard the upload. A record of its own, because
     * browsers would write the file again with the file's record.
     */
    claim(key: any, id: any): Promise<any>;
    remove(key: any): Promise<any>;
    /**
     * Returns the files of earlier visits: `orphans` are this user's files that no running tab uploads, `busy` the ids of uploads that a
     * running tab has. Without locks, {@link BUSY_MS} decides.
     */
    leftovers(): Promise<{
        orphans: any;
        busy: Set<any>;
    }>;
    #private;
}
