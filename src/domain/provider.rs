//! Users of an identity provider: its tokens let them in beside, or instead of, those with an account here.
//!
//! Its keys are kept in memory, fetched again from time to time and for a token of an unknown key. What is known goes on
//! through an outage; whoever brings a known key waits for nobody.

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::{
    Valet,
    audit::audit,
    credentials::{
        Caller, Proof, TokenError,
        foreign::{Identity, KeyName, LEEWAY, ProviderKeys},
    },
    recent::Recent,
    sessions::{AuthenticateError, liveness::Liveness},
};
use crate::{
    config,
    model::UserId,
    store::{ProviderIdentity, StoreError, oidc_discovery},
};

/// Without a fetch that succeeded for so long, the keys are trusted no more: some may have been revoked.
const OLDEST_KEYS: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a request waits for keys; the fetch goes on for those after it.
const PATIENCE: Duration = Duration::from_secs(3);
/// After a fetch in the background that failed.
const RETRY: Duration = Duration::from_secs(15);
/// Users that are remembered.
const CAPACITY: usize = 100_000;

/// The call is for accounts of this service's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LocalOnly {
    /// There are none here.
    #[error("this server has no accounts of its own")]
    Off,
    /// The caller's is not one.
    #[error("the account is an identity provider's")]
    NotYours,
}

/// The provider, as far as this server knows it.
#[derive(Debug)]
pub(super) struct Provider {
    settings: config::OidcProvider,
    keys: RwLock<Option<(Arc<ProviderKeys>, Instant)>>,
    /// When a fetch began last; held while one is under way, so that there is one at a time.
    fetched: Arc<tokio::sync::Mutex<Option<Instant>>>,
    /// Users by the hash of their subject, and when the database was asked.
    users: Mutex<Recent<[u8; 32], (UserId, Instant)>>,
}

/// The provider's keys as they are now, or what is wrong with them.
pub(super) async fn fetch_keys(settings: &config::OidcProvider) -> Result<ProviderKeys, String> {
    let document = oidc_discovery::fetch_keys(&settings.issuer).await.map_err(|error| error.to_string())?;
    ProviderKeys::read(&document).map_err(|error| error.to_string())
}

impl Provider {
    pub(super) fn new(settings: &config::OidcProvider) -> Self {
        Self {
            settings: settings.clone(),
            keys: RwLock::default(),
            fetched: Arc::default(),
            users: Mutex::new(Recent::new(CAPACITY)),
        }
    }

    fn keys(&self) -> Option<Arc<ProviderKeys>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.as_ref().filter(|(_, at)| at.elapsed() < OLDEST_KEYS).map(|(keys, _)| Arc::clone(keys))
    }

    /// Whether the keys are as the provider had them since `moment`.
    fn is_fresh_since(&self, moment: Instant) -> bool {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|(_, at)| *at >= moment)
    }

    /// Fetches the keys; those of before stand when that fails.
    async fn fetch(&self) -> bool {
        match fetch_keys(&self.settings).await {
            Ok(keys) => {
                let mut known = self.keys.write().unwrap_or_else(PoisonError::into_inner);
                if known.as_ref().is_none_or(|(before, _)| format!("{before:?}") != format!("{keys:?}")) {
                    tracing::info!(issuer = self.settings.issuer, count = keys.count(), "keys of the identity provider");
                }
                *known = Some((Arc::new(keys), Instant::now()));
                true
            }
            Err(reason) => {
                let kept = self.keys().is_some();
                tracing::warn!(issuer = self.settings.issuer, reason, kept, "the identity provider's keys could not be fetched");
                false
            }
        }
    }

    /// The keys with this one among them, fetched anew if need be: by one request for all that wait, not more often than the
    /// pause allows, and in a task of its own, so that nobody who hangs up takes it along.
    async fn keys_with(self: &Arc<Self>, name: &KeyName) -> Result<Arc<ProviderKeys>, AuthenticateError> {
        let known = || self.keys().filter(|keys| keys.has(name));
        if let Some(keys) = known() {
            return Ok(keys);
        }
        let pause = self.settings.refresh_pause;
        let refresh = async {
            let mut fetched = Arc::clone(&self.fetched).lock_owned().await;
            if known().is_some() || fetched.is_some_and(|at| at.elapsed() < pause) {
                return;
            }
            *fetched = Some(Instant::now());
            let provider = Arc::clone(self);
            let fetch = tokio::spawn(async move {
                provider.fetch().await;
                drop(fetched);
            });
            // Only a panic ends it early, and that says so itself.
            let _ = fetch.await;
        };
        let began = Instant::now();
        let _ = tokio::time::timeout(PATIENCE, refresh).await;
        match known() {
            Some(keys) => Ok(keys),
            // The provider was asked a moment ago and knows no such key.
            None if began.checked_sub(pause).is_some_and(|moment| self.is_fresh_since(moment)) => Err(TokenError::Invalid.into()),
            None => Err(AuthenticateError::NoKeys),
        }
    }

    /// The user is deleted.
    pub(super) fn forget(&self, subject: &str) {
        self.users.lock().unwrap_or_else(PoisonError::into_inner).remove(hash(subject));
    }

    fn known(&self, subject: [u8; 32]) -> Option<UserId> {
        let (user, at) = self.users.lock().unwrap_or_else(PoisonError::into_inner).get(subject)?;
        (at.elapsed() < Liveness::KEPT).then_some(user)
    }
}

