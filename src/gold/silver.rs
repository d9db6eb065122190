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
use crate::table::LakeTable;

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

/// True for every row that the filter does not allow to skip: a null or unnameable time is not the time that counts for its row.
fn predicate(column: &str, range: TimeRange) -> Predicate {
    let time = || Reference::new(column);
    let at = Datum::timestamp_micros;
    let inside = time().greater_than_or_equal_to(at(range.from_us)).and(time().less_than(at(range.to_us)));
    let unnameable = time().less_than(at(NAMEABLE_US.start)).or(time().greater_than_or_equal_to(at(NAMEABLE_US.end)));
    inside.or(time().is_null()).or(unnameable)
}
