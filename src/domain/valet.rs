//! Builds the services from the configuration.

use std::sync::{Arc, atomic::AtomicBool};

use super::{
    MAX_S3_CALLS_PER_USER,
    account_deletion::{AccountDeletion, LeftoverRemoval},
    accounts::Accounts,
    arrival_polling::ArrivalPoller,
    backends::Backends,
    capability_probing::CapabilityProber,
    confirm::Confirmation,
    credentials::{NoRandomness, Tokens, passwords::Passwords},
    deletion::ImageDeletion,
    deployment::Deployment,
    gallery::Gallery,
    identity_provider::{Identities, IdentityProvider},
    inspection::{CopyInspector, ObjectInspector, PartsCompletion, UploadInspector},
    known_networks::{KnownNetworks, RecentlyRecorded},
    late_transfers::LateTransfers,
    lifecycle::Lifecycle,
    multipart::{Multipart, MultipartOpening},
    orphans::OrphanScanner,
    password_checks::PasswordChecks,
    recount::Recount,
    removal::ObjectRemoval,
    reservations::{Progress, Reservations},
    s3_timeouts::RecentTimeouts,
    session_cache::SessionCache,
    sessions::Sessions,
    store_capabilities::KnownCapabilities,
    sweeper::{ImageSettling, PairWatch, Sweeper},
    throttle::Throttle,
    uploads::{IdempotencyKeys, Quota, RecentUploads, Uploads},
    uppy::{PartLimits, UppyTokens, UppyUploads, part_limits::PartChecks},
};
use crate::{
    config::{self, Config},
    store::{Objects, QuotaLimits, Store, fair_semaphore::FairSemaphore},
};

/// The services of the use cases; one instance serves all requests.
#[derive(Debug)]
pub struct Valet {
    /// Opens uploads by single PUTs, and renews their URLs.
    pub uploads: Uploads,
    /// Opens multipart uploads, and signs their parts.
    pub multipart: Multipart,
    /// Uploads by Uppy.
    pub uppy: UppyUploads,
    /// Tokens in the path of Uppy's calls.
    pub uppy_tokens: UppyTokens,
    /// Confirms uploads.
    pub confirmation: Arc<Confirmation>,
    /// Reads ready images.
    pub gallery: Gallery,
    /// Deletes images and open uploads.
    pub deletion: Arc<ImageDeletion>,
    /// Accounts with a password.
    pub accounts: Accounts,
    /// Deletes accounts.
    pub account_deletion: Arc<AccountDeletion>,
    /// Sessions and access tokens.
    pub sessions: Arc<Sessions>,
    /// Local accounts, and the identity provider.
    pub identities: Arc<Identities>,
    /// Rate limits, for handlers to count calls.
    pub throttle: Arc<Throttle>,
    /// The sweeper.
    pub sweeper: Sweeper,
    /// Finds and deletes orphans.
    pub orphans: OrphanScanner,
    /// Recounts usage.
    pub recount: Recount,
    /// The pair of bucket and database.
    pub deployment: Arc<Deployment>,
    /// Probes the object store's capabilities.
    pub prober: Arc<CapabilityProber>,
    /// Probes of the database and the bucket.
    pub backends: Backends,
}

impl Valet {
    /// Builds the services from the configuration.
    ///
    /// # Errors
    /// [`NoRandomness`] if the system's source of random bytes fails.
    pub fn new(config: &Config, store: Store, objects: Objects) -> Result<Self, NoRandomness> {
        let base = Base::new(config, store, objects);
        let images = ImageParts::new(&base);
        let people = AccountParts::new(config, &base, &images)?;
        let Base { store, objects, settings, capabilities, .. } = base.clone();
        Ok(Self {
            uploads: uploads(&base, &images),
            multipart: multipart(&base, &images),
            uppy: uppy(&base, &images),
            uppy_tokens: UppyTokens {
                store: store.clone(),
                settings: settings.clone(),
                capabilities,
                tokens: people.tokens,
                identities: people.identities.clone(),
                sessions: people.sessions.clone(),
            },
            sweeper: sweeper(&base, &images, people.account_deletion.clone()),
            gallery: Gallery { store: store.clone(), objects: objects.clone(), settings },
            orphans: OrphanScanner { store: store.clone(), objects: objects.clone(), deployment: images.deployment.clone() },
            recount: Recount { store: store.clone() },
            backends: Backends { store, objects },
            confirmation: images.confirmation,
            deletion: images.deletion,
            deployment: images.deployment,
            accounts: people.accounts,
            account_deletion: people.account_deletion,
            sessions: people.sessions,
            identities: people.identities,
            throttle: base.throttle,
            prober: base.prober,
        })
    }
}

