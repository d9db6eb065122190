//! Waiting: deadlines for remote calls, and the pauses between tries. The one place in lakesmith that sleeps.
//!
//! *Invariants*: every loop over a remote call is bounded by a [`Backoff`]; every remote call has a deadline.

use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{self, jitter};
use crate::error::{Error, Result};

/// How often and how patiently something is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySettings {
    /// Tries in all, the first one included.
    pub attempts: u32,
    /// Pause before the second try; it doubles from there.
    #[serde(with = "humantime_serde")]
    pub initial_delay: Duration,
    /// No pause is longer than this.
    #[serde(with = "humantime_serde")]
    pub max_delay: Duration,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self { attempts: 8, initial_delay: Duration::from_millis(100), max_delay: Duration::from_secs(10) }
    }
}

/// The state of one retried operation.
#[derive(Debug)]
pub struct Backoff {
    settings: RetrySettings,
    tries: u32,
}

impl Backoff {
    pub fn new(settings: &RetrySettings) -> Self {
        Self { settings: settings.clone(), tries: 1 }
    }

    /// The number of the try under way, from 1.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Waits before the next try, between half and all of the doubled delay; false when the tries are used up (without waiting).
    pub async fn wait(&mut self) -> bool {
        let Some(delay) = self.next_delay() else { return false };
        sleep(delay).await;
        true
    }

    /// The pause before the next try, for callers that wait by themselves; none when the tries are used up.
    pub fn pause(&mut self) -> Option<Duration> {
        self.next_delay()
    }

    fn next_delay(&mut self) -> Option<Duration> {
        if self.tries >= self.settings.attempts {
            return None;
        }
        let doubled = self.settings.initial_delay.saturating_mul(1u32 << (self.tries - 1).min(20));
        self.tries += 1;
        let cap = doubled.min(self.settings.max_delay);
        Some(cap.mul_f64(jitter()))
    }
}

/// Pauses the current task.
pub async fn sleep(duration: Duration) {
    clock::sleep(duration).await;
}

/// Runs a remote call under a deadline. When it passes, the call's outcome is unknown to the caller.
pub async fn with_deadline<T>(what: &str, deadline: Duration, call: impl Future<Output = T>) -> Result<T> {
    clock::timeout(deadline, call)
        .await
        .map_err(|_| Error::transient(format!("{what} did not answer within {}", humantime::format_duration(deadline))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_cap_and_end() {
        let settings =
            RetrySettings { attempts: 4, initial_delay: Duration::from_millis(100), max_delay: Duration::from_millis(150) };
        let mut backoff = Backoff::new(&settings);
        let delays: Vec<_> = std::iter::from_fn(|| backoff.next_delay()).collect();
        assert_eq!(delays.len(), 3);
        assert!((50..=100).contains(&delays[0].as_millis()));
        assert!(delays[1..].iter().all(|delay| (75..=150).contains(&delay.as_millis())));
    }

    #[tokio::test]
    async fn a_passed_deadline_names_the_call() {
        let error = with_deadline("get_table", Duration::from_millis(5), std::future::pending::<()>()).await.unwrap_err();
        assert_eq!(error.to_string(), "get_table did not answer within 5ms");
    }
}
