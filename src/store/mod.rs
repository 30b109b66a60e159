//! Documents and objects: every query and update to MongoDB, every call to S3.
//!
//! Only this room names mongodb and aws-sdk-s3; nothing here knows HTTP or decides policy. Tenants are in a query's name
//! (`find_owned`), a change of state is one conditional update, and each call has a deadline, since the driver has no
//! socket timeout.

mod commands;
mod failpoint;
mod images;
pub mod objects;
pub mod probe;
pub mod provider;
mod recount;
mod sessions;
mod users;

use std::{future::Future, sync::OnceLock, time::Duration};

use futures_util::FutureExt;
use mongodb::{
    Client, Database,
    bson::{Bson, DateTime, Document, doc},
    error::{ErrorKind, WriteFailure},
    event::EventHandler,
    options::{Acknowledgment, ClientOptions, ReadConcern, SelectionCriteria, WriteConcern},
};
use secrecy::ExposeSecret;
use time::OffsetDateTime;
use tokio::{sync::Semaphore, time::Instant};

pub use images::{Count, Entry, Images, Inserted, Inventory, Page, Row};
pub use objects::Objects;
pub use recount::{Counts, Repair};
pub use sessions::{Parent, Session, Sessions};
pub use users::{Account, Deletion, Hold, Reserved, Users};

use crate::{
    config,
    metrics::{METRICS, Metrics},
    model::{ImageId, ImageState, UserId},
};

/// The longest a call to MongoDB may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// As many calls at a time as the pool has connections. Who waits for one does it here: the driver keeps those that have given up
/// in its queue, and looks at one of them for every call that comes after, so that a crowd of an outage outlives it for good.
static TURNS: OnceLock<Semaphore> = OnceLock::new();
/// The longest such a wait: less than [`DEADLINE`], so that no call is begun only to be given up.
const TURN: Duration = Duration::from_secs(3);

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
    /// The object store did not answer in time.
    #[error("the object store did not answer in time ({operation})")]
    ObjectsTimeout {
        /// The S3 operation.
        operation: &'static str,
    },
    /// There are no credentials to sign with.
    #[error("no valid credentials for S3: {reason}")]
    Credentials {
        /// What the provider chain said.
        reason: String,
    },
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
    database: Database,
}

impl Store {
    /// Connects and makes the indexes the program relies on.
    ///
    /// # Errors
    /// When the database cannot be reached or an index cannot be made: their absence would break promises silently.
    pub async fn connect(config: &config::Mongo) -> Result<Self, StoreError> {
        let client = client(config).await?;
        let database = client.database(&config.database);
        let store =
            Self { users: Users::new(&database), sessions: Sessions::new(&database), images: Images::new(&database), database };
        store.users.make_indexes().await?;
        store.sessions.make_indexes().await?;
        store.images.make_indexes().await?;
        Ok(store)
    }

    /// The database's clock: what the sweeper goes by, so that a server whose clock is wrong sweeps nothing early.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer; it doubles as the readiness probe.
    pub async fn now(&self) -> Result<OffsetDateTime, StoreError> {
        let hello = bounded(async { self.database.run_command(doc! { "hello": 1 }).await }).await?;
        let writable = hello.get_bool("isWritablePrimary").unwrap_or(false);
        let now = hello.get_datetime("localTime").ok().filter(|_| writable);
        now.map(|at| instant(*at)).ok_or(StoreError::Corrupt {
            collection: "hello",
            id: String::new(),
            field: "localTime of a writable primary",
        })
    }

    /// Takes ready images from their owner: states and quota move together, or not at all. Answers which of `ids` were
    /// ready.
    ///
    /// # Errors
    /// [`StoreError`]; whether the move happened is then to be asked again.
    pub async fn delete_owned_ready(
        &self,
        user: UserId,
        ids: &[ImageId],
        now: OffsetDateTime,
    ) -> Result<Vec<ImageId>, StoreError> {
        let taken = bounded(async {
            let mut session = self.database.client().start_session().await?;
            loop {
                let ready = self.images.ready_sizes(user, ids).await?;
                if ready.is_empty() {
                    return Ok(ready);
                }
                // Boxed futures over owned context: an async closure's future is not `Send` for every lifetime.
                let context = (self.users.clone(), self.images.clone(), ready.clone());
                let moved = session.start_transaction().and_run(context, move |session, (users, images, ready)| {
                    async move {
                        // The record that everybody writes comes first: whoever else wants it waits for the end of this, while
                        // a write between its reading and its change would abort this again and again.
                        users.drop_images(user, ready, session).await?;
                        match images.start_deleting(user, ready, now, session).await? {
                            true => Ok(()),
                            false => Err(mongodb::error::Error::custom(Moved)),
                        }
                    }
                    .boxed()
                });
                match moved.await {
                    Ok(()) => return Ok(ready),
                    // Another delete took some of them.
                    Err(error) if error.get_custom::<Moved>().is_some() => {}
                    Err(error) => return Err(error),
                }
            }
        })
        .await?;
        count_moved(ImageState::Deleting, taken.len() as u64);
        Ok(taken.iter().filter_map(|(id, _)| ImageId::parse(id)).collect())
    }
}

/// Some of the images are not ready any more.
struct Moved;

/// Images that came into a state.
fn count_moved(to: ImageState, how_many: u64) {
    Metrics::count(&METRICS.images, to.as_str(), how_many);
}

