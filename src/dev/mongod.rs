//! Runs a real mongod as a child process, for `valet dev` and the tests: finds or downloads the binary, starts it as a one-node
//! replica set on a free loopback port, and ends it with its owner, however the owner ends.
//!
//! This file starts and ends the process; `binary` finds the program, `watchdog` ends the process after the server was killed,
//! `replica_set` sends it commands, and `log` reads its log. None of them uses the application's data. The downloaded binary is for
//! development only.

mod binary;
mod log;
mod replica_set;
mod watchdog;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use self::log::Log;
use self::replica_set::{Node, SetupOutcome};
use self::watchdog::Watchdog;

/// Longest wait for an earlier mongod on the same data (the watchdog of a killed server ends it within 5 s).
const LOCK_PATIENCE: Duration = Duration::from_secs(15);
/// Longest time from the spawn to a writable primary. A cold start takes 1 to 2 s; recovery after a kill on a slow disk far
/// longer.
const START_PATIENCE: Duration = Duration::from_secs(90);
/// Longest time from the shutdown command to the end of the process, which is killed afterwards. The journal makes that safe too.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// Interval at which the state of mongod is polled.
const POLL: Duration = Duration::from_millis(20);
/// Maximum number of ports to try: another program may take a port before mongod binds it, but not this often by chance.
const PORT_ATTEMPTS: u32 = 8;
/// mongod's exit status if it cannot listen (`EXIT_NET_ERROR`).
const EXIT_NET_ERROR: i32 = 48;
/// Closes the files of idle collections after 20 s, not 10 min: hundreds of test databases would reach the limit of open files.
const CLOSE_IDLE_FILES: &str = "file_manager=(close_idle_time=20,close_scan_interval=5,close_handle_minimum=500)";

/// Options for starting mongod.
#[derive(Debug, Clone)]
pub struct MongodOptions {
    /// Folder of the database files; created if missing. Only one mongod at a time may use it.
    pub data_dir: PathBuf,
    /// Log file; `None`: `mongod.log` inside `data_dir`.
    pub log: Option<PathBuf>,
    /// Cache of the storage engine in MiB. mongod's minimum is 256; smaller values count as 256.
    pub cache_mib: u32,
}

impl MongodOptions {
    /// Returns options with the smallest cache and the log beside the data: enough for development and tests.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), log: None, cache_mib: 256 }
    }
}

/// Reason why no mongod is running. Each message is one line with a remedy.
#[derive(Debug, thiserror::Error)]
pub enum MongodError {
    /// No binary on this machine, and none could be downloaded; or the one found cannot run.
    #[error("{0}")]
    NoBinary(String),
    /// A required program could not be started.
    #[error("cannot run {}: {source}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The data folder or the log cannot be written.
    #[error("cannot write to {}: {source}; make it writable or choose another folder for the data", path.display())]
    NotWritable {
        /// The folder or file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// Another mongod uses the same data and did not end.
    #[error("another mongod is using {}: stop the server that runs there, or choose another folder for the data", .0.display())]
    InUse(PathBuf),
    /// No free port on 127.0.0.1.
    #[error("found no free port on 127.0.0.1 for mongod ({0}): close some programs or try again")]
    NoPort(io::Error),
    /// The process ended before it was ready.
    #[error("mongod ended ({status}) before it was ready: {reason} (log: {})", log.display())]
    Ended {
        /// Exit status of mongod.
        status: ExitStatus,
        /// Last error in its log.
        reason: String,
        /// Path of the whole log.
        log: PathBuf,
    },
    /// The process runs but did not become ready.
    #[error("mongod was not ready after {} s: {reason} (log: {})", after.as_secs(), log.display())]
    NotReady {
        /// Time that mongod had to become ready.
        after: Duration,
        /// Last error.
        reason: String,
        /// Path of the whole log.
        log: PathBuf,
    },
    /// The driver could not be created.
    #[error("cannot connect to mongod: {0}")]
    Driver(String),
    /// The process did not end, not even after SIGKILL.
    #[error("cannot end mongod (pid {pid}): {source}")]
    Unstoppable {
        /// Process id of mongod.
        pid: u32,
        /// Error of the operating system.
        source: io::Error,
    },
}

/// A running one-node replica set. Dropping it kills the process (the journal keeps acknowledged writes); [`Mongod::stop`] shuts
/// it down in order. If the owner is killed, a `watchdog` ends it within seconds.
#[derive(Debug)]
pub struct Mongod {
    child: Child,
    watchdog: Watchdog,
    address: SocketAddr,
    log: Log,
}

/// Reason why one attempt failed.
enum AttemptError {
    /// Another program listens on the port; another port may be free.
    PortTaken,
    /// Another mongod uses the data, and may end soon.
    Locked,
    /// Another attempt would fail, too.
    Failed(MongodError),
}

impl From<MongodError> for AttemptError {
    fn from(error: MongodError) -> Self {
        Self::Failed(error)
    }
}

impl Mongod {
    /// Starts mongod on a free port of 127.0.0.1 and returns once it is a writable primary. The data may come from an earlier run
    /// on another port. Waits up to 15 s for an earlier mongod on the same data to end.
    ///
    /// # Errors
    ///
    /// Returns the reason as one line; no process is left behind.
    pub async fn start(options: MongodOptions) -> Result<Self, MongodError> {
        let binary = binary::find().await?;
        let data = &options.data_dir;
        let not_writable = |path: &Path| {
            let path = path.to_owned();
            |source| MongodError::NotWritable { path, source }
        };
        std::fs::create_dir_all(data).map_err(not_writable(data))?;
        let path = options.log.clone().unwrap_or_else(|| data.join("mongod.log"));

        let since = Instant::now();
        let mut ports = 1;
        loop {
            let log = Log::open(&path).map_err(not_writable(&path))?;
            match Self::attempt(&binary, &options, log).await {
                Ok(mongod) => return Ok(mongod),
                Err(AttemptError::PortTaken) if ports < PORT_ATTEMPTS => ports += 1,
                Err(AttemptError::PortTaken) => {
                    return Err(MongodError::NoPort(io::ErrorKind::AddrInUse.into()));
                }
                Err(AttemptError::Locked) if since.elapsed() < LOCK_PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
                Err(AttemptError::Locked) => return Err(MongodError::InUse(options.data_dir)),
                Err(AttemptError::Failed(error)) => return Err(error),
            }
        }
    }

