//! Transfers that begin before their URL expires and end after it.

use std::time::Duration;

use crate::model::Image;

/// Transfer rate of the slowest client that is waited for; a large file gets a grace period in proportion.
const SLOWEST_BYTES_PER_SECOND: u64 = 32 * 1024;

/// Times until which transfers arrive that began before their URL expired: S3 checks the expiry when a request begins, and a slow
/// transfer continues.
#[derive(Debug, Clone, Copy)]
pub(super) struct LateTransfers {
    pub(super) min_grace: Duration,
}

impl LateTransfers {
    /// Returns how long after a URL's expiry a transfer of `size` bytes may still arrive.
    pub(super) fn grace(&self, size: u64) -> Duration {
        self.min_grace.max(Duration::from_secs(size / SLOWEST_BYTES_PER_SECOND))
    }

    /// Returns the time after which no PUT for this image can arrive.
    pub(super) fn quiet_from(&self, image: &Image) -> time::OffsetDateTime {
        image.urls_die_at + self.grace(image.upload.largest_transfer())
    }
}
