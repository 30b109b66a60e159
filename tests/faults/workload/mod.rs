//! The load: many clients of several users, each at its own pace, by the documented rules of clients; every call is in the
//! journal. What they do follows from the seed and from what they are told.

mod answer;
pub mod caller;
mod client;
mod random;
pub mod users;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::random::Random;
use self::{
    caller::{Balancer, Caller, Tally},
    client::Client,
    users::Person,
};
use super::{cluster::Cluster, journal::Journal};

/// How much of it there is, and how it finds the servers.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    pub clients: usize,
    pub users: usize,
    pub seed: u64,
    /// How long a client repeats a call that is not answered for good.
    pub patience: Duration,
    /// Through a balancer that goes by `/readyz` and tries again only what was refused a connection; else any server is
    /// asked at random.
    pub balanced: bool,
}

impl Default for Profile {
    fn default() -> Self {
        Self { clients: 50, users: 12, seed: 1, patience: Duration::from_secs(60), balanced: false }
    }
}

/// Clients at work.
pub struct Workload {
    pub tally: Arc<Tally>,
    pub balancer: Arc<Balancer>,
    stop: CancellationToken,
    clients: Vec<JoinHandle<()>>,
    probes: Vec<JoinHandle<()>>,
}

impl Workload {
    /// Clients that go on until they are told to stop.
    pub fn start(cluster: &Cluster, journal: &Arc<Journal>, profile: Profile) -> Self {
        Self::of(cluster, journal, profile, |client, stop| tokio::spawn(client.live(stop)))
    }

    /// Clients each of which does everything once, and ends.
    pub fn once(cluster: &Cluster, journal: &Arc<Journal>, profile: Profile) -> Self {
        Self::of(cluster, journal, profile, |client, _| tokio::spawn(client.go_through()))
    }

    fn of(
        cluster: &Cluster,
        journal: &Arc<Journal>,
        profile: Profile,
        begin: impl Fn(Client, CancellationToken) -> JoinHandle<()>,
    ) -> Self {
        let people: Arc<Vec<_>> = Arc::new((0..profile.users).map(|number| Person::new(number, profile.seed)).collect());
        let bases: Vec<_> = cluster.servers.iter().map(|server| server.base()).collect();
        let all = |value: bool| bases.iter().map(|_| AtomicBool::new(value)).collect();
        let (ready, withdrawn) = (all(true), all(false));
        let balancer = Arc::new(Balancer { bases, ready, withdrawn, by_readiness: profile.balanced });
        let (stop, tally) = (CancellationToken::new(), Arc::new(Tally::default()));
        let mut seeds = Random::new(profile.seed);
        let clients = (0..profile.clients).map(|number| {
            let caller = Caller {
                number,
                user: String::new(),
                random: Random::new(seeds.next()),
                http: reqwest::Client::new(),
                balancer: balancer.clone(),
                journal: journal.clone(),
                tally: tally.clone(),
                patience: profile.patience,
            };
            begin(Client::new(caller, people.clone()), stop.clone())
        });
        let clients = clients.collect();
        let probed = if profile.balanced { cluster.servers.len() } else { 0 };
        let probes: Vec<_> = (0..probed).map(|number| tokio::spawn(watch(balancer.clone(), number))).collect();
        Self { tally, balancer, stop, clients, probes }
    }

    /// Waits until every client has signed in, which hashing makes slow, and for `more`.
    pub async fn at_work(&self, more: Duration) {
        while self.tally.at_work.load(Ordering::Relaxed) < self.clients.len() as u64 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(more).await;
    }

    /// Waits for clients that end by themselves.
    ///
    /// # Panics
    /// When a client did.
    pub async fn finished(self) -> Arc<Tally> {
        for client in self.clients {
            client.await.unwrap();
        }
        self.tally
    }

    /// Lets every client finish what it is at.
    ///
    /// # Panics
    /// When a client did.
    pub async fn stop(self) -> Arc<Tally> {
        self.stop.cancel();
        for client in self.clients {
            client.await.unwrap();
        }
        self.probes.iter().for_each(JoinHandle::abort);
        self.tally
    }
}

/// Asks a server whether it is ready, as Kubernetes does.
async fn watch(balancer: Arc<Balancer>, number: usize) {
    let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    loop {
        let probe = http.get(format!("{}/readyz", balancer.bases[number])).timeout(Duration::from_secs(5)).send().await;
        balancer.ready[number].store(probe.is_ok_and(|answer| answer.status() == 200), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
