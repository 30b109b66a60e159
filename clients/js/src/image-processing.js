// Computes what an upload declares of a file: digest, type, preview and ThumbHash. worker-pool.js runs it.

import { sha256 } from "./sha256.js";
import { encode } from "./thumbhash.js";

/** Largest size of a preview, which is sharp on dense screens at the sizes of the gallery. */
const PREVIEW_WIDTH = 1400;
const PREVIEW_HEIGHT = 720;
const PREVIEW_BYTES = 256 << 10;
/** Files up to this size need no preview. */
const SMALL_BYTES = 128 << 10;
/** Longer side of an image, at most, for a ThumbHash. */
const HASHED_SIDE = 100;

/** Returns the Base64 of the SHA-256 of a blob's bytes, as in S3's header. */
export async function digest(blob, buffer = blob.arrayBuffer()) {
  const bytes = new Uint8Array(await buffer);
  const hash = globalThis.crypto?.subtle ? new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)) : sha256(bytes);
  return base64(hash);
}

/**
 * Returns what an upload declares of a file: `{contentType, sha256?, thumbHash?, preview?: {blob, sha256}}`; and `shown`, a blob to display.
 * A preview that fails is left out.
 */
export async function inspect(file, wantsDigest) {
  const buffer = await (wantsDigest ? file : file.slice(0, 64)).arrayBuffer();
  const contentType = sniff(new Uint8Array(buffer.slice(0, 64))) || file.type || "application/octet-stream";
  const facts = { contentType, sha256: wantsDigest ? await digest(file, buffer) : undefined };
  // A damaged file, or a format that this browser does not decode (HEIC in most): the server may still accept it. Node decodes none.
  const isUnknown = (await globalThis.ImageDecoder?.isTypeSupported(contentType).catch(() => false)) === false;
  const bitmap = isUnknown ? null : await globalThis.createImageBitmap?.(file).catch(() => null);
  if (!bitmap) return facts;
  try {
    const drawn = draw(bitmap, HASHED_SIDE, HASHED_SIDE);
    const { width, height } = drawn;
    const hash = encode(width, height, drawn.getContext("2d").getImageData(0, 0, width, height).data);
    const blob = file.size > SMALL_BYTES && (await shrink(bitmap));
    facts.shown = blob || (file.size <= SMALL_BYTES ? file : undefined);
    facts.thumbHash = base64(hash);
    if (blob) facts.preview = { blob, sha256: await digest(blob) };
  } catch {
    // Without memory for a canvas, for instance, there is no preview.
  } finally {
    bitmap.close();
  }
  return facts;
}

/** Returns the media type by the first bytes, or null. File names and the system's type are not reliable. */
export function sniff(head) {
  const text = String.fromCharCode(...head);
  if (text.startsWith("\xff\xd8\xff")) return "image/jpeg";
  if (text.startsWith("\x89PNG\r\n\x1a\n")) return "image/png";
  if (/^GIF8[79]a/.test(text)) return "image/gif";
  if (text.startsWith("RIFF") && text.startsWith("WEBP", 8)) return "image/webp";
  if (!text.startsWith("ftyp", 4)) return null;
  const length = Math.min(64, new DataView(head.buffer, head.byteOffset).getUint32(0));
  const brands = [text.slice(8, 12), ...(text.slice(16, length).match(/.{4}/gs) ?? [])];
  const has = (names) => brands.some((brand) => names.test(brand));
  if (has(/^avi[fs]/)) return "image/avif";
  if (has(/^he[iv][cxms]/)) return "image/heic";
  return has(/^(mif[12]|msf1|miaf)/) ? "image/heif" : null;
}

/**
 * Returns a preview as WebP, or as JPEG if the browser cannot encode WebP, scaled down until it fits; null if none fits. The preview contains
 * no metadata, such as a position.
 */
async function shrink(bitmap) {
  for (const part of [1, 0.75, 0.5, 0.35]) {
    const canvas = draw(bitmap, PREVIEW_WIDTH * part, PREVIEW_HEIGHT * part);
    let blob = await toBlob(canvas, "image/webp");
    if (blob.type !== "image/webp") blob = await toBlob(canvas, "image/jpeg");
    if (blob.size <= PREVIEW_BYTES) return blob;
  }
  return null;
}

/** Draws the image, scaled down to at most this size. */
function draw(bitmap, mostWidth, mostHeight) {
  const scale = Math.min(1, mostWidth / bitmap.width, mostHeight / bitmap.height);
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = globalThis.OffscreenCanvas ? new OffscreenCanvas(width, height) : Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: width <= HASHED_SIDE });
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  return canvas;
}

function toBlob(canvas, type) {
  const quality = 0.8;
  return canvas.convertToBlob ? canvas.convertToBlob({ type, quality }) : new Promise((done) => { canvas.toBlob(done, type, quality); });
}

const base64 = (bytes) => btoa(String.fromCharCode(...bytes));
