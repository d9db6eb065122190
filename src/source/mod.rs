//! Where records come from: a Kafka topic, a file, or the built-in generator, all with the same notion of offset.
//!
//! # Exactly once, seen from the source
//!
//! A source keeps no progress of its own. Progress is the checkpoint that a table commits in the same atomic change as the rows, so a
//! source only has to be *addressable*: told to stand at offset *n* of a partition, it hands out the same records from *n* on, every time.
//!
//! ```text
//!   table:  "partition 0 continues at 120"          the only memory there is
//!      │
//!      ▼  assign {0: 120}
//!   source ── poll ──▶ RawBatch { delta: 0 covers [120, 180), 57 records }
//!      ▲                   │  transform, write, commit
//!      │                   ▼
//!      └──────────── table: "partition 0 continues at 180", together with the 57 rows
//! ```
//!
//! | what is killed, and when | what the next start does |
//! |---|---|
//! | before the commit | `assign {0: 120}`: the same 57 records again; none of them is in the table |
//! | after the commit | `assign {0: 180}`: none of them again |
//! | a commit of unknown outcome | the table is looked up first; then one of the two above |
//! | a second daemon commits `[120, 150)` first | this batch is refused as a whole; `assign {0: 150}` |
//!
//! A batch says which offsets it covers, not only which it holds: 57 records in 60 offsets means that three have no record (transaction
//! markers, aborted or compacted data). The next batch begins where the range ends, not behind the last record.
//!
//! What Kafka itself remembers (the offsets of a consumer group) is written for lag tools after the fact and never read.
//!
//! *Invariants*: a batch begins exactly where the previous one of the same assignment ended; a record is handed out once per assignment;
//! a source never moves a position by itself (no reset to the earliest or latest record): if the next offset is not there any more, it
//! stops and says so, or, where [`OnDataLoss::Skip`] is configured, passes the gap as a range without records and says that. `poll` may be dropped half-way: what was read then comes with the next call.
//!
//! *Failure*: a broker that is away for a while is waited for ([`Source::poll`] returns `None`); one that stays away is a transient
//! error; a position that the source cannot honour, or another topic under the same name, is an error that only a person can resolve.

mod batch;
pub mod file;
pub mod generator;
mod group;
pub mod kafka;
pub mod messages;
pub mod produce;
mod start;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{OffsetRange, PartitionId};
use crate::completeness::Sighting;
use crate::error::{Error, Result};
use crate::record::RawBatch;

pub use batch::{Appended, RawBatchBuilder, now_us};
pub use file::{FileFormat, FileSettings, FileSource};
pub use generator::{GeneratorSettings, GeneratorSource};
pub use group::{Assignment, Change};
pub use kafka::{KafkaSettings, KafkaSource, topic};
pub use start::Start;
pub use worker::Stop;

/// Which topic a source reads. The ids tell a topic that was deleted and created again from the one that a table was filled from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceIdentity {
    pub topic: String,
    /// Kafka's topic id, or a hash that stands for a file's or a generator's content; none from brokers before 2.8.
    pub topic_id: Option<String>,
    pub cluster_id: Option<String>,
}

/// How much one [`Source::poll`] returns at most, and how long it waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollLimits {
    pub max_rows: usize,
    /// Bytes of keys, values and headers. A single record may be larger.
    pub max_bytes: usize,
    /// A batch is returned when one of the limits is met, when this time has passed, or when nothing more is there to read.
    pub max_wait: Duration,
}

impl Default for PollLimits {
    fn default() -> Self {
        Self { max_rows: 100_000, max_bytes: 64 << 20, max_wait: Duration::from_millis(500) }
    }
}

/// A sequence of records in partitions that can be read from any offset; the module head says what is asked of it.
#[async_trait]
pub trait Source: Send + Sync {
    /// The topic as found when the source was opened.
    fn identity(&self) -> &SourceIdentity;

    /// Earliest and end offset of every partition there is now, partitions added since the last call included. The end is where a
    /// reader's position arrives: for committed data only (Kafka's default here) it stays before an open transaction.
    async fn watermarks(&self) -> Result<BTreeMap<PartitionId, OffsetRange>>;

    /// Where all partitions end now, records of open transactions included: a reader that has reached that end has everything that was
    /// there. Of a source without transactions the watermarks say it.
    async fn sighting(&self) -> Result<Sighting> {
        let at_ms = now_us() / 1_000;
        let ends = self.watermarks().await?.into_iter().map(|(partition, range)| (partition, range.end)).collect();
        Ok(Sighting { at_ms, ends })
    }

