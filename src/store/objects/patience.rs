//! Calls that S3 answers only when it has done what takes long. They may take long while the store lives; one that says
//! nothing at all is given up as soon as for any other call.

use std::{future::Future, pin::pin, time::Duration};

use aws_sdk_s3::{config::timeout::TimeoutConfig, error::SdkError};

use super::{ATTEMPT, Objects};
use crate::store::StoreError;

/// For the call itself.
pub(super) fn patient(longest: Duration) -> aws_sdk_s3::config::Builder {
    let timeouts = TimeoutConfig::builder().read_timeout(longest).operation_attempt_timeout(longest).operation_timeout(longest);
    aws_sdk_s3::config::Builder::new().timeout_config(timeouts.build())
}

impl Objects {
    /// Waits for `call` for as long as the store answers other questions meanwhile.
    pub(super) async fn while_it_lives<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let mut call = pin!(call);
        loop {
            if let Ok(done) = tokio::time::timeout(ATTEMPT, &mut call).await {
                return done;
            }
            tokio::select! {
                done = &mut call => return done,
                lives = tokio::time::timeout(ATTEMPT, self.lives()) => {
                    if lives != Ok(true) {
                        return Err(StoreError::ObjectsTimeout { operation });
                    }
                }
            }
        }
    }

    /// Returns whether the store answers, be it with a refusal.
    pub async fn lives(&self) -> bool {
        let answer = self.client.head_bucket().bucket(&self.bucket).send().await;
        !matches!(answer, Err(SdkError::TimeoutError(_) | SdkError::DispatchFailure(_)))
    }
}
