//! Reads objects: their metadata as S3 reports it, and their bytes.
//!
//! Results of this module may reject an upload permanently, and a store, or a proxy in front of it, may temporarily send any
//! response. So responses that lack a property of every object, or contradict each other, are errors and never results.

use std::ops::Range;

use aws_lc_rs::digest;
use aws_sdk_s3::{
    error::{ProvideErrorMetadata, SdkError},
    operation::{
        get_object::{GetObjectError, GetObjectOutput, builders::GetObjectFluentBuilder},
        head_object::HeadObjectOutput,
    },
    primitives::ByteStream,
    types::ChecksumMode,
};

use super::{
    DEADLINE, Objects,
    errors::{
        Failure, classify_error, error_of, is_about_object, is_absent, is_bodyless_404, is_deleted_or_replaced, outage, reason,
        status,
    },
};
use crate::{
    model::{ObjectKey, Sha256},
    store::StoreError,
};

/// Metadata of an object, as S3 reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Size in bytes.
    pub size: u64,
    /// The type that the PUT was sent with.
    pub content_type: Option<String>,
    /// The checksum that S3 verified; absent on stores that do not store checksums.
    pub sha256: Option<Sha256>,
    /// Entity tag, with its quotes, as conditional requests need it.
    pub etag: String,
    /// Names of stored headers that S3 serves with the object, and that no presigned URL signs.
    pub unsigned: Vec<&'static str>,
}

/// The first bytes of an object, read before its metadata is known.
pub struct Peek {
    etag: String,
    size: u64,
    bytes: Vec<u8>,
}

/// An object, and its first bytes.
pub struct PeekedObject {
    /// Metadata of the object.
    pub head: Head,
    /// First bytes of the object; `None` on any failure and on a store that does not support ranges: [`Objects::read_range`] then
    /// returns the reason.
    pub first: Option<Peek>,
}

/// Outcome of reading the first bytes of an object.
enum FirstBytes {
    /// The bytes.
    Read(Peek),
    /// The object does not exist.
    Absent,
    /// The response does not show whether the object exists.
    Unknown,
}

impl Peek {
    /// Reads the first `length` bytes; `None` if the response does not have exactly these bytes.
    async fn read(got: GetObjectOutput, length: u64) -> Option<Self> {
        let (etag, (0, size)) = (got.e_tag()?.to_owned(), content_range(&got)?) else { return None };
        let wanted = usize::try_from(length.min(size)).ok()?;
        // A store may send more than the requested bytes.
        let is_bounded = got.content_length().is_some_and(|sent| usize::try_from(sent) == Ok(wanted));
        let bytes = if is_bounded { got.body.collect().await.ok()?.to_vec() } else { return None };
        (bytes.len() == wanted).then_some(Self { etag, size, bytes })
    }

    /// Returns the bytes of `range`, if they were read and belong to the object that `head` describes.
    #[must_use]
    pub fn bytes_of(&self, head: &Head, range: Range<u64>) -> Option<&[u8]> {
        let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
        let is_same = self.etag == head.etag && self.size == head.size;
        self.bytes.get(start..end).filter(|_| is_same)
    }
}

/// Cache directives that browsers (`fetch` with a cache mode) and phones add to a PUT by themselves, in lower case. S3 stores
/// them like any other; every read URL pins a Cache-Control of its own.
const CACHE_DIRECTIVES: [&str; 3] = ["no-cache", "no-store", "max-age=0"];

impl Objects {
    /// Returns the object's metadata, or `None` if it does not exist.
    ///
    /// # Errors
    /// [`StoreError::ObjectRejected`] for an object that exists and cannot be read without its encryption key or before it is
    /// restored; [`StoreError::ObjectsMisconfigured`] also for 403, which S3 returns for a missing key if the policy lacks
    /// `s3:ListBucket`.
    pub async fn head(&self, key: &ObjectKey) -> Result<Option<Head>, StoreError> {
        match self.send_head(key).await? {
            Some(head) => Ok(Some(head)),
            None => self.verify_missing(key).await,
        }
    }

