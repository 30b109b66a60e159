//! Covers databases and buckets that were restored from a backup, and running servers whose bucket another database has joined.

use std::{collections::HashMap, time::Duration};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use valet::{
    domain::orphans::{Consent, OrphanError},
    state::AppState,
};

use super::{
    Answer, DeploymentId, Document, ImageId, MARKER, ObjectKey, PairError, TestApp, UserId, doc, doctor, restarted, set_bucket,
    unique_png, valet,
};
use crate::{app::eventually, relay::relay_s3};

/// Rule of `valet check` about the stamps.
const RULE: &str = "bucket and database are from the same time";
/// Collections of a backup.
const BACKED_UP: [&str; 3] = ["images", "users", "meta"];

/// Returns all records of the collections in [`BACKED_UP`].
async fn back_up(app: &TestApp) -> HashMap<&'static str, Vec<Document>> {
    let mut backup = HashMap::new();
    for name in BACKED_UP {
        backup.insert(name, app.db_all(name).await);
    }
    backup
}

/// Replaces all records by those of the backup, like `mongorestore --drop`. The indexes stay.
async fn restore(app: &TestApp, backup: &HashMap<&'static str, Vec<Document>>) {
    for (name, records) in backup {
        let collection = app.db.collection::<Document>(name);
        collection.delete_many(doc! {}).await.unwrap();
        collection.insert_many(records).await.unwrap();
    }
}

/// Pairs database and bucket, stamps both and returns the stamp in the bucket.
async fn stamp(app: &TestApp) -> i64 {
    app.app.valet.deployment.verify_pair().await.unwrap();
    app.app.valet.deployment.check_and_stamp_pair(Duration::ZERO).await.unwrap();
    bucket_stamp(app).await.unwrap()
}

/// Returns the stamp in the bucket.
pub(super) async fn bucket_stamp(app: &TestApp) -> Option<i64> {
    let head = app.s3.head_object().bucket(&app.config.s3.bucket).key(MARKER).send().await.unwrap();
    head.metadata().and_then(|metadata| metadata.get("valet-stamp")).map(|stamp| stamp.parse().unwrap())
}

/// Replaces id and stamp in the bucket.
async fn set_bucket_stamp(app: &TestApp, id: DeploymentId, stamp: i64) {
    let put = app.s3.put_object().bucket(&app.config.s3.bucket).key(MARKER).metadata("valet-stamp", stamp.to_string());
    put.body(id.to_string().into_bytes().into()).send().await.unwrap();
}

/// Waits for a time, in whole seconds as S3's times are, that is after everything that exists now, and returns it.
async fn just_now() -> OffsetDateTime {
    tokio::time::sleep(Duration::from_millis(1100)).await;
    OffsetDateTime::now_utc().replace_nanosecond(0).unwrap()
}