/// Connections, settings and state that most services share.
#[derive(Clone)]
struct Base {
    store: Arc<Store>,
    objects: Arc<Objects>,
    settings: Arc<config::Uploads>,
    sweep: config::Sweep,
    capabilities: Arc<KnownCapabilities>,
    prober: Arc<CapabilityProber>,
    throttle: Arc<Throttle>,
    late_transfers: LateTransfers,
    arrival_poller: Arc<ArrivalPoller>,
}

impl Base {
    fn new(config: &Config, store: Store, objects: Objects) -> Self {
        let (objects, capabilities) = (Arc::new(objects), Arc::new(KnownCapabilities::new(&config.s3)));
        Self {
            store: Arc::new(store),
            settings: Arc::new(config.uploads.clone()),
            sweep: config.sweep,
            prober: Arc::new(CapabilityProber { objects: objects.clone(), capabilities: capabilities.clone() }),
            throttle: Arc::new(Throttle::new(&config.limits)),
            late_transfers: LateTransfers { min_grace: config.sweep.grace },
            arrival_poller: Arc::default(),
            objects,
            capabilities,
        }
    }
}

/// Services that change images.
struct ImageParts {
    deployment: Arc<Deployment>,
    reservations: Arc<Reservations>,
    lifecycle: Arc<Lifecycle>,
    removal: Arc<ObjectRemoval>,
    deletion: Arc<ImageDeletion>,
    parts_completion: Arc<PartsCompletion>,
    inspector: Arc<UploadInspector>,
    confirmation: Arc<Confirmation>,
    opening: Arc<MultipartOpening>,
    quota: Arc<Quota>,
    part_limits: Arc<PartLimits>,
}

impl ImageParts {
    fn new(base: &Base) -> Self {
        let Base { store, objects, settings, capabilities, late_transfers, .. } = base.clone();
        let deployment =
            Arc::new(Deployment { store: store.clone(), objects: objects.clone(), is_parted: AtomicBool::new(false) });
        let limits = QuotaLimits { quota_bytes: settings.quota_bytes, max_pending: settings.max_pending };
        let reservations = Arc::new(Reservations { store: store.clone(), limits, late_transfers, progress: Progress::default() });
        let lifecycle = Arc::new(Lifecycle { store: store.clone(), reservations: reservations.clone() });
        let removal = Arc::new(ObjectRemoval {
            store: store.clone(),
            objects: objects.clone(),
            deployment: deployment.clone(),
            late_transfers,
        });
        let deletion = ImageDeletion {
            store: store.clone(),
            reservations: reservations.clone(),
            lifecycle: lifecycle.clone(),
            removal: removal.clone(),
        };
        let part_limits = PartLimits {
            objects: objects.clone(),
            throttle: base.throttle.clone(),
            lifecycle: lifecycle.clone(),
            removal: removal.clone(),
            part_checks: PartChecks::default(),
        };
        let (inspector, parts_completion) = inspectors(base);
        let confirmation = Confirmation {
            store: store.clone(),
            reservations: reservations.clone(),
            lifecycle: lifecycle.clone(),
            inspector: inspector.clone(),
            s3_turns: FairSemaphore::new(usize::MAX, MAX_S3_CALLS_PER_USER),
            timeouts: RecentTimeouts::default(),
        };
        Self {
            deployment,
            reservations,
            lifecycle,
            removal,
            deletion: Arc::new(deletion),
            parts_completion,
            inspector,
            confirmation: Arc::new(confirmation),
            quota: Arc::new(Quota { store: store.clone(), settings: settings.clone() }),
            opening: Arc::new(MultipartOpening { store, objects, settings, capabilities, late_transfers }),
            part_limits: Arc::new(part_limits),
        }
    }
}

fn inspectors(base: &Base) -> (Arc<UploadInspector>, Arc<PartsCompletion>) {
    let Base { store, objects, capabilities, late_transfers, .. } = base.clone();
    let object_inspector = Arc::new(ObjectInspector { objects: objects.clone(), capabilities: capabilities.clone() });
    let copy_inspector = Arc::new(CopyInspector {
        store: store.clone(),
        objects: objects.clone(),
        late_transfers,
        object_inspector: object_inspector.clone(),
    });
    let parts_completion =
        Arc::new(PartsCompletion { store, objects, late_transfers, object_inspector: object_inspector.clone() });
    let inspector =
        UploadInspector { capabilities, parts_completion: parts_completion.clone(), copy_inspector, object_inspector };
    (Arc::new(inspector), parts_completion)
}

