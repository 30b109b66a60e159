//! Presigned PUTs, plain and sealed.
//!
//! A new signed header has to be added elsewhere too: ARCHITECTURE.md, "A header that a PUT signs", lists these places.
//!
//! A presigned URL does not restrict headers that it does not list. AWS rejects unsigned `x-amz-*` headers ("Authenticating
//! Requests: Using Query Parameters" in the S3 API reference); Ceph RGW obeys them. RGW ignores signed headers that a request
//! lacks, so a URL that lists them without a value is rejected as soon as a request carries one: it is sealed.

use std::{sync::atomic::Ordering, time::Duration};

use time::OffsetDateTime;

use super::{Objects, PresignedPut};
use crate::{
    model::{ContentType, ObjectKey, Sha256},
    signer::PresignRequest,
    store::StoreError,
};

/// Headers by which a PUT copies another object, publishes, tags, locks or encrypts what it writes, or changes the served
/// headers. `cache-control` is allowed: browsers add it by themselves, and read URLs pin their own.
const FORBIDDEN_HEADERS: [&str; 19] = [
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    "x-amz-acl",
    "x-amz-copy-source",
    "x-amz-copy-source-range",
    "x-amz-grant-full-control",
    "x-amz-grant-read",
    "x-amz-grant-read-acp",
    "x-amz-grant-write",
    "x-amz-grant-write-acp",
    "x-amz-object-lock-legal-hold",
    "x-amz-object-lock-mode",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-storage-class",
    "x-amz-tagging",
    "x-amz-website-redirect-location",
];

/// The object that a presigned PUT writes.
#[derive(Debug, Clone, Copy)]
pub struct NewObject {
    /// The type, sent with the request.
    pub content_type: ContentType,
    /// Size in bytes.
    pub size: u64,
    /// Digest of the bytes.
    pub sha256: Sha256,
}

/// Whether a presigned PUT lists forbidden headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealing {
    /// The URL lists no forbidden headers, for stores that reject unsigned ones.
    Plain,
    /// The URL lists forbidden headers without a value, for stores that were probed to accept such a URL.
    Sealed,
}

impl Objects {
    /// Sets how PUTs are presigned from now on; plain by default.
    pub fn seal_puts(&self, sealing: Sealing) {
        self.sealed.store(sealing == Sealing::Sealed, Ordering::Relaxed);
    }

    /// Presigns a PUT of these bytes, once: type, length, digest and `if-none-match: *` are signed. Sealed if
    /// [`Objects::seal_puts`] was set.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] when the credentials have expired.
    pub fn presign_put(
        &self,
        key: &ObjectKey,
        object: NewObject,
        now: OffsetDateTime,
        ttl: Duration,
    ) -> Result<PresignedPut, StoreError> {
        let sealing = if self.sealed.load(Ordering::Relaxed) { Sealing::Sealed } else { Sealing::Plain };
        self.presign_put_as(sealing, key, object, now, ttl)
    }

    /// Presigns as [`Objects::presign_put`] does, with a given sealing, for probing the store.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] when the credentials have expired.
    pub fn presign_put_as(
        &self,
        sealing: Sealing,
        key: &ObjectKey,
        object: NewObject,
        now: OffsetDateTime,
        ttl: Duration,
    ) -> Result<PresignedPut, StoreError> {
        let forbidden: &[&str] = if sealing == Sealing::Sealed { &FORBIDDEN_HEADERS } else { &[] };
        let (size, sha256) = (object.size.to_string(), object.sha256.to_string());
        let sent =
            [("content-type", object.content_type.as_str()), ("if-none-match", "*"), ("x-amz-checksum-sha256", sha256.as_str())];
        let mut headers = Vec::with_capacity(sent.len() + 1 + forbidden.len());
        headers.push(("content-length", size.as_str()));
        headers.extend(sent);
        headers.extend(forbidden.iter().map(|name| (*name, "")));
        headers.sort_unstable_by_key(|(name, _)| *name);
        let signed =
            self.presign(&PresignRequest { method: "PUT", key: key.as_str(), headers: &headers, query: &[] }, now, ttl)?;
        Ok(PresignedPut { signed, headers: sent.map(|(name, value)| (name, value.to_owned())).into() })
    }
}
