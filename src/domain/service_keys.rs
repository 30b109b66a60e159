//! Service keys: created, listed and revoked by the operator's commands, and authenticated for `/api/admin`.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use secrecy::SecretString;
use time::OffsetDateTime;

use super::{
    audit::{self, audit},
    credentials::NoRandomness,
    refresh_token,
    throttle::{Throttle, Throttled},
};
pub use crate::store::ServiceKey;
use crate::{
    model::{KeyName, Scope, ServiceKeyId, ServiceKeyToken},
    store::{Store, StoreError},
};

/// Time for which a server uses a key that it read, so that a revoked key is rejected at most this much later on every server;
/// the documents promise 30 s.
const CACHE_TTL: Duration = Duration::from_secs(10);
/// Time after a key's revocation from which no request with it is under way: [`CACHE_TTL`], the deadline of a request (10 s), and
/// slack.
const REJECTED_AFTER: Duration = Duration::from_secs(30);
/// Seconds of an hour.
const HOUR_SECONDS: i64 = 60 * 60;

/// A key to create.
#[derive(Debug)]
pub struct NewServiceKey {
    /// Name of the key.
    pub name: KeyName,
    /// Scopes of the key.
    pub scopes: Vec<Scope>,
    /// Lifetime of the key; `None` if it does not expire.
    pub lifetime: Option<Duration>,
}

