//! Delivers messages to the endpoints: claims due deliveries, makes the attempts concurrently, and records their outcomes.
//!
//! Any number of servers may deliver at once: a delivery is claimed by one conditional update. A server that stops in between
//! leaves a claim that ends by itself, so each message is delivered at least once.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use time::OffsetDateTime;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    addresses::{are_allowed, are_permitted},
    known_endpoints::KnownEndpoints,
    schedule::next_attempt,
    signature::{EndpointSecret, SignedContent},
};
use crate::{
    config,
    domain::polling::next_poll,
    metrics::{METRICS, Metrics},
    model::{DisabledReason, EndpointState, WebhookEndpoint},
    store::{
        Attempt, ClaimedDelivery, Outcome, Store, StoreError,
        webhook_sender::{SendError, Transport, WebhookAnswer, WebhookRequest, WebhookSender},
        without_failpoints,
    },
};

/// Maximum number of attempts under way to one endpoint, on one server.
const MAX_PER_ENDPOINT: usize = 4;
/// Maximum number of attempts under way to all endpoints, on one server.
const MAX_PER_SERVER: usize = 64;
/// Time after a rotation during which the secret before it signs, too.
const ROTATION: Duration = Duration::from_secs(24 * 60 * 60);
/// Time for which an endpoint may fail before it is disabled.
const MAX_FAILING: Duration = Duration::from_secs(5 * 24 * 60 * 60);
/// Status by which an endpoint asks for no more messages (RFC 9110, 410 Gone).
const GONE: u16 = 410;

/// Delivers messages.
#[derive(Debug)]
pub struct WebhookDelivery {
    store: Arc<Store>,
    settings: config::Webhooks,
    sender: WebhookSender,
    /// Cache of the endpoints; shared with the fan-out, which reads them from the database for each event.
    pub(in crate::domain) endpoints: Arc<KnownEndpoints>,
    /// Wakes [`Self::run_until`] before its next poll.
    pub(in crate::domain) woken: Arc<Notify>,
}

/// Attempts under way on this server. Their tasks return the id of the endpoint.
#[derive(Default)]
struct RunningAttempts {
    tasks: JoinSet<String>,
    /// Number of attempts under way, by the endpoint's id.
    per_endpoint: HashMap<String, usize>,
}

impl RunningAttempts {
    /// Returns how many more attempts to this endpoint may begin.
    fn free(&self, endpoint: &WebhookEndpoint) -> usize {
        // A failing endpoint gets one attempt at a time.
        let limit = if endpoint.first_failure_at.is_some() { 1 } else { MAX_PER_ENDPOINT };
        let under_way = self.per_endpoint.get(&endpoint.id).copied().unwrap_or(0);
        limit.saturating_sub(under_way).min(MAX_PER_SERVER.saturating_sub(self.tasks.len()))
    }

    /// Starts an attempt, and counts it for its endpoint.
    fn begin(&mut self, endpoint: &str, attempt: impl Future<Output = ()> + Send + 'static) {
        *self.per_endpoint.entry(endpoint.to_owned()).or_default() += 1;
        let id = endpoint.to_owned();
        self.tasks.spawn(async move {
            // If the attempt panics, the task still returns the id, so that the endpoint's count decreases.
            if let Err(error) = tokio::spawn(without_failpoints(attempt)).await {
                tracing::error!(%error, "task that delivers a webhook panicked");
            }
            id
        });
    }

    /// Waits until an attempt has ended, and uncounts all that have; waits for ever if no attempt is under way.
    async fn end_some(&mut self) {
        let Some(first) = self.tasks.join_next().await else { return std::future::pending().await };
        let mut ended = Some(first);
        while let Some(task) = ended {
            if let Ok(endpoint) = task {
                self.per_endpoint.entry(endpoint).and_modify(|count| *count = count.saturating_sub(1));
            }
            ended = self.tasks.try_join_next();
        }
    }
}

impl WebhookDelivery {
    pub(in crate::domain) fn new(store: Arc<Store>, settings: config::Webhooks) -> Self {
        Self { store, settings, sender: WebhookSender::default(), endpoints: Arc::default(), woken: Arc::default() }
    }

    /// Makes [`Self::run_until`] look for due deliveries at once.
    pub fn wake(&self) {
        self.woken.notify_one();
    }

