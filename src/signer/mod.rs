//! SigV4 query presigning: narrow keys to one object, for one method, for a short time.
//!
//! Pure: time is a parameter, nothing here does I/O or knows where credentials come from. The rules are those of the
//! AWS document "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)"; the tests hold its
//! published vector and compare every signed part with the presigner of aws-sdk-s3.

mod location;
#[cfg(test)]
mod tests;

use std::{fmt, sync::RwLock, time::Duration};

use aws_lc_rs::{digest, hmac};
use secrecy::{ExposeSecret, SecretString};
use time::{Date, OffsetDateTime};

pub use location::{InvalidLocation, Location};

/// The longest life S3 accepts for a presigned URL.
pub const MAX_EXPIRES: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What signs.
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

/// What a URL is to allow.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The one method the URL works for.
    pub method: &'static str,
    /// The object's key, not encoded.
    pub key: &'a str,
    /// Headers the client must send as given: lower-case names in ascending order, without `host`.
    pub headers: &'a [(&'static str, &'a str)],
    /// Query parameters besides the signature's own, not encoded.
    pub query: &'a [(&'static str, &'a str)],
}

/// A presigned URL: whoever holds it may use it, so Debug keeps its query back.
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
    /// The percent-encoded session token: constant for these credentials.
    token: Option<String>,
    day: RwLock<Option<DayKey>>,
}

/// The signing key of a day: four HMACs that need not be repeated for each URL.
struct DayKey {
    date: Date,
    key: hmac::Key,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("location", &self.location).field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

impl Signer {
    /// A signer for the bucket at `location`.
    #[must_use]
    pub fn new(location: Location, region: &str, credentials: Credentials) -> Self {
        let token = credentials.session_token.as_ref().map(|token| {
            let mut encoded = String::new();
            encode(&mut encoded, token.expose_secret(), false);
            encoded
        });
        Self { location, region: region.to_owned(), credentials, token, day: RwLock::new(None) }
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
        let signed_at = signed_at.replace_nanosecond(0).unwrap_or(signed_at);
        let mut ttl = ttl.min(MAX_EXPIRES).as_secs();
        if let Some(end) = self.credentials.expires_at {
            ttl = ttl.min(u64::try_from((end - signed_at).whole_seconds()).unwrap_or(0));
        }
        if ttl == 0 {
            return Err(CredentialsExpired);
        }
        let date = date_stamp(signed_at.date());
        let instant = format!("{date}T{:02}{:02}{:02}Z", signed_at.hour(), signed_at.minute(), signed_at.second());

        let mut url = String::with_capacity(640);
        url.push_str(self.location.origin());
        let path_at = url.len();
        url.push_str(self.location.path());
        encode(&mut url, request.key, true);
        let query_at = url.len() + 1;

        // Canonical order is by encoded bytes: `X-Amz-…` before every lower-case name.
        url.push_str("?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=");
        encode(&mut url, &self.credentials.access_key_id, false);
        url.push_str(&format!("%2F{date}%2F{}%2Fs3%2Faws4_request&X-Amz-Date={instant}&X-Amz-Expires={ttl}", self.region));
        if let Some(token) = &self.token {
            url.push_str("&X-Amz-Security-Token=");
            url.push_str(token);
        }
        let signed_headers = signed_headers(request.headers);
        url.push_str("&X-Amz-SignedHeaders=");
        encode(&mut url, &signed_headers, false);
        let mut extra: Vec<_> = request.query.to_vec();
        extra.sort_unstable();
        for (name, value) in extra {
            url.push('&');
            encode(&mut url, name, false);
            url.push('=');
            encode(&mut url, value, false);
        }

        let mut canonical = String::with_capacity(url.len() + 256);
        canonical.push_str(request.method);
        canonical.push('\n');
        canonical.push_str(&url[path_at..query_at - 1]);
        canonical.push('\n');
        canonical.push_str(&url[query_at..]);
        canonical.push('\n');
        let host = ("host", self.location.host());
        let at = request.headers.partition_point(|(name, _)| *name < "host");
        for (name, value) in request.headers[..at].iter().chain([&host]).chain(&request.headers[at..]) {
            canonical.push_str(name);
            canonical.push(':');
            canonical.push_str(value.trim());
            canonical.push('\n');
        }
        canonical.push('\n');
        canonical.push_str(&signed_headers);
        canonical.push_str("\nUNSIGNED-PAYLOAD");

        let digest = digest::digest(&digest::SHA256, canonical.as_bytes());
        let mut to_sign = format!("AWS4-HMAC-SHA256\n{instant}\n{date}/{}/s3/aws4_request\n", self.region);
        push_hex(&mut to_sign, digest.as_ref());
        let signature = self.sign(signed_at.date(), to_sign.as_bytes());
        url.push_str("&X-Amz-Signature=");
        push_hex(&mut url, signature.as_ref());
        Ok(Presigned { url, expires_at: signed_at + Duration::from_secs(ttl) })
    }

    fn sign(&self, date: Date, message: &[u8]) -> hmac::Tag {
        // A poisoned lock holds a whole key or none: both are safe to go on with.
        if let Some(day) = self.day.read().unwrap_or_else(std::sync::PoisonError::into_inner).as_ref()
            && day.date == date
        {
            return hmac::sign(&day.key, message);
        }
        let secret = format!("AWS4{}", self.credentials.secret_access_key.expose_secret());
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        for step in [date_stamp(date).as_str(), &self.region, "s3", "aws4_request"] {
            key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, step.as_bytes()).as_ref());
        }
        let tag = hmac::sign(&key, message);
        *self.day.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(DayKey { date, key });
        tag
    }
}

fn date_stamp(date: Date) -> String {
    format!("{:04}{:02}{:02}", date.year(), u8::from(date.month()), date.day())
}

fn signed_headers(headers: &[(&'static str, &str)]) -> String {
    let at = headers.partition_point(|(name, _)| *name < "host");
    let names: Vec<_> =
        headers[..at].iter().map(|(name, _)| *name).chain(["host"]).chain(headers[at..].iter().map(|(name, _)| *name)).collect();
    debug_assert!(names.is_sorted(), "headers are given in canonical order");
    names.join(";")
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// SigV4's `UriEncode`: every byte but RFC 3986's unreserved ones, space as `%20`, and `/` kept in paths, encoded once.
fn encode(out: &mut String, text: &str, keep_slash: bool) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (keep_slash && byte == b'/') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}
