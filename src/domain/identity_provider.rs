//! Authenticates users of an identity provider (OpenID Connect) by its access tokens, beside or instead of local accounts.
//!
//! The provider's keys are cached in memory, and fetched at intervals and for a token with an unknown key. During an outage of
//! the provider the cached keys stay in use; a token with a known key never waits for a fetch.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::{
    audit::audit,
    authentication::{AuthenticateError, NoLocalAccount},
    credentials::{
        Caller, TokenError, TokenOrigin,
        oidc_tokens::{Identity, KeyId, LEEWAY_SECONDS, ProviderKeys},
    },
    generational_cache::GenerationalCache,
    session_cache::SessionCache,
};
use crate::{
    config,
    model::Sha256,
    store::{Account, IdentityHolder, ProviderIdentity, Store, StoreError, oidc_discovery},
};

/// Maximum age of the keys: after this time without a successful fetch they are not trusted, because some may have been revoked.
const MAX_KEY_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a request waits for a fetch; the fetch continues for later requests.
const MAX_KEY_WAIT: Duration = Duration::from_secs(3);
/// Delay after a failed fetch in the background.
const FETCH_RETRY: Duration = Duration::from_secs(15);
/// Maximum number of cached users.
const CAPACITY: usize = 100_000;

/// The identity provider's settings, and the cached keys and users.
#[derive(Debug)]
pub(super) struct IdentityProvider {
    settings: config::OidcProvider,
    /// The latest keys, with the time at which they were fetched.
    keys: RwLock<Option<(Arc<ProviderKeys>, Instant)>>,
    /// When the latest fetch began; locked during a fetch, so that only one runs at a time.
    last_fetch: Arc<tokio::sync::Mutex<Option<Instant>>>,
    cache: Mutex<CachedUsers>,
}

/// Users by the hash of their subject.
#[derive(Debug)]
struct CachedUsers {
    /// Users, with the time of the query.
    users: GenerationalCache<[u8; 32], (IdentityHolder, Instant)>,
    /// Times at which this server changed accounts: a query that began before is outdated.
    changed: GenerationalCache<[u8; 32], Instant>,
}

/// Fetches the provider's current keys. The error is a text for the operator.
pub(super) async fn fetch_keys(settings: &config::OidcProvider) -> Result<ProviderKeys, String> {
    let document = oidc_discovery::fetch_keys(&settings.issuer).await.map_err(|error| error.to_string())?;
    ProviderKeys::parse(&document).map_err(|error| error.to_string())
}

impl IdentityProvider {
    pub(super) fn new(settings: &config::OidcProvider) -> Self {
        Self {
            settings: settings.clone(),
            keys: RwLock::default(),
            last_fetch: Arc::default(),
            cache: Mutex::new(CachedUsers {
                users: GenerationalCache::new(CAPACITY),
                // Fewer accounts are changed within the lifetime of an entry.
                changed: GenerationalCache::new(CAPACITY / 10),
            }),
        }
    }

    /// Returns the provider's keys if they were fetched recently enough.
    fn keys(&self) -> Option<Arc<ProviderKeys>> {
        let keys = self.keys.read();
        keys.as_ref().filter(|(_, at)| at.elapsed() < MAX_KEY_AGE).map(|(keys, _)| Arc::clone(keys))
    }

    /// Returns whether the keys were fetched at `moment` or later.
    fn is_fresh_since(&self, moment: Instant) -> bool {
        self.keys.read().as_ref().is_some_and(|(_, at)| *at >= moment)
    }

    /// Fetches the keys; if that fails, the cached ones stay. Returns whether it succeeded.
    async fn refresh_keys(&self) -> bool {
        match fetch_keys(&self.settings).await {
            Ok(keys) => {
                let mut cached = self.keys.write();
                if cached.as_ref().is_none_or(|(before, _)| format!("{before:?}") != format!("{keys:?}")) {
                    tracing::info!(
                        issuer = self.settings.issuer,
                        count = keys.count(),
                        "fetched new keys of the identity provider"
                    );
                }
                *cached = Some((Arc::new(keys), Instant::now()));
                true
            }
            Err(reason) => {
                let kept = self.keys().is_some();
                tracing::warn!(issuer = self.settings.issuer, reason, kept, "failed to fetch the identity provider's keys");
                false
            }
        }
    }

