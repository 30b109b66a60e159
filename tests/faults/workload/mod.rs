//! The load: many clients of several users, each at its own pace, by the documented rules for clients; the journal records every
//! call. The clients' actions follow from the seed and from the answers.

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

/// Size of the load, and how its clients choose a server.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    pub clients: usize,
    pub users: usize,
    pub seed: u64,
    /// Time for which a client repeats a call without a final answer.
    pub patience: Duration,
    /// Whether requests go through a balancer that follows `/readyz` and retries only refused connections; otherwise each request
    /// goes to a random server.
    pub balanced: bool,
}

impl Default for Profile {
    fn default() -> Self {
        Self { clients: 50, users: 12, seed: 1, patience: Duration::from_secs(60), balanced: false }
    }
}

/// Running clients.
pub struct Workload {
    pub tally: Arc<Tally>,
    pub balancer: Arc<Balancer>,
    stop: CancellationToken,
    clients: Vec<JoinHandle<()>>,
    /// Tasks that poll the readiness of the servers for the balancer.
    readiness_polls: Vec<JoinHandle<()>>,
}

impl Workload {
    /// Starts clients that work until they are stopped.
    pub fn start(cluster: &Cluster, journal: &Arc<Journal>, profile: Profile) -> Self {
        Self::spawn_clients(cluster, journal, profile, |client, stop| tokio::spawn(client.run(stop)))
    }

    /// Starts clients that do every action and end.
    pub fn once(cluster: &Cluster, journal: &Arc<Journal>, profile: Profile) -> Self {
        Self::spawn_clients(cluster, journal, profile, |client, _| tokio::spawn(client.run_each_action_once()))
    }

    /// Creates the clients and their balancer, and starts each client with `begin`.
    fn spawn_clients(
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
        let key: Arc<str> = cluster.backend.key.as_str().into();
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
                key: key.clone(),
            };
            begin(Client::new(caller, people.clone()), stop.clone())
        });
        let clients = clients.collect();
        let polled = if profile.balanced { cluster.servers.len() } else { 0 };
        let readiness_polls: Vec<_> = (0..polled).map(|number| tokio::spawn(poll_readiness(balancer.clone(), number))).collect();
        Self { tally, balancer, stop, clients, readiness_polls }
    }

    /// Waits until every client has signed in, which takes seconds because passwords are hashed, and then for `more`.
    pub async fn wait_until_working(&self, more: Duration) {
        while self.tally.at_work.load(Ordering::Relaxed) < self.clients.len() as u64 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tokio::time::sleep(more).await;
    }

    /// Waits for clients that end by themselves; returns the counters.
    ///
    /// # Panics
    ///
    /// If a client panicked.
    pub async fn finished(self) -> Arc<Tally> {
        for client in self.clients {
            client.await.unwrap();
        }
        self.tally
    }

    /// Lets every client finish its current action; returns the counters.
    ///
    /// # Panics
    ///
    /// If a client panicked.
    pub async fn stop(self) -> Arc<Tally> {
        self.stop.cancel();
        for client in self.clients {
            client.await.unwrap();
        }
        self.readiness_polls.iter().for_each(JoinHandle::abort);
        self.tally
    }
}

/// Polls a server's readiness, as Kubernetes does.
async fn poll_readiness(balancer: Arc<Balancer>, number: usize) {
    let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    loop {
        let answer = http.get(format!("{}/readyz", balancer.bases[number])).timeout(Duration::from_secs(5)).send().await;
        balancer.ready[number].store(answer.is_ok_and(|answer| answer.status() == 200), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
