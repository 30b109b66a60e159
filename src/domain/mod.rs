//! The use cases. Nothing here names poem, mongodb or aws: decisions only, with time as a parameter.
//!
//! Errors are enums without HTTP in them; each says what happened, and `http` says it to the client.

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
pub mod sweeper;
pub mod throttle;
pub mod uploads;
pub mod uppy;

/// For `tests/fuzz` alone.
#[cfg(fuzzing)]
pub use refresh_token::RefreshToken;

use std::{sync::Arc, time::Duration};

use crate::{
    config::{self, Config},
    model::{Image, UserId},
    store::{Objects, Store, StoreError, fair_semaphore::FairSemaphore, objects::Diagnosis},
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
    /// Calls to S3 under way for each user.
    s3_turns: Arc<FairSemaphore<UserId>>,
    timeouts: s3_timeouts::RecentTimeouts,
    arrival_poller: arrival_polling::ArrivalPoller,
    part_checks: uppy::part_limits::PartChecks,
    reservations: reservations::Progress,
    passwords: credentials::passwords::Passwords,
}

/// The longest a slow phone may take for a byte: a grace that a large file does not outlast.
const SLOWEST_BYTES_PER_SECOND: u64 = 32 * 1024;

/// Objects that S3 is asked about at once for one user, whatever the number of requests.
const MAX_S3_CALLS_PER_USER: usize = 16;

/// The answer of a call for many that was made for one.
fn single_result<T, E: From<StoreError>>(mut results: Vec<Result<T, E>>) -> Result<T, E> {
    results.pop().unwrap_or_else(|| Err(StoreError::Update("no answer was made".to_owned()).into()))
}

impl Valet {
    /// Puts the parts together.
    ///
    /// # Errors
    /// Only when the system gives no randomness.
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
        })
    }

    /// Whether the database answers and can be written to.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn probe_database(&self) -> Result<(), StoreError> {
        self.store.now().await.map(drop)
    }

    /// Whether the bucket answers.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn probe_objects(&self) -> Result<(), StoreError> {
        self.objects.probe().await
    }

    /// Whether the bucket can be used; else why not, as an operator can act on it.
    ///
    /// # Errors
    /// [`Diagnosis`].
    pub async fn diagnose_objects(&self) -> Result<(), Diagnosis> {
        self.objects.diagnose().await.map(drop)
    }

    /// How many passwords are being hashed, and how many wait.
    #[must_use]
    pub fn hash_load(&self) -> (usize, usize) {
        self.passwords.load()
    }

    /// How far S3's clock is ahead of this machine's, by its latest answers.
    #[must_use]
    pub fn clock_ahead(&self) -> time::Duration {
        self.objects.clock_ahead()
    }

    /// The bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        self.objects.bucket()
    }

    /// Where clients reach the bucket: scheme and host, for the page's content security policy.
    #[must_use]
    pub fn bucket_origin(&self) -> &str {
        self.objects.origin()
    }

    /// How long after its URL's death a transfer of `size` bytes may still be on its way: S3 checks expiry when a
    /// request begins, and a slow transfer goes on.
    fn grace(&self, size: u64) -> Duration {
        self.sweep.grace.max(Duration::from_secs(size / SLOWEST_BYTES_PER_SECOND))
    }

    /// From when on no PUT for this image can arrive.
    fn quiet_from(&self, image: &Image) -> time::OffsetDateTime {
        image.urls_die_at + self.grace(image.upload.largest_transfer())
    }
}
