//! Digests of requests with an XML body: AWS requires and verifies one if a changed body would do harm
//! (`requestChecksumRequired` in the models of its SDKs). `s3s` ignores these digests.

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::Method;
use hyper::body::Body as HttpBody;
use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use s3s::crypto::{Checksum as _, Md5};
use s3s::{S3Result, s3_error};

use super::checksum::{self, DeclaredDigests};
use super::put::sent_md5;

/// Maximum bytes of an XML body. The longest that AWS accepts, a batch of 1000 keys, is shorter.
const MAX_BYTES: usize = 2 << 20;
/// Query parameters of the PUT requests that need a digest, as far as this server implements them.
const PUT: [&str; 3] = ["cors", "lifecycle", "publicAccessBlock"];
/// Query parameters of the POST requests that need a digest.
const POST: [&str; 1] = ["delete"];

/// Returns whether the request needs a digest of its body.
pub(super) fn is_required(request: &Parts) -> bool {
    let names: &[&str] = match request.method {
        Method::PUT => &PUT,
        Method::POST => &POST,
        _ => return false,
    };
    let is_bucket = request.uri.path().trim_matches('/').split('/').count() == 1;
    let mut query = request.uri.query().unwrap_or_default().split('&');
    is_bucket && query.any(|pair| names.contains(&pair.split('=').next().unwrap_or_default()))
}

/// Reads a body and verifies its digest.
///
/// # Errors
///
/// 400 if the body is too long or ends early, or the digest is missing, malformed or of other bytes.
pub(super) async fn verified<B>(request: &Parts, body: B) -> S3Result<Bytes>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let bytes = Limited::new(body, MAX_BYTES).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            s3_error!(MaxMessageLengthExceeded, "Your request was too big.")
        } else {
            s3_error!(IncompleteBody, "You did not provide the number of bytes specified by the Content-Length HTTP header")
        }
    })?;
    let bytes = bytes.to_bytes();
    check(&request.headers, &bytes)?;
    Ok(bytes)
}

/// Compares the digests in the headers with the body.
fn check(headers: &HeaderMap, body: &[u8]) -> S3Result<()> {
    // `s3s` decodes a body with a trailer, and verifies the digest in it.
    if headers.contains_key("x-amz-trailer") {
        return Ok(());
    }
    let sums = checksum::from_headers(headers);
    let md5 = sent_md5(headers);
    if sums.is_empty() && md5.is_none() {
        return Err(s3_error!(InvalidRequest, "Missing required header for this request: Content-MD5 OR x-amz-checksum-*"));
    }
    let mut hasher = checksum::hasher(sums.keys().copied());
    hasher.update(body);
    DeclaredDigests::new(sums, md5, None)?.verify(&checksum::finish(hasher), &Md5::checksum(body), None)
}
