// An app that imports every entry of the package; .ci/client measures its size.

export * from "valet-upload";
export * as capacitor from "valet-upload/capacitor";
export * as expo from "valet-upload/expo";
export * from "valet-upload/react";
export { default } from "valet-upload/uppy";
