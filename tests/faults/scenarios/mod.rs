//! The rows of the fault matrix under load: the fault comes and goes while clients work, one of them is watched, and when all
//! is over every invariant holds. `README.md` has the list.
//!
//! The short form is part of `cargo test`; `VALET_FAULTS_LONG=1` has each fault last as long as the matrix says.

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

use tokio::sync::{Mutex, MutexGuard};

use self::probe::Probe;
use super::{
    checker::{Checker, health_cycle},
    cluster::{Cluster, Options, Patience},
    journal::Journal,
    servers::set,
    workload::{Profile, Workload},
};

/// How soon after its dependencies a server answers again: ten seconds, and some more for a machine with two busy cores.
const RECOVERED_WITHIN: Duration = Duration::from_secs(30);

/// And takes an upload from its beginning to its end, under load.
const WORKS_WITHIN: Duration = Duration::from_secs(180);

/// How long a client of the load repeats what is not answered: longer than faults last.
const PATIENCE: Duration = Duration::from_secs(240);

/// The short time, or the matrix's own.
pub fn lasting(short: u64, long: u64) -> Duration {
    Duration::from_secs(if is_long() { long } else { short })
}

fn is_long() -> bool {
    set("VALET_FAULTS_LONG").is_some()
}

/// How many clients: enough to be at every step of every call at any time, and no more than two cores serve.
pub fn crowd() -> usize {
    if is_long() { 50 } else { 30 }
}

/// A cluster under load, and one client that is watched.
pub struct Scenario {
    pub cluster: Cluster,
    probe: Probe,
    journal: Arc<Journal>,
    load: Workload,
    checker: Checker,
    /// One at a time: each loads the machine.
    _turn: MutexGuard<'static, ()>,
}

impl Scenario {
    /// Servers under a load of so many clients, who are at work when this returns.
    pub async fn start(options: Options, clients: usize) -> Self {
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = TURN.lock().await;
        let (inner, mut options) = (options.change, Options { change: Box::new(|_, settings| settings), ..options });
        // An upload may take longer than when nothing is slow.
        options.change = Box::new(move |number, settings| {
            let settings = settings.but("UPLOAD_URL_TTL", "10s").but("UPLOAD_TTL", "15s").but("MULTIPART_TTL", "15s");
            inner(number, settings)
        });
        let cluster = Cluster::start(options).await;
        let journal = Arc::new(Journal::create(&cluster.dir.join("journal.jsonl")));
        let probe = Probe::start(&cluster).await;
        let load = Workload::start(&cluster, &journal, Profile { clients, patience: PATIENCE, ..Profile::default() });
        load.at_work(Duration::from_secs(1)).await;
        Self { cluster, probe, journal, load, checker: Checker::default(), _turn: turn }
    }

    /// Lets the fault last: whatever is asked meanwhile is answered in time, as documented, and no worse than 503 or 504.
    /// Says how many of the watched client's calls were.
    pub async fn during(&mut self, what: &str, time: Duration) -> usize {
        let (began, mut refused) = (Instant::now(), 0);
        while began.elapsed() < time {
            refused += self.probe.cycle(what).await;
        }
        refused
    }

    /// [`Scenario::during`] a fault under which something cannot be done, until it was.
    pub async fn outage(&mut self, what: &str, time: Duration) {
        let (began, mut refused) = (Instant::now(), self.during(what, time).await);
        while refused == 0 {
            assert!(began.elapsed() < time + Duration::from_secs(60), "{what}: nothing was refused");
            refused = self.probe.cycle(what).await;
        }
    }

    /// After the fault: every server is ready and does all of an upload soon.
    pub async fn recovered(&mut self, what: &str) {
        let (began, cluster) = (Instant::now(), &self.cluster);
        let wait = async |limit: Duration| {
            assert!(began.elapsed() < limit, "{what}: not recovered after {:?}: {}", began.elapsed(), tail(cluster));
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        while !self.probe.reaches(cluster).await {
            wait(RECOVERED_WITHIN).await;
        }
        let reached = began.elapsed();
        while !self.probe.works(cluster).await {
            wait(WORKS_WITHIN).await;
        }
        println!("{what}: reached again after {reached:.1?}, works after {:.1?}", began.elapsed());
        self.checker.sample(&self.cluster).await;
    }

    /// In the long form, [`Scenario::recovered`]; in the short one the next fault comes at once.
    pub async fn breathes(&mut self, what: &str) {
        if is_long() {
            self.recovered(what).await;
        }
    }

    /// The load ends, everything comes to rest, and every invariant is checked.
    pub async fn end(mut self) {
        let tally = self.load.stop().await;
        self.cluster.heal().await;
        let rested = self.cluster.quiesce(Patience::Hurried).await;
        let report = self.checker.check(&self.cluster, &self.journal, Duration::ZERO).await;
        let confirmed = tally.confirmed.load(std::sync::atomic::Ordering::Relaxed);
        println!("{} calls, {confirmed} confirms, at rest after {rested:.0?}; {report}", self.journal.count());
        report.assert_clean();
        health_cycle::cycle(&self.cluster).await;
    }
}

/// The last that the servers said.
fn tail(cluster: &Cluster) -> String {
    let log = cluster.log();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
