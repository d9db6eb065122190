//! One cycle: the records that become one commit per table, encoded while they arrive.
//!
//! Bronze and silver each have `pipeline.workers` *lanes*: tasks with a bounded queue that encode batches into data files of their own. A
//! batch goes to the lane with the most room, and the files of all lanes become one commit. Full queues hold the source back, so memory
//! is bounded by the queues, the open Parquet writers and the columns kept for gold.
//!
//! *Failure*: a lane that fails ends its task; [`OpenCycle::push`] goes on feeding silver's lanes without it, and the error surfaces when
//! the cycle is finished. Bronze's error fails the cycle; silver's stops silver alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::fates::ensure_undecided;
use super::positions::{beyond, count_rows, raise_highest};
use super::small_files::{Due, Gauge, Rhythm, many_and_small};
use crate::bronze::BronzeWriter;
use crate::checkpoint::{Delta, PartitionId};
use crate::error::{Error, Result};
use crate::record::RawBatch;
use crate::silver::{SilverPlan, Strangers};
use crate::storage::CloseBarrier;
use crate::table::logged::{ParquetWriter, as_read_back};
use crate::table::{Begun, RecordFiles, RecordWriter};

/// Batches that wait in front of a lane. Small, because each may hold `pipeline.batch_bytes`.
const LANE_QUEUE_BATCHES: usize = 2;

/// Bronze's files of a cycle.
pub(super) struct BronzeFiles {
    pub files: RecordFiles,
    pub busy: Duration,
}

impl BronzeFiles {
    fn merge(&mut self, other: Self) -> Result<()> {
        self.busy += other.busy;
        ensure_merged(self.files.merge(other.files))
    }
}

/// Silver's and rejected's files of a cycle, and what was counted on the way.
#[derive(Default)]
pub(super) struct SilverFiles {
    pub silver: RecordFiles,
    pub rejected: RecordFiles,
    /// Rows by topic partition.
    pub silver_rows: BTreeMap<PartitionId, u64>,
    pub rejected_rows: BTreeMap<PartitionId, u64>,
    /// The columns that gold reads, of the rows in `silver`.
    pub gold_rows: Vec<RecordBatch>,
    pub busy: Duration,
}

impl SilverFiles {
    /// Adds the files of another writer, for the same commit.
    pub fn merge(&mut self, other: Self) -> Result<()> {
        for (counts, more) in [(&mut self.silver_rows, other.silver_rows), (&mut self.rejected_rows, other.rejected_rows)] {
            more.into_iter().for_each(|(partition, rows)| *counts.entry(partition).or_default() += rows);
        }
        self.gold_rows.extend(other.gold_rows);
        self.busy += other.busy;
        ensure_merged(self.silver.merge(other.silver) && self.rejected.merge(other.rejected))
    }
}

fn ensure_merged(merged: bool) -> Result<()> {
    if merged { Ok(()) } else { Err(Error::failed("the files of a cycle were written for several partition specs")) }
}

/// Of silver; rejected is in Iceberg form always.
type SilverWriter = RecordWriter<ParquetWriter>;

/// Encodes silver and rejected; used by a lane, and by the catch-up from bronze.
pub(super) struct SilverEncoder {
    plan: Arc<SilverPlan>,
    silver: SilverWriter,
    rejected: SilverWriter,
    gold_columns: Option<Vec<String>>,
    /// Columns whose values are names of silver's directories.
    directories: Arc<[String]>,
    /// By topic partition, the offset below which no further record can be rejected.
    decided_below: BTreeMap<PartitionId, i64>,
    /// Follows fields that no column reads, where they may become columns.
    strangers: Option<Arc<Strangers>>,
    files: SilverFiles,
}

impl SilverEncoder {
    /// `gold_columns` are kept of every silver row, none if nobody asks for them.
    pub fn new(plan: Arc<SilverPlan>, silver: SilverWriter, rejected: SilverWriter, gold_columns: Option<Vec<String>>) -> Self {
        let (directories, decided_below) = (Arc::new([]), BTreeMap::new());
        Self { plan, silver, rejected, gold_columns, directories, decided_below, strangers: None, files: SilverFiles::default() }
    }

    /// For messages whose further fields are followed.
    #[must_use]
    pub fn with_strangers(self, strangers: Option<Arc<Strangers>>) -> Self {
        Self { strangers, ..self }
    }

