//! A refresh: what changed becomes new versions of partitions, then the table's progress.
//!
//! | step | killed after it, the next maintainer finds |
//! |---|---|
//! | version directories are written | directories that nobody refers to, swept later |
//! | partitions are moved there | partitions ahead of the table: it reads on until it has passed them, then writes them again |
//! | progress is written | everything |
//!
//! A table that gets another definition has some of its partitions computed again by each refresh, until all are (see [`super::redefine`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use tracing::warn;

use super::maintainer::{GoldMaintainer, instant_us};
use super::progress::{COMPUTED_AGAIN, DEFINITION, EPOCH, NULL_COLUMNS, POSITIONS, Progress, SILVER_SNAPSHOT, SILVER_UUID};
use super::silver::SilverRows;
use super::versions::{Base, Known, RefusedWindow, next_version};
use super::window::micros;
use crate::checkpoint::{PartitionId, format_positions};
use crate::completeness::gain;
use crate::error::{Context, Result};
use crate::hive::{PartitionKey, PartitionVersion, SweepReport, key_of, sweep, switch, version_name, version_of, write_version};
use crate::metastore::HivePartition;
use crate::window::Window;

/// Partition versions that are put together and written at the same time.
const VERSIONS_AT_ONCE: usize = 4;
/// How long after a write a partition is looked at again: a late call of another process may still move it.
const WATCH_US: i64 = 3_600_000_000;
/// How often old versions are swept.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);

/// What a refresh did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RefreshReport {
    pub partitions_written: u64,
    /// Rows, files and bytes of the versions that were written.
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
    pub windows_open: u64,
    /// Windows computed again from silver because records came late or memory was short.
    pub windows_recomputed: u64,
    /// Microseconds since 1970; none before the first record.
    pub watermark_us: Option<i64>,
    /// Partitions that someone else had changed.
    pub put_right: Vec<String>,
    /// Windows that keep their old rows because silver lost some of theirs.
    pub refused: Vec<RefusedWindow>,
    /// Nothing was written because silver is behind gold: it has to pass these offsets first (partition → gold's next, silver's next).
    pub waiting_for: BTreeMap<PartitionId, (i64, i64)>,
}

impl GoldMaintainer {
    /// Writes what has changed. `silver` is at a snapshot that holds at least what was counted.
    pub async fn refresh(&mut self, silver: &dyn SilverRows, now: SystemTime) -> Result<RefreshReport> {
        self.ensure_usable()?;
        let mut report = RefreshReport { waiting_for: self.waiting_for(silver)?, ..RefreshReport::default() };
        if !report.waiting_for.is_empty() || !self.restored || !self.passed_claims() {
            return Ok(report);
        }
        let about = format!("failed to refresh gold table {}", self.lease.name());
        self.refresh_now(silver, now, &mut report).await.with_context(|| about)?;
        Ok(report)
    }

