//! Which topic partitions wait for others, because their records are much later. Pure.
//!
//! Reading a topic that has hours of records, Kafka hands out whatever it has fetched: one partition may be hours ahead of another. Gold
//! keeps every window open that the slowest partition can still add to, so its memory would grow with that lead. A partition that is too
//! far ahead is therefore not read until those behind it have come up.
//!
//! *Invariants*: who is behind holds others only while it is known to have records that were not read, and while some of them come; so
//! a partition that is idle, at its end, without a leader or hidden behind an open transaction holds nobody for longer than
//! [`PATIENCE`], and the partition furthest behind is always read. A timestamp more than an hour ahead of the clock counts as that hour.
//!
//! No result depends on any of this, only memory and the order of reading.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::positions::raise_highest;
use crate::checkpoint::PartitionId;
use crate::error::Result;
use crate::record::RawBatch;

/// How long, in time spent waiting for records, a partition may send nothing and still hold others.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long known ends of partitions are good enough, while somebody waits and otherwise. They only grow: what lies before a known end
/// is there.
const LOOK_INTERVALS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

/// How far ahead of the clock a timestamp counts, as for gold's watermark.
const FUTURE_MS: i64 = 3_600_000;

/// How far the partitions have come, and which of them wait.
#[derive(Debug, Clone, Default)]
pub(super) struct Lead {
    /// 0: nobody waits for anybody.
    max_ms: i64,
    /// Highest timestamps of what was read.
    highest_ms: BTreeMap<PartitionId, i64>,
    /// The first timestamp that was seen: a partition of which nothing has come yet is taken to be there.
    first_ms: Option<i64>,
    /// Time waited for records since the last of the partition came.
    silent: BTreeMap<PartitionId, Duration>,
    /// Where the partitions end, and when that was asked.
    ends: BTreeMap<PartitionId, i64>,
    looked: Option<Instant>,
    paused: BTreeSet<PartitionId>,
}

impl Lead {
    /// Partitions more than `max` ahead wait; nobody does if that is zero.
    pub fn new(max: Duration) -> Self {
        Self { max_ms: i64::try_from(max.as_millis()).unwrap_or(i64::MAX), ..Self::default() }
    }

    /// The partitions that are not read.
    pub fn paused(&self) -> &BTreeSet<PartitionId> {
        &self.paused
    }

    /// Forgets everything: the partitions are others from here on. Those that were paused must be resumed.
    pub fn restart(&mut self) {
        *self = Self { max_ms: self.max_ms, ..Self::default() };
    }

    /// The source was waited for, and this came.
    pub fn polled(&mut self, waited: Duration, batch: Option<&RawBatch>, now_ms: i64) -> Result<()> {
        if self.max_ms == 0 {
            return Ok(());
        }
        for silent in self.silent.values_mut() {
            *silent = silent.saturating_add(waited);
        }
        let Some(batch) = batch else { return Ok(()) };
        raise_highest(&batch.records, &mut self.highest_ms)?;
        for partition in batch.delta.partitions.keys() {
            if let Some(highest) = self.highest_ms.get_mut(partition) {
                *highest = (*highest).min(now_ms.saturating_add(FUTURE_MS));
            }
            self.silent.insert(*partition, Duration::ZERO);
        }
        self.first_ms = self.first_ms.or_else(|| self.highest_ms.values().min().copied());
        Ok(())
    }

    /// Whether [`Self::decide`] could say anything: if not, nobody needs to know where the partitions end. `positions` are all partitions
    /// that are read.
    pub fn is_apart(&self, positions: &BTreeMap<PartitionId, i64>) -> bool {
        if self.max_ms == 0 || !self.paused.is_empty() {
            return self.max_ms > 0;
        }
        let least = positions.keys().filter_map(|partition| self.highest_ms.get(partition).copied().or(self.first_ms)).min();
        least.zip(self.highest_ms.values().max()).is_some_and(|(least, most)| most - least > self.max_ms)
    }

