//! Builds small image files of any structure, with the pictures of the fixtures.

mod heif;

use super::fixture;

pub(super) use heif::{Derived, Heif, grid};

/// An Exif orientation that turns by a quarter.
pub(super) const TURNED: u16 = 6;

/// Bytes of plain.png before its other chunks: the signature (8) and the chunk `IHDR` (25).
const PNG_HEAD_BYTES: usize = 33;

// EXIF: a TIFF block.

/// Returns an entry with a value of type SHORT.
pub(super) fn short(tag: u16, value: u16) -> [u8; 12] {
    let ([a, b], [c, d]) = (tag.to_be_bytes(), value.to_be_bytes());
    [a, b, 0, 3, 0, 0, 0, 1, c, d, 0, 0]
}

/// Returns Exif metadata with these entries.
pub(super) fn tiff(entries: &[[u8; 12]]) -> Vec<u8> {
    let count = u16::try_from(entries.len()).unwrap().to_be_bytes();
    [b"MM\0*\0\0\0\x08", &count[..], entries.as_flattened(), &[0; 4]].concat()
}

/// Returns Exif metadata with this orientation.
pub(super) fn orientation(value: u16) -> Vec<u8> {
    tiff(&[short(0x0112, value)])
}

// JPEG

/// Returns a segment with this marker.
pub(in crate::domain::content) fn segment(marker: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len() + 2).unwrap().to_be_bytes();
    [&[0xFF, marker], &length[..], body].concat()
}

/// Returns an Exif segment.
pub(in crate::domain::content) fn exif(tiff: &[u8]) -> Vec<u8> {
    segment(0xE1, &[b"Exif\0\0", tiff].concat())
}

/// Returns a JPEG of 120x80, with these bytes behind its first segment (JFIF).
pub(in crate::domain::content) fn jpeg(inserted: &[&[u8]]) -> Vec<u8> {
    let plain = fixture("plain.jpg");
    let at = 4 + usize::from(plain[5]);
    [&plain[..at], &inserted.concat(), &plain[at..]].concat()
}

/// Returns the file with its first `old` replaced by `new`.
pub(super) fn replaced(mut file: Vec<u8>, old: &[u8], new: &[u8]) -> Vec<u8> {
    let at = file.windows(old.len()).position(|window| window == old).unwrap();
    file.splice(at..at + old.len(), new.iter().copied());
    file
}

/// Returns segments with this marker, whose bodies begin with `head`: together at least `total` bytes, each near the maximum of
/// 65,533 bytes.
pub(super) fn segments(marker: u8, head: &[u8], total: usize) -> Vec<u8> {
    let body = [head, &vec![b'A'; 65_000]].concat();
    segment(marker, &body).repeat(total.div_ceil(65_000))
}

// PNG

/// Returns a chunk of a PNG.
pub(in crate::domain::content) fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let crc = crc32fast::hash(&[kind, body].concat()).to_be_bytes();
    [&length, &kind[..], body, &crc].concat()
}

/// Returns the chunk with a wrong CRC.
pub(super) fn broken(mut chunk: Vec<u8>) -> Vec<u8> {
    *chunk.last_mut().unwrap() ^= 1;
    chunk
}

/// Returns a PNG of 90x50, with these chunks behind its header.
pub(in crate::domain::content) fn png(inserted: &[&[u8]]) -> Vec<u8> {
    let plain = fixture("plain.png");
    [&plain[..PNG_HEAD_BYTES], &inserted.concat(), &plain[PNG_HEAD_BYTES..]].concat()
}

/// Returns a PNG with this header chunk and these chunks behind it.
pub(super) fn png_of(header: &[u8], rest: &[&[u8]]) -> Vec<u8> {
    [b"\x89PNG\r\n\x1A\n", header, &rest.concat()].concat()
}

