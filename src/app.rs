//! The application's state, shared by all requests: connect, serve, stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{net::TcpListener, sync::Mutex};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, CorsOrigins, TrustedProxies},
    domain::{Valet, deployment::PairError},
    http,
    metrics::METRICS,
    store::{Objects, Store, StoreError, objects::Diagnosis},
};

/// Connections of operators' tools: few ask, and all of them at once must not be locked out by clients.
const OPERATORS: usize = 64;
/// How long an answer of the readiness probe is kept.
const READINESS_KEPT: Duration = Duration::from_secs(1);
/// How long a dependency may take to answer the readiness probe: an attempt on a connection that turns out to be dead, and another.
const READINESS_DEADLINE: Duration = Duration::from_secs(4);
/// Largest difference from S3's clock at which the server is ready. URLs are signed with S3's time, but tokens and the expiry of
/// uploads use this machine's clock.
const CLOCKS_APART: Duration = Duration::from_secs(5 * 60);

/// The application: cheap to clone, shared by all requests.
#[derive(Clone)]
pub struct App {
    /// The use cases.
    pub valet: Arc<Valet>,
    /// Proxies whose `X-Forwarded-*` headers are trusted.
    pub proxies: Arc<TrustedProxies>,
    readiness: Arc<Mutex<Option<Probed>>>,
    stopping: Arc<AtomicBool>,
}

/// When the probe was asked last, and the part that failed.
type Probed = (Instant, Result<(), &'static str>);

/// Why the application could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// MongoDB.
    #[error("MongoDB (MONGODB_URI): {0}")]
    Database(#[source] StoreError),
    /// S3.
    #[error("S3 (S3_BUCKET, S3_ENDPOINT and the AWS credentials): {0}")]
    Objects(#[source] StoreError),
    /// The bucket.
    #[error("{0}. To do: {remedy}", remedy = .0.remedy())]
    Bucket(#[from] Box<Diagnosis>),
    /// Bucket and database do not belong together.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// The system.
    #[error(transparent)]
    NoRandomness(#[from] crate::domain::credentials::NoRandomness),
}

impl ConnectError {
    /// Whether bucket and database are seen not to belong together, rather than not seen at all.
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        matches!(self, Self::Pair(error) if error.is_mismatch())
    }
}

impl App {
    /// Connects to the database and makes its indexes, and finds credentials for S3.
    ///
    /// # Errors
    /// [`ConnectError`] names the part.
    pub async fn connect(config: &Config) -> Result<Self, ConnectError> {
        let app = Self::open(config).await?;
        app.valet.make_indexes().await.map_err(ConnectError::Database)?;
        Ok(app)
    }

    /// Connects to the database and finds credentials for S3, and writes nothing to either.
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

    /// [`App::connect`], after verifying that bucket and database belong together: what sweeps or serves must not take another
    /// deployment's records for its own. A refusal has changed nothing.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect_pair(config: &Config) -> Result<Self, ConnectError> {
        let app = Self::open(config).await?;
        app.valet.diagnose_objects().await.map_err(Box::new)?;
        app.valet.verify_pair().await?;
        app.valet.make_indexes().await.map_err(ConnectError::Database)?;
        Ok(app)
    }

    /// Makes the database the owner of the bucket, whatever either belonged to.
    ///
    /// # Errors
    /// [`ConnectError::Pair`]; safe to repeat.
    pub async fn join(&self) -> Result<(), ConnectError> {
        Ok(self.valet.join_pair().await.map(drop)?)
    }

    /// The process's metrics, with what is true at this moment.
    #[must_use]
    pub fn metrics(&self) -> String {
        let (running, waiting) = self.valet.hashing();
        METRICS.hashes_running.set(i64::try_from(running).unwrap_or(i64::MAX));
        METRICS.hashes_waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        METRICS.tasks.set(i64::try_from(tokio::runtime::Handle::current().metrics().num_alive_tasks()).unwrap_or(i64::MAX));
        METRICS.text()
    }

    /// Whether requests can be served; else the part that fails. Asked by many, answered once a second.
    ///
    /// # Errors
    /// The name of the part.
    pub async fn readiness(&self) -> Result<(), &'static str> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err("the server is stopping");
        }
        let mut kept = self.readiness.lock().await;
        if let Some((at, answer)) = *kept
            && at.elapsed() < READINESS_KEPT
        {
            return answer;
        }
        let database = tokio::time::timeout(READINESS_DEADLINE, self.valet.probe_database());
        let objects = tokio::time::timeout(READINESS_DEADLINE, self.valet.probe_objects());
        let (database, objects) = tokio::join!(database, objects);
        let answer = match (database, objects) {
            (Ok(Ok(())), Ok(Ok(()))) if self.valet.clock_ahead().unsigned_abs() > CLOCKS_APART => {
                Err("this machine's clock is more than five minutes from S3's")
            }
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
        *kept = Some((Instant::now(), answer));
        answer
    }
}

/// Serves the API and sweeps until `stop`, then finishes what is under way, within a deadline.
///
/// # Errors
/// When `ADMIN_BIND` cannot be listened on.
pub async fn serve(listener: TcpListener, app: App, config: &Config, stop: CancellationToken) -> std::io::Result<()> {
    // Only who opens uploads needs to know; what connects meanwhile waits.
    app.valet.learn_store_at_start(time::OffsetDateTime::now_utc()).await;
    let endpoint = http::leaving::announced(http::endpoint(app.clone(), config), app.stopping.clone());
    let operators = match config.admin_bind {
        Some(address) => {
            let listener = TcpListener::bind(address).await?;
            tracing::info!(address = %listener.local_addr()?, "metrics are at /metrics");
            let endpoint = http::admin::endpoint(app.clone());
            Some(tokio::spawn(http::server::serve(
                listener,
                endpoint,
                (OPERATORS, CorsOrigins::default()),
                CancellationToken::new(),
            )))
        }
        None => None,
    };
    let sweeper = {
        let (valet, stop) = (app.valet.clone(), stop.clone());
        tokio::spawn(async move { valet.sweep_until(stop).await })
    };
    let provider = {
        let (valet, stop) = (app.valet.clone(), stop.clone());
        tokio::spawn(async move { valet.refresh_provider_until(stop).await })
    };
    let close = CancellationToken::new();
    let stopped = async {
        stop.cancelled().await;
        app.stopping.store(true, Ordering::Relaxed);
        // Served as ever until every balancer has asked whether this server is ready.
        tokio::time::sleep(config.stop_delay).await;
        close.cancel();
    };
    let most = http::server::affordable(config.load.max_connections);
    tokio::join!(http::server::serve(listener, endpoint, (most, config.cors.clone()), close.clone()), stopped);
    // Last, so that what happens while the server drains can be seen.
    if let Some(operators) = operators {
        operators.abort();
    }
    if let Err(error) = sweeper.await {
        tracing::error!(%error, "the sweeper ended badly");
    }
    if let Err(error) = provider.await {
        tracing::error!(%error, "the task of the identity provider's keys ended badly");
    }
    Ok(())
}
