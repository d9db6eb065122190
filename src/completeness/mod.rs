//! Up to which time a table is complete: pure algebra, and the form in which it stands in a table.
//!
//! "Complete up to T" means: every record of the topic whose timestamp lies before T is in the table. It follows from a time for each
//! partition, the latest of these:
//!
//! | what is known of a partition | its time |
//! |---|---|
//! | a record below the next offset has timestamp *t* | *t*: what comes later is not older, if timestamps only grow |
//! | the next offset has reached the end that the log had at wall time *W* | *W*: what comes later was not sent before *W* |
//!
//! The second is what lets an idle partition not hold the others back. The table's time is the least of its partitions' times, less the
//! *allowed disorder*: how much older than an earlier record a later one may be. With `LogAppendTime` the broker stamps in the order of
//! the log, and the statement is exact. With `CreateTime` a producer stamps, and the statement is as good as the allowed disorder; a
//! timestamp from the future counts as the present.
//!
//! *Invariants*: neither a partition's time nor a table's ever goes back, but for a table that itself went back. A table's time moves only
//! when a sighting of the source shows no partition that the table does not know: records of a new partition could be of any time.
//! A derived table's time is one that its input states for offsets that the derived table has reached, so never later than its input's.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::checkpoint::{Checkpoint, Coverage, PartitionId};

/// In snapshot summaries, table properties and gold's parameters: `2025-01-01T12:00:00.000Z`.
pub const COMPLETE_UNTIL: &str = "lakesmith.complete-until";
/// In bronze's properties alone: the time of each partition, without the allowed disorder.
pub const PARTITION_TIMES: &str = "lakesmith.partition-times";

/// Where the partitions of the source ended at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Milliseconds since 1970, before the source was asked.
    pub at_ms: i64,
    /// The offset behind the last record of each partition, records of open transactions included.
    pub ends: BTreeMap<PartitionId, i64>,
}

/// What is known beside the offsets when a table's time is worked out.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// Highest timestamp of the records of a batch, by partition; milliseconds.
    pub highest_ms: &'a BTreeMap<PartitionId, i64>,
    /// Without one the table's time stays.
    pub sighting: Option<&'a Sighting>,
    pub allowed_disorder: Duration,
    pub now_ms: i64,
}

/// What a table states; all times in milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Completeness {
    pub partitions: BTreeMap<PartitionId, i64>,
    pub until_ms: Option<i64>,
}

impl Completeness {
    /// As a table's properties have it. What cannot be read counts as not there: it is worked out again.
    pub fn of(properties: &HashMap<String, String>) -> Self {
        let times = properties.get(PARTITION_TIMES).and_then(|text| parse_times(text));
        Self {
            partitions: times.unwrap_or_default(),
            until_ms: properties.get(COMPLETE_UNTIL).and_then(|text| parse_instant(text)),
        }
    }

    /// What can be said once the table stands at `checkpoint`.
    #[must_use]
    pub fn after(&self, checkpoint: &Checkpoint, evidence: &Evidence<'_>) -> Self {
        let mut partitions = self.partitions.clone();
        let mut raise = |partition: PartitionId, to: i64| {
            let time = partitions.entry(partition).or_insert(to);
            *time = to.max(*time);
        };
        for (&partition, &highest) in evidence.highest_ms {
            raise(partition, highest.clamp(0, evidence.now_ms.max(0)));
        }
        let mut until_ms = self.until_ms;
        if let Some(sighting) = evidence.sighting {
            for (&partition, end) in &sighting.ends {
                if checkpoint.next_offset(partition).is_some_and(|next| next >= *end) {
                    raise(partition, sighting.at_ms.max(0));
                }
            }
            let all_known = sighting.ends.keys().all(|partition| checkpoint.partitions.contains_key(partition));
            let times = checkpoint.partitions.keys().map(|partition| partitions.get(partition).copied());
            let least = times.collect::<Option<Vec<_>>>().and_then(|times| times.into_iter().min());
            if let (true, Some(least)) = (all_known, least) {
                let stated = least.min(sighting.at_ms).saturating_sub(millis(evidence.allowed_disorder));
                until_ms = until_ms.max(Some(stated));
            }
        }
        Self { partitions, until_ms }
    }

