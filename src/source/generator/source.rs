//! The generator as a source.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::{GeneratorSettings, Messages};
use crate::checkpoint::{OffsetRange, PartitionId};
use crate::error::{Error, Result};
use crate::record::RawBatch;
use crate::retry;
use crate::source::batch::BATCH_BYTES_MAX;
use crate::source::worker::{BatchReader, Stop, Worker};
use crate::source::{PollLimits, RawBatchBuilder, Source, SourceIdentity, Start, now_us};

pub struct GeneratorSource {
    settings: GeneratorSettings,
    start: Start,
    identity: SourceIdentity,
    worker: Worker<Generator>,
    /// Since when rows fall due at the configured rate, and how many have been handed out since.
    pace: Option<(Instant, u64)>,
}

impl GeneratorSource {
    pub fn open(settings: &GeneratorSettings, topic: &str, start: &Start) -> Result<Self> {
        let identity = SourceIdentity { topic: topic.to_owned(), topic_id: Some(settings.content_id()), cluster_id: None };
        let generator =
            Generator { settings: settings.clone(), messages: Messages::new(settings), builder: RawBatchBuilder::new(topic) };
        Ok(Self { settings: settings.clone(), start: start.clone(), identity, worker: Worker::new(generator), pace: None })
    }

    fn ends(&self) -> BTreeMap<PartitionId, OffsetRange> {
        let partitions = u64::from(self.settings.partitions);
        (0..partitions)
            .map(|partition| (partition as PartitionId, OffsetRange::new(0, rows_of(self.settings.rows, partitions, partition))))
            .collect()
    }

    /// How many rows may be handed out now; waits until at least one may, at most for `max_wait`.
    async fn due(&mut self, max_wait: Duration) -> u64 {
        if self.settings.rate <= 0.0 {
            return u64::MAX;
        }
        let (began, handed_out) = *self.pace.get_or_insert_with(|| (Instant::now(), 0));
        let due_at = |rows: u64| Duration::from_secs_f64(rows as f64 / self.settings.rate);
        let wait = due_at(handed_out + 1).saturating_sub(began.elapsed()).min(max_wait);
        if !wait.is_zero() {
            retry::sleep(wait).await;
        }
        ((began.elapsed().as_secs_f64() * self.settings.rate) as u64).saturating_sub(handed_out)
    }
}

/// Of `rows` rows dealt out to `partitions` in turn, how many one of them gets.
fn rows_of(rows: u64, partitions: u64, partition: u64) -> i64 {
    (rows.saturating_sub(partition).div_ceil(partitions)) as i64
}

#[async_trait]
impl Source for GeneratorSource {
    fn identity(&self) -> &SourceIdentity {
        &self.identity
    }

    async fn watermarks(&self) -> Result<BTreeMap<PartitionId, OffsetRange>> {
        Ok(self.ends())
    }

    async fn assign(&mut self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<()> {
        let ends = self.ends();
        for (partition, &next) in next_offsets {
            let end = ends.get(partition).map(|range| range.end);
            if end.is_none_or(|end| next > end) {
                let found = end.map_or("which it does not have".to_owned(), |end| format!("which ends at {end}"));
                return Err(Error::stop(format!(
                    "the table continues at offset {next} of the generator's partition {partition}, {found}"
                ))
                .hint("run `lakesmith offsets show`: the table was filled with other generator settings"));
            }
        }
        let mut next: BTreeMap<PartitionId, i64> = match (&self.start, next_offsets.is_empty()) {
            (Start::Latest, true) => ends.iter().map(|(&partition, range)| (partition, range.end)).collect(),
            (Start::Offsets(offsets), true) => {
                ends.iter().map(|(&id, range)| (id, offsets.get(&id).copied().unwrap_or(0).min(range.end))).collect()
            }
            (Start::At(_), true) => {
                return Err(Error::config("source.start is an instant, which only Kafka can find")
                    .hint("set source.start to earliest or 0:N"));
            }
            _ => ends.keys().map(|&partition| (partition, 0)).collect(),
        };
        next.extend(next_offsets);
        self.pace = None;
        self.worker.assign(&next).await
    }

    async fn poll(&mut self, limits: &PollLimits) -> Result<Option<RawBatch>> {
        let due = self.due(limits.max_wait).await;
        if due == 0 {
            return Ok(None);
        }
        let max_rows = limits.max_rows.min(usize::try_from(due).unwrap_or(usize::MAX));
        let batch = self.worker.poll(&PollLimits { max_rows, ..*limits }).await?;
        match (&batch, &mut self.pace) {
            (None, _) => retry::sleep(limits.max_wait).await,
            (Some(batch), Some((_, handed_out))) => *handed_out += batch.delta.records(),
            _ => {}
        }
        Ok(batch)
    }

    fn positions(&self) -> BTreeMap<PartitionId, i64> {
        self.worker.positions().clone()
    }

    fn mark_committed(&self, _: &BTreeMap<PartitionId, i64>) {}

    fn bounded(&self) -> bool {
        true
    }
}

/// The part that computes.
struct Generator {
    settings: GeneratorSettings,
    messages: Messages,
    builder: RawBatchBuilder,
}

impl Generator {
    /// The lowest row that has not been handed out, and its place.
    fn next_row(&self) -> Option<(u64, PartitionId, i64)> {
        let partitions = u64::from(self.settings.partitions);
        let positions = self.builder.positions();
        let rows = positions.iter().map(|(&partition, &next)| (next as u64 * partitions + partition as u64, partition, next));
        rows.min().filter(|(row, ..)| *row < self.settings.rows)
    }
}

impl BatchReader for Generator {
    fn assign(&mut self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<BTreeMap<PartitionId, i64>> {
        self.builder.reset(next_offsets, |_| false);
        Ok(self.builder.positions())
    }

    /// Rows come in the order of their numbers, whatever the partitions' positions: the one that is furthest behind goes first.
    fn poll(&mut self, limits: &PollLimits, stop: &Stop) -> Result<Option<RawBatch>> {
        let bytes_max = limits.max_bytes.min(BATCH_BYTES_MAX);
        let partitions = u64::from(self.settings.partitions);
        let mut next_row = self.next_row();
        while let Some((row, partition, offset)) = next_row {
            let message = self.messages.message(row);
            self.builder.append(partition, offset, Some(message.timestamp_us), Some(message.key), message.value, &[]);
            if self.builder.rows() >= limits.max_rows.max(1) || self.builder.bytes() >= bytes_max || stop.requested() {
                break;
            }
            // In the common case the next number is in the next partition, at the position that it has.
            let (row, partition) = (row + 1, ((row + 1) % partitions) as PartitionId);
            next_row = match self.builder.position(partition) {
                Some(next) if row < self.settings.rows && next as u64 == row / partitions => Some((row, partition, next)),
                _ => self.next_row(),
            };
        }
        if self.builder.has_progress() { self.builder.finish(now_us()).map(Some) } else { Ok(None) }
    }
}
