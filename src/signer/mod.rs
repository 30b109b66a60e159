//! SigV4 query presigning and POST policies: each grants one method on one object for a short time.
//!
//! Pure: time is a parameter; nothing here does I/O or knows the source of the credentials. The rules are those of the AWS
//! document "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)"; the tests check its published vectors
//! and compare every signed part with the presigner of aws-sdk-s3.
//!
//! This file signs URLs, `series` signs URLs that differ only in their keys, `post_policy` signs policies, `imgproxy` signs URLs of
//! an imgproxy server. `bucket_location` has the bucket's address, made of the names and addresses of `bucket_and_endpoint`. Values
//! that all URLs of one signing key and day share are computed once (`signing_day`); a URL and its canonical request are written
//! into one buffer (`encoding`), and nothing else is allocated if the query is sorted (benches/signer.rs measures it).

mod bucket_and_endpoint;
mod bucket_location;
mod encoding;
mod imgproxy;
mod post_policy;
mod series;
mod signing_day;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use aws_lc_rs::{digest, hmac};
use secrecy::{ExposeSecret, SecretString};
use time::{OffsetDateTime, UtcOffset};

use self::signing_day::{SigningDay, SigningDays};
pub use bucket_and_endpoint::{BucketName, Endpoint, InvalidBucketName, InvalidEndpoint};
pub use bucket_location::{AddressingStyle, AwsEndpoint, BucketLocation, InvalidRegion};
pub use imgproxy::{Imgproxy, ImgproxyKey, ImgproxySource};
pub use post_policy::{PostPolicy, SignedForm};
pub use series::UrlSeries;

/// The longest validity that S3 accepts for a presigned URL.
pub const MAX_EXPIRES: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Credentials that sign URLs and forms.
#[derive(Clone)]
pub struct Credentials {
    /// Id of the key, which is not secret; part of every URL.
    pub access_key_id: String,
    /// Secret of the key. URLs and forms contain only HMACs that were made with it.
    pub secret_access_key: SecretString,
    /// Token of temporary credentials; part of every URL.
    pub session_token: Option<SecretString>,
    /// Time at which temporary credentials expire; no URL outlives them.
    pub expires_at: Option<OffsetDateTime>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// A request to presign.
#[derive(Debug, Clone, Copy)]
pub struct PresignRequest<'a> {
    /// The only method that the URL permits.
    pub method: &'static str,
    /// The object key, not percent-encoded.
    pub key: &'a str,
    /// Headers that the client must send as given: lower-case names in ascending order, without `host`. A header with an empty
    /// value must not be sent: it is listed in `X-Amz-SignedHeaders` and has no line in the canonical request. Only stores that
    /// ignore signed headers which a request lacks accept such a URL (Ceph RGW; AWS rejects it).
    pub headers: &'a [(&'static str, &'a str)],
    /// Query parameters besides those of the signature, not percent-encoded. Their names consist of unreserved characters.
    pub query: &'a [(&'static str, &'a str)],
}

/// A presigned URL. It grants access, so Debug omits its query.
#[derive(Clone, PartialEq, Eq)]
pub struct Presigned {
    /// The whole URL.
    pub url: String,
    /// Time at which S3 stops accepting new requests with it.
    pub expires_at: OffsetDateTime,
}

impl fmt::Debug for Presigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.url.split('?').next().unwrap_or_default();
        f.debug_struct("Presigned").field("path", &path).field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// The credentials have expired; S3 would reject anything signed with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credentials for S3 have expired")]
pub struct CredentialsExpired;

