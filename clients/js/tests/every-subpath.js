// An app that uses everything: .ci/client measures it.

export * from "valet-upload";
export * from "valet-upload/react";
export { default } from "valet-upload/uppy";
