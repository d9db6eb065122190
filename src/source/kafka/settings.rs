//! How to reach Kafka: lakesmith's own settings, and every librdkafka option under its own name.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::source::Assignment;

/// `[source.kafka]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaSettings {
    /// Brokers to ask first, `host:port` separated by commas.
    pub brokers: String,
    /// Consumer group under which committed offsets are shown to lag tools; with `assignment = "group"` also the group that is joined.
    /// Default: lakesmith.
    pub group_id: String,
    /// `all`: this process reads every partition, joins no group, and is the only one that should write to the tables. `group`: the
    /// processes of the consumer group share the partitions among themselves and write to the same tables. Default: all.
    pub assignment: Assignment,
    /// With `assignment = "group"`: this process's name in the group, another one in each. It keeps its partitions over a restart, for as long
    /// as the option `session.timeout.ms` says; without a name others take them when it stops. Default: none.
    pub group_instance_id: Option<String>,
    /// Records fetched ahead, in bytes, for all partitions together. Default: 16MiB.
    pub queue_bytes: ByteSize,
    /// Longest wait for one answer of a broker. Default: 10s.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// No broker reachable for longer than this is an error. Default: 60s.
    #[serde(with = "humantime_serde")]
    pub unavailable_limit: Duration,
    /// How often to look for added partitions. Default: 10s.
    #[serde(with = "humantime_serde")]
    pub partition_check_interval: Duration,
    /// Options of librdkafka under their own names, such as `security.protocol` or `sasl.username`.
    pub options: BTreeMap<String, String>,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            group_id: "lakesmith".to_owned(),
            assignment: Assignment::default(),
            group_instance_id: None,
            queue_bytes: ByteSize::mib(16),
            request_timeout: Duration::from_secs(10),
            unavailable_limit: Duration::from_secs(60),
            partition_check_interval: Duration::from_secs(10),
            options: BTreeMap::new(),
        }
    }
}

/// Options that decide whether each record is read exactly once, or that a setting of lakesmith stands for, with what to do instead.
const OWNED: [(&str, &str); 18] = [
    ("auto.offset.reset", "lakesmith never skips or repeats by itself; use source.start for the beginning"),
    ("enable.auto.commit", "offsets are committed after the table is"),
    ("auto.commit.enable", "offsets are committed after the table is"),
    ("auto.commit.interval.ms", "offsets are committed after the table is"),
    ("enable.auto.offset.store", "offsets are committed after the table is"),
    ("enable.partition.eof", "lakesmith needs the end of a partition to pass transaction markers"),
    ("check.crcs", "set by lakesmith: a damaged record must not reach a table"),
    ("bootstrap.servers", "use source.kafka.brokers"),
    ("metadata.broker.list", "use source.kafka.brokers"),
    ("group.id", "use source.kafka.group_id"),
    ("group.instance.id", "use source.kafka.group_instance_id"),
    ("group.protocol", "lakesmith speaks the classic protocol, which every broker does"),
    ("partition.assignment.strategy", "partitions change hands one by one (cooperative-sticky)"),
    ("queued.max.messages.kbytes", "use source.kafka.queue_bytes"),
    ("allow.auto.create.topics", "use `lakesmith topic create`"),
    ("enable.idempotence", "lakesmith always produces with idempotence"),
    ("acks", "lakesmith always waits for all in-sync replicas"),
    ("request.required.acks", "lakesmith always waits for all in-sync replicas"),
];

/// The most that one fetch brings of all partitions and of one, as a part of the queue: what is on its way when the queue is full comes on
/// top, and a fetch counts its bytes while they are compressed, to a tenth often. A larger record still comes.
const FETCH_PART: u64 = 16;
const FETCH_BYTES_MIN: u64 = 1 << 20;
const FETCH_BYTES_MAX: u64 = 16 << 20;

impl KafkaSettings {
    /// Brokers without anything else set.
    pub fn with_brokers(brokers: impl Into<String>) -> Self {
        Self { brokers: brokers.into(), ..Self::default() }
    }

