//! SigV4 query presigning and POST policies: narrow keys to one object, for one method, for a short time.
//!
//! Pure: time is a parameter, nothing here does I/O or knows where credentials come from. The rules are those of the
//! AWS document "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)"; the tests hold its
//! published vectors and compare every signed part with the presigner of aws-sdk-s3.
//!
//! Here are the URLs, `form` has the policies. What one key and day have in common is made once (`day`); a URL and its
//! canonical request are written into one buffer, and nothing else is allocated (benches/signer.rs has the figures).

mod day;
mod form;
mod location;
mod names;
#[cfg(test)]
mod tests;
mod text;

use std::{fmt, sync::Arc, time::Duration};

use aws_lc_rs::{digest, hmac};
use secrecy::{ExposeSecret, SecretString};
use time::{OffsetDateTime, UtcOffset};

use self::day::{Day, Days};
pub use form::{Form, SignedForm};
pub use location::{AwsEndpoint, InvalidRegion, Location};
pub use names::{BucketName, Endpoint, InvalidBucketName, InvalidEndpoint};

/// The longest life S3 accepts for a presigned URL.
pub const MAX_EXPIRES: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A signer of URLs and forms.
#[derive(Clone)]
pub struct Credentials {
    /// Names the key to S3; part of every URL.
    pub access_key_id: String,
    /// Never leaves this module but as an HMAC.
    pub secret_access_key: SecretString,
    /// Of temporary credentials; signed into every URL.
    pub session_token: Option<SecretString>,
    /// When temporary credentials end; every URL ends with them.
    pub expires_at: Option<OffsetDateTime>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// A request to presign.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The one method the URL works for.
    pub method: &'static str,
    /// The object's key, not encoded.
    pub key: &'a str,
    /// Headers the client must send as given: lower-case names in ascending order, without `host`. One with an empty value must
    /// not be sent: it is named in `X-Amz-SignedHeaders` and has no line in the canonical request. Only stores that pass over
    /// signed headers which a request lacks take such a URL (Ceph RGW; AWS refuses it).
    pub headers: &'a [(&'static str, &'a str)],
    /// Query parameters besides the signature's own, not encoded.
    pub query: &'a [(&'static str, &'a str)],
}

/// A presigned URL. It is a secret, so Debug leaves its query out.
#[derive(Clone, PartialEq, Eq)]
pub struct Presigned {
    /// The whole URL.
    pub url: String,
    /// When S3 stops beginning requests with it.
    pub expires_at: OffsetDateTime,
}

impl fmt::Debug for Presigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.url.split('?').next().unwrap_or_default();
        f.debug_struct("Presigned").field("path", &path).field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// The credentials have ended; nothing signed with them would work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credentials for S3 have expired")]
pub struct CredentialsExpired;

/// Presigns for one bucket with one set of credentials.
pub struct Signer {
    location: Location,
    region: String,
    credentials: Credentials,
    /// `&X-Amz-Security-Token=…`, encoded; empty without a token. Constant for these credentials.
    token: Vec<u8>,
    days: Days,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("location", &self.location).field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

/// Room for a URL and its canonical request as this program makes them, without a session token.
const ROOM: usize = 1400;

impl Signer {
    /// Returns the credentials it signs with.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// A signer for the bucket at `location`.
    #[must_use]
    pub fn new(location: Location, region: &str, credentials: Credentials) -> Self {
        let mut token = Vec::new();
        if let Some(text) = &credentials.session_token {
            token.extend_from_slice(b"&X-Amz-Security-Token=");
            text::encode(&mut token, text.expose_secret(), false);
        }
        Self { location, region: region.to_owned(), credentials, token, days: Days::default() }
    }

    /// A signer with the same credentials for the bucket under another address.
    #[must_use]
    pub fn at(&self, location: Location) -> Self {
        Self::new(location, &self.region, self.credentials.clone())
    }

    /// A URL that S3 accepts from `signed_at` on for `ttl`, or until the credentials end, if that is sooner.
    /// S3 counts in whole seconds; so does the result.
    ///
    /// # Errors
    /// [`CredentialsExpired`] when less than a second would be left.
    pub fn presign(
        &self,
        request: &Request<'_>,
        signed_at: OffsetDateTime,
        ttl: Duration,
    ) -> Result<Presigned, CredentialsExpired> {
        let mut url = Vec::with_capacity(ROOM + 2 * self.token.len());
        let expires_at = self.presign_into(request, signed_at, ttl, &mut url)?;
        // Locations and encoded text are ASCII.
        Ok(Presigned { url: String::from_utf8(url).unwrap_or_default(), expires_at })
    }

