//! A loop of `valet sweep` processes, separate from any server; the running process can be killed and paused.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::program::Settings;

/// Runs `valet sweep` in a loop, separate from any server.
pub struct Sweeper {
    stop: CancellationToken,
    /// Requested action on the running process: 0 (none), [`KILL`] or [`PAUSE`].
    action: Arc<AtomicU8>,
    kills: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

/// Requested action: SIGKILL.
const KILL: u8 = 1;
/// Requested action: SIGSTOP, and SIGCONT after [`PAUSED`].
const PAUSE: u8 = 2;
/// Duration of a pause.
const PAUSED: Duration = Duration::from_secs(2);

impl Sweeper {
    /// Starts sweeps one after the other until the sweeper is stopped.
    pub fn start(settings: Settings, logs: Arc<Mutex<String>>) -> Self {
        let (stop, action, kills) = (CancellationToken::new(), Arc::new(AtomicU8::new(0)), Arc::new(AtomicU64::new(0)));
        let (stopped, requested, killed) = (stop.clone(), action.clone(), kills.clone());
        let task = tokio::spawn(async move {
            while !stopped.is_cancelled() {
                let process = settings.run(&["sweep"]);
                while !process.has_ended() {
                    match requested.swap(0, Ordering::Relaxed) {
                        KILL => {
                            process.signal("-KILL");
                            killed.fetch_add(1, Ordering::Relaxed);
                        }
                        PAUSE => {
                            process.signal("-STOP");
                            tokio::time::sleep(PAUSED).await;
                            process.signal("-CONT");
                        }
                        _ => {}
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                logs.lock().unwrap().push_str(&(process.out() + &process.err()));
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        });
        Self { stop, action, kills, task }
    }

    /// Ends the loop after the running sweep.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// Sends SIGKILL to the running sweep; the next one starts soon.
    pub fn kill(&self) {
        self.action.store(KILL, Ordering::Relaxed);
    }

    /// Sends SIGSTOP to the running sweep, and SIGCONT some seconds later.
    pub fn pause(&self) {
        self.action.store(PAUSE, Ordering::Relaxed);
    }

    /// Returns the number of SIGKILLs so far.
    pub fn kills(&self) -> u64 {
        self.kills.load(Ordering::Relaxed)
    }
}