    pub fn validate(&self) -> Result<()> {
        if self.brokers.trim().is_empty() {
            return Err(
                Error::config("source.kafka.brokers is not set").hint("set source.kafka.brokers or KAFKA_BROKER to host:port")
            );
        }
        if self.group_id.is_empty() {
            return Err(Error::config("source.kafka.group_id is empty").hint("give it a name; lag tools show it"));
        }
        match (&self.group_instance_id, self.assignment) {
            (Some(_), Assignment::All) => {
                return Err(Error::config("source.kafka.group_instance_id is set, but no group is joined")
                    .hint("set source.kafka.assignment = \"group\", or remove it"));
            }
            (Some(id), Assignment::Group) if id.trim().is_empty() => {
                return Err(
                    Error::config("source.kafka.group_instance_id is empty").hint("give each process another name, or remove it")
                );
            }
            _ => {}
        }
        for key in self.options.keys() {
            if let Some((_, instead)) = OWNED.iter().find(|(owned, _)| owned == key) {
                return Err(Error::config(format!("source.kafka.options may not set {key}")).hint(*instead));
            }
        }
        // Names and values are librdkafka's; it says best what is wrong with them.
        self.consumer().create_native_config().map(|_| ()).map_err(|error| match error {
            KafkaError::ClientConfig(_, reason, key, value) => {
                Error::config(format!("source.kafka.options: {key} = `{value}` is not accepted: {reason}"))
                    .hint("the names are those of librdkafka's CONFIGURATION.md")
            }
            other => Error::config("source.kafka.options are not accepted").caused_by(other),
        })
    }

    /// A client with the given defaults, the user's options over them, and over all what lakesmith must decide.
    fn client(&self, defaults: &[Preset<'_>], decided: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (key, _, value) in defaults.iter().filter(|(key, alias, _)| !self.has(key) && !self.has(alias)) {
            config.set(*key, value.as_str());
        }
        for (key, value) in &self.options {
            config.set(key, value);
        }
        if !self.has("socket.timeout.ms") {
            config.set("socket.timeout.ms", millis(self.request_timeout, 1_000, 300_000));
        }
        if !self.has("client.id") {
            config.set("client.id", "lakesmith");
        }
        for (key, value) in decided {
            config.set(*key, *value);
        }
        config.set("bootstrap.servers", &self.brokers).set_log_level(RDKafkaLogLevel::Info);
        config
    }

    fn has(&self, key: &str) -> bool {
        self.options.contains_key(key)
    }

    /// A client for questions about topics.
    pub(super) fn admin(&self) -> ClientConfig {
        self.client(&[], &[])
    }

