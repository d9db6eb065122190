//! One cycle: the records that become one commit per table, encoded while they arrive.
//!
//! Bronze and silver each have a *lane*: a task with a bounded queue that encodes batches into data files. A full queue holds the source
//! back, so memory is bounded by the queues, the open Parquet writers and the columns kept for gold.
//!
//! *Failure*: a lane that fails ends its task; [`OpenCycle::push`] goes on feeding the other lane, and the error surfaces when the cycle
//! is finished. Bronze's error fails the cycle; silver's stops silver alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::fates::ensure_undecided;
use super::positions::{beyond, count_rows, raise_highest};
use crate::checkpoint::{Delta, PartitionId};
use crate::error::{Error, Result};
use crate::record::RawBatch;
use crate::silver::SilverPlan;
use crate::storage::CloseBarrier;
use crate::table::{DataFiles, DataWriter};

/// Batches that wait in front of a lane. Small, because each may hold `pipeline.batch_bytes`.
const LANE_QUEUE_BATCHES: usize = 2;

/// Bronze's files of a cycle.
pub(super) struct BronzeFiles {
    pub files: DataFiles,
    pub busy: Duration,
}

/// Silver's and rejected's files of a cycle, and what was counted on the way.
pub(super) struct SilverFiles {
    pub silver: DataFiles,
    pub rejected: DataFiles,
    /// Rows by topic partition.
    pub silver_rows: BTreeMap<PartitionId, u64>,
    pub rejected_rows: BTreeMap<PartitionId, u64>,
    /// The columns that gold reads, of the rows in `silver`.
    pub gold_rows: Vec<RecordBatch>,
    pub busy: Duration,
}

/// Encodes silver and rejected; used by a lane, and by the catch-up from bronze.
pub(super) struct SilverEncoder {
    plan: Arc<SilverPlan>,
    silver: DataWriter,
    rejected: DataWriter,
    gold_columns: Option<Vec<String>>,
    /// By topic partition, the offset below which no further record can be rejected.
    decided_below: BTreeMap<PartitionId, i64>,
    files: SilverFiles,
}

impl SilverEncoder {
    /// `gold_columns` are kept of every silver row, none if nobody asks for them.
    pub fn new(plan: Arc<SilverPlan>, silver: DataWriter, rejected: DataWriter, gold_columns: Option<Vec<String>>) -> Self {
        let files = SilverFiles {
            silver: DataFiles::default(),
            rejected: DataFiles::default(),
            silver_rows: BTreeMap::new(),
            rejected_rows: BTreeMap::new(),
            gold_rows: Vec::new(),
            busy: Duration::ZERO,
        };
        Self { plan, silver, rejected, gold_columns, decided_below: BTreeMap::new(), files }
    }

    /// For records of which some were decided before; those below these offsets may not be rejected.
    #[must_use]
    pub fn with_decided(self, decided_below: BTreeMap<PartitionId, i64>) -> Self {
        Self { decided_below, ..self }
    }

    pub async fn write(&mut self, batch: RawBatch) -> Result<()> {
        let started = Instant::now();
        let plan = self.plan.clone();
        let now_us = chrono::Utc::now().timestamp_micros();
        let decoded = blocking(move || plan.transform(&batch, now_us)).await??;
        count_rows(&decoded.rows, &mut self.files.silver_rows)?;
        count_rows(&decoded.rejected, &mut self.files.rejected_rows)?;
        if decoded.rows.num_rows() > 0 {
            self.silver.write(&decoded.rows).await?;
            if let Some(columns) = &self.gold_columns {
                self.files.gold_rows.push(project(&decoded.rows, columns)?);
            }
        }
        if decoded.rejected.num_rows() > 0 {
            ensure_undecided(&decoded.rejected, &self.decided_below)?;
            self.rejected.write(&decoded.rejected).await?;
        }
        self.files.busy += started.elapsed();
        Ok(())
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

    async fn finish(self) -> Result<T> {
        drop(self.queue);
        self.task.await.map_err(|error| Error::failed("an encoding task panicked").caused_by(error))?
    }
}

fn bronze_lane(mut writer: DataWriter) -> Lane<BronzeFiles> {
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

fn silver_lane(mut encoder: SilverEncoder, next_offsets: BTreeMap<PartitionId, i64>) -> Lane<SilverFiles> {
    let (queue, mut batches) = mpsc::channel::<Arc<RawBatch>>(LANE_QUEUE_BATCHES);
    let task = tokio::spawn(async move {
        while let Some(batch) = batches.recv().await {
            if let Some(batch) = beyond(&batch, &next_offsets)? {
                encoder.write(batch).await?;
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
    pub deadline: Instant,
    bronze: Lane<BronzeFiles>,
    silver: Option<Lane<SilverFiles>>,
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
    /// A cycle that ends at `deadline` at the latest. Silver takes part with its encoder and its next offsets.
    pub fn open(
        barrier: CloseBarrier,
        deadline: Instant,
        bronze: DataWriter,
        silver: Option<(SilverEncoder, BTreeMap<PartitionId, i64>)>,
    ) -> Self {
        let silver = silver.map(|(encoder, next_offsets)| silver_lane(encoder, next_offsets));
        let (delta, highest_ms) = (Delta::default(), BTreeMap::new());
        Self { barrier, delta, highest_ms, bytes: 0, deadline, bronze: bronze_lane(bronze), silver }
    }

    /// Takes a batch; false when bronze's lane has failed, so that the cycle should be finished to learn why.
    pub async fn push(&mut self, batch: RawBatch) -> Result<bool> {
        self.delta
            .append(&batch.delta)
            .map_err(|mismatch| Error::failed("the source skipped or repeated offsets").caused_by(mismatch))?;
        raise_highest(&batch.records, &mut self.highest_ms)?;
        self.bytes += payload_bytes(&batch.records);
        let batch = Arc::new(batch);
        if let Some(silver) = &self.silver {
            silver.push(&batch).await;
        }
        Ok(self.bronze.push(&batch).await)
    }

    /// Ends the cycle and waits for its files to be encoded (not yet closed).
    pub async fn finish(self) -> Result<FilledCycle> {
        let Self { barrier, delta, highest_ms, bronze, silver, .. } = self;
        let silver = async {
            match silver {
                Some(lane) => Some(lane.finish().await),
                None => None,
            }
        };
        let (bronze, silver) = tokio::join!(bronze.finish(), silver);
        Ok(FilledCycle { barrier, delta, highest_ms, bronze: bronze?, silver })
    }
}

fn payload_bytes(records: &RecordBatch) -> u64 {
    records.columns().iter().map(|column| column.get_array_memory_size() as u64).sum()
}
