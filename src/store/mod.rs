//! The store: every query and update of MongoDB, every call to S3 (`objects`), and the requests to identity providers
//! (`oidc_discovery`) and webhook endpoints (`webhook_sender`).
//!
//! Only this module, `dev`, tests and benches name mongodb and aws-sdk-s3. Nothing here knows the API or decides policy. Most
//! queries for one owner have `owned` in their names (`find_owned`), a transition of state is one conditional update, and each call
//! has a deadline, because the driver has no socket timeout.
//!
//! Most collections have a file or folder of their name; `account_keys` has `emails` and `identities`, `deployment` has `meta`,
//! `webhook_endpoints` has `endpoints`, `outbox` and `outbox_queue` have the events in images and users. `mongo` runs operations,
//! with permits of `fair_semaphore`; `error` has their failures; `elections` and `driver_events` observe the driver. `reservations`
//! takes steps that change an image and a user, `taken_steps` counts them later; `recount` and `captures` use transactions.
//! `image_changes` is the change stream of images, `undated` repairs records without the time at which they are due,
//! `database_probe` has the probes of `valet check`, `request_origin` the origin of a task's request, and `failpoint` aborts
//! servers in tests.

mod account_keys;
mod captures;
pub mod database_probe;
mod deliveries;
mod deployment;
mod driver_events;
mod elections;
mod error;
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
mod taken_steps;
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
pub use error::StoreError;
pub use failpoint::without_failpoints;
pub use image_changes::{ChangeFeed, FeedError, FeedPoint, FeedStart, ImageChange, ImageChanges};
pub use images::{
    ClaimOutcome, GalleryRecord, GalleryRow, ImageQueue, Images, InsertOutcome, Inventory, InventoryEntry, Lease, LookupResult,
    MadeDue, MadePictures, ObjectCreationClaim, OpenedLifetimes, Postponement, PreviewWait, QueuedImage, RawGalleryPage,
    RemainingImage, ReservationStatus, StateCount, SweepHints, UnreadCaptures, UnreadableImage, UnrenderedPage, UnsettledKind,
};
pub use known_networks::KnownNetworks;
pub use objects::{GetSeries, GetSigner, Objects};
pub use outbox_queue::{EventSource, OutboxQueue, OutboxRecord, StoredEvent};
pub use recount::{Counts, Repair};
pub use reservations::{Acceptance, StepOutcome};
pub use service_keys::{ServiceKey, ServiceKeys};
pub use sessions::{Exchange, Rotation, Session, Sessions};
pub use users::{
    Account, AccountPage, AccountState, AnnouncedStep, CountedAccount, Deletion, DeletionDue, IdentityHolder, KeyStep,
    LegacyHold, LegacyHolds, NewPassword, PasswordState, ProviderIdentity, QuotaLimits, ReserveOutcome, StaleEntries, UserFilter,
    Users,
};
pub use webhook_endpoints::WebhookEndpoints;

use self::{driver_events::Operation, mongo::MongoClient, outbox::Outbox, taken_steps::TakenSteps};
use crate::{
    config,
    metrics::{METRICS, Metrics},
    model::{ImageState, StepId},
};

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
    /// Steps of reservations that are to be counted.
    taken: Arc<TakenSteps>,
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
            taken: Arc::default(),
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
        read_clock(&self.mongo.command(Operation::HELLO, doc! { "hello": 1 }).await?)
    }
}

/// Returns the clock of a primary from its reply to `hello`.
fn read_clock(hello: &Document) -> Result<OffsetDateTime, StoreError> {
    if !hello.get_bool("isWritablePrimary").unwrap_or(false) {
        return Err(StoreError::NotPrimary);
    }
    let now = hello.get_datetime("localTime").map(|at| instant(*at));
    now.map_err(|_| StoreError::Corrupt { collection: "hello", id: String::new(), field: "localTime" })
}

/// Counts images that entered a state.
fn count_transitions(to: ImageState, how_many: u64) {
    Metrics::count(&METRICS.image_transitions, to.as_str(), how_many);
}

/// MongoDB's error code for a violated unique index.
const DUPLICATE_KEY: i32 = 11000;

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
fn is_unique_index_on_sharded_collection(error: &mongodb::error::Error) -> bool {
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
    let (seconds, millis) = (at.timestamp_millis().div_euclid(1000), at.timestamp_millis().rem_euclid(1000));
    let millis = u16::try_from(millis).unwrap_or_default();
    let at = OffsetDateTime::from_unix_timestamp(seconds).and_then(|second| second.replace_millisecond(millis));
    at.unwrap_or(OffsetDateTime::UNIX_EPOCH)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clock_of_a_server_that_is_no_primary_is_not_read() {
        let at = DateTime::from_millis(7000);
        let clock = |writable: bool| read_clock(&doc! { "isWritablePrimary": writable, "localTime": at });
        assert_eq!(clock(true).ok(), Some(instant(at)));
        assert!(matches!(clock(false), Err(StoreError::NotPrimary)), "an election damages nothing");
        assert!(matches!(read_clock(&doc! { "isWritablePrimary": true }), Err(StoreError::Corrupt { .. })));
    }

    proptest! {
        #[test]
        fn stored_times_are_milliseconds_since_the_epoch(near in -400_000_000_000_000..400_000_000_000_000_i64, any: i64) {
            for millis in [near, any] {
                let expected = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000);
                prop_assert_eq!(instant(DateTime::from_millis(millis)), expected.unwrap_or(OffsetDateTime::UNIX_EPOCH));
            }
        }
    }
}
