//! Serves objects (HEAD and GET: whole, in ranges or by part) and their attributes (`GetObjectAttributes`); checks version ids.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range as ByteRange;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, stream};
use hyper::header::{CONTENT_RANGE, HeaderMap, HeaderValue};
use s3s::dto::{
    Checksum, ChecksumMode, GetObjectAttributesInput, GetObjectAttributesOutput, GetObjectAttributesParts, GetObjectInput,
    GetObjectOutput, HeadObjectInput, HeadObjectOutput, ObjectAttributes, ObjectPart, Range, StorageClass, StreamingBlob,
};
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{HttpResponse, S3Error, S3ErrorCode, S3Result, StdError, s3_error};

use super::checksum::{Checksums, write_checksums};
use super::condition::ReadConditions;
use super::errors::set_body;
use super::folder::{Bucket, blocking, internal};
use super::object::{Meta, now_ms, timestamp};

/// Bytes that are read from the disk at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Maximum number of parts in one list of an object's attributes.
const MAX_LISTED: i32 = 1000;

/// Parameters of a HEAD or GET.
struct RequestedRead {
    conditions: ReadConditions,
    range: Option<Range>,
    /// Number of a part, from 1.
    part: Option<i32>,
    /// Whether the answer has checksums.
    checksums: bool,
}

/// The bytes of the object that are sent.
struct Slice {
    bytes: ByteRange<u64>,
    /// Value of `Content-Range`; `None` if the whole object was requested.
    content_range: Option<String>,
    /// Checksums of these bytes.
    sums: Checksums,
}

impl RequestedRead {
    /// Checks the conditions, and returns the requested bytes.
    fn slice(&self, meta: &Meta) -> S3Result<Slice> {
        self.conditions.check(meta, now_ms())?;
        let bytes = match (self.range, self.part) {
            (Some(_), Some(_)) => {
                return Err(s3_error!(InvalidRequest, "Cannot specify both Range header and partNumber query parameter"));
            }
            (Some(range), None) => Some(range.check(meta.size).ok().filter(|r| !r.is_empty()).ok_or_else(|| {
                let mut error = s3_error!(InvalidRange, "The requested range is not satisfiable");
                if let Ok(value) = HeaderValue::try_from(format!("bytes */{}", meta.size)) {
                    error.set_headers(HeaderMap::from_iter([(CONTENT_RANGE, value)]));
                }
                error
            })?),
            (None, Some(part)) => part_range(meta, part)?,
            (None, None) => None,
        };
        let content_range = bytes.as_ref().map(|r| format!("bytes {}-{}/{}", r.start, r.end - 1, meta.size));
        let whole = bytes.as_ref().is_none_or(|r| *r == (0..meta.size));
        let part_sums =
            self.part.and_then(|part| usize::try_from(part).ok()?.checked_sub(1)).and_then(|index| meta.part_sums.get(index));
        let sums = match part_sums {
            _ if !self.checksums => Checksums::new(),
            Some(sums) => sums.clone(),
            None if whole => meta.named_sums(),
            None => Checksums::new(),
        };
        Ok(Slice { bytes: bytes.unwrap_or(0..meta.size), content_range, sums })
    }
}

/// Returns the range of a part of a multipart object; any other object is its own part 1.
fn part_range(meta: &Meta, part: i32) -> S3Result<Option<ByteRange<u64>>> {
    let index = usize::try_from(part).ok().and_then(|p| p.checked_sub(1));
    let found = index.and_then(|i| {
        if meta.parts.is_empty() {
            return (i == 0).then_some(0..meta.size);
        }
        let start = meta.parts.iter().take(i).sum::<u64>();
        meta.parts.get(i).map(|size| start..start + size)
    });
    match found {
        Some(range) => Ok(Some(range).filter(|r| !r.is_empty())),
        None => {
            let code = S3ErrorCode::Custom("InvalidPartNumber".into());
            let mut error = S3Error::with_message(code, "The requested partnumber is not satisfiable");
            error.set_status_code(hyper::StatusCode::RANGE_NOT_SATISFIABLE);
            Err(error)
        }
    }
}

