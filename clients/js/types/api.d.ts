/**
 * Returns the calls, for the server at `api`.
 * @param {{ api: string, token: string | ((stale?: string) => string | Promise<string>) }} options
 */
export function createApi({ api, token }: {
    api: string;
    token: string | ((stale?: string) => string | Promise<string>);
}): {
    call: (method: any, path: any, options?: {}, send?: typeof request) => Promise<any>;
    pending: (limit: any, cursor: any, signal: any) => Promise<any>;
    discard: (id: any) => Promise<any>;
    openUpload: (input: any, signal: any) => Promise<any>;
    confirm: (input: any, signal: any) => Promise<any>;
    renew: (id: any, signal: any) => Promise<any>;
    openMultipart: (upload: any, key: any) => Promise<any>;
    signParts: (id: any, parts: any, signal: any) => Promise<any>;
    events: (lastEventId: any, signal: any) => Promise<any>;
    storedParts: (id: any, signal: any) => Promise<any>;
};
import { request } from "./http.js";
