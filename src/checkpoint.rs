//! Pure algebra of positions in one topic: how far a table has come, and whether a batch continues exactly there.
//!
//! A [`Checkpoint`] says, for each topic partition, the first offset that the table covers, the next offset to read, and how many
//! records lie between. Offsets are the consumer's position, so offsets without a record (transaction markers, compaction, aborted data)
//! belong to a range; the record count is what a check compares with rows.
//!
//! A [`Delta`] is what one batch adds. Whether it applies is decided for all its partitions together:
//!
//! | table's next offset | delta's range | outcome |
//! |---|---|---|
//! | *n* | `[n, m)` | applies: next becomes *m* |
//! | *n* | `[s, m)`, s < n | refused: those offsets are in the table (a repeated batch, a second writer) |
//! | *n* | `[s, m)`, s > n | refused: offsets between are missing (a pointer that went back, a lost batch) |
//! | unknown partition | `[s, m)` | applies: a partition begins where it was first read |
//!
//! *Invariants*: `first <= next`, `records <= next - first`, for checkpoints and deltas; ranges are half open.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Number of a topic partition.
pub type PartitionId = i32;

/// Half-open range of offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OffsetRange {
    pub start: i64,
    pub end: i64,
}

impl OffsetRange {
    pub fn new(start: i64, end: i64) -> Self {
        debug_assert!(start <= end, "offset range {start}..{end}");
        Self { start, end }
    }

    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    pub fn len(&self) -> i64 {
        (self.end - self.start).max(0)
    }

    pub fn contains(&self, offset: i64) -> bool {
        self.start <= offset && offset < self.end
    }

    /// The offsets in both ranges; empty (at the later start) when they don't meet.
    pub fn intersect(&self, other: &Self) -> Self {
        let start = self.start.max(other.start);
        Self { start, end: self.end.min(other.end).max(start) }
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// What a batch, or a whole table, covers of one topic partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    pub range: OffsetRange,
    /// Records in the range; fewer than its length where offsets have no record.
    pub records: u64,
}

/// What one batch adds to a table, by topic partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    pub partitions: BTreeMap<PartitionId, Coverage>,
}

impl Delta {
    pub fn is_empty(&self) -> bool {
        self.partitions.values().all(|coverage| coverage.range.is_empty())
    }

    /// Records in all partitions.
    pub fn records(&self) -> u64 {
        self.partitions.values().map(|coverage| coverage.records).sum()
    }

    pub fn ranges(&self) -> BTreeMap<PartitionId, OffsetRange> {
        self.partitions.iter().map(|(partition, coverage)| (*partition, coverage.range)).collect()
    }

    /// Adds `records` records of `range` in a partition; the range must continue what is there.
    pub fn extend(&mut self, partition: PartitionId, range: OffsetRange, records: u64) -> Result<(), Mismatch> {
        match self.partitions.get_mut(&partition) {
            None => {
                self.partitions.insert(partition, Coverage { range, records });
            }
            Some(coverage) if coverage.range.end == range.start => {
                coverage.range.end = range.end;
                coverage.records += records;
            }
            Some(coverage) => return Err(Mismatch { partition, table_next: coverage.range.end, batch: range }),
        }
        Ok(())
    }

    /// Appends a later delta to this one, partition by partition.
    pub fn append(&mut self, later: &Delta) -> Result<(), Mismatch> {
        later.partitions.iter().try_for_each(|(partition, coverage)| self.extend(*partition, coverage.range, coverage.records))
    }
}

/// A batch does not begin where the table ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("partition {partition}: the table continues at offset {table_next}, the batch holds {batch}")]
pub struct Mismatch {
    pub partition: PartitionId,
    pub table_next: i64,
    pub batch: OffsetRange,
}

/// How far a table has come in a topic, and which topic that is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub topic: String,
    /// Kafka's id of the topic: a topic that was deleted and created again has another one. Absent for files and old brokers.
    pub topic_id: Option<String>,
    pub cluster_id: Option<String>,
    pub partitions: BTreeMap<PartitionId, Coverage>,
}

impl Checkpoint {
    /// The checkpoint of a table that has read nothing of a topic.
    pub fn start(topic: impl Into<String>, topic_id: Option<String>, cluster_id: Option<String>) -> Self {
        Self { topic: topic.into(), topic_id, cluster_id, partitions: BTreeMap::new() }
    }

    /// The next offset to read of a partition; none if the table doesn't know the partition.
    pub fn next_offset(&self, partition: PartitionId) -> Option<i64> {
        self.partitions.get(&partition).map(|coverage| coverage.range.end)
    }

    pub fn next_offsets(&self) -> BTreeMap<PartitionId, i64> {
        self.partitions.iter().map(|(partition, coverage)| (*partition, coverage.range.end)).collect()
    }

    /// Records in all partitions.
    pub fn records(&self) -> u64 {
        self.partitions.values().map(|coverage| coverage.records).sum()
    }

