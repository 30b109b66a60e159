// Modules of Node that capacitor-native.js and expo-native.js use: the package does not depend on the types of Node.

declare module "node:crypto";
declare module "node:fs";
declare module "node:path";
declare module "node:url";
declare const Buffer: any;
