//! The endpoints as this server knows them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    model::{EndpointState, WebhookEndpoint},
    store::{Store, StoreError},
};

/// How long the endpoints are kept.
const TTL: Duration = Duration::from_secs(30);

/// All endpoints, kept for half a minute so that not every attempt reads them.
///
/// They are kept only while all of them are on: the messages for one that is off are given up, which must not be decided by an old
/// state. Fan-out reads them each time, because an event makes no delivery for an endpoint that is not known.
#[derive(Debug, Default)]
pub(in crate::domain) struct KnownEndpoints(Mutex<Option<(Instant, Arc<Vec<WebhookEndpoint>>)>>);

impl KnownEndpoints {
    /// Returns the endpoints, as they are kept or in the database.
    pub(super) async fn get(&self, store: &Store) -> Result<Arc<Vec<WebhookEndpoint>>, StoreError> {
        let kept = self.0.lock().as_ref().filter(|(read_at, _)| read_at.elapsed() < TTL).map(|(_, kept)| kept.clone());
        match kept {
            Some(kept) => Ok(kept),
            None => self.read(store).await,
        }
    }

    /// Reads the endpoints from the database, and keeps them.
    pub(in crate::domain) async fn read(&self, store: &Store) -> Result<Arc<Vec<WebhookEndpoint>>, StoreError> {
        let read_at = Instant::now();
        let read = Arc::new(store.webhook_endpoints.find_all().await?);
        let are_on = read.iter().all(|endpoint| endpoint.state == EndpointState::On);
        *self.0.lock() = are_on.then(|| (read_at, read.clone()));
        Ok(read)
    }

    /// Lets the next call read the endpoints, after a change by this server.
    pub(super) fn forget(&self) {
        *self.0.lock() = None;
    }
}