    /// Returns the metadata as [`Objects::head`] does, and the first `length` bytes, which are read at the same time. For an object
    /// that does not exist, no third call is needed: the response to the GET shows it.
    ///
    /// # Errors
    /// As [`Objects::head`].
    pub async fn peek(&self, key: &ObjectKey, length: u64) -> Result<Option<PeekedObject>, StoreError> {
        // Boxed, because inspections are awaited deep within other futures, which share one stack.
        let (head, first) = tokio::join!(Box::pin(self.send_head(key)), Box::pin(self.read_first(key, length)));
        match (head?, first) {
            (Some(head), FirstBytes::Read(first)) => Ok(Some(PeekedObject { head, first: Some(first) })),
            (Some(head), FirstBytes::Absent | FirstBytes::Unknown) => Ok(Some(PeekedObject { head, first: None })),
            (None, FirstBytes::Absent) => Ok(None),
            (None, FirstBytes::Read(_) | FirstBytes::Unknown) => {
                let found = self.verify_missing(key).await?;
                Ok(found.map(|head| PeekedObject { head, first: None }))
            }
        }
    }

    /// Returns the object's metadata; `None` for a 404, which [`Objects::verify_missing`] has to verify.
    async fn send_head(&self, key: &ObjectKey) -> Result<Option<Head>, StoreError> {
        let request = self.client.head_object().bucket(&self.bucket).key(key.as_str()).checksum_mode(ChecksumMode::Enabled);
        let found = match request.send().await {
            Ok(found) => found,
            Err(error) if status(&error) == Some(404) => return Ok(None),
            Err(error) if matches!(status(&error), Some(400..=499)) => {
                // The response to a HEAD has no body with a reason; that to a GET has one.
                return Err(match self.get(key).range("bytes=0-0").send().await {
                    Err(rejected) if !is_deleted_or_replaced(&rejected) => self.read_error(&rejected).await,
                    Ok(_) | Err(_) => outage("HeadObject", &error),
                });
            }
            Err(error) => return Err(outage("HeadObject", &error)),
        };
        let inconsistent_head = |reason| inconsistent("HeadObject", reason);
        Ok(Some(Head {
            size: found
                .content_length()
                .and_then(|n| u64::try_from(n).ok())
                .ok_or_else(|| inconsistent_head("the response has no length"))?,
            content_type: found.content_type().map(str::to_owned),
            sha256: found.checksum_sha256().and_then(|text| Sha256::parse(text).ok()),
            etag: found
                .e_tag()
                .filter(|etag| !etag.is_empty())
                .ok_or_else(|| inconsistent_head("the response has no entity tag"))?
                .to_owned(),
            unsigned: unsigned_headers(&found),
        }))
    }

    /// Reads the first `length` bytes.
    async fn read_first(&self, key: &ObjectKey, length: u64) -> FirstBytes {
        let Some(last) = length.checked_sub(1) else { return FirstBytes::Unknown };
        let read = async {
            match self.get(key).range(format!("bytes=0-{last}")).send().await {
                Ok(got) => Peek::read(got, length).await.map_or(FirstBytes::Unknown, FirstBytes::Read),
                Err(error) if is_absent(&error) => FirstBytes::Absent,
                Err(_) => FirstBytes::Unknown,
            }
        };
        tokio::time::timeout(DEADLINE, read).await.unwrap_or(FirstBytes::Unknown)
    }

    /// Verifies with a GET that the object does not exist: a HEAD's 404 has no body, and looks the same if the bucket is
    /// missing or if a proxy sent it. Returns the metadata of an object that was just written.
    ///
    /// # Errors
    /// [`StoreError::ObjectNotVisible`] if a second HEAD does not find it either: an upload must not expire by that.
    async fn verify_missing(&self, key: &ObjectKey) -> Result<Option<Head>, StoreError> {
        let is_found = match self.get(key).range("bytes=0-0").send().await {
            Ok(_) => true,
            // An empty object has no first byte.
            Err(error) if status(&error) == Some(416) => true,
            Err(error) if is_absent(&error) => false,
            // The response of some stores has no code: then the object does not exist if the bucket does.
            Err(error) if is_bodyless_404(&error) => self.probe().await.map(|()| false)?,
            // A HEAD returned 404, so no other response to a GET shows whether the object exists.
            Err(error) if classify_error(&error) == Failure::Configuration => return Err(error_of("GetObject", &error)),
            Err(error) => return Err(outage("GetObject", &error)),
        };
        if !is_found {
            return Ok(None);
        }
        let head = Box::pin(self.send_head(key)).await?;
        head.map(Some).ok_or(StoreError::ObjectNotVisible)
    }

