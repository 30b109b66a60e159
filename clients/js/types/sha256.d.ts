export function sha256(bytes: any): Uint8Array<ArrayBuffer>;
/** A digest of bytes that are read piece by piece. */
export class Sha256 {
    update(bytes: any): void;
    /** Returns the 32 bytes of the digest, once. */
    digest(): Uint8Array<ArrayBuffer>;
    #private;
}
