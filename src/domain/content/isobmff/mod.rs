//! HEIF and AVIF (ISO/IEC 14496-12, 23008-12, AV1 Image File Format): brands, then the primary item's properties, a sequence's
//! track, or a minimized image. Boxes follow `ftyp` in any order (14496-12, 6.3.3); those that do not affect the size are skipped
//! by their length.
//!
//! `item` reads `meta`: the size of a picture is in the configuration of its decoder (`hevc`) or in the item's data (`derived`),
//! which `locations` finds. `track` reads `trak`, `mini` reads `mini`, and `bits` reads fields that are not whole bytes.

mod bits;
mod derived;
mod hevc;
mod item;
pub(super) mod locations;
mod mini;
mod track;

use super::file::{File, Part, Stop};
use super::{ContentError, Format, Size};

/// Depth of the boxes that are entered, at most: `moov/trak/mdia/minf/stbl`.
const MAX_DEPTH: usize = 5;

/// State read from the boxes so far.
#[derive(Debug, Default)]
pub(super) struct Boxes {
    brands: Option<Brands>,
    /// The boxes that contain the cursor, the outermost first.
    enclosing: Vec<Enclosing>,
    items: item::Items,
    track: track::Track,
    /// Format and size of the primary item. Of a sequence, the parser continues to its track.
    item: Option<(Format, Size)>,
    /// Format and size of the first track with pictures, for a file without a primary item.
    sequence: Option<(Format, Size)>,
    /// Whether `meta` has been read: a file has only one (14496-12, 8.11.1).
    has_meta: bool,
    /// Whether `moov`, the box of the tracks, has been found.
    has_tracks: bool,
    /// Reason why `meta` gives no format and size.
    error: Option<ContentError>,
}

/// A box that contains the cursor.
#[derive(Debug, Clone, Copy)]
struct Enclosing {
    kind: [u8; 4],
    /// Offset of the first byte behind the box.
    end: u64,
}

/// The brands of `ftyp` (14496-12, 4.3; 23008-12, 10).
#[derive(Debug, Clone, Copy)]
struct Brands {
    /// Whether `avif`, the brand of an image, is among them: decoders require `meta` then.
    has_av1_image: bool,
    /// Whether `avis`, the brand of a sequence, is among them: decoders require `moov` then.
    has_av1_sequence: bool,
    /// Whether a brand of HEVC, or of items or sequences of any coding, is among them.
    has_heif: bool,
    /// Whether decoders show the track, not the item: for the major brand `avis`, and for one that is not `avif` either, with
    /// `avis` among the others.
    is_av1_sequence: bool,
    /// Whether the brand of minimized images is among them, with the minor version `avif`, which is a brand then (23008-12
    /// amendment 2).
    has_mini: bool,
}

/// How pictures are coded, by the type of an item or sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Av1,
    Other,
}

impl Boxes {
    /// Continues reading up to the format and the displayed size.
    pub(super) fn advance(&mut self, file: &mut File) -> Result<(Format, Size), Stop> {
        match self.walk(file) {
            // Errors behind the item's headers do not matter to decoders that show the item.
            Err(Stop::Rejected(error)) => self.size_so_far().ok_or(error.into()),
            other => other,
        }
    }

    /// Reads boxes until format and size are known.
    fn walk(&mut self, file: &mut File) -> Result<(Format, Size), Stop> {
        loop {
            while let Some(enclosing) = self.enclosing.last().filter(|enclosing| enclosing.end <= file.at()).copied() {
                self.enclosing.pop();
                self.leave(enclosing.kind)?;
            }
            if let Some(answer) = self.answer() {
                return Ok(answer);
            }
            if self.enclosing.is_empty() && file.at() >= file.total() {
                // No item and no track, as in a video; or the file ends inside of its last box.
                let is_cut = file.at() > file.total();
                let error = self.error.unwrap_or(if is_cut { ContentError::Truncated } else { ContentError::NoPicture });
                return self.size_so_far().ok_or(error.into());
            }
            self.next(file)?;
            file.mark();
        }
    }

    /// Reads the next box's header, then enters the box, reads it or skips it.
    fn next(&mut self, file: &mut File) -> Result<(), Stop> {
        let next = header(file, self.enclosing.last().map(|enclosing| enclosing.end))?;
        let parent = self.enclosing.last().map(|enclosing| enclosing.kind);
        let Some(brands) = self.brands else {
            self.brands = Some(Brands::read(file.take(next.end - file.at())?)?);
            return Ok(());
        };
        // Bytes of the box's own fields before its first child (14496-12, 4.2): version and flags (4), and the count of entries of
        // `iinf` (2 or 4). The version of `iinf` and `iref` (1) is read here.
        let fields = match (parent.as_ref(), &next.kind) {
            (None, b"mini") if brands.has_mini && !self.has_meta => {
                if file.total() < next.end {
                    return Err(ContentError::Truncated.into());
                }
                let size = mini::read(&mut BoxContent { file, end: next.end })?;
                self.item = size.map(|size| (Format::Avif, size));
                // The box is a short form of `meta`.
                self.has_meta = true;
                file.skip_to(next.end);
                self.enclosing.push(next);
                return Ok(());
            }
            (None, b"meta") if !self.has_meta => Some(4),
            (None, b"moov") => {
                self.has_tracks = true;
                (self.item.is_none() || brands.is_av1_sequence).then_some(0)
            }
            (Some(b"meta"), b"iprp") | (Some(b"iprp"), b"ipco") => Some(0),
            (Some(b"meta"), b"iinf") => Some(if file.take(1)?.u8()? == 0 { 5 } else { 7 }),
            (Some(b"meta"), b"iref") => {
                self.items.has_wide_references = file.take(1)?.u8()? != 0;
                Some(3)
            }
            (Some(b"moov"), b"trak") | (Some(b"trak"), b"mdia") | (Some(b"mdia"), b"minf") | (Some(b"minf"), b"stbl") => Some(0),
            _ => None,
        };
        if let Some(fields) = fields.filter(|_| self.enclosing.len() < MAX_DEPTH) {
            if file.total() < next.end {
                return Err(ContentError::Truncated.into());
            }
            if file.at() + fields > next.end {
                return Err(ContentError::Malformed.into());
            }
            file.skip(fields);
            if &next.kind == b"trak" {
                self.track = track::Track::default();
            }
            self.enclosing.push(next);
            return Ok(());
        }
        let content = &mut BoxContent { file, end: next.end };
        match parent.as_ref() {
            Some(parent @ (b"meta" | b"iinf" | b"iref" | b"iprp" | b"ipco")) => self.items.read(parent, &next.kind, content)?,
            Some(b"trak" | b"mdia" | b"stbl") => self.track.read(&next.kind, content)?,
            _ => {}
        }
        file.skip_to(next.end);
        Ok(())
    }