impl Valet {
    /// Fetches the identity provider's keys from time to time until `stop`; returns at once when there is no provider.
    pub async fn refresh_provider_until(&self, stop: CancellationToken) {
        let Some(provider) = &self.provider else { return };
        loop {
            let fetch = async {
                let mut fetched = provider.fetched.lock().await;
                *fetched = Some(Instant::now());
                provider.fetch().await
            };
            let pause = tokio::select! {
                () = stop.cancelled() => return,
                succeeded = fetch => if succeeded { provider.settings.refresh_every } else { RETRY.min(provider.settings.refresh_every) },
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Whether this server has accounts of its own.
    ///
    /// # Errors
    /// [`LocalOnly`] when it has none.
    pub(super) fn local_accounts(&self) -> Result<(), LocalOnly> {
        if self.local_accounts { Ok(()) } else { Err(LocalOnly::Off) }
    }

    /// Returns the user of a provider's token, creating the user for the first one.
    pub(super) async fn authenticate_foreign(
        &self,
        token: &str,
        name: &KeyName,
        now: OffsetDateTime,
    ) -> Result<Caller, AuthenticateError> {
        let provider = self.provider.as_ref().ok_or(TokenError::Invalid)?;
        let identity = provider.keys_with(name).await?.verify(token, name, &provider.settings, now)?;
        let subject = hash(&identity.subject);
        let user = match provider.known(subject) {
            Some(user) => user,
            None => {
                let asked = Instant::now();
                let user = self.user_of(&provider.settings.issuer, &identity, now).await?;
                provider.users.lock().unwrap_or_else(PoisonError::into_inner).insert(subject, (user, asked));
                user
            }
        };
        let Identity { issued_at, expires_at, .. } = identity;
        Ok(Caller { user, proof: Proof::Provider { issued_at, expires_at } })
    }

    async fn user_of(&self, issuer: &str, identity: &Identity, now: OffsetDateTime) -> Result<UserId, AuthenticateError> {
        let users = &self.store.users;
        if let Some(user) = users.find_identity(issuer, &identity.subject).await? {
            return Ok(user);
        }
        // A token from before the deletion of its user does not make the account anew; the provider's clock may be ahead.
        let named = ProviderIdentity { issuer: issuer.to_owned(), subject: identity.subject.clone() };
        let issued_at = identity.issued_at - Duration::from_secs(LEEWAY.unsigned_abs());
        if users.was_deleted(&named, issued_at).await? {
            return Err(AuthenticateError::Ended);
        }
        let made = users.insert_identity(&named, identity.email.as_ref(), now).await?;
        if let Some(user) = made {
            audit!("account_created", %user, provider = true, "an identity provider's user came for the first time");
            return Ok(user);
        }
        // Another request was faster.
        let lost = || StoreError::Contention { what: "a user who is deleted while it is made" };
        Ok(users.find_identity(issuer, &identity.subject).await?.ok_or_else(lost)?)
    }
}

fn hash(subject: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, subject.as_bytes()).as_ref());
    hash
}