    /// The checkpoint after a batch, or why the batch does not continue this one. Nothing is changed on a mismatch.
    pub fn advance(&self, delta: &Delta) -> Result<Checkpoint, Mismatch> {
        let mut next = self.clone();
        for (&partition, coverage) in &delta.partitions {
            match next.partitions.get_mut(&partition) {
                None => {
                    next.partitions.insert(partition, *coverage);
                }
                Some(known) if known.range.end == coverage.range.start => {
                    known.range.end = coverage.range.end;
                    known.records += coverage.records;
                }
                Some(known) => return Err(Mismatch { partition, table_next: known.range.end, batch: coverage.range }),
            }
        }
        Ok(next)
    }

    /// What `ahead` has and this checkpoint has not, by partition: the input that a derived table has still to read.
    /// A partition that this table doesn't know begins where `ahead` began.
    pub fn missing_from(&self, ahead: &Checkpoint) -> BTreeMap<PartitionId, OffsetRange> {
        ahead
            .partitions
            .iter()
            .map(|(&partition, coverage)| {
                let start = self.next_offset(partition).unwrap_or(coverage.range.start);
                (partition, OffsetRange { start, end: coverage.range.end })
            })
            .filter(|(_, range)| !range.is_empty())
            .collect()
    }

    /// The partitions in which this table has read further than `input`, with both next offsets.
    pub fn ahead_of(&self, input: &Checkpoint) -> BTreeMap<PartitionId, (i64, i64)> {
        self.partitions
            .iter()
            .filter_map(|(&partition, coverage)| {
                let input_next = input.next_offset(partition).unwrap_or(0);
                (coverage.range.end > input_next).then_some((partition, (coverage.range.end, input_next)))
            })
            .collect()
    }

    /// The compact text of the partitions that stands in snapshot summaries and table properties; see [`parse_positions`].
    pub fn positions(&self) -> String {
        format_positions(&self.partitions)
    }
}

/// A position text of this size or larger is written with base-36 numbers, so that 1,000 partitions stay below the 32,672 bytes that
/// a metastore keeps of one table property.
const DECIMAL_BYTES_MAX: usize = 8_192;

/// Writes positions as `d;0:0+1500;1:200+80-3`: partition, first offset, `+` length, and `-` offsets without a record where there are
/// any. `d` marks decimal numbers, `x` base 36, which long texts use.
pub fn format_positions(partitions: &BTreeMap<PartitionId, Coverage>) -> String {
    let decimal = format_with(partitions, 'd', &|number| number.to_string());
    if decimal.len() < DECIMAL_BYTES_MAX { decimal } else { format_with(partitions, 'x', &base36) }
}

fn format_with(partitions: &BTreeMap<PartitionId, Coverage>, radix: char, number: &dyn Fn(u64) -> String) -> String {
    let mut text = String::from(radix);
    for (partition, coverage) in partitions {
        let length = coverage.range.len() as u64;
        text.push_str(&format!(";{}:{}+{}", number(*partition as u64), number(coverage.range.start as u64), number(length)));
        if coverage.records < length {
            text.push('-');
            text.push_str(&number(length - coverage.records));
        }
    }
    text
}

