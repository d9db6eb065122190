//! Keeps one gold table: takes committed silver rows, and every so often writes the partitions that they changed.
//!
//! A refresh writes complete versions of changed partitions, moves the partitions to them, and last the table's progress. Killed
//! anywhere in between, the next maintainer begins at the old progress, reads silver from the floor on and does the same again; it
//! waits with its first write until it has passed every position that a partition already claims.
//!
//! *Invariants*: a partition equals the `GROUP BY` of silver at the positions in its parameters. Nothing leaves memory before the
//! table's progress says that it is written. Rows come from committed silver only; what [`GoldMaintainer::update`] is given is a cache of
//! it.
//!
//! *Failure*: a failed refresh changes nothing in memory and may be tried again. After a failed update the maintainer is of no more use.
//!
//! *What may leak*: version directories of refreshes that failed, until the sweep; the lock of a killed process, until the metastore's
//! `metastore.txn.timeout`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use futures::TryStreamExt;
use tracing::info;

use super::definition::Standing;
use super::grant::{Again, Work};
use super::lease::Lease;
use super::open_windows::{OpenWindows, Update};
use super::plan::GoldPlan;
use super::progress::{POSITIONS, Positions, Progress};
use super::redefine::add_columns;
use super::silver::SilverRows;
use super::versions::Known;
use super::window::micros;
use crate::checkpoint::{Checkpoint, Coverage, Delta, OffsetRange, PartitionId, parse_positions};
use crate::error::{Context, Error, Result};
use crate::hive::{PartitionKey, ensure_database, ensure_table, ensure_view, key_of};
use crate::metastore::{Metastore, Wait};
use crate::storage::Storages;

/// Offsets that catching up reads at a time; their rows are held in memory until they are counted.
const SLICE_OFFSETS: i64 = 1 << 18;

/// What catching up did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatchUp {
    /// Gold holds all of silver's rows; so many were read.
    Done { rows: u64 },
    /// Silver went back behind gold (partition → gold's next, silver's next): gold waits until it has passed.
    Waiting(BTreeMap<PartitionId, (i64, i64)>),
}

/// The one process that maintains a gold table.
pub struct GoldMaintainer {
    pub(super) plan: GoldPlan,
    pub(super) metastore: Metastore,
    pub(super) storages: Storages,
    pub(super) lease: Lease,
    pub(super) open: OpenWindows,
    /// Progress as the table has it.
    pub(super) written: Progress,
    /// Live windows are complete: false from the start until silver was read from the floor.
    pub(super) restored: bool,
    /// An update failed half-way.
    pub(super) broken: bool,
    pub(super) known: BTreeMap<PartitionKey, Known>,
    /// Positions that partitions claim beyond the table's.
    pub(super) claimed: BTreeMap<PartitionId, i64>,
    pub(super) silver_uuid: uuid::Uuid,
    pub(super) swept_at: Option<SystemTime>,
    pub(super) completeness_interval: Duration,
    /// The table is becoming what the plan says: the partitions that are still to be computed by it, with the instants at which they begin.
    pub(super) outdated: Option<BTreeMap<PartitionKey, i64>>,
    /// Why partitions are computed again by the definition that they have.
    pub(super) again: Option<Again>,
}

impl GoldMaintainer {
    /// Creates what is missing, waits to be the only maintainer, and reads how far the table has come. Call
    /// [`GoldMaintainer::catch_up`] next.
    pub async fn open(
        plan: GoldPlan,
        database: &str,
        metastore: &Metastore,
        storages: &Storages,
        silver: &dyn SilverRows,
    ) -> Result<Self> {
        Self::open_with(plan, database, metastore, storages, silver, Wait::ForTheHolder).await
    }

    /// As [`GoldMaintainer::open`], but stands by for as long as another process is the maintainer.
    pub async fn stand_by(
        plan: GoldPlan,
        database: &str,
        metastore: &Metastore,
        storages: &Storages,
        silver: &dyn SilverRows,
    ) -> Result<Self> {
        Self::open_with(plan, database, metastore, storages, silver, Wait::StandingBy).await
    }