    /// For a silver that keeps these columns in the names of its directories: gold gets them as they will be read from there.
    #[must_use]
    pub fn with_directories(self, directories: Arc<[String]>) -> Self {
        Self { directories, ..self }
    }

    /// For records of which some were decided before; those below these offsets may not be rejected.
    #[must_use]
    pub fn with_decided(self, decided_below: BTreeMap<PartitionId, i64>) -> Self {
        Self { decided_below, ..self }
    }

    pub async fn write(&mut self, batch: RawBatch) -> Result<()> {
        let started = Instant::now();
        let (plan, strangers) = (self.plan.clone(), self.strangers.clone());
        let now_us = chrono::Utc::now().timestamp_micros();
        let decoded = blocking(move || {
            let decoded = plan.transform(&batch, now_us)?;
            if let Some(strangers) = strangers.filter(|_| !decoded.unread.is_empty()) {
                strangers.meet(&decoded.unread, &batch.records)?;
            }
            Ok::<_, Error>(decoded)
        })
        .await??;
        count_rows(&decoded.rows, &mut self.files.silver_rows)?;
        count_rows(&decoded.rejected, &mut self.files.rejected_rows)?;
        if decoded.rows.num_rows() > 0 {
            self.silver.write(&decoded.rows).await?;
            if let Some(columns) = &self.gold_columns {
                self.files.gold_rows.push(as_read_back(&project(&decoded.rows, columns)?, &self.directories)?);
            }
        }
        if decoded.rejected.num_rows() > 0 {
            ensure_undecided(&decoded.rejected, &self.decided_below)?;
            self.rejected.write(&decoded.rejected).await?;
        }
        self.files.busy += started.elapsed();
        Ok(())
    }

    /// Silver's files if it were finished now.
    fn begun(&self) -> Begun {
        self.silver.begun()
    }

    pub async fn finish(mut self) -> Result<SilverFiles> {
        let started = Instant::now();
        self.files.silver = self.silver.finish().await?;
        self.files.rejected = self.rejected.finish().await?;
        self.files.busy += started.elapsed();
        Ok(self.files)
    }
}

fn project(rows: &RecordBatch, columns: &[String]) -> Result<RecordBatch> {
    let indices = columns.iter().map(|name| rows.schema_ref().index_of(name)).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(rows.project(&indices)?)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::failed("a worker thread panicked").caused_by(error))
}

struct Lane<T> {
    queue: mpsc::Sender<Arc<RawBatch>>,
    task: JoinHandle<Result<T>>,
}

impl<T> Lane<T> {
    /// False when the lane has ended early; why is told by [`Self::finish`].
    async fn push(&self, batch: &Arc<RawBatch>) -> bool {
        self.queue.send(batch.clone()).await.is_ok()
    }

    /// Hands a batch to the lane with the most room.
    async fn push_to_one_of(lanes: &[Self], batch: &Arc<RawBatch>) -> bool {
        match lanes.iter().max_by_key(|lane| lane.queue.capacity()) {
            Some(lane) => lane.push(batch).await,
            None => true,
        }
    }

    /// What each of the lanes made; the first error, if any, once all have ended.
    async fn finish_all(lanes: Vec<Self>) -> Result<Vec<T>> {
        let ended = futures::future::join_all(lanes.into_iter().map(Self::finish)).await;
        ended.into_iter().collect()
    }

    async fn finish(self) -> Result<T> {
        drop(self.queue);
        self.task.await.map_err(|error| Error::failed("an encoding task panicked").caused_by(error))?
    }
}

fn bronze_lane(mut writer: BronzeWriter) -> Lane<BronzeFiles> {
    let (queue, mut batches) = mpsc::channel::<Arc<RawBatch>>(LANE_QUEUE_BATCHES);
    let task = tokio::spawn(async move {
        let mut busy = Duration::ZERO;
        while let Some(batch) = batches.recv().await {
            let started = Instant::now();
            if batch.records.num_rows() > 0 {
                writer.write(&batch.records).await?;
            }
            busy += started.elapsed();
        }
        let started = Instant::now();
        let files = writer.finish().await?;
        Ok(BronzeFiles { files, busy: busy + started.elapsed() })
    });
    Lane { queue, task }
}