/// Returns the header chunk of a PNG.
pub(super) fn ihdr(width: u32, height: u32, depth: u8, colour: u8) -> Vec<u8> {
    chunk(b"IHDR", &[&width.to_be_bytes()[..], &height.to_be_bytes(), &[depth, colour, 0, 0, 0]].concat())
}

/// Returns the chunks behind the header of plain.png.
pub(super) fn png_rest() -> Vec<u8> {
    fixture("plain.png")[PNG_HEAD_BYTES..].to_vec()
}

// GIF

/// Returns a GIF of 33x21, with these blocks before its frame.
pub(super) fn gif(inserted: &[&[u8]]) -> Vec<u8> {
    let plain = fixture("plain.gif");
    let colours = if plain[10] & 0x80 == 0 { 0 } else { 3 << ((plain[10] & 7) + 1) };
    // The signature (6) and the logical screen's descriptor (7).
    let at = 13 + colours;
    [b"GIF89a", &plain[6..at], &inserted.concat(), &plain[at..]].concat()
}

/// Returns an extension of at least `total` bytes that begins with the block `first`.
pub(super) fn extension(label: u8, first: &[u8], total: usize) -> Vec<u8> {
    let first = [&[u8::try_from(first.len()).unwrap()], first].concat();
    let block = [&[255], &[b'c'; 255][..]].concat();
    [&[0x21, label], &first[..], &block.repeat(total.div_ceil(256)), &[0]].concat()
}

// WebP

/// Returns a chunk of a WebP.
pub(in crate::domain::content) fn riff_chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    [kind, &length[..], body, &[0; 1][..body.len() % 2]].concat()
}

/// Returns a WebP of these chunks, with a length in its header that is wrong by `off` bytes.
pub(in crate::domain::content) fn riff(chunks: &[&[u8]], off: i32) -> Vec<u8> {
    let body = chunks.concat();
    let length = u32::try_from(body.len() + 4).unwrap().wrapping_add_signed(off).to_le_bytes();
    [b"RIFF", &length[..], b"WEBP", &body].concat()
}

/// Returns the chunk `VP8X` with these flags and this canvas.
pub(in crate::domain::content) fn vp8x(flags: u8, width: u32, height: u32) -> Vec<u8> {
    let side = |side: u32| (side - 1).to_le_bytes();
    riff_chunk(b"VP8X", &[&[flags, 0, 0, 0], &side(width)[..3], &side(height)[..3]].concat())
}

/// Returns the picture's chunk of lossy.webp (75x45).
pub(in crate::domain::content) fn vp8() -> Vec<u8> {
    fixture("lossy.webp")[12..].to_vec()
}

/// Returns the picture's chunk of lossless.webp (76x46).
pub(super) fn vp8l() -> Vec<u8> {
    fixture("lossless.webp")[12..].to_vec()
}

/// Returns a frame of an animation with this picture, shown for 100 ms.
pub(super) fn anmf(left: u32, top: u32, width: u32, height: u32, picture: &[u8]) -> Vec<u8> {
    let u24 = |value: u32| value.to_le_bytes();
    let head = [left / 2, top / 2, width - 1, height - 1, 100].map(u24);
    let head: Vec<u8> = head.iter().flat_map(|field| &field[..3]).copied().collect();
    riff_chunk(b"ANMF", &[&head, &[0][..], picture].concat())
}

// HEIF and AVIF

/// Returns a box.
pub(in crate::domain::content) fn boxed(kind: &[u8; 4], content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    let length = u32::try_from(content.len() + 8).unwrap().to_be_bytes();
    [&length, &kind[..], &content].concat()
}

/// Returns a box with version and flags (a `FullBox`).
pub(in crate::domain::content) fn full(kind: &[u8; 4], version: u8, flags: u8, content: &[&[u8]]) -> Vec<u8> {
    boxed(kind, &[&[version, 0, 0, flags], &content.concat()])
}