    async fn open_with(
        plan: GoldPlan,
        database: &str,
        metastore: &Metastore,
        storages: &Storages,
        silver: &dyn SilverRows,
        wait: Wait,
    ) -> Result<Self> {
        let name = format!("{database}.{}", plan.settings().table);
        ensure_database(metastore, database, None).await?;
        let location = table_location(&plan, database, metastore, storages).await?;
        let spec = plan.table_spec(database, &location)?;
        let view = plan.view_spec(database)?;
        // Before anything is waited for: who has no business with the table says so at once.
        let found = metastore.table(database, &spec.name).await.with_context(|| format!("failed to load table {name}"))?;
        if found.as_ref().map(|entry| plan.standing(entry)).transpose()?.is_none_or(|found| found == Standing::Current) {
            ensure_table(metastore, storages, &spec).await?;
        }
        let mut lease = Lease::take_over(metastore, database, &spec.name, wait).await?;
        let standing = plan.standing(lease.entry())?;
        let uuid = silver.table_uuid();
        let progress = Progress::from_parameters(|key| lease.entry().parameter(key));
        let mut progress = progress.with_context(|| format!("gold table {name}"))?;
        if let Standing::Granted(Work::Again(again)) = &standing {
            progress.lower_floor(&again.floor);
        }
        if progress.silver_uuid.is_some_and(|found| found != uuid) {
            return Err(Error::stop(format!("gold table {name} was computed from another silver table"))
                .hint(format!("drop {name}, and it is computed again from silver, or give the new one another name")));
        }
        match standing {
            Standing::Current => {
                ensure_table(metastore, storages, &spec).await?;
                if let Some(view) = view {
                    ensure_view(metastore, &view).await?;
                }
            }
            Standing::Granted(_) => add_columns(&mut lease, &spec).await?,
        }
        let entry = lease.entry().clone();
        let mut known = BTreeMap::new();
        let mut claimed: BTreeMap<PartitionId, i64> = BTreeMap::new();
        let mut newest = 0;
        let keys = entry.partition_keys();
        let partitions = metastore.partitions(database, &spec.name).await;
        let partitions = partitions.with_context(|| format!("failed to list the partitions of {name}"))?;
        for partition in &partitions {
            let Some(found) = Known::of(partition, uuid) else { continue };
            newest = newest.max(found.epoch);
            let positions = partition.parameter(POSITIONS).and_then(|text| parse_positions(text).ok()).unwrap_or_default();
            for (topic_partition, coverage) in positions {
                let next = claimed.entry(topic_partition).or_insert(coverage.range.end);
                *next = coverage.range.end.max(*next);
            }
            known.insert(key_of(&keys, partition), found);
        }
        if newest > lease.epoch() {
            lease.raise_above(newest).await?;
        }
        let mut maintainer = Self {
            open: OpenWindows::new(&plan, &progress),
            plan,
            metastore: metastore.clone(),
            storages: storages.clone(),
            lease,
            restored: progress.replay().is_empty(),
            written: progress,
            broken: false,
            known,
            claimed,
            silver_uuid: uuid,
            swept_at: None,
            completeness_interval: Duration::from_secs(60),
            outdated: None,
            again: None,
        };
        match standing {
            Standing::Current => {}
            Standing::Granted(Work::Redefine(old_rows)) => maintainer.begin_redefinition(old_rows, &partitions).await?,
            Standing::Granted(Work::Again(again)) => maintainer.begin_again(again, &partitions)?,
        }
        Ok(maintainer)
    }

    /// With another least gain for which the table's time is written alone; zero: never alone.
    #[must_use]
    pub fn with_completeness_interval(self, completeness_interval: Duration) -> Self {
        Self { completeness_interval, ..self }
    }

    pub fn plan(&self) -> &GoldPlan {
        &self.plan
    }

    /// How far rows were counted; the table's own positions follow with the next refresh.
    pub fn positions(&self) -> &Positions {
        self.open.positions()
    }

    /// Progress as the table has it.
    pub fn progress(&self) -> &Progress {
        &self.written
    }

