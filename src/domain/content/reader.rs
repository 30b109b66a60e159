//! A bounded cursor over the first bytes of a file, or over one part of it. It decides what running out of bytes
//! means, so that the format parsers need not.

use super::{FIRST_HEAD, MAX_HEAD, Refusal};

/// Why a parser stops without an answer.
#[derive(Debug)]
pub(super) enum Stop {
    /// This many of the file's first bytes are wanted.
    NeedMore(usize),
    /// There is no answer but this.
    Refused(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A cursor. Skipping may pass the end of the data; reading there does not succeed.
pub(super) struct Reader<'a> {
    data: &'a [u8],
    at: u64,
    /// The file's length where `data` is the head of a file; none where it is a part already complete.
    total: Option<u64>,
}

impl<'a> Reader<'a> {
    /// Over the head of a file `total` bytes long.
    pub(super) fn of_file(head: &'a [u8], total: u64) -> Self {
        let known = usize::try_from(total).unwrap_or(usize::MAX).min(MAX_HEAD);
        let data = head.get(..known).unwrap_or(head);
        Self { data, at: 0, total: Some(total) }
    }

    /// Over a complete part of a file: running out of it means that its length was a lie.
    pub(super) fn of_part(data: &'a [u8]) -> Self {
        Self { data, at: 0, total: None }
    }

    /// Up to `count` bytes from the cursor, which stays.
    pub(super) fn peek(&self, count: usize) -> &'a [u8] {
        let rest = self.rest();
        rest.get(..count).unwrap_or(rest)
    }

    /// What is left of the data.
    pub(super) fn rest(&self) -> &'a [u8] {
        usize::try_from(self.at).ok().and_then(|at| self.data.get(at..)).unwrap_or_default()
    }

    /// The bytes from the cursor to the end of the file or part.
    pub(super) fn remaining(&self) -> u64 {
        self.total.unwrap_or(self.data.len() as u64).saturating_sub(self.at)
    }

    /// Whether the file goes on behind the bytes at hand.
    pub(super) fn has_more(&self) -> bool {
        self.total.is_some_and(|total| total > self.data.len() as u64)
    }

    /// Why the bytes up to offset `end` cannot be had.
    pub(super) fn short(&self, end: u64) -> Stop {
        let Some(total) = self.total else {
            return Refusal::Malformed.into();
        };
        if end > total {
            return Refusal::Truncated.into();
        }
        match usize::try_from(end) {
            // Growing fourfold, so that many small steps do not become many requests.
            Ok(end) if end <= MAX_HEAD => {
                let wanted = end.max(self.data.len().saturating_mul(4)).clamp(FIRST_HEAD, MAX_HEAD);
                Stop::NeedMore(usize::try_from(total).map_or(wanted, |total| wanted.min(total)))
            }
            _ => Refusal::TooDeep.into(),
        }
    }

    pub(super) fn skip(&mut self, count: u64) {
        self.at = self.at.saturating_add(count);
    }

    pub(super) fn take(&mut self, count: u64) -> Result<&'a [u8], Stop> {
        let end = self.at.saturating_add(count);
        let range = usize::try_from(self.at).ok().zip(usize::try_from(end).ok());
        let bytes = range.and_then(|(at, end)| self.data.get(at..end)).ok_or_else(|| self.short(end))?;
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        self.take(N as u64)?.try_into().map_err(|_| Refusal::Malformed.into())
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

    pub(super) fn u32_be(&mut self) -> Result<u32, Stop> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(super) fn u32_le(&mut self) -> Result<u32, Stop> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64_be(&mut self) -> Result<u64, Stop> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A four-character code.
    pub(super) fn tag(&mut self) -> Result<[u8; 4], Stop> {
        self.array()
    }
}
