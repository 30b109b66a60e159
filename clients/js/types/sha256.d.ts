/** Returns the 32 bytes of the digest. */
export function sha256(bytes: any): Uint8Array<ArrayBuffer>;