    /// Returns the keys if this one is among them, after fetching them if necessary. One fetch serves all waiting requests, and
    /// begins at least `refresh_pause` after the last one. It runs in a task, so that a client that disconnects does not cancel it.
    async fn keys_including(self: &Arc<Self>, key_id: &KeyId) -> Result<Arc<ProviderKeys>, AuthenticateError> {
        let known = || self.keys().filter(|keys| keys.has(key_id));
        if let Some(keys) = known() {
            return Ok(keys);
        }
        let pause = self.settings.refresh_pause;
        let refresh = async {
            let mut last_fetch = Arc::clone(&self.last_fetch).lock_owned().await;
            if known().is_some() || last_fetch.is_some_and(|at| at.elapsed() < pause) {
                return;
            }
            *last_fetch = Some(Instant::now());
            let provider = Arc::clone(self);
            let fetch = tokio::spawn(async move {
                provider.refresh_keys().await;
                drop(last_fetch);
            });
            // The task fails only by a panic, which is logged where it happens.
            let _ = fetch.await;
        };
        let began = Instant::now();
        let _ = tokio::time::timeout(MAX_KEY_WAIT, refresh).await;
        match known() {
            Some(keys) => Ok(keys),
            // The provider was queried a moment ago and has no such key.
            None if began.checked_sub(pause).is_some_and(|moment| self.is_fresh_since(moment)) => Err(TokenError::Invalid.into()),
            None => Err(AuthenticateError::KeysUnavailable),
        }
    }

    /// Removes a user whose account was changed from the cache, and makes the cache ignore results of queries that began before.
    pub(super) fn forget_user(&self, subject: &str) {
        self.cache.lock().changed.insert(cache_key(subject), Instant::now());
    }

    /// Returns the user of a subject if it was read recently, and not before a change of the account on this server.
    fn cached_user(&self, subject: [u8; 32]) -> Option<IdentityHolder> {
        let mut cache = self.cache.lock();
        let (user, at) = cache.users.get(&subject)?;
        let is_outdated = cache.changed.get(&subject).is_some_and(|changed| at <= changed);
        (at.elapsed() < SessionCache::TTL && !is_outdated).then_some(user)
    }

    /// Stores a user for whom the database was queried at `queried_at`.
    fn remember_user(&self, subject: [u8; 32], user: IdentityHolder, queried_at: Instant) {
        self.cache.lock().users.insert(subject, (user, queried_at));
    }
}

/// Sources of accounts: local sign-up, an identity provider, or both.
#[derive(Debug)]
pub struct Identities {
    pub(super) store: Arc<Store>,
    pub(super) provider: Option<Arc<IdentityProvider>>,
    pub(super) local_accounts: bool,
}