    /// The properties that say so.
    pub fn notes(&self) -> BTreeMap<String, String> {
        let mut notes = BTreeMap::from([(PARTITION_TIMES.to_owned(), format_times(&self.partitions))]);
        notes.extend(self.until_ms.map(|until_ms| (COMPLETE_UNTIL.to_owned(), format_instant(until_ms))));
        notes
    }

    /// The partition that holds the table back, with its time, of those that the table has.
    pub fn slowest(&self, checkpoint: &Checkpoint) -> Option<(PartitionId, Option<i64>)> {
        let times = checkpoint.partitions.keys().map(|partition| (*partition, self.partitions.get(partition).copied()));
        times.min_by_key(|(_, time)| *time)
    }
}

/// Whether a table with these next offsets holds everything that another one covers.
pub fn covers(next_offsets: &BTreeMap<PartitionId, i64>, covered: &BTreeMap<PartitionId, Coverage>) -> bool {
    covered.iter().all(|(partition, coverage)| {
        coverage.range.is_empty() || next_offsets.get(partition).is_some_and(|next| *next >= coverage.range.end)
    })
}

/// How much later the second time is, if it is known and not earlier; a time that comes after none is later by any measure.
pub fn gain(stated_ms: Option<i64>, possible_ms: Option<i64>) -> Duration {
    match (stated_ms, possible_ms) {
        (_, None) => Duration::ZERO,
        (None, Some(_)) => Duration::MAX,
        (Some(stated), Some(possible)) => Duration::from_millis(u64::try_from(possible.saturating_sub(stated)).unwrap_or(0)),
    }
}

/// Raises the times in `marks` to those that the table states already, so that another writer's statement is never taken back.
pub fn keep_later(marks: &mut HashMap<String, String>, current: &HashMap<String, String>) {
    let (new, known) = (Completeness::of(marks), Completeness::of(current));
    if let Some(until_ms) = new.until_ms.max(known.until_ms) {
        marks.insert(COMPLETE_UNTIL.to_owned(), format_instant(until_ms));
    }
    if marks.contains_key(PARTITION_TIMES) {
        let mut times = known.partitions;
        for (partition, time) in new.partitions {
            times.entry(partition).and_modify(|known| *known = time.max(*known)).or_insert(time);
        }
        marks.insert(PARTITION_TIMES.to_owned(), format_times(&times));
    }
}

/// An instant of one width, so that texts compare as the instants do.
pub fn format_instant(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Reads what [`format_instant`] wrote, in milliseconds.
pub fn parse_instant(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok().map(|instant| instant.with_timezone(&Utc).timestamp_millis())
}

/// A text of this size or larger is written with base-36 numbers, as positions are: 1,000 partitions take 12 KB.
const DECIMAL_BYTES_MAX: usize = 4_096;

/// `d;0:1735732800000;1:1735732790000`; `x` instead of `d` for base 36.
fn format_times(times: &BTreeMap<PartitionId, i64>) -> String {
    let text = |radix: char, number: &dyn Fn(u64) -> String| {
        times.iter().fold(String::from(radix), |mut text, (partition, time)| {
            text.push_str(&format!(";{}:{}", number(*partition as u64), number(u64::try_from(*time).unwrap_or(0))));
            text
        })
    };
    let decimal = text('d', &|number| number.to_string());
    if decimal.len() < DECIMAL_BYTES_MAX { decimal } else { text('x', &crate::checkpoint::base36) }
}

fn parse_times(text: &str) -> Option<BTreeMap<PartitionId, i64>> {
    let mut parts = text.split(';');
    let radix = match parts.next()? {
        "d" => 10,
        "x" => 36,
        _ => return None,
    };
    let number = |digits: &str| i64::from_str_radix(digits, radix).ok().filter(|number| *number >= 0);
    let time = |part: &str| {
        let (partition, time) = part.split_once(':')?;
        Some((PartitionId::try_from(number(partition)?).ok()?, number(time)?))
    };
    parts.map(time).collect()
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