    /// Delivers until `stop`, then waits for the attempts under way. Errors are logged, and the round is repeated.
    pub async fn run_until(self: &Arc<Self>, stop: CancellationToken) {
        let mut running = RunningAttempts::default();
        loop {
            if let Err(error) = without_failpoints(self.begin_due(&mut running)).await {
                tracing::warn!(%error, "failed to deliver webhooks");
            }
            tokio::select! {
                () = stop.cancelled() => break,
                _ = next_poll(&self.woken) => {}
                () = running.end_some() => {}
            }
        }
        while running.tasks.join_next().await.is_some() {}
    }

    /// Begins due attempts, as far as the limits permit.
    async fn begin_due(self: &Arc<Self>, running: &mut RunningAttempts) -> Result<(), StoreError> {
        let now = self.store.now().await?;
        for endpoint in self.endpoints.get(&self.store).await?.iter() {
            if let Err(error) = self.begin_due_to(endpoint, running, now).await {
                tracing::warn!(endpoint = endpoint.id, %error, "failed to begin the deliveries of an endpoint");
            }
        }
        Ok(())
    }

    /// Claims due deliveries to an endpoint and starts their attempts, as far as the limits permit. Gives up the deliveries to an
    /// endpoint that is off or disabled.
    async fn begin_due_to(
        self: &Arc<Self>,
        endpoint: &WebhookEndpoint,
        running: &mut RunningAttempts,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        if endpoint.state != EndpointState::On {
            return self.store.deliveries.give_up_all(&endpoint.id, now).await.map(drop);
        }
        let free = running.free(endpoint);
        if free == 0 {
            return Ok(());
        }
        for due in self.store.deliveries.find_due_deliveries(&endpoint.id, now, free).await? {
            match self.store.deliveries.claim(due, now).await {
                Ok(Some(claimed)) => {
                    let (this, receiver) = (self.clone(), endpoint.clone());
                    running.begin(&endpoint.id, async move { this.deliver(&receiver, &claimed, now).await });
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(endpoint = endpoint.id, %error, "failed to claim a delivery"),
            }
        }
        Ok(())
    }

    /// Makes an attempt and records its outcome.
    async fn deliver(&self, endpoint: &WebhookEndpoint, claimed: &ClaimedDelivery, now: OffsetDateTime) {
        let (attempt, answer) = self.attempt(endpoint, &claimed.event, &claimed.body, now).await;
        let outcome = outcome(claimed.tries, answer, attempt.at);
        Metrics::count(&METRICS.webhook_attempts, outcome_name(outcome), 1);
        let recorded = async {
            if !self.store.deliveries.record(claimed, attempt, outcome).await? {
                return Ok(());
            }
            if let Outcome::Dead(why) = outcome {
                tracing::warn!(endpoint = endpoint.id, event = claimed.event, why, "gave a delivery up");
            }
            self.record_health(endpoint, outcome, attempt).await
        };
        let recorded: Result<(), StoreError> = recorded.await;
        if let Err(error) = recorded {
            tracing::warn!(endpoint = endpoint.id, event = claimed.event, %error, "failed to record the outcome of a delivery");
        }
    }

    /// Records whether the attempt succeeded, and disables the endpoint if it answered 410 Gone or has failed for
    /// [`MAX_FAILING`].
    async fn record_health(&self, endpoint: &WebhookEndpoint, outcome: Outcome, attempt: Attempt) -> Result<(), StoreError> {
        let endpoints = &self.store.webhook_endpoints;
        let id = &endpoint.id;
        let changed = match outcome {
            Outcome::Delivered => endpoints.record_success(id).await?,
            _ => endpoints.record_failure(id, attempt.at).await?,
        };
        if changed {
            self.endpoints.forget();
        }
        if outcome == Outcome::Delivered {
            return Ok(());
        }
        let (why, is_disabled) = if attempt.status == Some(GONE) {
            (DisabledReason::Gone, endpoints.disable_now(id, DisabledReason::Gone).await?)
        } else {
            let since = attempt.at - MAX_FAILING;
            (DisabledReason::Failing, endpoints.disable_if_failing_since(id, since).await?)
        };
        if is_disabled {
            self.endpoints.forget();
            METRICS.webhook_endpoints_disabled.inc();
            tracing::error!(
                endpoint = id,
                why = why.as_str(),
                "disabled a webhook endpoint; enable it with: valet webhook enable"
            );
        }
        Ok(())
    }

    /// Signs a message and sends it once. Returns the attempt for the record, and the answer if one came.
    pub(super) async fn attempt(
        &self,
        endpoint: &WebhookEndpoint,
        event_id: &str,
        body: &str,
        now: OffsetDateTime,
    ) -> (Attempt, Option<WebhookAnswer>) {
        let began = Instant::now();
        let signed = SignedContent { id: event_id, timestamp: now.unix_timestamp(), body: body.as_bytes() };
        let signature = signed.header(&self.secrets(endpoint, now));
        let request = WebhookRequest { url: &endpoint.url, id: event_id, timestamp: signed.timestamp, signature, body };
        let is_allowed = |transport: Transport, addresses: &[IpAddr]| match transport {
            Transport::Https => are_permitted(addresses, &self.settings.allow),
            Transport::Http => are_allowed(addresses, &self.settings.allow),
        };
        let sent = self.sender.send(&request, &is_allowed).await;
        let error = sent.err();
        if let Some(error) = error {
            tracing::info!(endpoint = endpoint.id, event = event_id, %error, "failed to reach a webhook endpoint");
        }
        let took = began.elapsed();
        let attempt =
            Attempt { status: sent.ok().map(|answer| answer.status), error: error.map(SendError::reason), took, at: now + took };
        (attempt, sent.ok())
    }

    /// Returns the secrets that sign messages: two for a day after a rotation.
    fn secrets(&self, endpoint: &WebhookEndpoint, now: OffsetDateTime) -> Vec<EndpointSecret> {
        let generation = endpoint.secret_generation;
        let previous = is_rotating(endpoint, now).then(|| generation - 1);
        let secret = |generation| EndpointSecret::derive(&self.settings.secret, &endpoint.id, generation);
        std::iter::once(generation).chain(previous).map(secret).collect()
    }

    /// Returns the secret of the current generation.
    pub(super) fn secret(&self, endpoint: &WebhookEndpoint) -> EndpointSecret {
        EndpointSecret::derive(&self.settings.secret, &endpoint.id, endpoint.secret_generation)
    }

    /// Returns whether endpoints may have URLs with plain HTTP.
    pub(super) fn allows_plain_http(&self) -> bool {
        !self.settings.allow.is_empty()
    }
}

/// Returns whether messages are signed with the secret before the current one, too.
pub(super) fn is_rotating(endpoint: &WebhookEndpoint, now: OffsetDateTime) -> bool {
    endpoint.rotated_at.is_some_and(|at| now - at < ROTATION) && endpoint.secret_generation > 1
}

/// Returns the outcome of a delivery's attempt with the number `tries + 1`.
fn outcome(tries: u32, answer: Option<WebhookAnswer>, now: OffsetDateTime) -> Outcome {
    match answer.map(|answer| answer.status) {
        Some(200..=299) => Outcome::Delivered,
        Some(GONE) => Outcome::Dead("the endpoint answered 410"),
        _ => {
            let retry_after = answer.and_then(|answer| answer.retry_after);
            let next = next_attempt(tries.saturating_add(1), retry_after, now, jitter());
            next.map_or(Outcome::Dead("all attempts failed"), Outcome::Retry)
        }
    }
}

/// Returns the metric's label for an outcome.
fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Delivered => "delivered",
        Outcome::Retry(_) => "failed",
        Outcome::Dead(_) => "dead",
    }
}

/// Returns a random number from 0 to 1.
fn jitter() -> f64 {
    let bytes = uuid::Uuid::new_v4().into_bytes();
    f64::from(bytes[0]) / 255.0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_2xx_delivers_and_the_tenth_failure_is_the_last() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let after = |tries, status| outcome(tries, status, now);
        let answer = |status| Some(WebhookAnswer { status, retry_after: None });
        assert_eq!(after(9, answer(200)), Outcome::Delivered);
        assert_eq!(after(0, answer(204)), Outcome::Delivered);
        assert!(matches!(after(0, answer(410)), Outcome::Dead(_)));
        for status in [None, answer(199), answer(301), answer(404), answer(429), answer(500)] {
            assert!(matches!(after(0, status), Outcome::Retry(due) if due > now), "{status:?}");
            assert!(matches!(after(9, status), Outcome::Dead(_)), "{status:?}");
        }
    }
}
