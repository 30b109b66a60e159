//! Reads the elements of a BSON document (<https://bsonspec.org>) that have types of a gallery's records. The driver's iterator
//! reads every type and verifies more; with it, the fifty records of a page took a fifth of a request's time.

use mongodb::bson::{DateTime, RawBsonRef, RawDocument};

/// A value of a gallery's record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    /// A text.
    Text(&'a str),
    /// An integer of either width: `mongoimport` and `mongosh` write small ones as 32 bits.
    Integer(i64),
    /// A time.
    Time(DateTime),
    /// A document.
    Document(&'a RawDocument),
    /// The values of an array, as a document whose names are their indexes.
    Array(&'a RawDocument),
    /// A value of another type, such as a boolean or null, which no shown field has.
    Other,
}

impl<'a> From<RawBsonRef<'a>> for Value<'a> {
    fn from(value: RawBsonRef<'a>) -> Self {
        match value {
            RawBsonRef::String(text) => Self::Text(text),
            RawBsonRef::Int32(n) => Self::Integer(n.into()),
            RawBsonRef::Int64(n) => Self::Integer(n),
            RawBsonRef::DateTime(at) => Self::Time(at),
            RawBsonRef::Document(document) => Self::Document(document),
            RawBsonRef::Array(array) => RawDocument::from_bytes(array.as_bytes()).map_or(Self::Other, Self::Array),
            _ => Self::Other,
        }
    }
}

/// Bytes of the length at the beginning of a document.
const LENGTH_BYTES: usize = 4;

/// Iterator over the elements of a document: a name in ASCII and a value each. An element that is malformed, has another name, or
/// has a type that is not read here is the item `None`, and the last one; the caller then uses the driver's iterator.
#[derive(Debug, Clone)]
pub(super) struct Elements<'a> {
    /// Bytes that are not read yet, with the zero at the end; `None` after the last or a malformed element.
    rest: Option<&'a [u8]>,
}

impl<'a> Elements<'a> {
    /// Returns the elements of a document or an array.
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        // After the length.
        Self { rest: bytes.get(LENGTH_BYTES..) }
    }

    /// Returns the bytes that are not read yet, with the zero at the end; none after the last or a malformed element.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest.unwrap_or_default()
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Option<(&'a [u8], Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        if rest == [0] {
            return None;
        }
        let Some((name, value, rest)) = read(rest) else { return Some(None) };
        self.rest = Some(rest);
        Some(Some((name, value)))
    }
}

/// Returns the name and the value of an element, and the bytes after it.
fn read(bytes: &[u8]) -> Option<(&[u8], Value<'_>, &[u8])> {
    let (kind, bytes) = bytes.split_first()?;
    let end = bytes.iter().position(|byte| *byte == 0 || !byte.is_ascii()).filter(|end| bytes[*end] == 0)?;
    let (value, rest) = read_value(*kind, &bytes[end + 1..])?;
    Some((&bytes[..end], value, rest))
}

/// Returns a value of this BSON type, and the bytes after it; `None` if it is malformed or the type is not read here.
fn read_value(kind: u8, bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    match kind {
        // String.
        0x02 => {
            let (length, rest) = length(bytes)?;
            let (text, rest) = rest.split_at_checked(length)?;
            let (end, text) = text.split_last()?;
            let text = std::str::from_utf8(text).ok().filter(|_| *end == 0)?;
            Some((Value::Text(text), rest))
        }
        // Document, array.
        0x03 | 0x04 => {
            let (elements, rest) = bytes.split_at_checked(length(bytes)?.0)?;
            let elements = RawDocument::from_bytes(elements).ok()?;
            Some((if kind == 0x03 { Value::Document(elements) } else { Value::Array(elements) }, rest))
        }
        // Boolean.
        0x08 => {
            let (_, rest) = bytes.split_first().filter(|(value, _)| **value <= 1)?;
            Some((Value::Other, rest))
        }
        // UTC datetime.
        0x09 => {
            let (value, rest) = bytes.split_first_chunk()?;
            Some((Value::Time(DateTime::from_millis(i64::from_le_bytes(*value))), rest))
        }
        // Null.
        0x0A => Some((Value::Other, bytes)),
        // 32-bit integer.
        0x10 => {
            let (value, rest) = bytes.split_first_chunk()?;
            Some((Value::Integer(i32::from_le_bytes(*value).into()), rest))
        }
        // 64-bit integer.
        0x12 => {
            let (value, rest) = bytes.split_first_chunk()?;
            Some((Value::Integer(i64::from_le_bytes(*value)), rest))
        }
        _ => None,
    }
}

/// Returns the length at the beginning, and the bytes after it.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    Some((usize::try_from(i32::from_le_bytes(*length)).ok()?, rest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mongodb::bson::{RawDocumentBuf, rawdoc};
    use proptest::prelude::*;

    use super::*;

    /// Returns the elements as this module reads them; `None` if it leaves them to the driver.
    fn ours(document: &RawDocument) -> Option<Vec<(&[u8], Value<'_>)>> {
        Elements::of(document.as_bytes()).collect()
    }

    /// Returns the elements as the driver reads them; `None` if it rejects the document.
    fn driver(document: &RawDocument) -> Option<Vec<(&[u8], Value<'_>)>> {
        document.into_iter().map(|element| element.ok().map(|(name, value)| (name.as_str().as_bytes(), value.into()))).collect()
    }

    #[test]
    fn elements_are_those_of_the_driver() {
        let document = rawdoc! {
            "a": "é", "": "", "at": DateTime::from_millis(-1), "n": 1_i32, "m": -1_i64, "none": null, "yes": true,
            "in": { "x": "y" }, "all": [{ "a": 1 }, "b"]
        };
        assert_eq!(ours(&document).unwrap(), driver(&document).unwrap());
        assert_eq!(ours(&rawdoc! {}), Some(Vec::new()));
    }

    #[test]
    fn other_types_and_names_are_left_to_the_driver() {
        for document in [rawdoc! { "a": 1.5 }, rawdoc! { "é": 1_i32 }] {
            assert_eq!(ours(&document), None);
        }
    }

    proptest! {
        #[test]
        fn damaged_documents_are_read_as_by_the_driver_or_not_at_all(at in 4..60_usize, byte: u8) {
            let document = rawdoc! {
                "_id": "some text", "at": DateTime::from_millis(7), "n": 1_i64, "in": { "x": "y" }, "yes": true
            };
            let mut bytes = document.into_bytes();
            let last = bytes.len() - 1;
            bytes[at.min(last - 1)] = byte;
            let damaged = RawDocumentBuf::from_bytes(bytes).unwrap();
            if let Some(read) = ours(&damaged) {
                prop_assert_eq!(Some(read), driver(&damaged));
            }
        }
    }
}