/// Services of accounts.
struct AccountParts {
    tokens: Arc<Tokens>,
    identities: Arc<Identities>,
    sessions: Arc<Sessions>,
    accounts: Accounts,
    account_deletion: Arc<AccountDeletion>,
}

impl AccountParts {
    fn new(config: &Config, base: &Base, images: &ImageParts) -> Result<Self, NoRandomness> {
        let Base { store, objects, settings, throttle, late_transfers, .. } = base.clone();
        let provider = config.accounts.provider.as_ref().map(|settings| Arc::new(IdentityProvider::new(settings)));
        let identities = Arc::new(Identities { store: store.clone(), provider, local_accounts: config.accounts.local });
        let known_networks = Arc::new(KnownNetworks {
            store: store.clone(),
            throttle: throttle.clone(),
            recent_networks: RecentlyRecorded::default(),
        });
        let passwords = Arc::new(Passwords::new(config.accounts.password_min_chars)?);
        let password_checks =
            Arc::new(PasswordChecks { store: store.clone(), throttle: throttle.clone(), passwords: passwords.clone() });
        let tokens = Arc::new(Tokens::new(&config.tokens));
        let sessions = Arc::new(Sessions {
            store: store.clone(),
            tokens: tokens.clone(),
            identities: identities.clone(),
            throttle: throttle.clone(),
            known_networks: known_networks.clone(),
            session_ttl: config.tokens.refresh_ttl,
            session_cache: SessionCache::default(),
        });
        let account_deletion = AccountDeletion {
            store: store.clone(),
            objects: objects.clone(),
            settings,
            reservations: images.reservations.clone(),
            deletion: images.deletion.clone(),
            late_transfers,
            leftovers: LeftoverRemoval { objects },
            password_checks: password_checks.clone(),
            identities: identities.clone(),
            sessions: sessions.clone(),
        };
        let accounts = Accounts {
            store,
            identities: identities.clone(),
            can_sign_up: config.switches.signup,
            throttle,
            passwords,
            sessions: sessions.clone(),
            known_networks,
            password_checks,
        };
        Ok(Self { tokens, identities, sessions, accounts, account_deletion: Arc::new(account_deletion) })
    }
}

fn uploads(base: &Base, images: &ImageParts) -> Uploads {
    let Base { store, objects, settings, capabilities, late_transfers, .. } = base.clone();
    Uploads {
        store,
        objects,
        settings,
        capabilities,
        reservations: images.reservations.clone(),
        late_transfers,
        quota: images.quota.clone(),
        inspector: images.inspector.clone(),
        lifecycle: images.lifecycle.clone(),
        recent: RecentUploads::default(),
    }
}

fn multipart(base: &Base, images: &ImageParts) -> Multipart {
    let Base { store, objects, settings, capabilities, late_transfers, .. } = base.clone();
    Multipart {
        idempotency_keys: IdempotencyKeys { store: store.clone() },
        store,
        objects,
        settings,
        capabilities,
        opening: images.opening.clone(),
        reservations: images.reservations.clone(),
        quota: images.quota.clone(),
        lifecycle: images.lifecycle.clone(),
        late_transfers,
    }
}

fn uppy(base: &Base, images: &ImageParts) -> UppyUploads {
    let Base { store, objects, settings, capabilities, arrival_poller, throttle, .. } = base.clone();
    UppyUploads {
        store,
        objects,
        settings,
        capabilities,
        arrival_poller,
        reservations: images.reservations.clone(),
        quota: images.quota.clone(),
        throttle,
        confirmation: images.confirmation.clone(),
        opening: images.opening.clone(),
        lifecycle: images.lifecycle.clone(),
        part_limits: images.part_limits.clone(),
        parts_completion: images.parts_completion.clone(),
        removal: images.removal.clone(),
    }
}

fn sweeper(base: &Base, images: &ImageParts, account_deletion: Arc<AccountDeletion>) -> Sweeper {
    let Base { store, objects, sweep, capabilities, prober, arrival_poller, late_transfers, .. } = base.clone();
    let settling = ImageSettling {
        store: store.clone(),
        objects: objects.clone(),
        sweep,
        late_transfers,
        inspector: images.inspector.clone(),
        lifecycle: images.lifecycle.clone(),
        part_limits: images.part_limits.clone(),
        reservations: images.reservations.clone(),
        removal: images.removal.clone(),
    };
    Sweeper {
        store,
        objects,
        sweep,
        capabilities,
        settling,
        pair_watch: PairWatch { sweep, deployment: images.deployment.clone() },
        arrival_poller,
        prober,
        reservations: images.reservations.clone(),
        account_deletion,
    }
}
