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
        cluster::Options,
        replica_set::ReplicaSet,
        s3_faults::{Misbehavior, Operation, Rule, S3Faults},
        servers::scratch_dir,
    },
    Scenario, crowd, lasting,
};

#[tokio::test(flavor = "multi_thread")]
async fn f1_f3_f4_f5_primaries_come_and_go() {
    let set = Arc::new(ReplicaSet::start(3, &scratch_dir().join(uuid::Uuid::new_v4().to_string())).await);
    let faults = S3Faults::of_this_run().await;
    let endpoint = faults.endpoint();
    let change = Box::new(move |_, settings: super::super::program::Settings| settings.but("S3_ENDPOINT", &endpoint));
    let options = Options { servers: 2, mongodb: Some(set.uri()), change, ..Options::default() };
    let mut scenario = Scenario::start(options, crowd()).await;
    killed_between_head_and_write(&mut scenario, &set, &faults).await;
    written_by_no_majority(&mut scenario, &set).await;
    stepped_down(&mut scenario, &set).await;
    cut_off(&mut scenario, &set).await;
    stopped(&mut scenario, &set).await;
    scenario.end().await;
}

/// F1: the primary dies when S3 has answered for a confirm, and before that is written.
async fn killed_between_head_and_write(scenario: &mut Scenario, set: &Arc<ReplicaSet>, faults: &S3Faults) {
    for round in 0..lasting(1, 5).as_secs() {
        let what = format!("F1, round {round}");
        let primary = set.primary().await;
        let (killed, killer) = (Arc::new(AtomicBool::new(false)), set.clone());
        let died = killed.clone();
        let kill = Misbehavior::changes(move |_| {
            killer.kill(primary);
            died.store(true, SeqCst);
        });
        faults.add(Rule::new(&[Operation::HeadObject], kill).at_most(1));
        scenario.during(&what, Duration::from_secs(3)).await;
        assert!(killed.load(SeqCst));
        set.primary_but(primary).await;
        scenario.recovered(&what).await;
        faults.heal();
        set.restart();
    }
}

/// The primary has the write and says that no majority has: that is not acknowledged, whichever way it was sent.
async fn written_by_no_majority(scenario: &mut Scenario, set: &ReplicaSet) {
    let (primary, id) = (set.primary().await, scenario.probe.sent().await);
    let error = doc! { "code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting for replication timed out" };
    let data = doc! { "failCommands": ["update"], "writeConcernError": error };
    set.run(primary, doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data }).await.unwrap();
    scenario.probe.confirm(&id).await.assert_outage("no majority has it");
    set.run(primary, doc! { "configureFailPoint": "failCommand", "mode": "off" }).await.unwrap();
    scenario.recovered("written by no majority").await;
}

/// F5.
async fn stepped_down(scenario: &mut Scenario, set: &ReplicaSet) {
    let began = Instant::now();
    while began.elapsed() < lasting(6, 120) {
        set.step_down().await;
        scenario.during("F5", lasting(3, 20)).await;
    }
    scenario.recovered("F5").await;
}

/// F4: the primary hears of its majority and is not heard, until another is elected. What only it has is rolled back, and none of
/// that was acknowledged.
async fn cut_off(scenario: &mut Scenario, set: &ReplicaSet) {
    for round in 0..lasting(1, 3).as_secs() {
        let (former, canary) = cut_off_with_a_canary(set).await;
        scenario.during("F4", Duration::from_secs(5)).await;
        set.primary_but(former).await;
        scenario.during("F4", lasting(2, 20)).await;
        set.heal();
        scenario.recovered("F4").await;
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
async fn stopped(scenario: &mut Scenario, set: &ReplicaSet) {
    let former = set.primary().await;
    set.signal(former, "-STOP");
    scenario.during("F3, the primary", lasting(5, 60)).await;
    set.signal(former, "-CONT");
    scenario.recovered("F3, the primary").await;
    // Without a majority nothing is acknowledged.
    let primary = set.primary().await;
    let others: Vec<_> = (0..3).filter(|number| *number != primary).collect();
    others.iter().for_each(|number| set.signal(*number, "-STOP"));
    scenario.outage("F4, no majority", lasting(5, 60)).await;
    others.iter().for_each(|number| set.signal(*number, "-CONT"));
    scenario.recovered("F4, no majority").await;
}
