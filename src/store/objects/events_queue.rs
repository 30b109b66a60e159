//! The SQS queue to which the bucket's notifications go.

use std::{sync::Arc, time::Duration};

use aws_sdk_sqs::{
    Client,
    config::{BehaviorVersion, IdentityCache, Region, retry::RetryConfig, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata, SdkError},
    types::{DeleteMessageBatchRequestEntry, QueueAttributeName},
};

use super::{Objects, StoreError, credentials::CachedCredentials};
use crate::config::QueueUrl;

/// Time for which a request waits for a message: the maximum of SQS.
const LONG_POLL_SECONDS: i32 = 20;
/// Messages that one request receives: the maximum of SQS.
const MAX_MESSAGES: i32 = 10;
/// Time for which a received message is hidden from other servers: far longer than handling [`MAX_MESSAGES`] takes.
const HIDDEN_SECONDS: i32 = 60;
/// Deadline of a request without a long poll.
const DEADLINE: Duration = Duration::from_secs(6);
/// Deadline of a long poll: its wait and [`DEADLINE`].
const POLL_DEADLINE: Duration = Duration::from_secs(LONG_POLL_SECONDS.unsigned_abs() as u64 + DEADLINE.as_secs());
/// Deadline of connecting.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// A client of the queue.
#[derive(Debug, Clone)]
pub struct EventsQueue {
    sqs: Client,
    url: Arc<str>,
}

/// A message that was received, and is hidden from other servers for a minute.
#[derive(Debug, Clone)]
pub struct EventsMessage {
    /// The notification.
    pub body: String,
    receipt: String,
}

impl EventsQueue {
    /// Creates a client with the bucket's credentials. Sends nothing.
    #[must_use]
    pub fn new(objects: &Objects, queue: &QueueUrl) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_DEADLINE)
            .read_timeout(POLL_DEADLINE)
            .operation_attempt_timeout(POLL_DEADLINE)
            .operation_timeout(POLL_DEADLINE)
            .build();
        let region = queue.region().unwrap_or(&objects.region).to_owned();
        // Like the configuration of the bucket's client, this one is not based on the environment.
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region))
            .endpoint_url(queue.origin())
            .credentials_provider(CachedCredentials(objects.signer.clone()))
            .identity_cache(IdentityCache::no_cache())
            .http_client(objects.trust.sdk_client())
            .timeout_config(timeouts)
            // The caller repeats failed requests.
            .retry_config(RetryConfig::disabled());
        Self { sqs: Client::from_conf(config.build()), url: queue.to_string().into() }
    }

    /// Waits up to twenty seconds for messages, and hides them from other servers for a minute.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn receive(&self) -> Result<Vec<EventsMessage>, StoreError> {
        let receive = self.sqs.receive_message().queue_url(&*self.url).max_number_of_messages(MAX_MESSAGES);
        let receive = receive.wait_time_seconds(LONG_POLL_SECONDS).visibility_timeout(HIDDEN_SECONDS);
        let received = receive.send().await.map_err(|error| error_of("ReceiveMessage", &error))?;
        let messages = received.messages.unwrap_or_default().into_iter();
        Ok(messages
            .filter_map(|message| {
                Some(EventsMessage { body: message.body.unwrap_or_default(), receipt: message.receipt_handle? })
            })
            .collect())
    }

    /// Deletes messages. One that cannot be deleted is received again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete(&self, messages: &[EventsMessage]) -> Result<(), StoreError> {
        if messages.is_empty() {
            return Ok(());
        }
        let entries = messages.iter().enumerate().map(|(at, message)| {
            let entry = DeleteMessageBatchRequestEntry::builder().id(at.to_string()).receipt_handle(&message.receipt);
            entry.build().map_err(|_| failed("DeleteMessageBatch", "the request could not be built".to_owned()))
        });
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        let delete = self.sqs.delete_message_batch().queue_url(&*self.url).set_entries(Some(entries)).send();
        let deleted = within_deadline("DeleteMessageBatch", delete).await?;
        match deleted.failed().first() {
            Some(first) => Err(failed("DeleteMessageBatch", format!("{} messages, {}", deleted.failed().len(), first.code()))),
            None => Ok(()),
        }
    }

    /// Returns the queue's ARN, which shows that the queue exists and that the credentials may use it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn arn(&self) -> Result<String, StoreError> {
        let request = self.sqs.get_queue_attributes().queue_url(&*self.url).attribute_names(QueueAttributeName::QueueArn);
        let answer = within_deadline("GetQueueAttributes", request.send()).await?;
        let arn = answer.attributes().and_then(|attributes| attributes.get(&QueueAttributeName::QueueArn));
        arn.cloned().ok_or_else(|| failed("GetQueueAttributes", "the answer has no QueueArn".to_owned()))
    }
}

/// Runs a request without a long poll, at most for [`DEADLINE`].
async fn within_deadline<T, E>(
    operation: &'static str,
    call: impl Future<Output = Result<T, SdkError<E>>>,
) -> Result<T, StoreError>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(answer) => answer.map_err(|error| error_of(operation, &error)),
        Err(_) => Err(failed(operation, format!("no response within {} s", DEADLINE.as_secs()))),
    }
}

/// Describes a failed call by status and code alone: texts may contain the queue's URL.
fn error_of<E>(operation: &'static str, error: &SdkError<E>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let status = error.raw_response().map(|response| response.status().as_u16());
    let reason = match (status, error.code()) {
        (Some(status), Some(code)) => format!("{status}: {code}"),
        (Some(status), None) => format!("{status}, without an error code"),
        (None, _) => match error {
            SdkError::TimeoutError(_) => "no response in time".to_owned(),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => "no response in time".to_owned(),
            SdkError::DispatchFailure(failure) if failure.is_io() => "the connection failed".to_owned(),
            _ => "the request could not be sent".to_owned(),
        },
    };
    failed(operation, reason)
}

/// Returns the error of a failed request.
fn failed(operation: &'static str, reason: String) -> StoreError {
    StoreError::Objects { operation, reason }
}
