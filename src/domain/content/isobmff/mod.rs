//! HEIF and AVIF (ISO/IEC 14496-12, 23008-12, AV1 Image File Format): brands, then the primary item's properties, a sequence's
//! track, or a minimized image. Boxes stand in any order behind `ftyp` (14496-12, 6.3.3); those that say nothing about the size are
//! passed over by their length.

mod item;
mod mini;
mod track;

use super::file::{File, Part, Stop};
use super::{Format, Refusal, Size};

/// Boxes inside each other that are entered, at most: `moov/trak/mdia/minf/stbl`.
const MAX_DEPTH: usize = 5;

/// State read from the boxes so far.
#[derive(Debug, Default)]
pub(super) struct Boxes {
    brands: Option<Brands>,
    /// The boxes around the cursor, the outermost first.
    around: Vec<Around>,
    items: item::Items,
    track: track::Track,
    /// The answer by the primary item, kept while a sequence's track is looked for.
    item: Option<(Format, Size)>,
    /// `meta` has been read: there is one (14496-12, 8.11.1).
    has_meta: bool,
    /// Why `meta` gives no answer.
    refusal: Option<Refusal>,
}

/// A box around the cursor.
#[derive(Debug, Clone, Copy)]
struct Around {
    kind: [u8; 4],
    /// The offset behind it.
    end: u64,
}

/// The brands of `ftyp` (14496-12, 4.3; 23008-12, 10).
#[derive(Debug, Clone, Copy)]
struct Brands {
    /// `avif` or `avis` is among them.
    has_av1: bool,
    /// A brand of HEVC, or of items or sequences of any coding, is among them.
    has_heif: bool,
    /// The major brand is `avis`: decoders show the track, not the item.
    is_av1_sequence: bool,
    /// The brand of minimized images is among them, and the minor version, which is a brand then, is `avif` (23008-12 amendment 2).
    has_mini: bool,
}

/// How pictures are coded, by the type of an item or sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Av1,
    Other,
}

impl Boxes {
    /// Reads on to the format and the displayed size.
    pub(super) fn advance(&mut self, file: &mut File) -> Result<(Format, Size), Stop> {
        match self.walk(file) {
            // Errors behind the item's headers do not matter to decoders that show the item.
            Err(Stop::Refused(refusal)) => self.item.ok_or(refusal.into()),
            other => other,
        }
    }

    /// Returns the answer by the primary item, once `meta` has been read.
    pub(super) fn size_so_far(&self) -> Option<(Format, Size)> {
        self.item
    }

    /// Reads boxes until format and size are known.
    fn walk(&mut self, file: &mut File) -> Result<(Format, Size), Stop> {
        loop {
            while let Some(around) = self.around.last().filter(|around| around.end <= file.at()).copied() {
                self.around.pop();
                if let Some(answer) = self.leave(around.kind)? {
                    return Ok(answer);
                }
            }
            if self.around.is_empty() && file.at() >= file.total() {
                // Neither an item nor a track: a video, or nothing at all; or the last box was to be longer.
                let is_cut = file.at() > file.total();
                let refusal = self.refusal.unwrap_or(if is_cut { Refusal::Truncated } else { Refusal::NoPicture });
                return self.item.ok_or(refusal.into());
            }
            self.next(file)?;
            file.mark();
        }
    }

