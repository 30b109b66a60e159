//! Asserts that each command that the program sends to `images` and `users` names its user, so that the router of a sharded
//! cluster sends it to one shard. [`LISTED`] has the exceptions, each with its reason.
//!
//! The profiler of mongod judges every database of the tests: it records the program's commands (known by their `appName`, so
//! those of child processes too) that neither name a user nor are listed. The end of a test asserts that nothing was recorded.
//! A command that is not recorded costs only the evaluation of a filter, so the tests take no longer.

use std::sync::{OnceLock, mpsc};

use futures_util::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};

use super::servers::servers;

/// The kind of a command, which decides where its filter is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Find,
    Update,
    /// An aggregation that begins with `$match`, such as a count.
    Count,
}

use Kind::{Count, Find, Update};

/// A command that names no user: its collection, its kind, and the fields of its filter.
type Listed = (&'static str, Kind, &'static [&'static str]);

/// Commands that name no user, by reason. Every shard answers them.
const LISTED: &[(&str, &[Listed])] = &[
    (
        "sweepers and workers look for due work of all users, through indexes that contain only that",
        &[
            ("images", Find, &["due"]),
            ("images", Find, &["state", "reservation.place", "reservation.due"]),
            ("images", Find, &["rendering.due"]),
            ("images", Find, &["rendering.due", "rendering.attempts"]),
            ("images", Find, &["rendering.failure", "_id"]),
            ("users", Find, &["due"]),
            ("users", Find, &["opening.at", "opening", "_id"]),
            ("users", Find, &["settling.at", "settling", "_id"]),
            ("users", Find, &["holds.at", "_id"]),
        ],
    ),
    (
        "fan-out looks for events of all users, through indexes that contain only documents with events",
        &[
            ("images", Find, &["outbox.at"]),
            ("images", Find, &["outbox.at", "user"]),
            ("users", Find, &["outbox.at"]),
            ("users", Find, &["outbox.at", "_id"]),
        ],
    ),
    ("the sweeper postpones the failed settlements of many users at once", &[("images", Update, &["_id", "reservation.due"])]),
    (
        "the sweeper counts work that fails again and again, for a gauge",
        &[("images", Count, &["sweepFailures", "due"]), ("users", Count, &["due", "deletionFailures"])],
    ),
    (
        "the sweeper looks for damaged records, through indexes that are empty without them",
        &[
            ("images", Update, &["due"]),
            ("images", Update, &["due", "state"]),
            ("images", Update, &["due", "live", "goneAt"]),
            ("images", Update, &["due", "state", "strays.0"]),
            ("users", Update, &["due"]),
            ("users", Update, &["deletedAt", "due"]),
        ],
    ),
    (
        "a collection that a restored database lacks is missing on all shards",
        &[("images", Find, &[]), ("users", Find, &[]), ("users", Find, &["images", "deletedAt"]), ("images", Find, &["state"])],
    ),
    (
        "operators compare the whole bucket with the database, and have workers make previews of all earlier images",
        &[("images", Find, &["state", "key"]), ("images", Find, &["state", "_id"])],
    ),
    (
        "an app's backend lists all users, and finds users by an address that is not unique",
        &[("users", Find, &["_id", "deletedAt"]), ("users", Find, &["_id", "deletedAt", "email"])],
    ),
    ("operators recount all users", &[("users", Find, &["_id"]), ("users", Count, &["_id"])]),
    ("the sweeper registers accounts of an earlier version", &[("users", Find, &["registered", "deletedAt"])]),
    (
        "an account of an earlier version is found by its address or identity until it is registered, where `users` has no shards",
        &[
            ("users", Find, &["emailKey", "deletedAt"]),
            ("users", Find, &["identity.issuer", "identity.subject", "identity", "deletedAt"]),
        ],
    ),
    (
        "at the first token of an identity, the program reads once whether an account of the identity was deleted",
        &[("users", Find, &["formerIdentity", "deletedAt"])],
    ),
];

/// Returns the names of a document's fields, as an expression.
fn names_of(document: Bson) -> Document {
    let fields = doc! { "$objectToArray": { "$ifNull": [document, {}] } };
    doc! { "$map": { "input": fields, "in": "$$this.k" } }
}

/// Returns a filter of `system.profile` for this command.
fn is_listed(database: &str, (collection, kind, fields): &Listed) -> Document {
    let first = doc! { "$arrayElemAt": ["$command.pipeline", 0] };
    let matched = doc! { "$getField": { "field": { "$literal": "$match" }, "input": first } };
    let (op, filter) = match kind {
        Find => ("query", "$command.filter".into()),
        Update => ("update", "$command.q".into()),
        Count => ("command", matched.into()),
    };
    let fields = doc! { "$literal": fields.to_vec() };
    let ns = format!("{database}.{collection}");
    doc! { "op": op, "ns": ns, "$expr": { "$setEquals": [names_of(filter), fields] } }
}

/// Returns a filter of `system.profile` for the program's commands that may be neither targeted nor listed.
fn suspects(database: &str) -> Document {
    let [images, users] = ["images", "users"].map(|name| format!("{database}.{name}"));
    let filters = ["filter", "q", "query", "pipeline.0.$match"].map(|filter| format!("command.{filter}"));
    let user_filters = filters.iter().map(|filter| doc! { "ns": &images, format!("{filter}.user"): { "$exists": true } });
    let value = doc! { "$exists": true, "$not": { "$type": "object" } };
    let id_filters = filters.iter().map(|filter| doc! { "ns": &users, format!("{filter}._id"): value.clone() });
    let listed = LISTED.iter().flat_map(|(_, all)| *all).map(|listed| is_listed(database, listed));
    // Exempt are inserts, whose documents name their user; `getMore`, which goes to the shards of the cursor's first command;
    // commands about whole collections; the estimates of the census; and the feed of event streams, which has the changes of all
    // users.
    let whole = ["createIndexes", "dropIndexes", "killCursors", "count", "pipeline.0.$sample", "pipeline.0.$changeStream"];
    let whole = whole.iter().map(|name| doc! { format!("command.{name}"): { "$exists": true } });
    let excluded: Vec<_> = user_filters.chain(id_filters).chain(listed).chain(whole).collect();
    let ns = doc! { "$in": [images, users] };
    doc! { "appName": "valet", "ns": ns, "op": { "$nin": ["insert", "getmore"] }, "$nor": excluded }
}

/// Returns whether the filter requires a value of `key`, or one of several, in each of its alternatives.
fn requires(filter: &Document, key: &str) -> bool {
    match (filter.get(key), filter.get("$or")) {
        (Some(Bson::Document(value)), _) => {
            value.keys().next().is_none_or(|first| !first.starts_with('$') || matches!(first.as_str(), "$in" | "$eq"))
        }
        (Some(_), _) => true,
        (None, Some(Bson::Array(all))) => all.iter().all(|one| one.as_document().is_some_and(|one| requires(one, key))),
        _ => false,
    }
}

/// Returns whether a recorded command names its user.
fn is_targeted(record: &Document) -> bool {
    let key = if record.get_str("ns").is_ok_and(|ns| ns.ends_with(".images")) { "user" } else { "_id" };
    let Ok(command) = record.get_document("command") else { return false };
    let first = command.get_array("pipeline").ok().and_then(|stages| stages.first()?.as_document()?.get_document("$match").ok());
    let filter = ["filter", "q", "query"].iter().find_map(|name| command.get_document(name).ok()).or(first);
    filter.is_some_and(|filter| requires(filter, key))
}

/// Configures the profiler to record the suspects of a database.
pub async fn watch(database: &mongodb::Database) -> Watch {
    let filter = suspects(database.name());
    database.run_command(doc! { "profile": 1, "filter": filter }).await.unwrap();
    Watch(database.name().to_owned())
}

/// Configures the profiler to record every command, for a test that reads `system.profile`.
pub async fn record_all(database: &mongodb::Database) {
    database.run_command(doc! { "profile": 2, "filter": "unset" }).await.unwrap();
}

/// Returns the recorded commands that are neither targeted nor listed.
async fn untargeted(client: &mongodb::Client, database: &str) -> mongodb::error::Result<Vec<Document>> {
    let profile = client.database(database).collection::<Document>("system.profile");
    let mut found: Vec<_> = profile.find(suspects(database)).await?.try_collect().await?;
    found.retain(|record| !is_targeted(record));
    Ok(found)
}

/// A watched database; dropping this asserts that all commands were targeted or listed.
pub struct Watch(String);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let found = judge(&self.0);
        assert!(found.is_empty(), "commands without a user that are not listed in tests/api/targeting.rs: {found:#?}");
    }
}

