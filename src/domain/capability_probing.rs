//! Probes the object store's capabilities at start, and again when the latest result is too old.

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;

use super::{
    doctor,
    store_capabilities::{KnownCapabilities, StoreCapabilities},
};
use crate::{
    config::Finalize,
    store::{Objects, without_failpoints},
};

/// Time limit of probing before the first request is served, and again of removing the probes' objects.
const DEADLINE_AT_START: Duration = Duration::from_secs(5);
/// Time limit of later probes, which run while the server serves requests, and again of removing their objects.
const DEADLINE: Duration = Duration::from_secs(30);

/// Probes the object store's capabilities.
#[derive(Debug)]
pub struct CapabilityProber {
    pub(super) objects: Arc<Objects>,
    pub(super) capabilities: Arc<KnownCapabilities>,
}

impl CapabilityProber {
    /// Probes the store like [`Self::probe`], with the shorter time limit of a server that starts.
    pub async fn probe_at_start(&self, now: OffsetDateTime) {
        self.probe_within(DEADLINE_AT_START, now).await;
    }

    /// Probes the store unless the latest result is recent enough. With `S3_FINALIZE=in-place` only the treatment of unsigned
    /// headers is probed: the setting states the rest. While the store does not answer, the latest result stays in use.
    pub async fn probe(&self, now: OffsetDateTime) {
        self.probe_within(DEADLINE, now).await;
    }

    /// Probes the store if a probe is due, for `deadline` at most.
    async fn probe_within(&self, deadline: Duration, now: OffsetDateTime) {
        if !self.capabilities.is_probe_due(now) {
            return;
        }
        // `now` may be any time in a sweep; the store compares signatures with its own clock.
        let signed_at = OffsetDateTime::now_utc();
        let setting = self.capabilities.setting();
        let probe = async {
            if setting == Finalize::InPlace {
                doctor::probe_unsigned_headers(&self.objects, signed_at, deadline).await.map(StoreCapabilities::all)
            } else {
                doctor::probe_capabilities(&self.objects, signed_at, deadline).await
            }
        };
        let probed = without_failpoints(probe).await;
        let previous = self.capabilities.latest();
        match probed {
            Ok(found) => {
                self.objects.seal_puts(found.unsigned_headers.put_sealing);
                if previous.is_none_or(|previous| previous.unsigned_headers != found.unsigned_headers) {
                    found.unsigned_headers.warn(setting);
                }
                let StoreCapabilities { writes_once, verifies_checksums, .. } = found;
                self.capabilities.set(found, now);
                let copies_uploads = self.capabilities.copies_uploads();
                tracing::info!(writes_once, verifies_checksums, copies_uploads, "probed S3 capabilities");
            }
            Err(error) if previous.is_some() => tracing::warn!(%error, "failed to probe S3 capabilities again"),
            Err(error) => {
                tracing::warn!(%error, "failed to probe S3 capabilities: every upload is refused with 503 until the store answers");
            }
        }
    }
}
