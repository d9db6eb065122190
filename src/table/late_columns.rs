//! Columns that files from before don't have, of types that the iceberg crate (0.10) cannot make nulls of.
//!
//! It gives null for a missing column of most types, but fails for binary, fixed, uuid, time, list and map. Where a scan asks for such a
//! column, and a schema of the table doesn't have it, each file is read by itself: one that fails is asked which of these columns it has, and
//! read without the others, which the caller fills with nulls, or their defaults.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use iceberg::Result;
use iceberg::arrow::ArrowReader;
use iceberg::scan::{ArrowRecordBatchStream, FileScanTask, TableScan};
use iceberg::spec::{PrimitiveType, Schema, TableMetadata, Type};
use iceberg::table::Table;

/// What the crate says of them.
const CANNOT_BE_MADE: &str = "unexpected target column type";

/// The ids of columns with these names that a file of the table may lack, and that the crate cannot make.
pub(super) fn late(metadata: &TableMetadata, snapshot_schema: &Schema, names: &[String]) -> Vec<i32> {
    let fields = names.iter().filter_map(|name| snapshot_schema.field_by_name(name));
    let lacking = |id| metadata.schemas_iter().any(|schema| schema.field_by_id(id).is_none());
    fields.filter(|field| !can_be_made(&field.field_type) && lacking(field.id)).map(|field| field.id).collect()
}

fn can_be_made(field_type: &Type) -> bool {
    match field_type {
        Type::Primitive(primitive) => {
            !matches!(primitive, PrimitiveType::Binary | PrimitiveType::Fixed(_) | PrimitiveType::Uuid | PrimitiveType::Time)
        }
        Type::Struct(fields) => fields.fields().iter().all(|field| can_be_made(&field.field_type)),
        Type::List(_) | Type::Map(_) => false,
    }
}

/// The batches of a scan, file by file, `at_once` files at a time; a file without some of the `late` columns gives batches without them.
pub(super) async fn read(
    table: &Table,
    scan: &TableScan,
    late: Vec<i32>,
    batch_rows: usize,
    at_once: usize,
) -> Result<ArrowRecordBatchStream> {
    let late: Arc<[i32]> = late.into();
    let reader = table.reader_builder().with_batch_size(batch_rows).with_data_file_concurrency_limit(1).build();
    let files = scan.plan_files().await?.map_ok(move |task| read_file(reader.clone(), task, late.clone()));
    Ok(files.try_buffer_unordered(at_once).try_flatten_unordered(at_once).boxed())
}

pub(super) async fn read_file(reader: ArrowReader, mut task: FileScanTask, late: Arc<[i32]>) -> Result<ArrowRecordBatchStream> {
    match begin(&reader, &task).await {
        Err(error) if error.to_string().contains(CANNOT_BE_MADE) => {}
        begun => return begun,
    }
    let mut present = Vec::new();
    for id in late.iter() {
        let alone = FileScanTask { project_field_ids: vec![*id], predicate: None, ..task.clone() };
        if begin(&reader, &alone).await.is_ok() {
            present.push(*id);
        }
    }
    task.project_field_ids.retain(|id| !late.contains(id) || present.contains(id));
    begin(&reader, &task).await
}

/// The batches of a file, of which the first has been read.
async fn begin(reader: &ArrowReader, task: &FileScanTask) -> Result<ArrowRecordBatchStream> {
    let one = futures::stream::iter([Ok(task.clone())]).boxed();
    let mut batches = reader.clone().read(one)?.stream();
    match batches.next().await.transpose()? {
        Some(first) => Ok(futures::stream::iter([Ok(first)]).chain(batches).boxed()),
        None => Ok(futures::stream::empty().boxed()),
    }
}
