//! A sweeper apart from any server, as a process that can be killed and paused.

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

/// `valet sweep` again and again, apart from any server.
pub struct Sweeper {
    stop: CancellationToken,
    wish: Arc<AtomicU8>,
    killed: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

/// What is to be done to the sweep of this moment.
const KILL: u8 = 1;
const PAUSE: u8 = 2;
/// How long a paused sweep stands still.
const PAUSED: Duration = Duration::from_secs(2);

impl Sweeper {
    pub fn start(settings: Settings, logs: Arc<Mutex<String>>) -> Self {
        let (stop, wish, killed) = (CancellationToken::new(), Arc::new(AtomicU8::new(0)), Arc::new(AtomicU64::new(0)));
        let (stopped, wishes, were) = (stop.clone(), wish.clone(), killed.clone());
        let task = tokio::spawn(async move {
            while !stopped.is_cancelled() {
                let process = settings.run(&["sweep"]);
                while !process.has_ended() {
                    match wishes.swap(0, Ordering::Relaxed) {
                        KILL => {
                            process.signal("-KILL");
                            were.fetch_add(1, Ordering::Relaxed);
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
        Self { stop, wish, killed, task }
    }

    /// After the sweep of this moment.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// SIGKILL to the sweep of this moment; the next begins soon.
    pub fn kill(&self) {
        self.wish.store(KILL, Ordering::Relaxed);
    }

    /// SIGSTOP to it, and SIGCONT some seconds later.
    pub fn pause(&self) {
        self.wish.store(PAUSE, Ordering::Relaxed);
    }

    /// SIGKILLs so far.
    pub fn kills(&self) -> u64 {
        self.killed.load(Ordering::Relaxed)
    }
}