/// Many conditional updates in one round trip, each on its own, in no order. The `update` command rather than the driver's
/// bulk write, which wants MongoDB 8. Answers how many documents changed.
async fn update_each<T: Send + Sync>(
    collection: &mongodb::Collection<T>,
    moves: impl Iterator<Item = (Document, Bson)>,
) -> Result<u64, StoreError> {
    let updates: Vec<_> = moves.map(|(filter, update)| doc! { "q": filter, "u": update }).collect();
    if updates.is_empty() {
        return Ok(0);
    }
    let concern = doc! { "w": "majority", "j": true };
    let command = doc! { "update": collection.name(), "updates": updates, "ordered": false, "writeConcern": concern };
    let database = collection.client().database(&collection.namespace().db);
    let ask = || bounded(async { database.run_command(command.clone()).await });
    let answer = match ask().await {
        // The driver does not repeat a command that it does not know. Each update is conditional: one that was applied already
        // finds nothing to do.
        Err(StoreError::Database(error)) if is_lost(&error) => ask().await?,
        answer => answer?,
    };
    let refused = answer.get_array("writeErrors").ok().and_then(|errors| errors.first()).and_then(Bson::as_document);
    // The driver does not look for this one either: applied, and not by a majority.
    match refused.or_else(|| answer.get_document("writeConcernError").ok()) {
        None => Ok(answer.get_i32("nModified").ok().and_then(|n| n.try_into().ok()).unwrap_or(0)),
        Some(error) => Err(StoreError::Update(error.get_str("errmsg").unwrap_or("unknown").to_owned())),
    }
}

/// A client whose writes are majority-acknowledged and whose reads are of what was.
async fn client(config: &config::Mongo) -> Result<Client, StoreError> {
    let mut options = bounded(async { ClientOptions::parse(config.uri.expose_secret()).await }).await?;
    options.app_name = Some("valet".to_owned());
    options.max_pool_size = options.max_pool_size.or(Some(64));
    // Zero is a pool without a bound.
    let turns = options.max_pool_size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
    TURNS.get_or_init(|| Semaphore::new(turns.unwrap_or(Semaphore::MAX_PERMITS)));
    // With as many, a call that has its turn never stands in the driver's queue: there too, who has given up is in the way.
    options.max_connecting = options.max_connecting.or(options.max_pool_size);
    options.connect_timeout = options.connect_timeout.or(Some(Duration::from_secs(3)));
    options.server_selection_timeout = options.server_selection_timeout.or(Some(Duration::from_secs(3)));
    // A server that says nothing is noticed after this and the time to connect; its connections are given up then.
    options.heartbeat_freq = options.heartbeat_freq.or(Some(Duration::from_secs(5)));
    // What is acknowledged survives the loss of a minority, and what is read was acknowledged.
    options.write_concern = Some(WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build());
    options.read_concern = Some(ReadConcern::majority());
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(mongodb::options::ReadPreference::Primary));
    options.command_event_handler = Some(EventHandler::callback(commands::heard));
    options.cmap_event_handler = Some(EventHandler::callback(commands::pooled));
    METRICS.mongodb_connections_max.set(options.max_pool_size.map_or(0, i64::from));
    Client::with_options(options).map_err(StoreError::Database)
}

/// Runs a call to MongoDB under the deadline.
async fn bounded<T>(call: impl Future<Output = mongodb::error::Result<T>>) -> Result<T, StoreError> {
    let ends = Instant::now() + DEADLINE;
    let turn = match TURNS.get() {
        Some(turns) => {
            let _waiting = commands::Waiting::begin();
            tokio::time::timeout(TURN, turns.acquire()).await.map_err(|_| StoreError::DatabaseTimeout)?.ok()
        }
        None => None,
    };
    let done = tokio::time::timeout_at(ends, commands::followed(call)).await;
    drop(turn);
    failpoint::passed();
    match done {
        Ok(answer) => answer.map_err(StoreError::Database),
        Err(_) => Err(StoreError::DatabaseTimeout),
    }
}

/// MongoDB's error code of a unique index.
const DUPLICATE_KEY: i32 = 11000;

/// The driver's words without its dump of the topology.
fn said(error: &mongodb::error::Error) -> String {
    match &*error.kind {
        ErrorKind::ServerSelection { .. } => "no server that takes writes could be reached within 3 s".to_owned(),
        ErrorKind::Authentication { .. } => "the database refused the user or the password".to_owned(),
        kind => format!("the database failed: {kind}"),
    }
}

/// Whether the answer was lost on its way, or the server is no longer the one to ask: another try may go through.
fn is_lost(error: &mongodb::error::Error) -> bool {
    match &*error.kind {
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } => true,
        // PrimarySteppedDown, NotWritablePrimary, InterruptedDueToReplStateChange, NotPrimaryNoSecondaryOk, …
        ErrorKind::Command(failure) => matches!(failure.code, 189 | 10107 | 11600 | 11602 | 13435 | 13436),
        _ => false,
    }
}

/// Whether a unique index refused the write.
fn is_duplicate(error: &mongodb::error::Error) -> bool {
    matches!(*error.kind, ErrorKind::Write(WriteFailure::WriteError(ref failure)) if failure.code == DUPLICATE_KEY)
}

/// Whether an index of this name exists with other options.
fn is_other_index(error: &mongodb::error::Error) -> bool {
    // IndexOptionsConflict, IndexKeySpecsConflict.
    matches!(*error.kind, ErrorKind::Command(ref failure) if matches!(failure.code, 85 | 86))
}

/// The places in a bulk insertion that unique indexes refused; `None` when something else went wrong.
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

/// Sizes fit: the largest that is accepted is far below 2^63.
fn integer(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
