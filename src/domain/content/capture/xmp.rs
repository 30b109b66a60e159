//! XMP (ISO 16684-1): properties as attributes or elements of RDF. The text is searched for their usual prefixes; no XML is parsed,
//! so that entities and nesting cost no time.

use super::date_time::parse_date_time;
use crate::model::TakenAt;

/// Longest value that is read, in bytes.
const MAX_VALUE_BYTES: usize = 256;

/// Properties of a block.
#[derive(Debug, Default)]
pub(super) struct Xmp {
    pub(super) taken_at: Option<TakenAt>,
    pub(super) make: Option<String>,
    pub(super) model: Option<String>,
}

impl Xmp {
    /// Reads a block.
    pub(super) fn read(rdf: &[u8]) -> Self {
        let date = |name: &str| value(rdf, name).and_then(|text| parse_date_time(&text));
        Self {
            taken_at: date("exif:DateTimeOriginal").or_else(|| date("photoshop:DateCreated")),
            make: value(rdf, "tiff:Make"),
            model: value(rdf, "tiff:Model"),
        }
    }
}

/// Returns the first value of a property: of `name="value"`, or of `<name>value</name>`. `None` if it has markup or entities.
fn value(rdf: &[u8], name: &str) -> Option<String> {
    let mut rest = rdf;
    loop {
        let at = rest.windows(name.len()).position(|window| window == name.as_bytes())?;
        let before = at.checked_sub(1).map(|at| rest[at]);
        rest = &rest[at + name.len()..];
        let end = match (before, rest) {
            (Some(b'<'), [b'>', ..]) => b'<',
            (Some(before), [b'=', quote @ (b'"' | b'\''), ..]) if before.is_ascii_whitespace() => *quote,
            // An end tag, or a longer name.
            _ => continue,
        };
        let text = &rest[if end == b'<' { 1 } else { 2 }..];
        let length = text.iter().take(MAX_VALUE_BYTES).position(|b| *b == end)?;
        let text = std::str::from_utf8(&text[..length]).ok()?.trim();
        return (!text.is_empty() && !text.contains(['&', '<'])).then(|| text.to_owned());
    }
}
