//! Documents and objects: every query and update to MongoDB, every call to S3.
//!
//! Only this room names mongodb and aws-sdk-s3; nothing here knows HTTP or decides policy. Tenants are in a query's name
//! (`find_owned`), a change of state is one conditional update, and each call has a deadline, since the driver has no
//! socket timeout.

mod calls;
mod commands;
mod deployment;
mod failpoint;
mod images;
mod known_networks;
pub mod objects;
mod primary;
pub mod probe;
pub mod provider;
mod recount;
pub mod request_origin;
mod reservations;
mod sessions;
pub mod turns;
mod undated;
mod users;

use mongodb::{
    bson::{Bson, DateTime, Document, doc},
    error::{ErrorKind, WriteFailure},
};
use time::OffsetDateTime;

pub use deployment::Missing;
pub use failpoint::uncounted;
pub use images::{
    Claimed, Count, Due, Entry, Found, Images, Inserted, Inventory, Lease, Opened, Page, Postponed, Remaining, Row, Standing,
    Unsettled,
};
pub use known_networks::KnownNetworks;
pub use objects::Objects;
pub use recount::{Counts, Repair};
pub use reservations::Stepped;
pub use sessions::{Exchange, Rotation, Session, Sessions};
pub use users::{
    Account, Deletion, DeletionDue, FormerHold, FormerHolds, NewPassword, PasswordState, Reserved, Room, Stale, StepUnderWay,
    Users,
};

use self::calls::{Calls, DEADLINE};
use crate::{
    config,
    metrics::{METRICS, Metrics},
    model::{ImageState, StepId},
};

/// A call that did not succeed. The caller cannot know whether a write was applied: it must be safe to ask again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database answered with an error, or could not be reached.
    #[error("{}", said(.0))]
    Database(#[source] mongodb::error::Error),
    /// One of many updates was refused.
    #[error("the database refused an update: {0}")]
    Update(String),
    /// The database did not answer in time.
    #[error("the database did not answer within {} s", DEADLINE.as_secs())]
    DatabaseTimeout,
    /// A document is not what this program writes.
    #[error("the document {id} in {collection} cannot be read: {field} is missing or malformed")]
    Corrupt {
        /// Which collection.
        collection: &'static str,
        /// Which document.
        id: String,
        /// Which field.
        field: &'static str,
    },
    /// The object store answered with an error, or could not be reached.
    #[error("the object store failed ({operation}): {reason}")]
    Objects {
        /// The S3 operation.
        operation: &'static str,
        /// Status and S3's error code, or the transport's words. Never a URL.
        reason: String,
    },
    /// The object store refuses this object, part or upload, and would refuse it again.
    #[error("the object store refuses it for good ({operation}): {reason}")]
    ObjectRefused {
        /// The S3 operation.
        operation: &'static str,
        /// Status and S3's error code.
        reason: String,
    },
    /// The object store does not have this call.
    #[error("the object store has no such call ({operation}): {reason}")]
    ObjectsUnsupported {
        /// The S3 operation.
        operation: &'static str,
        /// Status and S3's error code.
        reason: String,
    },
    /// The object store refuses the credentials, the rights, the bucket or its encryption key.
    #[error("the object store is not set up for it ({operation}): {reason}")]
    ObjectsMisconfigured {
        /// The S3 operation.
        operation: &'static str,
        /// Status and S3's error code.
        reason: String,
    },
    /// Other requests changed the same records at the same time, more often than this one tried.
    #[error("lost the race for {what} again and again")]
    Contention {
        /// The kind of record.
        what: &'static str,
    },
    /// The object store did not answer in time.
    #[error("the object store did not answer in time ({operation})")]
    ObjectsTimeout {
        /// The S3 operation.
        operation: &'static str,
    },
    /// The object store keeps what was deleted: versions under Object Lock or a policy without `s3:DeleteObjectVersion`, or
    /// uploads that it cannot abort.
    #[error("the object store retains {objects} deleted objects, or versions of them")]
    ObjectsRemain {
        /// Objects and uploads.
        objects: u64,
    },
    /// There are no credentials to sign with.
    #[error("no valid credentials for S3: {reason}")]
    Credentials {
        /// Message of the credential provider chain.
        reason: String,
    },
}

