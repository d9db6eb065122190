//! The blocking half of the Kafka source: turns what librdkafka hands out into batches, and decides what an error means.
//!
//! *Invariants*: positions grow by records and by ends of partitions only (and over offsets that Kafka has dropped, where that is
//! configured), so offsets without a record are passed when Kafka proves that there is none; a batch is handed out after the topic was asked for its id *again*, so all of it comes from the topic that was opened.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::types::RDKafkaRespErr;

use super::describe::Topic;
use super::failure::Failure;
use super::native::{Content, Message, MessageQueue};
use crate::checkpoint::{OffsetRange, PartitionId};
use crate::error::{Error, Result};
use crate::record::RawBatch;
use crate::source::batch::{BATCH_BYTES_MAX, Header};
use crate::source::worker::{BatchReader, Stop};
use crate::source::{Assignment, Change, KafkaSettings, OnDataLoss, PollLimits, RawBatchBuilder, Start, now_us};

/// The longest wait inside librdkafka, which comes back only when it passes or thousands of records are there; a stop is noticed then.
const IDLE_WAIT: Duration = Duration::from_millis(50);

/// The same once a batch has begun; it stays open that long at the end of all partitions, so that a trickle of records does not become
/// as many batches.
const OPEN_WAIT: Duration = Duration::from_millis(10);

/// While no broker answers, how often to ask.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Reader {
    /// Taken from librdkafka, not yet in a batch. The first field, because fields are dropped in order: destroying the consumer, which may
    /// be `topic`'s last reference, waits for ever for messages that are still held.
    pending: MessageQueue,
    topic: Topic,
    topic_id: Option<String>,
    start: Start,
    on_data_loss: OnDataLoss,
    settings: KafkaSettings,
    builder: RawBatchBuilder,
    /// Partitions whose end was reported after their last record.
    at_end: BTreeMap<PartitionId, bool>,
    /// A finished batch of which it is not yet proven that it comes from the topic that was opened.
    unproven: Option<RawBatch>,
    failure: Option<Failure>,
    /// Partitions of which librdkafka says that their next offset is not there.
    suspects: BTreeSet<PartitionId>,
    /// When that was last looked into.
    confirmed: Option<Instant>,
    /// Partitions that librdkafka was told not to fetch.
    paused: BTreeSet<PartitionId>,
    assigned: Assigned,
    partitions_checked: Instant,
    probed: Instant,
}

/// Whether librdkafka fetches from the builder's positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Assigned {
    Yes,
    No,
}

impl Reader {
    pub fn new(topic: Topic, topic_id: Option<String>, start: Start, on_data_loss: OnDataLoss, settings: KafkaSettings) -> Self {
        let builder = RawBatchBuilder::new(topic.name.clone());
        let (pending, at_end, now) = (MessageQueue::default(), BTreeMap::new(), Instant::now());
        Self {
            topic,
            topic_id,
            start,
            on_data_loss,
            settings,
            builder,
            pending,
            at_end,
            unproven: None,
            failure: None,
            suspects: BTreeSet::new(),
            confirmed: None,
            paused: BTreeSet::new(),
            assigned: Assigned::No,
            partitions_checked: now,
            probed: now,
        }
    }

    /// Where partitions begin that no table knows.
    fn beginnings(&self, partitions: &[PartitionId], first_time: bool) -> Result<BTreeMap<PartitionId, i64>> {
        let earliest = self.topic.offsets(partitions, Offset::Beginning)?;
        if !first_time {
            return Ok(earliest);
        }
        match &self.start {
            Start::Earliest => Ok(earliest),
            Start::Latest => self.topic.offsets(partitions, Offset::End),
            Start::Offsets(offsets) => {
                Ok(earliest.into_iter().map(|(id, earliest)| (id, offsets.get(&id).copied().unwrap_or(earliest))).collect())
            }
            Start::At(instant) => {
                let mut found = self.topic.offsets(partitions, Offset::Offset(instant.timestamp_millis().max(0)))?;
                let ends = self.topic.offsets(partitions, Offset::End)?;
                found
                    .iter_mut()
                    .filter(|(_, offset)| **offset < 0)
                    .for_each(|(id, offset)| *offset = ends.get(id).copied().unwrap_or(0));
                Ok(found)
            }
        }
    }

    /// Where all partitions begin if no table knows anything.
    pub fn all_beginnings(&self) -> Result<BTreeMap<PartitionId, i64>> {
        let partitions: Vec<PartitionId> = self.topic.describe()?.partitions.iter().map(|it| it.partition).collect();
        self.beginnings(&partitions, true)
    }

    fn shares(&self) -> bool {
        self.settings.assignment == Assignment::Group
    }

