//! Scans by coordinates over many files, and batches that are split, cut and aligned on their way into files.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int32Type, Int64Type};
use bytesize::ByteSize;
use futures::TryStreamExt;
use iceberg::TableUpdate;
use iceberg::expr::Reference;
use iceberg::spec::{Datum, NestedField, PrimitiveType, Schema, Type};
use lakesmith::checkpoint::OffsetRange;
use lakesmith::storage::CloseBarrier;
use lakesmith::table::{Append, LakeTable, Preparation, WriterSettings};
use uuid::Uuid;

use super::lake::{Lake, append, collect, committed, delta, offsets, origin, rows};

super::on_every_lake!(
    ranges_are_exact_over_many_files,
    a_renamed_and_an_added_column_are_found,
    columns_in_another_case_are_written_and_found,
    large_batches_become_several_files_within_their_bounds,
    a_long_text_in_another_row_group_is_found,
);

async fn ranges_are_exact_over_many_files(lake: &Lake) {
    let mut table = lake.table("t", &["Year"]).await;
    for commit in 0..5 {
        append(&mut table, 0, OffsetRange::new(commit * 20, commit * 20 + 20)).await;
        append(&mut table, 1, OffsetRange::new(commit * 20, commit * 20 + 20)).await;
    }
    let ranges = BTreeMap::from([(0, OffsetRange::new(15, 45)), (1, OffsetRange::new(99, 500)), (7, OffsetRange::new(0, 10))]);
    let records = table.scan(Some(&ranges), None).await.unwrap();
    let batches: Vec<RecordBatch> = records.try_collect().await.unwrap();
    let batch = concat_batches(&batches[0].schema(), &batches).unwrap();
    let partitions = batch.column_by_name("partition").unwrap().as_primitive::<Int32Type>().clone();
    let offsets = batch.column_by_name("offset").unwrap().as_primitive::<Int64Type>().clone();
    let mut found: Vec<(i32, i64)> = partitions.values().iter().copied().zip(offsets.values().iter().copied()).collect();
    found.sort_unstable();
    let expected: Vec<(i32, i64)> = (15..45).map(|offset| (0, offset)).chain([(1, 99)]).collect();
    assert_eq!(found, expected);
    let value = batch.column_by_name("value").unwrap().as_binary::<i32>();
    assert!((0..batch.num_rows()).all(|row| value.value(row) == format!("message {}", offsets.value(row)).as_bytes()));
    assert!(super::lake::offsets(&table, Some(&BTreeMap::new())).await.is_empty());
}

/// As other engines do it: the schema changes, and no snapshot follows.
async fn a_renamed_and_an_added_column_are_found(lake: &Lake) {
    let mut table = lake.table("t", &[]).await;
    append(&mut table, 0, OffsetRange::new(0, 10)).await;
    let rename = |field: &Arc<NestedField>| match field.name.as_str() {
        "value" => Arc::new(NestedField::optional(field.id, "payload", Type::Primitive(PrimitiveType::Binary))),
        _ => field.clone(),
    };
    let mut fields: Vec<_> = table.metadata().current_schema().as_struct().fields().iter().map(rename).collect();
    fields.push(Arc::new(NestedField::optional(6, "added", Type::Primitive(PrimitiveType::String))));
    let schema = Schema::builder().with_schema_id(1).with_fields(fields).build().unwrap();
    let updates = vec![TableUpdate::AddSchema { schema }, TableUpdate::SetCurrentSchema { schema_id: -1 }];
    lake.catalog.commit(table.ident(), Vec::new(), updates).await.into_result(table.ident()).unwrap();
    table.refresh().await.unwrap();
    let ranges = BTreeMap::from([(0, OffsetRange::new(4, 6))]);
    for columns in [Some(["added", "payload"].as_slice()), None] {
        let batches: Vec<RecordBatch> = table.scan(Some(&ranges), columns).await.unwrap().try_collect().await.unwrap();
        let batch = concat_batches(&batches[0].schema(), &batches).unwrap();
        assert_eq!(batch.num_columns(), columns.map_or(6, <[&str]>::len));
        assert_eq!(batch.column_by_name("payload").unwrap().as_binary::<i32>().value(0), b"message 4");
        assert_eq!(batch.column_by_name("added").unwrap().null_count(), 2);
    }
    // A writer that still has the old name is told so.
    let mut writer = table.writer(&WriterSettings::default(), &CloseBarrier::new()).unwrap();
    let error = writer.write(&rows(0, OffsetRange::new(10, 11))).await.unwrap_err();
    assert!(error.to_string().contains("no column value"), "{error}");
}

