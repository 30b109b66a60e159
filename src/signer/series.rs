//! Presigned URLs that differ only in their keys, such as those of a page: the parts that they share are encoded once.

use std::{fmt, time::Duration};

use aws_lc_rs::{digest, hmac};
use time::OffsetDateTime;

use super::{CredentialsExpired, PresignRequest, Signer, TYPICAL_BUFFER_BYTES, encoding};

/// Presigns URLs of one method, with the same headers, query and lifetime.
pub struct UrlSeries {
    /// The scheme and host.
    origin: Vec<u8>,
    /// The path before the key.
    path: Vec<u8>,
    /// The query with its question mark, up to the signature.
    query: Vec<u8>,
    /// The canonical request before the path.
    before_path: Vec<u8>,
    /// The canonical request after the path.
    after_path: Vec<u8>,
    /// HMAC of the string to sign, up to the digest of the canonical request.
    signed: hmac::Context,
    expires_at: OffsetDateTime,
}

impl fmt::Debug for UrlSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UrlSeries").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

impl Signer {
    /// Begins a series of the URLs that [`Signer::presign`] makes of this request with any key; `request.key` is ignored.
    ///
    /// # Errors
    /// [`CredentialsExpired`].
    pub fn series(
        &self,
        request: &PresignRequest<'_>,
        signed_at: OffsetDateTime,
        ttl: Duration,
    ) -> Result<UrlSeries, CredentialsExpired> {
        let (signed_at, ttl) = self.lifetime(signed_at, ttl)?;
        let day = self.day(signed_at);
        // Capacities that suffice for this program's requests.
        let mut query = Vec::with_capacity(512 + 2 * self.token.len());
        self.push_query(request, &day, signed_at, ttl, &mut query);
        let mut after_path = Vec::with_capacity(query.len() + 128);
        after_path.push(b'\n');
        after_path.extend_from_slice(&query[1..]);
        self.push_canonical_headers(request, &mut after_path);
        query.extend_from_slice(b"&X-Amz-Signature=");
        let mut to_sign = Vec::with_capacity(128);
        to_sign.extend_from_slice(day.to_sign.as_bytes());
        encoding::push_clock(&mut to_sign, signed_at);
        to_sign.extend_from_slice(day.scope.as_bytes());
        let mut signed = hmac::Context::with_key(&day.key);
        signed.update(&to_sign);
        Ok(UrlSeries {
            origin: self.location.origin().as_bytes().to_vec(),
            path: self.location.path().as_bytes().to_vec(),
            query,
            before_path: [request.method.as_bytes(), b"\n"].concat(),
            after_path,
            signed,
            expires_at: signed_at + Duration::from_secs(ttl),
        })
    }
}

impl UrlSeries {
    /// Appends the URL of a key. The URL is plain ASCII without quotes or backslashes.
    pub fn push_url(&self, key: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.origin);
        let path_at = out.len();
        out.extend_from_slice(&self.path);
        encoding::push_path(out, key);
        let query_at = out.len();
        out.extend_from_slice(&self.query);
        let url_end = out.len();
        out.extend_from_slice(&self.before_path);
        out.extend_from_within(path_at..query_at);
        out.extend_from_slice(&self.after_path);
        let digest = digest::digest(&digest::SHA256, &out[url_end..]);
        // The digest is in the buffer only until it is signed.
        out.truncate(url_end);
        encoding::push_hex(out, digest.as_ref());
        let mut signed = self.signed.clone();
        signed.update(&out[url_end..]);
        out.truncate(url_end);
        encoding::push_hex(out, signed.sign().as_ref());
    }

    /// Returns the URL of a key.
    #[must_use]
    pub fn url(&self, key: &str) -> String {
        let mut url = Vec::with_capacity(TYPICAL_BUFFER_BYTES);
        self.push_url(key, &mut url);
        // Lossless: locations and encoded text are ASCII.
        String::from_utf8(url).unwrap_or_default()
    }

    /// Returns the time at which S3 stops accepting new requests with these URLs.
    #[must_use]
    pub fn expires_at(&self) -> OffsetDateTime {
        self.expires_at
    }
}