    /// Verifies by a GET the metadata in `head`, so that no single response rejects an upload. Returns `false` if the object no
    /// longer exists.
    ///
    /// # Errors
    /// [`StoreError`]; also when the two responses differ.
    pub async fn verify_head(&self, key: &ObjectKey, head: &Head) -> Result<bool, StoreError> {
        let got = match self.get(key).range("bytes=0-0").if_match(&head.etag).send().await {
            Ok(got) => got,
            Err(error) if is_deleted_or_replaced(&error) => return Ok(false),
            Err(error) if status(&error) == Some(416) && head.size == 0 => return Ok(true),
            Err(error) => return Err(self.read_error(&error).await),
        };
        let is_same = describes(&got, head) && got.content_type() == head.content_type.as_deref();
        if is_same { Ok(true) } else { Err(inconsistent("GetObject", "the metadata differs from that of HeadObject")) }
    }

    /// Reads the bytes of `range` of the object that `head` describes; `None` if the object no longer exists.
    ///
    /// # Errors
    /// [`StoreError`]; also when fewer bytes arrive.
    pub async fn read_range(&self, key: &ObjectKey, head: &Head, range: Range<u64>) -> Result<Option<Vec<u8>>, StoreError> {
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or_default();
        if length == 0 {
            return Ok(Some(Vec::new()));
        }
        let request = self.get(key).range(format!("bytes={}-{}", range.start, range.end - 1)).if_match(&head.etag);
        let read = async {
            let Some(OpenBody { mut body, start }) = self.open(request, head).await? else { return Ok(None) };
            // A store that does not support ranges sends the whole object.
            let mut bytes_before = match range.start.checked_sub(start) {
                Some(before) if before == 0 || start == 0 => before,
                _ => return Err(inconsistent("GetObject", "the range differs from the requested one")),
            };
            let mut bytes = Vec::with_capacity(length);
            while bytes.len() < length {
                let chunk = body.next().await.ok_or_else(cut_off)?.map_err(|_| cut_off())?;
                let skipped = usize::try_from(bytes_before).unwrap_or(usize::MAX).min(chunk.len());
                bytes_before -= skipped as u64;
                let chunk = chunk.get(skipped..).unwrap_or_default();
                bytes.extend_from_slice(chunk.get(..length - bytes.len()).unwrap_or(chunk));
            }
            Ok(Some(bytes))
        };
        tokio::time::timeout(DEADLINE, read).await.unwrap_or(Err(StoreError::ObjectsTimeout { operation: "GetObject" }))
    }

    /// Returns the digest of the whole object that `head` describes, computed here for stores that keep no checksum. The bytes
    /// pass through this server one chunk at a time; a stall times out. `None` if the object no longer exists.
    ///
    /// # Errors
    /// [`StoreError`]; also when fewer or more bytes arrive.
    pub async fn digest(&self, key: &ObjectKey, head: &Head) -> Result<Option<Sha256>, StoreError> {
        let Some(OpenBody { mut body, .. }) = self.open(self.get(key).if_match(&head.etag), head).await? else { return Ok(None) };
        let mut context = digest::Context::new(&digest::SHA256);
        let mut length = 0;
        let stalled = || StoreError::ObjectsTimeout { operation: "GetObject" };
        while let Some(chunk) = tokio::time::timeout(DEADLINE, body.next()).await.map_err(|_| stalled())? {
            let chunk = chunk.map_err(|_| cut_off())?;
            length += chunk.len() as u64;
            context.update(&chunk);
        }
        if length != head.size {
            return Err(cut_off());
        }
        Ok(Some(Sha256::finish(context)))
    }

    /// Begins a GET of the object.
    fn get(&self, key: &ObjectKey) -> GetObjectFluentBuilder {
        self.client.get_object().bucket(&self.bucket).key(key.as_str())
    }

