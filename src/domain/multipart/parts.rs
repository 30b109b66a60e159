//! Validates requests for part URLs. No I/O.

use crate::{
    config::MAX_SIGNED_PARTS,
    model::{PartChecksums, PartLayout, Sha256},
    store::objects::NewPart,
};

/// A part whose URL a client requests, not validated yet.
#[derive(Debug, Clone, Copy)]
pub struct RequestedPart<'a> {
    /// Part number, from 1; any integer.
    pub number: i64,
    /// Base64 of the SHA-256 of the part's bytes.
    pub sha256: Option<&'a str>,
}

/// Maximum number of parts in one request.
pub const MAX_PARTS_PER_REQUEST: usize = MAX_SIGNED_PARTS as usize;

/// Why a requested part is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidPart {
    /// No part was requested, or more than [`MAX_PARTS_PER_REQUEST`].
    Count,
    /// The number of the part at this index is out of range; contains the highest valid number, too.
    Number(usize, u32),
    /// The digest of the part at this index is invalid; contains the rule, as the end of a sentence about the digest.
    Sha256(usize, &'static str),
}

/// Returns the parts with their exact lengths, or every rule that the request breaks.
pub(super) fn validate(multipart: PartLayout, requested: &[RequestedPart<'_>]) -> Result<Vec<NewPart>, Vec<InvalidPart>> {
    if requested.is_empty() || requested.len() > MAX_PARTS_PER_REQUEST {
        return Err(vec![InvalidPart::Count]);
    }
    let mut broken = Vec::new();
    let mut parts = Vec::with_capacity(requested.len());
    for (index, part) in requested.iter().enumerate() {
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
                broken.extend(length.is_none().then(|| InvalidPart::Number(index, multipart.part_count())));
                broken.extend(digest.err().map(|rule| InvalidPart::Sha256(index, rule)));
            }
        }
    }
    if broken.is_empty() { Ok(parts) } else { Err(broken) }
}
