//! One object's file: the bytes from offset 0, then its metadata as JSON, then a footer of twelve bytes (the JSON's length,
//! little-endian, and a magic word). Body and metadata share one file, so they appear together.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use s3s::dto::{ETag, Timestamp};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::checksum::{ChecksumCoverage, Checksums};

/// Maximum bytes of a key in UTF-8 ("Naming Amazon S3 objects" in the S3 user guide).
pub(super) const MAX_KEY_BYTES: usize = 1024;

/// Last bytes of every file, with the version of its format.
const MAGIC: &[u8; 8] = b"VALETS3\x01";
/// Length of the footer in bytes: a `u32` and [`MAGIC`].
const FOOTER_BYTES: usize = 12;

/// Metadata of an object, or of a part of a multipart upload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Meta {
    /// The key; empty for a part.
    pub(super) key: String,
    /// The body's length in bytes.
    pub(super) size: u64,
    /// The entity tag without its quotes.
    pub(super) etag: String,
    /// Time of publication, in milliseconds since 1970.
    pub(super) modified: i64,
    /// Headers from the client.
    pub(super) headers: Headers,
    /// Every computed checksum. SHA-256 is among them, except for multipart objects.
    pub(super) sums: Checksums,
    /// The algorithm of the checksum in answers: AWS returns only the one that was requested at upload.
    pub(super) named: Option<super::checksum::Algorithm>,
    /// Input of the `named` checksum.
    pub(super) kind: ChecksumCoverage,
    /// The sizes of the parts of a multipart object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) parts: Vec<u64>,
    /// The checksums of these parts, if the upload requested one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) part_sums: Vec<Checksums>,
    /// Id of the multipart upload from which the object was completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) upload: Option<String>,
}

/// The representation headers and user metadata that are stored with an object.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Headers {
    pub(super) content_type: Option<String>,
    pub(super) cache_control: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_language: Option<String>,
    /// Time of expiry, in milliseconds since 1970.
    pub(super) expires: Option<i64>,
    /// `x-amz-meta-*` without the prefix.
    pub(super) user: BTreeMap<String, String>,
}

impl Meta {
    /// Returns the entity tag as a header.
    pub(super) fn e_tag(&self) -> ETag {
        ETag::Strong(self.etag.clone())
    }

    /// Returns the time of publication.
    pub(super) fn last_modified(&self) -> Timestamp {
        timestamp(self.modified)
    }

    /// Returns the checksum in answers, if the object has one.
    pub(super) fn named_sums(&self) -> Checksums {
        self.named.and_then(|a| Some((a, self.sums.get(&a)?.clone()))).into_iter().collect()
    }
}

/// Returns the current time in milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Converts milliseconds since 1970 to S3's timestamp.
pub(super) fn timestamp(ms: i64) -> Timestamp {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    time.unwrap_or(OffsetDateTime::UNIX_EPOCH).into()
}

/// Converts S3's timestamp to milliseconds since 1970.
pub(super) fn millis(timestamp: &Timestamp) -> i64 {
    let time: OffsetDateTime = timestamp.clone().into();
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
}

/// Appends metadata and footer to a file that contains the body and is positioned at its end.
pub(super) fn seal(file: &mut File, meta: &Meta) -> io::Result<()> {
    let mut tail = serde_json::to_vec(meta)?;
    let length = u32::try_from(tail.len()).map_err(io::Error::other)?;
    tail.extend_from_slice(&length.to_le_bytes());
    tail.extend_from_slice(MAGIC);
    file.write_all(&tail)
}

/// Opens a published file and reads its metadata.
///
/// # Errors
///
/// `InvalidData` if the file is not a complete object.
pub(super) fn load(path: &Path) -> io::Result<(File, Meta)> {
    let invalid = |problem: &'static str| io::Error::new(io::ErrorKind::InvalidData, problem);
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let body_and_json = length.checked_sub(FOOTER_BYTES as u64).ok_or_else(|| invalid("shorter than a footer"))?;
    file.seek(SeekFrom::Start(body_and_json))?;
    let mut footer = [0; FOOTER_BYTES];
    file.read_exact(&mut footer)?;
    let (json_length, magic) = footer.split_at(4);
    if magic != MAGIC {
        return Err(invalid("no footer"));
    }
    let json_length = u32::from_le_bytes(json_length.try_into().map_err(|_| invalid("no footer"))?);
    let size = body_and_json.checked_sub(u64::from(json_length)).ok_or_else(|| invalid("the metadata is cut off"))?;
    file.seek(SeekFrom::Start(size))?;
    let mut json = vec![0; json_length as usize];
    file.read_exact(&mut json)?;
    let meta: Meta = serde_json::from_slice(&json)?;
    if meta.size != size {
        return Err(invalid("the body is cut off"));
    }
    Ok((file, meta))
}
