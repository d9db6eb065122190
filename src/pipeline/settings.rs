//! What a pipeline file says about the pipeline as a whole.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::small_files::Rhythm;
use crate::error::{Error, Result};
use crate::retry::RetrySettings;

/// `[pipeline]`: rhythm and limits of the daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PipelineSettings {
    /// Name in logs, lock owners and the Kafka client id.
    pub name: String,
    /// Bronze, silver and rejected are committed this long after the first record of a cycle arrived.
    #[serde(with = "humantime_serde")]
    pub commit_interval: Duration,
    /// A cycle that would leave silver more than eight files of less than 1 MiB on average, because its records belong to many table
    /// partitions, goes on up to this long after its first record. As `commit_interval` or less: it never does. Default: five times
    /// `commit_interval`, 50s at most.
    #[serde(with = "humantime_serde::option", skip_serializing_if = "Option::is_none")]
    pub commit_interval_max: Option<Duration>,
    /// A cycle ends early when the records in it reach this many bytes (keys, values, headers).
    pub commit_bytes: ByteSize,
    /// Most records in one batch between the stages.
    pub batch_rows: usize,
    /// Most bytes in one batch between the stages; a single larger record still makes a batch.
    pub batch_bytes: ByteSize,
    /// Tasks that encode bronze's files, and as many for silver's; what all of them wrote becomes one commit. More than one pays where the
    /// processor has cores to spare; each keeps files of its own open. Default: 1.
    pub workers: usize,
    /// Lead at which a topic partition waits, by Kafka's timestamps: one that is read so far ahead of another which still has records is not
    /// read until that one has come up to half of it. It bounds the windows that gold keeps open when a topic is read that has hours of
    /// records; without gold nobody waits, and in a group each daemon looks at its own partitions. 0s switches it off. Default: 1h.
    #[serde(with = "humantime_serde")]
    pub max_lead: Duration,
    /// How much older than an earlier record of its partition a later one may be: so much less is what tables state to be complete. Exact
    /// with any value where the topic has `message.timestamp.type=LogAppendTime`; else as much as producers hold back. Default: 1m.
    #[serde(with = "humantime_serde")]
    pub allowed_disorder: Duration,
    /// While no records come, tables state their time by a change of metadata at most this often; 0s switches that off. Default: 1m.
    #[serde(with = "humantime_serde")]
    pub completeness_interval: Duration,
    /// After SIGTERM the daemon flushes and commits within this time, then leaves as it is.
    #[serde(with = "humantime_serde")]
    pub shutdown_grace: Duration,
    /// Tries after a failure of a server or the network before the daemon gives up; progress resets the count.
    pub retry: RetrySettings,
}

impl Default for PipelineSettings {
    fn default() -> Self {
        Self {
            name: "lakesmith".into(),
            commit_interval: Duration::from_secs(10),
            commit_interval_max: None,
            commit_bytes: ByteSize::mib(128),
            batch_rows: 16_384,
            batch_bytes: ByteSize::mib(8),
            workers: 1,
            max_lead: Duration::from_secs(3_600),
            allowed_disorder: Duration::from_secs(60),
            completeness_interval: Duration::from_secs(60),
            shutdown_grace: Duration::from_secs(30),
            retry: RetrySettings { attempts: 20, initial_delay: Duration::from_millis(500), max_delay: Duration::from_secs(30) },
        }
    }
}

/// What `commit_interval_max` is by default: so many intervals, but no more than this, so that what a reader sees is less than a minute old.
const INTERVALS_MAX: u32 = 5;
const INTERVAL_MAX: Duration = Duration::from_secs(50);

impl PipelineSettings {
    pub(super) fn rhythm(&self) -> Rhythm {
        let interval = self.commit_interval;
        let longest = self.commit_interval_max.unwrap_or((interval * INTERVALS_MAX).min(INTERVAL_MAX));
        Rhythm { interval, longest: longest.max(interval) }
    }

    /// Refuses values with which the daemon could not run.
    pub fn validate(&self) -> Result<()> {
        let problem = |key: &str, why: &str| Err(Error::config(format!("pipeline.{key} {why}")));
        if self.name.trim().is_empty() {
            return problem("name", "is empty");
        }
        if self.batch_rows == 0 {
            return problem("batch_rows", "must be at least 1");
        }
        if self.batch_bytes.as_u64() < 64 * 1024 || self.batch_bytes > ByteSize::gib(1) {
            return problem("batch_bytes", "must lie between 64KiB and 1GiB");
        }
        if self.commit_bytes < self.batch_bytes {
            return problem("commit_bytes", "must not be smaller than pipeline.batch_bytes");
        }
        if !(1..=64).contains(&self.workers) {
            return problem("workers", "must lie between 1 and 64");
        }
        if self.commit_interval.is_zero() {
            return problem("commit_interval", "must be longer than zero");
        }
        Ok(())
    }
}
