//! Fan-out of events: turns the events in the outboxes of images and users into one delivery for each endpoint.
//!
//! Any number of servers may fan out at once, and each step can be repeated: a delivery is inserted once, and the event is removed
//! from its document after that. Polling finds every event; a change on this server wakes the poll earlier.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    polling::{Poll, next_poll},
    turns::in_turns,
    webhooks::known_endpoints::KnownEndpoints,
};
use crate::{
    metrics::METRICS,
    model::{EndpointState, WebhookEndpoint},
    store::{EventSource, NewDelivery, OutboxRecord, Store, StoreError, StoredEvent, without_failpoints},
};

/// Time from a change to the poll that it wakes, so that one poll finds the changes of many requests.
const GATHERING: Duration = Duration::from_millis(20);
/// Maximum number of documents that one query returns, and that are fanned out together.
const PAGE: usize = 100;
/// Maximum number of queries per round and source. Each query excludes the owners that the earlier ones found, so that an owner
/// with many events does not delay the others.
const MAX_PAGES: usize = 4;

/// The outcome of one round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FannedOut {
    /// Events that were fanned out.
    pub events: usize,
    /// Documents whose events could not be fanned out.
    pub failed: usize,
    /// Whether more may wait.
    pub more: bool,
}

/// Fans events out.
#[derive(Debug)]
pub struct EventFanOut {
    pub(super) store: Arc<Store>,
    /// The endpoints, which are shared with the delivery on this server.
    pub(super) endpoints: Arc<KnownEndpoints>,
    /// Wakes the poll; `None` if changes leave no events.
    pub(super) woken: Option<Arc<Notify>>,
    /// Woken after each round that made deliveries.
    pub(super) deliveries_made: Arc<Notify>,
}

impl EventFanOut {
    /// Fans events out until `stop`; returns at once if changes leave no events. Errors are logged, and the round is repeated.
    pub async fn run_until(&self, stop: CancellationToken) {
        let Some(woken) = &self.woken else { return };
        let run = async {
            loop {
                let round = async { self.fan_out_once(self.store.now().await?).await };
                match round.await {
                    Ok(FannedOut { events: 1.., more: true, .. }) => continue,
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, "failed to fan out events"),
                }
                if next_poll(woken).await == Poll::Woken {
                    tokio::time::sleep(GATHERING).await;
                }
            }
        };
        // A round may stop in the middle, as in a crash: every step can be repeated.
        tokio::select! {
            () = stop.cancelled() => {}
            () = without_failpoints(run) => {}
        }
    }

    /// Runs one round at `now`.
    ///
    /// # Errors
    /// [`StoreError`] if the database fails; a failure of one document is counted, and the document is retried in a later round.
    pub async fn fan_out_once(&self, now: OffsetDateTime) -> Result<FannedOut, StoreError> {
        let (mut total, mut oldest) = (FannedOut::default(), now);
        for source in EventSource::ALL {
            let records = self.find_fairly(source).await?;
            oldest = oldest.min(records.iter().flat_map(|record| &record.events).map(|event| event.at).min().unwrap_or(now));
            METRICS.outbox_lag.set((now - oldest).as_seconds_f64());
            let done = self.fan_out_records(&records, now).await?;
            total.events += done.events;
            total.failed += done.failed;
            total.more |= records.len() >= PAGE;
        }
        if total.events > 0 {
            self.deliveries_made.notify_one();
        }
        Ok(total)
    }

    /// Returns documents with events, one of each owner in turn.
    async fn find_fairly(&self, source: EventSource) -> Result<Vec<OutboxRecord>, StoreError> {
        let (mut found, mut owners): (Vec<OutboxRecord>, Vec<String>) = (Vec::new(), Vec::new());
        for _ in 0..MAX_PAGES {
            let page = self.store.outboxes.find(source, &owners, PAGE).await?;
            let is_full = page.len() == PAGE;
            owners.extend(page.iter().map(OutboxRecord::owner));
            owners.sort_unstable();
            owners.dedup();
            found.extend(page);
            if !is_full {
                break;
            }
        }
        Ok(in_turns(found, OutboxRecord::owner))
    }

    /// Inserts the deliveries of these records' events, then removes the events from their documents.
    async fn fan_out_records(&self, records: &[OutboxRecord], now: OffsetDateTime) -> Result<FannedOut, StoreError> {
        if records.is_empty() {
            return Ok(FannedOut::default());
        }
        let mut endpoints = self.endpoints.read(&self.store).await?.to_vec();
        endpoints.retain(|endpoint| endpoint.state == EndpointState::On);
        let owners: Vec<_> = records.iter().map(OutboxRecord::owner).collect();
        let owners: Vec<_> = owners.iter().map(String::as_str).collect();
        let subjects = self.store.users.find_subjects(&owners).await?;
        let round = Round { store: &self.store, endpoints, subjects, now };
        let mut done = FannedOut::default();
        for chunk in records.chunks(PAGE) {
            // One document whose update fails must not keep the others from being fanned out.
            match round.process(chunk).await {
                Ok(()) => done.events += chunk.iter().map(|record| record.events.len()).sum::<usize>(),
                Err(error) if error.is_outage() => return Err(error),
                Err(_) => round.process_each(chunk, &mut done).await,
            }
        }
        Ok(done)
    }
}

