//! Covers the pairing of bucket and database: each bucket belongs to one database, and every command rejects another pair without
//! changing anything.
//!
//! Commands: valet join, valet serve, valet sweep.

mod lost_ids;
mod restored;

use std::process::Stdio;

use mongodb::bson::{Document, doc};
use secrecy::ExposeSecret;
use tokio::process::Command;
use valet::{
    domain::{
        deployment::PairError,
        doctor::{self, Answer},
    },
    model::{DeploymentId, ImageId, ObjectKey, UserId},
    store::objects::marker::KEY as MARKER,
};

use super::app::{TestApp, unique_png};

/// Starts another server, which pairs database and bucket if they have no ids yet, and returns the common id.
async fn restarted(app: &TestApp) -> Result<DeploymentId, PairError> {
    TestApp::start_second_server(app, |_| {}).await.app.valet.deployment.verify_pair().await
}

/// Replaces the deployment id in the database; `None` removes it.
async fn set_database(app: &TestApp, id: Option<DeploymentId>) {
    let meta = app.db.collection::<Document>("meta");
    meta.delete_many(doc! {}).await.unwrap();
    if let Some(id) = id {
        meta.insert_one(doc! { "_id": "deployment", "id": id.to_string() }).await.unwrap();
    }
}

/// Replaces the deployment id in the bucket; `None` removes it.
async fn set_bucket(app: &TestApp, id: Option<DeploymentId>) {
    match id {
        Some(id) => app.bucket_put(MARKER, "text/plain", id.to_string().into_bytes()).await,
        None => drop(app.s3.delete_object().bucket(&app.config.s3.bucket).key(MARKER).send().await),
    }
}

#[tokio::test]
async fn first_start_pairs_bucket_and_database() {
    let app = TestApp::start().await;
    let starts = futures_util::future::join_all((0..6).map(|_| restarted(&app))).await;
    let ids: Vec<_> = starts.into_iter().map(Result::unwrap).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(restarted(&app).await.unwrap(), ids[0]);
    assert_eq!(app.all_bucket_keys().await, [MARKER]);
}

/// Returns the answer of `valet check` about the pair; the check itself does not pair.
async fn pair_answer(app: &TestApp) -> Answer {
    let report = doctor::run(&app.config, doctor::Options::default()).await;
    report.answer("bucket and database belong together").unwrap().clone()
}

/// Covers ids that another program or an operator has damaged: every command rejects them, and `valet join` repairs them.
#[tokio::test]
async fn damaged_ids_are_rejected_and_repaired_by_join() {
    let app = TestApp::start().await;
    let meta = app.db.collection::<Document>("meta");
    for (marker, document) in [
        (Some("no id"), Some(doc! { "_id": "deployment", "id": DeploymentId::new().to_string() })),
        (Some(""), None),
        (None, Some(doc! { "_id": "deployment" })),
        (Some("no id"), Some(doc! { "_id": "deployment", "id": 7 })),
    ] {
        set_database(&app, None).await;
        set_bucket(&app, None).await;
        if let Some(text) = marker {
            app.bucket_put(MARKER, "text/plain", text.as_bytes().to_vec()).await;
        }
        if let Some(document) = &document {
            meta.insert_one(document).await.unwrap();
        }
        let verified = app.app.valet.deployment.verify_pair().await;
        assert!(matches!(verified, Err(PairError::Damaged { .. })), "{marker:?} {document:?}: {verified:?}");
        let checked = pair_answer(&app).await;
        assert!(matches!(&checked, Answer::No(reason) if *reason == verified.unwrap_err().to_string()), "{checked:?}");
        let (joined, output) = valet(&app, &app.config.mongo.database, &["join", "--yes"]).await;
        assert!(joined && output.contains("is damaged") && output.contains("joined as deployment"), "{output}");
        app.app.valet.deployment.verify_pair().await.unwrap();
    }
}

/// Keys of other programs may come before Valet's in the bucket.
#[tokio::test]
async fn images_after_other_programs_keys_are_found() {
    let app = TestApp::start().await;
    app.bucket_put(ObjectKey::final_for(UserId::new(), ImageId::new()).as_str(), "image/png", vec![1]).await;
    // More than the 1000 keys of a page of the listing.
    for n in 0..1001 {
        app.bucket_put(&format!("u/0/{n}"), "text/plain", vec![1]).await;
    }
    set_database(&app, None).await;
    set_bucket(&app, None).await;
    let verified = app.app.valet.deployment.verify_pair().await;
    assert!(matches!(verified, Err(PairError::UnknownObjects)), "{verified:?}");
}

