//! Deadlines of long S3 calls. A copy and the completion of a multipart upload may exceed the normal deadline while S3 still
//! responds to a cheap probe; otherwise they time out as usual.

use std::{future::Future, pin::pin, time::Duration};

use aws_sdk_s3::{config::timeout::TimeoutConfig, error::SdkError};

use super::{ATTEMPT_DEADLINE, Objects};
use crate::store::StoreError;

/// Returns a configuration with this timeout for one call.
pub(super) fn long_timeouts(longest: Duration) -> aws_sdk_s3::config::Builder {
    let timeouts = TimeoutConfig::builder().read_timeout(longest).operation_attempt_timeout(longest).operation_timeout(longest);
    aws_sdk_s3::config::Builder::new().timeout_config(timeouts.build())
}

impl Objects {
    /// Waits for `call` as long as the store responds to other requests meanwhile.
    pub(super) async fn await_while_reachable<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let mut call = pin!(call);
        loop {
            if let Ok(done) = tokio::time::timeout(ATTEMPT_DEADLINE, &mut call).await {
                return done;
            }
            tokio::select! {
                done = &mut call => return done,
                is_reachable = tokio::time::timeout(ATTEMPT_DEADLINE, self.is_reachable()) => {
                    if is_reachable != Ok(true) {
                        return Err(StoreError::ObjectsTimeout { operation });
                    }
                }
            }
        }
    }

    /// Returns whether the store responds at all, even with an error.
    pub async fn is_reachable(&self) -> bool {
        let answer = self.client.head_bucket().bucket(&self.bucket).send().await;
        !matches!(answer, Err(SdkError::TimeoutError(_) | SdkError::DispatchFailure(_)))
    }
}