    /// Memory for open windows is half used up: refresh now rather than at the next interval.
    pub fn is_full(&self) -> bool {
        self.open.is_full()
    }

    pub fn memory_bytes(&self) -> usize {
        self.open.state().memory_bytes()
    }

    /// These topic partitions are not read for now although they have records: they are not idle.
    pub fn hold(&mut self, partitions: &BTreeSet<PartitionId>, now: SystemTime) {
        self.open.hold(partitions, instant_us(now));
    }

    /// Counts rows that silver has just committed. They must continue [`GoldMaintainer::positions`]; if they don't, nothing is changed
    /// and [`GoldMaintainer::catch_up`] finds what is missing.
    pub fn update(&mut self, rows: &RecordBatch, delta: &Delta, now: SystemTime) -> Result<Update> {
        self.ensure_usable()?;
        if !self.restored {
            let waits = self.open.positions().iter().next();
            if let Some((&partition, coverage)) = waits {
                let batch = delta.partitions.get(&partition).map_or(coverage.range, |batch| batch.range);
                return Ok(Update::Gap(crate::checkpoint::Mismatch { partition, table_next: coverage.range.end, batch }));
            }
        }
        let update = self.open.update(rows, delta, instant_us(now));
        self.broken = update.is_err();
        update.with_context(|| format!("gold table {}", self.lease.name()))
    }

    /// Counts everything that silver has and gold has not, after rebuilding the open windows if that is still to be done. Refreshes on
    /// the way when memory fills up.
    pub async fn catch_up(&mut self, silver: &dyn SilverRows, now: SystemTime) -> Result<CatchUp> {
        self.ensure_usable()?;
        let waiting = self.waiting_for(silver)?;
        if !waiting.is_empty() {
            return Ok(CatchUp::Waiting(waiting));
        }
        self.restore(silver, now).await?;
        let Some(ahead) = silver.positions()? else { return Ok(CatchUp::Done { rows: 0 }) };
        let missing = self.checkpoint(&ahead).missing_from(&ahead);
        let mut total = 0;
        for slice in slices(&missing) {
            let rows = self.read(silver, &slice).await?;
            let partitions = slice
                .iter()
                .map(|(partition, range)| (*partition, Coverage { range: *range, records: range.len() as u64 }))
                .collect();
            match self.update(&rows, &Delta { partitions }, now)? {
                Update::Applied => total += rows.num_rows() as u64,
                Update::Gap(mismatch) => return Err(Error::failed("catching up lost its place").caused_by(mismatch)),
            }
            if self.is_full() && self.passed_claims() {
                self.refresh(silver, now).await?;
            }
        }
        Ok(CatchUp::Done { rows: total })
    }

    async fn restore(&mut self, silver: &dyn SilverRows, now: SystemTime) -> Result<()> {
        if self.restored {
            return Ok(());
        }
        self.open = OpenWindows::new(&self.plan, &self.written);
        let replay = self.written.replay();
        let mut batches = silver.read(&replay, &self.plan.columns(), None).await?;
        let mut rows = 0;
        while let Some(batch) = batches.try_next().await? {
            rows += batch.num_rows();
            self.open.restore(&batch, instant_us(now))?;
        }
        self.restored = true;
        info!(table = %self.lease.name(), rows, windows = self.open.open().count(), "rebuilt the open windows from silver");
        Ok(())
    }

    async fn read(&self, silver: &dyn SilverRows, ranges: &BTreeMap<PartitionId, OffsetRange>) -> Result<RecordBatch> {
        let batches: Vec<RecordBatch> = silver.read(ranges, &self.plan.columns(), None).await?.try_collect().await?;
        match batches.first() {
            Some(first) => Ok(concat_batches(&first.schema(), &batches)?),
            None => Ok(self.plan.no_rows()),
        }
    }

