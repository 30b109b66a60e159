//! `meta`: the primary item, its type and its properties (ISO/IEC 23008-12, 6 and 9).

use super::super::file::{Part, Stop};
use super::{BoxContent, Brands, Coding, ContentError, Format, Size, derived, hevc};

/// Bytes of a property that are kept, at most: `clap` has 32, and the parameter sets of `hvcC` have some hundred.
const MAX_PROPERTY_BYTES: u64 = 1024;

/// Bytes of `iloc` that are kept, at most: some thousand entries.
const MAX_LOCATION_BYTES: u64 = 64 << 10;

/// Bytes of `idat` that are kept, at most: the data of a grid has 12.
const MAX_DATA_BYTES: u64 = 4 << 10;

/// Properties that are kept, at most: indices in `ipma` have 15 bits.
const MAX_PROPERTIES: usize = 0x7FFF;

/// Derived images, at most, between an item and the coded image that it is made of: a grid may consist of identity-derived images
/// (23008-12, 6.6.2). A longer chain is a circle, and its coding is [`Coding::Other`].
const MAX_DERIVATIONS: usize = 4;

/// The items of `meta`.
#[derive(Debug, Default)]
pub(super) struct Items {
    /// Whether `hdlr` states that `meta` describes pictures.
    handles_pictures: bool,
    /// Id of the primary item.
    primary: Option<u32>,
    /// First bytes of `iloc`, which every item with data needs.
    locations: Option<Vec<u8>>,
    /// First bytes of `idat`, the data of items within `meta`.
    data: Vec<u8>,
    /// Item ids and types.
    types: Vec<(u32, [u8; 4])>,
    /// Whether references name items by 32 bits.
    pub(super) has_wide_references: bool,
    /// Pairs of a derived image and the first item that it is made of.
    sources: Vec<(u32, u32)>,
    properties: Vec<Property>,
    /// The contents of all `ipma` boxes.
    associations: Vec<u8>,
    /// The length in bytes of each `ipma` box in `associations`.
    association_box_lengths: Vec<usize>,
}

/// A property of items, in `ipco`.
#[derive(Debug)]
struct Property {
    kind: [u8; 4],
    /// First bytes of its content; empty for a property that does not affect the size.
    start: Vec<u8>,
}