    async fn refresh_now(&mut self, silver: &dyn SilverRows, now: SystemTime, report: &mut RefreshReport) -> Result<()> {
        let now_us = instant_us(now);
        self.lease.ensure_held().await?;
        self.ensure_same_definition()?;
        if self.again.is_some() {
            self.recount(silver).await?;
        }
        let changes = self.open.changes();
        let windows = self.plan.windows();
        let mut again: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
        for start in &changes.recompute {
            again.entry(windows.partition_of(*start)).or_default().insert(*start);
        }
        let changed: BTreeSet<i64> =
            changes.live.iter().map(|start| windows.partition_of(*start)).chain(again.keys().copied()).collect();
        let watched: BTreeSet<i64> =
            changed.iter().copied().chain(self.open.open().map(|start| windows.partition_of(start))).collect();
        let mut partitions: BTreeMap<PartitionKey, Option<i64>> = BTreeMap::new();
        for partition_us in watched {
            partitions.insert(windows.partition_key(partition_us)?, Some(partition_us));
        }
        for (key, known) in &self.known {
            if known.written_us.is_some_and(|written_us| now_us.saturating_sub(written_us) < WATCH_US) {
                partitions.entry(key.clone()).or_insert_with(|| windows.partition_start(key));
            }
        }
        let due = self.next_outdated();
        partitions.extend(due.iter().map(|(key, start)| (key.clone(), Some(*start))));
        let existing = self.existing(partitions.keys()).await?;
        let mut todo: Vec<(PartitionKey, i64, Base)> = Vec::new();
        let mut computed_again: BTreeSet<PartitionKey> = BTreeSet::new();
        for (key, partition_us) in partitions {
            let Some(partition_us) = partition_us else { continue };
            let (base, put_right) = self.base(&key, partition_us, existing.get(&key))?;
            if put_right {
                report.put_right.push(key.to_string());
            }
            if !due.contains_key(&key) && !put_right && !changed.contains(&partition_us) {
                continue;
            }
            // Also one that is not due yet: its rows of before must not be marked as those of now.
            let base = match (self.is_outdated(&key), existing.get(&key).filter(|_| self.again.is_none())) {
                (false, _) => base,
                (true, Some(partition)) => Base::Redefined(Box::new(partition.clone())),
                (true, None) => Base::Whole,
            };
            if self.is_outdated(&key) {
                computed_again.insert(key.clone());
            }
            todo.push((key, partition_us, base));
        }
        report.windows_recomputed = changes.recompute.len() as u64;
        let mut progress = self.open.progress(now_us);
        progress.silver_uuid = Some(self.silver_uuid);
        progress.silver_snapshot = silver.snapshot_id();
        let next_offsets = progress.positions.iter().map(|(partition, coverage)| (*partition, coverage.range.end)).collect();
        progress.complete_until_ms = silver.complete_at(&next_offsets)?.max(self.written.complete_until_ms);
        let mut versions = self.write_versions(silver, &todo, &again, &progress, report).await?;
        // A partition that might have had rows, and has none.
        versions.retain(|version| version.statistics.rows > 0 || existing.contains_key(&version.key));
        if !versions.is_empty() {
            Window::GoldPartitionWritten.pass();
            self.lease.ensure_held().await?;
            switch(&self.metastore, self.lease.entry(), &versions, &existing).await?;
            Window::GoldSwitched.pass();
        }
        for version in &versions {
            let known =
                Known { version: version_of(&version.location).to_string(), epoch: self.lease.epoch(), written_us: Some(now_us) };
            self.known.insert(version.key.clone(), known);
        }
        let changed = versions_or_positions_changed(&versions, &progress, &self.written) || self.lease.is_behind();
        if changed || self.again.is_some() || self.time_is_due(&progress) {
            self.lease.write(&progress.to_parameters()).await?;
            Window::GoldProgressWritten.pass();
        } else {
            progress.complete_until_ms = self.written.complete_until_ms;
        }
        self.open.written(&progress);
        report.windows_open = self.open.open().count() as u64;
        report.watermark_us = (progress.watermark_us != i64::MIN).then_some(progress.watermark_us);
        self.written = progress;
        self.redefined(&computed_again).await?;
        self.sweep_if_due(now).await;
        Ok(())
    }

    /// While silver brings nothing new, the time alone is worth a write of the parameters only once in a while.
    fn time_is_due(&self, progress: &Progress) -> bool {
        let interval = self.completeness_interval;
        !interval.is_zero() && gain(self.written.complete_until_ms, progress.complete_until_ms) >= interval
    }

    async fn existing(&self, keys: impl Iterator<Item = &PartitionKey>) -> Result<BTreeMap<PartitionKey, HivePartition>> {
        let names: Vec<String> = keys.map(PartitionKey::to_string).collect();
        let entry = self.lease.entry();
        let partitions = self.metastore.partitions_by_names(entry.database(), entry.name(), &names).await;
        let partitions = partitions.with_context(|| format!("failed to read {} partitions", names.len()))?;
        let columns = entry.partition_keys();
        Ok(partitions.into_iter().map(|partition| (key_of(&columns, &partition), partition)).collect())
    }

    /// What a partition's next version begins with, and whether the current one is not ours.
    fn base(&self, key: &PartitionKey, partition_us: i64, existing: Option<&HivePartition>) -> Result<(Base, bool)> {
        let found = existing.and_then(|partition| Known::of(partition, self.silver_uuid));
        if let Some(found) = found.as_ref().filter(|found| found.epoch > self.lease.epoch()) {
            return Err(self.lease.fenced(found.epoch));
        }
        Ok(match (existing, self.known.get(key)) {
            (Some(partition), Some(known)) => {
                let ours = found.is_some_and(|found| found.version == known.version && found.epoch == known.epoch);
                if ours { (Base::Current(Box::new(partition.clone())), false) } else { (Base::Whole, true) }
            }
            // It was dropped, or made by someone else.
            (None, Some(_)) | (Some(_), None) => (Base::Whole, true),
            // Windows may have been closed before the partition was dropped.
            (None, None) if partition_us < self.open.closed_before_us() => (Base::Whole, false),
            (None, None) => (Base::New, false),
        })
    }

