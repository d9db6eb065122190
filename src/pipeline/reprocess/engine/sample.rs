//! Rows that somebody else has computed, held against what silver makes of the records.
//!
//! Windows of the rows are compared, spread evenly over the offsets of each topic partition, the first and the last among them: value by value,
//! but for the time of processing.
//!
//! *Failure*: the first value that differs is named with its record.

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, cast, concat_batches, lexsort_to_indices, take_record_batch};
use futures::TryStreamExt;
use roaring::RoaringTreemap;

use crate::bronze::BronzeTable;
use crate::checkpoint::{Delta, OffsetRange};
use crate::error::{Error, Result};
use crate::pipeline::fates::{Held, Offsets, select};
use crate::record::{RawBatch, as_raw, coordinates, position};
use crate::silver::{PROCESSING_TIMESTAMP, SilverPlan, SilverTable};
use crate::table::OffsetRanges;

/// The cause of an error: rows that were computed elsewhere are not those that were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("none of its rows is taken")]
pub(super) struct WrongRows;

/// How many windows are compared, and how many rows one has, in all topic partitions together.
const WINDOWS: u64 = 8;
const WINDOW_ROWS: u64 = 2_000;

/// Stops unless the rows of a sample are those that silver has for these records. `offsets` are those of all rows.
pub(super) async fn ensure_equal(plan: &SilverPlan, bronze: &BronzeTable, rows: &SilverTable, offsets: &Offsets) -> Result<()> {
    for window in windows(offsets) {
        let found: Vec<RecordBatch> = rows.scan(Some(&window), None).await?.try_collect().await?;
        let records: Vec<RecordBatch> = bronze.scan(Some(&window), None).await?.try_collect().await?;
        let (Some(first), Some(record)) = (found.first(), records.first()) else {
            return Err(Error::failed("rows that were there a moment ago are gone"));
        };
        let found = concat_batches(&first.schema(), &found)?;
        let records = select(&as_raw(&concat_batches(&record.schema(), &records)?)?, offsets, Held::Yes)?;
        let expected = plan.transform(&RawBatch { delta: Delta::default(), records }, 0)?;
        if let Some((partition, offset)) = first_of(&expected.rejected)? {
            return Err(differs(partition, offset, "is a row there, and silver rejects the record".to_owned()));
        }
        compare(&in_order(&found)?, &in_order(&expected.rows)?)?;
    }
    Ok(())
}

/// Ranges of offsets with about as many rows.
fn windows(offsets: &Offsets) -> Vec<OffsetRanges> {
    let filled = offsets.iter().filter(|(_, offsets)| !offsets.is_empty());
    let size = (WINDOW_ROWS / filled.clone().count().max(1) as u64).max(1);
    let window = |number: u64| -> OffsetRanges {
        let range = |offsets: &RoaringTreemap| {
            let last_start = offsets.len().saturating_sub(size);
            let start = last_start * number / (WINDOWS - 1);
            let end = (start + size).min(offsets.len()) - 1;
            Some(OffsetRange::new(offsets.select(start)? as i64, offsets.select(end)? as i64 + 1))
        };
        filled.clone().filter_map(|(partition, offsets)| Some((*partition, range(offsets)?))).collect()
    };
    let mut windows: Vec<OffsetRanges> = (0..WINDOWS).map(window).collect();
    windows.dedup();
    windows.retain(|window| !window.is_empty());
    windows
}

fn first_of(batch: &RecordBatch) -> Result<Option<(i32, i64)>> {
    let (partitions, offsets) = coordinates(batch)?;
    Ok((batch.num_rows() > 0).then(|| (partitions.value(0), offsets.value(0))))
}

/// By partition and offset.
fn in_order(batch: &RecordBatch) -> Result<RecordBatch> {
    let (partitions, offsets) = coordinates(batch)?;
    let key = |values: &dyn Array| SortColumn { values: arrow::array::make_array(values.to_data()), options: None };
    let order: UInt32Array = lexsort_to_indices(&[key(partitions), key(offsets)], None)?;
    Ok(take_record_batch(batch, &order)?)
}

fn compare(found: &RecordBatch, expected: &RecordBatch) -> Result<()> {
    let (partitions, offsets) = coordinates(expected)?;
    if found.num_rows() != expected.num_rows() {
        let what = format!("{} rows are there for {} records", found.num_rows(), expected.num_rows());
        return Err(Error::failed(what).caused_by(WrongRows));
    }
    for (field, wanted) in expected.schema_ref().fields().iter().zip(expected.columns()) {
        if field.name() == PROCESSING_TIMESTAMP {
            continue;
        }
        let at = position(found.schema_ref().fields(), field.name())
            .ok_or_else(|| Error::failed(format!("column {} is missing in rows that were computed elsewhere", field.name())))?;
        let values = cast(found.column(at), field.data_type())?;
        if values.as_ref() == wanted.as_ref() {
            continue;
        }
        let is_other = |row: &usize| values.slice(*row, 1).as_ref() != wanted.slice(*row, 1).as_ref();
        let row = (0..wanted.len()).find(is_other).unwrap_or_default();
        let shown = |values: &dyn Array| arrow::util::display::array_value_to_string(values, row).unwrap_or_default();
        let what = format!("has {:?} in {}, and silver has {:?}", shown(&values), field.name(), shown(wanted));
        return Err(differs(partitions.value(row), offsets.value(row), what));
    }
    Ok(())
}

fn differs(partition: i32, offset: i64, what: String) -> Error {
    Error::failed(format!("the record at offset {offset} of partition {partition} {what}"))
        .caused_by(WrongRows)
        .hint("the engine reads it in another way than silver: reprocess without --engine, or with Spark")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_have_the_first_and_the_last_row_and_few_between() {
        let offsets = Offsets::from([
            (0, (10..50_000).filter(|offset| offset % 3 == 0).collect()),
            (4, [7].into()),
            (5, RoaringTreemap::new()),
        ]);
        let windows = windows(&offsets);
        assert_eq!(windows.len(), WINDOWS as usize);
        assert_eq!((windows[0][&0].start, windows[0][&4]), (12, OffsetRange::new(7, 8)));
        assert_eq!(windows.last().unwrap()[&0].end, 49_998 + 1);
        for window in &windows {
            assert_eq!(window[&0].len(), 3 * (WINDOW_ROWS as i64 / 2 - 1) + 1);
            assert!(!window.contains_key(&5));
        }
        let few = super::windows(&Offsets::from([(0, (5..9).collect())]));
        assert_eq!(few, [OffsetRanges::from([(0, OffsetRange::new(5, 9))])]);
        assert!(super::windows(&Offsets::new()).is_empty());
    }
}