impl Items {
    /// Reads a box inside of `meta`.
    pub(super) fn read(&mut self, parent: &[u8; 4], kind: &[u8; 4], content: &mut BoxContent<'_>) -> Result<(), Stop> {
        match (parent, kind) {
            (b"meta", b"hdlr") => {
                // Version and flags (4), pre_defined (4), handler_type (4).
                let mut handler = content.first(12)?;
                handler.skip(8);
                self.handles_pictures = handler.rest() == b"pict";
            }
            (b"meta", b"pitm") => {
                // Version and flags (4), item_ID (2 or 4).
                let mut primary = content.first(8)?;
                let is_wide = primary.u32_be()? >> 24 != 0;
                self.primary = Some(item_id(&mut primary, is_wide)?);
            }
            (b"meta", b"iloc") => self.locations = Some(content.first(MAX_LOCATION_BYTES)?.rest().to_vec()),
            (b"meta", b"idat") => self.data = content.first(MAX_DATA_BYTES)?.rest().to_vec(),
            (b"iinf", b"infe") => {
                // Version and flags (4), item_ID (2 or 4), item_protection_index (2), item_type (4).
                let mut entry = content.first(14)?;
                let version = entry.u32_be()? >> 24;
                // Entries of the versions 0 and 1 have no item type.
                if version >= 2 {
                    let item = item_id(&mut entry, version > 2)?;
                    entry.skip(2);
                    self.types.push((item, entry.array()?));
                }
            }
            (b"iref", b"dimg") => {
                // from_item_ID (2 or 4), reference_count (2), the first to_item_ID (2 or 4).
                let mut reference = content.first(10)?;
                let from = item_id(&mut reference, self.has_wide_references)?;
                if reference.u16_be()? > 0 {
                    self.sources.push((from, item_id(&mut reference, self.has_wide_references)?));
                }
            }
            (b"iprp", b"ipma") => {
                let table = content.whole()?.rest();
                self.associations.extend_from_slice(table);
                self.association_box_lengths.push(table.len());
            }
            (b"ipco", kind) if self.properties.len() < MAX_PROPERTIES => {
                let start = if matches!(kind, b"ispe" | b"irot" | b"clap" | b"hvcC") {
                    content.first(MAX_PROPERTY_BYTES)?.rest().to_vec()
                } else {
                    Vec::new()
                };
                self.properties.push(Property { kind: *kind, start });
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the primary item's format and displayed size; `None` if the file has no primary item, like a sequence.
    pub(super) fn primary(&self, brands: Brands) -> Result<Option<(Format, Size)>, Stop> {
        let Some(primary) = self.primary.filter(|_| self.handles_pictures && self.locations.is_some()) else { return Ok(None) };
        let Some(coding) = self.coding(primary)? else { return Ok(None) };
        let Some(format) = brands.format(coding) else { return Err(ContentError::Malformed.into()) };
        Ok(Some((format, self.displayed_size(primary, format, MAX_DERIVATIONS)?)))
    }

    /// Returns the coding of an item, or of the images that it is derived from. `None` if an item's type is unknown, or if the
    /// coded item has no property that configures the decoder.
    fn coding(&self, item: u32) -> Result<Option<Coding>, Stop> {
        let mut coded = item;
        for _ in 0..MAX_DERIVATIONS {
            match self.type_of(coded) {
                Some(b"grid" | b"iden" | b"iovl" | b"tmap") => match self.source_of(coded) {
                    Some(source) => coded = source,
                    None => return Ok(None),
                },
                _ => break,
            }
        }
        let Some(kind) = self.type_of(coded) else { return Ok(None) };
        let (configuration, coding) = match kind {
            b"av01" => (b"av1C", Coding::Av1),
            b"hvc1" | b"hev1" => (b"hvcC", Coding::Other),
            _ => return Ok(Some(Coding::Other)),
        };
        Ok(find(&self.properties_of(coded)?, configuration).map(|_| coding))
    }

    /// Returns the type of an item.
    fn type_of(&self, item: u32) -> Option<&[u8; 4]> {
        self.types.iter().find(|(id, _)| *id == item).map(|(_, kind)| kind)
    }

    /// Returns the first item that a derived image is made of.
    fn source_of(&self, item: u32) -> Option<u32> {
        self.sources.iter().find(|(from, _)| *from == item).map(|(_, source)| *source)
    }

    /// Returns the size of an item, cropped and turned.
    ///
    /// For AVIF, it is that of `ispe`: browsers scale a picture of another size to it. For HEIF, it is the picture's: libheif 1.15
    /// and macOS show a picture of another size than `ispe` as it is, and later versions of libheif reject the file. The crop
    /// refers to `ispe` even then.
    ///
    /// HEIF applies the transformations in the order of their association; AVIF has one of each, the crop first (MIAF, 7.3.6.7),
    /// and browsers ignore others.
    fn displayed_size(&self, item: u32, format: Format, derivations: usize) -> Result<Size, Stop> {
        let properties = self.properties_of(item)?;
        let extents = extents(find(&properties, b"ispe").ok_or(ContentError::Malformed)?)?;
        let has_extents = extents.width > 0 && extents.height > 0;
        let (picture, transformations) = if format == Format::Avif {
            (None, [b"clap", b"irot"].into_iter().filter_map(|kind| find(&properties, kind)).collect())
        } else {
            let picture = if has_extents { self.picture_size(item, &properties, format, derivations) } else { None };
            (picture, properties)
        };
        let apply = |(extents, picture): (Size, Size), property: &Property| match &property.kind {
            b"irot" if property.start.first().is_some_and(|turns| turns & 1 == 1) => (extents.turned(), picture.turned()),
            b"clap" => match clean_aperture(extents, Part(&property.start)) {
                Some(crop) => {
                    let inside = Size { width: crop.width.min(picture.width), height: crop.height.min(picture.height) };
                    (crop, inside)
                }
                None => (extents, picture),
            },
            _ => (extents, picture),
        };
        let (_, displayed) = transformations.into_iter().fold((extents, picture.unwrap_or(extents)), apply);
        Ok(displayed)
    }

    /// Returns the size of the picture that an item is coded as, or of the image that it is derived from or composed in. `None` if
    /// only `ispe` is known.
    fn picture_size(&self, item: u32, properties: &[&Property], format: Format, derivations: usize) -> Option<Size> {
        match self.type_of(item)? {
            b"hvc1" | b"hev1" => hevc::picture_size(&find(properties, b"hvcC")?.start),
            b"iden" => self.displayed_size(self.source_of(item)?, format, derivations.checked_sub(1)?).ok(),
            kind @ (b"grid" | b"iovl") => derived::canvas(kind, item, self.locations.as_ref()?, &self.data),
            _ => None,
        }
    }

    /// Returns the properties of an item, in the order of their association.
    fn properties_of(&self, item: u32) -> Result<Vec<&Property>, Stop> {
        let mut properties = Vec::new();
        for index in self.associated(item)? {
            // Indices begin with 1; 0 means no property.
            if let Some(index) = usize::from(index).checked_sub(1) {
                properties.push(self.properties.get(index).ok_or(ContentError::Malformed)?);
            }
        }
        Ok(properties)
    }

    /// Returns the indices of the item's properties, in their order.
    fn associated(&self, item: u32) -> Result<Vec<u16>, Stop> {
        let mut tables = Part(&self.associations);
        for length in &self.association_box_lengths {
            if let Some(indices) = associations(item, Part(tables.take(*length)?))? {
                return Ok(indices);
            }
        }
        Ok(Vec::new())
    }
}

/// Reads the id of an item: two bytes, or four in the wide form.
fn item_id(content: &mut Part<'_>, is_wide: bool) -> Result<u32, Stop> {
    if is_wide { content.u32_be() } else { Ok(content.u16_be()?.into()) }
}

/// Reads the indices of the item's properties from `ipma`; `None` if the box does not name the item.
fn associations(item: u32, mut ipma: Part<'_>) -> Result<Option<Vec<u16>>, Stop> {
    let version_and_flags = ipma.u32_be()?;
    let (has_wide_ids, has_wide_indices) = (version_and_flags >> 24 != 0, version_and_flags & 1 == 1);
    for _ in 0..ipma.u32_be()? {
        let id = item_id(&mut ipma, has_wide_ids)?;
        let count = ipma.u8()?;
        let mut indices = Vec::with_capacity(count.into());
        for _ in 0..count {
            // If the top bit is set, a reader must understand the property.
            indices.push(if has_wide_indices { ipma.u16_be()? & 0x7FFF } else { u16::from(ipma.u8()? & 0x7F) });
        }
        if id == item {
            return Ok(Some(indices));
        }
    }
    Ok(None)
}

/// Returns the first property of this kind.
fn find<'a>(properties: &[&'a Property], kind: &[u8; 4]) -> Option<&'a Property> {
    properties.iter().copied().find(|property| property.kind == *kind)
}