/// Why a key was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateKeyError {
    /// A key without a scope can do nothing.
    #[error("name at least one scope")]
    NoScope,
    /// The system has no source of random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The database failed; the key may have been created, and its secret is lost.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a service key is rejected.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text is not a key, its secret is wrong, or it was revoked.
    #[error("the service key is not valid")]
    Invalid,
    /// The key has expired.
    #[error("the service key has expired")]
    Expired,
    /// Too many calls with the key.
    #[error(transparent)]
    Throttled(#[from] Throttled),
    /// The database did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The key lacks a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the service key lacks the scope {0}")]
pub struct InsufficientScope(pub Scope);

/// A call to `/api/admin` whose key was authenticated, before its scope is checked.
#[derive(Debug, Clone)]
pub struct KeyCaller(Arc<ServiceKey>);

/// A call to `/api/admin` that its key allows. Operations require it as a parameter, so that no operation runs without its scope.
#[derive(Debug, Clone)]
pub struct Authorized(Arc<ServiceKey>);

impl KeyCaller {
    /// Allows `operation` if the key has `scope`, and audits the call.
    ///
    /// # Errors
    /// [`InsufficientScope`].
    pub fn authorize(&self, scope: Scope, operation: &'static str) -> Result<Authorized, InsufficientScope> {
        let key = &self.0;
        if !key.scopes.contains(&scope) {
            audit!("scope_refused", key = key.name, key_id = %key.id, operation, %scope, "refused a call beyond a service key's scopes");
            return Err(InsufficientScope(scope));
        }
        audit!("admin_call", key = key.name, key_id = %key.id, operation, "call with a service key");
        Ok(Authorized(key.clone()))
    }
}

impl Authorized {
    /// Returns the key's name.
    #[must_use]
    pub fn key_name(&self) -> &str {
        &self.0.name
    }

    /// Returns the key's id.
    #[must_use]
    pub fn key_id(&self) -> ServiceKeyId {
        self.0.id
    }
}

/// Service keys.
#[derive(Debug)]
pub struct ServiceKeys {
    pub(super) store: Arc<Store>,
    pub(super) throttle: Arc<Throttle>,
    /// Keys as they were read from the database. Only existing keys are cached, so the operator bounds their number.
    pub(super) cache: Mutex<HashMap<ServiceKeyId, CachedKey>>,
}

/// A key, and the time of the query that returned it.
#[derive(Debug, Clone)]
pub(super) struct CachedKey {
    key: Arc<ServiceKey>,
    read_at: Instant,
}

impl ServiceKeys {
    /// Creates a key. Its text is returned once, and not stored.
    ///
    /// # Errors
    /// [`CreateKeyError`].
    pub async fn create(&self, new: NewServiceKey, now: OffsetDateTime) -> Result<SecretString, CreateKeyError> {
        let NewServiceKey { name, mut scopes, lifetime } = new;
        scopes.sort_unstable();
        scopes.dedup();
        if scopes.is_empty() {
            return Err(CreateKeyError::NoScope);
        }
        let token = ServiceKeyToken::new(ServiceKeyId::new(), refresh_token::random()?);
        let key = ServiceKey {
            id: token.id(),
            name: name.as_str().to_owned(),
            hash: token.hash(),
            scopes,
            created_at: now,
            expires_at: lifetime.map(|lifetime| now + lifetime),
            last_used_at: None,
            revoked_at: None,
        };
        self.store.service_keys.insert(&key).await?;
        audit!("service_key_created", key = key.name, key_id = %key.id, "operator created a service key");
        Ok(token.expose())
    }

    /// Returns all keys, the oldest first. A key that cannot be read is an error in the list.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self) -> Result<Vec<Result<ServiceKey, StoreError>>, StoreError> {
        self.store.service_keys.list().await
    }

    /// Revokes a key. Returns `false` if no key has this id, or if the key was revoked before.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn revoke(&self, id: ServiceKeyId, now: OffsetDateTime) -> Result<bool, StoreError> {
        let is_revoked = self.store.service_keys.revoke(id, now).await?;
        self.cache.lock().remove(&id);
        if is_revoked {
            audit!("service_key_revoked", key_id = %id, "operator revoked a service key");
        }
        Ok(is_revoked)
    }

    /// Returns the time from which no server accepts the revoked key; `None` if no revoked key has this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn rejected_from(&self, id: ServiceKeyId) -> Result<Option<OffsetDateTime>, StoreError> {
        let key = self.store.service_keys.find(id).await?;
        Ok(key.and_then(|key| key.revoked_at).map(|at| at + REJECTED_AFTER))
    }

    /// Ends the sessions of all tokens that were created with the key, and returns their number. Their access tokens are rejected
    /// within 30 s on every server.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub async fn end_sessions(&self, id: ServiceKeyId) -> Result<u64, StoreError> {
        let ended = self.store.sessions.delete_issued_by(id).await?;
        audit!("service_key_sessions_ended", key_id = %id, ended, "operator ended the sessions created with a service key");
        Ok(ended)
    }

    /// Returns the caller of a key that is neither revoked nor expired and whose secret is right. Counts the call.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn authenticate(&self, text: &str, now: OffsetDateTime) -> Result<KeyCaller, KeyError> {
        let key = self.verify(text, now).await.inspect_err(|error| match error {
            KeyError::Invalid => audit::log_refused_token("invalid service key"),
            KeyError::Expired => audit::log_refused_token("expired service key"),
            KeyError::Throttled(_) | KeyError::Store(_) => {}
        })?;
        self.throttle.count_key_call(key.id)?;
        self.record_use(&key, now).await;
        Ok(KeyCaller(key))
    }

    /// Returns the key that a text contains, if it is valid.
    async fn verify(&self, text: &str, now: OffsetDateTime) -> Result<Arc<ServiceKey>, KeyError> {
        let token = ServiceKeyToken::parse(text).ok_or(KeyError::Invalid)?;
        let key = self.find(token.id()).await?.ok_or(KeyError::Invalid)?;
        // The secret is checked first, so that the id alone reveals nothing about the key.
        if key.hash != token.hash() || key.revoked_at.is_some() {
            return Err(KeyError::Invalid);
        }
        if key.expires_at.is_some_and(|at| at <= now) {
            return Err(KeyError::Expired);
        }
        Ok(key)
    }

    /// Returns a key as it was in the database at most [`CACHE_TTL`] ago.
    async fn find(&self, id: ServiceKeyId) -> Result<Option<Arc<ServiceKey>>, StoreError> {
        let queried_at = Instant::now();
        let is_fresh = |cached: &CachedKey| queried_at.saturating_duration_since(cached.read_at) < CACHE_TTL;
        if let Some(cached) = self.cache.lock().get(&id).filter(|cached| is_fresh(cached)) {
            return Ok(Some(cached.key.clone()));
        }
        let Some(found) = self.store.service_keys.find(id).await? else { return Ok(None) };
        let key = Arc::new(found);
        self.cache.lock().insert(id, CachedKey { key: key.clone(), read_at: queried_at });
        Ok(Some(key))
    }

    /// Records the hour of a key's use, with one write an hour. A failure is logged; the next call repeats it.
    async fn record_use(&self, key: &ServiceKey, now: OffsetDateTime) {
        let hour = now - Duration::from_secs(now.unix_timestamp().rem_euclid(HOUR_SECONDS).unsigned_abs());
        let hour = hour.replace_nanosecond(0).unwrap_or(hour);
        if key.last_used_at.is_some_and(|at| at >= hour) {
            return;
        }
        match self.store.service_keys.record_use(key.id, hour).await {
            Ok(()) => {
                if let Some(cached) = self.cache.lock().get_mut(&key.id) {
                    cached.key = Arc::new(ServiceKey { last_used_at: Some(hour), ..ServiceKey::clone(&cached.key) });
                }
            }
            Err(error) => tracing::warn!(key_id = %key.id, %error, "failed to record the use of a service key"),
        }
    }
}