pub(crate) fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit((number % 36) as u32, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

/// Why a position text could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("positions `{0}` are not of the form `d;partition:first+length-missing`")]
pub struct BadPositions(String);

/// Reads what [`format_positions`] wrote.
pub fn parse_positions(text: &str) -> Result<BTreeMap<PartitionId, Coverage>, BadPositions> {
    let bad = || BadPositions(text.chars().take(120).collect());
    let mut parts = text.split(';');
    let radix = match parts.next() {
        Some("d") => 10,
        Some("x") => 36,
        _ => return Err(bad()),
    };
    let number = |digits: &str| i64::from_str_radix(digits, radix).ok().filter(|number| *number >= 0);
    let mut partitions = BTreeMap::new();
    for part in parts {
        let coverage = (|| {
            let (partition, rest) = part.split_once(':')?;
            let (first, rest) = rest.split_once('+')?;
            let (length, missing) = rest.split_once('-').unwrap_or((rest, "0"));
            let (first, length, missing) = (number(first)?, number(length)?, number(missing)?);
            let range = OffsetRange { start: first, end: first.checked_add(length)? };
            let records = u64::try_from(length.checked_sub(missing)?).ok()?;
            Some((PartitionId::try_from(number(partition)?).ok()?, Coverage { range, records }))
        })();
        let (partition, coverage) = coverage.ok_or_else(bad)?;
        if partitions.insert(partition, coverage).is_some() {
            return Err(bad());
        }
    }
    Ok(partitions)
}

impl FromStr for Delta {
    type Err = BadPositions;

    fn from_str(text: &str) -> Result<Self, BadPositions> {
        Ok(Delta { partitions: parse_positions(text)? })
    }
}

impl fmt::Display for Delta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_positions(&self.partitions))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn coverage(start: i64, end: i64) -> Coverage {
        Coverage { range: OffsetRange::new(start, end), records: (end - start) as u64 }
    }

    fn delta(partition: PartitionId, start: i64, end: i64) -> Delta {
        Delta { partitions: BTreeMap::from([(partition, coverage(start, end))]) }
    }

    #[test]
    fn a_repeated_or_early_batch_is_refused_and_changes_nothing() {
        let table = Checkpoint::start("t", None, None).advance(&delta(0, 0, 10)).unwrap();
        assert_eq!(table.advance(&delta(0, 0, 10)).unwrap_err().table_next, 10);
        assert_eq!(table.advance(&delta(0, 12, 15)).unwrap_err().batch, OffsetRange::new(12, 15));
        assert_eq!(table.advance(&delta(0, 10, 11)).unwrap().next_offset(0), Some(11));
    }

    #[test]
    fn one_bad_partition_refuses_the_whole_batch() {
        let table = Checkpoint::start("t", None, None).advance(&delta(0, 0, 10)).unwrap();
        let mut batch = delta(1, 0, 5);
        batch.partitions.insert(0, coverage(9, 12));
        assert!(table.advance(&batch).is_err());
        assert_eq!(table.next_offset(1), None);
    }

    #[test]
    fn a_thousand_partitions_of_huge_offsets_fit_one_table_property() {
        let partitions = (0..1000)
            .map(|partition| {
                let range = OffsetRange::new(1_700_000_000_000, 2_500_000_000_000);
                (partition, Coverage { range, records: 700_000_000_000 })
            })
            .collect();
        let text = format_positions(&partitions);
        assert!(text.len() < 32_672, "{} bytes", text.len());
        assert_eq!(parse_positions(&text).unwrap(), partitions);
    }

    #[test]
    fn few_partitions_are_written_so_that_a_person_can_read_them() {
        let mut partitions = BTreeMap::from([(0, coverage(0, 1500))]);
        partitions.insert(1, Coverage { range: OffsetRange::new(200, 280), records: 77 });
        assert_eq!(format_positions(&partitions), "d;0:0+1500;1:200+80-3");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "0:0+1",
            "d;0",
            "d;0:1",
            "d;0:1+",
            "d;0:1+2-3",
            "d;0:1+2;0:3+4",
            "d;-1:0+1",
            "d;0:0+9223372036854775807;1:1+9223372036854775807",
        ] {
            assert!(parse_positions(text).is_err(), "{text}");
        }
    }

    fn coverages() -> impl Strategy<Value = BTreeMap<PartitionId, Coverage>> {
        let one = (0i64..1 << 40, 0i64..1 << 40, 0.0f64..=1.0).prop_map(|(start, length, share)| Coverage {
            range: OffsetRange::new(start, start + length),
            records: (length as f64 * share) as u64,
        });
        prop::collection::btree_map(0..5000i32, one, 0..600)
    }

    proptest! {
        #[test]
        fn positions_round_trip(partitions in coverages()) {
            prop_assert_eq!(parse_positions(&format_positions(&partitions)).unwrap(), partitions);
        }

        #[test]
        fn applying_deltas_one_by_one_equals_applying_their_sum(lengths in prop::collection::vec((0..4i32, 0i64..50), 0..40)) {
            let mut one_by_one = Checkpoint::start("t", None, None);
            let mut sum = Delta::default();
            for (partition, length) in lengths {
                let start = one_by_one.next_offset(partition).unwrap_or(7);
                let step = delta(partition, start, start + length);
                one_by_one = one_by_one.advance(&step).unwrap();
                sum.append(&step).unwrap();
            }
            prop_assert_eq!(&Checkpoint::start("t", None, None).advance(&sum).unwrap(), &one_by_one);
            prop_assert!(one_by_one.missing_from(&one_by_one).is_empty());
            prop_assert!(one_by_one.ahead_of(&one_by_one).is_empty());
        }

        #[test]
        fn a_delta_applies_exactly_once(start in 0i64..1000, length in 1i64..1000) {
            let step = delta(3, start, start + length);
            let once = Checkpoint::start("t", None, None).advance(&step).unwrap();
            prop_assert!(once.advance(&step).is_err());
        }

        #[test]
        fn what_is_missing_brings_a_table_to_its_input(behind in 0i64..100, ahead in 0i64..100) {
            let table = Checkpoint::start("t", None, None).advance(&delta(0, 0, behind)).unwrap();
            let input = Checkpoint::start("t", None, None).advance(&delta(0, 0, ahead)).unwrap();
            let missing = table.missing_from(&input);
            let read: i64 = missing.values().map(OffsetRange::len).sum();
            prop_assert_eq!(read, (ahead - behind).max(0));
            prop_assert_eq!(table.ahead_of(&input).is_empty(), behind <= ahead);
        }
    }
}
