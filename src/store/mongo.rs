//! Runs MongoDB operations: applies the deadline, limits concurrency to the pool size, records driver events, and repeats reads
//! that may have missed acknowledged writes. The operations themselves belong to the modules of the collections.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use mongodb::{
    Client, Collection, Database, IndexModel,
    bson::{Bson, Document, doc},
    error::{ErrorKind, WriteFailure},
    event::EventHandler,
    options::{
        Acknowledgment, ClientOptions, ReadConcern, ReadPreference, SelectionCriteria, ServerAddress, UpdateModifications,
        WriteConcern,
    },
    results::UpdateResult,
};
use secrecy::ExposeSecret;
use serde::Serialize;
use tokio::time::Instant;

use super::{
    StoreError,
    driver_events::{self, Operation},
    elections::{Elections, HelloState},
    failpoint,
    fair_semaphore::{FairSemaphore, Permit},
    request_origin,
};
use crate::{
    config,
    metrics::METRICS,
    model::{NetworkPrefix, UserId},
};

/// Deadline of an operation.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// Deadline of the wait for a permit: less than [`DEADLINE`], so that no operation begins that would time out at once.
const PERMIT_DEADLINE: Duration = Duration::from_secs(3);
/// Interval at which the primary is polled until it is current.
const PRIMARY_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A client of one database, shared by all collections.
#[derive(Debug, Clone)]
pub(super) struct MongoClient {
    database: Database,
    /// Permits of operations, as many as the pool has connections, granted fairly between networks and between the users of each;
    /// operations outside of requests count as one more network. Operations wait here for a connection, because the driver keeps
    /// waits that have timed out in its queue and examines one of them for each new operation, so that the backlog of an outage
    /// would outlive it.
    permits: Arc<FairSemaphore<Option<NetworkPrefix>, Option<UserId>>>,
    elections: Arc<Elections>,
}

impl MongoClient {
    /// Parses the connection string; nothing is connected yet. Writes are acknowledged by the journals of a majority, and reads
    /// return acknowledged writes only.
    ///
    /// # Errors
    /// When the string cannot be parsed or its host names cannot be resolved.
    pub(super) async fn open(config: &config::Mongo) -> Result<Self, StoreError> {
        let parsed = tokio::time::timeout(DEADLINE, ClientOptions::parse(config.uri.expose_secret()));
        let mut options = parsed.await.map_err(|_| StoreError::DatabaseTimeout)?.map_err(StoreError::Database)?;
        options.app_name = options.app_name.or_else(|| Some("valet".to_owned()));
        options.max_pool_size = options.max_pool_size.or(Some(config::DEFAULT_POOL_SIZE));
        // Zero means a pool without a bound.
        let permits = options.max_pool_size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
        let permits = permits.unwrap_or(usize::MAX);
        let permits = FairSemaphore::new(permits, permits);
        METRICS.mongodb_connections_max.set(options.max_pool_size.map_or(0, i64::from));
        // One more connection for the feed of changes, which needs no permit and waits on its connection for a change.
        options.max_pool_size = options.max_pool_size.map(|size| if size > 0 { size.saturating_add(1) } else { 0 });
        // All connections may be opened at once, so an operation with a permit never waits in the driver's queue behind waits that
        // have timed out.
        options.max_connecting = options.max_connecting.or(options.max_pool_size);
        options.connect_timeout = options.connect_timeout.or(Some(Duration::from_secs(3)));
        // `StoreError` names these three seconds in the message of an operation that found no server.
        options.server_selection_timeout = options.server_selection_timeout.or(Some(Duration::from_secs(3)));
        // An unresponsive server is detected after this and the connect timeout; its connections are closed then.
        options.heartbeat_freq = options.heartbeat_freq.or(Some(Duration::from_secs(5)));
        // Acknowledged writes survive the loss of a minority, and reads return acknowledged writes only.
        options.write_concern = Some(WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build());
        options.read_concern = Some(ReadConcern::majority());
        options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        let in_use = driver_events::ConnectionsInUse::default();
        options.cmap_event_handler = Some(EventHandler::callback(move |event| driver_events::on_pool_event(&in_use, event)));
        let elections = Arc::new(Elections::default());
        let observer = elections.clone();
        options.sdam_event_handler = Some(EventHandler::callback(move |event| observer.on_heartbeat(&event)));
        let client = Client::with_options(options).map_err(StoreError::Database)?;
        Ok(Self { database: client.database(&config.database), permits, elections })
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// Runs a write or a command once. If it fails, the caller cannot know whether it was applied.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn run<T>(
        &self,
        operation: Operation<'_>,
        call: impl Future<Output = mongodb::error::Result<T>>,
    ) -> Result<T, StoreError> {
        Ok(self.run_until(operation, Instant::now() + DEADLINE, Box::pin(call)).await?.0)
    }

