//! The services of the domain, and how they are built from the configuration. `services` builds those that have many parts.

mod services;

use std::sync::{Arc, atomic::AtomicBool};

use parking_lot::Mutex;
use tokio::sync::Notify;

#[cfg(feature = "worker")]
use super::preview_worker::PreviewWorker;
use super::{
    MAX_S3_CALLS_PER_USER,
    account_deletion::{AccountDeletion, LeftoverRemoval},
    accounts::Accounts,
    app_users::AppUsers,
    arrival_polling::ArrivalPoller,
    capability_probing::CapabilityProber,
    capture_backfill::CaptureBackfill,
    confirm::Confirmation,
    credentials::{NoRandomness, Tokens, passwords::Passwords},
    deletion::ImageDeletion,
    dependencies::Dependencies,
    deployment::Deployment,
    event_fan_out::EventFanOut,
    event_streams::EventStreams,
    gallery::Gallery,
    identity_provider::{Identities, IdentityProvider},
    inspection::{CopyInspector, ObjectInspector, PartsCompletion, UploadInspector},
    known_networks::KnownNetworks,
    late_transfers::LateTransfers,
    lifecycle::Lifecycle,
    multipart::{Multipart, MultipartOpening},
    orphans::OrphanScanner,
    password_checks::PasswordChecks,
    previews::Previews,
    recount::Recount,
    removal::ObjectRemoval,
    reservations::{Progress, Reservations},
    s3_timeouts::RecentTimeouts,
    service_keys::ServiceKeys,
    session_cache::SessionCache,
    sessions::Sessions,
    store_capabilities::KnownCapabilities,
    store_notifications::StoreNotifications,
    sweeper::Sweeper,
    throttle::Throttle,
    uploads::{Quota, Uploads},
    uppy::{PartLimits, UppyTokens, UppyUploads, part_limits::PartChecks},
    user_administration::UserAdministration,
    webhooks::{delivery::WebhookDelivery, endpoints::Endpoints},
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
    /// Service keys.
    pub service_keys: ServiceKeys,
    /// Tokens for the app's own users.
    pub app_users: AppUsers,
    /// Users, for the app's backend.
    pub user_administration: UserAdministration,
    /// Rate limits, for handlers to count calls.
    pub throttle: Arc<Throttle>,
    /// The sweeper.
    pub sweeper: Sweeper,
    /// Makes previews in the command `valet worker`, never in a server.
    #[cfg(feature = "worker")]
    pub preview_worker: PreviewWorker,
    /// Receives notifications of the store.
    pub store_notifications: StoreNotifications,
    /// Event streams of clients.
    pub event_streams: EventStreams,
    /// Fans events out to the operator's endpoints.
    pub event_fan_out: EventFanOut,
    /// Delivers events to the endpoints; `None` without `WEBHOOK_SECRET`.
    pub webhook_delivery: Option<Arc<WebhookDelivery>>,
    /// Administers the endpoints; `None` without `WEBHOOK_SECRET`.
    pub endpoints: Option<Endpoints>,
    /// Finds and deletes orphans.
    pub orphans: OrphanScanner,
    /// Recounts usage.
    pub recount: Recount,
    /// Reads time, camera and position of images that an earlier version made ready.
    pub capture_backfill: CaptureBackfill,
    /// The pair of bucket and database.
    pub deployment: Arc<Deployment>,
    /// Probes the object store's capabilities.
    pub prober: Arc<CapabilityProber>,
    /// Probes of the database and the bucket.
    pub dependencies: Dependencies,
}

