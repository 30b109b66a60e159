/** Returns the Base64 of the SHA-256 of a blob's bytes, as in S3's header. */
export function digest(blob: any, buffer?: any): Promise<string>;
/**
 * Returns what an upload declares of a file: `{contentType, sha256?, thumbHash?, preview?: {blob, sha256}}`; and `shown`, a blob to display.
 * A preview that fails is left out.
 */
export function inspect(file: any, wantsDigest: any): Promise<{
    contentType: any;
    sha256: string;
}>;
/** Returns the media type by the first bytes, or null. File names and the system's type are not reliable. */
export function sniff(head: any): "image/jpeg" | "image/png" | "image/gif" | "image/webp" | "image/avif" | "image/heic" | "image/heif";