    /// A consumer that never decides by itself where to read.
    pub(super) fn consumer(&self) -> ClientConfig {
        let queue_bytes = self.queue_bytes.as_u64();
        let fetch_bytes = (queue_bytes / FETCH_PART).clamp(FETCH_BYTES_MIN, FETCH_BYTES_MAX);
        let defaults = [
            ("isolation.level", "", "read_committed".to_owned()),
            ("fetch.max.bytes", "", fetch_bytes.to_string()),
            ("max.partition.fetch.bytes", "fetch.message.max.bytes", fetch_bytes.min(FETCH_BYTES_MIN).to_string()),
            ("fetch.wait.max.ms", "", "100".to_owned()),
            // The queue's size in bytes is the limit, not its length; and a full queue is looked at again soon, since it is read fast.
            ("queued.min.messages", "", "1000000".to_owned()),
            ("fetch.queue.backoff.ms", "", "20".to_owned()),
            ("topic.metadata.refresh.interval.ms", "", millis(self.partition_check_interval, 1_000, 3_600_000)),
        ];
        let queued = (queue_bytes >> 10).clamp(1, 2_097_151).to_string();
        let mut decided = vec![
            ("group.id", self.group_id.as_str()),
            ("auto.offset.reset", "error"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("enable.partition.eof", "true"),
            ("check.crcs", "true"),
            ("queued.max.messages.kbytes", queued.as_str()),
        ];
        if self.assignment == Assignment::Group {
            decided.push(("partition.assignment.strategy", "cooperative-sticky"));
            decided.extend(self.group_instance_id.as_deref().map(|id| ("group.instance.id", id)));
        }
        self.client(&defaults, &decided)
    }

    /// A producer whose records are written once, in order, by all in-sync replicas.
    pub(in crate::source) fn producer(&self) -> ClientConfig {
        let defaults = [
            ("linger.ms", "queue.buffering.max.ms", "20".to_owned()),
            ("compression.type", "compression.codec", "zstd".to_owned()),
            ("batch.size", "", "1000000".to_owned()),
            ("message.max.bytes", "", "16000000".to_owned()),
            // The same key goes to the same partition as from a Java client.
            ("partitioner", "", "murmur2_random".to_owned()),
            ("message.timeout.ms", "delivery.timeout.ms", "120000".to_owned()),
            ("queue.buffering.max.kbytes", "", (self.queue_bytes.as_u64() >> 10).clamp(1_024, 2_097_151).to_string()),
        ];
        self.client(&defaults, &[("enable.idempotence", "true"), ("acks", "all")])
    }
}

/// An option's name, another name that librdkafka knows it by, and the value unless the user sets either.
type Preset<'a> = (&'a str, &'a str, String);

fn millis(duration: Duration, least: u128, most: u128) -> String {
    duration.as_millis().clamp(least, most).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_option(key: &str, value: &str) -> KafkaSettings {
        KafkaSettings { options: BTreeMap::from([(key.to_owned(), value.to_owned())]), ..KafkaSettings::with_brokers("b:9092") }
    }

    #[test]
    fn options_that_lakesmith_must_decide_are_refused_by_name() {
        for (key, _) in OWNED {
            let error = with_option(key, "x").validate().unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Config);
            assert!(error.to_string().contains(key) && error.hint_text().is_some(), "{error}");
        }
    }

    #[test]
    fn other_options_pass_under_their_own_names() {
        with_option("security.protocol", "SASL_SSL").validate().unwrap();
        with_option("isolation.level", "read_uncommitted").validate().unwrap();
        assert_eq!(
            with_option("isolation.level", "read_uncommitted").consumer().get("isolation.level"),
            Some("read_uncommitted")
        );
        assert_eq!(with_option("fetch.wait.max.ms", "7").consumer().get("fetch.wait.max.ms"), Some("7"));
    }

    #[test]
    fn a_name_in_the_group_needs_a_group() {
        let named = KafkaSettings { group_instance_id: Some("one".to_owned()), ..KafkaSettings::with_brokers("b:9092") };
        let error = named.validate().unwrap_err();
        assert!(error.hint_text().unwrap().contains("source.kafka.assignment"), "{error}");
        let joined = KafkaSettings { assignment: Assignment::Group, ..named.clone() };
        joined.validate().unwrap();
        let consumer = joined.consumer();
        assert_eq!(consumer.get("group.instance.id"), Some("one"));
        assert_eq!(consumer.get("partition.assignment.strategy"), Some("cooperative-sticky"));
        assert_eq!(KafkaSettings::with_brokers("b:9092").consumer().get("partition.assignment.strategy"), None);
        let nameless = KafkaSettings { group_instance_id: Some(" ".to_owned()), ..joined };
        assert!(nameless.validate().is_err());
    }

    #[test]
    fn passwords_reach_every_client_as_they_are() {
        let settings = with_option("sasl.password", "s3cret");
        for config in [settings.consumer(), settings.producer(), settings.admin()] {
            assert_eq!(config.get("sasl.password"), Some("s3cret"));
        }
    }

    #[test]
    fn a_name_or_value_that_librdkafka_does_not_know_is_a_configuration_error() {
        for (key, value) in [("fetch.wait.max", "5"), ("fetch.wait.max.ms", "soon")] {
            let error = with_option(key, value).validate().unwrap_err();
            assert_eq!(error.kind(), crate::Kind::Config);
            assert!(error.to_string().contains(key), "{error}");
        }
    }
}
