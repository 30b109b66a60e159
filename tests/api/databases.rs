//! Databases of tests. A test's database is emptied after its last server and given to a later test, because mongod's cost of a
//! new one, with its collections and indexes, is a large part of the time of all tests. A database whose collections or indexes a
//! test has changed is dropped.

use std::{
    collections::VecDeque,
    sync::{LazyLock, Mutex},
    time::{Duration, Instant},
};

use futures_util::TryStreamExt;
use mongodb::{
    Client,
    bson::{Bson, Document, doc},
};
use tokio::sync::mpsc;

use super::servers::servers;

/// Time after a test's end in which its last commands reach mongod. The database is emptied after it.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

/// The collection of mongod's profiler.
const PROFILE: &str = "system.profile";

/// A database of a test.
pub struct TestDatabase {
    name: String,
    /// The collections and indexes that the first server has created; `None` until it has.
    schema: Option<Vec<Document>>,
}

/// Names of empty databases for later tests, with their collections and indexes.
static EMPTIED: Mutex<VecDeque<(String, Vec<Document>)>> = Mutex::new(VecDeque::new());

impl TestDatabase {
    /// Returns an emptied database of an earlier test, or a new one.
    pub async fn new(client: &Client) -> Self {
        let emptied = || EMPTIED.lock().unwrap().pop_front();
        while let Some((name, schema)) = emptied() {
            // A late command of its earlier test may have arrived since it was emptied.
            if is_empty(client, &name).await.unwrap_or(false) {
                return Self { name, schema: Some(schema) };
            }
            let _ = client.database(&name).drop().await;
        }
        Self { name: format!("t-{}", uuid::Uuid::new_v4().simple()), schema: None }
    }

    /// Returns the name in MongoDB.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Records the collections and indexes, once the first server has created them.
    pub async fn record_schema(mut self, client: &Client) -> Self {
        if self.schema.is_none() {
            self.schema = schema(client, &self.name).await.ok();
        }
        self
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        static USED: LazyLock<mpsc::UnboundedSender<Used>> = LazyLock::new(start_emptying);
        let (name, schema) = (std::mem::take(&mut self.name), self.schema.take());
        let _ = USED.send(Used { name, schema, at: Instant::now() });
    }
}

/// A database whose test has ended.
struct Used {
    name: String,
    schema: Option<Vec<Document>>,
    /// When the test ended.
    at: Instant,
}

/// Starts a thread that empties the databases that it receives, and returns the sender.
fn start_emptying() -> mpsc::UnboundedSender<Used> {
    let (sender, mut databases) = mpsc::unbounded_channel::<Used>();
    let empty_all = async move {
        let client = Client::with_uri_str(&servers().mongodb).await.unwrap();
        // Files of dropped databases are removed at once, and files in use are never closed: both take mongod's time.
        for (parameter, value) in [
            ("minSnapshotHistoryWindowInSeconds", Bson::Int32(0)),
            ("wiredTigerEngineRuntimeConfig", "file_manager=(close_idle_time=0)".into()),
        ] {
            let set = client.database("admin").run_command(doc! { "setParameter": 1, parameter: value }).await;
            assert!(set.is_ok() || std::env::var_os("VALET_TEST_MONGODB_URI").is_some(), "{set:?}");
        }
        while let Some(Used { name, schema, at }) = databases.recv().await {
            tokio::time::sleep_until((at + SETTLED_AFTER).into()).await;
            match schema {
                Some(schema) if empty(&client, &name, &schema).await.unwrap_or(false) => {
                    EMPTIED.lock().unwrap().push_back((name, schema));
                }
                _ => drop(client.database(&name).drop().await),
            }
        }
    };
    std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(empty_all);
    });
    sender
}

/// Deletes all documents of a database, and the collections that its test has added. Returns `false` if the other collections or
/// their indexes differ from `expected`.
async fn empty(client: &Client, name: &str, expected: &[Document]) -> mongodb::error::Result<bool> {
    let database = client.database(name);
    let (kept, added) = schema(client, name).await?.into_iter().partition::<Vec<_>, _>(|found| expected.contains(found));
    if kept.len() != expected.len() {
        return Ok(false);
    }
    for collection in added {
        database.collection::<Document>(collection.get_str("name").unwrap_or_default()).drop().await?;
    }
    for collection in expected {
        let Ok(collection) = collection.get_str("name") else { return Ok(false) };
        if collection != PROFILE {
            let deleted = database.collection::<Document>(collection).delete_many(doc! {}).await?.deleted_count;
            if deleted > 0 {
                // MongoDB keeps plans by the work that they took with this test's documents, and would try others for a while.
                database.run_command(doc! { "planCacheClear": collection }).await?;
            }
        }
    }
    let profile = database.collection::<Document>(PROFILE);
    if profile.estimated_document_count().await? > 0 {
        // Its records cannot be deleted. The next test creates it again.
        database.run_command(doc! { "profile": 0 }).await?;
        profile.drop().await?;
    }
    is_empty(client, name).await
}

/// Returns whether a database has no documents.
async fn is_empty(client: &Client, name: &str) -> mongodb::error::Result<bool> {
    let stats = client.database(name).run_command(doc! { "dbStats": 1 }).await?;
    Ok(stats.get("objects").and_then(|objects| objects.as_i64().or(objects.as_i32().map(i64::from))) == Some(0))
}

/// Returns the options and indexes of each collection of a database, in the order of their names.
async fn schema(client: &Client, name: &str) -> mongodb::error::Result<Vec<Document>> {
    let stages = [
        doc! { "$listCatalog": {} },
        doc! { "$match": { "db": name } },
        doc! { "$project": { "_id": 0, "name": 1, "type": 1, "options": "$md.options", "indexes": "$md.indexes.spec" } },
        doc! { "$unset": "options.uuid" },
        doc! { "$sort": { "name": 1 } },
    ];
    client.database("admin").aggregate(stages).await?.try_collect().await
}