    /// Returns the URI for a direct connection, because the set's only member has another port in the next run.
    #[must_use]
    pub fn uri(&self) -> String {
        replica_set::uri(self.address)
    }

    /// Returns the process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the process has ended unexpectedly.
    pub async fn ended(&mut self) {
        while matches!(self.child.try_wait(), Ok(None)) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Sends mongod the shutdown command, waits, and kills it if it does not end within 10 s. The data is intact either way.
    ///
    /// # Errors
    ///
    /// Fails only if the process cannot even be killed.
    pub async fn stop(mut self) -> Result<(), MongodError> {
        let since = Instant::now();
        // Once this mongod has ended, the port may belong to another one.
        if matches!(self.child.try_wait(), Ok(None)) {
            replica_set::shut_down(self.address).await;
        }
        while since.elapsed() < STOP_PATIENCE {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        let pid = self.pid();
        self.end().map_err(|source| MongodError::Unstoppable { pid, source })
    }

    /// Starts mongod on a port that is free now, and waits until it is a writable primary.
    async fn attempt(binary: &Path, options: &MongodOptions, log: Log) -> Result<Self, AttemptError> {
        let port = free_port().map_err(MongodError::NoPort)?;
        let mut mongod = Self::spawn(binary, options, log, port)?;
        let deadline = Instant::now() + START_PATIENCE;

        // The driver retries every 500 ms at best; a plain connection shows sooner that mongod listens.
        while tokio::net::TcpStream::connect(mongod.address).await.is_err() {
            mongod.check_starting(deadline, "it does not listen yet")?;
            tokio::time::sleep(POLL).await;
        }
        let node = Node::new(mongod.address).map_err(MongodError::Driver)?;
        loop {
            let reason = match node.continue_setup(mongod.pid()).await {
                Ok(SetupOutcome::Ready) => return Ok(mongod),
                Ok(SetupOutcome::OtherProcess) => return Err(AttemptError::PortTaken),
                Err(reason) => reason,
            };
            mongod.check_starting(deadline, &reason)?;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts the process and its watchdog.
    fn spawn(binary: &Path, options: &MongodOptions, log: Log, port: u16) -> Result<Self, MongodError> {
        // Started before mongod, so that no mongod runs without a watchdog.
        let mut watchdog = Watchdog::spawn()?;
        let not_writable = |source| MongodError::NotWritable { path: log.path().to_owned(), source };
        let (stdout, stderr) = (log.writer().map_err(not_writable)?, log.writer().map_err(not_writable)?);
        let child = Command::new(binary)
            .args(["--bind_ip", "127.0.0.1", "--port", &port.to_string(), "--nounixsocket", "--quiet"])
            .args(["--replSet", replica_set::NAME, "--oplogSize", "128"])
            .arg("--dbpath")
            .arg(&options.data_dir)
            .args(["--wiredTigerCacheSizeGB", &format!("{:.3}", f64::from(options.cache_mib.max(256)) / 1024.0)])
            .args(["--wiredTigerEngineConfigString", CLOSE_IDLE_FILES])
            .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
            // By default a signalled member waits 15 s for others to take over.
            .args(["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"])
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            // Not in the terminal's foreground group: Ctrl-C is for the server, which stops mongod after it has drained.
            .process_group(0)
            .spawn()
            .map_err(|source| MongodError::Spawn { program: binary.to_owned(), source })?;
        watchdog.guard(child.id());
        Ok(Self { child, watchdog, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), log })
    }

    /// Returns an error if the process has ended or the deadline has passed; `reason` is the one for which mongod is not ready.
    fn check_starting(&mut self, deadline: Instant, reason: &str) -> Result<(), AttemptError> {
        let log = self.log.path().to_owned();
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(match self.log.last_error() {
                _ if status.code() == Some(EXIT_NET_ERROR) => AttemptError::PortTaken,
                Some(reason) if reason.contains("DBPathInUse") => AttemptError::Locked,
                reason => {
                    let reason = reason.unwrap_or_else(|| "it did not say why".to_owned());
                    MongodError::Ended { status, reason, log }.into()
                }
            });
        }
        if Instant::now() >= deadline {
            let reason = reason.to_owned();
            return Err(MongodError::NotReady { after: START_PATIENCE, reason, log }.into());
        }
        Ok(())
    }

    /// Kills the process if it still runs and then dismisses the watchdog, in this order: until the child is waited for, its
    /// process id is its own, and the watchdog must not act on an id that may belong to another process.
    fn end(&mut self) -> io::Result<()> {
        let killed = self.child.kill();
        if killed.is_ok() {
            self.child.wait()?;
        }
        self.watchdog.dismiss();
        killed
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(pid = self.pid(), %error, "failed to end mongod");
        }
    }
}

/// Returns a port that was free a moment ago.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
