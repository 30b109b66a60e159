//! Probes of MongoDB for `valet check`. After [`DatabaseProbe::remove_scratch`], nothing of them is left in the database, not even
//! an index.

use std::time::Duration;

use futures_util::FutureExt;
use mongodb::bson::{Document, doc};
use time::OffsetDateTime;

use super::{MongoClient, StoreError, datetime, driver_events::Operation, instant, whole_number};
use crate::config;

/// Longest time by which a worker's claim, or an outage, postpones an image's pictures.
const LONGEST_POSTPONEMENT: Duration = Duration::from_secs(180);

/// A database to examine.
#[derive(Debug)]
pub struct DatabaseProbe {
    pub(super) mongo: MongoClient,
}

/// The reply to `hello`.
#[derive(Debug, Clone)]
pub struct Hello {
    /// Whether the server is a member of a replica set, or the router of a sharded cluster: transactions need either.
    pub replicated: bool,
    /// Whether the server accepts writes.
    pub writable: bool,
    /// The server's clock at its reply.
    pub now: Option<OffsetDateTime>,
    /// Duration of the exchange: the uncertainty of the clock.
    pub round_trip: Duration,
}

impl DatabaseProbe {
    /// Parses the connection string; nothing is connected yet.
    ///
    /// # Errors
    /// When the string cannot be parsed or its host names cannot be resolved.
    pub async fn open(config: &config::Mongo) -> Result<Self, StoreError> {
        Ok(Self { mongo: MongoClient::open(config).await? })
    }

    pub(super) fn with_client(mongo: &MongoClient) -> Self {
        Self { mongo: mongo.clone() }
    }

    /// Sends `hello` to the primary.
    ///
    /// # Errors
    /// [`StoreError`] when no primary is found or it does not respond.
    pub async fn hello(&self) -> Result<Hello, StoreError> {
        // The first command finds the server, so that the second measures its clock.
        self.mongo.command(Operation::PING, doc! { "ping": 1 }).await?;
        let began = std::time::Instant::now();
        let hello = self.mongo.command(Operation::HELLO, doc! { "hello": 1 }).await?;
        Ok(Hello {
            replicated: hello.get_str("setName").is_ok() || hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid"),
            writable: hello.get_bool("isWritablePrimary").unwrap_or(false),
            now: hello.get_datetime("localTime").ok().map(|at| instant(*at)),
            round_trip: began.elapsed(),
        })
    }

    /// Returns the server's version, such as `8.0.21`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn version(&self) -> Result<String, StoreError> {
        let info = self.mongo.command(Operation::BUILD_INFO, doc! { "buildInfo": 1 }).await?;
        let version = info.get_str("version").map(str::to_owned);
        version.map_err(|_| StoreError::Corrupt { collection: "buildInfo", id: String::new(), field: "version" })
    }

    /// Returns the time since which the longest waiting image waits for its pictures; `None` if no image waits. It is the longest
    /// due of the images that are due at `now`, or one that a worker has claimed or an outage has postponed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn oldest_waiting_rendering(&self, now: OffsetDateTime) -> Result<Option<OffsetDateTime>, StoreError> {
        let due = self.first_rendering(doc! { "rendering.due": { "$lte": datetime(now) } }, "rendering.due").await?;
        let soon = doc! { "$gt": datetime(now), "$lte": datetime(now + LONGEST_POSTPONEMENT) };
        // An image with more attempts has failed, and waits only since its next attempt is due.
        let postponed = doc! { "rendering.due": soon, "rendering.attempts": { "$in": [null, 0_i64, 1_i64] } };
        let postponed = self.first_rendering(postponed, "rendering.since").await?;
        Ok(due.into_iter().chain(postponed).min())
    }

    /// Returns the time since which the first matching image in the order of this field waits. An image whose attempts failed waits
    /// since its next attempt is due.
    async fn first_rendering(&self, filter: Document, order: &str) -> Result<Option<OffsetDateTime>, StoreError> {
        let images = self.mongo.database().collection::<Document>("images");
        let find = || async {
            let find = images.find_one(filter.clone()).projection(doc! { "rendering": 1 });
            find.sort(doc! { order: 1 }).await
        };
        let found = self.mongo.read(Operation::find(&images), find).await?;
        let Some(rendering) = found.as_ref().and_then(|found| found.get_document("rendering").ok()) else { return Ok(None) };
        let has_failed = whole_number(rendering, "attempts").is_some_and(|attempts| attempts > 1);
        let since = if has_failed { None } else { rendering.get_datetime("since").ok() };
        Ok(since.or_else(|| rendering.get_datetime("due").ok()).map(|at| instant(*at)))
    }

    /// Writes a document as every write of this program is written: acknowledged by the journals of a majority.
    ///
    /// # Errors
    /// [`StoreError`], also when too few members respond in time.
    pub async fn probe_write(&self, scratch: &str) -> Result<(), StoreError> {
        let collection = self.mongo.database().collection::<Document>(scratch);
        self.mongo.insert_one(&collection, doc! { "_id": "write" }).await
    }

    /// Writes two documents in one transaction; `valet recount` and `valet taken` need transactions.
    ///
    /// # Errors
    /// [`StoreError`]; a standalone server has no transactions.
    pub async fn probe_transaction(&self, scratch: &str) -> Result<(), StoreError> {
        let collection = self.mongo.database().collection::<Document>(scratch);
        self.mongo
            .run(Operation::transaction(&collection), async {
                let mut session = self.mongo.database().client().start_session().await?;
                let transaction = session.start_transaction();
                transaction
                    .and_run(collection.clone(), |session, collection| {
                        async move {
                            for id in ["first", "second"] {
                                collection.insert_one(doc! { "_id": id }).session(&mut *session).await?;
                            }
                            Ok(())
                        }
                        .boxed()
                    })
                    .await
            })
            .await
    }

    /// Removes the documents of the probes, with their collection.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove_scratch(&self, scratch: &str) -> Result<(), StoreError> {
        let collection = self.mongo.database().collection::<Document>(scratch);
        self.mongo.run(Operation::drop(&collection), async { collection.drop().await }).await
    }
}
