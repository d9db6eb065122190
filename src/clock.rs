//! What time it is, waiting for a later time, and the chance by which pauses differ. In a simulation on this thread, none of them is real.
//!
//! A simulated clock stands still until [`advance`] is called, which the tests do whenever nothing else can go on: a history with hours of
//! timeouts takes milliseconds, and the same seed gives the same history. Tokio's own paused clock would do as much, but comes with a
//! feature that changes how tokio is compiled for everything that stands on it.
//!
//! *Invariants*: what decides about retries, deadlines and locks takes its time from here; `Instant::elapsed` would ask the real clock.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
pub use tokio::time::Instant;

struct Simulated {
    now: Instant,
    timers: BTreeMap<(Instant, u64), Waker>,
    /// Timers that were ever set: those of one instant go off in the order in which they were set.
    set: u64,
    chance: ChaCha8Rng,
}

thread_local! {
    static SIMULATED: RefCell<Option<Simulated>> = const { RefCell::new(None) };
}

/// The deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

/// From here on, time and chance on this thread are simulated.
#[doc(hidden)]
pub fn simulate(seed: u64) {
    let chance = ChaCha8Rng::seed_from_u64(seed);
    let simulated = Simulated { now: Instant::now(), timers: BTreeMap::new(), set: 0, chance };
    SIMULATED.replace(Some(simulated));
}

/// Moves a simulated clock on to the next timer and sets it off; false if there is none.
#[doc(hidden)]
pub fn advance() -> bool {
    let next = SIMULATED.with_borrow_mut(|simulated| {
        let simulated = simulated.as_mut()?;
        let ((at, _), waker) = simulated.timers.pop_first()?;
        simulated.now = simulated.now.max(at);
        Some(waker)
    });
    // Outside of the borrow: whoever is woken may look at the clock.
    next.map(Waker::wake).is_some()
}

pub fn now() -> Instant {
    SIMULATED.with_borrow(|simulated| simulated.as_ref().map(|simulated| simulated.now)).unwrap_or_else(Instant::now)
}

/// The time that has passed since `instant`.
pub fn since(instant: Instant) -> Duration {
    now().saturating_duration_since(instant)
}

/// Pauses the current task.
pub async fn sleep(duration: Duration) {
    match now().checked_add(duration) {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Instant) {
    if SIMULATED.with_borrow(Option::is_none) {
        return tokio::time::sleep_until(at).await;
    }
    let mut timer = Timer { key: None };
    poll_fn(|context| {
        SIMULATED.with_borrow_mut(|simulated| {
            let Some(simulated) = simulated.as_mut().filter(|simulated| simulated.now < at) else { return Poll::Ready(()) };
            let key = *timer.key.get_or_insert_with(|| {
                simulated.set += 1;
                (at, simulated.set)
            });
            simulated.timers.insert(key, context.waker().clone());
            Poll::Pending
        })
    })
    .await;
}

/// A place among the timers, given up on drop.
struct Timer {
    key: Option<(Instant, u64)>,
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            SIMULATED.with_borrow_mut(|simulated| simulated.as_mut().and_then(|simulated| simulated.timers.remove(&key)));
        }
    }
}

/// Runs a future until a deadline; what is ready at the deadline is in time.
pub async fn timeout_at<T>(deadline: Instant, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    if SIMULATED.with_borrow(Option::is_none) {
        return tokio::time::timeout_at(deadline, future).await.map_err(|_| Elapsed);
    }
    let (mut future, mut passed) = (pin!(future), pin!(sleep_until(deadline)));
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Ok(value)),
        Poll::Pending => passed.as_mut().poll(context).map(|()| Err(Elapsed)),
    })
    .await
}

/// Runs a future for at most that long.
pub async fn timeout<T>(within: Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    match now().checked_add(within) {
        Some(deadline) => timeout_at(deadline, future).await,
        None => Ok(future.await),
    }
}

/// A number between one half and one: what spreads those who would otherwise all come back at the same time.
pub fn jitter() -> f64 {
    const SPREAD: std::ops::RangeInclusive<f64> = 0.5..=1.0;
    SIMULATED.with_borrow_mut(|simulated| match simulated {
        Some(simulated) => simulated.chance.random_range(SPREAD),
        None => rand::rng().random_range(SPREAD),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs on a thread and a runtime of its own, as the simulation does.
    fn simulated<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
        let run = move || {
            simulate(1);
            run()
        };
        std::thread::spawn(run).join().unwrap()
    }

    #[test]
    fn a_simulated_day_passes_at_once_and_the_same_each_time() {
        let day = || {
            let runtime = tokio::runtime::Builder::new_current_thread().on_thread_park(|| _ = advance()).build().unwrap();
            let begun = now();
            runtime.block_on(async {
                let late = tokio::spawn(async {
                    sleep(Duration::from_secs(86_400)).await;
                    since(now())
                });
                assert_eq!(timeout(Duration::from_secs(5), std::future::pending::<()>()).await, Err(Elapsed));
                assert_eq!(timeout(Duration::from_secs(5), sleep(Duration::from_secs(5))).await, Ok(()));
                late.await.unwrap()
            });
            (since(begun), jitter().to_bits(), advance())
        };
        let first = simulated(day);
        assert_eq!((first.0, first.2), (Duration::from_secs(86_400), false));
        assert_eq!(simulated(day), first);
    }

    #[tokio::test]
    async fn without_a_simulation_time_is_real() {
        let begun = Instant::now();
        sleep(Duration::from_millis(5)).await;
        assert!(begun.elapsed() >= Duration::from_millis(5) && since(begun) >= Duration::from_millis(5));
        assert_eq!(timeout(Duration::from_millis(1), std::future::pending::<()>()).await, Err(Elapsed));
        assert!(!advance() && (0.5..=1.0).contains(&jitter()));
    }
}
