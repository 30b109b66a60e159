//! F1, F4, F5 and F3 with a majority: what a replica set of three goes through, and what was acknowledged stays.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use mongodb::{
    Collection,
    bson::{Document, doc},
    options::{Acknowledgment, CollectionOptions, WriteConcern},
};

use super::{
    super::{
        replica_set::ReplicaSet,
        s3_faults::{Misdeed, Operation, Rule, S3Faults},
        servers::scratch_dir,
        world::Options,
    },
    Row, crowd, lasting,
};

#[tokio::test(flavor = "multi_thread")]
async fn f1_f3_f4_f5_primaries_come_and_go() {
    let set = Arc::new(ReplicaSet::start(3, &scratch_dir().join(uuid::Uuid::new_v4().to_string())).await);
    let faults = S3Faults::of_this_run().await;
    let endpoint = faults.endpoint();
    let change = Box::new(move |_, settings: super::super::program::Settings| settings.but("S3_ENDPOINT", &endpoint));
    let options = Options { servers: 2, mongodb: Some(set.uri()), change, ..Options::default() };
    let mut row = Row::start(options, crowd()).await;
    killed_between_head_and_write(&mut row, &set, &faults).await;
    written_by_no_majority(&mut row, &set).await;
    stepped_down(&mut row, &set).await;
    cut_off(&mut row, &set).await;
    stopped(&mut row, &set).await;
    row.end().await;
}

/// F1: the primary dies when S3 has answered for a confirm, and before that is written.
async fn killed_between_head_and_write(row: &mut Row, set: &Arc<ReplicaSet>, faults: &S3Faults) {
    for round in 0..lasting(1, 5).as_secs() {
        let what = format!("F1, round {round}");
        let primary = set.primary().await;
        let (killed, killer) = (Arc::new(AtomicBool::new(false)), set.clone());
        let died = killed.clone();
        let kill = Misdeed::changes(move |_| {
            killer.kill(primary);
            died.store(true, SeqCst);
        });
        faults.add(Rule::new(&[Operation::HeadObject], kill).at_most(1));
        row.during(&what, Duration::from_secs(3)).await;
        assert!(killed.load(SeqCst));
        set.primary_but(primary).await;
        row.recovered(&what).await;
        faults.heal();
        set.restart();
    }
}

/// The primary has the write and says that no majority has: that is not acknowledged, whichever way it was sent.
async fn written_by_no_majority(row: &mut Row, set: &ReplicaSet) {
    let (primary, id) = (set.primary().await, row.probe.sent().await);
    let error = doc! { "code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting for replication timed out" };
    let data = doc! { "failCommands": ["update"], "writeConcernError": error };
    set.run(primary, doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data }).await.unwrap();
    row.probe.confirm(&id).await.assert_outage("no majority has it");
    set.run(primary, doc! { "configureFailPoint": "failCommand", "mode": "off" }).await.unwrap();
    row.recovered("written by no majority").await;
}

/// F5.
async fn stepped_down(row: &mut Row, set: &ReplicaSet) {
    let began = Instant::now();
    while began.elapsed() < lasting(6, 120) {
        set.step_down().await;
        row.during("F5", lasting(3, 20)).await;
    }
    row.recovered("F5").await;
}

/// F4: the primary hears of its majority and is not heard, until another is elected. What only it has is rolled back, and none of
/// that was acknowledged.
async fn cut_off(row: &mut Row, set: &ReplicaSet) {
    for round in 0..lasting(1, 3).as_secs() {
        let (former, canary) = cut_off_with_a_canary(set).await;
        row.during("F4", Duration::from_secs(5)).await;
        set.primary_but(former).await;
        row.during("F4", lasting(2, 20)).await;
        set.heal();
        row.recovered("F4").await;
        let primary = set.primary().await;
        let kept = canaries(set, primary).find_one(canary).await.unwrap();
        assert_eq!(kept, None, "round {round}: nothing was rolled back");
    }
}

/// Cuts the primary off with something that is certain to be written where it cannot stay.
async fn cut_off_with_a_canary(set: &ReplicaSet) -> (usize, Document) {
    for _ in 0..20 {
        let (primary, canary) = (set.primary().await, doc! { "_id": uuid::Uuid::new_v4().to_string() });
        set.isolate(primary);
        if canaries(set, primary).insert_one(&canary).await.is_ok() {
            return (primary, canary);
        }
        // It was none any more.
        set.heal();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("no primary stays one");
}

/// Written by this member alone.
fn canaries(set: &ReplicaSet, member: usize) -> Collection<Document> {
    let alone = WriteConcern::builder().w(Acknowledgment::Nodes(1)).build();
    let options = CollectionOptions::builder().write_concern(alone).build();
    set.direct(member).database("canary").collection_with_options("canaries", options)
}

/// F3 for one of three: the primary does not answer and is not gone either.
async fn stopped(row: &mut Row, set: &ReplicaSet) {
    let former = set.primary().await;
    set.signal(former, "-STOP");
    row.during("F3, the primary", lasting(5, 60)).await;
    set.signal(former, "-CONT");
    row.recovered("F3, the primary").await;
    // Without a majority nothing is acknowledged.
    let primary = set.primary().await;
    let others: Vec<_> = (0..3).filter(|number| *number != primary).collect();
    others.iter().for_each(|number| set.signal(*number, "-STOP"));
    row.outage("F4, no majority", lasting(5, 60)).await;
    others.iter().for_each(|number| set.signal(*number, "-CONT"));
    row.recovered("F4, no majority").await;
}