/// Presigns URLs for one bucket with one set of credentials.
pub struct Signer {
    location: BucketLocation,
    region: String,
    credentials: Credentials,
    /// `&X-Amz-Security-Token=…`, percent-encoded; empty without a token. Constant for these credentials.
    token: Vec<u8>,
    days: SigningDays,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("location", &self.location).field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

/// Buffer size in bytes for a URL and its canonical request as this program makes them, without a session token and signed headers.
/// Allocators take longer for larger sizes.
const TYPICAL_BUFFER_BYTES: usize = 1024;
/// Bytes that a signed header adds to the buffer.
const HEADER_BYTES: usize = 128;

impl Signer {
    /// Returns the credentials with which it signs.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Returns a signer for the bucket at `location`.
    #[must_use]
    pub fn new(location: BucketLocation, region: &str, credentials: Credentials) -> Self {
        let mut token = Vec::new();
        if let Some(text) = &credentials.session_token {
            token.extend_from_slice(b"&X-Amz-Security-Token=");
            encoding::push_component(&mut token, text.expose_secret());
        }
        Self { location, region: region.to_owned(), credentials, token, days: SigningDays::default() }
    }

    /// Returns a signer with the same credentials for the bucket under another address.
    #[must_use]
    pub fn with_location(&self, location: BucketLocation) -> Self {
        Self::new(location, &self.region, self.credentials.clone())
    }

    /// Presigns a URL that S3 accepts from `signed_at` on for `ttl`, or until the credentials expire, if that is sooner. S3
    /// counts in whole seconds, and so does the result.
    ///
    /// # Errors
    /// [`CredentialsExpired`] when less than a second would be left.
    pub fn presign(
        &self,
        request: &PresignRequest<'_>,
        signed_at: OffsetDateTime,
        ttl: Duration,
    ) -> Result<Presigned, CredentialsExpired> {
        let header_bytes = HEADER_BYTES * request.headers.len();
        let mut url = Vec::with_capacity(TYPICAL_BUFFER_BYTES + header_bytes + 2 * self.token.len());
        let expires_at = self.presign_into(request, signed_at, ttl, &mut url)?;
        // Lossless: locations and encoded text are ASCII.
        Ok(Presigned { url: String::from_utf8(url).unwrap_or_default(), expires_at })
    }

    /// Presigns as [`Signer::presign`] does: appends the URL, which is plain ASCII without quotes or backslashes, and returns its
    /// expiry. If it fails, it appends nothing.
    fn presign_into(
        &self,
        request: &PresignRequest<'_>,
        signed_at: OffsetDateTime,
        ttl: Duration,
        out: &mut Vec<u8>,
    ) -> Result<OffsetDateTime, CredentialsExpired> {
        let (signed_at, ttl) = self.lifetime(signed_at, ttl)?;
        let day = self.day(signed_at);

        out.extend_from_slice(self.location.origin().as_bytes());
        let path_at = out.len();
        out.extend_from_slice(self.location.path().as_bytes());
        encoding::push_path(out, request.key);
        let query_at = out.len();
        self.push_query(request, &day, signed_at, ttl, out);
        let url_end = out.len();

        // The canonical request and then the string to sign are appended to the URL, and removed once they are hashed.
        out.extend_from_slice(request.method.as_bytes());
        out.push(b'\n');
        out.extend_from_within(path_at..query_at);
        out.push(b'\n');
        out.extend_from_within(query_at + 1..url_end);
        self.push_canonical_headers(request, out);
        push_signature(out, url_end, &day, signed_at);
        Ok(signed_at + Duration::from_secs(ttl))
    }

    /// Appends the query without the signature.
    fn push_query(&self, request: &PresignRequest<'_>, day: &SigningDay, signed_at: OffsetDateTime, ttl: u64, out: &mut Vec<u8>) {
        // Canonical order compares encoded bytes: `X-Amz-…` sorts before every lower-case name.
        out.extend_from_slice(&day.query);
        encoding::push_clock(out, signed_at);
        out.extend_from_slice(b"Z&X-Amz-Expires=");
        encoding::push_number(out, ttl);
        out.extend_from_slice(&self.token);
        out.extend_from_slice(b"&X-Amz-SignedHeaders=");
        push_names(out, request.headers, b"%3B");
        if request.query.is_sorted() {
            push_pairs(out, request.query);
        } else {
            let mut sorted = request.query.to_vec();
            sorted.sort_unstable();
            push_pairs(out, &sorted);
        }
    }