impl Valet {
    /// Builds the services from the configuration.
    ///
    /// # Errors
    /// [`NoRandomness`] if the system's source of random bytes fails.
    pub fn new(config: &Config, store: Store, objects: Objects) -> Result<Self, NoRandomness> {
        // With events, changes of the store wake the fan-out.
        let woken = config.events.is_on().then(Arc::<Notify>::default);
        let store = woken.clone().into_iter().fold(store, Store::with_events);
        let store = if config.previews.worker().is_some() { store.with_workers() } else { store };
        let base = Base::new(config, store, objects);
        let images = ImageParts::new(&base);
        let account_parts = AccountParts::new(config, &base, &images)?;
        let Base { store, objects, settings, capabilities, .. } = base.clone();
        let webhook_delivery =
            config.webhooks.as_ref().map(|settings| Arc::new(WebhookDelivery::new(store.clone(), settings.clone())));
        let (store_notifications, notified_uploads) = services::store_notifications(&base, config);
        let (deliveries_made, endpoints) =
            webhook_delivery.as_ref().map(|delivery| (delivery.woken.clone(), delivery.endpoints.clone())).unwrap_or_default();
        Ok(Self {
            uploads: services::uploads(&base, &images),
            multipart: services::multipart(&base, &images),
            uppy: services::uppy(&base, &images),
            uppy_tokens: UppyTokens {
                store: store.clone(),
                settings: settings.clone(),
                capabilities,
                tokens: account_parts.tokens,
                identities: account_parts.identities.clone(),
                sessions: account_parts.sessions.clone(),
            },
            #[cfg(feature = "worker")]
            preview_worker: services::preview_worker(&base, &images, config),
            sweeper: services::sweeper(&base, &images, account_parts.account_deletion.clone(), notified_uploads),
            store_notifications,
            service_keys: ServiceKeys { store: store.clone(), throttle: base.throttle.clone(), cache: Mutex::default() },
            app_users: AppUsers::new(&store, &account_parts.sessions, config.tokens.access_ttl),
            user_administration: UserAdministration::new(&store, &settings, &account_parts.identities, &account_parts.sessions),
            gallery: Gallery::new(store.clone(), objects.clone(), settings, previews(config)),
            orphans: OrphanScanner { store: store.clone(), objects: objects.clone(), deployment: images.deployment.clone() },
            event_streams: EventStreams::new(store.clone(), config.load.max_event_streams),
            event_fan_out: EventFanOut { store: store.clone(), endpoints, woken, deliveries_made },
            endpoints: webhook_delivery.clone().map(|delivery| Endpoints { store: store.clone(), delivery }),
            webhook_delivery,
            recount: Recount { store: store.clone() },
            capture_backfill: CaptureBackfill { store: store.clone(), inspector: images.inspector.object_inspector.clone() },
            dependencies: Dependencies { store, objects },
            confirmation: images.confirmation,
            deletion: images.deletion,
            deployment: images.deployment,
            accounts: account_parts.accounts,
            account_deletion: account_parts.account_deletion,
            sessions: account_parts.sessions,
            identities: account_parts.identities,
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
            Arc::new(Deployment { store: store.clone(), objects: objects.clone(), is_mismatched: AtomicBool::new(false) });
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

/// Returns the previews by imgproxy, if they are configured.
fn previews(config: &Config) -> Option<Previews> {
    let imgproxy = config.previews.imgproxy()?.clone();
    Some(Previews { imgproxy, bucket: config.s3.bucket.to_string() })
}

/// Builds the inspection of uploads and the completion of parts.
fn inspectors(base: &Base) -> (Arc<UploadInspector>, Arc<PartsCompletion>) {
    let Base { store, objects, capabilities, settings, .. } = base.clone();
    let object_inspector = Arc::new(ObjectInspector { objects: objects.clone(), capabilities: capabilities.clone(), settings });
    let copy_inspector =
        Arc::new(CopyInspector { store: store.clone(), objects: objects.clone(), object_inspector: object_inspector.clone() });
    let parts_completion = Arc::new(PartsCompletion { store, objects, object_inspector: object_inspector.clone() });
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
        let known_networks = Arc::new(KnownNetworks::new(store.clone(), throttle.clone()));
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
