//! Holds bronze against silver and rejected, offset by offset, in bounded memory.
//!
//! The offsets below the cut are divided into slices of at most [`SLICE_OFFSETS`] over all topic partitions. For each slice the
//! coordinate columns of the three tables are read into bitmaps and compared; file statistics keep each read to the files of the slice.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use roaring::RoaringTreemap;
use serde::Serialize;

use crate::bronze::BronzeTable;
use crate::checkpoint::{OffsetRange, PartitionId};
use crate::error::Result;
use crate::record::{OFFSET, PARTITION, coordinates};
use crate::silver::{Reprocessing, SilverTable};
use crate::table::Records;

/// What is read of each table.
const COORDINATES: [&str; 2] = [PARTITION, OFFSET];

/// Offsets compared at a time: about 24 MB of bitmaps at the worst.
const SLICE_OFFSETS: i64 = 32 << 20;

/// Ranges of offsets named in a report, at the most, for each kind of difference.
const EXAMPLES_MAX: usize = 20;

/// Offsets that break a rule: how many, and the first few ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Offsets {
    pub count: u64,
    /// `partition:start..end`, at most 20.
    pub examples: Vec<String>,
}

/// What holding the record layers against each other found, below the cut.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RecordsCheck {
    pub bronze_rows: u64,
    pub silver_rows: u64,
    pub rejected_rows: u64,
    /// In bronze, in neither silver nor rejected.
    pub missing: Offsets,
    /// In silver or rejected, not in bronze.
    pub unknown: Offsets,
    /// In silver and in rejected.
    pub both: Offsets,
    /// More than once in bronze.
    pub bronze_repeated: Offsets,
    /// More than once in silver.
    pub silver_repeated: Offsets,
    /// More than once in rejected.
    pub rejected_repeated: Offsets,
    /// Offsets that were not compared, because a reprocessing decides their records anew.
    pub reprocessing: u64,
}

impl RecordsCheck {
    /// True when every record has exactly one fate.
    pub fn holds(&self) -> bool {
        self.kinds().iter().all(|(_, offsets)| offsets.count == 0)
    }

