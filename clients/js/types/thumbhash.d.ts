/** Returns the hash of an image of at most 100 by 100 pixels; `rgba` is not premultiplied. */
export function encode(w: any, h: any, rgba: any): Uint8Array<ArrayBuffer>;
/** Returns the placeholder: `{w, h, rgba}`, at most 32 pixels on its longer side. */
export function decode(hash: any): {
    w: number;
    h: number;
    rgba: Uint8ClampedArray<ArrayBuffer>;
};
export function ratioOf(hash: any): number;