    /// Opens the body of the object that `head` describes; `None` if the object no longer exists.
    async fn open(&self, request: GetObjectFluentBuilder, head: &Head) -> Result<Option<OpenBody>, StoreError> {
        match request.send().await {
            Ok(got) if describes(&got, head) => {
                let start = content_range(&got).map_or(0, |(start, _)| start);
                Ok(Some(OpenBody { body: got.body, start }))
            }
            Ok(_) => Err(inconsistent("GetObject", "the object differs from that of HeadObject")),
            Err(error) if is_deleted_or_replaced(&error) => Ok(None),
            Err(error) => Err(self.read_error(&error).await),
        }
    }

    /// Returns the error of a failed GET. It is [`StoreError::ObjectRejected`], which rejects an upload, only if the rejection
    /// concerns this object: its code shows that (`InvalidObjectState`), or the store accepts the same request for another key (a
    /// GET of an object under the writer's own encryption key is rejected with `InvalidRequest`).
    async fn read_error(&self, error: &SdkError<GetObjectError>) -> StoreError {
        match classify_error(error) {
            // A range within the length that HEAD returned is satisfiable: the two responses contradict each other.
            Failure::Object if status(error) == Some(416) => outage("GetObject", error),
            Failure::Object if is_about_object(error) || self.accepts_other_keys().await => error_of("GetObject", error),
            Failure::Object => StoreError::ObjectsUnsupported { operation: "GetObject", reason: reason(error) },
            // Every store supports GET, so a proxy sent this response.
            Failure::Unsupported => outage("GetObject", error),
            Failure::Configuration | Failure::Temporary => error_of("GetObject", error),
        }
    }

    /// Returns whether the store accepts a ranged GET of a key without an object: it responds 404, or 403 if the policy lacks
    /// `s3:ListBucket`.
    async fn accepts_other_keys(&self) -> bool {
        let absent = ObjectKey::from_stored(format!("u/{}", uuid::Uuid::new_v4().simple()));
        let answer = self.get(&absent).range("bytes=0-0").if_match("\"0\"").send().await;
        answer.is_err_and(|error| is_absent(&error) || error.code() == Some("AccessDenied"))
    }
}

/// The name in [`Head::unsigned`] for user-defined metadata of any key.
pub const USER_METADATA: &str = "x-amz-meta";

/// Returns the names of the headers that the writer of the object added ("System-defined metadata" and "User-defined metadata"
/// in the S3 user guide).
fn unsigned_headers(found: &HeadObjectOutput) -> Vec<&'static str> {
    let is_directive = |item: &str| CACHE_DIRECTIVES.contains(&item.trim().to_ascii_lowercase().as_str());
    let caching = found.cache_control().filter(|value| !value.split(',').all(is_directive));
    let headers = [
        ("cache-control", caching),
        ("content-disposition", found.content_disposition()),
        ("content-encoding", found.content_encoding()),
        ("content-language", found.content_language()),
        ("expires", found.expires_string()),
        ("x-amz-website-redirect-location", found.website_redirect_location()),
        (USER_METADATA, found.metadata().and_then(|metadata| metadata.keys().next()).map(String::as_str)),
    ];
    headers.into_iter().filter(|(_, value)| value.is_some_and(|value| !value.is_empty())).map(|(name, _)| name).collect()
}

/// A body, and the offset of its first byte in the object.
struct OpenBody {
    body: ByteStream,
    start: u64,
}

/// Returns whether the response is of the object that `head` describes.
fn describes(got: &GetObjectOutput, head: &Head) -> bool {
    let size = match got.content_range() {
        Some(_) => content_range(got).map(|(_, size)| size),
        // The whole object.
        None => got.content_length().and_then(|length| u64::try_from(length).ok()),
    };
    size == Some(head.size) && got.e_tag() == Some(head.etag.as_str())
}

/// Returns the first byte of the range, and the size of the whole object in bytes (RFC 9110 section 14.4).
fn content_range(got: &GetObjectOutput) -> Option<(u64, u64)> {
    let (range, size) = got.content_range()?.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, size.parse().ok()?))
}

/// Returns the error of a body that ends too early or too late.
fn cut_off() -> StoreError {
    inconsistent("GetObject", "the body broke off")
}

/// Returns the error of a response that is incomplete, or contradicts another one.
fn inconsistent(operation: &'static str, reason: &str) -> StoreError {
    StoreError::Objects { operation, reason: reason.to_owned() }
}
