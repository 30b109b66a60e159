//! SIGKILL of servers and sweepers at random moments under load: after each batch of kills the cluster converges within the grace
//! period, and every invariant holds.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    checker::{Checker, health_cycle},
    cluster::{Cluster, LeaseWait, Options, Sweeper},
    journal::Journal,
    servers::env_var,
    workload::{Profile, Random, Workload},
};

/// Time for which a client repeats an unanswered call: longer than all kills take.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Reads a number from the environment variable `name`; returns `default` if it is unset.
pub fn env_number(name: &str, default: u64) -> u64 {
    env_var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// F13, F26: kills two servers `VALET_FAULTS_KILLS` (10) times, in batches of `VALET_FAULTS_BATCH` (250), with seeds from
/// `VALET_FAULTS_SEED` (1) on. With more than 10 kills, the test waits for leases in real time; otherwise it skips them.
#[tokio::test(flavor = "multi_thread")]
async fn f13_f26_kills_under_load_violate_no_invariant() {
    let (kills, batch, seed) =
        (env_number("VALET_FAULTS_KILLS", 10), env_number("VALET_FAULTS_BATCH", 250), env_number("VALET_FAULTS_SEED", 1));
    let lease_wait = if kills > 10 { LeaseWait::RealTime } else { LeaseWait::Skipped };
    let began = Instant::now();
    let mut cluster = Cluster::start(Options { servers: 2, sweepers: 1, ..Options::default() }).await;
    let (mut checker, mut done, mut round) = (Checker::default(), 0, 0);
    let (mut ops, mut confirmed, mut slowest) = (0, 0, Duration::ZERO);
    while done < kills {
        let kills_of_batch = batch.min(kills - done);
        let journal = Arc::new(Journal::create(&cluster.dir.join(format!("journal-{round}.jsonl"))));
        let load = Workload::start(&cluster, &journal, Profile { seed: seed + round, patience: PATIENCE, ..Profile::default() });
        load.wait_until_working(Duration::from_secs(2)).await;
        let killing = Instant::now();
        let killed = kill(&cluster, &mut checker, kills_of_batch, seed + round).await;
        let killing = killing.elapsed();
        cluster.heal().await;
        let tally = load.stop().await;
        let rested = cluster.quiesce(lease_wait).await;
        let report = checker.check(&cluster, &journal, Duration::ZERO).await;
        println!("after {} kills in {killing:.0?}, converged after {rested:.0?}: {report}", done + killed);
        report.assert_clean();
        ops += journal.count();
        confirmed += tally.confirmed.load(std::sync::atomic::Ordering::Relaxed);
        slowest = slowest.max(rested);
        done += killed;
        round += 1;
    }
    health_cycle::assert_full_cycle_works(&cluster).await;
    let sweeper_kills: u64 = cluster.sweepers.iter().map(Sweeper::kills).sum();
    cluster.stop_sweepers().await;
    println!(
        "kills: {done} of servers, {sweeper_kills} of sweepers; {ops} calls, {confirmed} acknowledged confirms, 0 violations; \
         converged after {slowest:.0?} at most; seeds {seed} to {}; {:.0?} in all",
        seed + round - 1,
        began.elapsed()
    );
}

/// Sends `kills` SIGKILLs, each to a running server while the other runs on, so that the load always has a server to work with.
/// Returns the number of SIGKILLs that were sent.
async fn kill(cluster: &Cluster, checker: &mut Checker, kills: u64, seed: u64) -> u64 {
    let before: u64 = cluster.servers.iter().map(|server| server.kills()).sum();
    let one_at_a_time = Arc::new(tokio::sync::Mutex::new(()));
    let killers = cluster.servers.iter().enumerate().map(|(number, server)| {
        let (server, one_at_a_time) = (server.clone(), one_at_a_time.clone());
        let mut random = Random::new(seed ^ ((number as u64 + 1) << 32));
        let share = kills / 2 + if number == 0 { kills % 2 } else { 0 };
        tokio::spawn(async move {
            for _ in 0..share {
                tokio::time::sleep(Duration::from_millis(random.next() % 400)).await;
                let _permit = one_at_a_time.lock().await;
                server.kill().await;
                server.start().await;
            }
        })
    });
    let killers: Vec<_> = killers.collect();
    let (mut random, mut reported) = (Random::new(seed), 0);
    while killers.iter().any(|killer| !killer.is_finished()) {
        checker.sample(cluster).await;
        tokio::time::sleep(Duration::from_millis(300 + random.next() % 700)).await;
        cluster.sweepers.iter().for_each(Sweeper::kill);
        let killed = cluster.servers.iter().map(|server| server.kills()).sum::<u64>() - before;
        if killed >= reported + 100 {
            println!("{killed} kills");
            reported = killed;
        }
    }
    for killer in killers {
        killer.await.unwrap();
    }
    cluster.servers.iter().map(|server| server.kills()).sum::<u64>() - before
}
