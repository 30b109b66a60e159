//! A cluster to inject faults into: a database, a bucket, and servers and sweepers as processes that can be killed, stopped and
//! restarted one by one.
//!
//! MongoDB and S3 are started for the run, or are those that the environment names (tests/support/servers.rs). All lifetimes are
//! a few seconds, so that everything converges within [`GRACE`].

mod backend;
mod server;
mod sweeper;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use mongodb::{
    bson::{DateTime, Document, doc},
    options::{ClientOptions, ReadConcern, SelectionCriteria},
};
use secrecy::ExposeSecret;
use time::OffsetDateTime;
use valet::{config::Config, state::AppState};

pub use self::{
    backend::{Backend, WEBHOOK_SECRET},
    server::{Server, free_port},
    sweeper::Sweeper,
};
use super::{
    program::{Process, Settings},
    servers::{self, JWT_SECRET, finalize, s3_client, scratch_dir},
};

/// Lifetime of a presigned PUT URL.
pub const URL_TTL: Duration = Duration::from_secs(3);
/// Lifetime of an upload.
pub const UPLOAD_TTL: Duration = Duration::from_secs(4);
/// Time after a URL's expiry in which its object may still arrive.
pub const SWEEP_GRACE: Duration = Duration::from_secs(2);
/// Longest time for which a lease, claim, reservation or retry of a dead server blocks anything: `LEASE_DURATION` of
/// src/domain/sweeper/images.rs and some seconds.
pub const LEASE: Duration = Duration::from_secs(130);
/// Time without activity after which everything has converged: URLs are dead, leases of dead servers are over, and two sweeps
/// have finished.
pub const GRACE: Duration = Duration::from_secs(URL_TTL.as_secs() + SWEEP_GRACE.as_secs() + 2 * LEASE.as_secs() + 20);
/// Quota of a user in bytes; small, so that the load reaches it.
pub const QUOTA: u64 = 60_000;

/// Configuration of a [`Cluster`].
pub struct Options {
    /// Number of `valet serve` processes.
    pub servers: usize,
    /// Number of `valet sweep` loops, in addition to the servers' own sweepers.
    pub sweepers: usize,
    /// MongoDB URI for the checker, and for the servers unless `change` replaces it. `None`: the run's mongod.
    pub mongodb: Option<String>,
    /// S3 endpoint for the checker and the clients, and for the servers unless `change` replaces it. `None`: the run's S3.
    pub s3: Option<String>,
    /// Changes the settings of each process by its number; sweepers are numbered after servers. Tests insert proxies here.
    pub change: Box<dyn Fn(usize, Settings) -> Settings + Send + Sync>,
}

impl Default for Options {
    fn default() -> Self {
        Self { servers: 2, sweepers: 0, mongodb: None, s3: None, change: Box::new(|_, settings| settings) }
    }
}

/// A running cluster.
pub struct Cluster {
    pub servers: Vec<Arc<Server>>,
    pub sweepers: Vec<Sweeper>,
    pub backend: Backend,
    /// Database handle of the checker; reads have majority read concern.
    pub db: mongodb::Database,
    /// S3 client of the checker, for `s3_endpoint`.
    pub s3: aws_sdk_s3::Client,
    pub s3_endpoint: String,
    pub bucket: String,
    /// Folder for journals and logs.
    pub dir: PathBuf,
    settings: Settings,
    /// Output of the processes that have ended.
    logs: Arc<Mutex<String>>,
}

/// How [`Cluster::quiesce`] waits for leases and reservations of dead servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseWait {
    /// Waits in real time, for at most [`GRACE`].
    RealTime,
    /// Waits for URLs and grace periods; skips the leases of dead servers, which take minutes, with one sweep whose clock is
    /// ahead.
    Skipped,
}

impl Drop for Cluster {
    /// Writes the logs beside the journals if the test has failed.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = std::fs::write(self.dir.join("servers.log"), self.log());
            println!("journals and logs: {}", self.dir.display());
        }
    }
}