    /// Continues at the given offsets. Partitions that exist but are not named, and such that are added later, begin at their earliest
    /// offset; with an empty map, at the configured [`Start`]. May be called again at any time, also after an error.
    async fn assign(&mut self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<()>;

    /// The next records; none if nothing new came within the wait. A batch may have no rows and still move positions.
    /// Dropping the future loses nothing.
    async fn poll(&mut self, limits: &PollLimits) -> Result<Option<RawBatch>>;

    /// Reads none of these partitions until it is called again without them. A poll may still bring what was fetched of them. An assignment
    /// ends it. A source that reads all its partitions together has nothing to pause.
    async fn pause(&mut self, _partitions: &BTreeSet<PartitionId>) -> Result<()> {
        Ok(())
    }

    /// By partition, the offset that follows what [`Source::poll`] has returned.
    fn positions(&self) -> BTreeMap<PartitionId, i64>;

    /// Where each partition begins if no table knows anything of the topic: at the configured [`Start`].
    async fn beginnings(&self) -> Result<BTreeMap<PartitionId, i64>> {
        Ok(self.watermarks().await?.into_iter().map(|(partition, range)| (partition, range.start)).collect())
    }

    /// The partitions that are this process's to read; none if all are. Of a source that shares them, [`Source::assign`] joins the group
    /// and gives none yet: they come as a [`Change`].
    fn owned(&self) -> Option<BTreeSet<PartitionId>> {
        None
    }

    /// The change of partitions that waits for its answer. Until then [`Source::poll`] returns nothing.
    fn change(&self) -> Option<Change> {
        None
    }

    /// Answers the change that waits. Partitions that come continue at `next_offsets`, or, not named there, at their earliest offset.
    async fn answer(&mut self, _next_offsets: &BTreeMap<PartitionId, i64>) -> Result<()> {
        Ok(())
    }

    /// Continues what is owned at other offsets, which its table has named since; what was read beyond them comes again.
    async fn resume(&mut self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<()> {
        self.assign(next_offsets).await
    }

    /// Lets others have what is owned, as the end of a run should. Nothing is read afterwards.
    async fn leave(&mut self) {}

    /// Tells the outside world (lag tools) how far the tables are. Never waits and never fails the pipeline.
    fn mark_committed(&self, next_offsets: &BTreeMap<PartitionId, i64>);

    /// Whether the source ends: once positions have reached the watermarks, nothing more will come.
    fn bounded(&self) -> bool;
}

/// The kinds of source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    #[default]
    Kafka,
    File,
    Generator,
}

/// What to do when the next offset is gone from the topic, because its retention was shorter than the pipeline's absence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDataLoss {
    /// Stop, and let a person decide.
    #[default]
    Fail,
    /// Go on at the earliest offset, and say what is missing.
    Skip,
}

/// Where the pipeline reads from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceSettings {
    /// `kafka`, `file` or `generator`; the table of that name below holds its settings. Default: kafka.
    pub kind: SourceKind,
    /// Topic to read. A file without a topic is known by its path as configured. Default: supermarket-sales.
    pub topic: String,
    /// Where a table without any progress begins: `earliest`, `latest`, an instant (`2025-01-01T00:00:00Z`, Kafka only) or
    /// `partition:offset` pairs (`0:100,1:250`). Default: earliest.
    pub start: Start,
    /// What to do when Kafka has dropped records that were not read yet: `fail` stops, `skip` goes on at the earliest offset there is;
    /// the gap stays in the table's offsets as a range without records, and in the log. Default: fail.
    pub on_data_loss: OnDataLoss,
    pub kafka: KafkaSettings,
    pub file: FileSettings,
    pub generator: GeneratorSettings,
}

/// The topic of the shipped preset.
pub const DEFAULT_TOPIC: &str = "supermarket-sales";

impl Default for SourceSettings {
    fn default() -> Self {
        Self {
            kind: SourceKind::default(),
            topic: DEFAULT_TOPIC.to_owned(),
            start: Start::default(),
            on_data_loss: OnDataLoss::default(),
            kafka: KafkaSettings::default(),
            file: FileSettings::default(),
            generator: GeneratorSettings::default(),
        }
    }
}

impl SourceSettings {
    /// Whether other processes may read the topic's other partitions.
    pub fn shares_partitions(&self) -> bool {
        self.kind == SourceKind::Kafka && self.kafka.assignment == Assignment::Group
    }

    /// What can be said about the settings without touching a network or a file.
    pub fn validate(&self) -> Result<()> {
        if self.topic.is_empty() && self.kind != SourceKind::File {
            return Err(Error::config("source.topic is not set").hint("set source.topic to the name of the topic to read"));
        }
        match self.kind {
            SourceKind::Kafka => self.kafka.validate(),
            SourceKind::File => self.file.validate(),
            SourceKind::Generator => self.generator.validate(),
        }
    }
}

/// Opens the configured source; its servers or files must be there.
pub async fn open(settings: &SourceSettings) -> Result<Box<dyn Source>> {
    settings.validate()?;
    Ok(match settings.kind {
        SourceKind::Kafka => {
            Box::new(KafkaSource::open_with(&settings.kafka, &settings.topic, &settings.start, settings.on_data_loss).await?)
        }
        SourceKind::File => Box::new(FileSource::open(&settings.file, &settings.topic, &settings.start).await?),
        SourceKind::Generator => Box::new(GeneratorSource::open(&settings.generator, &settings.topic, &settings.start)?),
    })
}

/// Runs work that blocks (librdkafka, files) beside the asynchronous runtime.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::failed("a background task of the source ended unexpectedly").caused_by(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_back_as_written_and_refuse_unknown_keys() {
        let text = toml::to_string(&SourceSettings::default()).unwrap();
        assert_eq!(toml::from_str::<SourceSettings>(&text).unwrap(), SourceSettings::default());
        let error = toml::from_str::<SourceSettings>("kind = \"kafka\"\n[kafka]\nbroker = \"a:1\"\n").unwrap_err();
        assert!(error.to_string().contains("broker"), "{error}");
    }

    #[test]
    fn kafka_without_brokers_is_a_configuration_error() {
        let error = SourceSettings::default().validate().unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Config);
        assert!(error.to_string().contains("source.kafka.brokers"), "{error}");
    }
}