/// As Trino does it: whatever column it renames is in lower case afterwards. Here all, and into capitals, so that exact names find nothing.
async fn columns_in_another_case_are_written_and_found(lake: &Lake) {
    let mut table = lake.table("t", &["Year"]).await;
    append(&mut table, 0, OffsetRange::new(0, 10)).await;
    let fields = table.metadata().current_schema().as_struct().fields().to_vec();
    let shouted = fields.iter().map(|field| Arc::new(NestedField { name: field.name.to_uppercase(), ..(**field).clone() }));
    let schema = Schema::builder().with_schema_id(1).with_fields(shouted).build().unwrap();
    let updates = vec![TableUpdate::AddSchema { schema }, TableUpdate::SetCurrentSchema { schema_id: -1 }];
    lake.catalog.commit(table.ident(), Vec::new(), updates).await.into_result(table.ident()).unwrap();
    table.refresh().await.unwrap();
    // Once where the snapshot has the old names still, once where it has the new ones.
    for end in [10, 20] {
        if end > 10 {
            append(&mut table, 0, OffsetRange::new(10, 20)).await;
        }
        assert_eq!(offsets(&table, None).await, (0..end).collect::<Vec<_>>());
        let ranges = BTreeMap::from([(0, OffsetRange::new(4, end))]);
        let records = table.scan(Some(&ranges), Some(&["value", "Year"])).await.unwrap();
        let batches: Vec<RecordBatch> = records.try_collect().await.unwrap();
        let batch = concat_batches(&batches[0].schema(), &batches).unwrap();
        let mut values: Vec<&[u8]> = batch.column_by_name("value").unwrap().as_binary::<i32>().iter().flatten().collect();
        values.sort_unstable();
        let mut wanted: Vec<String> = (4..end).map(|offset| format!("message {offset}")).collect();
        wanted.sort_unstable();
        assert_eq!(values, wanted.iter().map(String::as_bytes).collect::<Vec<_>>());
        assert_eq!(batch.column_by_name("Year").unwrap().null_count(), 0);
    }
    assert_eq!(table.scanned_name("Offset").unwrap().as_deref(), Some("OFFSET"));
    assert!(table.scanned_name("nothing").is_err());
}

async fn large_batches_become_several_files_within_their_bounds(lake: &Lake) {
    let mut table = lake.table("t", &["Year"]).await;
    let barrier = CloseBarrier::new();
    let settings = WriterSettings {
        target_file_size: ByteSize::kib(64),
        row_group_size: ByteSize::kib(16),
        open_files_max: 1,
        buffer_size_max: ByteSize::kib(256),
        rows_per_encode: 1000,
        ..WriterSettings::default()
    };
    let mut writer = table.writer(&settings, &barrier).unwrap();
    for step in 0..10 {
        writer.write(&rows(0, OffsetRange::new(step * 5_000, step * 5_000 + 5_000))).await.unwrap();
    }
    assert_eq!(writer.rows_written(), 50_000);
    let files = writer.finish().await.unwrap();
    assert_eq!(files.rows(), 50_000);
    assert!(files.len() >= 10, "{}", files.len());
    commit(&mut table, files, OffsetRange::new(0, 50_000), &barrier).await;
    assert_eq!(offsets(&table, None).await, (0..50_000).collect::<Vec<_>>());
    let ranges = BTreeMap::from([(0, OffsetRange::new(12_345, 12_350))]);
    assert_eq!(offsets(&table, Some(&ranges)).await, (12_345..12_350).collect::<Vec<_>>());

    // A writer that is given up leaves nothing.
    let mut given_up = table.writer(&settings, &barrier).unwrap();
    given_up.write(&rows(0, OffsetRange::new(0, 5_000))).await.unwrap();
    let before = data_files(lake, &table).await;
    given_up.abort().await;
    let after = data_files(lake, &table).await;
    assert!(after <= before && after == table.partitions().await.unwrap().values().map(|line| line.files).sum::<u64>());
}

async fn data_files(lake: &Lake, table: &LakeTable) -> u64 {
    let location = format!("{}/data", table.metadata().location());
    let files = lake.storages.list(&location, lakesmith::storage::Depth::Recursive).await.unwrap();
    files.iter().filter(|file| !file.is_dir && file.location.ends_with(".parquet")).count() as u64
}

async fn commit(table: &mut LakeTable, files: lakesmith::table::DataFiles, range: OffsetRange, barrier: &CloseBarrier) {
    let append = Append {
        files,
        delta: delta(0, range),
        origin: origin(),
        commit_id: Uuid::now_v7(),
        input: None,
        summary: BTreeMap::new(),
    };
    let Preparation::Ready(prepared) = table.prepare(append, barrier).await.unwrap() else { panic!("not ready") };
    barrier.wait().await.unwrap();
    committed(prepared.swap(table).await);
}

/// Bounds that were taken from one row group only would make a scan skip the file: rows lost without an error.
async fn a_long_text_in_another_row_group_is_found(lake: &Lake) {
    let mut spec = lake.spec("t", &[]);
    let mut fields = spec.schema.as_struct().fields().to_vec();
    fields.push(Arc::new(NestedField::optional(6, "name", Type::Primitive(PrimitiveType::String))));
    spec.schema = Schema::builder().with_fields(fields).build().unwrap();
    let mut table = LakeTable::open_or_create(&lake.catalog, &spec).await.unwrap();
    let barrier = CloseBarrier::new();
    let settings = WriterSettings { rows_per_encode: 1, row_group_size: ByteSize::b(1), ..WriterSettings::default() };
    let mut writer = table.writer(&settings, &barrier).unwrap();
    let long = "z".repeat(100);
    for (offset, name) in [long.as_str(), "a"].into_iter().enumerate() {
        let batch = rows(0, OffsetRange::new(offset as i64, offset as i64 + 1));
        let mut columns: Vec<(String, ArrayRef)> =
            batch.schema().fields().iter().map(|field| field.name().clone()).zip(batch.columns().iter().cloned()).collect();
        columns.push(("name".to_owned(), Arc::new(StringArray::from(vec![name]))));
        writer.write(&RecordBatch::try_from_iter(columns).unwrap()).await.unwrap();
    }
    let files = writer.finish().await.unwrap();
    assert_eq!(files.len(), 1);
    commit(&mut table, files, OffsetRange::new(0, 2), &barrier).await;
    let filter = Reference::new("name").equal_to(Datum::string(&long));
    let scan = table.to_iceberg().unwrap().scan().with_filter(filter).build().unwrap();
    assert_eq!(collect(scan).await.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
}