impl Cluster {
    /// Creates a database and a bucket and starts the requested processes.
    pub async fn start(options: Options) -> Self {
        let shared = servers::servers();
        let name = uuid::Uuid::new_v4().simple().to_string();
        let (database, bucket) = (format!("f-{name}"), format!("f-{name}"));
        let mongodb = options.mongodb.unwrap_or_else(|| shared.mongodb.clone());
        let s3_endpoint = options.s3.unwrap_or_else(|| shared.s3_endpoint.clone());
        let s3 = s3_client(&s3_endpoint, &shared.keys);
        s3.create_bucket().bucket(&bucket).send().await.unwrap();
        let mut parsed = ClientOptions::parse(&mongodb).await.unwrap();
        parsed.read_concern = Some(ReadConcern::majority());
        parsed.selection_criteria = Some(SelectionCriteria::ReadPreference(mongodb::options::ReadPreference::Primary));
        let client = mongodb::Client::with_options(parsed).unwrap();
        let seconds = |duration: Duration| format!("{}s", duration.as_secs());
        let settings = Settings(vec![
            ("MONGODB_URI", mongodb),
            ("MONGODB_DATABASE", database.clone()),
            ("S3_BUCKET", bucket.clone()),
            ("S3_ENDPOINT", s3_endpoint.clone()),
            ("S3_PUBLIC_ENDPOINT", s3_endpoint.clone()),
            ("S3_FORCE_PATH_STYLE", "true".to_owned()),
            ("S3_FINALIZE", finalize()),
            ("AWS_ACCESS_KEY_ID", shared.keys.access_key_id.clone()),
            ("AWS_SECRET_ACCESS_KEY", shared.keys.secret_access_key.expose_secret().to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("JWT_SECRET", JWT_SECRET.to_owned()),
            ("UPLOAD_URL_TTL", seconds(URL_TTL)),
            ("UPLOAD_TTL", seconds(UPLOAD_TTL)),
            ("MULTIPART_TTL", seconds(UPLOAD_TTL)),
            ("SWEEP_GRACE", seconds(SWEEP_GRACE)),
            ("SWEEP_INTERVAL", "1s".to_owned()),
            ("USER_QUOTA_BYTES", format!("{QUOTA}B")),
            ("UPLOAD_MAX_PENDING", "20".to_owned()),
            ("RATE_LIMIT", "off".to_owned()),
            ("WEBHOOK_SECRET", WEBHOOK_SECRET.to_owned()),
            ("WEBHOOK_ALLOW", "127.0.0.0/8".to_owned()),
        ]);
        let backend = Backend::start(&connect(&settings).await.valet).await;
        let logs = Arc::new(Mutex::new(String::new()));
        let dir = scratch_dir().join(&name);
        std::fs::create_dir_all(&dir).unwrap();
        let server = |number| Arc::new(Server::new(number, (options.change)(number, settings.clone()), logs.clone()));
        let servers: Vec<_> = (0..options.servers).map(server).collect();
        futures_util::future::join_all(servers.iter().map(|server| server.start())).await;
        let sweepers = (0..options.sweepers).map(|number| {
            let settings = (options.change)(options.servers + number, settings.clone());
            Sweeper::start(settings, logs.clone())
        });
        let db = client.database(&database);
        Self { sweepers: sweepers.collect(), servers, backend, db, s3, s3_endpoint, bucket, dir, settings, logs }
    }

    /// Returns the log output of all servers and sweepers so far.
    pub fn log(&self) -> String {
        let ended_logs = self.logs.lock().unwrap().clone();
        self.servers.iter().fold(ended_logs, |all, server| all + &server.log())
    }

    /// Starts the servers that are down and waits for at most 30 s until every server is ready.
    pub async fn heal(&self) {
        for server in &self.servers {
            if !server.is_running() {
                server.start().await;
            }
        }
        let http = reqwest::Client::new();
        let began = Instant::now();
        for server in &self.servers {
            let ready =
                async || http.get(format!("{}/readyz", server.base())).send().await.is_ok_and(|answer| answer.status() == 200);
            while !ready().await {
                assert!(began.elapsed() < Duration::from_secs(30), "server {} is not ready: {}", server.number, server.log());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Runs the program with `arguments` on this database and bucket.
    pub fn run(&self, arguments: &[&str]) -> Process {
        self.settings.run(arguments)
    }

    /// Ends the separate sweeper processes.
    pub async fn stop_sweepers(&mut self) {
        for sweeper in self.sweepers.drain(..) {
            sweeper.stop().await;
        }
    }

    /// Waits until no work is in progress; no client may be active. Returns the time that it took.
    ///
    /// # Panics
    ///
    /// If work is still in progress after [`GRACE`].
    pub async fn quiesce(&self, lease_wait: LeaseWait) -> Duration {
        let began = Instant::now();
        tokio::time::sleep(URL_TTL + SWEEP_GRACE + Duration::from_secs(1)).await;
        if lease_wait == LeaseWait::Skipped {
            self.sweep_ahead().await;
        }
        loop {
            let pending_work = self.pending_work().await;
            if pending_work.is_empty() {
                return began.elapsed();
            }
            assert!(began.elapsed() < GRACE, "work still in progress after {GRACE:?}: {pending_work:?}");
            if lease_wait == LeaseWait::Skipped {
                self.sweep_ahead().await;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Ends the leases of dead servers, delivers the events, and sweeps with a clock that is two leases ahead until nothing is due.
    async fn sweep_ahead(&self) {
        let valet = connect(&self.settings).await.valet;
        let ended = doc! { "$set": { "completingUntil": DateTime::from_millis(0) } };
        let images = self.db.collection::<Document>("images");
        images.update_many(doc! { "completingUntil": { "$exists": true } }, ended).await.unwrap();
        // Before the sweep: a tombstone whose event waits would stay, claimed by the sweeper until its lease has ended.
        self.backend.deliver_without_pauses(&valet, &self.db).await;
        for name in ["images", "users"] {
            let claimed = self.db.collection::<Document>(name);
            let now = doc! { "$set": { "due": DateTime::now() } };
            claimed.update_many(doc! { "due": { "$exists": true } }, now).await.unwrap();
        }
        // The bound ends a sweep that always finds work; `quiesce` then reports the work.
        for _ in 0..50 {
            let round = valet.sweeper.sweep_once(OffsetDateTime::now_utc() + 2 * LEASE).await;
            if round.is_ok_and(|round| !round.may_have_more) {
                break;
            }
        }
        self.backend.deliver_without_pauses(&valet, &self.db).await;
    }

    /// Delivers the events that wait.
    pub async fn deliver_events(&self) {
        self.backend.deliver_without_pauses(&connect(&self.settings).await.valet, &self.db).await;
    }

    /// Returns the work in progress: images that are neither ready nor tombstones, reservations, accounts that are being deleted,
    /// and events that are not delivered.
    async fn pending_work(&self) -> Vec<String> {
        use futures_util::TryStreamExt;
        let mut unfinished = Vec::new();
        let has = |field: &str| doc! { field: { "$exists": true } };
        let transient = doc! { "$or": [{ "state": { "$nin": ["ready", "gone"] } }, has("due"), has("outbox")] };
        for (collection, filter) in [
            ("images", transient),
            ("users", doc! { "$or": [has("opening.0"), has("holds.0"), has("due"), has("outbox")] }),
            ("deliveries", has("due")),
        ] {
            let found = self.db.collection::<Document>(collection).find(filter).await.unwrap();
            let found: Vec<Document> = found.try_collect().await.unwrap();
            unfinished.extend(found.iter().map(|document| format!("{collection}: {document}")));
        }
        unfinished
    }
}

/// Connects this process to the cluster's database and bucket, like another server.
async fn connect(settings: &Settings) -> AppState {
    let settings = settings.with("BIND", "127.0.0.1:0");
    let lookup = |name: &str| settings.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
    let mut config = Config::read(&lookup).unwrap();
    config.s3.credentials = Some(servers::servers().keys.clone());
    AppState::connect(&config).await.unwrap()
}