    /// Runs a command on the database, as [`MongoClient::run`] does.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn command(&self, operation: Operation<'_>, command: Document) -> Result<Document, StoreError> {
        self.run(operation, async { self.database.run_command(command).await }).await
    }

    /// Updates the document that the filter matches, as [`MongoClient::run`] does, and returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn update_one<T: Send + Sync>(
        &self,
        collection: &Collection<T>,
        filter: Document,
        update: impl Into<UpdateModifications>,
    ) -> Result<bool, StoreError> {
        let updated = self.run(Operation::update(collection), async { collection.update_one(filter, update).await }).await?;
        Ok(updated.matched_count == 1)
    }

    /// Updates all documents that the filter matches, as [`MongoClient::run`] does.
    ///
    /// # Errors
    /// [`StoreError`]; some documents may then be updated.
    pub(super) async fn update_many<T: Send + Sync>(
        &self,
        collection: &Collection<T>,
        filter: Document,
        update: impl Into<UpdateModifications>,
    ) -> Result<UpdateResult, StoreError> {
        self.run(Operation::update(collection), async { collection.update_many(filter, update).await }).await
    }

    /// Deletes the document that the filter matches, as [`MongoClient::run`] does, and returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn delete_one<T: Send + Sync>(
        &self,
        collection: &Collection<T>,
        filter: Document,
    ) -> Result<bool, StoreError> {
        let deleted = self.run(Operation::delete(collection), async { collection.delete_one(filter).await }).await?;
        Ok(deleted.deleted_count == 1)
    }

    /// Deletes all documents that the filter matches, as [`MongoClient::run`] does, and returns how many there were.
    ///
    /// # Errors
    /// [`StoreError`]; some documents may then be deleted.
    pub(super) async fn delete_many<T: Send + Sync>(
        &self,
        collection: &Collection<T>,
        filter: Document,
    ) -> Result<u64, StoreError> {
        let deleted = self.run(Operation::delete(collection), async { collection.delete_many(filter).await }).await?;
        Ok(deleted.deleted_count)
    }

    /// Inserts a document, as [`MongoClient::run`] does.
    ///
    /// # Errors
    /// [`StoreError`], also for a document that a unique index rejects.
    pub(super) async fn insert_one<T: Serialize + Send + Sync>(
        &self,
        collection: &Collection<T>,
        document: T,
    ) -> Result<(), StoreError> {
        self.run(Operation::insert(collection), async { collection.insert_one(document).await }).await.map(drop)
    }

    /// Creates indexes that do not exist yet, as [`MongoClient::run`] does.
    ///
    /// # Errors
    /// [`StoreError`], also for an index of this name with other options.
    pub(super) async fn create_indexes<T: Send + Sync>(
        &self,
        collection: &Collection<T>,
        indexes: impl IntoIterator<Item = IndexModel>,
    ) -> Result<(), StoreError> {
        self.run(Operation::create_indexes(collection), async { collection.create_indexes(indexes).await }).await.map(drop)
    }

    /// Runs a read, and repeats it if there was an election meanwhile, so that its answer contains every write that was
    /// acknowledged before the read began.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::DatabaseTimeout`] also when no primary becomes current in time.
    pub(super) async fn read<T, Call>(&self, operation: Operation<'_>, call: impl Fn() -> Call) -> Result<T, StoreError>
    where
        Call: Future<Output = mongodb::error::Result<T>>,
    {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let generation = self.elections.generation();
            let (answer, from) = self.run_until(operation, deadline, Box::pin(call())).await?;
            // `None` means the driver answered without a round trip, so the result cannot be stale.
            if from.is_none_or(|from| self.elections.is_current(&from)) {
                return Ok(answer);
            }
            self.await_current_primary(generation, deadline).await?;
        }
    }

    /// Waits until the primary has all acknowledged writes of its predecessors, so that later reads do not have to wait for that.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn wait_for_primary(&self) -> Result<(), StoreError> {
        self.await_current_primary(self.elections.generation(), Instant::now() + DEADLINE).await
    }

    /// Waits until the primary is current. Returns at once if another task has confirmed that since this generation.
    async fn await_current_primary(&self, generation: u64, deadline: Instant) -> Result<(), StoreError> {
        // One task polls the primary for all tasks; the others then find it confirmed.
        let lock = tokio::time::timeout_at(deadline, self.elections.lock()).await;
        let _lock = lock.map_err(|_| StoreError::DatabaseTimeout)?;
        if self.elections.has_caught_up_since(generation) {
            return Ok(());
        }
        loop {
            let latest = self.elections.latest_election();
            let query = Box::pin(async { self.database.run_command(doc! { "hello": 1 }).await });
            let (hello, from) = self.run_until(Operation::HELLO, deadline, query).await?;
            let is_current = match HelloState::read(&hello) {
                HelloState::NotReplicated => self.elections.mark_not_replicated(),
                HelloState::NotPrimary => false,
                HelloState::Primary { election, written } => {
                    let users = self.database.collection("users");
                    let answered_by =
                        self.run_until(Operation::find(&users), deadline, Box::pin(caught_up(&users, written))).await?.1;
                    from.is_some_and(|from| {
                        answered_by.as_ref() == Some(&from) && self.elections.mark_caught_up(latest, from, election)
                    })
                }
            };
            if is_current {
                return Ok(());
            }
            tokio::time::timeout_at(deadline, tokio::time::sleep(PRIMARY_POLL_INTERVAL))
                .await
                .map_err(|_| StoreError::DatabaseTimeout)?;
        }
    }

    /// Runs an operation with a permit, until `deadline` at most. Returns its answer, and the server that sent it. The call is
    /// boxed, because the driver's futures are large, and a future is copied whole each time that it moves.
    async fn run_until<T>(
        &self,
        operation: Operation<'_>,
        deadline: Instant,
        call: Pin<Box<impl Future<Output = mongodb::error::Result<T>>>>,
    ) -> Result<(T, Option<ServerAddress>), StoreError> {
        let permit = self.permit(deadline).await?;
        let outcome = driver_events::instrument(operation, self.database.name(), deadline, call).await;
        drop(permit);
        failpoint::count_call();
        match outcome {
            Ok((answer, from)) => Ok((answer.map_err(to_store_error)?, from)),
            Err(_) => Err(StoreError::DatabaseTimeout),
        }
    }

    /// Waits for a permit of the network and the user of the task's request.
    async fn permit(&self, deadline: Instant) -> Result<Permit<Option<NetworkPrefix>, Option<UserId>>, StoreError> {
        let caller = request_origin::current();
        let (network, user) = (caller.map(|caller| caller.site), caller.and_then(|caller| caller.user));
        if let Some(permit) = self.permits.try_acquire(network) {
            return Ok(permit);
        }
        let _waiting = driver_events::CountedWait::begin();
        let deadline = deadline.min(Instant::now() + PERMIT_DEADLINE);
        tokio::time::timeout_at(deadline, self.permits.acquire(network, user)).await.map_err(|_| StoreError::DatabaseTimeout)
    }

    /// Drops the index of this name, if it exists.
    ///
    /// # Errors
    /// [`StoreError`]; safe to repeat.
    pub(super) async fn drop_index<T: Send + Sync>(&self, collection: &Collection<T>, name: &str) -> Result<(), StoreError> {
        match self.run(Operation::drop_indexes(collection), async { collection.drop_index(name).await }).await {
            // NamespaceNotFound, IndexNotFound.
            Err(StoreError::Database(error)) if matches!(&*error.kind, ErrorKind::Command(e) if matches!(e.code, 26 | 27)) => {
                Ok(())
            }
            dropped => dropped,
        }
    }

    /// Runs many conditional updates in one round trip, each independently and in no order, and returns how many documents
    /// changed. It uses the `update` command, because the driver's bulk write needs MongoDB 8.
    ///
    /// # Errors
    /// [`StoreError`]; some updates may then be applied.
    pub(super) async fn update_each<T: Send + Sync>(
        &self,
        collection: &Collection<T>,
        updates: impl Iterator<Item = (Document, Bson)>,
    ) -> Result<u64, StoreError> {
        let updates: Vec<_> = updates.map(|(filter, update)| doc! { "q": filter, "u": update }).collect();
        if updates.is_empty() {
            return Ok(0);
        }
        let concern = doc! { "w": "majority", "j": true };
        let command = doc! { "update": collection.name(), "updates": updates, "ordered": false, "writeConcern": concern };
        let query = || self.command(Operation::update(collection), command.clone());
        let answer = match query().await {
            // The driver does not retry generic commands. Repeating is safe: an update is conditional, so one that was applied
            // matches nothing.
            Err(StoreError::Database(error)) if may_succeed_later(&error) => query().await?,
            answer => answer?,
        };
        let rejected = answer.get_array("writeErrors").ok().and_then(|errors| errors.first()).and_then(Bson::as_document);
        // The driver does not check `writeConcernError` either: the updates were applied, but no majority has acknowledged them.
        match rejected.or_else(|| answer.get_document("writeConcernError").ok()) {
            None => Ok(answer.get_i32("nModified").ok().and_then(|n| n.try_into().ok()).unwrap_or(0)),
            Some(error) => Err(StoreError::Update(error.get_str("errmsg").unwrap_or("unknown").to_owned())),
        }
    }
}