/// Returns the result of [`untargeted`], which a separate thread awaits: a destructor cannot.
fn judge(database: &str) -> Vec<Document> {
    type Question = (String, mpsc::Sender<Vec<Document>>);
    static JUDGE: OnceLock<mpsc::Sender<Question>> = OnceLock::new();
    let judge = JUDGE.get_or_init(|| {
        let (sender, questions) = mpsc::channel::<Question>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let client = mongodb::Client::with_uri_str(&servers().mongodb).await.unwrap();
                for (database, answer) in questions {
                    // If no answer is sent, the test fails.
                    if let Ok(found) = untargeted(&client, &database).await {
                        let _ = answer.send(found);
                    }
                }
            });
        });
        sender
    });
    let (sender, answer) = mpsc::channel();
    judge.send((database.to_owned(), sender)).expect("the judge runs");
    answer.recv().expect("the profile can be read")
}

#[tokio::test]
async fn command_without_a_user_is_found_unless_it_is_listed() {
    let mut options = mongodb::options::ClientOptions::parse(&servers().mongodb).await.unwrap();
    options.app_name = Some("valet".to_owned());
    let program = mongodb::Client::with_options(options).unwrap();
    let database = program.database(&format!("t-{}", uuid::Uuid::new_v4().simple()));
    let watch = watch(&database).await;
    let [images, users] = ["images", "users"].map(|name| database.collection::<Document>(name));
    images.insert_one(doc! { "_id": "i", "user": "u", "due": 1 }).await.unwrap();
    images.find_one(doc! { "_id": "i", "user": "u" }).await.unwrap();
    images.find_one(doc! { "$or": [{ "user": "u", "sha256": "x" }, { "user": "u", "idemKey": "y" }] }).await.unwrap();
    images.count_documents(doc! { "user": "u" }).await.unwrap();
    images.find_one(doc! { "due": { "$lte": 2 } }).await.unwrap();
    images.count_documents(doc! { "sweepFailures": 3, "due": { "$exists": true } }).await.unwrap();
    users.update_one(doc! { "_id": "u" }, doc! { "$set": { "images": 1 } }).await.unwrap();
    users.find_one(doc! { "_id": { "$in": ["u", "v"] } }).await.unwrap();
    assert_eq!(untargeted(&program, database.name()).await.unwrap(), Vec::<Document>::new());

    let set = doc! { "$set": { "caption": "x" } };
    images.find_one(doc! { "_id": "i" }).await.unwrap();
    images.find_one(doc! { "$or": [{ "user": "u" }, { "idemKey": "y" }] }).await.unwrap();
    images.find_one(doc! { "due": 1, "caption": "x" }).await.unwrap();
    images.count_documents(doc! { "caption": "x" }).await.unwrap();
    images.update_one(doc! { "_id": "i" }, set.clone()).await.unwrap();
    images.find_one_and_update(doc! { "_id": "i" }, set.clone()).await.unwrap();
    images.delete_one(doc! { "_id": "i" }).await.unwrap();
    users.update_many(doc! { "_id": { "$gt": "a" } }, set).await.unwrap();
    assert_eq!(untargeted(&program, database.name()).await.unwrap().len(), 8);
    std::mem::forget(watch);
    database.drop().await.unwrap();
}
