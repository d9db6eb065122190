//! Silver and rejected: which input is due, and the commits of both in the order that keeps every record's fate in one place.
//!
//! *Invariants*: silver is committed before rejected, and its commit names, in [`rejected::POSITIONS`], where rejected's must bring that
//! table, so that it is completed after a crash between the two (see [`super::fates`]).
//!
//! *Failure*: an error before silver's swap changes nothing; after one behind it the stage must be opened again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use futures::{StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::commit::{Ready, signature};
use super::cycle::{SilverEncoder, SilverFiles};
use super::definition::Definition;
use super::fates::records_held_by;
use super::positions::recount;
use super::share::Share;
use super::specs::writer;
use super::tally::Tally;
use crate::bronze::BronzeTable;
use crate::catalog::HiveCatalog;
use crate::checkpoint::{Checkpoint, Delta, OffsetRange, PartitionId};
use crate::completeness::{COMPLETE_UNTIL, format_instant};
use crate::error::{Context, Error, Result};
use crate::record::{RawBatch, as_raw};
use crate::silver::{SilverPlan, SilverTable, Strangers, rejected};
use crate::storage::CloseBarrier;
use crate::table::{
    Append, InputRef, OffsetRanges, Origin, RecordFiles, RecordSpec, RecordTable, Records, WRITER, WriterSettings,
};
use crate::window::Window;

/// Silver's and rejected's note with the hash of the definition under which a batch was decoded.
pub const DEFINITION: &str = "lakesmith.definition";

/// The records that silver is filled with, where that is not all that bronze has.
#[derive(Clone)]
pub(super) struct Extract {
    pub ranges: OffsetRanges,
    /// Of these only records that this table holds.
    pub only: Option<SilverTable>,
}

/// What silver needs beside its tables.
#[derive(Clone)]
pub(super) struct SilverParts {
    pub catalog: HiveCatalog,
    pub plan: Arc<SilverPlan>,
    /// The fields that may become columns, where that is wanted.
    pub strangers: Option<Arc<Strangers>>,
    pub silver: RecordSpec,
    pub rejected: RecordSpec,
    pub silver_writer: WriterSettings,
    pub rejected_writer: WriterSettings,
    pub origin: Origin,
    pub bronze_uuid: Uuid,
    /// Silver columns that gold reads; none without gold.
    pub gold_columns: Option<Vec<String>>,
    /// Most records that one step of the catch-up reads from bronze.
    pub catch_up_records: i64,
    /// Ends the catch-up after the step under way.
    pub shutdown: CancellationToken,
    pub tally: Tally,
    /// The partitions whose records are this process's to commit.
    pub share: Share,
    /// Who signs the batches.
    pub signature: String,
    /// None for all that bronze has.
    pub extract: Option<Extract>,
}

impl SilverParts {
    /// What follows from the definition; everything else is as for a run that nobody watches and nobody shares.
    pub fn new(
        definition: &Definition,
        catalog: &HiveCatalog,
        plan: Arc<SilverPlan>,
        (silver, rejected): (RecordSpec, RecordSpec),
        (origin, bronze_uuid): (Origin, Uuid),
        tally: &Tally,
        shutdown: &CancellationToken,
    ) -> Self {
        Self {
            catalog: catalog.clone(),
            silver,
            rejected,
            silver_writer: writer(definition, plan.no_dictionary(), &[]),
            rejected_writer: writer(definition, &rejected::NO_DICTIONARY, &rejected::NO_STATISTICS),
            origin,
            bronze_uuid,
            gold_columns: None,
            catch_up_records: CATCH_UP_RECORDS,
            shutdown: shutdown.clone(),
            tally: tally.clone(),
            share: Share::All,
            signature: signature(&definition.pipeline.name),
            plan,
            strangers: None,
            extract: None,
        }
    }
}

/// Offsets that one step of the catch-up reads: about a cycle's worth.
const CATCH_UP_RECORDS: i64 = 500_000;

/// Silver and rejected, ready to take records.
pub(super) struct SilverStage {
    pub(super) parts: SilverParts,
    pub silver: SilverTable,
    pub rejected: SilverTable,
}

/// Silver's and rejected's share of a cycle, prepared.
pub(super) struct SilverReady {
    silver: Ready,
    rejected: Option<Ready>,
    gold_rows: Vec<RecordBatch>,
}

/// What gold is told after silver's commit.
#[derive(Debug, Clone)]
pub(super) struct CommittedRows {
    pub rows: Vec<RecordBatch>,
    pub delta: Delta,
    /// Topic partitions that are not read for now although they have records.
    pub paused: BTreeSet<PartitionId>,
}

impl CommittedRows {
    /// Offsets that the commit covers.
    pub fn offsets(&self) -> u64 {
        self.delta.ranges().values().map(|range| range.len() as u64).sum()
    }
}

impl SilverStage {
    /// Stops if one of the tables was filled from another topic or another bronze table.
    pub fn new(parts: SilverParts, silver: SilverTable, rejected: SilverTable) -> Result<Self> {
        for table in [&silver, &rejected] {
            table.ensure_same_source(&parts.origin)?;
            ensure_same_input(table, parts.bronze_uuid)?;
        }
        parts.tally.layer("silver", &silver.ident().to_string());
        parts.tally.layer("rejected", &rejected.ident().to_string());
        Ok(Self { parts, silver, rejected })
    }