    async fn write_versions(
        &self,
        silver: &dyn SilverRows,
        todo: &[(PartitionKey, i64, Base)],
        again: &BTreeMap<i64, BTreeSet<i64>>,
        progress: &Progress,
        report: &mut RefreshReport,
    ) -> Result<Vec<PartitionVersion>> {
        let none = BTreeSet::new();
        let parameters = self.partition_parameters(progress);
        let mut versions = Vec::with_capacity(todo.len());
        // Made before the stream: closures over borrowed items make a future that the compiler takes for one that cannot change threads.
        let writes: Vec<_> = todo
            .iter()
            .map(|(key, partition_us, base)| {
                let again = again.get(partition_us).unwrap_or(&none);
                self.write_one(silver, key, *partition_us, base, again, &parameters)
            })
            .collect();
        let mut results = futures::stream::iter(writes).buffer_unordered(VERSIONS_AT_ONCE);
        while let Some(result) = results.next().await {
            let (version, refused) = result?;
            report.partitions_written += 1;
            report.rows += version.statistics.rows;
            report.files += version.statistics.files;
            report.bytes += version.statistics.bytes;
            report.refused.extend(refused);
            versions.push(version);
        }
        Ok(versions)
    }

    async fn write_one(
        &self,
        silver: &dyn SilverRows,
        key: &PartitionKey,
        partition_us: i64,
        base: &Base,
        again: &BTreeSet<i64>,
        parameters: &BTreeMap<String, Option<String>>,
    ) -> Result<(PartitionVersion, Vec<RefusedWindow>)> {
        let next = next_version(&self.plan, &self.storages, silver, &self.open, partition_us, base, again).await;
        let next = next.with_context(|| format!("partition {key}"))?;
        let table_location = self.lease.entry().location().unwrap_or_default();
        let location = key.version_location(table_location, &version_name(self.lease.epoch()));
        let statistics = write_version(&self.storages, &location, &next.rows, &next.footer, self.plan.files()).await?;
        let mut parameters = parameters.clone();
        if !base.keeps_rows() {
            parameters.insert(NULL_COLUMNS.to_owned(), None);
        }
        let version = PartitionVersion { key: key.clone(), location, statistics, parameters };
        Ok((version, next.refused))
    }

    fn partition_parameters(&self, progress: &Progress) -> BTreeMap<String, Option<String>> {
        let parameters = [
            (POSITIONS, Some(format_positions(&progress.positions))),
            (EPOCH, Some(self.lease.epoch().to_string())),
            (DEFINITION, Some(self.plan.definition().fingerprint())),
            (SILVER_UUID, Some(self.silver_uuid.to_string())),
            (SILVER_SNAPSHOT, progress.silver_snapshot.map(|snapshot| snapshot.to_string())),
            (COMPUTED_AGAIN, self.again.as_ref().map(|again| again.id.to_string())),
        ];
        parameters.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }

    async fn sweep_if_due(&mut self, now: SystemTime) {
        let every = SWEEP_EVERY.min(self.plan.settings().sweep_after);
        let due = self.swept_at.is_none_or(|swept_at| now.duration_since(swept_at).is_ok_and(|since| since >= every));
        if !due {
            return;
        }
        self.swept_at = Some(now);
        if let Err(error) = self.sweep(now).await {
            warn!(table = %self.lease.name(), error = error.chain(), "old versions were not swept");
        }
    }

    /// Deletes replaced versions that are older than `sweep_after`.
    pub async fn sweep(&self, now: SystemTime) -> Result<SweepReport> {
        let before_us = instant_us(now).saturating_sub(micros(self.plan.settings().sweep_after));
        sweep(&self.metastore, &self.storages, self.lease.entry(), u64::try_from(before_us / 1_000).unwrap_or(0)).await
    }
}

fn versions_or_positions_changed(versions: &[PartitionVersion], progress: &Progress, written: &Progress) -> bool {
    !versions.is_empty() || progress.positions != written.positions || progress.closed_before_us != written.closed_before_us
}
