//! Inspection of pending uploads: compares the stored object with the declaration.
//!
//! `upload` chooses one of three ways: `object` compares one object, `copying` copies the object first on stores that do not
//! enforce what was signed, `completing` makes an object of a multipart upload's parts first. Both then use `object`.

mod completing;
mod copying;
mod object;
mod upload;

use std::fmt;

pub(super) use self::{completing::PartsCompletion, copying::CopyInspector, object::ObjectInspector, upload::UploadInspector};
use super::store_capabilities::UnsupportedUpload;
use crate::model::{Rejection, Verified};

/// Outcome of inspecting a pending upload.
#[derive(Debug)]
pub(super) enum Inspection {
    /// The bytes are the declared ones, and an image of the declared type.
    Verified(Verified),
    /// The bytes or their headers are not the declared ones.
    Mismatch(Rejection),
    /// There is no object.
    Missing,
    /// There is no object yet, and parts are missing.
    PartsMissing(MissingParts),
    /// There is no object, and the store refuses to make one of the parts.
    PartsRejected,
    /// The store does not take uploads of this class safely.
    Unsupported(UnsupportedUpload),
}

/// Numbers of parts that have not arrived, ascending; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingParts(pub(super) Vec<u32>);

impl fmt::Display for MissingParts {
    /// Writes runs of numbers, such as `2, 5-9`; the first hundred if there are more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX_RUNS: usize = 100;
        let runs: Vec<_> = self.0.chunk_by(|a, b| a + 1 == *b).collect();
        for (at, run) in runs.iter().take(MAX_RUNS).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            match run {
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [only] => write!(f, "{comma}{only}")?,
                [] => {}
            }
        }
        if runs.len() > MAX_RUNS { f.write_str(" and more") } else { Ok(()) }
    }
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