impl Identities {
    /// Fetches the identity provider's keys at intervals until `stop`; returns at once without a provider.
    pub async fn refresh_provider_until(&self, stop: CancellationToken) {
        let Some(provider) = &self.provider else { return };
        loop {
            let fetch = async {
                let mut last_fetch = provider.last_fetch.lock().await;
                *last_fetch = Some(Instant::now());
                provider.refresh_keys().await
            };
            let pause = tokio::select! {
                () = stop.cancelled() => return,
                succeeded = fetch => if succeeded { provider.settings.refresh_every } else { FETCH_RETRY.min(provider.settings.refresh_every) },
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Returns the identity provider's issuer.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.provider.as_ref().map(|provider| provider.settings.issuer.as_str())
    }

    /// Removes the account of a provider's user from the cache: the next request queries the database.
    pub(super) fn forget_user(&self, account: &Account) {
        if let (Some(provider), Some(identity)) = (&self.provider, &account.identity) {
            provider.forget_user(&identity.subject);
        }
    }

    /// Checks that local accounts are enabled.
    ///
    /// # Errors
    /// [`NoLocalAccount`] if they are disabled.
    pub(super) fn require_local_accounts(&self) -> Result<(), NoLocalAccount> {
        if self.local_accounts { Ok(()) } else { Err(NoLocalAccount::Disabled) }
    }

    /// Returns the user of a provider's token. Creates the user if the token is the user's first.
    pub(super) async fn authenticate_with_provider(
        &self,
        token: &str,
        key_id: &KeyId,
        now: OffsetDateTime,
    ) -> Result<Caller, AuthenticateError> {
        let provider = self.provider.as_ref().ok_or(TokenError::Invalid)?;
        let identity = provider.keys_including(key_id).await?.verify(token, key_id, &provider.settings, now)?;
        let subject = cache_key(&identity.subject);
        let user = match provider.cached_user(subject) {
            Some(user) => user,
            None => {
                let queried_at = Instant::now();
                let user = self.find_or_create_user(&provider.settings.issuer, &identity, now).await?;
                provider.remember_user(subject, user, queried_at);
                user
            }
        };
        if user.is_suspended {
            return Err(AuthenticateError::Suspended);
        }
        let Identity { issued_at, expires_at, .. } = identity;
        Ok(Caller { user: user.user, origin: TokenOrigin::Provider { issued_at, expires_at } })
    }

    /// Returns the user of an identity. Of concurrent calls for a new identity, one creates the user.
    async fn find_or_create_user(
        &self,
        issuer: &str,
        identity: &Identity,
        now: OffsetDateTime,
    ) -> Result<IdentityHolder, AuthenticateError> {
        let users = &self.store.users;
        let provider_identity = ProviderIdentity { issuer: issuer.to_owned(), subject: identity.subject.clone() };
        if let Some(user) = users.find_identity(&provider_identity).await? {
            return Ok(user);
        }
        // A token from before the deletion of its user does not create the account again; the provider's clock may be ahead.
        let issued_at = identity.issued_at - Duration::from_secs(LEEWAY_SECONDS.unsigned_abs());
        if users.was_deleted(&provider_identity, issued_at).await? {
            return Err(AuthenticateError::SessionEnded);
        }
        let created = users.insert_identity(&provider_identity, identity.email.as_ref(), now).await?;
        if let Some(user) = created {
            audit!("account_created", %user, provider = true, "created an account for an identity provider's user");
            return Ok(IdentityHolder { user, is_suspended: false });
        }
        // Another request created the user first.
        let contended = || StoreError::Contention { subject: "a user who is deleted during creation" };
        Ok(users.find_identity(&provider_identity).await?.ok_or_else(contended)?)
    }
}

/// Returns the key of a subject in the cache.
fn cache_key(subject: &str) -> [u8; 32] {
    Sha256::of([subject]).to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UserId;

    #[test]
    fn user_who_was_read_before_a_change_of_the_account_is_read_again() {
        let provider = IdentityProvider::new(&config::OidcProvider::new("https://id.example".to_owned(), Vec::new()));
        let (subject, user) = (cache_key("ada"), IdentityHolder { user: UserId::new(), is_suspended: false });
        let before = Instant::now();
        provider.remember_user(subject, user, before);
        assert_eq!(provider.cached_user(subject), Some(user));
        provider.forget_user("ada");
        assert_eq!(provider.cached_user(subject), None);
        // A query that was under way during the change ends after it.
        provider.remember_user(subject, user, before);
        assert_eq!(provider.cached_user(subject), None);
        provider.remember_user(subject, user, Instant::now() + Duration::from_millis(1));
        assert_eq!(provider.cached_user(subject), Some(user));
    }
}
