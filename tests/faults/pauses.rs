//! SIGSTOP of servers and sweepers under load: whoever is paused goes on in the middle of what the others have long settled.

use std::{sync::Arc, time::Duration};

use super::{
    checker::{Checker, health_cycle},
    cluster::{Cluster, Options, Patience},
    journal::Journal,
    kills::number,
    workload::{Profile, Random, Workload},
};

/// F26: two servers and three sweepers, one of the servers paused at a time for up to `VALET_FAULTS_PAUSE` (6) seconds: longer than
/// URLs and graces; with 150, longer than leases. `VALET_FAULTS_PAUSES` (3) times.
#[tokio::test(flavor = "multi_thread")]
async fn f26_paused_servers_under_load() {
    let (pauses, longest) = (number("VALET_FAULTS_PAUSES", 3), number("VALET_FAULTS_PAUSE", 6));
    let seed = number("VALET_FAULTS_SEED", 1);
    let mut cluster = Cluster::start(Options { servers: 2, sweepers: 1, ..Options::default() }).await;
    let (mut checker, mut random) = (Checker::default(), Random::new(seed));
    let journal = Arc::new(Journal::create(&cluster.dir.join("journal.jsonl")));
    let load = Workload::start(&cluster, &journal, Profile { clients: 30, seed, ..Profile::default() });
    load.at_work(Duration::from_secs(1)).await;
    for _ in 0..pauses {
        let paused = &cluster.servers[random.below(cluster.servers.len())];
        paused.signal("-STOP");
        cluster.sweepers[0].pause();
        tokio::time::sleep(Duration::from_millis(random.next() % (longest * 1000))).await;
        checker.sample(&cluster).await;
        paused.signal("-CONT");
        tokio::time::sleep(Duration::from_millis(random.next() % 1000)).await;
    }
    cluster.heal().await;
    load.stop().await;
    let patience = if longest > 6 { Patience::Real } else { Patience::Hurried };
    let rested = cluster.quiesce(patience).await;
    let report = checker.check(&cluster, &journal, Duration::ZERO).await;
    println!("{pauses} pauses of up to {longest} s, at rest after {rested:.0?}: {report}");
    report.assert_clean();
    health_cycle::cycle(&cluster).await;
    cluster.stop_sweepers().await;
}
