//! The store: every query and update of MongoDB, every call to S3 (`objects`), and the requests to identity providers
//! (`oidc_discovery`) and webhook endpoints (`webhook_sender`).
//!
//! Only this module, `dev`, tests and benches name mongodb and aws-sdk-s3. Nothing here knows the API or decides policy. Most
//! queries for one owner have `owned` in their names (`find_owned`), a transition of state is one conditional update, and each call
//! has a deadline, because the driver has no socket timeout.
//!
//! Most collections have a file or folder of their name; `account_keys` has `emails` and `identities`, `deployment` has `meta`,
//! `webhook_endpoints` has `endpoints`, `outbox` and `outbox_queue` have the events in images and users. `mongo` runs operations,
//! with permits of `fair_semaphore`; `elections` and `driver_events` observe the driver. `reservations` takes steps that change an
//! image and a user; `recount` and `captures` use transactions.

mod account_keys;
mod captures;
pub mod database_probe;
mod deliveries;
mod deployment;
mod driver_events;
mod elections;
mod failpoint;
pub mod fair_semaphore;
mod image_changes;
mod images;
mod known_networks;
mod mongo;
pub mod objects;
pub mod oidc_discovery;
mod outbox;
mod outbox_queue;
mod recount;
pub mod request_origin;
mod reservations;
mod service_keys;
mod sessions;
mod undated;
mod users;
mod webhook_endpoints;
pub mod webhook_sender;

use mongodb::{
    bson::{Bson, DateTime, Document, doc},
    error::{ErrorKind, WriteFailure},
};
use std::sync::Arc;

use time::OffsetDateTime;
use tokio::sync::Notify;

pub use deliveries::{Attempt, ClaimedDelivery, Deliveries, DueDelivery, NewDelivery, Outcome};
pub use deployment::{DeploymentRecord, MissingCollection};
pub use failpoint::without_failpoints;
pub use image_changes::{ChangeFeed, FeedError, FeedPoint, FeedStart, ImageChange, ImageChanges};
pub use images::{
    ClaimOutcome, GalleryRow, Images, InsertOutcome, Inventory, InventoryEntry, Lease, LookupResult, MadeDue, MadePictures,
    ObjectCreationClaim, OpenedLifetimes, Postponement, PreviewWait, QueuedImage, QueuedRendering, RawGalleryPage,
    RemainingImage, RenderingClaim, ReservationStatus, StateCount, UnreadCaptures, UnreadableImage, UnrenderedPage,
    UnsettledKind,
};
pub use known_networks::KnownNetworks;
pub use objects::{GetSeries, Objects};
pub use outbox_queue::{EventSource, OutboxQueue, OutboxRecord, StoredEvent};
pub use recount::{Counts, Repair};
pub use reservations::StepOutcome;
pub use service_keys::{ServiceKey, ServiceKeys};
pub use sessions::{Exchange, Rotation, Session, Sessions};
pub use users::{
    Account, AccountPage, AccountState, AnnouncedStep, CountedAccount, Deletion, DeletionDue, IdentityHolder, KeyStep,
    LegacyHold, LegacyHolds, NewPassword, PasswordState, ProviderIdentity, QuotaLimits, ReserveOutcome, StaleEntries, UserFilter,
    Users,
};
pub use webhook_endpoints::WebhookEndpoints;

use self::{
    driver_events::Operation,
    mongo::{DEADLINE, MongoClient},
    outbox::Outbox,
};
use crate::{
    config,
    metrics::{METRICS, Metrics},
    model::{ImageState, StepId},
};

