//! Names of the objects that probes write. After an interrupted check, only objects with these names are removed.

use super::probe_matrix::{Deviation, PROBES, RequestKind};

/// Names of probes' objects, in addition to those of [`matrix_probe`], [`sealed`] and [`overlap`].
const NAMES: [&str; 21] = [
    "after-block",
    "afterwards",
    "anonymous",
    "before-block",
    "body-cap",
    "checksum",
    "copied",
    "exposed",
    "form",
    "missing",
    "multipart",
    "not-copied",
    "object",
    "once",
    "part-cap",
    "parts",
    "picture",
    "preflight",
    "source",
    "summed",
    "transport",
];
/// Rounds in which two PUTs with the same URL are sent concurrently.
pub(super) const ROUNDS: usize = 5;

/// Deviations of a sealed PUT: none, and each critical header.
pub(super) const SEALED: [Option<Deviation>; 4] =
    [None, Some(Deviation::CopySource), Some(Deviation::Acl), Some(Deviation::Grant)];

/// Returns whether a probe's object has this name.
pub(super) fn is_name(name: &str) -> bool {
    let is_matrix_probe =
        || PROBES.iter().any(|(deviation, kinds)| kinds.iter().any(|kind| matrix_probe(*kind, *deviation) == name));
    let is_sealed = || SEALED.iter().any(|deviation| sealed(*deviation) == name);
    NAMES.contains(&name) || (1..=ROUNDS).any(|round| overlap(round) == name) || is_sealed() || is_matrix_probe()
}

/// Returns the name of the object of one probe in the matrix.
pub(super) fn matrix_probe(kind: RequestKind, deviation: Deviation) -> String {
    slug(&format!("{}-{}", kind.as_str(), deviation.as_str()))
}

/// Returns the name of the object of a sealed PUT.
pub(super) fn sealed(deviation: Option<Deviation>) -> String {
    slug(&format!("sealed-{}", deviation.map_or("plain", Deviation::as_str)))
}

/// Returns the name of the object of a round of two PUTs at once.
pub(super) fn overlap(round: usize) -> String {
    format!("overlap-{round}")
}

/// Returns the text in lower case, with hyphens for spaces.
fn slug(text: &str) -> String {
    text.replace(' ', "-").to_ascii_lowercase()
}
