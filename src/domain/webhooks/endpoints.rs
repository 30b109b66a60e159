//! Administers webhook endpoints for the operator: `valet webhook …`.

use std::sync::Arc;

use secrecy::SecretString;
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::delivery::{WebhookDelivery, is_rotating};
use crate::{
    model::{EndpointState, EventId, MAX_WEBHOOK_ENDPOINTS, WebhookEndpoint, parse_endpoint_url},
    store::{Attempt, Store, StoreError},
};

/// Why an endpoint could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The URL cannot be an endpoint's.
    #[error("this is not an https address without credentials and fragment (http needs WEBHOOK_ALLOW)")]
    Url,
    /// A type does not have the form of Standard Webhooks.
    #[error("a type consists of letters, digits, dots and underscores, such as image.ready")]
    Type,
    /// The maximum number of endpoints exists.
    #[error("there are {MAX_WEBHOOK_ENDPOINTS} endpoints, and there may be no more")]
    TooMany,
    /// No endpoint has this id.
    #[error("no endpoint has this id: see valet webhook list")]
    Unknown,
    /// The endpoint is off, so that messages would be given up.
    #[error("the endpoint is off, and messages to it would be given up: see valet webhook enable")]
    Off,
    /// The last rotation is recent: after another one, messages would no longer be signed with the secret that receivers may use.
    #[error(
        "the secret was replaced less than 24 hours ago (see valet webhook secret), and receivers may still use the one before, \
         which another replacement ends: wait, or add --force"
    )]
    RotatedRecently,
    /// Another command rotated the secret at the same time.
    #[error("another command rotated the secret at the same time: see valet webhook secret")]
    Rotated,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Effect of a rotation while messages are still signed with the secret before the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreviousSecret {
    /// The rotation is rejected.
    Kept,
    /// That secret signs no more messages.
    Ended,
}

/// Administers endpoints.
#[derive(Debug)]
pub struct Endpoints {
    pub(in crate::domain) store: Arc<Store>,
    pub(in crate::domain) delivery: Arc<WebhookDelivery>,
}

impl Endpoints {
    /// Adds an endpoint that receives messages of these types; of all types if the list is empty.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub async fn add(&self, url: &str, types: Vec<String>, now: OffsetDateTime) -> Result<WebhookEndpoint, EndpointError> {
        let parsed = parse_endpoint_url(url).ok_or(EndpointError::Url)?;
        if parsed.scheme() != "https" && !self.delivery.allows_plain_http() {
            return Err(EndpointError::Url);
        }
        let is_type = |name: &String| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
        };
        if !types.iter().all(is_type) {
            return Err(EndpointError::Type);
        }
        let endpoint = WebhookEndpoint {
            id: EventId::new().to_string(),
            url: parsed.into(),
            types,
            secret_generation: 1,
            rotated_at: None,
            state: EndpointState::On,
            disabled_reason: None,
            first_failure_at: None,
            created_at: now,
        };
        // Each endpoint has a slot of its own, so that concurrent commands cannot add more than the maximum.
        self.store.webhook_endpoints.make_indexes().await?;
        let taken = self.store.webhook_endpoints.find_slots().await?;
        for slot in (0..MAX_WEBHOOK_ENDPOINTS).filter(|slot| !taken.contains(slot)) {
            if self.store.webhook_endpoints.insert(&endpoint, slot).await? {
                return Ok(endpoint);
            }
        }
        Err(EndpointError::TooMany)
    }

    /// Returns all endpoints, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self) -> Result<Vec<WebhookEndpoint>, StoreError> {
        self.store.webhook_endpoints.find_all().await
    }

    /// Returns the endpoint of this id.
    async fn find(&self, id: &str) -> Result<WebhookEndpoint, EndpointError> {
        self.list().await?.into_iter().find(|endpoint| endpoint.id == id).ok_or(EndpointError::Unknown)
    }

    /// Returns the current secret of an endpoint.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub async fn secret(&self, id: &str) -> Result<SecretString, EndpointError> {
        Ok(self.delivery.secret(&self.find(id).await?).expose())
    }

    /// Replaces the secret of an endpoint, and returns the new one. Messages are signed with both for a day.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub async fn rotate(&self, id: &str, previous: PreviousSecret, now: OffsetDateTime) -> Result<SecretString, EndpointError> {
        let endpoint = self.find(id).await?;
        if previous == PreviousSecret::Kept && is_rotating(&endpoint, now) {
            return Err(EndpointError::RotatedRecently);
        }
        if !self.store.webhook_endpoints.rotate(id, endpoint.secret_generation, now).await? {
            return Err(EndpointError::Rotated);
        }
        self.secret(id).await
    }

    /// Turns an endpoint on: it receives messages again.
    ///
    /// # Errors
    /// [`EndpointError`]; safe to repeat.
    pub async fn enable(&self, id: &str) -> Result<(), EndpointError> {
        self.store.webhook_endpoints.enable(id).await?.then_some(()).ok_or(EndpointError::Unknown)
    }

    /// Turns an endpoint off: it receives no messages, and those that wait are given up.
    ///
    /// # Errors
    /// [`EndpointError`]; safe to repeat.
    pub async fn disable(&self, id: &str) -> Result<(), EndpointError> {
        self.store.webhook_endpoints.turn_off(id).await?.then_some(()).ok_or(EndpointError::Unknown)
    }

    /// Sends a message of type `webhook.test` from this process, once, and returns the attempt.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub async fn test(&self, id: &str, now: OffsetDateTime) -> Result<Attempt, EndpointError> {
        let endpoint = self.find(id).await?;
        let timestamp = now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default();
        let body = json!({ "type": "webhook.test", "timestamp": timestamp, "data": {} }).to_string();
        Ok(self.delivery.attempt(&endpoint, &EventId::new().to_string(), &body, now).await.0)
    }

    /// Makes all deliveries of changes since `since` due again, delivered or not, and returns their number.
    ///
    /// # Errors
    /// [`EndpointError`]; safe to repeat.
    pub async fn replay(&self, id: &str, since: OffsetDateTime, now: OffsetDateTime) -> Result<u64, EndpointError> {
        if self.find(id).await?.state != EndpointState::On {
            return Err(EndpointError::Off);
        }
        Ok(self.store.deliveries.replay(id, since, now).await?)
    }
}