/// Sets the members that HEAD and GET have in common.
macro_rules! describe {
    ($out:expr, $meta:expr, $slice:expr, $part:expr) => {{
        let (out, meta, slice) = (&mut $out, &$meta, &$slice);
        out.accept_ranges = Some("bytes".to_owned());
        out.cache_control = meta.headers.cache_control.clone();
        out.content_disposition = meta.headers.content_disposition.clone();
        out.content_encoding = meta.headers.content_encoding.clone();
        out.content_language = meta.headers.content_language.clone();
        out.content_type = meta.headers.content_type.clone().or_else(|| Some("binary/octet-stream".to_owned()));
        out.content_length = i64::try_from(slice.bytes.end - slice.bytes.start).ok();
        out.content_range = slice.content_range.clone();
        out.e_tag = Some(meta.e_tag());
        out.expires = meta.headers.expires.map(timestamp);
        out.last_modified = Some(meta.last_modified());
        out.metadata = Some(meta.headers.user.clone().into_iter().collect()).filter(|m: &s3s::dto::Metadata| !m.is_empty());
        out.parts_count = $part.filter(|_| !meta.parts.is_empty()).and_then(|_| i32::try_from(meta.parts.len()).ok());
        out.checksum_type = (!slice.sums.is_empty()).then(|| meta.kind.to_dto());
        write_checksums!(out, slice.sums);
    }};
}

/// Takes the conditions, range and part out of either input.
macro_rules! requested {
    ($input:expr) => {
        RequestedRead {
            conditions: ReadConditions {
                if_match: $input.if_match,
                if_none_match: $input.if_none_match,
                if_modified_since: $input.if_modified_since,
                if_unmodified_since: $input.if_unmodified_since,
            },
            range: $input.range,
            part: $input.part_number,
            checksums: $input.checksum_mode.is_some_and(|m| m.as_str() == ChecksumMode::ENABLED),
        }
    };
}

/// Accepts only the version `null`, which is the one of every object in a bucket without versioning.
pub(super) fn check_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("" | "null") => Ok(()),
        Some(_) => Err(s3_error!(NoSuchVersion, "The specified version does not exist.")),
    }
}

/// `HeadObject`.
pub(super) fn head(bucket: &Bucket, input: HeadObjectInput) -> S3Result<HeadObjectOutput> {
    check_version(input.version_id.as_deref())?;
    let meta = bucket.meta(&input.key)?;
    let requested = requested!(input);
    let slice = requested.slice(&meta)?;
    let mut out = HeadObjectOutput::default();
    describe!(out, meta, slice, requested.part);
    // For GET, `s3s` applies these parameters.
    out.cache_control = input.response_cache_control.or(out.cache_control);
    out.content_disposition = input.response_content_disposition.or(out.content_disposition);
    out.content_encoding = input.response_content_encoding.or(out.content_encoding);
    out.content_language = input.response_content_language.or(out.content_language);
    out.content_type = input.response_content_type.or(out.content_type);
    Ok(out)
}

/// `GetObject`.
pub(super) async fn get(bucket: std::sync::Arc<Bucket>, input: GetObjectInput) -> S3Result<GetObjectOutput> {
    check_version(input.version_id.as_deref())?;
    let key = input.key.clone();
    let requested = requested!(input);
    let (file, meta, slice, part) = blocking(move || {
        let (mut file, meta) = bucket.open(&key)?;
        let slice = requested.slice(&meta)?;
        file.seek(SeekFrom::Start(slice.bytes.start)).map_err(internal)?;
        Ok((file, meta, slice, requested.part))
    })
    .await?;
    let mut out = GetObjectOutput::default();
    describe!(out, meta, slice, part);
    out.body = Some(StreamingBlob::new(body(file, slice.bytes.end - slice.bytes.start)));
    Ok(out)
}

/// Returns whether a query is one of `GetObjectAttributes`.
pub(super) fn is_attributes_query(query: &str) -> bool {
    query.split('&').any(|pair| matches!(pair, "attributes" | "attributes="))
}

/// Removes the quotes of the entity tag in the answer to `GetObjectAttributes`, as AWS does; `s3s` always writes them.
pub(super) fn unquote_entity_tag(response: &mut HttpResponse) {
    let Some(bytes) = response.body().bytes() else { return };
    let Ok(text) = std::str::from_utf8(&bytes) else { return };
    let body = text.replace("<ETag>\"", "<ETag>").replace("\"</ETag>", "</ETag>");
    set_body(response, body);
}