/// Returns the answer of `valet check` to the rule about stamps.
async fn stamps_answer(app: &TestApp) -> Answer {
    let report = doctor::run(&app.config, doctor::Options::default()).await;
    report.answer(RULE).unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_deletes_no_orphans_before_it_is_joined() {
    let app = TestApp::start().await;
    let ada = app.user().await;
    for _ in 0..12 {
        ada.upload("old.png", "image/png", &unique_png()).await;
    }
    assert!(matches!(stamps_answer(&app).await, Answer::Skipped(_)), "bucket and database have no common id yet");
    let first = stamp(&app).await;
    assert!(matches!(stamps_answer(&app).await, Answer::Yes(_)));
    let backup = back_up(&app).await;
    let new = ada.upload("new.png", "image/png", &unique_png()).await;
    let new = app.db_key(new["id"].as_str().unwrap()).await;
    assert!(stamp(&app).await > first);
    restore(&app, &backup).await;

    // The lost records are fewer than a tenth, and the deployment is the same: only the stamp shows the restore.
    let before = just_now().await;
    let found = app.app.valet.orphans.find(before, &mut |_| {}).await.unwrap();
    assert_eq!(found.orphans.first.iter().map(|orphan| orphan.key.as_str()).collect::<Vec<_>>(), [new.as_str()]);
    let time = before.format(&Rfc3339).unwrap();
    let database = &app.config.mongo.database;
    let sweep = ["sweep", "--orphans", "--before", &time];
    for _ in 0..2 {
        for consent in [Consent::Given, Consent::Number(1)] {
            let rejected = app.app.valet.orphans.delete(before, &found, consent).await;
            assert!(matches!(rejected, Err(OrphanError::Restored { .. })), "{rejected:?}");
        }
        // Neither a restarted server nor one that keeps running hides the restore.
        assert_eq!(restarted(&app).await.unwrap(), app.app.valet.deployment.verify_pair().await.unwrap());
        app.app.valet.deployment.check_and_stamp_pair(Duration::ZERO).await.unwrap();
    }
    for consent in [&["--delete", "--yes"][..], &["--delete", "--expect", "1"]] {
        let (success, output) = valet(&app, database, &[&sweep, consent].concat()).await;
        assert!(!success && output.contains("was restored from a backup") && output.contains("valet join"), "{output}");
    }
    for command in [&sweep[..], &["sweep"], &["recount"]] {
        let (success, output) = valet(&app, database, command).await;
        let warnings = output.lines().filter(|line| line.contains("was restored from a backup")).count();
        assert!(success && warnings == 1, "{command:?}: {output}");
    }
    let answer = stamps_answer(&app).await;
    assert!(matches!(&answer, Answer::No(reason) if reason.contains("the database was restored")), "{answer:?}");
    assert!(app.all_bucket_keys().await.contains(&new));

    let (joined, output) = valet(&app, database, &["join", "--yes"]).await;
    assert!(joined && output.contains("objects of later uploads have no record"), "{output}");
    assert!(matches!(stamps_answer(&app).await, Answer::Yes(_)));
    let (again, output) = valet(&app, database, &["join"]).await;
    assert!(again && output.contains("they belong together already"), "{output}");
    let (success, output) = valet(&app, database, &[&sweep[..], &["--delete", "--yes"]].concat()).await;
    assert!(success && output.contains("1 objects and uploads deleted"), "{output}");
    assert!(!app.all_bucket_keys().await.contains(&new));
    stamp(&app).await;
}

/// The backup is of an earlier version, which did not stamp.
#[tokio::test]
async fn a_database_without_a_stamp_is_older_than_a_bucket_with_one() {
    let app = TestApp::start().await;
    app.app.valet.deployment.verify_pair().await.unwrap();
    let backup = app.db_all("meta").await;
    stamp(&app).await;
    let meta = app.db.collection::<Document>("meta");
    meta.delete_many(doc! {}).await.unwrap();
    meta.insert_many(&backup).await.unwrap();
    let rejected = app.app.valet.orphans.verify_pair_for_deletion().await;
    assert!(matches!(rejected, Err(OrphanError::Restored { .. })), "{rejected:?}");
}

#[tokio::test]
async fn a_restored_bucket_is_reported_and_its_orphans_are_deleted() {
    let app = TestApp::start().await;
    let first = stamp(&app).await;
    stamp(&app).await;
    let last = stamp(&app).await;
    let id = app.app.valet.deployment.verify_pair().await.unwrap();
    set_bucket_stamp(&app, id, first).await;
    let answer = stamps_answer(&app).await;
    assert!(matches!(&answer, Answer::No(reason) if reason.contains("the bucket was restored")), "{answer:?}");
    assert_eq!(app.app.valet.deployment.verify_pair().await.unwrap(), id);
    app.app.valet.deployment.check_and_stamp_pair(Duration::ZERO).await.unwrap();
    assert_eq!(bucket_stamp(&app).await, Some(first), "the old stamp is kept, so that the restore stays recognizable");
    app.app.valet.orphans.verify_pair_for_deletion().await.unwrap();
    app.app.valet.deployment.join_pair().await.unwrap();
    assert!(matches!(stamps_answer(&app).await, Answer::Yes(_)));
    assert!(stamp(&app).await > last);
}

/// Stamps of a server that died between its two writes, or of many servers at once, do not look like a restore.
#[tokio::test]
async fn unfinished_stamps_do_not_count_as_a_restore() {
    let app = TestApp::start().await;
    let first = stamp(&app).await;
    let second = stamp(&app).await;
    let id = app.app.valet.deployment.verify_pair().await.unwrap();
    set_bucket_stamp(&app, id, first).await;
    assert!(matches!(stamps_answer(&app).await, Answer::Yes(_)));
    app.app.valet.deployment.check_and_stamp_pair(Duration::ZERO).await.unwrap();
    assert_eq!(bucket_stamp(&app).await, Some(second), "the next server completes the stamp");
    app.app.valet.deployment.check_and_stamp_pair(Duration::from_secs(86_400)).await.unwrap();
    assert_eq!(bucket_stamp(&app).await, Some(second), "no stamp is written before its interval has passed");
    for _ in 0..10 {
        let servers = (0..8).map(|_| app.app.valet.deployment.check_and_stamp_pair(Duration::ZERO));
        for checked in futures_util::future::join_all(servers).await {
            checked.unwrap();
        }
        assert_eq!(app.app.valet.deployment.read_pair().await.unwrap().restored_side(), None);
    }
    assert!(bucket_stamp(&app).await > Some(second));
}

/// The clock of a new primary may be behind the clock of the previous primary.
#[tokio::test]
async fn a_stamp_is_later_than_the_one_before() {
    let app = TestApp::start().await;
    let id = app.app.valet.deployment.verify_pair().await.unwrap();
    let ahead = mongodb::bson::DateTime::from_millis(mongodb::bson::DateTime::now().timestamp_millis() + 3_600_000);
    let meta = app.db.collection::<Document>("meta");
    meta.update_one(doc! {}, doc! { "$set": { "stamp": ahead } }).await.unwrap();
    set_bucket_stamp(&app, id, ahead.timestamp_millis()).await;
    app.app.valet.deployment.join_pair().await.unwrap();
    assert_eq!(bucket_stamp(&app).await, Some(ahead.timestamp_millis() + 1));
}

#[tokio::test]
async fn a_server_that_stops_stamps_the_pair() {
    let app = TestApp::start().await;
    let first = stamp(&app).await;
    // The last stamp is written within two seconds or not at all, which a busy machine may exceed, but not each time.
    for _ in 0..3 {
        let stopping = TestApp::start_second_server(&app, |_| {}).await;
        stopping.user().await;
        drop(stopping);
        tokio::time::sleep(Duration::from_secs(3)).await;
        if bucket_stamp(&app).await != Some(first) {
            return;
        }
    }
    panic!("a stopping server stamps the pair");
}

/// Servers that run while another database joins their bucket.
#[tokio::test]
async fn a_running_server_removes_nothing_from_another_databases_bucket() {
    let app = TestApp::start().await;
    let id = app.app.valet.deployment.verify_pair().await.unwrap();
    // A pair without a stamp gets one from the server, whose write would replace the marker below.
    stamp(&app).await;
    let server = TestApp::start_second_server(&app, |config| config.sweep.interval = Duration::from_secs(1)).await;
    let ada = server.user().await;
    set_bucket(&app, Some(DeploymentId::new())).await;
    // Until its next check of the pair, the server removes the objects of deleted images.
    let mut key = String::new();
    eventually("the server leaves an object", async || {
        let image = ada.upload("a.png", "image/png", &unique_png()).await;
        key = app.db_key(image["id"].as_str().unwrap()).await;
        assert_eq!(ada.delete(&format!("/api/images/{}", image["id"].as_str().unwrap())).await.status, 204);
        app.all_bucket_keys().await.contains(&key)
    })
    .await;
    // The image is due: with equal ids, the sweeper would remove the object within this time.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(app.all_bucket_keys().await.contains(&key));
    assert_eq!(server.anonymous().get("/readyz").await.status, 503, "uploads would land in another database's bucket");
    set_bucket(&app, Some(id)).await;
    eventually("the server removes the object", async || !app.all_bucket_keys().await.contains(&key)).await;
    eventually("the server is ready again", async || server.anonymous().get("/readyz").await.status == 200).await;
}

/// A long `valet sweep` that runs while another database joins the bucket.
#[tokio::test]
async fn a_sweep_under_way_ends_when_another_database_joins_its_bucket() {
    let app = TestApp::start().await;
    app.app.valet.deployment.verify_pair().await.unwrap();
    let ada = app.user().await;
    let id = ada.open_upload("a.png", "image/png", &unique_png()).await.id().to_owned();
    let due = doc! { "$set": { "due": mongodb::bson::DateTime::from_millis(1000) } };
    app.db.collection::<Document>("images").update_one(doc! { "_id": &id }, due).await.unwrap();
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let endpoint = relay_s3(&app, move |request| {
        let (hangs, arrived) = (request.path().contains(&id), arrived.clone());
        async move {
            if hangs {
                let _ = arrived.send(());
                std::future::pending::<()>().await;
            }
            request.forward().await
        }
    })
    .await;
    let mut config = app.config.clone();
    config.s3.endpoint = Some(endpoint.parse().unwrap());
    config.sweep.interval = Duration::from_secs(1);
    let command = AppState::open(&config).await.unwrap();
    let joined = async {
        arrivals.recv().await.unwrap();
        set_bucket(&app, Some(DeploymentId::new())).await;
    };
    let (swept, ()) = tokio::join!(command.valet.sweeper.sweep(), joined);
    assert!(matches!(swept, Err(PairError::Differ { .. })), "{swept:?}");
}

/// Another database joins the bucket after the orphans were listed, and before the operator consents to their deletion.
#[tokio::test]
async fn orphans_are_not_deleted_from_another_databases_bucket() {
    let app = TestApp::start().await;
    app.app.valet.deployment.verify_pair().await.unwrap();
    let ada = app.user().await;
    ada.upload("a.png", "image/png", &unique_png()).await;
    let orphan = ObjectKey::final_for(UserId::new(), ImageId::new()).to_string();
    app.bucket_put(&orphan, "image/png", vec![1]).await;
    let before = just_now().await;
    let found = app.app.valet.orphans.find(before, &mut |_| {}).await.unwrap();
    set_bucket(&app, Some(DeploymentId::new())).await;
    let rejected = app.app.valet.orphans.delete(before, &found, Consent::Number(1)).await;
    assert!(matches!(rejected, Err(OrphanError::Pair(PairError::Differ { .. }))), "{rejected:?}");
    assert!(app.all_bucket_keys().await.contains(&orphan));
}
