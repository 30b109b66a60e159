//! Servers that a run of a test binary shares: one mongod and one local S3 for all its tests; and a Valet server in the
//! process of the tests. Also the run's folder, and clients of HTTP and S3. Shared by the test binaries.
//!
//! `VALET_TEST_S3_ENDPOINT` (with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`) names another S3 server,
//! `VALET_TEST_MONGODB_URI` another MongoDB; with `VALET_TEST_S3_FINALIZE=copy` uploads are copied at confirm.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::{CancellationToken, DropGuard};
use valet::{
    config::{Config, CorsOrigins, SweepSchedule},
    dev::{
        mongod::{Mongod, MongodOptions},
        s3::LocalS3,
    },
    server,
    signer::Credentials,
    state::AppState,
};

/// `JWT_SECRET` of every test server.
pub const JWT_SECRET: &str = "test-secret-0123456789-abcdefghij";

/// The run's MongoDB and S3.
pub struct Servers {
    /// Connection string of the MongoDB.
    pub mongodb: String,
    pub s3_endpoint: String,
    /// Credentials of the S3 server.
    pub keys: Credentials,
}

/// Key id and secret of the local S3.
const LOCAL_KEYS: (&str, &str) = ("test-key", "test-secret");

/// Returns the value of an environment variable of the test run; an empty one counts as unset.
pub fn env_var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns the shared servers, which the first call starts.
pub fn servers() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    SERVERS.get_or_init(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        // Each test's runtime ends with the test; the servers run on a separate thread.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async move {
                let root = scratch_dir();
                let external = env_var("VALET_TEST_S3_ENDPOINT");
                let (s3_endpoint, keys) = match external {
                    Some(endpoint) => {
                        let name = |name| {
                            env_var(name).expect("VALET_TEST_S3_ENDPOINT needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
                        };
                        (endpoint, (name("AWS_ACCESS_KEY_ID"), name("AWS_SECRET_ACCESS_KEY")))
                    }
                    None => (local_s3(root.join("s3")).await, (LOCAL_KEYS.0.to_owned(), LOCAL_KEYS.1.to_owned())),
                };
                let external = env_var("VALET_TEST_MONGODB_URI");
                let mongod = match external {
                    Some(_) => None,
                    None => {
                        let in_memory = memory_dir();
                        let folder = in_memory.clone().unwrap_or_else(|| root.join("mongodb"));
                        let mongod = Mongod::start(MongodOptions::new(folder)).await.unwrap();
                        in_memory.iter().for_each(|folder| remove_after(mongod.pid(), folder));
                        Some(mongod)
                    }
                };
                let mongodb = external.unwrap_or_else(|| mongod.as_ref().unwrap().uri());
                let keys = Credentials {
                    access_key_id: keys.0,
                    secret_access_key: SecretString::from(keys.1),
                    session_token: None,
                    expires_at: None,
                };
                sender.send(Servers { mongodb, s3_endpoint, keys }).unwrap();
                // The servers run until this process ends; mongod's watchdog then stops mongod.
                std::future::pending::<()>().await;
                drop(mongod);
            });
        });
        receiver.recv().expect("the servers start")
    })
}

