//! What gold needs of silver: its identity, its checkpoint, and its rows by offset.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::stream::BoxStream;
use iceberg::expr::{Predicate, Reference};
use iceberg::spec::Datum;
use uuid::Uuid;

use super::window::NAMEABLE_US;
use crate::checkpoint::{Checkpoint, OffsetRange, PartitionId};
use crate::error::Result;
use crate::hive::LogFile;
use crate::table::logged::ParquetTable;
use crate::table::{LakeTable, RecordTable};

/// Instants `[from, to)`, in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    pub from_us: i64,
    pub to_us: i64,
}

/// A column that may be used to skip files: rows whose value lies outside the range are not wanted, unless the value is null or
/// outside the years 1 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeFilter<'a> {
    pub column: &'a str,
    pub range: TimeRange,
}

/// Committed rows of one silver table, at one snapshot.
#[async_trait]
pub trait SilverRows: Send + Sync {
    fn table_uuid(&self) -> Uuid;

    fn snapshot_id(&self) -> Option<i64>;

    /// How far silver has come; none if it never held a record.
    fn positions(&self) -> Result<Option<Checkpoint>>;

    /// The time up to which silver says that it is complete at offsets which these next offsets have reached; milliseconds.
    fn complete_at(&self, _next_offsets: &BTreeMap<PartitionId, i64>) -> Result<Option<i64>> {
        Ok(None)
    }

    /// The rows of exactly these ranges, with these columns. `filter` may skip rows, it need not.
    async fn read(
        &self,
        ranges: &BTreeMap<PartitionId, OffsetRange>,
        columns: &[&str],
        filter: Option<TimeFilter<'_>>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>>;
}

#[async_trait]
impl SilverRows for LakeTable {
    fn table_uuid(&self) -> Uuid {
        self.uuid()
    }

    fn snapshot_id(&self) -> Option<i64> {
        LakeTable::snapshot_id(self)
    }

    fn positions(&self) -> Result<Option<Checkpoint>> {
        self.checkpoint()
    }

    fn complete_at(&self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<Option<i64>> {
        LakeTable::complete_at(self, next_offsets)
    }

    async fn read(
        &self,
        ranges: &BTreeMap<PartitionId, OffsetRange>,
        columns: &[&str],
        filter: Option<TimeFilter<'_>>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        // A column that the snapshot doesn't have can't skip anything.
        let predicate = match &filter {
            Some(filter) => self.scanned_name(filter.column)?.map(|column| predicate(&column, filter.range)),
            None => None,
        };
        self.scan_where(Some(ranges), Some(columns), predicate).await
    }
}

#[async_trait]
impl SilverRows for RecordTable<ParquetTable> {
    fn table_uuid(&self) -> Uuid {
        self.uuid()
    }

    fn snapshot_id(&self) -> Option<i64> {
        RecordTable::snapshot_id(self)
    }

    fn positions(&self) -> Result<Option<Checkpoint>> {
        self.checkpoint()
    }

    fn complete_at(&self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<Option<i64>> {
        RecordTable::complete_at(self, next_offsets)
    }

    async fn read(
        &self,
        ranges: &BTreeMap<PartitionId, OffsetRange>,
        columns: &[&str],
        filter: Option<TimeFilter<'_>>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        match self {
            Self::Lake(table) => table.read(ranges, columns, filter).await,
            Self::Logged(table) => {
                table.scan_but(Some(ranges), Some(columns), |file| filter.is_some_and(|filter| lies_outside(file, filter))).await
            }
        }
    }
}

/// Whether a filter allows to skip all rows of a file: none has a null time, nor one beyond the years that count.
fn lies_outside(file: &LogFile, filter: TimeFilter<'_>) -> bool {
    let span = file.spans.iter().find(|(column, _)| column.eq_ignore_ascii_case(filter.column)).map(|(_, span)| span);
    span.is_some_and(|span| {
        let nameable = NAMEABLE_US.contains(&span.least) && NAMEABLE_US.contains(&span.greatest);
        nameable && (span.greatest < filter.range.from_us || span.least >= filter.range.to_us)
    })
}

/// True for every row that the filter does not allow to skip: a null or unnameable time is not the time that counts for its row.
fn predicate(column: &str, range: TimeRange) -> Predicate {
    let time = || Reference::new(column);
    let at = Datum::timestamp_micros;
    let inside = time().greater_than_or_equal_to(at(range.from_us)).and(time().less_than(at(range.to_us)));
    let unnameable = time().less_than(at(NAMEABLE_US.start)).or(time().greater_than_or_equal_to(at(NAMEABLE_US.end)));
    inside.or(time().is_null()).or(unnameable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hive::FileSpan;

    #[test]
    fn a_file_is_passed_over_only_if_all_its_times_are_known_to_be_outside() {
        let file = |least, greatest| LogFile {
            pending: String::new(),
            name: String::new(),
            rows: 1,
            size_bytes: 1,
            partition: Vec::new(),
            spans: BTreeMap::from([("Kafka_Timestamp".to_owned(), FileSpan { least, greatest })]),
        };
        let skipped = |least, greatest, column| {
            lies_outside(&file(least, greatest), TimeFilter { column, range: TimeRange { from_us: 100, to_us: 200 } })
        };
        assert!(skipped(0, 99, "kafka_timestamp") && skipped(200, 300, "kafka_timestamp"));
        assert!(!skipped(0, 100, "kafka_timestamp") && !skipped(199, 300, "kafka_timestamp"));
        assert!(!skipped(0, 99, "OrderDate"));
        assert!(!skipped(NAMEABLE_US.start - 1, 99, "kafka_timestamp") && !skipped(300, NAMEABLE_US.end, "kafka_timestamp"));
    }
}
