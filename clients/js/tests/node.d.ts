// What the fakes use of Node; its types are no dependency of this package.

declare module "node:crypto";
declare module "node:fs";
declare module "node:path";
declare module "node:url";
declare const Buffer: any;
