//! Scenarios of the fault matrix under load: a fault begins and ends while clients work and a probe client asserts its answers;
//! afterwards every invariant holds. `tests/faults/README.md` lists the scenarios.
//!
//! The short form is part of `cargo test`; with `VALET_FAULTS_LONG=1` each fault lasts as long as the matrix demands.

mod database;
mod disk;
mod elections;
mod new_primary;
mod probe;
mod resources;
mod restore;
mod store;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, SemaphorePermit};

use self::probe::Probe;
use super::{
    checker::{Checker, health_cycle},
    cluster::{Cluster, LeaseWait, Options},
    journal::Journal,
    servers::env_var,
    workload::{Profile, Workload},
};

/// Longest time until a server answers again after its dependencies are back: ten seconds, plus some for a machine with two busy
/// cores.
const RECOVERED_WITHIN: Duration = Duration::from_secs(30);

/// Longest time until a server completes a whole upload again, under load.
const WORKS_WITHIN: Duration = Duration::from_secs(180);

/// Time for which a client of the load repeats an unanswered call; longer than any fault.
const PATIENCE: Duration = Duration::from_secs(240);

/// Returns the duration of a fault in seconds: the short one, or in the long form that of the matrix.
pub fn fault_duration(short: u64, long: u64) -> Duration {
    Duration::from_secs(if is_long() { long } else { short })
}

/// Returns whether the long forms of the scenarios run.
fn is_long() -> bool {
    env_var("VALET_FAULTS_LONG").is_some()
}

/// Returns the number of clients: enough to have every step of every call in progress at any time, and no more than two cores can
/// serve.
pub fn client_count() -> usize {
    if is_long() { 50 } else { 30 }
}

/// Effect of a fault on the probe's calls.
#[derive(Clone, Copy)]
enum Effect {
    /// Calls may be answered 503 or 504.
    Errors,
    /// At least one call must be answered 503 or 504.
    Outage,
}

/// A cluster under load, with one probe client.
pub struct Scenario {
    pub cluster: Cluster,
    probe: Probe,
    journal: Arc<Journal>,
    load: Workload,
    checker: Checker,
    /// Permit that lets two scenarios work at a time, because each loads the machine.
    permit: SemaphorePermit<'static>,
}

impl Scenario {
    /// Starts servers under a load of `clients`, and returns when the clients are at work.
    pub async fn start(options: Options, clients: usize) -> Self {
        static PERMITS: Semaphore = Semaphore::const_new(2);
        let permit = PERMITS.acquire().await.unwrap();
        let (inner, mut options) = (options.change, Options { change: Box::new(|_, settings| settings), ..options });
        // Uploads may take longer than they do without faults.
        options.change = Box::new(move |number, settings| {
            let settings = settings.with("UPLOAD_URL_TTL", "10s").with("UPLOAD_TTL", "15s").with("MULTIPART_TTL", "15s");
            inner(number, settings)
        });
        let cluster = Cluster::start(options).await;
        let journal = Arc::new(Journal::create(&cluster.dir.join("journal.jsonl")));
        let probe = Probe::start(&cluster).await;
        let load = Workload::start(&cluster, &journal, Profile { clients, patience: PATIENCE, ..Profile::default() });
        load.wait_until_working(Duration::from_secs(1)).await;
        Self { cluster, probe, journal, load, checker: Checker::default(), permit }
    }

    /// Lets the probe make its calls for `time`, and asserts that every answer arrives in time, is documented, and is no worse than
    /// 503 or 504. Returns the number of the calls that were answered 503 or 504.
    pub async fn run_during(&mut self, case: &str, time: Duration) -> usize {
        let (began, mut refused) = (Instant::now(), 0);
        while began.elapsed() < time {
            refused += self.probe.cycle(case).await;
        }
        refused
    }

    /// Runs [`Scenario::run_during`] and continues until at least one call was answered 503 or 504.
    pub async fn run_until_unavailable(&mut self, case: &str, time: Duration) {
        let (began, mut refused) = (Instant::now(), self.run_during(case, time).await);
        while refused == 0 {
            assert!(began.elapsed() < time + Duration::from_secs(60), "{case}: nothing was refused");
            refused = self.probe.cycle(case).await;
        }
    }

    /// Lets the probe make its calls for `time` while a fault is there, and asserts its effect.
    async fn run_until_effect(&mut self, case: &str, effect: Effect, time: Duration) {
        match effect {
            Effect::Outage => self.run_until_unavailable(case, time).await,
            Effect::Errors => {
                self.run_during(case, time).await;
            }
        }
    }

    /// After the fault: asserts that every server is ready and soon completes a whole upload.
    pub async fn assert_recovered(&mut self, case: &str) {
        let (began, cluster) = (Instant::now(), &self.cluster);
        let wait = async |limit: Duration| {
            assert!(began.elapsed() < limit, "{case}: not recovered after {:?}: {}", began.elapsed(), last_log_lines(cluster));
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        while !self.probe.is_reachable(cluster).await {
            wait(RECOVERED_WITHIN).await;
        }
        let reached = began.elapsed();
        while !self.probe.completes_upload(cluster).await {
            wait(WORKS_WITHIN).await;
        }
        println!("{case}: reachable after {reached:.1?}, works after {:.1?}", began.elapsed());
        self.checker.sample(&self.cluster).await;
    }

    /// In the long form, runs [`Scenario::assert_recovered`]; in the short form the next fault follows at once.
    pub async fn recover_in_long_form(&mut self, case: &str) {
        if is_long() {
            self.assert_recovered(case).await;
        }
    }

    /// Ends the load, waits for convergence, and checks every invariant.
    pub async fn end(mut self) {
        let tally = self.load.stop().await;
        self.cluster.heal().await;
        // The next scenario may load the machine while this one waits for URLs to expire and for the sweeper.
        drop(self.permit);
        let rested = self.cluster.quiesce(LeaseWait::Skipped).await;
        let report = self.checker.check(&self.cluster, &self.journal, Duration::ZERO).await;
        let confirmed = tally.confirmed.load(std::sync::atomic::Ordering::Relaxed);
        println!("{} calls, {confirmed} confirms, converged after {rested:.0?}; {report}", self.journal.count());
        report.assert_clean();
        health_cycle::assert_full_cycle_works(&self.cluster).await;
    }
}

/// Returns the last 40 log lines of the servers and sweepers.
fn last_log_lines(cluster: &Cluster) -> String {
    let log = cluster.log();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
