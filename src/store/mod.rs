//! Documents and objects: every query and update to MongoDB, every call to S3.
//!
//! Only this room names mongodb and aws-sdk-s3; nothing here knows HTTP or decides policy. Tenants are in a query's name
//! (`find_owned`), a change of state is one conditional update, and each call has a deadline, since the driver has no
//! socket timeout.

mod images;
pub mod objects;
pub mod probe;
mod recount;
mod sessions;
mod users;

use std::{future::Future, time::Duration};

use futures_util::FutureExt;
use mongodb::{
    Client, Database,
    bson::{DateTime, doc},
    error::{ErrorKind, WriteFailure},
    options::{Acknowledgment, ClientOptions, ReadConcern, SelectionCriteria, WriteConcern},
};
use secrecy::ExposeSecret;
use time::OffsetDateTime;

pub use images::{Entry, Images, Inserted, Inventory};
pub use objects::Objects;
pub use recount::{Counts, Repair};
pub use sessions::{Session, Sessions};
pub use users::{Account, Reserved, Users};

use crate::config;

/// The longest a call to MongoDB may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// A call that did not succeed. The caller cannot know whether a write was applied: it must be safe to ask again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database answered with an error, or could not be reached.
    #[error("the database failed: {0}")]
    Database(#[source] mongodb::error::Error),
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

    /// Takes a ready image from its owner: the state and the quota move together, or not at all.
    /// `false` when it was not ready any more.
    ///
    /// # Errors
    /// [`StoreError`]; whether the move happened is then to be asked again.
    pub async fn delete_ready(&self, image: &crate::model::Image, now: OffsetDateTime) -> Result<bool, StoreError> {
        // Boxed futures over owned context: an async closure's future is not `Send` for every lifetime.
        let context = (self.users.clone(), self.images.clone(), image.clone());
        bounded(async {
            let mut session = self.database.client().start_session().await?;
            let transaction = session.start_transaction();
            transaction
                .and_run(context, |session, (users, images, image)| {
                    async move {
                        if !images.start_deleting(image, now, session).await? {
                            return Ok(false);
                        }
                        users.drop_image(image.user, image.id, image.upload.size, session).await?;
                        Ok(true)
                    }
                    .boxed()
                })
                .await
        })
        .await
    }
}

/// A client whose writes are majority-acknowledged and whose reads are of what was.
async fn client(config: &config::Mongo) -> Result<Client, StoreError> {
    let mut options = bounded(async { ClientOptions::parse(config.uri.expose_secret()).await }).await?;
    options.app_name = Some("valet".to_owned());
    options.max_pool_size = options.max_pool_size.or(Some(64));
    options.connect_timeout = options.connect_timeout.or(Some(Duration::from_secs(3)));
    options.server_selection_timeout = options.server_selection_timeout.or(Some(Duration::from_secs(3)));
    // What is acknowledged survives the loss of a minority, and what is read was acknowledged.
    options.write_concern = Some(WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build());
    options.read_concern = Some(ReadConcern::majority());
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(mongodb::options::ReadPreference::Primary));
    Client::with_options(options).map_err(StoreError::Database)
}

/// Runs a call to MongoDB under the deadline.
async fn bounded<T>(call: impl Future<Output = mongodb::error::Result<T>>) -> Result<T, StoreError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(answer) => answer.map_err(StoreError::Database),
        Err(_) => Err(StoreError::DatabaseTimeout),
    }
}

/// Whether a unique index refused the write.
fn is_duplicate(error: &mongodb::error::Error) -> bool {
    matches!(*error.kind, ErrorKind::Write(WriteFailure::WriteError(ref failure)) if failure.code == 11000)
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
