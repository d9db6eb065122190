//! Snapshots that other engines made in the record tables, and whether they can explain what differs.

use iceberg::spec::{Operation, SnapshotRef};
use serde::Serialize;

use super::Report;
use crate::table::{COMMIT_ID, LakeTable};

/// A snapshot without a commit id of lakesmith.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ForeignSnapshot {
    pub table: String,
    pub snapshot_id: i64,
    /// `append`, `overwrite`, `delete` or `replace` (a compaction: the same rows in other files).
    pub operation: &'static str,
    pub timestamp_ms: i64,
    pub engine: Option<String>,
    pub added_records: u64,
    pub removed_records: u64,
}

/// The foreign snapshots in the ancestry of each table's current snapshot, newest first.
pub(super) fn snapshots(tables: &[&LakeTable]) -> Vec<ForeignSnapshot> {
    let mut found = Vec::new();
    for table in tables {
        let mut next = table.metadata().current_snapshot().cloned();
        while let Some(snapshot) = next {
            if !snapshot.summary().additional_properties.contains_key(COMMIT_ID) {
                found.push(describe(table, &snapshot));
            }
            next = snapshot.parent_snapshot_id().and_then(|id| table.metadata().snapshot_by_id(id)).cloned();
        }
    }
    found
}

fn describe(table: &LakeTable, snapshot: &SnapshotRef) -> ForeignSnapshot {
    let summary = &snapshot.summary().additional_properties;
    let number = |key: &str| summary.get(key).and_then(|value| value.parse().ok()).unwrap_or(0);
    ForeignSnapshot {
        table: table.ident().to_string(),
        snapshot_id: snapshot.snapshot_id(),
        operation: match snapshot.summary().operation {
            Operation::Append => "append",
            Operation::Replace => "replace",
            Operation::Overwrite => "overwrite",
            Operation::Delete => "delete",
        },
        timestamp_ms: snapshot.timestamp_ms(),
        engine: summary.get("engine-name").cloned(),
        added_records: number("added-records"),
        removed_records: number("deleted-records") + number("added-position-deletes"),
    }
}

/// Whether foreign snapshots removed at least as many rows as are missing, and added at least as many as are too many. Gold follows
/// silver's rows as lakesmith wrote them, so a difference there needs a foreign change of silver.
pub(super) fn explains(report: &Report) -> bool {
    let (mut added, mut removed) = (0, 0);
    for snapshot in report.foreign_snapshots.iter().filter(|snapshot| snapshot.operation != "replace") {
        added += snapshot.added_records;
        removed += snapshot.removed_records;
    }
    let records = &report.records;
    let lost = records.missing.count
        + records.unknown.count
        + report.bronze_count.map_or(0, |count| count.counted.saturating_sub(count.found));
    let extra =
        records.both.count + records.bronze_repeated.count + records.silver_repeated.count + records.rejected_repeated.count;
    let gold_differs = report.gold.iter().any(|check| !check.holds());
    lost <= removed && extra <= added && (!gold_differs || added + removed > 0)
}