/// Returns a box whose length has 64 bits.
pub(super) fn wide(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 1], &kind[..], &(content.len() as u64 + 16).to_be_bytes(), content].concat()
}

/// Returns the content of the box at this path: on each level, the first box of the kind.
pub(super) fn find<'a>(mut data: &'a [u8], path: &[&[u8; 4]]) -> &'a [u8] {
    for kind in path {
        loop {
            let length = usize::try_from(u32::from_be_bytes(data[..4].try_into().unwrap())).unwrap();
            let (this, rest) = data.split_at(length);
            if this[4..8] == kind[..] {
                data = if *kind == b"meta" { &this[12..] } else { &this[8..] };
                break;
            }
            data = rest;
        }
    }
    data
}

/// Returns the property of an item's size.
pub(super) fn ispe(width: u32, height: u32) -> Vec<u8> {
    full(b"ispe", 0, 0, &[&width.to_be_bytes(), &height.to_be_bytes()])
}

/// Returns the property of an item's rotation.
pub(super) fn irot(quarters: u8) -> Vec<u8> {
    boxed(b"irot", &[&[quarters]])
}

/// Returns the property of an item's crop: width, height and the distances of the centres, each as numerator and denominator.
pub(super) fn clap(fields: [i32; 8]) -> Vec<u8> {
    boxed(b"clap", &[fields.map(i32::to_be_bytes).as_flattened()])
}

/// Returns fields, each a number of bits and a value, the highest bit first, with zeros up to a whole byte.
pub(in crate::domain::content) fn bits(fields: &[(u32, u32)]) -> Vec<u8> {
    let bits: Vec<u8> =
        fields.iter().flat_map(|(count, value)| (0..*count).rev().map(move |at| (value >> at & 1) as u8)).collect();
    bits.chunks(8).map(|byte| byte.iter().enumerate().map(|(at, bit)| bit << (7 - at)).sum()).collect()
}

/// The AVIF of 120x80 as a minimized image.
pub(super) struct Mini {
    /// Minor version of `ftyp`.
    pub minor: &'static [u8; 4],
    /// Types of item and configuration, if the box names them.
    pub types: Option<[&'static [u8; 4]; 2]>,
    /// Exif orientation, 1 to 8.
    pub orientation: u32,
    /// Whether width and height have 15 bits each, not 7.
    pub is_large: bool,
}

impl Mini {
    /// Returns the file.
    pub(super) fn build(&self) -> Vec<u8> {
        let plain = fixture("plain.avif");
        let (config, data) = (find(&plain, &[b"meta", b"iprp", b"ipco", b"av1C"]), find(&plain, &[b"mdat"]));
        let side = if self.is_large { 15 } else { 7 };
        // The fields in the order in which `isobmff::mini` reads them.
        let head = [(2, 0), (1, self.types.is_some().into()), (1, 0), (1, 1), (6, 0), (2, 1), (3, self.orientation - 1)];
        let size = [(1, self.is_large.into()), (side, 119), (side, 79), (2, 2), (1, 0)];
        let types = self.types.iter().flatten().map(|kind| (32, u32::from_be_bytes(**kind)));
        let lengths = [(2, 0), (3, config.len().try_into().unwrap()), (15, u32::try_from(data.len()).unwrap() - 1)];
        let fields: Vec<_> = head.into_iter().chain(size).chain(types).chain(lengths).collect();
        let ftyp = boxed(b"ftyp", &[b"mif3", self.minor]);
        [ftyp, boxed(b"mini", &[&bits(&fields), config, data])].concat()
    }
}

/// Returns the box `ftyp` with these brands, the major one first.
pub(in crate::domain::content) fn ftyp(brands: &[&[u8; 4]]) -> Vec<u8> {
    let (major, compatible) = brands.split_first().unwrap();
    boxed(b"ftyp", &[&major[..], &[0; 4], &compatible.iter().copied().copied().collect::<Vec<_>>().concat()])
}
