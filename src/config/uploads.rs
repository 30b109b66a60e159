//! Settings of uploads: limits of size and number, accepted types, and lifetimes.

use std::time::Duration;

use super::{hours, reader::Reader};
use crate::{model::ContentType, signer};

/// The shortest lifetime of a GET URL. A URL in a response has at least half of it left: five seconds, for a client on a phone.
const MIN_READ_URL_TTL: Duration = Duration::from_secs(10);

/// The shortest lifetime of an upload and its URL. URLs are signed in whole seconds: one with a lifetime of a second may arrive
/// expired.
const MIN_UPLOAD_TTL: Duration = Duration::from_secs(2);

/// Limits and lifetimes of uploads.
#[derive(Debug, Clone)]
pub struct Uploads {
    /// The largest file of a single PUT, in bytes.
    pub max_bytes: u64,
    /// The accepted media types.
    pub types: Vec<ContentType>,
    /// Lifetime of a PUT URL.
    pub url_ttl: Duration,
    /// Lifetime of an open upload, during which its URL can be renewed.
    pub ttl: Duration,
    /// Maximum number of open uploads per user.
    pub max_pending: u32,
    /// Lifetime of a GET URL.
    pub read_url_ttl: Duration,
    /// The largest file of a multipart upload, in bytes.
    pub multipart_max_bytes: u64,
    /// Lifetime of an open multipart upload, during which URLs of its parts can be requested.
    pub multipart_ttl: Duration,
    /// Quota in bytes of users without one of their own.
    pub quota_bytes: u64,
    /// `KEEP_LOCATION`: whether the position in an image's metadata is recorded in the database and shown to its owner.
    pub keep_location: bool,
}

impl Reader<'_> {
    /// Reads the settings of uploads.
    pub(super) fn uploads(&mut self) -> Uploads {
        let mut upload_ttl = |name, default| self.duration_within(name, default, MIN_UPLOAD_TTL..=hours(24 * 30));
        let ttl = upload_ttl("UPLOAD_TTL", hours(24));
        let multipart_ttl = upload_ttl("MULTIPART_TTL", hours(24 * 7));
        // A shorter lifetime of uploads shortens the default of their URLs.
        let url_ttl = hours(1).min(ttl).min(multipart_ttl);
        Uploads {
            max_bytes: self.bytes("UPLOAD_MAX_BYTES", 50 << 20, 5 << 30),
            types: self.types("UPLOAD_TYPES"),
            url_ttl: self.duration_within("UPLOAD_URL_TTL", url_ttl, MIN_UPLOAD_TTL..=signer::MAX_EXPIRES),
            ttl,
            max_pending: u32::try_from(self.number("UPLOAD_MAX_PENDING", 1000, 10_000)).unwrap_or(u32::MAX),
            read_url_ttl: self.duration_within("READ_URL_TTL", Duration::from_secs(300), MIN_READ_URL_TTL..=signer::MAX_EXPIRES),
            multipart_max_bytes: self.bytes("MULTIPART_MAX_BYTES", 5 << 30, 5 << 40),
            multipart_ttl,
            quota_bytes: self.bytes("USER_QUOTA_BYTES", 10 << 30, 1 << 60),
            keep_location: self.flag("KEEP_LOCATION", false),
        }
    }
}