    /// Partitions in which silver is behind gold. Stops if silver is another table than before.
    pub(super) fn waiting_for(&self, silver: &dyn SilverRows) -> Result<BTreeMap<PartitionId, (i64, i64)>> {
        if silver.table_uuid() != self.silver_uuid {
            return Err(Error::stop(format!("the silver table under gold table {} was replaced", self.lease.name()))
                .hint(format!("drop {}, and it is computed again from silver", self.lease.name())));
        }
        let silver = silver.positions()?.unwrap_or_default();
        Ok(self.checkpoint(&silver).ahead_of(&silver))
    }

    pub(super) fn checkpoint(&self, like: &Checkpoint) -> Checkpoint {
        Checkpoint { partitions: self.open.positions().clone(), ..like.clone() }
    }

    /// No partition claims rows that have not been counted.
    pub(super) fn passed_claims(&self) -> bool {
        let next = |partition| self.open.positions().get(&partition).map_or(0, |coverage: &Coverage| coverage.range.end);
        self.claimed.iter().all(|(partition, claimed)| next(*partition) >= *claimed)
    }

    pub(super) fn ensure_usable(&self) -> Result<()> {
        if self.broken {
            return Err(Error::failed(format!("gold table {} has to be opened again after a failed update", self.lease.name())));
        }
        Ok(())
    }

    /// Whether another process was found to be the maintainer now.
    pub fn is_fenced(&self) -> bool {
        self.lease.is_fenced()
    }

    /// Lets another maintainer begin. What was not refreshed is counted again by it.
    pub async fn close(self) -> Result<()> {
        self.lease.release().await
    }
}

async fn table_location(plan: &GoldPlan, database: &str, metastore: &Metastore, storages: &Storages) -> Result<String> {
    let settings = plan.settings();
    let about = || format!("gold table {database}.{}", settings.table);
    if !settings.location.is_empty() {
        return storages.qualify(&settings.location).with_context(about);
    }
    let entry = metastore.database(database).await.with_context(about)?;
    let below = entry.as_ref().and_then(|entry| entry.location()).map_or_else(|| storages.warehouse(), str::to_owned);
    storages.qualify(&format!("{}/{}", below.trim_end_matches('/'), settings.table)).with_context(about)
}

/// Cuts ranges into slices of at most about [`SLICE_OFFSETS`] offsets; each slice takes the same share of every partition, so that
/// partitions advance together as they did in the topic.
fn slices(missing: &BTreeMap<PartitionId, OffsetRange>) -> Vec<BTreeMap<PartitionId, OffsetRange>> {
    let total: i64 = missing.values().map(OffsetRange::len).sum();
    let count = (total + SLICE_OFFSETS - 1) / SLICE_OFFSETS;
    let bound = |range: &OffsetRange, slice: i64| {
        range.start + i64::try_from(i128::from(range.len()) * i128::from(slice) / i128::from(count.max(1))).unwrap_or(range.len())
    };
    (0..count)
        .map(|slice| {
            let part = |range: &OffsetRange| OffsetRange { start: bound(range, slice), end: bound(range, slice + 1) };
            missing.iter().map(|(partition, range)| (*partition, part(range))).filter(|(_, range)| !range.is_empty()).collect()
        })
        .collect()
}

pub(super) fn instant_us(now: SystemTime) -> i64 {
    now.duration_since(UNIX_EPOCH).map_or(0, micros)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn slices_cover_each_range_once_in_order(ranges in prop::collection::btree_map(0..9i32, (0i64..1000, 1i64..2_000_000), 0..5)) {
            let missing: BTreeMap<PartitionId, OffsetRange> =
                ranges.into_iter().map(|(partition, (start, length))| (partition, OffsetRange::new(start, start + length))).collect();
            let mut next: BTreeMap<PartitionId, i64> = missing.iter().map(|(partition, range)| (*partition, range.start)).collect();
            for slice in slices(&missing) {
                prop_assert!(slice.values().map(OffsetRange::len).sum::<i64>() <= SLICE_OFFSETS + missing.len() as i64);
                for (partition, range) in slice {
                    prop_assert_eq!(next.insert(partition, range.end), Some(range.start));
                }
            }
            prop_assert!(missing.iter().all(|(partition, range)| next[partition] == range.end));
        }
    }
}