    /// Whether the ends should be asked for before the next decision.
    pub fn should_look(&self, now: Instant) -> bool {
        let good_for = LOOK_INTERVALS[usize::from(self.paused.is_empty())];
        self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= good_for)
    }

    /// The partitions end there; a partition without an end holds nobody.
    pub fn look(&mut self, ends: BTreeMap<PartitionId, i64>, now: Instant) {
        (self.ends, self.looked) = (ends, Some(now));
    }

    /// Which partitions are paused from here on; none if that stays as it is.
    pub fn decide(&mut self, positions: &BTreeMap<PartitionId, i64>) -> Option<&BTreeSet<PartitionId>> {
        for &partition in positions.keys() {
            self.silent.entry(partition).or_default();
        }
        let time = |partition: PartitionId| self.highest_ms.get(&partition).copied().or(self.first_ms).unwrap_or(i64::MAX);
        let holds = |(partition, position): &(&PartitionId, &i64)| {
            let has_more = self.ends.get(partition).is_some_and(|end| *position < end);
            has_more && !self.paused.contains(partition) && self.silent[partition] < PATIENCE
        };
        let floor = positions.iter().filter(holds).map(|(partition, _)| time(*partition)).min();
        // One that waits is read again well before the others have passed it: no back and forth.
        let far = |partition: PartitionId| if self.paused.contains(&partition) { self.max_ms / 2 } else { self.max_ms };
        let waits = |partition: &PartitionId| {
            floor.is_some_and(|floor| self.highest_ms.get(partition).is_some_and(|at| at.saturating_sub(floor) > far(*partition)))
        };
        let paused: BTreeSet<PartitionId> = positions.keys().copied().filter(waits).collect();
        // What stands still now begins with all its patience when it is read again.
        for partition in &paused {
            self.silent.insert(*partition, Duration::ZERO);
        }
        if paused == self.paused {
            return None;
        }
        self.paused = paused;
        Some(&self.paused)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};

    use super::*;
    use crate::checkpoint::{Coverage, Delta, OffsetRange};
    use crate::record::raw_schema;

    const MINUTE: i64 = 60_000;
    const NOW: i64 = 1_000 * 24 * 60 * MINUTE;

    /// One record of a partition.
    fn record(partition: PartitionId, at_ms: i64) -> RawBatch {
        let schema = raw_schema();
        let column = |name: &str, kind: &arrow::datatypes::DataType| -> Arc<dyn Array> {
            match name {
                "partition" => Arc::new(Int32Array::from(vec![partition])),
                "offset" => Arc::new(Int64Array::from(vec![0])),
                "topic" => Arc::new(StringArray::from(vec!["t"])),
                "timestamp" => Arc::new(TimestampMicrosecondArray::from(vec![at_ms * 1_000])),
                "ingested_at" => Arc::new(TimestampMicrosecondArray::from(vec![0])),
                _ => new_null_array(kind, 1),
            }
        };
        let columns = schema.fields().iter().map(|field| column(field.name(), field.data_type())).collect();
        let coverage = Coverage { range: OffsetRange::new(0, 1), records: 1 };
        let delta = Delta { partitions: BTreeMap::from([(partition, coverage)]) };
        RawBatch { delta, records: RecordBatch::try_new(schema.clone(), columns).unwrap() }
    }

    fn came(lead: &mut Lead, partition: PartitionId, minute: i64) {
        lead.polled(Duration::from_millis(10), Some(&record(partition, minute * MINUTE)), NOW).unwrap();
    }

    fn positions(count: PartitionId) -> BTreeMap<PartitionId, i64> {
        (0..count).map(|partition| (partition, 1)).collect()
    }

    fn decide(lead: &mut Lead, behind: &[PartitionId]) -> Vec<PartitionId> {
        let ends = behind.iter().map(|partition| (*partition, 2)).collect();
        lead.look(ends, Instant::now());
        lead.decide(&positions(3));
        lead.paused().iter().copied().collect()
    }

    #[test]
    fn who_is_too_far_ahead_waits_until_the_others_have_nearly_come_up() {
        let mut lead = Lead::new(Duration::from_secs(3_600));
        came(&mut lead, 0, 0);
        came(&mut lead, 1, 0);
        came(&mut lead, 2, 55);
        assert!(!lead.is_apart(&positions(3)));
        assert!(decide(&mut lead, &[0, 1, 2]).is_empty());
        came(&mut lead, 2, 61);
        assert!(lead.is_apart(&positions(3)));
        assert_eq!(decide(&mut lead, &[0, 1, 2]), [2]);
        came(&mut lead, 0, 40);
        came(&mut lead, 1, 30);
        assert_eq!(decide(&mut lead, &[0, 1, 2]), [2], "half an hour is still too far");
        came(&mut lead, 1, 31);
        assert!(decide(&mut lead, &[0, 1, 2]).is_empty());
        // The others may pass it in one leap: then it is they who wait.
        came(&mut lead, 0, 200);
        assert_eq!(decide(&mut lead, &[0, 1, 2]), [0]);
    }

    #[test]
    fn nobody_waits_for_a_partition_without_records() {
        let mut lead = Lead::new(Duration::from_secs(3_600));
        came(&mut lead, 0, 0);
        came(&mut lead, 2, 300);
        assert!(decide(&mut lead, &[2]).is_empty());
        assert_eq!(decide(&mut lead, &[0, 2]), [2]);
        // It has been read to its end meanwhile.
        assert!(decide(&mut lead, &[2]).is_empty());
        let mut off = Lead::new(Duration::ZERO);
        came(&mut off, 0, 0);
        came(&mut off, 2, 300);
        assert!(!off.is_apart(&positions(3)));
    }

    #[test]
    fn what_has_not_come_yet_holds_for_a_while_only() {
        let mut lead = Lead::new(Duration::from_secs(3_600));
        came(&mut lead, 2, 10);
        assert!(decide(&mut lead, &[0, 1, 2]).is_empty());
        came(&mut lead, 2, 71);
        assert_eq!(decide(&mut lead, &[0, 1, 2]), [2], "the others may begin where it began");
        lead.polled(PATIENCE / 2, None, NOW).unwrap();
        assert_eq!(decide(&mut lead, &[0, 1, 2]), [2]);
        lead.polled(PATIENCE / 2, None, NOW).unwrap();
        assert!(decide(&mut lead, &[0, 1, 2]).is_empty(), "records that do not come hold nobody for ever");
        came(&mut lead, 0, 5);
        assert_eq!(decide(&mut lead, &[0, 1, 2]), [2]);
        lead.restart();
        assert!(lead.paused().is_empty() && !lead.is_apart(&positions(3)));
    }

    #[test]
    fn ends_are_asked_for_more_often_while_somebody_waits() {
        let (mut lead, now) = (Lead::new(Duration::from_secs(3_600)), Instant::now());
        assert!(lead.should_look(now));
        lead.look(BTreeMap::from([(0, 2), (2, 2)]), now);
        assert!(!lead.should_look(now + Duration::from_secs(2)) && lead.should_look(now + Duration::from_secs(10)));
        came(&mut lead, 0, 0);
        came(&mut lead, 2, 300);
        assert_eq!(lead.decide(&positions(3)), Some(&BTreeSet::from([2])));
        assert!(lead.should_look(now + Duration::from_secs(2)));
        assert_eq!(lead.decide(&positions(3)), None, "nothing has changed");
    }

    #[test]
    fn a_clock_that_is_wrong_counts_as_an_hour() {
        let mut lead = Lead::new(Duration::from_secs(2 * 3_600));
        came(&mut lead, 0, NOW / MINUTE - 30);
        came(&mut lead, 1, NOW / MINUTE + 1_000_000);
        assert!(decide(&mut lead, &[0, 1]).is_empty());
        assert_eq!(lead.highest_ms[&1], NOW + FUTURE_MS);
    }
}
