//! The application's state, shared by all requests: the services, the trusted proxies and the readiness probe.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

use crate::{
    config::{Config, TrustedProxies},
    domain::{Valet, deployment::PairError, hash_pool::PoolLoad},
    metrics::METRICS,
    store::{Objects, Store, StoreError, objects::Diagnosis},
};

/// Time for which a result of the readiness probe is reused.
const READINESS_TTL: Duration = Duration::from_secs(1);
/// Deadline of each dependency in the readiness probe: long enough for one attempt on a dead connection and a second one.
const READINESS_DEADLINE: Duration = Duration::from_secs(4);
/// Largest difference from S3's clock at which the server is ready. URLs are signed with S3's time, but tokens and the expiry of
/// uploads use this machine's clock.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(5 * 60);

/// State of the application: cheap to clone, shared by all requests.
#[derive(Clone)]
pub struct AppState {
    /// The use cases.
    pub valet: Arc<Valet>,
    /// Proxies whose `X-Forwarded-*` headers are trusted.
    pub proxies: Arc<TrustedProxies>,
    readiness: Arc<Mutex<Option<Readiness>>>,
    stopping: Arc<AtomicBool>,
}

/// Result of the last readiness probe.
struct Readiness {
    probed_at: Instant,
    /// `Err`: the dependency that is not ready, in words for an operator.
    result: Result<(), &'static str>,
}

/// Reasons for which the application cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// MongoDB cannot be used.
    #[error("MongoDB (MONGODB_URI): {0}")]
    Database(#[source] StoreError),
    /// S3 cannot be used.
    #[error("S3 (S3_BUCKET, S3_ENDPOINT and the AWS credentials): {0}")]
    Objects(#[source] StoreError),
    /// The bucket cannot be used.
    #[error("{0}. To do: {remedy}", remedy = .0.remedy())]
    Bucket(#[from] Box<Diagnosis>),
    /// Bucket and database do not belong together.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// The system has no source of randomness.
    #[error(transparent)]
    NoRandomness(#[from] crate::domain::credentials::NoRandomness),
}

impl ConnectError {
    /// Returns whether bucket and database were read and do not belong together.
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        matches!(self, Self::Pair(error) if error.is_mismatch())
    }
}

impl AppState {
    /// Connects to the database, creates its indexes, and loads credentials for S3.
    ///
    /// # Errors
    /// [`ConnectError`] names the part.
    pub async fn connect(config: &Config) -> Result<Self, ConnectError> {
        let app = Self::open(config).await?;
        app.valet.deployment.make_indexes().await.map_err(ConnectError::Database)?;
        Ok(app)
    }

    /// Connects to the database and loads credentials for S3; writes to neither.
    ///
    /// # Errors
    /// [`ConnectError`] names the part.
    pub async fn open(config: &Config) -> Result<Self, ConnectError> {
        let store = async { Store::open(&config.mongo).await.map_err(ConnectError::Database) };
        let objects = async { Objects::connect(&config.s3).await.map_err(ConnectError::Objects) };
        let (store, objects) = tokio::try_join!(store, objects)?;
        let valet = Arc::new(Valet::new(config, store, objects)?);
        Ok(Self { valet, proxies: Arc::new(config.proxies.clone()), readiness: Arc::default(), stopping: Arc::default() })
    }

    /// Connects after verifying that bucket and database belong together, so that neither the server nor the sweeper works on
    /// another deployment's records. If they do not, nothing is changed.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect_pair(config: &Config) -> Result<Self, ConnectError> {
        let app = Self::open(config).await?;
        app.valet.dependencies.diagnose_objects().await.map_err(Box::new)?;
        app.valet.deployment.verify_pair().await?;
        app.valet.deployment.make_indexes().await.map_err(ConnectError::Database)?;
        Ok(app)
    }

    /// Makes the database the owner of the bucket, even if one of them was paired with another before.
    ///
    /// # Errors
    /// [`ConnectError::Pair`]; safe to repeat.
    pub async fn join_pair(&self) -> Result<(), ConnectError> {
        Ok(self.valet.deployment.join_pair().await.map(drop)?)
    }

    /// Returns the process's metrics as text, with the gauges updated.
    #[must_use]
    pub fn metrics(&self) -> String {
        let PoolLoad { running, waiting } = self.valet.accounts.hash_load();
        METRICS.hashes_running.set(i64::try_from(running).unwrap_or(i64::MAX));
        METRICS.hashes_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        METRICS
            .tokio_alive_tasks
            .set(i64::try_from(tokio::runtime::Handle::current().metrics().num_alive_tasks()).unwrap_or(i64::MAX));
        METRICS.text()
    }

    /// Returns the flag that is set when the server begins to stop.
    #[must_use]
    pub fn stopping(&self) -> Arc<AtomicBool> {
        self.stopping.clone()
    }

    /// Returns whether requests can be served. Database and bucket are probed at most once a second, however many calls there are.
    ///
    /// # Errors
    /// Names the part that is not ready.
    pub async fn readiness(&self) -> Result<(), &'static str> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err("the server is stopping");
        }
        let mut last = self.readiness.lock().await;
        if let Some(Readiness { probed_at, result }) = &*last
            && probed_at.elapsed() < READINESS_TTL
        {
            return *result;
        }
        let database = tokio::time::timeout(READINESS_DEADLINE, self.valet.dependencies.probe_database());
        let objects = tokio::time::timeout(READINESS_DEADLINE, self.valet.dependencies.probe_objects());
        let (database, objects) = tokio::join!(database, objects);
        let result = match (database, objects) {
            (Ok(Ok(())), Ok(Ok(()))) if self.valet.dependencies.clock_ahead().unsigned_abs() > MAX_CLOCK_DIFFERENCE => {
                Err("this machine's clock is more than five minutes from S3's")
            }
            (Ok(Ok(())), Ok(Ok(()))) if self.valet.deployment.is_mismatched() => Err("the bucket belongs to another database"),
            (Ok(Ok(())), Ok(Ok(()))) => Ok(()),
            (Ok(Ok(())), failed) => {
                tracing::warn!(reason = ?failed, "S3 is not ready");
                Err("the bucket does not answer")
            }
            (failed, _) => {
                tracing::warn!(reason = ?failed, "MongoDB is not ready");
                Err("the database does not answer")
            }
        };
        *last = Some(Readiness { probed_at: Instant::now(), result });
        result
    }
}