/// Waits until a majority has every write up to `written`, by a read that depends on these writes and matches no document.
async fn caught_up(users: &Collection<Document>, written: mongodb::bson::Timestamp) -> mongodb::error::Result<()> {
    let mut session = users.client().start_session().causal_consistency(true).await?;
    session.advance_operation_time(written);
    users.find_one(doc! { "_id": "" }).session(&mut session).await.map(drop)
}

/// Error codes of MongoDB for values that an operator of an update cannot process: `BadValue`, `TypeMismatch`, and those of
/// `$add`, `$subtract`, `$size`, `$map`, `$filter`, `$concatArrays`, `$in`, `$setUnion` and `$setDifference` (`error_codes.yml`
/// and `expression.cpp` of the server).
const UNFIT_VALUES: [i32; 13] = [2, 14, 16554, 16555, 16556, 16883, 17043, 17048, 17049, 17124, 28651, 28664, 40081];

/// Converts an error of the driver. A document that does not fit its type becomes [`StoreError::Corrupt`], because no retry can
/// read it.
pub(super) fn to_store_error(error: mongodb::error::Error) -> StoreError {
    let corrupt = |id: &str| StoreError::Corrupt { collection: "a collection", id: id.to_owned(), field: "a field" };
    let code = match &*error.kind {
        ErrorKind::Bson(_) => return corrupt("of a query"),
        ErrorKind::Command(failure) => failure.code,
        ErrorKind::Write(WriteFailure::WriteError(failure)) => failure.code,
        _ => 0,
    };
    if UNFIT_VALUES.contains(&code) { corrupt("of an update") } else { StoreError::Database(error) }
}

/// Returns whether the response was lost or the server is no longer the primary, so that a retry may succeed.
fn may_succeed_later(error: &mongodb::error::Error) -> bool {
    match &*error.kind {
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } => true,
        // PrimarySteppedDown, NotWritablePrimary, InterruptedDueToReplStateChange, NotPrimaryNoSecondaryOk, …
        ErrorKind::Command(failure) => matches!(failure.code, 189 | 10107 | 11600 | 11602 | 13435 | 13436),
        _ => false,
    }
}
