//! Which windows are in memory, and what has to be written: gold's bookkeeping without any input or output.
//!
//! Every window is in one of three places. *Live*: its aggregates are in memory. *Cold*: not closed, but not in memory either, because
//! memory was short or because it lies far ahead of the clock. *Closed*: it ended more than the allowed lateness before the watermark.
//! A record for a live window is added there. A record for a cold or closed one puts the window on the list of those that the next
//! refresh computes again from silver.
//!
//! *Invariants*: live windows hold exactly the rows of silver below the positions. What is dirty or on the list stays so until
//! [`OpenWindows::written`] says that partitions and table are durable. The floor is at or below the first offset of every live window.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;

use super::plan::GoldPlan;
use super::progress::{COLD_WINDOWS_MAX, Positions, Progress};
use super::state::{State, rows_by_window};
use super::watermark::{Watermark, horizon};
use super::window::micros;
use crate::checkpoint::{Coverage, Delta, Mismatch, OffsetRange, PartitionId};
use crate::error::{Error, Result};

/// Whether a batch was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Update {
    Applied,
    /// The batch does not begin where gold is; nothing was changed.
    Gap(Mismatch),
}

/// The windows that a refresh has to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Live windows that changed.
    pub live: BTreeSet<i64>,
    /// Windows to be computed again from silver.
    pub recompute: BTreeSet<i64>,
}

/// Gold's state between refreshes.
pub struct OpenWindows {
    plan: GoldPlan,
    positions: Positions,
    state: State,
    cold: BTreeSet<i64>,
    recompute: BTreeSet<i64>,
    /// First offset of each window that is not closed, by topic partition.
    first_offsets: BTreeMap<i64, BTreeMap<PartitionId, i64>>,
    closed_before_us: i64,
    watermark: Watermark,
    memory_limit_bytes: usize,
}

impl OpenWindows {
    /// Begins where `progress` ended; live windows are missing until [`OpenWindows::restore`] was given the rows of
    /// [`Progress::replay`].
    pub fn new(plan: &GoldPlan, progress: &Progress) -> Self {
        let settings = plan.settings();
        Self {
            plan: plan.clone(),
            positions: progress.positions.clone(),
            state: State::default(),
            cold: progress.cold.clone(),
            recompute: BTreeSet::new(),
            first_offsets: BTreeMap::new(),
            closed_before_us: progress.closed_before_us,
            watermark: Watermark::new(settings.idle_after, progress.watermark_us),
            memory_limit_bytes: usize::try_from(settings.memory_limit.as_u64()).unwrap_or(usize::MAX),
        }
    }

    /// These topic partitions are not idle, whatever the clock says.
    pub fn hold(&mut self, partitions: &BTreeSet<PartitionId>, now_us: i64) {
        self.watermark.hold(partitions, now_us);
    }

    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Corrects how many rows the positions count, by topic partition: some were replaced.
    pub fn recount(&mut self, records: &BTreeMap<PartitionId, u64>) {
        for (partition, coverage) in &mut self.positions {
            coverage.records = records.get(partition).copied().unwrap_or(coverage.records);
        }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn closed_before_us(&self) -> i64 {
        self.closed_before_us
    }

    /// Starts of all windows that are not closed and have rows.
    pub fn open(&self) -> impl Iterator<Item = i64> + '_ {
        self.first_offsets.keys().copied()
    }

    /// Memory is short enough that a refresh is due whatever the interval.
    pub fn is_full(&self) -> bool {
        self.state.memory_bytes() > self.memory_limit_bytes / 2
    }

    /// Adds rows of committed silver that continue the positions.
    pub fn update(&mut self, rows: &RecordBatch, delta: &Delta, now_us: i64) -> Result<Update> {
        for (&partition, coverage) in &delta.partitions {
            if let Some(known) = self.positions.get(&partition).filter(|known| known.range.end != coverage.range.start) {
                return Ok(Update::Gap(Mismatch { partition, table_next: known.range.end, batch: coverage.range }));
            }
        }
        let counted = self.add(rows, now_us, Rows::New(&delta.ranges()))?;
        for (&partition, coverage) in &delta.partitions {
            let records = counted.get(&partition).copied().unwrap_or(0);
            match self.positions.get_mut(&partition) {
                Some(known) => {
                    known.range.end = coverage.range.end;
                    known.records += records;
                }
                None => {
                    self.positions.insert(partition, Coverage { range: coverage.range, records });
                }
            }
        }
        self.evict();
        Ok(Update::Applied)
    }

    /// Adds rows that were in the table before a restart: those of live windows go back into memory, the others are written already.
    pub fn restore(&mut self, rows: &RecordBatch, now_us: i64) -> Result<()> {
        self.add(rows, now_us, Rows::Known)?;
        for start in self.state.windows.keys().copied().collect::<Vec<_>>() {
            if let Some(window) = self.state.windows.get_mut(&start) {
                window.dirty = false;
            }
        }
        self.evict();
        Ok(())
    }