impl StoreError {
    /// Returns whether every repeat of the same call fails in the same way, whatever an operator does meanwhile to credentials
    /// and rights: what waits for it may be given up.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::ObjectRefused { .. } | Self::ObjectsUnsupported { .. })
    }

    /// Returns whether the same call may succeed by itself after a while. What does not waits longer each time.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        let needs_operator =
            matches!(self, Self::Corrupt { .. } | Self::ObjectsMisconfigured { .. } | Self::ObjectsRemain { .. });
        !(self.is_final() || needs_operator)
    }
}

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    /// Accounts and what they hold.
    pub users: Users,
    /// Who is signed in.
    pub sessions: Sessions,
    /// Images in every state.
    pub images: Images,
    /// Where accounts were signed in to from.
    pub known_networks: KnownNetworks,
    calls: Calls,
}

impl Store {
    /// Connects, and writes nothing: the database may turn out to be another deployment's.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn open(config: &config::Mongo) -> Result<Self, StoreError> {
        let calls = Calls::open(config).await?;
        calls.settle().await?;
        let (users, sessions, images) = (Users::new(&calls), Sessions::new(&calls), Images::new(&calls));
        Ok(Self { users, sessions, images, known_networks: KnownNetworks::new(&calls), calls })
    }

    /// Makes the indexes the program relies on.
    ///
    /// # Errors
    /// When an index cannot be made: their absence would break promises silently.
    pub async fn make_indexes(&self) -> Result<(), StoreError> {
        self.users.make_indexes().await?;
        self.sessions.make_indexes().await?;
        self.images.make_indexes().await?;
        self.known_networks.make_indexes().await
    }

    /// Returns the database's clock: what the sweeper goes by, so that a server whose clock is wrong sweeps nothing early.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer; it doubles as the readiness probe.
    pub async fn now(&self) -> Result<OffsetDateTime, StoreError> {
        let hello = self.calls.command(doc! { "hello": 1 }).await?;
        let writable = hello.get_bool("isWritablePrimary").unwrap_or(false);
        let now = hello.get_datetime("localTime").ok().filter(|_| writable);
        now.map(|at| instant(*at)).ok_or(StoreError::Corrupt {
            collection: "hello",
            id: String::new(),
            field: "localTime of a writable primary",
        })
    }
}

/// Images that came into a state.
fn count_moved(to: ImageState, how_many: u64) {
    Metrics::count(&METRICS.image_transitions, to.as_str(), how_many);
}

/// MongoDB's error code of a unique index.
const DUPLICATE_KEY: i32 = 11000;

/// Returns the driver's words without its dump of the topology.
fn said(error: &mongodb::error::Error) -> String {
    match &*error.kind {
        ErrorKind::ServerSelection { .. } => "no server that takes writes could be reached within 3 s".to_owned(),
        ErrorKind::Authentication { .. } => "the database refused the user or the password".to_owned(),
        kind => format!("the database failed: {kind}"),
    }
}

/// Returns whether a unique index refused the write.
fn is_duplicate(error: &mongodb::error::Error) -> bool {
    matches!(*error.kind, ErrorKind::Write(WriteFailure::WriteError(ref failure)) if failure.code == DUPLICATE_KEY)
}

/// Returns whether an index of this name exists with other options.
fn is_other_index(error: &mongodb::error::Error) -> bool {
    // IndexOptionsConflict, IndexKeySpecsConflict.
    matches!(*error.kind, ErrorKind::Command(ref failure) if matches!(failure.code, 85 | 86))
}

/// Returns the places in a bulk insertion that unique indexes refused; `None` when something else went wrong.
fn duplicates(error: &mongodb::error::Error) -> Option<Vec<usize>> {
    match &*error.kind {
        ErrorKind::InsertMany(failure) if failure.write_concern_error.is_none() => {
            let errors = failure.write_errors.as_ref()?;
            errors.iter().all(|one| one.code == DUPLICATE_KEY).then(|| errors.iter().map(|one| one.index).collect())
        }
        _ => None,
    }
}

fn datetime(at: OffsetDateTime) -> DateTime {
    DateTime::from_millis(i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX))
}

fn instant(at: DateTime) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.timestamp_millis()) * 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// What this program holds in memory fits.
fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Sizes fit: the largest that is accepted is far below 2^63.
fn integer(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Returns a whole number of either width: servers, `mongoimport` and `mongosh` choose one by the value.
fn whole_number(document: &Document, field: &str) -> Option<i64> {
    document.get_i64(field).ok().or_else(|| document.get_i32(field).ok().map(i64::from))
}

/// Returns the documents in an array; none where there is no array.
fn entries<'a>(document: &'a Document, field: &str) -> impl Iterator<Item = &'a Document> {
    document.get_array(field).map_or(&[][..], Vec::as_slice).iter().filter_map(Bson::as_document)
}

/// Returns a step as the value of `lastStep` in a filter: null also matches the absent field.
fn last_step(step: Option<StepId>) -> Bson {
    step.map_or(Bson::Null, |step| step.to_string().into())
}
