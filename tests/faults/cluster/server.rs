//! A `valet serve` process that can be killed, paused, stopped, and restarted on its port.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    program::{Ended, PROGRAM, Process, Settings, listening_at},
    servers::env_var,
};

/// Returns a port below the ephemeral range, so that no outgoing connection of this machine takes it.
pub fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let first = || AtomicU16::new(20_000 + u16::try_from(std::process::id() % 11_000).unwrap());
    loop {
        let port = NEXT.get_or_init(first).fetch_add(1, Ordering::Relaxed);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A `valet serve` process, running or not.
pub struct Server {
    /// Number of the server, from 0.
    pub number: usize,
    /// Host and port.
    pub address: String,
    settings: Mutex<Settings>,
    process: Mutex<Option<Process>>,
    /// Output of the processes that have ended, of all servers and sweepers.
    logs: Arc<Mutex<String>>,
    kills: AtomicU64,
}

impl Server {
    /// Prepares a server on its own port without starting it.
    pub fn new(number: usize, settings: Settings, logs: Arc<Mutex<String>>) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let mut settings = settings.with("BIND", &address);
        if let (1, Some(program)) = (number, env_var("VALET_FAULTS_OTHER_PROGRAM")) {
            settings = settings.with(PROGRAM, &program);
        }
        Self { number, address, settings: Mutex::new(settings), process: Mutex::default(), logs, kills: AtomicU64::new(0) }
    }

    /// Returns the address that clients use, such as `http://127.0.0.1:8080`.
    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes a setting for the next start.
    pub fn set(&self, name: &'static str, value: &str) {
        let mut settings = self.settings.lock().unwrap();
        *settings = settings.with(name, value);
    }

    /// Starts the process and waits until it listens.
    pub async fn start(&self) {
        for attempt in 0.. {
            let settings = self.settings.lock().unwrap().clone();
            let process = settings.run(&["serve"]);
            let began = Instant::now();
            let listens = loop {
                if listening_at(&process.err()).is_some() {
                    break true;
                }
                if process.has_ended() || began.elapsed() > Duration::from_secs(60) {
                    break false;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            };
            if listens {
                *self.process.lock().unwrap() = Some(process);
                return;
            }
            // The dependencies may be unreachable: the process is started again, as by an orchestrator.
            assert!(attempt < 100, "server {} does not start: {}", self.number, process.err());
            self.keep_log(process);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Kills the process with SIGKILL, and waits for its end.
    pub async fn kill(&self) {
        let process = self.process.lock().unwrap().take();
        if let Some(process) = process {
            process.signal("-KILL");
            self.kills.fetch_add(1, Ordering::Relaxed);
            let Ended { out, err, .. } = process.wait_for_end(Duration::from_secs(30)).await;
            self.logs.lock().unwrap().push_str(&(out + &err));
        }
    }

    /// Sends a signal, such as `-STOP`, `-CONT` or `-TERM`.
    pub fn signal(&self, name: &str) {
        self.process.lock().unwrap().as_ref().expect("the server runs").signal(name);
    }

    /// Sends SIGTERM and waits for at most `limit`; returns whether the process exited with success.
    pub async fn stop(&self, limit: Duration) -> bool {
        let process = self.process.lock().unwrap().take().expect("the server runs");
        process.signal("-TERM");
        let Ended { status, out, err } = process.wait_for_end(limit).await;
        self.logs.lock().unwrap().push_str(&(out + &err));
        status.success()
    }

    /// Returns whether the process runs.
    pub fn is_running(&self) -> bool {
        self.process.lock().unwrap().as_ref().is_some_and(|process| !process.has_ended())
    }

    /// Returns the id of the process.
    pub fn pid(&self) -> u32 {
        self.process.lock().unwrap().as_ref().expect("the server runs").id()
    }

    /// Returns the number of SIGKILLs so far.
    pub fn kills(&self) -> u64 {
        self.kills.load(Ordering::Relaxed)
    }

    /// Appends the output of an ended process to `logs`.
    fn keep_log(&self, process: Process) {
        let mut logs = self.logs.lock().unwrap();
        logs.push_str(&process.out());
        logs.push_str(&process.err());
    }

    /// Returns the log output of the current process.
    pub fn log(&self) -> String {
        self.process.lock().unwrap().as_ref().map_or_else(String::new, |process| process.out() + &process.err())
    }
}
