//! Covers deployment ids that are removed, damaged or replaced while a server runs: only equal ids end a mismatch and permit the deletion of
//! orphans.

use std::time::Duration;

use super::{DeploymentId, Document, MARKER, TestApp, doc, restored::bucket_stamp, set_bucket, set_database};
use crate::app::eventually;

/// State of the deployment ids of a database and its bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    Equal,
    Unequal,
    MarkerMissing,
    MarkerDamaged,
    RecordMissing,
    RecordDamaged,
    BothMissing,
}

/// Conclusion that the ids permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    Paired,
    Mismatch,
    /// The state before the check continues.
    Unknown,
}

impl Ids {
    /// Each state, and the conclusion that it permits.
    const ALL: [(Self, Proof); 7] = [
        (Self::Equal, Proof::Paired),
        (Self::Unequal, Proof::Mismatch),
        // A marker is missing, too, after an operator has emptied the bucket; a record is missing only from another database.
        (Self::MarkerMissing, Proof::Unknown),
        (Self::MarkerDamaged, Proof::Mismatch),
        (Self::RecordMissing, Proof::Mismatch),
        (Self::RecordDamaged, Proof::Mismatch),
        (Self::BothMissing, Proof::Unknown),
    ];

    /// Brings the ids of database and bucket into this state; `id` is the common id.
    async fn set(self, app: &TestApp, id: DeploymentId) {
        set_database(app, (!matches!(self, Self::RecordMissing | Self::BothMissing)).then_some(id)).await;
        set_bucket(app, (!matches!(self, Self::MarkerMissing | Self::BothMissing)).then_some(id)).await;
        match self {
            Self::Unequal => set_bucket(app, Some(DeploymentId::new())).await,
            Self::MarkerDamaged => app.bucket_put(MARKER, "text/plain", b"no id".to_vec()).await,
            Self::RecordDamaged => {
                let meta = app.db.collection::<Document>("meta");
                meta.update_one(doc! {}, doc! { "$set": { "id": 7 } }).await.unwrap();
            }
            Self::Equal | Self::MarkerMissing | Self::RecordMissing | Self::BothMissing => {}
        }
    }
}

#[tokio::test]
async fn only_equal_ids_end_a_mismatch_and_permit_deletions() {
    let app = TestApp::start().await;
    let deployment = &app.app.valet.deployment;
    let id = deployment.verify_pair().await.unwrap();
    for before in [Ids::Equal, Ids::Unequal] {
        for (ids, proof) in Ids::ALL {
            Ids::Equal.set(&app, id).await;
            deployment.check_and_stamp_pair(Duration::ZERO).await.unwrap();
            before.set(&app, id).await;
            assert_eq!(deployment.check_and_stamp_pair(Duration::ZERO).await.is_ok(), before == Ids::Equal);
            ids.set(&app, id).await;
            let checked = deployment.check_and_stamp_pair(Duration::ZERO).await;
            assert_eq!(checked.is_ok(), proof == Proof::Paired, "{before:?}, {ids:?}: {checked:?}");
            let is_mismatched = match proof {
                Proof::Paired => false,
                Proof::Mismatch => true,
                Proof::Unknown => before == Ids::Unequal,
            };
            assert_eq!(deployment.is_mismatched(), is_mismatched, "{before:?}, {ids:?}: {checked:?}");
            let allowed = app.app.valet.orphans.verify_pair_for_deletion().await;
            assert_eq!(allowed.is_ok(), proof == Proof::Paired, "{before:?}, {ids:?}: {allowed:?}");
        }
    }
}

#[tokio::test]
async fn a_running_server_stays_stopped_until_the_ids_are_equal() {
    let app = TestApp::start().await;
    let id = app.app.valet.deployment.verify_pair().await.unwrap();
    let server = TestApp::start_second_server(&app, |config| config.sweep.interval = Duration::from_secs(1)).await;
    let status = async || server.anonymous().get("/readyz").await.status;
    let set = async |ids: Ids| ids.set(&app, id).await;
    for stopped_by in [Ids::Unequal, Ids::MarkerDamaged] {
        set(Ids::Equal).await;
        // The server's own write of a stamp would replace the marker that is set below.
        let is_stamped = async || bucket_stamp(&app).await.is_some();
        eventually("the server works and has stamped the pair", async || status().await == 200 && is_stamped().await).await;
        set(stopped_by).await;
        let has_stopped = async || server.app.valet.deployment.is_mismatched() && status().await == 503;
        eventually("the server has stopped", has_stopped).await;
        set(Ids::MarkerMissing).await;
        // Longer than two of the server's checks, which it makes every second.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(status().await, 503, "after {stopped_by:?}");
    }
}
