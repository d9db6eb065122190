//! How rejected stands to silver, and how it is brought in step with it.
//!
//! Rejected is bronze minus silver, offset by offset. Silver's note [`rejected::POSITIONS`] says where rejected stands once it holds all
//! records that silver had rejected until then.
//!
//! | rejected stands | because | what happens |
//! |---|---|---|
//! | where the note says | | the usual |
//! | behind it | a crash between the two commits, or rejected's pointer went back | it is completed: bronze minus silver, in between |
//! | ahead of silver | silver's pointer went back | silver takes from bronze what rejected does not hold |
//!
//! In the second and third case a record's fate is already decided, and a definition that has changed since must not decide it anew: it
//! would be in both tables, or in none. So silver takes no records from memory until the two are in step.

use std::collections::BTreeMap;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use futures::{StreamExt, TryStreamExt};
use roaring::RoaringTreemap;
use uuid::Uuid;

use super::commit::Ready;
use super::positions::{count_rows, recount};
use super::silver_stage::SilverStage;
use crate::bronze::BronzeTable;
use crate::checkpoint::{Checkpoint, Delta, OffsetRange, PartitionId};
use crate::error::{Context, Error, Result};
use crate::record::{RawBatch, as_raw, coordinates};
use crate::silver::{SilverTable, rejected};
use crate::storage::CloseBarrier;
use crate::table::logged::LoggedForm;
use crate::table::{OffsetRanges, RecordTable, Records};

/// Offsets one by one, by topic partition.
pub(super) type Offsets = BTreeMap<PartitionId, RoaringTreemap>;

/// Records of a catch-up whose fate is decided, because rejected is ahead of silver.
pub(super) struct Decided {
    /// By topic partition, the offset from which on records are undecided.
    pub below: BTreeMap<PartitionId, i64>,
    rejected: Offsets,
}

impl Decided {
    /// The records that rejected does not hold.
    pub fn undecided(&self, records: &RecordBatch) -> Result<RecordBatch> {
        if self.rejected.is_empty() { Ok(records.clone()) } else { select(records, &self.rejected, Held::No) }
    }
}

impl SilverStage {
    fn rejected_checkpoint(&self) -> Result<Checkpoint> {
        Ok(self.rejected.checkpoint()?.unwrap_or_default())
    }

    /// What rejected lacks in the partitions of this process; that of others is theirs to complete.
    fn rejected_lacking(&self) -> Result<BTreeMap<PartitionId, OffsetRange>> {
        let lacking = rejected::lacking(self.silver.note(rejected::POSITIONS), self.silver.ident(), &self.rejected_checkpoint()?);
        Ok(self.parts().share.of(lacking?))
    }

    /// Whether rejected is behind where silver's commits had brought it.
    pub fn lacks_rejected(&self) -> Result<bool> {
        Ok(!self.rejected_lacking()?.is_empty())
    }

    /// Whether records may be taken from memory.
    pub fn in_step(&self) -> Result<bool> {
        let ahead = self.parts().share.of(self.rejected_checkpoint()?.ahead_of(&self.checkpoint()?));
        Ok(!self.lacks_rejected()? && ahead.is_empty())
    }

    /// What rejected's commit covers: from where it stands up to the end of `ranges`; none when nothing was rejected.
    pub(super) fn rejected_delta(
        &self,
        ranges: &BTreeMap<PartitionId, OffsetRange>,
        rejected_rows: &BTreeMap<PartitionId, u64>,
    ) -> Result<Option<Delta>> {
        if rejected_rows.values().all(|rows| *rows == 0) {
            return Ok(None);
        }
        let (rejected, silver) = (self.rejected_checkpoint()?, self.silver.checkpoint()?.unwrap_or_default());
        let begin = |partition: &PartitionId, range: &OffsetRange| {
            let silver_first = silver.partitions.get(partition).map_or(range.start, |coverage| coverage.range.start);
            rejected.next_offset(*partition).unwrap_or(silver_first)
        };
        let ranges = ranges
            .iter()
            .map(|(partition, range)| (*partition, OffsetRange { start: begin(partition, range), end: range.end }))
            .filter(|(_, range)| !range.is_empty());
        Ok(Some(recount(&ranges.collect(), rejected_rows)))
    }

    /// The text of [`rejected::POSITIONS`] once rejected has taken a batch; empty while it has none.
    pub(super) fn rejected_after(&self, delta: Option<&Delta>) -> Result<String> {
        let known = self.rejected_checkpoint()?;
        let after = match delta {
            None => known,
            Some(delta) => known
                .advance(delta)
                .map_err(|mismatch| Error::transient(format!("table {} has moved", self.rejected.ident())).caused_by(mismatch))?,
        };
        Ok(if after.partitions.is_empty() { String::new() } else { after.positions() })
    }

