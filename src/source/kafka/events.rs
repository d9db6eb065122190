//! What librdkafka reports beside records: log lines, broker errors, outcomes of offset commits.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};

use super::membership::Membership;

/// Keeps what the consumer has to know of librdkafka's reports and passes on the rest to the log.
#[derive(Debug, Default)]
pub(in crate::source) struct Events {
    /// Since when no broker has been reachable.
    down_since: Mutex<Option<Instant>>,
    /// The last error that came, in librdkafka's words; one that says why rather than that all brokers are down.
    last_error: Mutex<String>,
    commit_failed: AtomicBool,
    /// What the consumer group has decided about our partitions.
    membership: Membership,
}

impl Events {
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// An error of the client as a whole.
    pub fn failed(&self, code: i32, reason: &str) {
        let all_down = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN as i32;
        if let Ok(mut last) = self.last_error.lock()
            && (!all_down || last.is_empty())
        {
            reason.clone_into(&mut last);
        }
        if all_down {
            if let Ok(mut since) = self.down_since.lock()
                && since.is_none()
            {
                *since = Some(Instant::now());
                tracing::warn!(reason, "no kafka broker can be reached, waiting");
            }
        } else {
            tracing::debug!(code, reason, "kafka reports an error that its client deals with");
        }
    }

    /// A broker has answered.
    pub fn reached(&self) {
        if let Ok(mut since) = self.down_since.lock()
            && let Some(since) = since.take()
        {
            tracing::info!(seconds = since.elapsed().as_secs(), "kafka can be reached again");
        }
    }

    /// For how long no broker has been reachable.
    pub fn down_for(&self) -> Option<Duration> {
        self.down_since.lock().ok().and_then(|since| since.map(|since| since.elapsed()))
    }

    pub fn last_error(&self) -> String {
        self.last_error.lock().map(|last| last.clone()).unwrap_or_default()
    }

    /// The outcome of committing consumer-group offsets: said once, because only lag tools miss them.
    pub fn committed(&self, code: RDKafkaErrorCode) {
        let failed = match code {
            RDKafkaErrorCode::NoError | RDKafkaErrorCode::NoOffset => false,
            // Partitions change hands: their next owner commits what this one could not.
            RDKafkaErrorCode::RebalanceInProgress
            | RDKafkaErrorCode::IllegalGeneration
            | RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::BrokerDestroy => return,
            _ => true,
        };
        let failed_before = self.commit_failed.swap(failed, Ordering::Relaxed);
        if failed && !failed_before {
            tracing::warn!(error = %code, "consumer-group offsets could not be committed; lag tools show old offsets, tables are not affected");
        }
    }

    /// A log line of librdkafka. What it calls an error is mostly a broker going away, which it deals with by itself.
    pub fn logged(&self, level: i32, facility: &str, line: &str) {
        match level {
            0..=2 => tracing::error!(target: "librdkafka", facility, "{line}"),
            3..=5 => tracing::debug!(target: "librdkafka", facility, severity = level, "{line}"),
            _ => tracing::trace!(target: "librdkafka", facility, "{line}"),
        }
    }
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.logged(level as i32, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().map_or(RDKafkaRespErr::RD_KAFKA_RESP_ERR__FAIL as i32, |code| code as i32);
        self.failed(code, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_loss_of_all_brokers_counts_as_down_until_one_answers() {
        let events = Events::default();
        events.failed(RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT as i32, "one broker");
        assert!(events.down_for().is_none());
        events.failed(RDKafkaRespErr::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN as i32, "1/1 brokers are down");
        assert!(events.down_for().is_some());
        assert_eq!(events.last_error(), "one broker");
        events.reached();
        assert!(events.down_for().is_none());
    }
}
