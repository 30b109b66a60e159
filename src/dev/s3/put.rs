//! `PutObject`, and browsers' forms: the request's body becomes an object, once it is what it claims to be.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use hyper::Method;
use hyper::header::{ETAG, HOST};
use s3s::dto::{Metadata, PutObjectInput, PutObjectOutput, StreamingBlob};
use s3s::stream::ByteStream as _;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::checksum::{Algorithm, Claims, Kind, read_sums, write_sums};
use super::condition::WriteCondition;
use super::folder::{Bucket, Folder, blocking, hex};
use super::ingest;
use super::listing::percent_encode;
use super::object::{Meta, now_ms};

/// What user metadata may weigh, names and values (AWS: 2 KB).
const MAX_METADATA: usize = 2048;

/// Takes what is kept with an object out of any input that carries it.
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

pub(super) fn user_metadata(given: Option<Metadata>) -> S3Result<BTreeMap<String, String>> {
    let given = given.unwrap_or_default();
    if given.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > MAX_METADATA {
        return Err(s3_error!(MetadataTooLarge, "Your metadata headers exceed the maximum allowed metadata size"));
    }
    Ok(given.into_iter().collect())
}

/// Metadata that a presigner moved from headers to the signed query, as the JavaScript SDK's does. AWS keeps it.
fn hoisted(query: &str) -> impl Iterator<Item = (String, String)> {
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs
        .filter_map(|(name, value)| Some((name.to_ascii_lowercase().strip_prefix("x-amz-meta-")?.to_owned(), value.into_owned())))
}

/// `aws-chunked` is about the transfer, not about the object.
pub(super) fn stored_encoding(given: Option<&str>) -> Option<String> {
    let kept: Vec<_> = given?.split(',').map(str::trim).filter(|e| !e.is_empty() && *e != "aws-chunked").collect();
    Some(kept.join(",")).filter(|e| !e.is_empty())
}

pub(super) use headers;

/// `PutObject`. A browser's form comes here too, once the protocol layer has checked its policy.
pub(super) async fn put(
    folder: &Arc<Folder>,
    bucket: Arc<Bucket>,
    mut req: S3Request<PutObjectInput>,
) -> S3Result<S3Response<PutObjectOutput>> {
    let input = &mut req.input;
    if let Some(name) = req.extensions.get::<FileName>().filter(|_| req.method == Method::POST) {
        input.key = name.put_into(&input.key);
    }
    if input.key.len() > 1024 {
        return Err(s3_error!(KeyTooLongError, "Your key is too long"));
    }
    let condition = WriteCondition::new(input.if_match.as_ref(), input.if_none_match.as_ref())?;
    let mut headers = headers!(input);
    headers.user.extend(hoisted(req.uri.query().unwrap_or_default()));
    let claims = Claims::new(read_sums!(input), input.content_md5.as_deref(), input.checksum_algorithm.as_ref())?;
    let length = input.content_length.or_else(|| known_length(input.body.as_ref()));
    if length.is_none() {
        return Err(s3_error!(MissingContentLength, "You must provide the Content-Length HTTP header."));
    }
    condition.check(bucket.index().get(&input.key).map(Arc::as_ref))?;

    // AWS keeps a CRC64NVME of what came without a checksum.
    let named = claims.algorithm.unwrap_or(Algorithm::Crc64nvme);
    let algorithms = vec![Algorithm::Sha256, named];
    let received = ingest::receive(folder, input.body.take(), length, algorithms).await?;
    claims.verify(&received.sums, &received.md5, req.trailing_headers.as_ref())?;
    let meta = Meta {
        key: std::mem::take(&mut input.key),
        size: received.size,
        etag: hex(&received.md5),
        modified: now_ms(),
        headers,
        sums: received.sums.clone(),
        named: Some(named),
        kind: Kind::Full,
        parts: Vec::new(),
        upload: None,
    };
    let meta = blocking(move || {
        let temp = received.seal(&meta)?;
        bucket.publish(&temp, meta, &condition, None)
    })
    .await?;
    let mut out =
        PutObjectOutput { e_tag: Some(meta.e_tag()), checksum_type: Some(meta.kind.to_dto()), ..PutObjectOutput::default() };
    write_sums!(out, meta.named_sums());
    let mut response = S3Response::new(out);
    if req.method == Method::POST {
        // A browser's form: the protocol layer has checked its policy, and leaves these two headers to us.
        let host = req.headers.get(HOST).and_then(|h| h.to_str().ok());
        let location = format!("http://{}/{}/{}", host.unwrap_or_default(), req.input.bucket, percent_encode(&meta.key));
        response.extensions.insert(FormLocation(location));
        response.headers.extend(meta.e_tag().to_http_header().ok().map(|t| (ETAG, t)));
    }
    Ok(response)
}

/// The name of a form's file, known when the protocol layer has read as far as the file.
#[derive(Clone, Default)]
pub(super) struct FileName(Arc<OnceLock<String>>);

impl FileName {
    /// Keeps the name without the folders that some browsers send with it.
    pub(super) fn set(&self, sent: &str) {
        let _ = self.0.set(sent.rsplit(['/', '\\']).next().unwrap_or_default().to_owned());
    }

    /// The key with the name in the place of `${filename}` ("POST Object" in the S3 API reference).
    fn put_into(&self, key: &str) -> String {
        self.0.get().map_or_else(|| key.to_owned(), |name| key.replace("${filename}", name))
    }
}

/// The stored object's address, for the `Location` of a form's answer that redirects nowhere else.
#[derive(Clone)]
pub(super) struct FormLocation(pub(super) String);

pub(super) fn known_length(body: Option<&StreamingBlob>) -> Option<i64> {
    let length = body.map_or(Some(0), |b| b.remaining_length().exact());
    length.and_then(|l| i64::try_from(l).ok())
}
