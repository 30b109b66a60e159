//! The use cases: decisions, without HTTP, MongoDB or AWS types, and with the time as a parameter.
//!
//! Errors are enums without HTTP; `http` maps them to problems.

pub mod account_deletion;
pub mod accounts;
mod arrival_polling;
pub mod audit;
pub mod authentication;
mod capability_probing;
pub mod confirm;
pub mod content;
pub mod credentials;
pub mod deletion;
pub mod deployment;
pub mod doctor;
pub mod gallery;
mod generational_cache;
pub mod hash_pool;
pub mod identity_provider;
pub mod inspection;
mod known_networks;
mod lifecycle;
pub mod multipart;
pub mod orphans;
pub mod password_rules;
pub mod recount;
mod refresh_token;
mod removal;
mod reservations;
mod s3_timeouts;
pub mod sessions;
pub mod shares;
pub mod store_capabilities;
mod sweep_backoff;
pub mod sweeper;
pub mod throttle;
pub mod uploads;
pub mod uppy;

/// Exposed to `tests/fuzz` only.
#[cfg(fuzzing)]
pub use refresh_token::RefreshToken;

pub use crate::store::{StoreError, request_origin};

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use crate::{
    config::{self, Config},
    model::{Image, UserId},
    store::{Objects, Store, fair_semaphore::FairSemaphore, objects::Diagnosis},
};

/// State of the use cases; one instance serves all requests.
#[derive(Debug)]
pub struct Valet {
    store: Store,
    objects: Objects,
    uploads: config::Uploads,
    sweep: config::Sweep,
    capabilities: store_capabilities::KnownCapabilities,
    tokens: credentials::Tokens,
    session_ttl: Duration,
    session_cache: sessions::session_cache::SessionCache,
    local_accounts: bool,
    can_sign_up: bool,
    provider: Option<Arc<identity_provider::IdentityProvider>>,
    throttle: throttle::Throttle,
    recent_networks: known_networks::RecentlyRecorded,
    /// Permits for calls to S3, by user.
    s3_turns: Arc<FairSemaphore<UserId>>,
    timeouts: s3_timeouts::RecentTimeouts,
    arrival_poller: arrival_polling::ArrivalPoller,
    part_checks: uppy::part_limits::PartChecks,
    reservations: reservations::Progress,
    passwords: credentials::passwords::Passwords,
    /// Whether the bucket belongs to another database by now.
    is_parted: AtomicBool,
}

/// Transfer rate of the slowest client that is waited for; a large file gets a grace period in proportion.
const SLOWEST_BYTES_PER_SECOND: u64 = 32 * 1024;

/// Concurrent objects in calls to S3 for one user, over all requests.
const MAX_S3_CALLS_PER_USER: usize = 16;

/// Returns the only result of a batch call that was made with one item.
fn single_result<T, E: From<StoreError>>(mut results: Vec<Result<T, E>>) -> Result<T, E> {
    results.pop().unwrap_or_else(|| Err(StoreError::Update("a batch call returned no result".to_owned()).into()))
}

impl Valet {
    /// Creates the state from the configuration.
    ///
    /// # Errors
    /// [`credentials::NoRandomness`] if the system's source of random bytes fails.
    pub fn new(config: &Config, store: Store, objects: Objects) -> Result<Self, credentials::NoRandomness> {
        Ok(Self {
            store,
            objects,
            uploads: config.uploads.clone(),
            sweep: config.sweep,
            capabilities: store_capabilities::KnownCapabilities::new(&config.s3),
            tokens: credentials::Tokens::new(&config.tokens),
            session_ttl: config.tokens.refresh_ttl,
            session_cache: sessions::session_cache::SessionCache::default(),
            local_accounts: config.accounts.local,
            can_sign_up: config.switches.signup,
            provider: config
                .accounts
                .provider
                .as_ref()
                .map(|settings| Arc::new(identity_provider::IdentityProvider::new(settings))),
            throttle: throttle::Throttle::new(&config.limits),
            recent_networks: known_networks::RecentlyRecorded::default(),
            s3_turns: FairSemaphore::new(usize::MAX, MAX_S3_CALLS_PER_USER),
            timeouts: s3_timeouts::RecentTimeouts::default(),
            arrival_poller: arrival_polling::ArrivalPoller::default(),
            part_checks: uppy::part_limits::PartChecks::default(),
            reservations: reservations::Progress::default(),
            passwords: credentials::passwords::Passwords::new(config.accounts.password_min_chars)?,
            is_parted: AtomicBool::new(false),
        })
    }

    /// Checks that the database answers and has a writable primary.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn probe_database(&self) -> Result<(), StoreError> {
        self.store.now().await.map(drop)
    }

    /// Checks that the bucket answers.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn probe_objects(&self) -> Result<(), StoreError> {
        self.objects.probe().await
    }

    /// Checks that the bucket can be used. The error describes the cause for the operator.
    ///
    /// # Errors
    /// [`Diagnosis`].
    pub async fn diagnose_objects(&self) -> Result<(), Diagnosis> {
        self.objects.diagnose().await.map(drop)
    }

    /// Returns how many passwords are being hashed, and how many wait.
    #[must_use]
    pub fn hash_load(&self) -> (usize, usize) {
        self.passwords.load()
    }

    /// Returns how far S3's clock is ahead of the server's, by its latest responses.
    #[must_use]
    pub fn clock_ahead(&self) -> time::Duration {
        self.objects.clock_ahead()
    }

    /// Returns the bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        self.objects.bucket()
    }

    /// Returns the origin at which clients reach the bucket, for the page's content security policy.
    #[must_use]
    pub fn bucket_origin(&self) -> &str {
        self.objects.origin()
    }

    /// Returns how long after a URL's expiry a transfer of `size` bytes may still arrive: S3 checks the expiry when a request
    /// begins, and a slow transfer continues.
    fn grace(&self, size: u64) -> Duration {
        self.sweep.grace.max(Duration::from_secs(size / SLOWEST_BYTES_PER_SECOND))
    }

    /// Returns the time after which no PUT for this image can arrive.
    fn quiet_from(&self, image: &Image) -> time::OffsetDateTime {
        image.urls_die_at + self.grace(image.upload.largest_transfer())
    }
}
