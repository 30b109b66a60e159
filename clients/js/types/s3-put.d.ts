/**
 * Sends `body` with the method, URL and headers of `presigned`. Resolves with the status, or 0 without a response; rejects only with
 * the signal's reason. The status suffices: S3's error bodies contain nothing else that a client could act on.
 */
export function put(presigned: any, body: any, { signal, progress }?: {
    progress?: () => void;
}): Promise<any>;
export function hasArrived(status: any): boolean;
export function isRepeatable(status: any): boolean;
