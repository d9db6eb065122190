//! Many closes, awaited once.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::error::{Result, StorageError};
use super::local;
use super::writer::{Published, Tell, interrupted};

/// Collects the closes of a commit's files, which run at the same time, each to its end. A clone is the same barrier.
///
/// *Invariants*: [`CloseBarrier::wait`] returns after every close handed in before it has ended or passed its deadline, never earlier, also when
/// one of them fails; it then reports the first failure. A cancelled wait loses nothing. After a wait the barrier is empty and may be used again.
#[derive(Clone, Default)]
pub struct CloseBarrier {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    pending: usize,
    first_error: Option<StorageError>,
    /// Synced by the wait, once each, however many files they got.
    directories: BTreeSet<PathBuf>,
    call_timeout: Duration,
}

impl CloseBarrier {
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until every file handed in is durable; the first failure is the result.
    pub async fn wait(&self) -> Result<(), StorageError> {
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            if self.shared.lock().pending == 0 {
                break;
            }
            changed.await;
        }
        let (directories, call_timeout) = {
            let mut state = self.shared.lock();
            if let Some(error) = state.first_error.take() {
                state.directories.clear();
                return Err(error);
            }
            (state.directories.clone(), state.call_timeout)
        };
        local::sync_directories(directories.iter().cloned().collect(), call_timeout).await?;
        self.shared.lock().directories.retain(|directory| !directories.contains(directory));
        Ok(())
    }

    /// Closes that have not ended yet.
    pub fn pending(&self) -> usize {
        self.shared.lock().pending
    }

    /// Registers a close; its outcome is due through the function returned.
    pub(super) fn expect_close(&self, location: &str, call_timeout: Duration) -> Tell {
        let mut state = self.shared.lock();
        state.pending += 1;
        state.call_timeout = state.call_timeout.max(call_timeout);
        drop(state);
        let ticket = Ticket { shared: Arc::clone(&self.shared), location: location.to_owned(), outcome: None };
        Box::new(move |outcome| ticket.settle(outcome))
    }
}

impl fmt::Debug for CloseBarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloseBarrier").field("pending", &self.pending()).finish()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One close's place in the barrier. It is given back on drop, so that a close that died with its runtime is an error and not a wait for ever.
struct Ticket {
    shared: Arc<Shared>,
    location: String,
    outcome: Option<Result<Published>>,
}

impl Ticket {
    fn settle(mut self, outcome: Result<Published>) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or_else(|| Err(interrupted(&self.location)));
        let mut state = self.shared.lock();
        state.pending -= 1;
        match outcome {
            Ok(published) => state.directories.extend(published.directories),
            Err(error) if state.first_error.is_none() => state.first_error = Some(error),
            Err(error) => tracing::debug!(location = self.location, %error, "another close failed"),
        }
        drop(state);
        self.shared.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn failed(location: &str) -> Result<Published> {
        Err(StorageError::NotFound { location: location.to_owned() })
    }

    #[tokio::test]
    async fn every_close_is_awaited_and_the_first_error_reported() {
        let barrier = CloseBarrier::new();
        let closes: Vec<Tell> = (0..3).map(|at| barrier.expect_close(&format!("/{at}"), Duration::from_secs(1))).collect();
        let mut wait = Box::pin(barrier.wait());
        let mut closes = closes.into_iter();
        closes.next().unwrap()(failed("/0"));
        assert!(wait.as_mut().now_or_never().is_none(), "two closes are still running");
        closes.next().unwrap()(failed("/1"));
        closes.next().unwrap()(Ok(Published::default()));
        assert!(matches!(wait.await, Err(StorageError::NotFound { location }) if location == "/0"));
        barrier.wait().await.unwrap();
    }

    #[tokio::test]
    async fn a_cancelled_wait_loses_no_error() {
        let barrier = CloseBarrier::new();
        let close = barrier.expect_close("/a", Duration::from_secs(1));
        assert!(barrier.wait().now_or_never().is_none());
        close(failed("/a"));
        assert!(barrier.clone().wait().await.is_err());
    }

    #[tokio::test]
    async fn a_close_that_dies_unheard_is_an_error() {
        let barrier = CloseBarrier::new();
        drop(barrier.expect_close("/a", Duration::from_secs(1)));
        assert!(matches!(barrier.wait().await, Err(StorageError::Panicked { .. })));
        assert_eq!(barrier.pending(), 0);
    }
}
