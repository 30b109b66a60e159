//! Finds the metadata items of HEIF and AVIF (ISO/IEC 23008-12, A.2.1 and A.3): `iinf` names their types, `iloc` their bytes.

use super::super::isobmff::locations::{ItemLocation, ItemLocations, number};
use super::{Blocks, FetchedRanges, containers::keep_first, containers::without_prefix};

/// Metadata items that are read, at most: a file has one or two.
const MAX_ITEMS: usize = 8;

/// Returns the blocks of the first Exif item and the first XMP item whose bytes lie in one piece.
pub(super) fn blocks<'a>(fetched: &'a FetchedRanges<'_>) -> Blocks<'a> {
    let mut at = 0;
    while let Some(found) = BoxHeader::read(fetched.from(at)) {
        if &found.kind == b"meta" {
            return fetched.get(at, found.length).and_then(|meta| read_meta(fetched, &meta[found.header..])).unwrap_or_default();
        }
        at = at.saturating_add(found.length);
    }
    Blocks::default()
}

/// The header of a box (ISO/IEC 14496-12, 4.2).
struct BoxHeader {
    kind: [u8; 4],
    /// Length of the header in bytes.
    header: usize,
    /// Length of the box in bytes, with its header.
    length: u64,
}

impl BoxHeader {
    /// Reads a header (ISO/IEC 14496-12, 4.2). A box of length zero ends with the file, and gets the length of
    /// `bytes`.
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let (short, kind) = (number(&mut rest, 4)?, *rest.first_chunk()?);
        let (header, length) = match short {
            0 => (8, bytes.len() as u64),
            1 => (16, number(&mut rest.get(4..)?, 8)?),
            _ => (8, short),
        };
        (length >= header as u64 && bytes.len() >= header).then_some(Self { kind, header, length })
    }
}

/// Returns the kinds and contents of the boxes in `bytes`, up to one that is longer than the rest.
fn boxes(mut bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let found = BoxHeader::read(bytes)?;
        let (this, rest) = bytes.split_at_checked(usize::try_from(found.length).ok()?)?;
        bytes = rest;
        Some((found.kind, &this[found.header..]))
    })
}

/// Reads the metadata's items and their locations in the box `meta`.
fn read_meta<'a>(fetched: &'a FetchedRanges<'_>, meta: &'a [u8]) -> Option<Blocks<'a>> {
    // Version and flags.
    let children = meta.get(4..)?;
    let child = |wanted: &[u8; 4]| boxes(children).find(|(kind, _)| kind == wanted).map(|(_, content)| content);
    let items = metadata_items(child(b"iinf")?)?;
    let locations = ItemLocations::read(child(b"iloc")?)?;
    let bytes_of = |item: u32| match locations.find(item)? {
        ItemLocation { is_in_meta: false, offset, length } => fetched.get(offset, length),
        ItemLocation { offset, length, .. } => {
            let start = usize::try_from(offset).ok()?;
            child(b"idat")?.get(start..start.checked_add(usize::try_from(length).ok()?)?)
        }
    };
    let mut blocks = Blocks::default();
    for (item, kind) in items {
        match kind {
            MetadataKind::Exif => keep_first(&mut blocks.exif, bytes_of(item).and_then(exif_block)),
            MetadataKind::Xmp => keep_first(&mut blocks.xmp, bytes_of(item)),
        }
    }
    Some(blocks)
}

/// Returns the TIFF block of an Exif item, whose first field is the distance from its own end to the block (23008-12, A.2.1). Some
/// writers do not count the prefix of a JPEG segment, or omit the field.
fn exif_block(item: &[u8]) -> Option<&[u8]> {
    let mut rest = item;
    let distance = usize::try_from(number(&mut rest, 4)?).ok()?;
    let is_tiff = |block: &&[u8]| block.starts_with(b"MM\0*") || block.starts_with(b"II*\0");
    [rest.get(distance..), Some(item)].into_iter().flatten().map(without_prefix).find(is_tiff)
}

/// Kind of a metadata item.
#[derive(Clone, Copy)]
enum MetadataKind {
    Exif,
    Xmp,
}

/// Returns the metadata items of `iinf` (14496-12, 8.11.6).
fn metadata_items(iinf: &[u8]) -> Option<Vec<(u32, MetadataKind)>> {
    // Version and flags (4), then the number of entries (2 or 4).
    let entries = iinf.get(if *iinf.first()? == 0 { 6 } else { 8 }..)?;
    let item = |(_, mut entry): ([u8; 4], &[u8])| {
        let version = number(&mut entry, 4)? >> 24;
        let id = number(&mut entry, if version > 2 { 4 } else { 2 })?;
        // The index of a protection scheme comes first.
        let (kind, rest) = entry.get(2..)?.split_first_chunk::<4>()?;
        let kind = match kind {
            b"Exif" => MetadataKind::Exif,
            // A name, then a media type.
            b"mime" if rest.split(|b| *b == 0).nth(1)? == b"application/rdf+xml" => MetadataKind::Xmp,
            _ => return None,
        };
        (version >= 2).then_some((u32::try_from(id).ok()?, kind))
    };
    Some(boxes(entries).filter(|(kind, _)| kind == b"infe").filter_map(item).take(MAX_ITEMS).collect())
}