fn silver_lane(mut encoder: SilverEncoder, next_offsets: BTreeMap<PartitionId, i64>, gauge: Arc<Gauge>) -> Lane<SilverFiles> {
    let (queue, mut batches) = mpsc::channel::<Arc<RawBatch>>(LANE_QUEUE_BATCHES);
    let task = tokio::spawn(async move {
        while let Some(batch) = batches.recv().await {
            if let Some(batch) = beyond(&batch, &next_offsets)? {
                encoder.write(batch).await?;
                gauge.tell(encoder.begun());
            }
        }
        encoder.finish().await
    });
    Lane { queue, task }
}

/// A cycle that takes batches.
pub(super) struct OpenCycle {
    pub barrier: CloseBarrier,
    pub delta: Delta,
    /// Highest timestamp by topic partition, in milliseconds.
    pub highest_ms: BTreeMap<PartitionId, i64>,
    pub bytes: u64,
    pub due: Due,
    bronze: Vec<Lane<BronzeFiles>>,
    /// Empty when silver takes no part.
    silver: Vec<Lane<SilverFiles>>,
    /// Of silver's lanes.
    gauges: Vec<Arc<Gauge>>,
}

/// A cycle whose files are encoded.
pub(super) struct FilledCycle {
    pub barrier: CloseBarrier,
    pub delta: Delta,
    pub highest_ms: BTreeMap<PartitionId, i64>,
    pub bronze: BronzeFiles,
    /// None when silver took no part; an error when it failed on the way.
    pub silver: Option<Result<SilverFiles>>,
}

impl OpenCycle {
    /// A cycle with a lane for each writer, which begins now. Silver takes part with its encoders and its next offsets.
    pub fn open(
        barrier: CloseBarrier,
        rhythm: Rhythm,
        bronze: Vec<BronzeWriter>,
        silver: Option<(Vec<SilverEncoder>, BTreeMap<PartitionId, i64>)>,
    ) -> Self {
        let (encoders, next_offsets) = silver.unwrap_or_default();
        let gauges: Vec<Arc<Gauge>> = encoders.iter().map(|_| Arc::default()).collect();
        let lane = |(encoder, gauge): (_, &Arc<Gauge>)| silver_lane(encoder, next_offsets.clone(), gauge.clone());
        let silver = encoders.into_iter().zip(&gauges).map(lane).collect();
        let (delta, highest_ms) = (Delta::default(), BTreeMap::new());
        let bronze = bronze.into_iter().map(bronze_lane).collect();
        let due = Due::of_cycle(rhythm, Instant::now());
        Self { barrier, delta, highest_ms, bytes: 0, due, bronze, silver, gauges }
    }

    /// Gives a cycle that is due another interval if its files would be many and small; false if it is to end.
    pub fn put_off(&mut self) -> bool {
        many_and_small(self.gauges.iter().map(Arc::as_ref)) && self.due.put_off(Instant::now())
    }

    /// Records so far.
    pub fn records(&self) -> u64 {
        self.delta.records()
    }

    /// Takes a batch; false when bronze's lane has failed, so that the cycle should be finished to learn why.
    pub async fn push(&mut self, batch: RawBatch) -> Result<bool> {
        self.delta
            .append(&batch.delta)
            .map_err(|mismatch| Error::failed("the source skipped or repeated offsets").caused_by(mismatch))?;
        raise_highest(&batch.records, &mut self.highest_ms)?;
        self.bytes += payload_bytes(&batch.records);
        let batch = Arc::new(batch);
        Lane::push_to_one_of(&self.silver, &batch).await;
        Ok(Lane::push_to_one_of(&self.bronze, &batch).await)
    }

    /// Ends the cycle and waits for its files to be encoded (not yet closed).
    pub async fn finish(self) -> Result<FilledCycle> {
        let Self { barrier, delta, highest_ms, bronze, silver, .. } = self;
        let (bronze, silver) = tokio::join!(Lane::finish_all(bronze), Lane::finish_all(silver));
        let mut lanes = bronze?.into_iter();
        let mut bronze = lanes.next().ok_or_else(|| Error::failed("a cycle has no lane for bronze"))?;
        lanes.try_for_each(|more| bronze.merge(more))?;
        let silver = silver.and_then(|files| {
            let mut files = files.into_iter();
            let Some(mut all) = files.next() else { return Ok(None) };
            files.try_for_each(|more| all.merge(more))?;
            Ok(Some(all))
        });
        Ok(FilledCycle { barrier, delta, highest_ms, bronze, silver: silver.transpose() })
    }
}

fn payload_bytes(records: &RecordBatch) -> u64 {
    records.columns().iter().map(|column| column.get_array_memory_size() as u64).sum()
}
