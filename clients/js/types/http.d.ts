/**
 * Returns a problem of the class of its code.
 * @param {ConstructorParameters<typeof Problem>[0]} failure
 * @returns {Problem}
 */
export function problem(failure: ConstructorParameters<typeof Problem>[0]): Problem;
/** Calls `work` with a signal that is aborted with `signal`, after `ms` and at the end. */
export function limited(signal: any, work: any, ms?: number): Promise<any>;
/** Opens an event stream and returns its bytes, or throws a {@link Problem}. `options` are those of {@link send}. */
export function openStream(method: any, url: any, options?: {}): Promise<any>;
/** Sends JSON and returns the JSON of the response (`undefined` for a 204), or throws a {@link Problem}. */
export function request(method: any, url: any, options?: {}): Promise<any>;
/**
 * A failure, identified by `code`: a code of the server (RFC 9457 problem documents), or one of this client: `no_answer` (no network,
 * or the response was lost), `bad_answer` (the response is not from the API), `storage_unreachable`, `storage_refused`,
 * `file_unreadable` and `internal`. Codes are an open set. The subclasses group them by the reaction of an app.
 */
export class Problem extends Error {
    /** @param {{ code: string, status?: number, detail?: string, errors?: { field: string, message: string }[], requestId?: string, retryAfter?: number }} failure */
    constructor({ code, status, detail, errors, requestId, retryAfter }: {
        code: string;
        status?: number;
        detail?: string;
        errors?: {
            field: string;
            message: string;
        }[];
        requestId?: string;
        retryAfter?: number;
    });
    /** Stable name of the failure. */
    code: string;
    /** HTTP status, or 0 without a response. */
    status: number;
    /** The server's description, for developers. */
    detail: string;
    /** Fields of the request that were refused. */
    errors: {
        field: string;
        message: string;
    }[];
    /** The request's id in the server's log. */
    requestId: string;
    /** Seconds until a repeat is welcome. */
    retryAfter: number;
    /** Whether the same request may succeed later: every request of this API may be repeated. */
    get isTransient(): boolean;
    /** One or two English sentences for the user: the failure and the remedy. */
    get userMessage(): any;
}
/** The API or the store cannot be reached. */
export class NetworkProblem extends Problem {
}
/** The token is not accepted, and `token` gave no other: the user has to sign in again. */
export class SessionProblem extends Problem {
}
/** The file is never accepted as it is. A repeat with the same file is pointless. */
export class FileProblem extends Problem {
}
/** The user's storage is full, or too many uploads are open. */
export class QuotaProblem extends Problem {
}
/** The store answered with a refusal, or holds other bytes. */
export class StorageProblem extends Problem {
}
export function asProblem(error: any, code: any): Problem;
