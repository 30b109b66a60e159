//! Checks that workers make the previews: no image waits for long. If the queue is empty, the answer is yes, even without a worker.

use std::time::Duration;

use time::OffsetDateTime;

use super::{Answer, answer_if};
use crate::{config::Config, store::database_probe::DatabaseProbe};

/// Maximum time for which an image waits while workers keep up and no outage interrupts them. The alert on
/// `valet_preview_lag_seconds` has the same threshold.
const MAX_WAIT: Duration = Duration::from_secs(15 * 60);

/// Checks the time for which the oldest image has waited for its previews.
pub(super) async fn examine(config: &Config, now: OffsetDateTime) -> Answer {
    if config.previews.worker().is_none() {
        return Answer::Skipped("PREVIEWS is not worker".to_owned());
    }
    let oldest = async { DatabaseProbe::open(&config.mongo).await?.oldest_waiting_rendering(now).await };
    match oldest.await {
        Ok(None) => Answer::Yes("no image waits".to_owned()),
        Ok(Some(since)) => {
            let minutes = (now - since).whole_minutes();
            answer_if(now - since <= MAX_WAIT, format!("an image waits for its previews since {minutes} min"))
        }
        Err(error) => Answer::Skipped(error.to_string()),
    }
}
