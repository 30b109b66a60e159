// Compiled with `tsc --strict` against the committed declarations; never run.

import Uppy from "@uppy/core";
import { createUploader, FileProblem, memoryStore, subscribe, type GalleryImage, type Upload, type UploaderOptions } from "valet-upload";
import type { FileTransferPlugin } from "valet-upload/capacitor";
import type { NativeUploader } from "valet-upload/expo";
import { useUploader, type UploadQueue, type UploadView } from "valet-upload/react";
import ValetUpload, { type ValetUploadOptions } from "valet-upload/uppy";

const options: UploaderOptions = { api: "https://api.example.com", token: async (stale?: string) => stale ?? "token", store: memoryStore() };
const uploader = createUploader(options);
const [one]: Upload[] = uploader.add([new Blob(["x"])], { name: "x.png", caption: "x", signal: new AbortController().signal });
export const finished: Promise<GalleryImage> = one!.finished;
export const share: number = uploader.progress.sent / uploader.progress.size;
one!.pause();
uploader.resume(one);
uploader.resume();
uploader.addEventListener("change", (event) => (event as CustomEvent<Upload | undefined>).detail?.state === "done");
uploader.addEventListener("change", ({ detail }) => detail?.state);
uploader.addEventListener("uploaded", ({ detail: upload }) => upload.image?.fileName);
uploader.addEventListener("failed", ({ detail: upload }) => upload.problem?.userMessage, { once: true });
uploader.addEventListener("event of a subclass", (event: Event) => event.type);
uploader.removeEventListener("failed", ({ detail: upload }) => upload.retry());
export const phone = (native: NativeUploader, plugin: FileTransferPlugin) => [native.add("file:///x.png"), native.items, plugin];
finished.catch((problem: unknown) => (problem instanceof FileProblem ? problem.userMessage : ""));
// @ts-expect-error The address is required.
createUploader({ token: "x" });
// @ts-expect-error A path is not a file.
uploader.add(7);
export const followed: Promise<void> = subscribe({ api: "", token: "x", onEvent: ({ type, id }) => `${type} ${id}` });
// @ts-expect-error Events are lost without a handler.
subscribe({ api: "", token: "x" });

const queue: UploadQueue = useUploader(options);
export const names: string[] = queue.uploads.map((upload: UploadView) => `${upload.name} ${upload.image?.width}`);
export const again: Upload[] = useUploader(uploader).add([new Blob(["x"])], { name: "x.png" });
queue.uploads[0]?.retry();
// @ts-expect-error An upload of a render does not change.
queue.uploads[0]!.state = "done";
// @ts-expect-error The address is required.
useUploader({ token: "x" });

const pluginOptions: ValetUploadOptions = { api: "", token: async (stale) => stale ?? "token", limit: 2, explain: (problem) => problem.code };
export const uppy = new Uppy<{ caption?: string }, GalleryImage & Record<string, unknown>>().use(ValetUpload, pluginOptions);
uppy.on("upload-success", (file, { body }) => `${file?.name} ${body?.width}`);
// @ts-expect-error The address is required.
uppy.use(ValetUpload, { token: "x" });
