//! Two cursors: [`File`] over a file that is fetched range by range, [`Part`] over a complete part of it.
//!
//! If bytes are missing, [`File`] decides whether the file ends before them or they must be fetched, so the parsers need not. A
//! parser marks positions from which it can resume; bytes before the last mark are dropped.

use super::ContentError;

/// Maximum length of a segment, chunk or box that is read as a whole.
const MAX_ELEMENT: u64 = 1 << 20;

/// Why a parser stops without a result.
#[derive(Debug)]
pub(super) enum Stop {
    /// The bytes from the mark to this offset are wanted.
    NeedMore { end: u64 },
    /// The file is rejected.
    Rejected(ContentError),
}

impl From<ContentError> for Stop {
    fn from(error: ContentError) -> Self {
        Self::Rejected(error)
    }
}

/// A file of known length and a window of its bytes.
#[derive(Debug)]
pub(super) struct File {
    total: u64,
    /// Offset of `bytes` in the file.
    start: u64,
    bytes: Vec<u8>,
    /// Offset from which the parser can resume.
    mark: u64,
    /// Offset of the cursor.
    at: u64,
}

impl File {
    /// Returns a file of `total` bytes, before any of them is fetched.
    pub(super) fn new(total: u64) -> Self {
        Self { total, start: 0, bytes: Vec::new(), mark: 0, at: 0 }
    }

    /// Returns the file's length in bytes.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Returns the cursor's offset. It may lie behind the file's end.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Returns the offset of the first byte that is neither fetched nor passed over.
    pub(super) fn frontier(&self) -> u64 {
        self.mark.max(self.start + self.bytes.len() as u64)
    }

    /// Adds the bytes at [`Self::frontier`], and drops those before the mark.
    pub(super) fn supply(&mut self, bytes: &[u8]) {
        let passed = usize::try_from(self.mark - self.start).unwrap_or(usize::MAX).min(self.bytes.len());
        self.bytes.drain(..passed);
        self.bytes.extend_from_slice(bytes);
        self.start = self.mark;
    }

    /// Moves the cursor back to the mark, to parse again with more bytes.
    pub(super) fn rewind(&mut self) {
        self.at = self.mark;
    }

    /// Marks the cursor's offset as the one from which the parser can resume.
    pub(super) fn mark(&mut self) {
        self.mark = self.at;
    }

    /// Moves the cursor forward. It may pass the file's end; reading there does not succeed.
    pub(super) fn skip(&mut self, count: u64) {
        self.at = self.at.saturating_add(count);
    }

    /// Moves the cursor forward to an offset; an earlier one is ignored.
    pub(super) fn skip_to(&mut self, offset: u64) {
        self.at = self.at.max(offset);
    }

    /// Takes the next `count` bytes.
    pub(super) fn take(&mut self, count: u64) -> Result<Part<'_>, Stop> {
        let end = self.at.saturating_add(count);
        if end > self.total {
            return Err(ContentError::Truncated.into());
        }
        if count > MAX_ELEMENT {
            return Err(ContentError::Malformed.into());
        }
        let offset = |at: u64| usize::try_from(at.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let bytes = self.bytes.get(offset(self.at)..offset(end)).ok_or(Stop::NeedMore { end })?;
        self.at = end;
        Ok(Part(bytes))
    }

    /// Returns whether `count` bytes are few enough to be taken together.
    pub(super) fn is_takeable(count: u64) -> bool {
        count <= MAX_ELEMENT
    }

    /// Moves the cursor to the next byte of this value, and marks it.
    pub(super) fn find(&mut self, byte: u8) -> Result<(), Stop> {
        let from = usize::try_from(self.at.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let rest = self.bytes.get(from..).unwrap_or_default();
        let found = rest.iter().position(|known| *known == byte);
        self.at += found.unwrap_or(rest.len()) as u64;
        self.mark();
        match found {
            Some(_) => Ok(()),
            None if self.at >= self.total => Err(ContentError::Truncated.into()),
            None => Err(Stop::NeedMore { end: self.at + 1 }),
        }
    }
}

/// A cursor over a complete part of a file. If the part ends before a field, a length in the file was wrong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a>(pub(super) &'a [u8]);

impl<'a> Part<'a> {
    /// Returns the bytes that are left.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Skips bytes.
    pub(super) fn skip(&mut self, count: usize) {
        self.0 = self.0.get(count..).unwrap_or_default();
    }

    /// Removes and returns the first `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(ContentError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Removes and returns the first `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(ContentError::Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Stop> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(super) fn u16_be(&mut self) -> Result<u16, Stop> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(super) fn u16_le(&mut self) -> Result<u16, Stop> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u24_le(&mut self) -> Result<u32, Stop> {
        let [low, middle, high] = self.array()?;
        Ok(u32::from_le_bytes([low, middle, high, 0]))
    }

    pub(super) fn u32_be(&mut self) -> Result<u32, Stop> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(super) fn u32_le(&mut self) -> Result<u32, Stop> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64_be(&mut self) -> Result<u64, Stop> {
        Ok(u64::from_be_bytes(self.array()?))
    }
}
