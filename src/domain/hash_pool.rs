//! A bounded pool of threads for hashing passwords. A caller beyond its fair share is refused at once; others wait in turn.

use std::{sync::Arc, time::Duration};

use tracing::Instrument;

use super::shares::{Share, Shares};
use crate::{
    metrics::METRICS,
    model::{NetworkPrefix, RequestOrigin, UserId},
    store::fair_semaphore::FairSemaphore,
    telemetry::spans,
};

/// Too much work is queued, or the caller has more than its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being checked at once")]
pub struct Overloaded;

/// Queued tasks per thread, at most. Networks take turns, and within a network its users, so a long queue delays only the callers
/// that fill it.
const QUEUE_PER_PERMIT: usize = 32;
/// Maximum wait for a thread.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// Numbers of tasks in a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLoad {
    /// Tasks that run.
    pub running: usize,
    /// Tasks that wait.
    pub waiting: usize,
}

/// Runs work on tokio's blocking pool, a bounded number of tasks at a time.
#[derive(Debug, Clone)]
pub struct HashPool {
    name: &'static str,
    /// Permits to run a task, by network and user.
    threads: Arc<FairSemaphore<NetworkPrefix, Option<UserId>>>,
    /// Running and queued tasks by network. A single network may fill half of the queue.
    sites: Arc<Shares<NetworkPrefix>>,
    /// The same tasks by user. A single user may fill a third of the queue.
    users: Arc<Shares<UserId>>,
}

/// Permit to queue and run work; released when the last copy is dropped.
#[derive(Debug, Clone)]
pub struct HashPermit(Arc<Held>);

/// Shares of the queue that a permit takes.
#[derive(Debug)]
struct Held {
    holder: RequestOrigin,
    _of_site: Share<NetworkPrefix>,
    _of_user: Option<Share<UserId>>,
}

impl HashPool {
    /// Creates a pool that runs `permits` tasks at a time; `name` is the name of their spans.
    #[must_use]
    pub fn new(name: &'static str, permits: usize) -> Self {
        let capacity = permits * (1 + QUEUE_PER_PERMIT);
        Self {
            name,
            threads: FairSemaphore::new(permits, permits),
            sites: Shares::new(capacity),
            users: Shares::divided(capacity, 2),
        }
    }

    /// Returns the numbers of tasks.
    #[must_use]
    pub fn load(&self) -> PoolLoad {
        let running = self.threads.running();
        PoolLoad { running, waiting: self.sites.taken().saturating_sub(running) }
    }

    /// Acquires a permit to queue a task.
    ///
    /// # Errors
    /// [`Overloaded`] at once if the holder's network or user has used up its share of the queue.
    pub fn acquire(&self, holder: RequestOrigin) -> Result<HashPermit, Overloaded> {
        let site_permit = self.sites.take(holder.site, 1).ok_or_else(refused)?;
        let user_permit = holder.user.map(|user| self.users.take(user, 1).ok_or_else(refused)).transpose()?;
        Ok(HashPermit(Arc::new(Held { holder, _of_site: site_permit, _of_user: user_permit })))
    }

    /// Runs the work as soon as a thread is free for it. Started work runs to its end: a client that disconnects cancels the
    /// request, not the work.
    ///
    /// # Errors
    /// [`Overloaded`] if no thread becomes free in time.
    pub async fn run<T: Send + 'static>(
        &self,
        permit: &HashPermit,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Overloaded> {
        self.wait_and_run(permit.clone(), work).instrument(spans::internal(self.name)).await
    }

    /// Waits for a thread, then runs `work` on it.
    async fn wait_and_run<T: Send + 'static>(
        &self,
        permit: HashPermit,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Overloaded> {
        let RequestOrigin { site, user } = permit.0.holder;
        let thread = tokio::time::timeout(MAX_WAIT, self.threads.acquire(site, user)).await.map_err(|_| refused())?;
        let work = tokio::task::spawn_blocking(move || {
            let _held = (thread, permit);
            work()
        });
        work.await.map_err(|error| match error.try_into_panic() {
            // A panic does not mean overload: it is resumed, and caught like every handler's panic.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Overloaded,
        })
    }
}

/// Counts a rejected task, and returns the error.
fn refused() -> Overloaded {
    METRICS.hashes_refused.inc();
    Overloaded
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A panic during hashing fails the request, and releases the permit and the thread.
    #[tokio::test]
    async fn panicking_task_is_not_an_overload_and_releases_its_permit() {
        let pool = HashPool::new("test", 1);
        let holder =
            RequestOrigin { site: NetworkPrefix::site(std::net::IpAddr::from([192, 0, 2, 1])), user: Some(UserId::new()) };
        for _ in 0..3 {
            let pool = pool.clone();
            let permit = pool.acquire(holder).unwrap();
            let work = tokio::spawn(async move { pool.run(&permit, || panic!("a fault")).await });
            assert!(work.await.unwrap_err().is_panic());
        }
        assert_eq!(pool.load(), PoolLoad { running: 0, waiting: 0 });
        assert_eq!(pool.run(&pool.acquire(holder).unwrap(), || 7).await, Ok(7));
    }
}
