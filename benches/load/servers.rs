//! Servers that are measured, as child processes, and their dependencies: a real mongod, and the local S3 in this process.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use valet::{
    config::{Config, CorsOrigins},
    dev::{
        mongod::{Mongod, MongodOptions},
        s3::{LocalS3, LocalS3Options},
    },
};

use super::client::{Connection, request};

/// Key id of the local S3.
const ACCESS_KEY: &str = "bench-key";
/// Secret key of the local S3.
const SECRET_KEY: &str = "bench-secret";
pub const BUCKET: &str = "bench";
pub const DATABASE: &str = "bench";

/// MongoDB and S3, which a measured server depends on.
pub struct Dependencies {
    pub mongod: Mongod,
    pub s3: SocketAddr,
    root: PathBuf,
}

impl Dependencies {
    /// Starts mongod and the local S3, with an empty folder.
    pub async fn start() -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let name = format!("load-{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let options = MongodOptions { cache_mib: 1024, ..MongodOptions::new(root.join("mongodb")) };
        let mongod = Mongod::start(options).await.unwrap();
        let options = LocalS3Options {
            root: root.join("s3"),
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.into(),
            region: "us-east-1".to_owned(),
            cors: CorsOrigins::default(),
        };
        let server = LocalS3::open(options).unwrap();
        server.create_bucket(&BUCKET.parse().unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let s3 = listener.local_addr().unwrap();
        tokio::spawn(server.serve(listener, CancellationToken::new()));
        Self { mongod, s3, root }
    }

    /// Stops mongod and deletes the folder.
    pub async fn stop(self) {
        self.mongod.stop().await.unwrap();
        std::fs::remove_dir_all(self.root).unwrap();
    }

    /// Returns the settings of a server on `port`.
    pub fn settings(&self, port: u16) -> Vec<(&'static str, String)> {
        vec![
            ("BIND", format!("127.0.0.1:{port}")),
            ("MONGODB_URI", self.mongod.uri()),
            ("MONGODB_DATABASE", DATABASE.to_owned()),
            ("S3_BUCKET", BUCKET.to_owned()),
            ("S3_ENDPOINT", format!("http://{}", self.s3)),
            ("S3_FORCE_PATH_STYLE", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("JWT_SECRET", "bench-secret-0123456789-abcdefghij".to_owned()),
            ("RATE_LIMIT", "off".to_owned()),
            ("UPLOAD_MAX_PENDING", "10000".to_owned()),
            // The sweeper's work is not measured here.
            ("SWEEP_INTERVAL", "1h".to_owned()),
        ]
    }

    /// Returns the same settings as a configuration for this process.
    pub fn config(&self) -> Config {
        let settings = self.settings(0);
        let mut config =
            Config::read(&|name| settings.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())).unwrap();
        config.s3.credentials = Some(valet::signer::Credentials {
            access_key_id: ACCESS_KEY.to_owned(),
            secret_access_key: SECRET_KEY.into(),
            session_token: None,
            expires_at: None,
        });
        config
    }
}

/// A server as a child process, which is killed when this is dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// Time from the start to the first successful answer.
    pub started_in: Duration,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts `valet serve` and waits until `/readyz` answers 200.
    pub async fn valet(dependencies: &Dependencies) -> Self {
        Self::valet_with(dependencies, []).await
    }

    /// Starts `valet serve` with more settings, and waits until `/readyz` answers 200.
    pub async fn valet_with(dependencies: &Dependencies, more: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let port = free_port();
        let binary = std::env::var_os("VALET_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_valet").into());
        let mut command = Command::new(binary);
        command.arg("serve").envs(dependencies.settings(port)).envs(more);
        Self::start(command, port, "/readyz").await
    }

    /// Starts the Express server in the folder that PEER_EXPRESS names, if it is set.
    pub async fn express(dependencies: &Dependencies) -> Option<Self> {
        let folder = std::env::var_os("PEER_EXPRESS")?;
        let port = free_port();
        let mut command = Command::new("node");
        command.arg("server.mjs").current_dir(folder).envs(dependencies.settings(port)).env("PORT", port.to_string());
        Some(Self::start(command, port, "/").await)
    }

    /// Starts a server and waits until `path` answers 200; of the Express server's `/`, any answer is enough.
    async fn start(mut command: Command, port: u16, path: &str) -> Self {
        let began = Instant::now();
        // The log is written, as in production, and discarded.
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut server = Self { child, address, started_in: Duration::ZERO };
        loop {
            assert!(began.elapsed() < Duration::from_secs(30), "the server does not start");
            assert!(server.child.try_wait().unwrap().is_none(), "the server ended");
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                let (status, _) = Connection::open(address).await.send(&request("GET", path, None, None)).await;
                if status == 200 || path == "/" {
                    server.started_in = began.elapsed();
                    return server;
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Returns resident memory in MiB, if /proc is available.
    pub fn memory(&self) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches(" kB").parse::<f64>().ok().map(|kib| kib / 1024.0)
    }

    /// Returns the processor time used so far in seconds, if /proc is available.
    pub fn cpu(&self) -> Option<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        // utime and stime in clock ticks, which Linux reports at 100 per second.
        Some((fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?) / 100.0)
    }
}

/// Returns a port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
