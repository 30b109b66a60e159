//! F1, F3, F4, F5 on a replica set of three members under load: acknowledged writes survive.

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
    Scenario, client_count, fault_duration,
};

#[tokio::test(flavor = "multi_thread")]
async fn f1_f3_f4_f5_elections_violate_no_invariant() {
    let set = Arc::new(ReplicaSet::start(3, &scratch_dir().join(uuid::Uuid::new_v4().to_string())).await);
    let faults = S3Faults::of_this_run().await;
    let endpoint = faults.endpoint();
    let change = Box::new(move |_, settings: super::super::program::Settings| settings.with("S3_ENDPOINT", &endpoint));
    let options = Options { servers: 2, mongodb: Some(set.uri()), change, ..Options::default() };
    let mut scenario = Scenario::start(options, client_count()).await;
    kill_between_head_and_write(&mut scenario, &set, &faults).await;
    write_to_no_majority(&mut scenario, &set).await;
    step_down_repeatedly(&mut scenario, &set).await;
    cut_off_primary(&mut scenario, &set).await;
    stop_members(&mut scenario, &set).await;
    scenario.end().await;
}

/// F1: the primary dies after S3 has answered HEAD for a confirm, before the result is written.
async fn kill_between_head_and_write(scenario: &mut Scenario, set: &Arc<ReplicaSet>, faults: &S3Faults) {
    for round in 0..fault_duration(1, 5).as_secs() {
        let case = format!("F1, round {round}");
        let primary = set.primary().await;
        let (killed, killer) = (Arc::new(AtomicBool::new(false)), set.clone());
        let died = killed.clone();
        let kill = Misbehavior::changes(move |_| {
            killer.kill(primary);
            died.store(true, SeqCst);
        });
        faults.add(Rule::new(&[Operation::HeadObject], kill).at_most(1));
        scenario.run_during(&case, Duration::from_secs(3)).await;
        assert!(killed.load(SeqCst));
        set.primary_other_than(primary).await;
        scenario.assert_recovered(&case).await;
        faults.heal();
        set.restart();
    }
}

/// The primary executes an update and reports that no majority of the members has it: the confirm is not acknowledged.
async fn write_to_no_majority(scenario: &mut Scenario, set: &ReplicaSet) {
    let (primary, id) = (set.primary().await, scenario.probe.send_upload().await);
    let error = doc! { "code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting for replication timed out" };
    let data = doc! { "failCommands": ["update"], "writeConcernError": error };
    set.run(primary, doc! { "configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data }).await.unwrap();
    scenario.probe.confirm(&id).await.assert_outage("no majority has the write");
    set.run(primary, doc! { "configureFailPoint": "failCommand", "mode": "off" }).await.unwrap();
    scenario.assert_recovered("written by no majority").await;
}

/// F5: the primary steps down repeatedly.
async fn step_down_repeatedly(scenario: &mut Scenario, set: &ReplicaSet) {
    let began = Instant::now();
    while began.elapsed() < fault_duration(6, 120) {
        set.step_down().await;
        scenario.run_during("F5", fault_duration(3, 20)).await;
    }
    scenario.assert_recovered("F5").await;
}

/// F4: the primary receives messages of its majority, but its own do not arrive, until another member is elected. Writes that
/// only the old primary has are rolled back, and none of them was acknowledged.
async fn cut_off_primary(scenario: &mut Scenario, set: &ReplicaSet) {
    for round in 0..fault_duration(1, 3).as_secs() {
        let (old_primary, canary) = isolate_primary_with_a_canary(set).await;
        scenario.run_during("F4", Duration::from_secs(5)).await;
        set.primary_other_than(old_primary).await;
        scenario.run_during("F4", fault_duration(2, 20)).await;
        set.heal();
        scenario.assert_recovered("F4").await;
        let primary = set.primary().await;
        let canary_found = canaries(set, primary).find_one(canary).await.unwrap();
        assert_eq!(canary_found, None, "round {round}: nothing was rolled back");
    }
}

/// Isolates the primary and writes a canary document that is certain to be rolled back. Returns the member's number and the
/// document.
async fn isolate_primary_with_a_canary(set: &ReplicaSet) -> (usize, Document) {
    for _ in 0..20 {
        let (primary, canary) = (set.primary().await, doc! { "_id": uuid::Uuid::new_v4().to_string() });
        set.isolate(primary);
        if canaries(set, primary).insert_one(&canary).await.is_ok() {
            return (primary, canary);
        }
        // The member was not primary any more.
        set.heal();
        // Time in which the set may elect another primary.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("every primary stepped down");
}

/// Returns the canary collection of this member, with write concern 1: a primary without a majority acknowledges writes to it.
fn canaries(set: &ReplicaSet, member: usize) -> Collection<Document> {
    let one_member = WriteConcern::builder().w(Acknowledgment::Nodes(1)).build();
    let options = CollectionOptions::builder().write_concern(one_member).build();
    set.direct(member).database("canary").collection_with_options("canaries", options)
}

/// F3 for one of three, and then for two: stopped members neither answer nor close their connections.
async fn stop_members(scenario: &mut Scenario, set: &ReplicaSet) {
    let stopped_primary = set.primary().await;
    set.signal(stopped_primary, "-STOP");
    scenario.run_during("F3, the primary", fault_duration(5, 60)).await;
    set.signal(stopped_primary, "-CONT");
    scenario.assert_recovered("F3, the primary").await;
    // Without a majority no write is acknowledged.
    let primary = set.primary().await;
    let others: Vec<_> = (0..3).filter(|number| *number != primary).collect();
    others.iter().for_each(|number| set.signal(*number, "-STOP"));
    scenario.run_until_unavailable("F4, no majority", fault_duration(5, 60)).await;
    others.iter().for_each(|number| set.signal(*number, "-CONT"));
    scenario.assert_recovered("F4, no majority").await;
}