/// Reads the extents of an item from `ispe` (23008-12, 6.5.3).
fn extents(ispe: &Property) -> Result<Size, Stop> {
    let mut extents = Part(&ispe.start);
    let version = extents.u32_be()? >> 24;
    if version != 0 {
        return Err(ContentError::Malformed.into());
    }
    Ok(Size { width: extents.u32_be()?, height: extents.u32_be()? })
}

/// Returns the crop's size (ISO/IEC 14496-12, 12.1.4): width and height as fractions, rounded to whole pixels. `None` for a crop
/// outside of the image: decoders show the whole.
fn clean_aperture(size: Size, mut clap: Part<'_>) -> Option<Size> {
    let mut side = |full: u32| -> Option<(u32, u64)> {
        let (numerator, denominator) = (u64::from(clap.u32_be().ok()?), u64::from(clap.u32_be().ok()?));
        let side = (numerator + denominator / 2).checked_div(denominator)?;
        let remaining = u64::from(full).checked_sub(side).filter(|_| side > 0)?;
        Some((u32::try_from(side).ok()?, remaining))
    };
    let ((width, remaining_width), (height, remaining_height)) = (side(size.width)?, side(size.height)?);
    // The distances between the centres of the crop and the image follow as signed fractions. Each may be at most half of the
    // pixels that the crop removes.
    let mut is_inside = |remaining: u64| -> Option<bool> {
        let (numerator, denominator) = (clap.u32_be().ok()?.cast_signed(), clap.u32_be().ok()?);
        Some(denominator != 0 && 2 * u64::from(numerator.unsigned_abs()) <= (remaining + 1) * u64::from(denominator))
    };
    (is_inside(remaining_width)? && is_inside(remaining_height)?).then_some(Size { width, height })
}
