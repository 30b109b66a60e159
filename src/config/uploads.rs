//! Settings of uploads: limits of size and number, accepted types, and lifetimes.

use std::time::Duration;

use super::{hours, reader::Reader};
use crate::{model::ContentType, signer};

/// The shortest validity of a GET URL: one that is returned has at least half of it left, five seconds for a client on a phone.
const MIN_READ_URL_TTL: Duration = Duration::from_secs(10);

/// The shortest lifetime of an upload and its URL: of one second, a URL signed in whole seconds may have nothing left.
const MIN_UPLOAD_TTL: Duration = Duration::from_secs(2);

/// Limits and lifetimes of uploads.
#[derive(Debug, Clone)]
pub struct Uploads {
    /// The largest file of a single PUT, in bytes.
    pub max_bytes: u64,
    /// The accepted media types.
    pub types: Vec<ContentType>,
    /// How long a PUT URL is valid.
    pub url_ttl: Duration,
    /// How long an upload stays open; its URL can be renewed until then.
    pub ttl: Duration,
    /// Open uploads per user.
    pub max_pending: u32,
    /// How long a GET URL is valid.
    pub read_url_ttl: Duration,
    /// The largest file of a multipart upload, in bytes.
    pub multipart_max_bytes: u64,
    /// How long a multipart upload stays open; URLs of its parts can be requested until then.
    pub multipart_ttl: Duration,
    /// Bytes per user.
    pub quota_bytes: u64,
    /// `KEEP_LOCATION`: whether the position in an image's metadata is recorded in the database and shown to its owner.
    pub keep_location: bool,
}

impl Reader<'_> {
    pub(super) fn uploads(&mut self) -> Uploads {
        let mut upload_ttl = |name, default| self.lifetime(name, default, (MIN_UPLOAD_TTL, hours(24 * 30)));
        let ttl = upload_ttl("UPLOAD_TTL", hours(24));
        let multipart_ttl = upload_ttl("MULTIPART_TTL", hours(24 * 7));
        // A shorter lifetime of uploads shortens the default of their URLs.
        let url_ttl = hours(1).min(ttl).min(multipart_ttl);
        Uploads {
            max_bytes: self.bytes("UPLOAD_MAX_BYTES", 50 << 20, 5 << 30),
            types: self.types("UPLOAD_TYPES"),
            url_ttl: self.lifetime("UPLOAD_URL_TTL", url_ttl, (MIN_UPLOAD_TTL, signer::MAX_EXPIRES)),
            ttl,
            max_pending: u32::try_from(self.number("UPLOAD_MAX_PENDING", 1000, 10_000)).unwrap_or(u32::MAX),
            read_url_ttl: self.lifetime("READ_URL_TTL", Duration::from_secs(300), (MIN_READ_URL_TTL, signer::MAX_EXPIRES)),
            multipart_max_bytes: self.bytes("MULTIPART_MAX_BYTES", 5 << 30, 5 << 40),
            multipart_ttl,
            quota_bytes: self.bytes("USER_QUOTA_BYTES", 10 << 30, 1 << 60),
            keep_location: self.flag("KEEP_LOCATION", false),
        }
    }
}
