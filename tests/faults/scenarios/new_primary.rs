//! F5 with a new primary that does not yet know which writes a majority has: it would return deleted images as ready, so the
//! servers do not use its reads.

use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use reqwest::Method;

use super::{
    super::{
        cluster::{Cluster, Options},
        program::Settings,
        replica_set::ReplicaSet,
        servers::scratch_dir,
    },
    probe::Probe,
};

#[tokio::test(flavor = "multi_thread")]
async fn f5_new_primary_never_shows_deleted_images() {
    let set = ReplicaSet::start(3, &scratch_dir().join(uuid::Uuid::new_v4().to_string())).await;
    let change = Box::new(|_, settings: Settings| {
        settings.with("UPLOAD_URL_TTL", "60s").with("UPLOAD_TTL", "120s").with("MULTIPART_TTL", "120s")
    });
    let cluster = Cluster::start(Options { servers: 2, mongodb: Some(set.uri()), change, ..Options::default() }).await;
    let mut probe = Probe::start(&cluster).await;
    let (kept, deleted) = (probe.upload().await, probe.upload().await);
    let old_primary = set.primary().await;
    let others = || (0..3).filter(|number| *number != old_primary);
    // The secondaries get every write, but do not learn which writes a majority has.
    let set_failpoint = async |mode: &str| {
        for number in others() {
            set.run(number, doc! { "configureFailPoint": "disableSnapshotting", "mode": mode }).await.unwrap();
        }
    };
    set_failpoint("alwaysOn").await;
    let deletion = probe.call(Method::DELETE, &format!("/api/images/{deleted}"), None).await;
    assert_eq!(deletion.status, 204, "{deletion:?}");
    set.step_down().await;
    set.primary_other_than(old_primary).await;

    let mut outages = 0;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        outages += usize::from(!shows_only(&mut probe, &kept).await);
    }
    assert!(outages > 0, "every read was answered");
    // The new primary still returns the deleted image as ready.
    let stale = cluster.db.collection::<Document>("images").find_one(doc! { "_id": &deleted }).await.unwrap().unwrap();
    assert_eq!(stale.get_str("state").unwrap(), "ready");

    set_failpoint("off").await;
    let began = Instant::now();
    let mut shown = 0;
    // The probe alternates between the servers: two in succession are one by each.
    while shown < 2 {
        assert!(began.elapsed() < Duration::from_secs(30), "nothing is shown again");
        shown = if shows_only(&mut probe, &kept).await { shown + 1 } else { 0 };
    }
}

/// Returns whether the gallery is answered 200, and asserts that it then contains only the image `kept`.
async fn shows_only(probe: &mut Probe, kept: &str) -> bool {
    let gallery = probe.call(Method::GET, "/api/images/gallery", None).await;
    if gallery.status != 200 {
        gallery.assert_outage("a new primary");
        return false;
    }
    let ids: Vec<_> = gallery.json["images"].as_array().unwrap().iter().map(|image| image["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [kept]);
    true
}
