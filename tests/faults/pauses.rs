//! SIGSTOP of servers and sweepers under load: a paused process resumes work that others have finished in the meantime.

use std::{sync::Arc, time::Duration};

use super::{
    checker::{Checker, health_cycle},
    cluster::{Cluster, LeaseWait, Options},
    journal::Journal,
    kills::env_number,
    workload::{Profile, Random, Workload},
};

/// F26: two servers, each with its sweeper, and one separate sweeper. The separate sweeper and one of the servers are paused
/// together, `VALET_FAULTS_PAUSES` (3) times, for up to `VALET_FAULTS_PAUSE` seconds: the default of 6 exceeds URL lifetimes and
/// grace periods, 150 exceeds leases.
#[tokio::test(flavor = "multi_thread")]
async fn f26_pauses_under_load_violate_no_invariant() {
    let (pauses, longest) = (env_number("VALET_FAULTS_PAUSES", 3), env_number("VALET_FAULTS_PAUSE", 6));
    let seed = env_number("VALET_FAULTS_SEED", 1);
    let mut cluster = Cluster::start(Options { servers: 2, sweepers: 1, ..Options::default() }).await;
    let (mut checker, mut random) = (Checker::default(), Random::new(seed));
    let journal = Arc::new(Journal::create(&cluster.dir.join("journal.jsonl")));
    let load = Workload::start(&cluster, &journal, Profile { clients: 30, seed, ..Profile::default() });
    load.wait_until_working(Duration::from_secs(1)).await;
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
    let lease_wait = if longest > 6 { LeaseWait::RealTime } else { LeaseWait::Skipped };
    let rested = cluster.quiesce(lease_wait).await;
    let report = checker.check(&cluster, &journal, Duration::ZERO).await;
    println!("{pauses} pauses of up to {longest} s, converged after {rested:.0?}: {report}");
    report.assert_clean();
    health_cycle::assert_full_cycle_works(&cluster).await;
    cluster.stop_sweepers().await;
}
