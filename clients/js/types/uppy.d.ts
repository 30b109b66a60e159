/**
 * @typedef {object} ValetUploadOptions
 * @property {string} api Address of the server, such as `https://api.example.com`; "" is the page's own.
 * @property {string | ((stale?: string) => string | Promise<string>)} token The access token, or a function that returns it, and
 *   that returns another one when the server has refused `stale`.
 * @property {number} [limit] Files that are sent at a time; 3 by default, 0 for no limit.
 * @property {(problem: import("./http.js").Problem) => string} [explain] Returns the sentence that Uppy shows about a problem; English by default.
 * @property {() => Worker} [worker] Returns a new worker that runs `valet-upload/worker`, for bundlers that do not find it by themselves.
 * @property {string} [id] The plugin's id in Uppy, "ValetUpload" by default.
 */
/**
 * Uploads Uppy's files to Valet. A file's `response.body` is the image as the API returns it, `uploadURL` the image's URL; `caption` in the
 * metadata becomes its caption. An `upload-error` carries the problem, whose message is a sentence for the user.
 * @extends {BasePlugin<ValetUploadOptions, any, any>}
 */
export default class ValetUpload extends BasePlugin<ValetUploadOptions, any, any, Record<string, unknown>> {
    /**
     * @param {import("@uppy/core").Uppy<any, any>} uppy
     * @param {ValetUploadOptions} opts
     */
    constructor(uppy: import("@uppy/core").Uppy<any, any>, opts: ValetUploadOptions);
    #private;
}
export type ValetUploadOptions = {
    /**
     * Address of the server, such as `https://api.example.com`; "" is the page's own.
     */
    api: string;
    /**
     * The access token, or a function that returns it, and
     * that returns another one when the server has refused `stale`.
     */
    token: string | ((stale?: string) => string | Promise<string>);
    /**
     * Files that are sent at a time; 3 by default, 0 for no limit.
     */
    limit?: number;
    /**
     * Returns the sentence that Uppy shows about a problem; English by default.
     */
    explain?: (problem: import("./http.js").Problem) => string;
    /**
     * Returns a new worker that runs `valet-upload/worker`, for bundlers that do not find it by themselves.
     */
    worker?: () => Worker;
    /**
     * The plugin's id in Uppy, "ValetUpload" by default.
     */
    id?: string;
};
import { BasePlugin } from "@uppy/core";