    /// Opens or creates both tables.
    pub async fn open(parts: SilverParts) -> Result<Self> {
        let (mut silver, rejected) = tokio::try_join!(
            SilverTable::open_or_create(&parts.catalog, &parts.silver),
            SilverTable::open_or_create(&parts.catalog, &parts.rejected),
        )?;
        silver.complete().await?;
        Self::new(parts, silver, rejected)
    }

    pub fn parts(&self) -> &SilverParts {
        &self.parts
    }

    pub fn take_share(&mut self, share: Share) {
        self.parts.share = share;
    }

    /// Reads both tables again, which others may have written to.
    pub async fn refresh(&mut self) -> Result<()> {
        tokio::try_join!(self.silver.refresh(), self.rejected.refresh())?;
        Ok(())
    }

    /// What silver lacks of bronze in the partitions of this process.
    pub fn lacking(&self, bronze: &BronzeTable) -> Result<BTreeMap<PartitionId, OffsetRange>> {
        let mut input = bronze.checkpoint()?.unwrap_or_default();
        if let Some(extract) = &self.parts.extract {
            input.partitions.retain(|partition, _| extract.ranges.contains_key(partition));
            for (partition, coverage) in &mut input.partitions {
                coverage.range = coverage.range.intersect(&extract.ranges[partition]);
            }
        }
        Ok(self.parts.share.of(self.checkpoint()?.missing_from(&input)))
    }

    /// The records of these ranges, from bronze.
    pub(super) async fn records(&self, bronze: &BronzeTable, ranges: &OffsetRanges) -> Result<Records> {
        match self.parts.extract.as_ref().and_then(|extract| extract.only.as_ref()) {
            None => Ok(bronze.scan(Some(ranges), None).await?.map(|records| as_raw(&records?)).boxed()),
            Some(only) => records_held_by(only, bronze, ranges).await,
        }
    }

    pub fn checkpoint(&self) -> Result<Checkpoint> {
        let origin = &self.parts.origin;
        let start = || Checkpoint::start(&origin.topic, origin.topic_id.clone(), origin.cluster_id.clone());
        Ok(self.silver.checkpoint()?.unwrap_or_else(start))
    }

    /// Silver's next offsets once it has these ranges.
    pub fn next_after(&self, ranges: &BTreeMap<PartitionId, OffsetRange>) -> Result<BTreeMap<PartitionId, i64>> {
        let mut next = self.checkpoint()?.next_offsets();
        next.extend(ranges.iter().map(|(partition, range)| (*partition, range.end)));
        Ok(next)
    }

    pub fn encoder(&self, barrier: &CloseBarrier) -> Result<SilverEncoder> {
        let silver = self.silver.writer(&self.parts.silver_writer, barrier)?;
        let rejected = self.rejected.writer(&self.parts.rejected_writer, barrier)?;
        let encoder = SilverEncoder::new(self.parts.plan.clone(), silver, rejected, self.parts.gold_columns.clone())
            .with_strangers(self.parts.strangers.clone());
        Ok(match &self.silver {
            RecordTable::Lake(_) => encoder,
            RecordTable::Logged(table) => encoder.with_directories(table.keys().clone()),
        })
    }

    /// Writes the metadata of both commits. `ranges` is what the files cover; `until_ms` what bronze states for their ends.
    pub async fn prepare(
        &mut self,
        files: SilverFiles,
        ranges: &BTreeMap<PartitionId, OffsetRange>,
        until_ms: Option<i64>,
        commit_id: Uuid,
        barrier: &CloseBarrier,
    ) -> Result<SilverReady> {
        let busy = files.busy;
        let started = Instant::now();
        let silver_delta = recount(ranges, &files.silver_rows);
        let rejected_delta = self.rejected_delta(ranges, &files.rejected_rows)?;
        let mut notes = BTreeMap::from([(rejected::POSITIONS.to_owned(), self.rejected_after(rejected_delta.as_ref())?)]);
        notes.extend(until_ms.map(|until_ms| (COMPLETE_UNTIL.to_owned(), format_instant(until_ms))));
        let silver = self.append(files.silver, silver_delta, commit_id, notes);
        let silver = Ready::prepare(&mut self.silver, silver, barrier).await?;
        let rejected = match rejected_delta {
            None => None,
            Some(delta) => {
                let append = self.append(files.rejected, delta, commit_id, BTreeMap::new());
                Some(Ready::prepare(&mut self.rejected, append, barrier).await?)
            }
        };
        Ok(SilverReady { silver: silver.took(busy + started.elapsed()), rejected, gold_rows: files.gold_rows })
    }