/// A failed call. The caller cannot know whether a write was applied, so the write must be safe to repeat.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database returned an error, or could not be reached.
    #[error("{}", describe(.0))]
    Database(#[source] mongodb::error::Error),
    /// An update of a bulk write was rejected.
    #[error("the database refused an update: {0}")]
    Update(String),
    /// The database did not respond in time.
    #[error("the database did not respond within {} s", DEADLINE.as_secs())]
    DatabaseTimeout,
    /// A document deviates from those that this program writes.
    #[error("the document {id} in {collection} cannot be read: {field} is missing or malformed")]
    Corrupt {
        /// The collection.
        collection: &'static str,
        /// The document.
        id: String,
        /// The field.
        field: &'static str,
    },
    /// The object store returned an error, or could not be reached.
    #[error("the object store failed ({operation}): {reason}")]
    Objects {
        /// The S3 operation.
        operation: &'static str,
        /// Status and S3's error code, or the text of the transport error. Never a URL.
        reason: String,
    },
    /// The object store rejects this object, part or upload, and would reject it again.
    #[error("the object store rejected the request permanently ({operation}): {reason}")]
    ObjectRejected {
        /// The S3 operation.
        operation: &'static str,
        /// Status and S3's error code.
        reason: String,
    },
    /// The object store does not support this operation.
    #[error("the object store does not support {operation}: {reason}")]
    ObjectsUnsupported {
        /// The S3 operation.
        operation: &'static str,
        /// Status and S3's error code.
        reason: String,
    },
    /// The object store rejects the credentials, their permissions, the bucket or its encryption key.
    #[error("the object store is misconfigured ({operation}): {reason}")]
    ObjectsMisconfigured {
        /// The S3 operation.
        operation: &'static str,
        /// Status and S3's error code.
        reason: String,
    },
    /// Other requests changed the same records concurrently, in every attempt.
    #[error("concurrent changes of {what} in every attempt")]
    Contention {
        /// The kind of record.
        what: &'static str,
    },
    /// A GET finds the object and a HEAD does not: it was just written, so no decision about it may be based on this.
    #[error("HeadObject finds no object where GetObject finds one")]
    ObjectNotVisible,
    /// The object store did not respond in time.
    #[error("the object store did not respond in time ({operation})")]
    ObjectsTimeout {
        /// The S3 operation.
        operation: &'static str,
    },
    /// The object store retains deleted data: versions under Object Lock or a policy without `s3:DeleteObjectVersion`, or
    /// uploads that it cannot abort.
    #[error("the object store retains {objects} deleted objects, or versions of them")]
    ObjectsRemain {
        /// Objects and uploads.
        objects: u64,
    },
    /// No credentials to sign with are available.
    #[error("no valid credentials for S3: {reason}")]
    Credentials {
        /// Message of the credential provider chain.
        reason: String,
    },
}

impl StoreError {
    /// Returns whether every repeat of the same call fails in the same way, even after an operator has changed credentials or
    /// permissions: waiting does not help.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::ObjectRejected { .. } | Self::ObjectsUnsupported { .. })
    }

    /// Returns whether the same call may succeed by itself after a while. Other calls are retried at growing intervals.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        let needs_operator =
            matches!(self, Self::Corrupt { .. } | Self::ObjectsMisconfigured { .. } | Self::ObjectsRemain { .. });
        !(self.is_final() || needs_operator)
    }
}

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    /// Accounts and their counters.
    pub users: Users,
    /// Sessions.
    pub sessions: Sessions,
    /// Images in every state.
    pub images: Images,
    /// Changes of images as they are made.
    pub image_changes: ImageChanges,
    /// Events that are to be fanned out.
    pub outboxes: OutboxQueue,
    /// Deliveries of events to endpoints.
    pub deliveries: Deliveries,
    /// Service keys.
    pub service_keys: ServiceKeys,
    /// Webhook endpoints.
    pub webhook_endpoints: WebhookEndpoints,
    /// Networks from which accounts were signed in to.
    pub known_networks: KnownNetworks,
    mongo: MongoClient,
}

impl Store {
    /// Connects without writing, because the database may belong to another deployment.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn open(config: &config::Mongo) -> Result<Self, StoreError> {
        let mongo = MongoClient::open(config).await?;
        mongo.wait_for_primary().await?;
        let (users, sessions, images) = (Users::new(&mongo), Sessions::new(&mongo), Images::new(&mongo));
        let (outboxes, deliveries) = (OutboxQueue::new(&mongo), Deliveries::new(&mongo));
        let (webhook_endpoints, service_keys) = (WebhookEndpoints::new(&mongo), ServiceKeys::new(&mongo));
        let (known_networks, image_changes) = (KnownNetworks::new(&mongo), ImageChanges::new(&mongo));
        Ok(Self {
            users,
            sessions,
            images,
            image_changes,
            outboxes,
            deliveries,
            webhook_endpoints,
            service_keys,
            known_networks,
            mongo,
        })
    }

    /// Returns the same store, whose changes write events and wake the waiters of `woken`.
    #[must_use]
    pub fn with_events(self, woken: Arc<Notify>) -> Self {
        let outbox = Outbox::on(woken);
        Self { users: self.users.with_events(outbox.clone()), images: self.images.with_events(outbox), ..self }
    }

    /// Returns the same store, which asks workers for pictures of images that become ready.
    #[must_use]
    pub fn with_workers(self) -> Self {
        Self { images: self.images.with_workers(), ..self }
    }

    /// Creates the indexes that the program relies on.
    ///
    /// # Errors
    /// When an index cannot be created: without it, guarantees would break silently.
    pub async fn make_indexes(&self) -> Result<(), StoreError> {
        self.users.make_indexes().await?;
        self.sessions.make_indexes().await?;
        self.images.make_indexes().await?;
        self.deliveries.make_indexes().await?;
        self.webhook_endpoints.make_indexes().await?;
        self.known_networks.make_indexes().await
    }

    /// Returns the database's clock. The sweeper uses it, so that a server whose clock is wrong sweeps nothing early.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not respond; this call is also the readiness probe.
    pub async fn now(&self) -> Result<OffsetDateTime, StoreError> {
        let hello = self.mongo.command(Operation::HELLO, doc! { "hello": 1 }).await?;
        let writable = hello.get_bool("isWritablePrimary").unwrap_or(false);
        let now = hello.get_datetime("localTime").ok().filter(|_| writable);
        now.map(|at| instant(*at)).ok_or(StoreError::Corrupt {
            collection: "hello",
            id: String::new(),
            field: "localTime of a writable primary",
        })
    }
}

