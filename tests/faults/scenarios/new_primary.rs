//! F5 with a new primary that does not yet know what a majority has: it would show deleted images, so its reads are not trusted.

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
    let change = Box::new(|_, settings: Settings| settings.with("UPLOAD_URL_TTL", "60s").with("UPLOAD_TTL", "120s"));
    let cluster = Cluster::start(Options { servers: 2, mongodb: Some(set.uri()), change, ..Options::default() }).await;
    let mut probe = Probe::start(&cluster).await;
    let (kept, deleted) = (probe.upload().await, probe.upload().await);
    let former = set.primary().await;
    let others = || (0..3).filter(|number| *number != former);
    // The secondaries have every write, but what they know of each other's progress stays unchanged.
    let know = async |mode: &str| {
        for number in others() {
            set.run(number, doc! { "configureFailPoint": "disableSnapshotting", "mode": mode }).await.unwrap();
        }
    };
    know("alwaysOn").await;
    let gone = probe.call(Method::DELETE, &format!("/api/images/{deleted}"), None).await;
    assert_eq!(gone.status, 204, "{gone:?}");
    set.step_down().await;
    set.primary_other_than(former).await;

    let mut refused = 0;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        refused += usize::from(!shows_only(&mut probe, &kept).await);
    }
    assert!(refused > 0, "the read document existed all the time");
    // A read of the stale document, as it would have been shown.
    let stale = cluster.db.collection::<Document>("images").find_one(doc! { "_id": &deleted }).await.unwrap().unwrap();
    assert_eq!(stale.get_str("state").unwrap(), "ready");

    know("off").await;
    let began = Instant::now();
    let mut shown = 0;
    // Once by each server.
    while shown < 2 {
        assert!(began.elapsed() < Duration::from_secs(30), "nothing is shown again");
        shown = if shows_only(&mut probe, &kept).await { shown + 1 } else { 0 };
    }
}

/// Returns whether the gallery is shown; asserts that it never contains the deleted image.
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