    /// Evaluates a box that has been read.
    fn leave(&mut self, kind: [u8; 4]) -> Result<(), Stop> {
        let Some(brands) = self.brands else { return Ok(()) };
        match &kind {
            b"meta" => {
                self.has_meta = true;
                match self.items.primary(brands) {
                    Ok(item) => self.item = item,
                    Err(Stop::Rejected(error)) => self.error = Some(error),
                    Err(stop @ Stop::NeedMore { .. }) => return Err(stop),
                }
            }
            b"trak" => {
                let picture = self.track.picture().and_then(|(coding, size)| Some((brands.format(coding)?, size)));
                self.sequence = self.sequence.or(picture);
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns format and size, if no later box changes them: those of the track for a sequence of AV1, else of the item.
    fn answer(&self) -> Option<(Format, Size)> {
        let is_av1_sequence = self.brands.is_some_and(|brands| brands.is_av1_sequence);
        self.completed(if is_av1_sequence { self.sequence } else { self.item })
    }

    /// Returns format and size of the primary item, or else of a track, as far as the file has been read.
    pub(super) fn size_so_far(&self) -> Option<(Format, Size)> {
        self.completed(self.item.or(self.sequence))
    }

    /// Returns the picture, if each box that a brand of AVIF requires has been found: without it, no decoder shows the picture.
    fn completed(&self, picture: Option<(Format, Size)>) -> Option<(Format, Size)> {
        let brands = self.brands?;
        let is_complete = (self.has_meta || !brands.has_av1_image) && (self.has_tracks || !brands.has_av1_sequence);
        picture.filter(|(format, _)| is_complete || *format != Format::Avif)
    }
}

impl Brands {
    /// Reads the box `ftyp`.
    fn read(mut ftyp: Part<'_>) -> Result<Self, Stop> {
        let (major, minor) = (ftyp.array::<4>()?, ftyp.array::<4>()?);
        let (compatible, _) = ftyp.rest().as_chunks::<4>();
        let has = |wanted: &[&[u8; 4]]| wanted.contains(&&major) || compatible.iter().any(|brand| wanted.contains(&brand));
        let brands = Self {
            has_av1_image: has(&[b"avif"]),
            has_av1_sequence: has(&[b"avis"]),
            has_heif: has(&[
                b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1", b"miaf",
            ]),
            is_av1_sequence: &major == b"avis" || &major != b"avif" && has(&[b"avis"]),
            has_mini: &minor == b"avif" && has(&[b"mif3"]),
        };
        if brands.has_av1() || brands.has_heif || brands.has_mini { Ok(brands) } else { Err(ContentError::UnknownType.into()) }
    }

    /// Returns whether a brand of AV1 is among them.
    fn has_av1(self) -> bool {
        self.has_av1_image || self.has_av1_sequence
    }

    /// Returns the format of a picture of this coding. The coding decides, where the brands allow it: a file may carry the brands
    /// of several.
    fn format(self, coding: Coding) -> Option<Format> {
        match coding {
            Coding::Av1 if self.has_av1() => Some(Format::Avif),
            _ if self.has_heif => Some(Format::Heif),
            _ => None,
        }
    }
}

/// The content of the box that the cursor is in.
struct BoxContent<'a> {
    file: &'a mut File,
    end: u64,
}

impl BoxContent<'_> {
    /// Takes the rest of the content.
    fn whole(&mut self) -> Result<Part<'_>, Stop> {
        let length = self.end.saturating_sub(self.file.at());
        self.file.take(length)
    }

    /// Takes the next `max` bytes of the content, or its rest if it has fewer.
    fn first(&mut self, max: u64) -> Result<Part<'_>, Stop> {
        let length = self.end.saturating_sub(self.file.at()).min(max);
        self.file.take(length)
    }
}

/// Reads a box's header (14496-12, 4.2). A box lies within the one that contains it; at the file's own level it may be longer than
/// the file, which was then cut short.
fn header(file: &mut File, parent_end: Option<u64>) -> Result<Enclosing, Stop> {
    let start = file.at();
    let mut header = file.take(8)?;
    let (short, kind) = (header.u32_be()?, header.array()?);
    let (length, header_length) = match short {
        // The box ends with its parent, or with the file.
        0 => (parent_end.unwrap_or(file.total()) - start, 8),
        1 => (file.take(8)?.u64_be()?, 16),
        _ => (u64::from(short), 8),
    };
    if length < header_length {
        return Err(ContentError::Malformed.into());
    }
    let end = start.saturating_add(length);
    if parent_end.is_some_and(|parent_end| end > parent_end) {
        return Err(ContentError::Malformed.into());
    }
    Ok(Enclosing { kind, end })
}
