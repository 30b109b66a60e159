//! `PutObject`: stores a request's body as an object, once its bytes match the declared digests.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use hyper::header::HeaderMap;
use s3s::dto::{Metadata, PutObjectInput, PutObjectOutput, StreamingBlob};
use s3s::stream::ByteStream as _;
use s3s::{S3Request, S3Response, S3Result, TrailingHeaders, s3_error};

use super::checksum::{Algorithm, ChecksumCoverage, DeclaredDigests, read_checksums, write_checksums};
use super::condition::WriteCondition;
use super::folder::{Bucket, Folder, blocking};
use super::ingest::{self, Length};
use super::object::{Headers, MAX_KEY_BYTES, Meta, now_ms};

/// Maximum bytes of user metadata, names and values together (AWS: 2 KB).
const MAX_METADATA_BYTES: usize = 2048;

/// Takes the headers that are stored with an object out of any input that has them.
macro_rules! headers {
    ($input:expr) => {
        $crate::dev::s3::object::Headers {
            content_type: $input.content_type.clone(),
            cache_control: $input.cache_control.clone(),
            content_disposition: $input.content_disposition.clone(),
            content_encoding: $crate::dev::s3::put::stored_encoding($input.content_encoding.as_deref()),
            content_language: $input.content_language.clone(),
            expires: $input.expires.as_ref().map($crate::dev::s3::object::millis),
            user: $crate::dev::s3::put::user_metadata($input.metadata.take())?,
        }
    };
}

/// Returns the user metadata, unless there is too much of it.
pub(super) fn user_metadata(given: Option<Metadata>) -> S3Result<BTreeMap<String, String>> {
    let given = given.unwrap_or_default();
    if given.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > MAX_METADATA_BYTES {
        return Err(s3_error!(MetadataTooLarge, "Your metadata headers exceed the maximum allowed metadata size"));
    }
    Ok(given.into_iter().collect())
}

/// Returns the user metadata that a presigner moved from headers to the signed query, as the JavaScript SDK does. AWS stores it.
fn metadata_of_query(query: &str) -> impl Iterator<Item = (String, String)> {
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs
        .filter_map(|(name, value)| Some((name.to_ascii_lowercase().strip_prefix("x-amz-meta-")?.to_owned(), value.into_owned())))
}

/// Returns the encoding to store: `aws-chunked` concerns the transfer, not the object.
pub(super) fn stored_encoding(given: Option<&str>) -> Option<String> {
    let given = given?;
    if !given.contains("aws-chunked") {
        return Some(given.to_owned()).filter(|encoding| !encoding.is_empty());
    }
    let stored: Vec<_> = given.split(',').map(str::trim).filter(|e| !e.is_empty() && *e != "aws-chunked").collect();
    Some(stored.join(",")).filter(|e| !e.is_empty())
}

pub(super) use headers;

/// A new object, without its bytes.
pub(super) struct NewObject {
    /// Key of the object.
    pub(super) key: String,
    /// Headers to store.
    pub(super) headers: Headers,
    /// Digests that the sender declares.
    pub(super) declared: DeclaredDigests,
    /// Condition on the existing object.
    pub(super) condition: WriteCondition,
}

/// `PutObject`.
pub(super) async fn put(
    folder: &Arc<Folder>,
    bucket: Arc<Bucket>,
    mut req: S3Request<PutObjectInput>,
) -> S3Result<S3Response<PutObjectOutput>> {
    let input = &mut req.input;
    let length = announced_length(input.content_length, input.body.as_ref())?;
    let mut headers = headers!(input);
    headers.user.extend(metadata_of_query(req.uri.query().unwrap_or_default()));
    let new = NewObject {
        key: std::mem::take(&mut input.key),
        headers,
        declared: DeclaredDigests::new(read_checksums!(input), sent_md5(&req.headers), input.checksum_algorithm.as_ref())?,
        condition: WriteCondition::new(input.if_match.as_ref(), input.if_none_match.as_ref())?,
    };
    let meta = store(folder, bucket, new, ingest::chunks(input.body.take()), length, req.trailing_headers).await?;
    let mut out =
        PutObjectOutput { e_tag: Some(meta.e_tag()), checksum_type: Some(meta.kind.to_dto()), ..PutObjectOutput::default() };
    write_checksums!(out, meta.named_sums());
    Ok(S3Response::new(out))
}

/// Returns the `Content-MD5`. An empty one, which `s3s` ignores, is invalid.
pub(super) fn sent_md5(headers: &HeaderMap) -> Option<&str> {
    headers.get("content-md5").map(|value| value.to_str().unwrap_or_default())
}

/// Receives an object's bytes and publishes it.
///
/// # Errors
///
/// If the bytes do not match the declaration, or the condition does not hold. No file is left then.
pub(super) async fn store(
    folder: &Arc<Folder>,
    bucket: Arc<Bucket>,
    new: NewObject,
    body: impl Stream<Item = S3Result<Bytes>> + Unpin,
    length: Length,
    trailers: Option<TrailingHeaders>,
) -> S3Result<Arc<Meta>> {
    let NewObject { key, headers, declared, condition } = new;
    if key.len() > MAX_KEY_BYTES {
        return Err(s3_error!(KeyTooLongError, "Your key is too long"));
    }
    condition.check(bucket.index().get(&key).map(Arc::as_ref))?;

    // AWS computes a CRC64NVME for objects without a checksum.
    let named = declared.algorithm.unwrap_or(Algorithm::Crc64nvme);
    let received = ingest::receive(folder, body, length, vec![Algorithm::Sha256, named]).await?;
    declared.verify(&received.sums, &received.md5, trailers.as_ref())?;
    let meta = Meta {
        key,
        size: received.size,
        etag: hex::encode(received.md5),
        modified: now_ms(),
        headers,
        sums: received.sums.clone(),
        named: Some(named),
        kind: ChecksumCoverage::Full,
        parts: Vec::new(),
        part_sums: Vec::new(),
        upload: None,
    };
    blocking(move || {
        let temp = received.seal(&meta)?;
        bucket.publish(&temp, meta, &condition, None)
    })
    .await
}

/// Returns the length that a request announced, in a header or by the framing of its body.
///
/// # Errors
///
/// `MissingContentLength` (411) if it announced no length.
pub(super) fn announced_length(header: Option<i64>, body: Option<&StreamingBlob>) -> S3Result<Length> {
    let framed = body.map_or(Some(0), |body| body.remaining_length().exact());
    let length = header.and_then(|length| u64::try_from(length).ok()).or(framed.and_then(|length| u64::try_from(length).ok()));
    length.map(Length::Exactly).ok_or_else(|| s3_error!(MissingContentLength, "You must provide the Content-Length HTTP header."))
}