/// Counts images that entered a state.
fn count_transitions(to: ImageState, how_many: u64) {
    Metrics::count(&METRICS.image_transitions, to.as_str(), how_many);
}

/// MongoDB's error code for a violated unique index.
const DUPLICATE_KEY: i32 = 11000;

/// Describes an error of the driver, without its dump of the topology.
fn describe(error: &mongodb::error::Error) -> String {
    match &*error.kind {
        ErrorKind::ServerSelection { .. } => "no server that takes writes could be reached within 3 s".to_owned(),
        ErrorKind::Authentication { .. } => "the database refused the user or the password".to_owned(),
        kind => format!("the database failed: {kind}"),
    }
}

/// Returns whether a unique index rejected the write.
fn is_duplicate(error: &mongodb::error::Error) -> bool {
    matches!(*error.kind, ErrorKind::Write(WriteFailure::WriteError(ref failure)) if failure.code == DUPLICATE_KEY)
}

/// Returns whether an index of this name exists with other options.
fn is_other_index(error: &mongodb::error::Error) -> bool {
    // IndexOptionsConflict, IndexKeySpecsConflict.
    matches!(*error.kind, ErrorKind::Command(ref failure) if matches!(failure.code, 85 | 86))
}

/// Returns whether the database rejected a unique index because its collection is sharded, and the index does not begin with the
/// shard key.
fn is_index_of_shard(error: &mongodb::error::Error) -> bool {
    // CannotCreateIndex.
    matches!(*error.kind, ErrorKind::Command(ref failure) if failure.code == 67)
}

/// Returns the positions in a bulk insertion that unique indexes rejected; `None` if there was another error.
fn duplicates(error: &mongodb::error::Error) -> Option<Vec<usize>> {
    match &*error.kind {
        ErrorKind::InsertMany(failure) if failure.write_concern_error.is_none() => {
            let rejected = failure.write_errors.as_ref()?;
            let are_duplicates = rejected.iter().all(|rejection| rejection.code == DUPLICATE_KEY);
            are_duplicates.then(|| rejected.iter().map(|rejection| rejection.index).collect())
        }
        _ => None,
    }
}

/// Converts a time to that of MongoDB, in whole milliseconds.
fn datetime(at: OffsetDateTime) -> DateTime {
    DateTime::from_millis(i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX))
}

/// Returns a stored time; the epoch for a time outside of the years that `OffsetDateTime` has.
fn instant(at: DateTime) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.timestamp_millis()) * 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Earliest time by which images are ordered: the beginning of year 0, the first of RFC 3339. An earlier stored time is damaged.
const FIRST_SORT_TIME: DateTime = DateTime::from_millis(-62_167_219_200_000);
/// Latest time by which images are ordered: the end of year 9999, the last of RFC 3339. A later stored time is damaged.
const LAST_SORT_TIME: DateTime = DateTime::from_millis(253_402_300_799_999);

/// Returns a stored sort time, unless it is damaged.
fn sort_time(at: DateTime) -> Option<OffsetDateTime> {
    (FIRST_SORT_TIME..=LAST_SORT_TIME).contains(&at).then(|| instant(at))
}

/// Returns a filter of sort times that are not damaged.
fn is_sort_time() -> Document {
    doc! { "$gte": FIRST_SORT_TIME, "$lte": LAST_SORT_TIME }
}

/// Converts a number of values in memory, which cannot overflow.
fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Converts a number of bytes. Accepted sizes and quotas are far below 2^63; a greater number becomes the greatest.
fn integer(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Returns a whole number of either width: servers, `mongoimport` and `mongosh` choose it by the value.
fn whole_number(document: &Document, field: &str) -> Option<i64> {
    document.get_i64(field).ok().or_else(|| document.get_i32(field).ok().map(i64::from))
}

/// Returns the documents in an array; no documents if there is no array.
fn entries<'a>(document: &'a Document, field: &str) -> impl Iterator<Item = &'a Document> {
    document.get_array(field).map_or(&[][..], Vec::as_slice).iter().filter_map(Bson::as_document)
}

/// Returns a step as the value of `lastStep` in a filter: null also matches an absent field.
fn last_step(step: Option<StepId>) -> Bson {
    step.map_or(Bson::Null, |step| step.to_string().into())
}