/// `GetObjectAttributes`: returns exactly the requested attributes.
pub(super) fn attributes(bucket: &Bucket, input: &GetObjectAttributesInput) -> S3Result<GetObjectAttributesOutput> {
    check_version(input.version_id.as_deref())?;
    let meta = bucket.meta(&input.key)?;
    // The header is a list; most clients send it in one line.
    let listed = |text: &str, name: &str| text.split(',').any(|item| item.trim() == name);
    let is_requested = |name: &str| input.object_attributes.iter().any(|attribute| listed(attribute.as_str(), name));
    let mut checksum = Checksum { checksum_type: Some(meta.kind.to_dto()), ..Checksum::default() };
    write_checksums!(checksum, meta.named_sums());
    let parts = is_requested(ObjectAttributes::OBJECT_PARTS) && !meta.parts.is_empty();
    Ok(GetObjectAttributesOutput {
        e_tag: is_requested(ObjectAttributes::ETAG).then(|| meta.e_tag()),
        checksum: (is_requested(ObjectAttributes::CHECKSUM) && meta.named.is_some()).then_some(checksum),
        object_parts: parts.then(|| listed_parts(&meta, input)),
        object_size: i64::try_from(meta.size).ok().filter(|_| is_requested(ObjectAttributes::OBJECT_SIZE)),
        storage_class: is_requested(ObjectAttributes::STORAGE_CLASS).then(|| StorageClass::from_static(StorageClass::STANDARD)),
        last_modified: Some(meta.last_modified()),
        ..GetObjectAttributesOutput::default()
    })
}

/// Returns the parts; AWS lists parts that have their own checksums, and for others only their number.
fn listed_parts(meta: &Meta, input: &GetObjectAttributesInput) -> GetObjectAttributesParts {
    let total_parts_count = i32::try_from(meta.parts.len()).ok();
    if meta.part_sums.is_empty() {
        return GetObjectAttributesParts { total_parts_count, ..GetObjectAttributesParts::default() };
    }
    let max_parts = input.max_parts.unwrap_or(MAX_LISTED).clamp(0, MAX_LISTED);
    let marker = input.part_number_marker.unwrap_or(0).max(0);
    let all = (1..).zip(meta.parts.iter().zip(&meta.part_sums)).filter(|(number, _)| *number > marker);
    let parts: Vec<_> = all
        .take(max_parts.unsigned_abs() as usize)
        .map(|(number, (size, sums))| {
            let mut part = ObjectPart { part_number: Some(number), size: i64::try_from(*size).ok(), ..ObjectPart::default() };
            write_checksums!(part, sums);
            part
        })
        .collect();
    let last = parts.last().and_then(|part| part.part_number).unwrap_or(marker);
    GetObjectAttributesParts {
        is_truncated: Some(total_parts_count.is_some_and(|count| last < count)),
        max_parts: Some(max_parts),
        next_part_number_marker: Some(last),
        part_number_marker: Some(marker),
        parts: Some(parts),
        total_parts_count,
    }
}

/// Returns the next bytes of a file, as a stream of known length.
fn body(file: File, length: u64) -> impl ByteStream<Item = Result<Bytes, StdError>> + Send + Sync + 'static {
    let chunks = stream::try_unfold((file, length), |(file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let want = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let read = tokio::task::spawn_blocking(move || {
            let mut file = file;
            let mut buffer = vec![0; want];
            file.read_exact(&mut buffer)?;
            Ok::<_, io::Error>((file, Bytes::from(buffer)))
        });
        let (file, chunk) = read.await??;
        Ok::<_, StdError>(Some((chunk, (file, left - want as u64))))
    });
    SizedStream { chunks: Box::pin(chunks), left: length }
}

/// A stream with a known number of remaining bytes.
struct SizedStream<S> {
    chunks: Pin<Box<S>>,
    left: u64,
}

impl<S: Stream<Item = Result<Bytes, StdError>>> Stream for SizedStream<S> {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.chunks.as_mut().poll_next(cx);
        if let Poll::Ready(Some(Ok(chunk))) = &next {
            self.left = self.left.saturating_sub(chunk.len() as u64);
        }
        next
    }
}

impl<S: Stream<Item = Result<Bytes, StdError>>> ByteStream for SizedStream<S> {
    fn remaining_length(&self) -> RemainingLength {
        usize::try_from(self.left).map_or_else(|_| RemainingLength::unknown(), RemainingLength::new_exact)
    }
}
