//! Parts as clients ask for them and as they are missing: numbers, digests, and the rules for both. No I/O.

use std::fmt;

use crate::{
    model::{PartChecksums, PartLayout, Sha256},
    store::objects::{NewPart, StoredPart},
};

/// A part whose URL a client asks for, not checked yet.
#[derive(Debug, Clone, Copy)]
pub struct AskedPart<'a> {
    /// From 1; anything an integer can be.
    pub number: i64,
    /// Of the part's bytes.
    pub sha256: Option<&'a str>,
}

/// The most parts that are signed at once.
pub const MAX_SIGNED: usize = 1000;

/// Why an asked part cannot be signed. Where it stands in the request, and the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsignable {
    /// None was asked for, or more than [`MAX_SIGNED`].
    Count,
    /// The part at this index: there is no such number; holds the highest.
    Number(usize, u32),
    /// The part at this index: the end of a sentence about its digest.
    Sha256(usize, &'static str),
}

/// Numbers of parts that have not arrived, ascending; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingParts(pub(in crate::domain) Vec<u32>);

impl fmt::Display for MissingParts {
    /// Runs of numbers, such as `2, 5-9`; the first of them where they are many.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST_RUNS: usize = 100;
        let runs: Vec<_> = self.0.chunk_by(|a, b| a + 1 == *b).collect();
        for (at, run) in runs.iter().take(MOST_RUNS).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            match run {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [only] => write!(f, "{comma}{only}")?,
                [] => {}
            }
        }
        if runs.len() > MOST_RUNS { f.write_str(" and more") } else { Ok(()) }
    }
}

/// The parts with their exact lengths, or every rule that the request breaks.
pub(super) fn check(multipart: PartLayout, asked: &[AskedPart<'_>]) -> Result<Vec<NewPart>, Vec<Unsignable>> {
    if asked.is_empty() || asked.len() > MAX_SIGNED {
        return Err(vec![Unsignable::Count]);
    }
    let mut broken = Vec::new();
    let mut parts = Vec::with_capacity(asked.len());
    for (at, part) in asked.iter().enumerate() {
        let number = u32::try_from(part.number).ok();
        let length = number.and_then(|number| Some((number, multipart.part_length(number)?)));
        let digest = match (multipart.checksums(), part.sha256) {
            (PartChecksums::None, None) => Ok(None),
            (PartChecksums::None, Some(_)) => Err("must be left out: the upload was opened without checksums of parts"),
            (PartChecksums::Sha256, None) => Err("is required: the upload was opened with checksums of parts"),
            (PartChecksums::Sha256, Some(text)) => {
                Sha256::parse(text).map(Some).map_err(|_| "must be the base64 of the 32 bytes of the part's SHA-256")
            }
        };
        match (length, digest) {
            (Some((number, length)), Ok(digest)) => parts.push(NewPart { number, length, sha256: digest }),
            (length, digest) => {
                broken.extend(length.is_none().then(|| Unsignable::Number(at, multipart.part_count())));
                broken.extend(digest.err().map(|rule| Unsignable::Sha256(at, rule)));
            }
        }
    }
    if broken.is_empty() { Ok(parts) } else { Err(broken) }
}

/// Each length is signed; a store that does not hold to it is not trusted with it here either.
pub(super) fn missing(multipart: PartLayout, stored: &mut Vec<StoredPart>) -> Option<MissingParts> {
    stored.retain(|part| multipart.part_length(part.number) == Some(part.size));
    let is_there = |number: &u32| stored.binary_search_by_key(number, |part| part.number).is_ok();
    let missing: Vec<_> = multipart.parts().map(|(number, _)| number).filter(|number| !is_there(number)).collect();
    (!missing.is_empty()).then_some(MissingParts(missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_parts_are_named_in_runs() {
        let text = |numbers: &[u32]| MissingParts(numbers.to_vec()).to_string();
        assert_eq!(text(&[1]), "1");
        assert_eq!(text(&[1, 2, 3, 5, 7, 8]), "1-3, 5, 7-8");
        assert_eq!(text(&(1..=10_000).collect::<Vec<_>>()), "1-10000");
        let every_other = text(&(1..=10_000).filter(|n| n % 2 == 0).collect::<Vec<_>>());
        assert!(every_other.ends_with("198, 200 and more") && every_other.len() < 1000, "{every_other}");
    }
}