    pub(super) fn append(
        &self,
        files: RecordFiles,
        delta: Delta,
        commit_id: Uuid,
        notes: BTreeMap<String, String>,
    ) -> Append<RecordFiles> {
        let mut summary = notes;
        summary.insert(WRITER.to_owned(), self.parts.signature.clone());
        summary.insert(DEFINITION.to_owned(), self.parts.plan.definition_hash().to_owned());
        Append {
            files,
            delta,
            origin: self.parts.origin.clone(),
            commit_id,
            input: Some(InputRef { table_uuid: self.parts.bronze_uuid, snapshot_id: None }),
            summary,
        }
    }

    /// Moves both pointers, silver's first. Returns what gold may take.
    pub async fn swap(&mut self, ready: SilverReady) -> Result<CommittedRows> {
        let SilverReady { silver, rejected, gold_rows } = ready;
        let delta = silver.delta().clone();
        match silver.swap(&mut self.silver).await {
            Ok(line) => {
                Window::SilverSwapped.pass();
                line.tell(&self.parts.tally, None);
            }
            Err(error) => {
                if let Some(rejected) = rejected {
                    rejected.discard(&self.rejected).await;
                }
                return Err(error);
            }
        }
        if let Some(rejected) = rejected {
            let line = rejected.swap(&mut self.rejected).await?;
            Window::RejectedSwapped.pass();
            line.tell(&self.parts.tally, None);
        }
        Ok(CommittedRows { rows: gold_rows, delta, paused: BTreeSet::new() })
    }

    /// Deletes what was prepared, before any swap.
    pub async fn discard(&self, ready: SilverReady) {
        ready.silver.discard(&self.silver).await;
        if let Some(rejected) = ready.rejected {
            rejected.discard(&self.rejected).await;
        }
    }

    /// Reads what silver lacks from bronze, at most `catch_up_records` offsets of it, and commits it. None when there is nothing to do, or
    /// rejected has to be completed first and bronze is not there yet.
    pub async fn catch_up(&mut self, bronze: &BronzeTable) -> Result<Option<CommittedRows>> {
        let ranges = first_offsets_of(self.lacking(bronze)?, self.parts.catch_up_records);
        if ranges.is_empty() || self.lacks_rejected()? {
            return Ok(None);
        }
        let barrier = CloseBarrier::new();
        let files = self.encode(bronze, &ranges, &barrier).await?;
        Window::CatchUpFilesWritten.pass();
        let ready = self.prepare_from(bronze, files, &ranges, &barrier).await?;
        Window::CatchUpMetadataWritten.pass();
        self.swap(ready).await.map(Some)
    }

    /// Reads these ranges, which silver lacks, from bronze, and writes their files, not all of which are closed yet.
    pub(super) async fn encode(
        &self,
        bronze: &BronzeTable,
        ranges: &OffsetRanges,
        barrier: &CloseBarrier,
    ) -> Result<SilverFiles> {
        let decided = self.decided(ranges).await?;
        let mut encoder = self.encoder(barrier)?.with_decided(decided.below.clone());
        let mut batches = self.records(bronze, ranges).await?;
        while let Some(records) = batches.try_next().await? {
            let records = decided.undecided(&records)?;
            encoder.write(RawBatch { delta: Delta::default(), records }).await?;
        }
        encoder.finish().await
    }

    /// As [`Self::prepare`], for what was read from bronze; the files are closed when it returns.
    pub(super) async fn prepare_from(
        &mut self,
        bronze: &BronzeTable,
        files: SilverFiles,
        ranges: &OffsetRanges,
        barrier: &CloseBarrier,
    ) -> Result<SilverReady> {
        let until_ms = bronze.complete_at(&self.next_after(ranges)?)?;
        let ready = self.prepare(files, ranges, until_ms, Uuid::now_v7(), barrier).await?;
        barrier.wait().await.context("files of silver could not be closed")?;
        Ok(ready)
    }
}

/// Stops a layer whose rows were computed from another table than the bronze of today.
fn ensure_same_input(table: &SilverTable, bronze_uuid: Uuid) -> Result<()> {
    match table.input()? {
        Some(input) if input.table_uuid != bronze_uuid => Err(Error::stop(format!(
            "table {} was computed from the table with uuid {}, but bronze is now {bronze_uuid}",
            table.ident(),
            input.table_uuid
        ))
        .hint("was bronze dropped and created again? drop this table too to rebuild it, or give the pipeline new table names")),
        _ => Ok(()),
    }
}

/// The first `limit` offsets of each range, at least one in each.
fn first_offsets_of(ranges: BTreeMap<PartitionId, OffsetRange>, limit: i64) -> BTreeMap<PartitionId, OffsetRange> {
    let each = (limit / ranges.len().max(1) as i64).max(1);
    ranges
        .into_iter()
        .map(|(partition, range)| {
            (partition, OffsetRange { start: range.start, end: range.end.min(range.start.saturating_add(each)) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_catch_up_is_bounded_and_moves_every_partition() {
        let ranges = BTreeMap::from([(0, OffsetRange::new(5, 9_000)), (1, OffsetRange::new(0, 3))]);
        let step = first_offsets_of(ranges.clone(), 100);
        assert_eq!(step, BTreeMap::from([(0, OffsetRange::new(5, 55)), (1, OffsetRange::new(0, 3))]));
        assert_eq!(first_offsets_of(ranges, 1)[&1], OffsetRange::new(0, 1));
    }
}