    /// Rows per topic partition.
    fn add(&mut self, rows: &RecordBatch, now_us: i64, kind: Rows<'_>) -> Result<BTreeMap<PartitionId, u64>> {
        let mut counted: BTreeMap<PartitionId, (u64, i64)> = BTreeMap::new();
        let batch = self.plan.evaluate(rows)?;
        let (partitions, offsets) = (batch.partitions.values(), batch.offsets.values());
        let horizon_us = horizon(now_us);
        let mut current: Option<(PartitionId, Option<OffsetRange>)> = None;
        for row in 0..rows.num_rows() {
            let (partition, instant) = (partitions[row], batch.instants[row]);
            if let Rows::New(ranges) = kind {
                if current.is_none_or(|(known, _)| known != partition) {
                    current = Some((partition, ranges.get(&partition).copied()));
                }
                if !current.and_then(|(_, range)| range).is_some_and(|range| range.contains(offsets[row])) {
                    return Err(Error::failed(format!(
                        "a batch holds partition {partition} offset {} outside its range",
                        offsets[row]
                    )));
                }
            }
            let seen = counted.entry(partition).or_insert((0, i64::MIN));
            seen.0 += 1;
            if instant <= horizon_us {
                seen.1 = seen.1.max(instant);
            }
        }
        for (partition, (_, highest_us)) in counted.iter().filter(|(_, (_, highest_us))| *highest_us != i64::MIN) {
            self.watermark.observe(*partition, *highest_us, now_us);
        }
        for (start, rows) in rows_by_window(&batch.starts) {
            if !self.takes(start, horizon_us, kind) {
                if matches!(kind, Rows::New(_)) {
                    self.recompute.insert(start);
                }
                continue;
            }
            self.state.add(&self.plan, start, &rows, &batch)?;
            let first = self.first_offsets.entry(start).or_default();
            for row in rows {
                let (partition, offset) = (partitions[row as usize], offsets[row as usize]);
                first.entry(partition).and_modify(|known| *known = offset.min(*known)).or_insert(offset);
            }
        }
        Ok(counted.into_iter().map(|(partition, (rows, _))| (partition, rows)).collect())
    }

    /// Whether rows of a window go into memory. A window far ahead of the clock becomes cold when its first row comes: it would hold
    /// the floor back for as long as it lies ahead, which for a wrong clock is forever.
    fn takes(&mut self, start_us: i64, horizon_us: i64, kind: Rows<'_>) -> bool {
        if self.plan.windows().end_of(start_us) <= self.closed_before_us || self.cold.contains(&start_us) {
            return false;
        }
        let ahead = start_us > horizon_us && !self.state.windows.contains_key(&start_us) && self.cold.len() < COLD_WINDOWS_MAX;
        if ahead && matches!(kind, Rows::New(_)) {
            self.cold.insert(start_us);
            return false;
        }
        true
    }

    /// Drops the oldest windows while memory is over its limit. A single window is never dropped: computing it again would need as much.
    fn evict(&mut self) {
        while self.state.memory_bytes() > self.memory_limit_bytes && self.state.windows.len() > 1 {
            let Some((start, window)) = self.state.remove_first() else { return };
            self.cold.insert(start);
            if window.dirty {
                self.recompute.insert(start);
            }
        }
    }

    /// What the next refresh has to write.
    pub fn changes(&self) -> Changes {
        let dirty = self.state.windows.iter().filter(|(_, window)| window.dirty);
        Changes { live: dirty.map(|(start, _)| *start).collect(), recompute: self.recompute.clone() }
    }

    /// The progress to be written once the changes are: windows that the watermark has left behind are closed in it.
    pub fn progress(&mut self, now_us: i64) -> Progress {
        let watermark_us = self.watermark.advance(now_us);
        let lateness_us = micros(self.plan.settings().allowed_lateness);
        let closed_before_us = if watermark_us == i64::MIN { i64::MIN } else { watermark_us.saturating_sub(lateness_us) };
        let closed_before_us = self.closed_before_us.max(closed_before_us);
        let stays_open = |start: &i64| self.plan.windows().end_of(*start) > closed_before_us;
        // Those without a first offset cannot hold the floor back, so they have to be named; there are never more than the bound.
        let (named, others): (Vec<i64>, Vec<i64>) =
            self.cold.iter().rev().copied().filter(stays_open).partition(|start| !self.first_offsets.contains_key(start));
        let cold: BTreeSet<i64> = named.into_iter().chain(others).take(COLD_WINDOWS_MAX).collect();
        let mut floor: BTreeMap<PartitionId, i64> =
            self.positions.iter().map(|(partition, coverage)| (*partition, coverage.range.end)).collect();
        for (_, first) in self.first_offsets.iter().filter(|(start, _)| stays_open(start) && !cold.contains(start)) {
            for (partition, offset) in first {
                floor.entry(*partition).and_modify(|floor| *floor = *offset.min(floor)).or_insert(*offset);
            }
        }
        Progress {
            positions: self.positions.clone(),
            floor,
            closed_before_us,
            watermark_us,
            cold,
            silver_uuid: None,
            silver_snapshot: None,
            complete_until_ms: None,
        }
    }

    /// `progress` and all partitions up to it are durable: nothing is dirty, and closed windows leave memory.
    pub fn written(&mut self, progress: &Progress) {
        self.closed_before_us = progress.closed_before_us;
        self.recompute.clear();
        let windows = self.plan.windows();
        let closed = |start: &i64| windows.end_of(*start) <= progress.closed_before_us;
        let gone: Vec<i64> = self.state.windows.keys().copied().filter(closed).collect();
        for start in gone {
            self.state.remove(start);
        }
        self.cold.retain(|start| !closed(start));
        self.first_offsets.retain(|start, _| !closed(start));
        for window in self.state.windows.values_mut() {
            window.dirty = false;
        }
    }
}

/// Where rows come from.
#[derive(Clone, Copy)]
enum Rows<'a> {
    /// Behind the positions, in these ranges.
    New(&'a BTreeMap<PartitionId, OffsetRange>),
    /// Counted and written before a restart.
    Known,
}

#[cfg(test)]
#[path = "open_windows_tests.rs"]
mod tests;
