//! Trino's names of what a table consists of: `"silver$snapshots"`, `$history`, `$files`, `$manifests` and `$partitions`; of a Hive table
//! its partitions alone.
//!
//! Columns have Trino's names as far as they are there. A partition is its directory's text (`Year=2024/Month=6`), because a table whose
//! partitioning was changed has partitions of several shapes.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array,
};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use futures::TryStreamExt;
use iceberg::scan::ArrowRecordBatchStream;

use super::statement::query_error;
use crate::error::{Context, Error, Result};
use crate::metastore::{HivePartition, HiveTable};
use crate::table::logged::is_logged;
use crate::table::{FileLine, LakeTable};

/// What is asked of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetadataTable {
    Snapshots,
    History,
    Files,
    Manifests,
    Partitions,
}

const KNOWN: [(&str, MetadataTable); 5] = [
    ("snapshots", MetadataTable::Snapshots),
    ("history", MetadataTable::History),
    ("files", MetadataTable::Files),
    ("manifests", MetadataTable::Manifests),
    ("partitions", MetadataTable::Partitions),
];

impl MetadataTable {
    /// The table and what is asked of it, if a name is of that kind. No metastore takes a `$` in a table's own name.
    pub fn named(name: &str) -> Result<Option<(&str, Self)>> {
        let Some((table, suffix)) = name.split_once('$') else { return Ok(None) };
        match KNOWN.iter().find(|(known, _)| known.eq_ignore_ascii_case(suffix)) {
            Some((_, asked)) => Ok(Some((table, *asked))),
            None => {
                let known = KNOWN.map(|(known, _)| format!("\"{table}${known}\"")).join(", ");
                Err(Error::config(format!("a table has no ${suffix}")).hint(format!("there are {known}")))
            }
        }
    }

    /// Of an Iceberg table, at the version that was read.
    pub async fn of_iceberg(self, table: &LakeTable) -> Result<Arc<dyn TableProvider>> {
        let iceberg = table.to_iceberg()?;
        let about = || format!("what table {} consists of cannot be read", table.ident());
        match self {
            Self::Snapshots => collected(iceberg.inspect().snapshots().scan().await.with_context(about)?).await,
            Self::Manifests => collected(iceberg.inspect().manifests().scan().await.with_context(about)?).await,
            Self::History => in_memory(history(table)?),
            Self::Files => in_memory(files(&table.files().await?)?),
            Self::Partitions => {
                let partitions = table.partitions().await?;
                let number = |of: fn(&crate::table::PartitionLine) -> u64| -> ArrayRef {
                    Arc::new(partitions.values().map(|line| Some(of(line))).collect::<UInt64Array>())
                };
                in_memory(RecordBatch::try_from_iter([
                    ("partition", Arc::new(partitions.keys().map(Some).collect::<StringArray>()) as ArrayRef),
                    ("record_count", number(|line| line.records)),
                    ("file_count", number(|line| line.files)),
                    ("total_size", number(|line| line.size_bytes)),
                    ("delete_file_count", number(|line| line.delete_files)),
                ])?)
            }
        }
    }

    /// Of a Hive table: a column for each partition key, and what the metastore counts. Of a logged table it has counted once, when the
    /// partition was added, and that is left out.
    pub fn of_hive(self, entry: &HiveTable, partitions: &[HivePartition]) -> Result<Arc<dyn TableProvider>> {
        let name = format!("{}.{}", entry.database(), entry.name());
        if self != Self::Partitions {
            return Err(Error::config(format!("{name} is a Hive table, which has no such thing"))
                .hint(format!("it has \"{name}$partitions\"")));
        }
        let values: Vec<Vec<String>> = partitions.iter().map(HivePartition::values).collect();
        let mut columns: Vec<(String, ArrayRef)> = Vec::new();
        for (at, key) in entry.partition_keys().into_iter().enumerate() {
            let of_key: StringArray = values.iter().map(|values| values.get(at)).collect();
            columns.push((key.name, Arc::new(of_key)));
        }
        let up_to_date = !is_logged(entry);
        for (column, parameter) in [("record_count", "numRows"), ("file_count", "numFiles"), ("total_size", "totalSize")] {
            let counts =
                partitions.iter().map(|partition| partition.parameter(parameter).filter(|_| up_to_date)?.parse::<u64>().ok());
            columns.push((column.to_owned(), Arc::new(counts.collect::<UInt64Array>())));
        }
        let locations: StringArray = partitions.iter().map(HivePartition::location).collect();
        columns.push(("location".to_owned(), Arc::new(locations)));
        in_memory(RecordBatch::try_from_iter(columns)?)
    }
}

fn in_memory(batch: RecordBatch) -> Result<Arc<dyn TableProvider>> {
    Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).map_err(query_error)?))
}

async fn collected(batches: ArrowRecordBatchStream) -> Result<Arc<dyn TableProvider>> {
    let batches: Vec<RecordBatch> = batches.try_collect().await?;
    let schema = batches.first().map(RecordBatch::schema).ok_or_else(|| Error::failed("the table's metadata is empty"))?;
    Ok(Arc::new(MemTable::try_new(schema, vec![batches]).map_err(query_error)?))
}

/// When each snapshot became the current one, and whether it still is, or one that it follows.
fn history(table: &LakeTable) -> Result<RecordBatch> {
    let metadata = table.metadata();
    let ancestors: Vec<i64> = table.snapshots().iter().map(|snapshot| snapshot.snapshot_id).collect();
    let history = metadata.history();
    let made_current = history.iter().map(|entry| entry.timestamp_ms.saturating_mul(1000));
    let parent = |id: i64| metadata.snapshot_by_id(id).and_then(|snapshot| snapshot.parent_snapshot_id());
    Ok(RecordBatch::try_from_iter([
        (
            "made_current_at",
            Arc::new(TimestampMicrosecondArray::from_iter_values(made_current).with_timezone("+00:00")) as ArrayRef,
        ),
        ("snapshot_id", Arc::new(Int64Array::from_iter_values(history.iter().map(|entry| entry.snapshot_id)))),
        ("parent_id", Arc::new(history.iter().map(|entry| parent(entry.snapshot_id)).collect::<Int64Array>())),
        (
            "is_current_ancestor",
            Arc::new(history.iter().map(|entry| Some(ancestors.contains(&entry.snapshot_id))).collect::<BooleanArray>()),
        ),
    ])?)
}

fn files(files: &[FileLine]) -> Result<RecordBatch> {
    let texts = |of: fn(&FileLine) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(files.iter().map(of))) };
    let numbers = |of: fn(&FileLine) -> u64| -> ArrayRef { Arc::new(UInt64Array::from_iter_values(files.iter().map(of))) };
    Ok(RecordBatch::try_from_iter([
        ("content", Arc::new(Int32Array::from_iter_values(files.iter().map(|file| file.content as i32))) as ArrayRef),
        ("file_path", texts(|file| &file.path)),
        ("file_format", texts(|file| &file.format)),
        ("spec_id", Arc::new(Int32Array::from_iter_values(files.iter().map(|file| file.spec_id)))),
        ("partition", texts(|file| &file.partition)),
        ("record_count", numbers(|file| file.records)),
        ("file_size_in_bytes", numbers(|file| file.size_bytes)),
    ])?)
}
