//! Finds the metadata of JPEG, PNG and WebP files, also behind the pixels if these bytes were fetched.

use super::super::exif;
use super::{Blocks, FetchedRanges};

/// Returns the blocks of the APP1 segments before the first scan (Exif 3.0, 4.7.2; XMP part 3, 1.1.3).
pub(super) fn jpeg<'a>(fetched: &'a FetchedRanges<'_>) -> Blocks<'a> {
    let mut blocks = Blocks::default();
    // Behind the marker SOI.
    let mut rest = fetched.from(2);
    // Stray bytes between segments are passed over.
    while let Some(at) = rest.iter().position(|b| *b == 0xFF) {
        rest = &rest[at..];
        let length = match rest {
            [_, 0xFF, ..] => 1,
            [_, 0x00 | 0x01 | 0xD0..=0xD8, ..] => 2,
            // The end of the image, or a scan.
            [_, 0xD9 | 0xDA, ..] => break,
            [_, code, high, low, ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low])).max(2);
                let Some(segment) = rest.get(4..2 + length) else { break };
                if *code == 0xE1 {
                    keep_first(&mut blocks.exif, exif::block(segment));
                    keep_first(&mut blocks.xmp, segment.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0"));
                }
                2 + length
            }
            _ => break,
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    blocks
}

/// Returns the blocks of the chunks `eXIf` and `iTXt` (PNG 3rd ed., 11.3.2.2; XMP part 3, 1.1.5).
pub(super) fn png<'a>(fetched: &'a FetchedRanges<'_>) -> Blocks<'a> {
    let mut blocks = Blocks::default();
    // Behind the signature.
    let mut at = 8;
    while let Some([a, b, c, d, kind @ ..]) = fetched.get(at, 8) {
        let length = u64::from(u32::from_be_bytes([*a, *b, *c, *d]));
        match kind {
            b"eXIf" => keep_first(&mut blocks.exif, fetched.get(at + 8, length).map(without_prefix)),
            b"iTXt" => keep_first(&mut blocks.xmp, fetched.get(at + 8, length).and_then(international_text)),
            b"IEND" => break,
            _ => {}
        }
        at = at.saturating_add(12 + length);
    }
    blocks
}

/// Returns the text of an `iTXt` chunk (11.3.3.4) with XMP that is not compressed.
fn international_text(chunk: &[u8]) -> Option<&[u8]> {
    let rest = chunk.strip_prefix(b"XML:com.adobe.xmp\0\0\0")?;
    // The language and the translated keyword.
    rest.splitn(3, |b| *b == 0).nth(2)
}

/// Returns the blocks of the chunks `EXIF` and `XMP ` (RFC 9649, 2.7.1.5).
pub(super) fn webp<'a>(fetched: &'a FetchedRanges<'_>) -> Blocks<'a> {
    let mut blocks = Blocks::default();
    // Behind the header of the container.
    let mut at = 12;
    while let Some([kind @ .., a, b, c, d]) = fetched.get(at, 8) {
        let length = u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
        match kind {
            b"EXIF" => keep_first(&mut blocks.exif, fetched.get(at + 8, length).map(without_prefix)),
            b"XMP " => keep_first(&mut blocks.xmp, fetched.get(at + 8, length)),
            _ => {}
        }
        at = at.saturating_add(8 + length + (length & 1));
    }
    blocks
}

/// Returns an Exif block without the prefix of a JPEG segment, which some writers keep in other formats.
pub(super) fn without_prefix(exif: &[u8]) -> &[u8] {
    exif.strip_prefix(b"Exif\0\0").unwrap_or(exif)
}

/// Stores the found bytes unless earlier ones were stored.
pub(super) fn keep_first<'a>(kept: &mut Option<&'a [u8]>, found: Option<&'a [u8]>) {
    if kept.is_none() {
        *kept = found;
    }
}