/// Result of the verification of a pair, without ids.
#[derive(Debug, PartialEq)]
enum Verdict {
    Paired,
    Differ,
    NewDatabase,
    EmptyBucket,
    UnknownObjects,
}

impl Verdict {
    /// Returns the verdict of a result.
    fn of(verified: &Result<DeploymentId, PairError>) -> Self {
        match verified {
            Ok(_) => Self::Paired,
            Err(PairError::Differ { .. }) => Self::Differ,
            Err(PairError::NewDatabase { .. }) => Self::NewDatabase,
            Err(PairError::EmptyBucket) => Self::EmptyBucket,
            Err(PairError::UnknownObjects) => Self::UnknownObjects,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The only object of an image in the bucket.
#[derive(Debug)]
enum Object {
    Absent,
    /// The object of the database's record, whether the record is present or not.
    Recorded,
    /// An object without a record in any database.
    Unknown,
}

/// Ids, object and record that a server finds when it starts.
#[derive(Debug)]
struct Combination {
    database: Option<DeploymentId>,
    bucket: Option<DeploymentId>,
    object: Object,
    has_record: bool,
    /// Expected result.
    verdict: Verdict,
}

/// Returns all combinations of ids, objects and records, each with the expected verdict. `b` is the id of another deployment.
fn combinations(a: DeploymentId, b: DeploymentId) -> [Combination; 15] {
    use Object::{Absent, Recorded, Unknown};
    use Verdict::{Differ, EmptyBucket, NewDatabase, Paired, UnknownObjects};
    [
        // A new installation, and one of an earlier version without ids.
        Combination { database: None, bucket: None, object: Absent, has_record: false, verdict: Paired },
        Combination { database: None, bucket: None, object: Recorded, has_record: true, verdict: Paired },
        // A wrong or empty database, such as the staging system's.
        Combination { database: None, bucket: None, object: Recorded, has_record: false, verdict: UnknownObjects },
        Combination { database: None, bucket: None, object: Unknown, has_record: true, verdict: UnknownObjects },
        Combination { database: None, bucket: Some(b), object: Recorded, has_record: true, verdict: NewDatabase },
        Combination { database: None, bucket: Some(b), object: Absent, has_record: false, verdict: NewDatabase },
        Combination { database: Some(a), bucket: Some(b), object: Recorded, has_record: true, verdict: Differ },
        Combination { database: Some(a), bucket: Some(b), object: Absent, has_record: false, verdict: Differ },
        // A server was killed after it wrote the database's id and before it wrote the marker.
        Combination { database: Some(a), bucket: None, object: Absent, has_record: false, verdict: Paired },
        Combination { database: Some(a), bucket: None, object: Recorded, has_record: true, verdict: Paired },
        // A wrong or lost bucket.
        Combination { database: None, bucket: None, object: Absent, has_record: true, verdict: EmptyBucket },
        Combination { database: Some(a), bucket: None, object: Absent, has_record: true, verdict: EmptyBucket },
        Combination { database: Some(a), bucket: None, object: Unknown, has_record: true, verdict: UnknownObjects },
        // Equal ids suffice, whatever else is missing.
        Combination { database: Some(a), bucket: Some(a), object: Absent, has_record: true, verdict: Paired },
        Combination { database: Some(a), bucket: Some(a), object: Unknown, has_record: false, verdict: Paired },
    ]
}

/// Replaces the ids, objects and records of a deployment.
async fn set_up(app: &TestApp, combination: &Combination, record: &Document) {
    set_database(app, combination.database).await;
    set_bucket(app, combination.bucket).await;
    for key in app.all_bucket_keys().await.iter().filter(|key| *key != MARKER) {
        app.s3.delete_object().bucket(&app.config.s3.bucket).key(key).send().await.unwrap();
    }
    let images = app.db.collection::<Document>("images");
    images.delete_many(doc! {}).await.unwrap();
    if combination.has_record {
        images.insert_one(record).await.unwrap();
    }
    let key = match combination.object {
        Object::Absent => return,
        Object::Recorded => record.get_str("key").unwrap().to_owned(),
        Object::Unknown => ObjectKey::final_for(UserId::new(), ImageId::new()).to_string(),
    };
    app.bucket_put(&key, "image/png", vec![1]).await;
}

/// Covers each combination of ids, objects and records.
#[tokio::test]
async fn only_a_plausible_pair_is_accepted() {
    let app = TestApp::start().await;
    app.user().await.upload("a.png", "image/png", &unique_png()).await;
    let record = app.db.collection::<Document>("images").find_one(doc! {}).await.unwrap().unwrap();
    for combination in combinations(DeploymentId::new(), DeploymentId::new()) {
        set_up(&app, &combination, &record).await;
        let checked = pair_answer(&app).await;
        let verified = app.app.valet.deployment.verify_pair().await;
        let agree = matches!((&checked, &verified), (Answer::No(_), Err(_)) | (Answer::Yes(_) | Answer::Skipped(_), Ok(_)));
        assert!(agree, "valet check reports {checked:?} for {verified:?}");
        assert_eq!(Verdict::of(&verified), combination.verdict, "{combination:?}");
        let pair = app.app.valet.deployment.read_pair().await.unwrap();
        let (bucket, database) = match verified {
            Ok(id) => (Some(id), Some(id)),
            Err(_) => (combination.bucket, combination.database),
        };
        assert_eq!((pair.bucket, pair.database), (bucket, database), "a rejection changes nothing: {combination:?}");
    }
}

/// Runs the program with these arguments on this database and bucket; returns whether it succeeded, and its output.
async fn valet(app: &TestApp, database: &str, arguments: &[&str]) -> (bool, String) {
    let s3 = &app.config.s3;
    let keys = s3.credentials.as_ref().unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_valet"))
        .args(arguments)
        .env("BIND", "127.0.0.1:0")
        .env("MONGODB_URI", app.config.mongo.uri.expose_secret())
        .env("MONGODB_DATABASE", database)
        .env("S3_BUCKET", &*s3.bucket)
        .env("S3_ENDPOINT", s3.endpoint.as_deref().unwrap())
        .env("S3_FORCE_PATH_STYLE", "true")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", &keys.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", keys.secret_access_key.expose_secret())
        .env("JWT_SECRET", app.config.tokens.secret.expose_secret())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let done =
        tokio::time::timeout(std::time::Duration::from_secs(60), child).await.expect("the command exits within 60 s").unwrap();
    (done.status.success(), String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_rejects_the_bucket_of_another_deployment() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    ada.upload("a.png", "image/png", &unique_png()).await;
    let id = app.app.valet.deployment.verify_pair().await.unwrap();
    let mut objects = app.all_bucket_keys().await;
    let other = format!("{}-other", app.config.mongo.database);
    let orphans = ["sweep", "--orphans", "--before", "2026-01-01T00:00:00Z", "--delete", "--yes"];
    let commands: [&[&str]; 6] = [&["serve"], &["sweep"], &orphans, &["recount"], &["check"], &["check", "--fix"]];
    for command in commands {
        let (success, output) = valet(&app, &other, command).await;
        assert!(!success && output.contains("valet join"), "{command:?}: {output}");
        assert_eq!(app.all_bucket_keys().await, objects, "{command:?}");
    }
    let (success, output) = valet(&app, &other, &["passwd", "ada@example.com"]).await;
    assert!(!success, "{output}");
    let client = mongodb::Client::with_uri_str(app.config.mongo.uri.expose_secret()).await.unwrap();
    let databases = client.list_database_names().await.unwrap();
    assert!(!databases.contains(&other), "a rejection leaves nothing in the other database, not even an index");
    let (success, output) = valet(&app, &app.config.mongo.database, &["recount"]).await;
    assert!(success, "{output}");

    let (success, output) = valet(&app, &other, &["join"]).await;
    assert!(!success && output.contains(&id.to_string()) && output.contains("no record of the images"), "{output}");
    assert_eq!(app.app.valet.deployment.verify_pair().await.unwrap(), id, "nothing was joined without consent");
    let (success, output) = valet(&app, &other, &["join", "--yes"]).await;
    assert!(success, "{output}");
    assert!(valet(&app, &other, &["recount"]).await.0);
    assert!(
        matches!(app.app.valet.deployment.verify_pair().await, Err(PairError::Differ { .. })),
        "the database that was paired before is rejected now"
    );
    // The rules for the deletion of orphans are the next safeguard.
    let (success, output) = valet(&app, &other, &["sweep", "--orphans", "--before", "2126-01-01T00:00:00Z"]).await;
    assert!(!success && output.contains("must lie in the past"), "{output}");
    // Longer than a second, so that all objects are older than `now`, which has whole seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let now = time::OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
    let now = now.format(&time::format_description::well_known::Rfc3339).unwrap();
    for consent in [&["--yes"][..], &["--expect", "1"], &[]] {
        let arguments = [&["sweep", "--orphans", "--before", &now, "--delete"], consent].concat();
        let (success, output) = valet(&app, &other, &arguments).await;
        assert!(!success && output.contains("nothing was"), "{output}");
    }
    objects.sort();
    assert_eq!(app.all_bucket_keys().await, objects);
    client.database(&other).drop().await.unwrap();
}
