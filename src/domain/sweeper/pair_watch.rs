//! Detects, for running sweepers and workers, that the bucket belongs to another database, and renews the stamps of the pair.

use std::{sync::Arc, time::Duration};

use tracing::Instrument;

use crate::{
    config,
    domain::deployment::{Deployment, PairError, STAMP_INTERVAL},
    telemetry::spans,
};

/// Shortest interval between two checks of the pair. Within these bounds, the interval is that of the sweeper.
const MIN_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Longest interval between two checks of the pair.
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// Time limit of the last stamp when a server stops.
const LAST_STAMP_TIMEOUT: Duration = Duration::from_secs(2);

/// Checks the pair of bucket and database at intervals.
#[derive(Debug)]
pub(in crate::domain) struct PairWatch {
    pub(in crate::domain) sweep: config::Sweep,
    pub(in crate::domain) deployment: Arc<Deployment>,
}

impl PairWatch {
    /// Checks the pair at intervals, and stamps it. Returns the mismatch when the bucket belongs to another database.
    pub(in crate::domain) async fn watch_pair(&self) -> PairError {
        loop {
            if let Err(error) = self.check_pair(STAMP_INTERVAL).await {
                if self.deployment.is_mismatched() {
                    return error;
                }
                // The sweep continues without the check, because the bucket belonged to this database at the start.
                tracing::warn!(%error, "failed to check that the bucket belongs to the database");
            }
            self.pause_between_checks().await;
        }
    }

    /// Waits until bucket and database belong together.
    pub(in crate::domain) async fn wait_until_paired(&self) {
        loop {
            self.pause_between_checks().await;
            match self.check_pair(STAMP_INTERVAL).await {
                Ok(()) => return tracing::warn!("working again: bucket and database belong together"),
                Err(error) => tracing::error!(%error, "still stopped: the bucket belongs to another database"),
            }
        }
    }

    /// Stamps the pair, so that a backup from before the stop is recognized when it is restored.
    pub(super) async fn stamp_at_stop(&self) {
        let stamped = tokio::time::timeout(LAST_STAMP_TIMEOUT, self.check_pair(Duration::ZERO)).await;
        if !matches!(stamped, Ok(Ok(()))) {
            tracing::info!(reason = ?stamped, "failed to stamp bucket and database before the stop");
        }
    }

    /// Verifies the pair of bucket and database, if the last check is older than `max_age`.
    async fn check_pair(&self, max_age: Duration) -> Result<(), PairError> {
        self.deployment.check_and_stamp_pair(max_age).instrument(spans::internal("pair")).await
    }

    /// Waits until the next check of the pair.
    async fn pause_between_checks(&self) {
        tokio::time::sleep(self.sweep.interval.clamp(MIN_CHECK_INTERVAL, MAX_CHECK_INTERVAL)).await;
    }
}
