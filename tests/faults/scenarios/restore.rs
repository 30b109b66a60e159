//! F27: a database restored from an earlier time, with the current bucket: `valet sweep --orphans` finds and removes objects
//! without a record, and no ready record lacks its object. With a newer database and an older bucket it reports the lost objects.

use std::{collections::BTreeSet, time::Duration};

use futures_util::TryStreamExt;
use mongodb::bson::{Document, doc};

use super::{
    super::{
        checker::check,
        cluster::{Cluster, LeaseWait, Options},
        journal::Journal,
        program::{Ended, Settings},
        workload::{Profile, Workload},
    },
    probe::Probe,
};

/// Returns the documents of this moment, like a dump.
async fn dump(cluster: &Cluster) -> Vec<(&'static str, Vec<Document>)> {
    let mut all = Vec::new();
    for name in ["users", "sessions", "images"] {
        let found = cluster.db.collection::<Document>(name).find(doc! {}).await.unwrap();
        all.push((name, found.try_collect().await.unwrap()));
    }
    all
}

/// Replaces the documents of the database by the documents of a dump.
async fn restore(cluster: &Cluster, dump: &[(&'static str, Vec<Document>)]) {
    for (name, documents) in dump {
        let collection = cluster.db.collection::<Document>(name);
        collection.delete_many(doc! {}).await.unwrap();
        collection.insert_many(documents).await.unwrap();
    }
}

/// Returns the keys of all objects in the bucket except the marker of the deployment.
async fn keys(cluster: &Cluster) -> BTreeSet<String> {
    let listed = cluster.s3.list_objects_v2().bucket(&cluster.bucket).send().await.unwrap();
    assert_ne!(listed.is_truncated(), Some(true));
    let keys = listed.contents().iter().map(|object| object.key().unwrap().to_owned());
    keys.filter(|key| key != valet::store::objects::marker::KEY).collect()
}

/// Runs `valet sweep --orphans`. Returns its counts of objects without a record and of ready images without an object, and its
/// output.
async fn orphans(cluster: &Cluster, options: &[&str]) -> (usize, usize, String) {
    // Times in S3 listings are whole seconds: the newest object is before `now` only after more than a second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let now = time::OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339).unwrap();
    let arguments = [&["sweep", "--orphans", "--before", &now], options].concat();
    let Ended { status, out, err } = cluster.run(&arguments).wait_for_end(Duration::from_secs(60)).await;
    assert!(status.success(), "{err}");
    let count = |text: &str| {
        let line = out.lines().find(|line| line.contains(text)).unwrap_or_else(|| panic!("{text}: {out}"));
        line.split(' ').next().unwrap().parse().unwrap()
    };
    (count(" orphaned objects of "), count(" ready images without an object"), out)
}

#[tokio::test(flavor = "multi_thread")]
async fn f27_older_database_works_with_a_newer_bucket() {
    /// Number of images that are uploaded after the dump.
    const UPLOADS_AFTER_DUMP: usize = 12;
    let change = Box::new(|_, settings: Settings| {
        settings.with("UPLOAD_URL_TTL", "60s").with("UPLOAD_TTL", "120s").with("MULTIPART_TTL", "120s")
    });
    let cluster = Cluster::start(Options { servers: 1, change, ..Options::default() }).await;
    let journal = std::sync::Arc::new(Journal::create(&cluster.dir.join("journal.jsonl")));
    let mut probe = Probe::start(&cluster).await;
    probe.upload().await;
    let load = Workload::start(&cluster, &journal, Profile { clients: 20, users: 6, ..Profile::default() });
    // The load makes records and objects of every kind.
    tokio::time::sleep(Duration::from_secs(4)).await;
    load.stop().await;
    cluster.quiesce(LeaseWait::Skipped).await;
    let (documents, objects) = (dump(&cluster).await, keys(&cluster).await);
    for _ in 0..UPLOADS_AFTER_DUMP {
        probe.upload().await;
    }
    cluster.deliver_events().await;

    restore(&cluster, &documents).await;
    let (found, missing, out) = orphans(&cluster, &[]).await;
    assert_eq!((found, missing), (UPLOADS_AFTER_DUMP, 0), "{out}");
    // The checker reports the newer objects as objects without a record and as uncounted bytes, and reports nothing else.
    let report = check(&cluster, &journal, Duration::ZERO).await;
    assert_eq!(report.violated(), [3, 17].into(), "{report}");
    orphans(&cluster, &["--delete", "--expect", &UPLOADS_AFTER_DUMP.to_string()]).await;
    assert_eq!(keys(&cluster).await, objects);
    check(&cluster, &journal, Duration::ZERO).await.assert_clean();

    // A bucket older than its database, which no documented order of backups produces: the lost images are named.
    probe.upload().await;
    let lost: Vec<_> = keys(&cluster).await.into_iter().filter(|key| !objects.contains(key)).collect();
    assert_eq!(lost.len(), 1);
    cluster.s3.delete_object().bucket(&cluster.bucket).key(&lost[0]).send().await.unwrap();
    let (found, missing, out) = orphans(&cluster, &[]).await;
    assert!((found, missing) == (0, 1) && out.contains(&lost[0]), "{out}");
    let report = check(&cluster, &journal, Duration::ZERO).await;
    assert!(report.violated().contains(&2), "{report}");
}