    /// Hands the builder's positions to librdkafka, which then fetches from there.
    fn reassign(&mut self) -> Result<()> {
        self.assigned = Assigned::No;
        self.pending.clear();
        self.suspects.clear();
        let positions = self.builder.positions();
        self.at_end = positions.keys().map(|&partition| (partition, false)).collect();
        if self.shares() {
            self.topic.consumer.remove(&self.topic.name, &positions.keys().copied().collect())?;
            self.topic.consumer.add(&self.topic.name, &positions)?;
        } else {
            self.topic.consumer.assign(&self.topic.name, &positions)?;
        }
        self.assigned = Assigned::Yes;
        Ok(())
    }

    /// Begins with partitions that the group has given us.
    fn take_over(&mut self, partitions: &BTreeSet<PartitionId>, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<()> {
        let unknown: Vec<PartitionId> = partitions.iter().copied().filter(|id| !next_offsets.contains_key(id)).collect();
        let beginnings = self.beginnings(&unknown, false)?;
        let mut positions = BTreeMap::new();
        for partition in partitions {
            if let Some(next) = next_offsets.get(partition) {
                self.builder.continue_partition(*partition, *next);
                positions.insert(*partition, *next);
            } else if let Some(first) = beginnings.get(partition) {
                self.builder.add_partition(*partition, *first);
                positions.insert(*partition, *first);
            }
        }
        self.at_end.extend(positions.keys().map(|&partition| (partition, false)));
        self.topic.consumer.add(&self.topic.name, &positions)
    }

    /// Compares the topic with the one that was opened and takes in partitions that were added.
    fn check_topic(&mut self, timeout: Duration) -> Result<()> {
        self.partitions_checked = Instant::now();
        let now = self.topic.with_timeout(timeout).describe()?;
        if now.topic_id != self.topic_id {
            self.failure = Some(Failure::Recreated { now: now.topic_id });
            return Ok(());
        }
        if self.shares() {
            // The group's leader watches for added partitions.
            return if self.assigned == Assigned::No && self.change().is_none() { self.reassign() } else { Ok(()) };
        }
        let known = self.builder.positions();
        let added: Vec<PartitionId> = now.partitions.iter().map(|it| it.partition).filter(|id| !known.contains_key(id)).collect();
        if added.is_empty() {
            return if self.assigned == Assigned::No { self.reassign() } else { Ok(()) };
        }
        let beginnings = self.beginnings(&added, false)?;
        tracing::info!(topic = self.topic.name, partitions = ?added, "partitions were added to the topic");
        beginnings.into_iter().for_each(|(partition, next)| self.builder.add_partition(partition, next));
        self.reassign()
    }

    /// Puts what is pending into the batch until a limit is met.
    fn take_pending(&mut self, limits: &PollLimits) {
        let bytes_max = limits.max_bytes.min(BATCH_BYTES_MAX);
        while self.failure.is_none() && self.builder.rows() < limits.max_rows.max(1) && self.builder.bytes() < bytes_max {
            let Some(message) = self.pending.pop() else { break };
            self.take(&message);
        }
    }

    fn take(&mut self, message: &Message) {
        let partition = message.partition();
        match message.content() {
            Content::Record(record) => {
                let headers = message.headers();
                let headers: Vec<Header<'_>> = headers.iter().map(|(name, value)| (name.as_str(), *value)).collect();
                self.builder.append(partition, message.offset(), record.timestamp_us, record.key, record.value, &headers);
                self.at_end.insert(partition, false);
            }
            Content::End { next } => {
                self.builder.advance(partition, next);
                self.at_end.insert(partition, true);
            }
            Content::OutOfRange => {
                self.suspects.insert(partition);
            }
            Content::Problem { code, text } => self.problem(partition, code, text),
        }
    }

    /// Asks Kafka whether it really lacks the next offset of the suspects: librdkafka may report about an assignment that has been
    /// replaced since. If the offset is there, fetching begins again, because librdkafka has given the partition up.
    fn confirm_suspects(&mut self) {
        // While a change waits, adding or removing a partition would pass for its answer.
        if self.suspects.is_empty()
            || self.change().is_some()
            || self.confirmed.is_some_and(|when| when.elapsed() < PROBE_INTERVAL)
        {
            return;
        }
        self.confirmed = Some(Instant::now());
        let outcome = self.topic.watermarks().and_then(|watermarks| {
            for partition in self.suspects.clone() {
                let Some(next) = self.builder.position(partition) else { continue };
                match watermarks.get(&partition).copied() {
                    Some(range) if range.start <= next && next <= range.end => {}
                    Some(range) if next < range.start && self.on_data_loss == OnDataLoss::Skip => {
                        self.skip(partition, OffsetRange::new(next, range.start));
                    }
                    range => {
                        self.failure = Some(Failure::OutOfRange { partition, next, range });
                        return Ok(());
                    }
                }
            }
            self.reassign()
        });
        if let Err(error) = outcome {
            tracing::debug!(reason = error.chain(), "offsets that Kafka reports as missing could not be checked yet");
        }
    }

    /// Passes offsets that Kafka has dropped: they become part of the batch's range, and its record count says that nothing is in them.
    /// The topic's id is checked again before that batch is handed out, as for any other.
    fn skip(&mut self, partition: PartitionId, lost: OffsetRange) {
        tracing::warn!(
            topic = self.topic.name,
            partition,
            first_lost = lost.start,
            last_lost = lost.end - 1,
            count = lost.len(),
            "kafka no longer has offsets that were not read yet; they are skipped, as source.on_data_loss says"
        );
        self.builder.advance(partition, lost.end);
    }

    /// Some errors mean that a person must act; the rest librdkafka tries again by itself.
    fn problem(&mut self, partition: PartitionId, code: i32, text: String) {
        const FOR_A_PERSON: [RDKafkaRespErr; 7] = [
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__BAD_MSG,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED,
        ];
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__FATAL as i32 {
            self.failure = Some(Failure::Expelled { reason: text });
        } else if FOR_A_PERSON.iter().any(|known| *known as i32 == code) {
            self.failure = Some(Failure::Refused { reason: format!("partition {partition}: {text}") });
        } else {
            tracing::debug!(topic = self.topic.name, partition, code, reason = text, "kafka reports an error of a partition");
        }
    }

    fn error(&self, failure: &Failure) -> Error {
        failure.error(&self.topic.name, self.topic_id.as_deref())
    }

    /// While no broker answers: asks once in a while, and gives up after the configured time.
    fn check_reachable(&mut self) -> Result<()> {
        let Some(down_for) = self.topic.consumer.events().down_for() else { return Ok(()) };
        if self.probed.elapsed() >= PROBE_INTERVAL {
            self.probed = Instant::now();
            if self.topic.with_timeout(PROBE_INTERVAL).describe().is_ok() {
                return Ok(());
            }
        }
        if down_for >= self.settings.unavailable_limit {
            let (brokers, for_s) = (&self.settings.brokers, down_for.as_secs());
            return Err(Error::transient(format!(
                "no Kafka broker of {brokers} has been reachable for {for_s} s: {}",
                self.topic.consumer.events().last_error()
            ))
            .hint("check source.kafka.brokers and the brokers; source.kafka.unavailable_limit says how long to wait"));
        }
        Ok(())
    }

    /// Gives out a finished batch once the topic has been found to be the same still.
    fn prove(&mut self) -> Result<Option<RawBatch>> {
        if self.topic_id.is_some()
            && let Err(error) = self.check_topic(self.topic.timeout)
        {
            if error.kind() == crate::Kind::Stop {
                return Err(error);
            }
            tracing::debug!(reason = error.chain(), "the topic's id could not be checked yet, the batch is held back");
            return Ok(None);
        }
        if let Some(failure @ Failure::Recreated { .. }) = &self.failure {
            return Err(self.error(failure));
        }
        Ok(self.unproven.take())
    }
}

impl BatchReader for Reader {
    fn assign(&mut self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<BTreeMap<PartitionId, i64>> {
        (self.failure, self.unproven, self.confirmed) = (None, None, None);
        self.pause(&BTreeSet::new())?;
        let now = self.topic.describe()?;
        if now.topic_id != self.topic_id {
            return Err(self.error(&Failure::Recreated { now: now.topic_id }));
        }
        if self.shares() {
            self.builder.reset(&BTreeMap::new(), |_| false);
            self.assigned = Assigned::Yes;
            self.topic.consumer.subscribe(&self.topic.name)?;
            return Ok(BTreeMap::new());
        }
        let unknown: Vec<PartitionId> =
            now.partitions.iter().map(|it| it.partition).filter(|id| !next_offsets.contains_key(id)).collect();
        let mut positions = self.beginnings(&unknown, next_offsets.is_empty())?;
        positions.extend(next_offsets);
        if let Some((missing, next)) = positions.iter().find(|(id, _)| !now.partitions.iter().any(|it| it.partition == **id)) {
            return Err(Error::stop(format!(
                "the table continues at offset {next} of partition {missing}, which topic {} does not have",
                self.topic.name
            ))
            .hint("run `lakesmith offsets show`: the topic may have been created again with fewer partitions"));
        }
        self.builder.reset(&positions, |id| unknown.contains(&id));
        self.partitions_checked = Instant::now();
        self.reassign()?;
        Ok(positions)
    }

    fn poll(&mut self, limits: &PollLimits, stop: &Stop) -> Result<Option<RawBatch>> {
        if self.unproven.is_some() {
            return self.prove();
        }
        if self.change().is_some() {
            return Ok(None);
        }
        if !self.builder.has_progress()
            && let Some(failure) = &self.failure
        {
            return Err(self.error(failure));
        }
        let began = Instant::now();
        let due = self.partitions_checked.elapsed() >= self.settings.partition_check_interval;
        if due && self.topic.consumer.events().down_for().is_none() {
            match self.check_topic(self.topic.timeout.min(PROBE_INTERVAL)) {
                Err(error) if error.kind() == crate::Kind::Stop => return Err(error),
                Err(error) => tracing::debug!(reason = error.chain(), "partitions could not be checked"),
                Ok(()) => {}
            }
        }
        let mut asked = false;
        loop {
            self.take_pending(limits);
            self.confirm_suspects();
            let full =
                self.builder.rows() >= limits.max_rows.max(1) || self.builder.bytes() >= limits.max_bytes.min(BATCH_BYTES_MAX);
            let left = limits.max_wait.saturating_sub(began.elapsed());
            if full || self.failure.is_some() || stop.requested() || (asked && left.is_zero()) {
                break;
            }
            let open = self.builder.has_progress();
            let wait = left.min(if open { OPEN_WAIT } else { IDLE_WAIT });
            asked = true;
            let came = self.topic.consumer.poll(&mut self.pending, wait, limits.max_rows);
            if self.change().is_some() {
                break;
            }
            if came == 0 && open && self.at_end.iter().all(|(partition, end)| *end || self.paused.contains(partition)) {
                break;
            }
            if came == 0 && !open {
                self.check_reachable()?;
            }
        }
        if !self.builder.has_progress() {
            // With nothing to hand out first, a failure is told at once.
            return self.failure.as_ref().map_or(Ok(None), |failure| Err(self.error(failure)));
        }
        self.topic.consumer.events().reached();
        self.unproven = Some(self.builder.finish(now_us())?);
        self.prove()
    }

    fn pause(&mut self, partitions: &BTreeSet<PartitionId>) -> Result<()> {
        let (consumer, topic) = (&self.topic.consumer, &self.topic.name);
        let over: BTreeSet<_> = self.paused.difference(partitions).copied().collect();
        if !over.is_empty() {
            consumer.resume(topic, &over)?;
            // As after a rebalance: of a partition that stood at its end librdkafka would leave out the next record.
            let mut positions = self.builder.positions();
            positions.retain(|partition, _| over.contains(partition));
            self.pending.forget(&over);
            self.at_end.extend(positions.keys().map(|&partition| (partition, false)));
            consumer.seek(topic, &positions, self.topic.timeout)?;
            self.paused.retain(|partition| !over.contains(partition));
        }
        let more: BTreeSet<_> = partitions.difference(&self.paused).copied().collect();
        if !more.is_empty() {
            // Named even if that fails: then some of them are, and the next call resumes them.
            self.paused.extend(&more);
            consumer.pause(topic, &more)?;
        }
        Ok(())
    }

    fn change(&self) -> Option<Change> {
        let change = self.topic.consumer.events().membership().change()?;
        // What was read before comes first, unless it is to be dropped.
        (self.unproven.is_none() || matches!(change, Change::Lost(_))).then_some(change)
    }

    fn answer(&mut self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<BTreeMap<PartitionId, i64>> {
        let Some(change) = self.change() else { return Ok(self.builder.positions()) };
        let mut stay = self.builder.positions();
        match change {
            Change::Assigned(partitions) => self.take_over(&partitions, next_offsets)?,
            Change::Revoked(partitions) | Change::Lost(partitions) => {
                stay.retain(|partition, _| !partitions.contains(partition));
                self.unproven = None;
                self.pending.forget(&partitions);
                for partition in &partitions {
                    self.builder.remove_partition(*partition);
                    self.at_end.remove(partition);
                    self.suspects.remove(partition);
                }
                self.topic.consumer.remove(&self.topic.name, &partitions)?;
            }
        }
        self.topic.consumer.events().membership().answered();
        self.pending.forget(&stay.keys().copied().collect());
        self.at_end.extend(stay.keys().map(|&partition| (partition, false)));
        self.topic.consumer.seek(&self.topic.name, &stay, self.topic.timeout)?;
        Ok(self.builder.positions())
    }

    fn resume(&mut self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<BTreeMap<PartitionId, i64>> {
        if !self.shares() {
            return self.assign(next_offsets);
        }
        if self.change().is_some() {
            return Err(Error::transient("partitions changed hands while another writer was faster"));
        }
        (self.failure, self.unproven, self.confirmed) = (None, None, None);
        let mut positions = self.builder.positions();
        positions.iter_mut().for_each(|(partition, next)| *next = next_offsets.get(partition).copied().unwrap_or(*next));
        self.builder.reset(&positions, |_| false);
        self.reassign()?;
        Ok(positions)
    }

    fn leave(&mut self) {
        self.pending.clear();
        self.topic.consumer.close();
    }
}
