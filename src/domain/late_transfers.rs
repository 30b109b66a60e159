//! Transfers that begin before their URL expires and end after it.

use std::time::Duration;

use crate::model::Image;

/// Transfer rate of the slowest client that the server waits for; a large file gets a grace period in proportion.
const SLOWEST_BYTES_PER_SECOND: u64 = 32 * 1024;

/// Grace periods of transfers that end after their URL has expired: S3 checks the expiry only when a request begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct LateTransfers {
    /// Grace period of small transfers.
    pub(super) min_grace: Duration,
}

impl LateTransfers {
    /// Returns how long after a URL's expiry a transfer of `size` bytes may still arrive.
    pub(super) fn grace(&self, size: u64) -> Duration {
        self.min_grace.max(Duration::from_secs(size / SLOWEST_BYTES_PER_SECOND))
    }

    /// Returns the time after which nothing can be written for this image: by a client, or by a server that completes or copies
    /// the upload.
    pub(super) fn writes_end_at(&self, image: &Image) -> time::OffsetDateTime {
        let attempts_end = image.attempts_end_at.map(|end| end + self.grace(0));
        attempts_end.map_or(self.url_writes_end_at(image), |end| end.max(self.url_writes_end_at(image)))
    }

    /// Returns the time after which no PUT of a client can arrive. Unlike [`Self::writes_end_at`], no attempt to complete or copy
    /// the upload moves it.
    pub(super) fn url_writes_end_at(&self, image: &Image) -> time::OffsetDateTime {
        image.urls_expire_at + self.grace(image.upload.largest_transfer())
    }
}
