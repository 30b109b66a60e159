/**
 * Returns the uploads of an uploader, and functions that change them. With options, the component has its own uploader, for as long as it
 * is mounted and `api` and `user` are the same; `token` may be another function at each render. With an uploader of `createUploader`, the
 * uploads continue when the component is unmounted.
 * @param {UploaderOptions | Uploader} source
 * @returns {UploadQueue}
 */
export function useUploader(source: UploaderOptions | Uploader): UploadQueue;
export type AddOptions = import("./types.js").AddOptions;
export type Input = import("./types.js").Input;
export type Upload = import("./types.js").Upload;
export type Uploader = import("./types.js").Uploader;
export type UploaderOptions = import("./types.js").UploaderOptions;
/**
 * An upload as it was at one render: another object after each change, the same one otherwise.
 */
export type UploadView = Readonly<Upload>;
export type UploadQueue = {
    /**
     * All uploads, oldest first.
     */
    uploads: readonly UploadView[];
    progress: Uploader["progress"];
    /**
     * Whether the whole queue is paused.
     */
    paused: boolean;
    /**
     * The same as `add` of an uploader; the functions below too. Each is the
     * same function at every render. After the component is unmounted, `add` throws and the others do nothing.
     */
    add: (input: Input, options?: AddOptions) => Upload[];
    restore: () => Promise<void>;
    /**
     * Pauses all uploads; `upload.pause()` pauses one.
     */
    pause: () => void;
    resume: () => void;
    clearDone: () => void;
};
