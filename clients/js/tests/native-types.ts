// Compiled with `tsc --strict` against the committed declarations and the packages' own; never run.

import { FileTransfer } from "@capacitor/file-transfer";
import { Filesystem } from "@capacitor/filesystem";
import * as FileSystem from "expo-file-system";
import type { Upload, UploaderOptions } from "valet-upload";
import { createUploader as createCapacitorUploader } from "valet-upload/capacitor";
import { createUploader as createExpoUploader, fileStore } from "valet-upload/expo";
import { useUploader, type UploadQueue } from "valet-upload/react";

const options: UploaderOptions = { api: "https://api.example.com", token: "token" };
const expo = createExpoUploader({ ...options, FileSystem, sessionType: "foreground", store: fileStore(FileSystem) });
export const assets: Upload[] = expo.add([new FileSystem.File("file:///x.png"), "file:///y.png", { uri: "file:///z.png", fileName: null, mimeType: "image/png" }], { caption: "x" });
// @ts-expect-error The module is required.
createExpoUploader(options);
// @ts-expect-error A session is one of two.
createExpoUploader({ ...options, FileSystem, sessionType: "discretionary" });
const capacitor = createCapacitorUploader({ ...options, FileTransfer, Filesystem });
export const photos: Upload[] = capacitor.add({ path: "file:///x.jpeg" });
export const hooks: UploadQueue[] = [useUploader(expo), useUploader(capacitor)];
// @ts-expect-error The plugins are required.
createCapacitorUploader({ ...options, FileTransfer });