/// The endpoints and users of a round, for which deliveries are made.
struct Round<'a> {
    store: &'a Store,
    /// Endpoints that are on.
    endpoints: Vec<WebhookEndpoint>,
    /// Subjects of the app's users, by user.
    subjects: HashMap<String, String>,
    now: OffsetDateTime,
}

impl Round<'_> {
    /// Fans documents out one by one, and adds their events or their failures to `done`.
    async fn process_each(&self, records: &[OutboxRecord], done: &mut FannedOut) {
        for record in records {
            match self.process(std::slice::from_ref(record)).await {
                Ok(()) => done.events += record.events.len(),
                Err(error) => {
                    tracing::warn!(id = record.id(), %error, "failed to fan out the events of a document");
                    done.failed += 1;
                }
            }
        }
    }

    /// Inserts the deliveries of these documents' events, then removes the events.
    async fn process(&self, records: &[OutboxRecord]) -> Result<(), StoreError> {
        for record in records.iter().filter(|record| record.is_damaged) {
            tracing::error!(id = record.id(), "failed to read an event; it is kept in outboxUnreadable");
        }
        let events = records.iter().flat_map(|record| record.events.iter().map(move |event| (record, event)));
        let body = |(record, event): (&OutboxRecord, &StoredEvent)| {
            message(record, event, self.subjects.get(&record.owner()).map(String::as_str))
        };
        let events: Vec<_> = events.map(|(record, event)| (event, body((record, event)))).collect();
        let deliveries = events.iter().flat_map(|(event, body)| {
            let receivers = self.endpoints.iter().filter(|endpoint| endpoint.receives(&event.type_name));
            receivers.map(|endpoint| delivery(endpoint, event, body, self.now))
        });
        self.store.deliveries.insert_new(&deliveries.collect::<Vec<_>>()).await?;
        self.store.outboxes.remove_all(records).await
    }
}

/// Returns the delivery of an event to an endpoint.
fn delivery<'a>(endpoint: &'a WebhookEndpoint, event: &'a StoredEvent, body: &'a str, now: OffsetDateTime) -> NewDelivery<'a> {
    NewDelivery { endpoint: &endpoint.id, event: &event.id, type_name: &event.type_name, body, at: event.at, due: now }
}

/// Returns the message of an event: type, time of the change and data, as Standard Webhooks 1.0 lays them out.
fn message(record: &OutboxRecord, event: &StoredEvent, subject: Option<&str>) -> String {
    let mut data = Map::new();
    if record.source() == EventSource::Images {
        data.insert("id".to_owned(), record.id().into());
    }
    data.insert("user".to_owned(), record.owner().into());
    data.extend(subject.map(|subject| ("subject".to_owned(), Value::from(subject))));
    data.extend(event.data.clone());
    let timestamp = event.at.replace_nanosecond(0).unwrap_or(event.at).format(&Rfc3339).unwrap_or_default();
    json!({ "type": event.type_name, "timestamp": timestamp, "data": data }).to_string()
}
