//! Cache of the webhook endpoints.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    model::{EndpointState, WebhookEndpoint},
    store::{Store, StoreError},
};

/// Lifetime of the cache.
const TTL: Duration = Duration::from_secs(30);

/// Cache of all endpoints, so that not every attempt reads them from the database.
///
/// Endpoints are cached only while all of them are on: deliveries to an endpoint that is not on are given up, and an outdated
/// state must not decide that. The fan-out reads the database each time: it would insert no delivery for an endpoint that the
/// cache lacks.
#[derive(Debug, Default)]
pub(in crate::domain) struct KnownEndpoints(Mutex<Option<(Instant, Arc<Vec<WebhookEndpoint>>)>>);

impl KnownEndpoints {
    /// Returns the endpoints, from the cache or from the database.
    pub(super) async fn get(&self, store: &Store) -> Result<Arc<Vec<WebhookEndpoint>>, StoreError> {
        let cached = self.0.lock().as_ref().filter(|(read_at, _)| read_at.elapsed() < TTL).map(|(_, cached)| cached.clone());
        match cached {
            Some(cached) => Ok(cached),
            None => self.read(store).await,
        }
    }

    /// Reads the endpoints from the database, and caches them if all are on.
    pub(in crate::domain) async fn read(&self, store: &Store) -> Result<Arc<Vec<WebhookEndpoint>>, StoreError> {
        let read_at = Instant::now();
        let read = Arc::new(store.webhook_endpoints.find_all().await?);
        let are_on = read.iter().all(|endpoint| endpoint.state == EndpointState::On);
        *self.0.lock() = are_on.then(|| (read_at, read.clone()));
        Ok(read)
    }

    /// Empties the cache after a change by this server, so that the next call reads the endpoints.
    pub(super) fn forget(&self) {
        *self.0.lock() = None;
    }
}
