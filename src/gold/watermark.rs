//! The watermark: up to which instant records are expected to have arrived.
//!
//! It is the least, over the topic partitions that are not idle, of their highest timestamp. It decides only what is kept in memory:
//! a record behind it makes its window be computed again, so no result depends on it.
//!
//! *Invariants*: it never goes back; a timestamp more than an hour ahead of the clock never moves it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::window::micros;
use crate::checkpoint::PartitionId;

/// How far ahead of the clock a timestamp may be and still count.
const FUTURE_US: i64 = 3_600_000_000;

/// The latest instant that counts as possible when the clock shows `now_us`.
pub fn horizon(now_us: i64) -> i64 {
    now_us.saturating_add(FUTURE_US)
}

#[derive(Debug, Clone, Copy)]
struct Partition {
    highest_us: i64,
    /// When the last record came, by our clock.
    heard_us: i64,
}

/// What has been seen of each topic partition.
#[derive(Debug, Clone)]
pub struct Watermark {
    partitions: BTreeMap<PartitionId, Partition>,
    idle_after_us: i64,
    watermark_us: i64,
}

impl Watermark {
    /// `watermark_us` is where an earlier run left it; `i64::MIN` if there was none.
    pub fn new(idle_after: Duration, watermark_us: i64) -> Self {
        Self { partitions: BTreeMap::new(), idle_after_us: micros(idle_after), watermark_us }
    }

    /// Records of a partition came, the highest of those timestamps that lie before the [`horizon`] being `highest_us`.
    pub fn observe(&mut self, partition: PartitionId, highest_us: i64, now_us: i64) {
        let seen = self.partitions.entry(partition).or_insert(Partition { highest_us, heard_us: now_us });
        seen.highest_us = seen.highest_us.max(highest_us);
        seen.heard_us = seen.heard_us.max(now_us);
    }

    /// These partitions have records that are not read for now, because they are far ahead of others: that is not being idle.
    pub fn hold(&mut self, partitions: &BTreeSet<PartitionId>, now_us: i64) {
        for partition in partitions {
            if let Some(seen) = self.partitions.get_mut(partition) {
                seen.heard_us = seen.heard_us.max(now_us);
            }
        }
    }

    /// Moves the watermark as far as the partitions allow, and returns it; `i64::MIN` before the first record.
    pub fn advance(&mut self, now_us: i64) -> i64 {
        let awake = self.partitions.values().filter(|partition| now_us.saturating_sub(partition.heard_us) <= self.idle_after_us);
        if let Some(least) = awake.map(|partition| partition.highest_us).min() {
            self.watermark_us = self.watermark_us.max(least);
        }
        self.watermark_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn the_slowest_partition_holds_it_until_it_is_idle() {
        let mut watermark = Watermark::new(Duration::from_secs(60), i64::MIN);
        assert_eq!(watermark.advance(0), i64::MIN);
        watermark.observe(0, 100, 0);
        watermark.observe(1, 50, 0);
        assert_eq!(watermark.advance(0), 50);
        watermark.observe(0, 200, 61 * SECOND);
        assert_eq!(watermark.advance(61 * SECOND), 200);
        watermark.observe(1, 60, 62 * SECOND);
        assert_eq!(watermark.advance(62 * SECOND), 200, "it never goes back");
    }

    #[test]
    fn one_that_waits_for_others_is_not_idle() {
        let mut watermark = Watermark::new(Duration::from_secs(60), i64::MIN);
        watermark.observe(0, 100, 0);
        watermark.observe(1, 50, 0);
        watermark.observe(1, 200, 120 * SECOND);
        let mut held = watermark.clone();
        assert_eq!(watermark.advance(120 * SECOND), 200);
        held.hold(&BTreeSet::from([0, 7]), 120 * SECOND);
        assert_eq!(held.advance(120 * SECOND), 100, "its next records are not late");
    }

    #[test]
    fn when_all_are_idle_it_stays() {
        let mut watermark = Watermark::new(Duration::from_secs(60), 7);
        watermark.observe(0, 100, 0);
        watermark.observe(1, 90, 0);
        assert_eq!(watermark.advance(600 * SECOND), 7);
        watermark.observe(0, 10, 601 * SECOND);
        assert_eq!(watermark.advance(601 * SECOND), 100);
    }
}
