//! A Kafka topic as a source.
//!
//! By default the consumer assigns itself all partitions and joins no group: the table is the fence between two daemons, and a restart
//! waits for no rebalance. With `assignment = "group"` it joins one and reads its share ([`membership`]). Every option of librdkafka passes under its own name, except those on which exactly-once depends.
//!
//! Records are taken from librdkafka thousands at a time and copied once, from its fetch buffer into the Arrow columns. Back-pressure is
//! not polling: librdkafka fetches until `queue_bytes` are full, then waits.
//!
//! *Invariants*: `auto.offset.reset=error` always. A position passes offsets without a record only when a later record or the end of the
//! partition (by default the last stable offset) proves that nothing is there to read. Before a batch is handed out the topic's id is
//! checked, so records of a topic that was created again never reach a table.
//!
//! *Failure*: brokers that go away are waited for up to `unavailable_limit`, then the error is transient. An offset that Kafka does not
//! have, a topic that is gone, was created again or may not be read: stop. With `on_data_loss = "skip"`, offsets that Kafka has dropped
//! (retention, DeleteRecords) are passed, with a warning; an offset beyond the end stops all the same.
//!
//! *What may leak*: nothing. Consumer-group offsets may lag behind the tables when the process is killed; only lag tools read them.

mod describe;
mod ends;
mod events;
mod failure;
mod membership;
mod native;
mod reader;
mod settings;
pub mod topic;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;

use super::worker::Worker;
use super::{Assignment, Change, OnDataLoss, PollLimits, Source, SourceIdentity, Start, blocking, now_us};
use crate::checkpoint::{OffsetRange, PartitionId};
use crate::completeness::Sighting;
use crate::error::{Context, Result};
use crate::record::RawBatch;

pub(super) use events::Events;
pub use settings::KafkaSettings;

use describe::Topic;
use native::Consumer;
use reader::Reader;

pub struct KafkaSource {
    identity: SourceIdentity,
    topic: Topic,
    assignment: Assignment,
    worker: Worker<Reader>,
}

impl KafkaSource {
    /// Connects and finds the topic; fails if no broker answers within the request timeout.
    pub async fn open(settings: &KafkaSettings, topic: &str, start: &Start) -> Result<Self> {
        Self::open_with(settings, topic, start, OnDataLoss::Fail).await
    }

    /// As [`KafkaSource::open`], with what to do when the next offset is gone.
    pub async fn open_with(settings: &KafkaSettings, topic: &str, start: &Start, on_data_loss: OnDataLoss) -> Result<Self> {
        settings.validate()?;
        let (settings, name, start) = (settings.clone(), topic.to_owned(), start.clone());
        blocking(move || {
            let consumer = Arc::new(Consumer::new(&settings.consumer())?);
            let topic = Topic { name, consumer, timeout: settings.request_timeout };
            let description =
                topic.describe().with_context(|| format!("topic {} can't be opened at {}", topic.name, settings.brokers))?;
            let cluster_id = topic.consumer.client().fetch_cluster_id(settings.request_timeout);
            let identity = SourceIdentity { topic: topic.name.clone(), topic_id: description.topic_id.clone(), cluster_id };
            let assignment = settings.assignment;
            let reader = Reader::new(topic.clone(), description.topic_id, start, on_data_loss, settings);
            Ok(Self { identity, topic, assignment, worker: Worker::new(reader) })
        })
        .await
    }
}

#[async_trait]
impl Source for KafkaSource {
    fn identity(&self) -> &SourceIdentity {
        &self.identity
    }

    async fn watermarks(&self) -> Result<BTreeMap<PartitionId, OffsetRange>> {
        let topic = self.topic.clone();
        blocking(move || topic.watermarks()).await
    }

    async fn sighting(&self) -> Result<Sighting> {
        let topic = self.topic.clone();
        blocking(move || {
            let at_ms = now_us() / 1_000;
            Ok(Sighting { at_ms, ends: topic.log_ends()? })
        })
        .await
    }

    async fn assign(&mut self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<()> {
        self.worker.assign(next_offsets).await
    }

    async fn poll(&mut self, limits: &PollLimits) -> Result<Option<RawBatch>> {
        self.worker.poll(limits).await
    }

    async fn pause(&mut self, partitions: &BTreeSet<PartitionId>) -> Result<()> {
        self.worker.pause(partitions).await
    }

    fn positions(&self) -> BTreeMap<PartitionId, i64> {
        self.worker.positions().clone()
    }

    async fn beginnings(&self) -> Result<BTreeMap<PartitionId, i64>> {
        self.worker.ask(Reader::all_beginnings).await
    }

    fn owned(&self) -> Option<BTreeSet<PartitionId>> {
        (self.assignment == Assignment::Group).then(|| self.worker.positions().keys().copied().collect())
    }

    fn change(&self) -> Option<Change> {
        self.worker.change()
    }

    async fn answer(&mut self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<()> {
        self.worker.answer(next_offsets).await
    }

    async fn resume(&mut self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<()> {
        self.worker.resume(next_offsets).await
    }

    async fn leave(&mut self) {
        if let Err(error) = self.worker.leave().await {
            tracing::debug!(reason = error.chain(), "the consumer group could not be left");
        }
    }

    fn mark_committed(&self, next_offsets: &BTreeMap<PartitionId, i64>) {
        if let Err(error) = self.topic.consumer.commit(&self.topic.name, next_offsets) {
            tracing::debug!(reason = error.chain(), "consumer-group offsets could not be sent");
        }
    }

    fn bounded(&self) -> bool {
        false
    }
}
