//! What remains to be read, and which records of a batch a layer still takes. Pure.

use std::collections::BTreeMap;

use arrow::array::{Array, BooleanArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::filter_record_batch;

use crate::checkpoint::{Checkpoint, Coverage, Delta, OffsetRange, PartitionId};
use crate::error::{Error, Result};
use crate::record::{RawBatch, TIMESTAMP, column, coordinates};

/// Stops if a partition that the table has read is gone from the topic.
pub(super) fn ensure_partitions_exist(table: &Checkpoint, watermarks: &BTreeMap<PartitionId, OffsetRange>) -> Result<()> {
    match table.next_offsets().into_iter().find(|(partition, _)| !watermarks.contains_key(partition)) {
        None => Ok(()),
        Some((partition, next)) => Err(Error::stop(format!(
            "topic {} has no partition {partition}, but the table has read it up to offset {next}",
            table.topic
        ))
        .hint("was the topic created anew with fewer partitions? see `lakesmith offsets show`")),
    }
}

/// True when every partition has been read up to `ends`.
pub(super) fn reached(positions: &BTreeMap<PartitionId, i64>, ends: &BTreeMap<PartitionId, i64>) -> bool {
    ends.iter().all(|(partition, end)| positions.get(partition).is_some_and(|position| position >= end))
}

/// Offsets between `positions` and `ends`, summed: records that wait to be read, counting offsets without a record.
pub(super) fn distance(positions: &BTreeMap<PartitionId, i64>, ends: &BTreeMap<PartitionId, i64>) -> u64 {
    ends.iter().map(|(partition, end)| (end - positions.get(partition).copied().unwrap_or(0)).max(0) as u64).sum()
}

/// The part of a batch that lies at or beyond a layer's next offsets: a layer ahead of its input waits until the input has passed it.
/// None when nothing of the batch is left.
pub(super) fn beyond(batch: &RawBatch, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<Option<RawBatch>> {
    let next = |partition| next_offsets.get(&partition).copied().unwrap_or(i64::MIN);
    if batch.delta.partitions.iter().all(|(partition, coverage)| next(*partition) <= coverage.range.start) {
        return Ok(Some(batch.clone()));
    }
    let (partitions, offsets) = coordinates(&batch.records)?;
    let keep: BooleanArray =
        (0..batch.records.num_rows()).map(|row| Some(offsets.value(row) >= next(partitions.value(row)))).collect();
    let records = filter_record_batch(&batch.records, &keep)?;
    let mut delta = Delta::default();
    for (&partition, coverage) in &batch.delta.partitions {
        let start = coverage.range.start.max(next(partition));
        if start < coverage.range.end {
            let range = OffsetRange::new(start, coverage.range.end);
            let records = count_in_partition(&records, partition)?;
            delta.partitions.insert(partition, Coverage { range, records });
        }
    }
    Ok((!delta.is_empty()).then_some(RawBatch { delta, records }))
}

/// Rows of a topic partition in a batch of single records.
pub(super) fn count_in_partition(records: &RecordBatch, partition: PartitionId) -> Result<u64> {
    let (partitions, _) = coordinates(records)?;
    Ok(partitions.values().iter().filter(|value| **value == partition).count() as u64)
}

/// A delta over the same ranges whose counts are the rows of `records`.
pub(super) fn recount(ranges: &BTreeMap<PartitionId, OffsetRange>, counts: &BTreeMap<PartitionId, u64>) -> Delta {
    let partitions = ranges
        .iter()
        .map(|(&partition, &range)| (partition, Coverage { range, records: counts.get(&partition).copied().unwrap_or(0) }))
        .collect();
    Delta { partitions }
}

/// Adds the rows of a batch to counts by topic partition.
pub(super) fn count_rows(records: &RecordBatch, counts: &mut BTreeMap<PartitionId, u64>) -> Result<()> {
    let (partitions, _) = coordinates(records)?;
    debug_assert_eq!(partitions.null_count(), 0);
    for partition in partitions.values() {
        *counts.entry(*partition).or_default() += 1;
    }
    Ok(())
}

/// Raises the highest timestamps by topic partition, in milliseconds, by those of a batch. Records without one tell nothing.
pub(super) fn raise_highest(records: &RecordBatch, highest_ms: &mut BTreeMap<PartitionId, i64>) -> Result<()> {
    let (partitions, _) = coordinates(records)?;
    let timestamps: &TimestampMicrosecondArray = column(records, TIMESTAMP)?;
    let (partitions, values) = (partitions.values(), timestamps.values());
    let mut row = 0;
    while row < partitions.len() {
        // Records of a partition mostly come together.
        let partition = partitions[row];
        let mut highest: Option<i64> = None;
        while row < partitions.len() && partitions[row] == partition {
            if timestamps.is_valid(row) {
                highest = highest.max(Some(values[row]));
            }
            row += 1;
        }
        if let Some(highest_us) = highest {
            let known = highest_ms.entry(partition).or_insert(i64::MIN);
            *known = (highest_us / 1_000).max(*known);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, Int64Array, new_null_array};

    use super::*;
    use crate::record::raw_schema;

    fn batch(rows: &[(i32, i64)], ranges: &[(i32, i64, i64)]) -> RawBatch {
        let schema = raw_schema();
        let columns = schema
            .fields()
            .iter()
            .map(|field| match field.name().as_str() {
                "partition" => Arc::new(rows.iter().map(|row| row.0).collect::<Int32Array>()) as Arc<dyn Array>,
                "offset" => Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>()),
                "topic" => Arc::new(arrow::array::StringArray::from(vec!["t"; rows.len()])),
                "ingested_at" => Arc::new(arrow::array::TimestampMicrosecondArray::from(vec![0; rows.len()])),
                _ => new_null_array(field.data_type(), rows.len()),
            })
            .collect();
        let records = RecordBatch::try_new(schema, columns).unwrap();
        let partitions = ranges
            .iter()
            .map(|&(partition, start, end)| {
                let records = rows.iter().filter(|row| row.0 == partition).count() as u64;
                (partition, Coverage { range: OffsetRange::new(start, end), records })
            })
            .collect();
        RawBatch { delta: Delta { partitions }, records }
    }

    #[test]
    fn a_layer_ahead_takes_only_what_lies_beyond_it() {
        let read = batch(&[(0, 5), (0, 6), (0, 8), (1, 0)], &[(0, 5, 9), (1, 0, 1)]);
        let rest = beyond(&read, &BTreeMap::from([(0, 7), (1, 1)])).unwrap().unwrap();
        assert_eq!(rest.delta.to_string(), "d;0:7+2-1");
        assert_eq!(rest.records.num_rows(), 1);
        assert!(beyond(&read, &BTreeMap::from([(0, 9), (1, 1)])).unwrap().is_none());
        assert_eq!(beyond(&read, &BTreeMap::new()).unwrap().unwrap().delta, read.delta);
    }

    #[test]
    fn a_partition_that_vanished_stops_the_start() {
        let table = Checkpoint::start("sales", None, None).advance(&"d;0:0+5;3:0+9".parse().unwrap()).unwrap();
        let watermarks = BTreeMap::from([(0, OffsetRange::new(0, 50)), (1, OffsetRange::new(7, 9))]);
        let error = ensure_partitions_exist(&table, &watermarks).unwrap_err();
        assert_eq!(error.to_string(), "topic sales has no partition 3, but the table has read it up to offset 9");
    }

    #[test]
    fn the_highest_timestamp_counts_whatever_the_order_of_records() {
        let read = batch(&[(0, 5), (1, 0), (0, 6), (0, 7), (2, 9)], &[(0, 5, 8), (1, 0, 1), (2, 9, 10)]);
        let times = TimestampMicrosecondArray::from(vec![Some(9_999), Some(3_000), Some(7_000), None, None]);
        let mut columns = read.records.columns().to_vec();
        columns[3] = Arc::new(times);
        let records = RecordBatch::try_new(raw_schema(), columns).unwrap();
        let mut highest = BTreeMap::from([(1, 8)]);
        raise_highest(&records, &mut highest).unwrap();
        assert_eq!(highest, BTreeMap::from([(0, 9), (1, 8)]));
    }

    #[test]
    fn distances_count_from_positions_to_ends() {
        let positions = BTreeMap::from([(0, 5), (1, 7)]);
        assert!(!reached(&positions, &BTreeMap::from([(0, 50)])));
        assert!(reached(&positions, &BTreeMap::from([(0, 5), (1, 6)])));
        assert!(!reached(&positions, &BTreeMap::from([(2, 0)])));
        assert_eq!(distance(&positions, &BTreeMap::from([(0, 50), (1, 9), (2, 4)])), 51);
    }
}