    /// Commits the rejected records that rejected lacks: those of bronze that are not in silver. What bronze itself does not have yet,
    /// because its pointer went back, is left for later.
    pub async fn complete_rejected(&mut self, bronze: &BronzeTable) -> Result<()> {
        let input = bronze.checkpoint()?.unwrap_or_default();
        let reach = |(partition, range): (PartitionId, OffsetRange)| {
            let end = range.end.min(input.next_offset(partition).unwrap_or(range.start));
            (partition, OffsetRange { start: range.start, end })
        };
        let ranges: BTreeMap<_, _> =
            self.rejected_lacking()?.into_iter().map(reach).filter(|(_, range)| !range.is_empty()).collect();
        if ranges.is_empty() {
            return Ok(());
        }
        let accepted = offsets_in(&self.silver, &ranges).await?;
        let barrier = CloseBarrier::new();
        let mut writer = self.rejected.writer(&self.parts.rejected_writer, &barrier)?;
        let mut rows = BTreeMap::new();
        let mut batches = self.records(bronze, &ranges).await?;
        while let Some(records) = batches.try_next().await? {
            let records = select(&records, &accepted, Held::No)?;
            if records.num_rows() > 0 {
                let batch = RawBatch { delta: Delta::default(), records };
                let rejected = self.parts.plan.reject_all(&batch, chrono::Utc::now().timestamp_micros())?;
                count_rows(&rejected, &mut rows)?;
                writer.write(&rejected).await?;
            }
        }
        let files = writer.finish().await?;
        let append = self.append(files, recount(&ranges, &rows), Uuid::now_v7(), BTreeMap::new());
        let ready = Ready::prepare(&mut self.rejected, append, &barrier).await?;
        barrier.wait().await.context("files of rejected could not be closed")?;
        tracing::info!(table = %self.rejected.ident(), "completing rejected records that were lacking");
        ready.swap(&mut self.rejected).await?.tell(&self.parts.tally, None);
        Ok(())
    }

    /// What rejected decides of these ranges, which silver lacks.
    pub(super) async fn decided(&self, ranges: &BTreeMap<PartitionId, OffsetRange>) -> Result<Decided> {
        let below = self.rejected_checkpoint()?.next_offsets();
        let overlap = |(&partition, &range): (&PartitionId, &OffsetRange)| {
            let end = range.end.min(below.get(&partition).copied().unwrap_or(range.start));
            (partition, OffsetRange { start: range.start, end })
        };
        let overlaps: BTreeMap<_, _> = ranges.iter().map(overlap).filter(|(_, range)| !range.is_empty()).collect();
        let rejected = if overlaps.is_empty() { Offsets::new() } else { offsets_in(&self.rejected, &overlaps).await? };
        Ok(Decided { below, rejected })
    }
}

/// Stops where a record is rejected that silver had accepted before its pointer went back: rejected has passed it.
pub(super) fn ensure_undecided(rejected: &RecordBatch, below: &BTreeMap<PartitionId, i64>) -> Result<()> {
    let (partitions, offsets) = coordinates(rejected)?;
    let mut records = partitions.values().iter().zip(offsets.values());
    match records.find(|(partition, offset)| below.get(partition).is_some_and(|below| *offset < below)) {
        None => Ok(()),
        Some((partition, offset)) => Err(Error::stop(format!(
            "silver went back, and the record at offset {offset} of partition {partition}, which it had accepted, is now rejected"
        ))
        .hint("run once with the columns and expectations of before; later records may then be decided by new ones")),
    }
}

/// The offsets that a table holds in these ranges.
pub(super) async fn offsets_in<L: LoggedForm>(
    table: &RecordTable<L>,
    ranges: &BTreeMap<PartitionId, OffsetRange>,
) -> Result<Offsets> {
    let mut found = Offsets::new();
    let mut batches = table.scan(Some(ranges), Some(&[crate::record::PARTITION, crate::record::OFFSET])).await?;
    while let Some(batch) = batches.try_next().await? {
        let (partitions, offsets) = coordinates(&batch)?;
        for (partition, offset) in partitions.values().iter().zip(offsets.values()) {
            found.entry(*partition).or_default().insert(*offset as u64);
        }
    }
    Ok(found)
}

/// Which rows are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Yes,
    No,
}

/// The rows of a batch whose offsets are, or are not, in `offsets`.
pub(super) fn select(records: &RecordBatch, offsets: &Offsets, wanted: Held) -> Result<RecordBatch> {
    let (partitions, values) = coordinates(records)?;
    let holds = |partition: &PartitionId, offset: i64| offsets.get(partition).is_some_and(|known| known.contains(offset as u64));
    let rows = partitions.values().iter().zip(values.values());
    let keep: BooleanArray = rows.map(|(partition, offset)| Some(holds(partition, *offset) == (wanted == Held::Yes))).collect();
    Ok(filter_record_batch(records, &keep)?)
}

/// Bronze's records of these ranges whose offsets a table holds.
pub(super) async fn records_held_by(table: &SilverTable, bronze: &BronzeTable, ranges: &OffsetRanges) -> Result<Records> {
    records_at(offsets_in(table, ranges).await?, bronze).await
}

/// Bronze's records at these offsets; of bronze nothing is read that cannot be among them.
pub(super) async fn records_at(offsets: Offsets, bronze: &BronzeTable) -> Result<Records> {
    let span = |(partition, offsets): (&PartitionId, &RoaringTreemap)| {
        let (first, last) = (offsets.min()?, offsets.max()?);
        Some((*partition, OffsetRange::new(first as i64, last as i64 + 1)))
    };
    let narrowed: OffsetRanges = offsets.iter().filter_map(span).collect();
    if narrowed.is_empty() {
        return Ok(futures::stream::empty().boxed());
    }
    let records = bronze.scan(Some(&narrowed), None).await?;
    Ok(records.map(move |records| select(&as_raw(&records?)?, &offsets, Held::Yes)).boxed())
}