    /// Every kind of difference with what it means.
    pub fn kinds(&self) -> [(&'static str, &Offsets); 6] {
        [
            ("in bronze, but neither in silver nor in rejected", &self.missing),
            ("in silver or rejected, but not in bronze", &self.unknown),
            ("in silver and in rejected", &self.both),
            ("more than once in bronze", &self.bronze_repeated),
            ("more than once in silver", &self.silver_repeated),
            ("more than once in rejected", &self.rejected_repeated),
        ]
    }
}

/// Compares the three tables over `ranges`, the offsets below the cut. Where records are being decided anew, silver and rejected may disagree.
pub(super) async fn check(
    bronze: &BronzeTable,
    silver: &SilverTable,
    rejected: &SilverTable,
    ranges: &BTreeMap<PartitionId, OffsetRange>,
    reprocessing: Option<&Reprocessing>,
) -> Result<RecordsCheck> {
    let mut found = RecordsCheck::default();
    for slice in slices(ranges, SLICE_OFFSETS) {
        let (bronze, silver, rejected) = tokio::try_join!(
            async { read(bronze.scan(Some(&slice), Some(&COORDINATES)).await?).await },
            async { read(silver.scan(Some(&slice), Some(&COORDINATES)).await?).await },
            async { read(rejected.scan(Some(&slice), Some(&COORDINATES)).await?).await },
        )?;
        found.bronze_rows += bronze.rows;
        found.silver_rows += silver.rows;
        found.rejected_rows += rejected.rows;
        for partition in slice.keys() {
            let none = Layer::default();
            let (b, s, r) = (bronze.of(*partition), silver.of(*partition), rejected.of(*partition));
            let (b, s, r) = (b.unwrap_or(&none), s.unwrap_or(&none), r.unwrap_or(&none));
            let fates = &s.offsets | &r.offsets;
            let anew = reprocessing.and_then(|reprocessing| reprocessing.ranges.get(partition));
            let settled = |mut offsets: RoaringTreemap| {
                if let Some(range) = anew {
                    offsets.remove_range(range.start as u64..range.end as u64);
                }
                offsets
            };
            found.reprocessing += anew.map_or(0, |range| range.intersect(&slice[partition]).len() as u64);
            add(&mut found.missing, *partition, &settled(&b.offsets - &fates));
            add(&mut found.unknown, *partition, &(&fates - &b.offsets));
            add(&mut found.both, *partition, &settled(&s.offsets & &r.offsets));
            add(&mut found.bronze_repeated, *partition, &b.repeated);
            add(&mut found.silver_repeated, *partition, &s.repeated);
            add(&mut found.rejected_repeated, *partition, &r.repeated);
        }
    }
    Ok(found)
}

#[derive(Default)]
struct Layer {
    offsets: RoaringTreemap,
    repeated: RoaringTreemap,
}

#[derive(Default)]
struct Read {
    rows: u64,
    partitions: BTreeMap<PartitionId, Layer>,
}

impl Read {
    fn of(&self, partition: PartitionId) -> Option<&Layer> {
        self.partitions.get(&partition)
    }
}

async fn read(mut batches: Records) -> Result<Read> {
    let mut read = Read::default();
    while let Some(batch) = batches.try_next().await? {
        read.rows += batch.num_rows() as u64;
        let (partitions, offsets) = coordinates(&batch)?;
        for (partition, offset) in partitions.values().iter().zip(offsets.values()) {
            let layer = read.partitions.entry(*partition).or_default();
            if !layer.offsets.insert(*offset as u64) {
                layer.repeated.insert(*offset as u64);
            }
        }
    }
    Ok(read)
}

/// Cuts ranges into groups with at most `size` offsets each.
fn slices(ranges: &BTreeMap<PartitionId, OffsetRange>, size: i64) -> Vec<BTreeMap<PartitionId, OffsetRange>> {
    let mut slices = Vec::new();
    let mut slice = BTreeMap::new();
    let mut room = size;
    for (&partition, &range) in ranges {
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + room);
            slice.insert(partition, OffsetRange::new(start, end));
            room -= end - start;
            start = end;
            if room == 0 {
                slices.push(std::mem::take(&mut slice));
                room = size;
            }
        }
    }
    if !slice.is_empty() {
        slices.push(slice);
    }
    slices
}

fn add(to: &mut Offsets, partition: PartitionId, offsets: &RoaringTreemap) {
    to.count += offsets.len();
    let mut values = offsets.iter().peekable();
    while to.examples.len() < EXAMPLES_MAX {
        let Some(start) = values.next() else { return };
        let mut end = start + 1;
        while values.next_if_eq(&end).is_some() {
            end += 1;
        }
        to.examples.push(format!("{partition}:{start}..{end}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_every_offset_once_and_are_bounded() {
        let ranges = BTreeMap::from([(0, OffsetRange::new(5, 30)), (1, OffsetRange::new(0, 3)), (7, OffsetRange::new(2, 2))]);
        let slices = slices(&ranges, 10);
        assert_eq!(slices.len(), 3);
        assert!(slices.iter().all(|slice| slice.values().map(OffsetRange::len).sum::<i64>() <= 10));
        assert_eq!(slices[2], BTreeMap::from([(0, OffsetRange::new(25, 30)), (1, OffsetRange::new(0, 3))]));
    }

    #[test]
    fn differences_are_counted_in_full_and_named_as_ranges() {
        let mut offsets = Offsets::default();
        add(&mut offsets, 2, &(0..100u64).filter(|offset| offset % 3 != 0).collect());
        assert_eq!(offsets.count, 66);
        assert_eq!(offsets.examples.len(), EXAMPLES_MAX);
        assert_eq!(offsets.examples[0], "2:1..3");
    }
}