    /// Reads the next box's header, and enters the box, or reads it, or passes over it.
    fn next(&mut self, file: &mut File) -> Result<(), Stop> {
        let next = header(file, self.around.last().map(|around| around.end))?;
        let parent = self.around.last().map(|around| around.kind);
        let Some(brands) = self.brands else {
            self.brands = Some(Brands::read(file.take(next.end - file.at())?)?);
            return Ok(());
        };
        // Bytes of the box's own fields before its first child (14496-12, 4.2).
        let fields = match (parent.as_ref(), &next.kind) {
            (None, b"mini") if brands.has_mini && !self.has_meta => {
                if file.total() < next.end {
                    return Err(Refusal::Truncated.into());
                }
                let size = mini::read(&mut BoxContent { file, end: next.end })?;
                self.item = size.map(|size| (Format::Avif, size));
                file.skip_to(next.end);
                self.around.push(next);
                return Ok(());
            }
            (None, b"meta") if !self.has_meta => Some(4),
            (None, b"moov") if self.item.is_none() || brands.is_av1_sequence => Some(0),
            (Some(b"meta"), b"iprp") | (Some(b"iprp"), b"ipco") => Some(0),
            (Some(b"meta"), b"iinf") => Some(if file.take(1)?.u8()? == 0 { 5 } else { 7 }),
            (Some(b"meta"), b"iref") => {
                self.items.has_wide_references = file.take(1)?.u8()? != 0;
                Some(3)
            }
            (Some(b"moov"), b"trak") | (Some(b"trak"), b"mdia") | (Some(b"mdia"), b"minf") | (Some(b"minf"), b"stbl") => Some(0),
            _ => None,
        };
        if let Some(fields) = fields.filter(|_| self.around.len() < MAX_DEPTH) {
            if file.total() < next.end {
                return Err(Refusal::Truncated.into());
            }
            if file.at() + fields > next.end {
                return Err(Refusal::Malformed.into());
            }
            file.skip(fields);
            if &next.kind == b"trak" {
                self.track = track::Track::default();
            }
            self.around.push(next);
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

    /// Draws the conclusion from a box that has been read; an answer where it gives one.
    fn leave(&mut self, kind: [u8; 4]) -> Result<Option<(Format, Size)>, Stop> {
        let Some(brands) = self.brands else { return Ok(None) };
        match &kind {
            b"meta" => {
                self.has_meta = true;
                match self.items.primary(brands) {
                    Ok(item) => self.item = item,
                    Err(Stop::Refused(refusal)) => self.refusal = Some(refusal),
                    Err(stop @ Stop::NeedMore { .. }) => return Err(stop),
                }
                Ok(self.item.filter(|_| !brands.is_av1_sequence))
            }
            b"mini" => Ok(self.item),
            b"trak" => Ok(self.track.picture().and_then(|(coding, size)| Some((brands.format(coding)?, size)))),
            _ => Ok(None),
        }
    }
}

impl Brands {
    /// Reads the box `ftyp`.
    fn read(mut ftyp: Part<'_>) -> Result<Self, Stop> {
        let (major, minor) = (ftyp.array::<4>()?, ftyp.array::<4>()?);
        let (compatible, _) = ftyp.rest().as_chunks::<4>();
        let has = |wanted: &[&[u8; 4]]| wanted.contains(&&major) || compatible.iter().any(|brand| wanted.contains(&brand));
        let brands = Self {
            has_av1: has(&[b"avif", b"avis"]),
            has_heif: has(&[
                b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1", b"miaf",
            ]),
            is_av1_sequence: &major == b"avis",
            has_mini: &minor == b"avif" && has(&[b"mif3"]),
        };
        if brands.has_av1 || brands.has_heif || brands.has_mini { Ok(brands) } else { Err(Refusal::UnknownType.into()) }
    }

    /// Returns the format of a picture of this coding. The coding decides, where the brands allow it: a file may carry the brands
    /// of several.
    fn format(self, coding: Coding) -> Option<Format> {
        match coding {
            Coding::Av1 if self.has_av1 => Some(Format::Avif),
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
    /// Takes all of it.
    fn whole(&mut self) -> Result<Part<'_>, Stop> {
        let length = self.end.saturating_sub(self.file.at());
        self.file.take(length)
    }

    /// Takes its first `most` bytes; fewer when it has fewer.
    fn first(&mut self, most: u64) -> Result<Part<'_>, Stop> {
        let length = self.end.saturating_sub(self.file.at()).min(most);
        self.file.take(length)
    }
}

/// Reads a box's header (14496-12, 4.2). A box lies within the one around it; at the file's own level it may be longer than the
/// file, which was then cut short.
fn header(file: &mut File, within: Option<u64>) -> Result<Around, Stop> {
    let start = file.at();
    let mut header = file.take(8)?;
    let (short, kind) = (header.u32_be()?, header.array()?);
    let (length, least) = match short {
        // To the end of the file.
        0 => (within.unwrap_or(file.total()) - start, 8),
        1 => (file.take(8)?.u64_be()?, 16),
        _ => (u64::from(short), 8),
    };
    if length < least {
        return Err(Refusal::Malformed.into());
    }
    let end = start.saturating_add(length);
    if within.is_some_and(|within| end > within) {
        return Err(Refusal::Malformed.into());
    }
    Ok(Around { kind, end })
}