/// Reads the configuration of a server in this process, on the run's MongoDB and S3. Its sweeper is idle. The settings that
/// `change` returns have precedence.
pub fn config(database: &str, bucket: &str, change: &dyn Fn(&str) -> Option<String>) -> Config {
    let shared = servers();
    let setting = |name: &str| {
        let value = match name {
            "BIND" => "127.0.0.1:0",
            "MONGODB_URI" => &shared.mongodb,
            "MONGODB_DATABASE" => database,
            "S3_BUCKET" => bucket,
            "S3_ENDPOINT" => &shared.s3_endpoint,
            "S3_FORCE_PATH_STYLE" => "true",
            "JWT_SECRET" => JWT_SECRET,
            "SWEEP_INTERVAL" => "1h",
            // A URL stays the same for half of its lifetime. No test lasts into the next half, except by its own setting.
            "READ_URL_TTL" => "7d",
            "RATE_LIMIT" => "off",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let mut config = Config::read(&|name| change(name).or_else(|| setting(name))).unwrap();
    config.s3.credentials = Some(shared.keys.clone());
    // Without sweeps at the start or after an upload is opened: the load would decide whether they handle a test's due images.
    config.sweep.schedule = SweepSchedule::IntervalsOnly;
    config
}

/// A server in this process; it stops when `stop` is dropped.
pub struct InProcess {
    pub app: AppState,
    /// Base URL, without a path.
    pub base: String,
    pub stop: DropGuard,
}

impl InProcess {
    /// Serves `app` on a free port.
    pub async fn serve(app: AppState, config: &Config) -> Self {
        let listener = tokio::net::TcpListener::bind(config.bind).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let serve = {
            let (app, config, stop) = (app.clone(), config.clone(), stop.clone());
            async move { server::serve(listener, app, &config, stop).await }
        };
        tokio::spawn(serve);
        Self { app, base, stop: stop.drop_guard() }
    }
}

/// Returns the run's `S3_FINALIZE`: `in-place` or `copy`.
pub fn finalize() -> String {
    env_var("VALET_TEST_S3_FINALIZE").unwrap_or_else(|| "in-place".to_owned())
}

/// Returns whether the tests run against the in-process S3, which behaves like AWS where other servers do not.
pub fn s3_is_local() -> bool {
    env_var("VALET_TEST_S3_ENDPOINT").is_none()
}

/// Returns a folder for this run. Removes the folders of earlier runs, because a process cannot remove its folder when it ends.
pub fn scratch_dir() -> PathBuf {
    run_dir(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap()
}

/// Creates this run's folder in `base`, and removes the folders of earlier runs there.
fn run_dir(base: &Path) -> std::io::Result<PathBuf> {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.rsplit_once('-').and_then(|(_, pid)| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let dir = base.join(format!("{}-{}", env!("CARGO_CRATE_NAME"), std::process::id()));
    std::fs::create_dir_all(&dir).map(|()| dir)
}

/// Free space for the run's databases, 6 GiB: each of more than 700 tests has some fifty files, in all less than 2 GB.
const MEMORY_KIB: u64 = 6 << 20;

/// Creates this run's folder in the file system in memory, if it and the machine have room. mongod awaits the disk for each
/// acknowledged write and for each new index, and the tests wait for mongod.
fn memory_dir() -> Option<PathBuf> {
    let shared_memory = Path::new("/dev/shm");
    let free = Command::new("df").args(["-P", "-k"]).arg(shared_memory).output().ok()?;
    let free = String::from_utf8_lossy(&free.stdout).lines().nth(1)?.split_whitespace().nth(3)?.parse::<u64>().ok()?;
    let memory = std::fs::read_to_string("/proc/meminfo").ok()?;
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let available = memory.split_whitespace().next()?.parse::<u64>().ok()?;
    (free.min(available) >= MEMORY_KIB).then(|| run_dir(&shared_memory.join("valet-tests")).ok()).flatten()
}

/// Removes the folder once this process and then its mongod have ended.
#[expect(clippy::zombie_processes, reason = "the shell outlives this process")]
fn remove_after(mongod: u32, folder: &Path) {
    let script = r#"cat; while kill -0 "$1" 2>/dev/null; do sleep 0.5; done; rm -rf "$2""#;
    let mut shell = Command::new("sh")
        .args(["-c", script, "valet-tests-removal", &mongod.to_string()])
        .arg(folder)
        .stdin(Stdio::piped())
        // Not inherited: a reader that waits for the end of the tests' output must not wait for this process.
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    // The kernel closes the pipe when this process ends, however it ends.
    std::mem::forget(shell.stdin.take());
}

/// Starts a local S3 server with its data in `root`; returns its endpoint.
async fn local_s3(root: PathBuf) -> String {
    let options = valet::dev::s3::LocalS3Options {
        root,
        access_key: LOCAL_KEYS.0.to_owned(),
        secret_key: LOCAL_KEYS.1.into(),
        region: "us-east-1".to_owned(),
        cors: CorsOrigins { exact: vec!["https://app.example".to_owned()], loopback: true },
    };
    let server = LocalS3::open(options).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(server.serve(listener, CancellationToken::new()));
    endpoint
}

/// Returns an HTTP client that gives up idle connections before a server closes them (the local S3 after 30 s, Valet after 75 s): a
/// request on a connection that is just being closed would fail.
pub fn http_client() -> reqwest::Client {
    reqwest::Client::builder().pool_idle_timeout(std::time::Duration::from_secs(25)).build().unwrap()
}

/// Returns an S3 client that signs with these keys.
pub fn s3_client(endpoint: &str, keys: &Credentials) -> aws_sdk_s3::Client {
    use aws_sdk_s3::config::{BehaviorVersion, Region};
    let keys =
        aws_credential_types::Credentials::new(&keys.access_key_id, keys.secret_access_key.expose_secret(), None, None, "test");
    aws_sdk_s3::Client::from_conf(
        aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(endpoint)
            .force_path_style(true)
            .credentials_provider(keys)
            .build(),
    )
}