    /// [`Signer::presign`] for many URLs in one buffer: appends the URL, which is plain ASCII without quotes or backslashes,
    /// and answers when it ends.
    ///
    /// # Errors
    /// [`CredentialsExpired`]; nothing is appended then.
    pub fn presign_into(
        &self,
        request: &Request<'_>,
        signed_at: OffsetDateTime,
        ttl: Duration,
        out: &mut Vec<u8>,
    ) -> Result<OffsetDateTime, CredentialsExpired> {
        let (signed_at, ttl) = self.life(signed_at, ttl)?;
        let day = self.day(signed_at);

        out.extend_from_slice(self.location.origin().as_bytes());
        let path = out.len();
        out.extend_from_slice(self.location.path().as_bytes());
        text::encode(out, request.key, true);
        let query = out.len();
        // Canonical order is by encoded bytes: `X-Amz-…` before every lower-case name.
        out.extend_from_slice(&day.query);
        text::push_clock(out, signed_at);
        out.extend_from_slice(b"Z&X-Amz-Expires=");
        text::push_number(out, ttl);
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
        let end = out.len();

        // The canonical request stands behind the URL for as long as its digest takes, then the string to sign.
        out.extend_from_slice(request.method.as_bytes());
        out.push(b'\n');
        out.extend_from_within(path..query);
        out.push(b'\n');
        out.extend_from_within(query + 1..end);
        out.push(b'\n');
        let (before, after) = around_host(request.headers);
        push_headers(out, before);
        push_headers(out, &[("host", self.location.host())]);
        push_headers(out, after);
        out.push(b'\n');
        push_names(out, request.headers, b";");
        out.extend_from_slice(b"\nUNSIGNED-PAYLOAD");
        let digest = digest::digest(&digest::SHA256, &out[end..]);
        out.truncate(end);

        out.extend_from_slice(day.to_sign.as_bytes());
        text::push_clock(out, signed_at);
        out.extend_from_slice(day.scope.as_bytes());
        text::push_hex(out, digest.as_ref());
        let signature = hmac::sign(&day.key, &out[end..]);
        out.truncate(end);

        out.extend_from_slice(b"&X-Amz-Signature=");
        text::push_hex(out, signature.as_ref());
        Ok(signed_at + Duration::from_secs(ttl))
    }

    /// The signing time in whole seconds of UTC, and how many seconds it may hold.
    fn life(&self, signed_at: OffsetDateTime, ttl: Duration) -> Result<(OffsetDateTime, u64), CredentialsExpired> {
        let signed_at = signed_at.to_offset(UtcOffset::UTC).truncate_to_second();
        let mut ttl = ttl.min(MAX_EXPIRES).as_secs();
        if let Some(end) = self.credentials.expires_at {
            ttl = ttl.min(u64::try_from((end - signed_at).whole_seconds()).unwrap_or(0));
        }
        if ttl == 0 { Err(CredentialsExpired) } else { Ok((signed_at, ttl)) }
    }

    fn day(&self, signed_at: OffsetDateTime) -> Arc<Day> {
        self.days.get(signed_at.date(), &self.credentials, &self.region)
    }
}

/// Names and values, sorted by name.
type Headers<'a> = &'a [(&'static str, &'a str)];

/// The headers that stand before `host` in canonical order, and those behind it.
fn around_host(headers: Headers<'_>) -> (Headers<'_>, Headers<'_>) {
    debug_assert!(headers.is_sorted_by_key(|(name, _)| *name), "headers are given in canonical order");
    headers.split_at(headers.partition_point(|(name, _)| *name < "host"))
}

fn push_names(out: &mut Vec<u8>, headers: &[(&'static str, &str)], separator: &[u8]) {
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

fn push_headers(out: &mut Vec<u8>, headers: &[(&'static str, &str)]) {
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        out.extend_from_slice(value.trim().as_bytes());
        out.push(b'\n');
    }
}

fn push_pairs(out: &mut Vec<u8>, pairs: &[(&'static str, &str)]) {
    for (name, value) in pairs {
        out.push(b'&');
        text::encode(out, name, false);
        out.push(b'=');
        text::encode(out, value, false);
    }
}