    /// Appends the part of the canonical request after the query: headers, their names, and the digest of the payload.
    fn push_canonical_headers(&self, request: &PresignRequest<'_>, out: &mut Vec<u8>) {
        out.push(b'\n');
        let (before, after) = around_host(request.headers);
        push_headers(out, before);
        push_headers(out, &[("host", self.location.host())]);
        push_headers(out, after);
        out.push(b'\n');
        push_names(out, request.headers, b";");
        out.extend_from_slice(b"\nUNSIGNED-PAYLOAD");
    }

    /// Returns the signing time in whole seconds of UTC, and the validity in seconds.
    fn lifetime(&self, signed_at: OffsetDateTime, ttl: Duration) -> Result<(OffsetDateTime, u64), CredentialsExpired> {
        let signed_at = signed_at.to_offset(UtcOffset::UTC).truncate_to_second();
        let mut ttl = ttl.min(MAX_EXPIRES).as_secs();
        if let Some(end) = self.credentials.expires_at {
            ttl = ttl.min(u64::try_from((end - signed_at).whole_seconds()).unwrap_or(0));
        }
        if ttl == 0 { Err(CredentialsExpired) } else { Ok((signed_at, ttl)) }
    }

    /// Returns the cached values of the day of this time in UTC.
    fn day(&self, signed_at: OffsetDateTime) -> Arc<SigningDay> {
        self.days.get(signed_at.date(), &self.credentials, &self.region)
    }
}

/// Signs the canonical request that follows the URL in the buffer, from `url_end` on, and replaces it with the signature.
fn push_signature(out: &mut Vec<u8>, url_end: usize, day: &SigningDay, signed_at: OffsetDateTime) {
    let digest = digest::digest(&digest::SHA256, &out[url_end..]);
    out.truncate(url_end);
    out.extend_from_slice(day.to_sign.as_bytes());
    encoding::push_clock(out, signed_at);
    out.extend_from_slice(day.scope.as_bytes());
    encoding::push_hex(out, digest.as_ref());
    let signature = hmac::sign(&day.key, &out[url_end..]);
    out.truncate(url_end);
    out.extend_from_slice(b"&X-Amz-Signature=");
    encoding::push_hex(out, signature.as_ref());
}

/// Names and values, sorted by name.
type Headers<'a> = &'a [(&'static str, &'a str)];

/// Returns the headers before `host` in canonical order, and those after it.
fn around_host(headers: Headers<'_>) -> (Headers<'_>, Headers<'_>) {
    debug_assert!(headers.is_sorted_by_key(|(name, _)| *name), "headers are given in canonical order");
    headers.split_at(headers.partition_point(|(name, _)| *name < "host"))
}

/// Appends the names of the headers and `host`, in canonical order.
fn push_names(out: &mut Vec<u8>, headers: Headers<'_>, separator: &[u8]) {
    let (before, after) = around_host(headers);
    for (name, _) in before {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(separator);
    }
    out.extend_from_slice(b"host");
    for (name, _) in after {
        out.extend_from_slice(separator);
        out.extend_from_slice(name.as_bytes());
    }
}

/// Appends a line for each header with a value.
fn push_headers(out: &mut Vec<u8>, headers: Headers<'_>) {
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        out.extend_from_slice(value.trim().as_bytes());
        out.push(b'\n');
    }
}

/// Appends query parameters with percent-encoded values, each after an ampersand.
fn push_pairs(out: &mut Vec<u8>, pairs: &[(&'static str, &str)]) {
    for (name, value) in pairs {
        debug_assert!(encoding::is_unreserved(name), "the name is written as it is");
        out.push(b'&');
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        encoding::push_component(out, value);
    }
}
