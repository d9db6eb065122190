//! Tests of logged Parquet tables over local files and an embedded metastore: writers that race, what a crash leaves behind, and how rows
//! are found again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use futures::TryStreamExt;
use iceberg::TableIdent;
use uuid::Uuid;

use super::{LoggedFiles, LoggedForm, LoggedPrepared, LoggedSpec, LoggedWriter, ParquetTable, PartitionedSpec, as_read_back};
use crate::catalog::{CatalogSettings, CommitOutcome, Lakehouse, Rejection};
use crate::checkpoint::{Delta, OffsetRange, PartitionId};
use crate::error::{Kind, Result};
use crate::hive::{Claim, DEFAULT_PARTITION};
use crate::metastore::MetastoreSettings;
use crate::record::{INSTANT, coordinates};
use crate::storage::{CloseBarrier, StorageSettings};
use crate::table::records::prepare_logged;
use crate::table::{Append, InputRef, Origin, WriterSettings};

const JULY: i64 = 1_719_838_800_000_000;

struct Lake {
    lakehouse: Lakehouse,
    spec: LoggedSpec,
    directory: tempfile::TempDir,
}

fn schema() -> SchemaRef {
    let optional = |name: &str, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        optional("kafka_timestamp", INSTANT),
        optional("Year", DataType::Int32),
        optional("Country", DataType::Utf8),
        optional("Amount", DataType::Decimal128(12, 2)),
    ]))
}

impl Lake {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let storage = StorageSettings { warehouse: directory.path().display().to_string(), ..StorageSettings::default() };
        let lakehouse = Lakehouse::open(&MetastoreSettings::default(), &storage, &CatalogSettings::default()).await.unwrap();
        let location = format!("{}/silver", lakehouse.storages().warehouse());
        let ident = TableIdent::from_strs(["lake", "silver"]).unwrap();
        let partition_by = vec!["Year".to_owned(), "Country".to_owned()];
        let spec = PartitionedSpec { ident, location, schema: &schema(), partition_by, comment: "test".into() }.logged().unwrap();
        lakehouse.catalog().ensure_database(spec.ident.namespace()).await.unwrap();
        Self { lakehouse, spec, directory }
    }

    async fn create(&self) -> ParquetTable {
        ParquetTable::open_or_create(self.lakehouse.catalog(), &self.spec).await.unwrap()
    }

    async fn open(&self) -> ParquetTable {
        ParquetTable::open(self.lakehouse.catalog(), &self.spec.ident).await.unwrap().unwrap()
    }

    /// The visible files, below the table's directory.
    fn files(&self) -> BTreeSet<String> {
        let root = self.directory.path().join("silver");
        let mut found = BTreeSet::new();
        let mut directories = vec![root.clone()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true if path.ends_with("_lakesmith") => {}
                    true => directories.push(path),
                    false => _ = found.insert(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned()),
                }
            }
        }
        found
    }

    /// The partitions in the metastore, with their directories.
    async fn partitions(&self) -> Vec<(String, String)> {
        let partitions = self.lakehouse.metastore().partitions("lake", "silver").await.unwrap();
        let root = &self.spec.location;
        let directory = |location: Option<&str>| location.unwrap().strip_prefix(root.as_str()).unwrap().to_owned();
        partitions.iter().map(|partition| (partition.values().join("/"), directory(partition.location()))).collect()
    }

    /// Hidden files of commits that are not made.
    fn pending(&self) -> usize {
        let entries = std::fs::read_dir(self.directory.path().join("silver/_lakesmith")).unwrap();
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().to_string_lossy().into_owned();
        entries.map(name).filter(|name| !name.starts_with("entry-") && name != "files").count()
    }
}

/// A row of each offset; years and countries go round.
fn rows(partition: PartitionId, offsets: std::ops::Range<i64>) -> RecordBatch {
    let offsets: Vec<i64> = offsets.collect();
    let country = |offset: &i64| match offset % 3 {
        0 => Some("DE"),
        1 => Some("a/b"),
        _ => None,
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![partition; offsets.len()])),
        Arc::new(Int64Array::from(offsets.clone())),
        Arc::new(offsets.iter().map(|offset| (*offset != 13).then_some(JULY + offset)).collect::<TimestampMicrosecondArray>()),
        Arc::new(offsets.iter().map(|offset| Some(2024 + (offset % 2) as i32)).collect::<Int32Array>()),
        Arc::new(offsets.iter().map(country).collect::<StringArray>()),
        Arc::new(
            offsets
                .iter()
                .map(|offset| Some(i128::from(*offset)))
                .collect::<arrow::array::Decimal128Array>()
                .with_precision_and_scale(12, 2)
                .unwrap(),
        ),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn append(files: LoggedFiles, delta: Delta) -> Append<LoggedFiles> {
    Append {
        files,
        delta,
        origin: Origin { topic: "sales".into(), topic_id: None, cluster_id: None },
        commit_id: Uuid::now_v7(),
        input: Some(InputRef { table_uuid: Uuid::from_u128(7), snapshot_id: None }),
        summary: BTreeMap::from([("lakesmith.rejected-positions".to_owned(), "d;0:0+1".to_owned())]),
    }
}

async fn prepare(table: &mut ParquetTable, ranges: &[(PartitionId, std::ops::Range<i64>)]) -> Result<LoggedPrepared, String> {
    let barrier = CloseBarrier::new();
    let mut writer = LoggedForm::writer(table, &WriterSettings::default(), &barrier).unwrap();
    let mut delta = Delta::default();
    for (partition, offsets) in ranges {
        writer.write(&rows(*partition, offsets.clone())).await.unwrap();
        delta.extend(*partition, OffsetRange::new(offsets.start, offsets.end), (offsets.end - offsets.start) as u64).unwrap();
    }
    let batch = append(writer.finish().await.unwrap(), delta);
    let prepared = prepare_logged(table, batch, &barrier).await.unwrap();
    barrier.wait().await.unwrap();
    prepared.map_err(|mismatch| mismatch.to_string())
}

async fn commit(table: &mut ParquetTable, ranges: &[(PartitionId, std::ops::Range<i64>)]) -> i64 {
    let prepared = prepare(table, ranges).await.unwrap();
    prepared.swap(table).await.into_result(&"silver").unwrap()
}

/// Coordinates, by offset.
async fn scanned(table: &ParquetTable, ranges: Option<(PartitionId, i64, i64)>) -> Result<Vec<(i32, i64)>> {
    let ranges = ranges.map(|(partition, start, end)| BTreeMap::from([(partition, OffsetRange::new(start, end))]));
    let batches: Vec<RecordBatch> = table.scan(ranges.as_ref(), Some(&["partition", "offset"])).await?.try_collect().await?;
    let mut found = Vec::new();
    for batch in batches {
        let (partitions, offsets) = coordinates(&batch)?;
        found.extend(partitions.values().iter().copied().zip(offsets.values().iter().copied()));
    }
    found.sort_unstable();
    Ok(found)
}

fn all(partition: i32, offsets: std::ops::Range<i64>) -> Vec<(i32, i64)> {
    offsets.map(|offset| (partition, offset)).collect()
}

#[tokio::test]
async fn a_commit_is_a_file_for_each_partition_and_is_read_back_as_it_was() {
    let lake = Lake::new().await;
    let mut table = lake.create().await;
    assert_eq!(commit(&mut table, &[(0, 0..12)]).await, 1);
    let files = lake.files();
    assert_eq!(files.len(), 6, "{files:?}");
    assert!(files.contains("Year=2024/Country=DE/000000000001_0.0-7.5.parquet"), "{files:?}");
    assert!(files.contains("Year=2025/Country=a%2Fb/000000000001_0.1-8.5.parquet"), "{files:?}");
    assert_eq!(lake.pending(), 0);
    let partitions = lake.partitions().await;
    assert_eq!(partitions.len(), 6);
    assert!(partitions.contains(&("2024/a/b".into(), "/Year=2024/Country=a%2Fb".into())), "{partitions:?}");
    let none = (format!("2025/{DEFAULT_PARTITION}"), format!("/Year=2025/Country={DEFAULT_PARTITION}"));
    assert!(partitions.contains(&none), "{partitions:?}");

    let again = lake.open().await;
    assert_eq!(again.checkpoint().unwrap().unwrap().positions(), "d;0:0+12");
    assert_eq!(again.input().unwrap().unwrap().table_uuid, Uuid::from_u128(7));
    assert_eq!(again.note("lakesmith.rejected-positions"), Some("d;0:0+1"));
    // All columns under the names that are asked for, those of the partition too.
    let names: Vec<String> = schema().fields().iter().map(|field| field.name().clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let batches: Vec<RecordBatch> = again.scan(None, Some(&names)).await.unwrap().try_collect().await.unwrap();
    let found = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    let order = arrow::compute::sort_to_indices(found.column(1), None, None).unwrap();
    let found = arrow::compute::take_record_batch(&found, &order).unwrap();
    assert_eq!(found.columns(), rows(0, 0..12).columns());
    again.ensure_as_committed().await.unwrap();
    // What else is written into a known partition adds none.
    commit(&mut table, &[(0, 12..13)]).await;
    assert_eq!(lake.partitions().await.len(), 6);
    assert_eq!(scanned(&lake.open().await, Some((0, 11, 13))).await.unwrap(), all(0, 11..13));
}

#[tokio::test]
async fn offsets_without_a_row_need_no_file() {
    let lake = Lake::new().await;
    let mut table = lake.create().await;
    commit(&mut table, &[(0, 0..3)]).await;
    let barrier = CloseBarrier::new();
    let batch = append(LoggedFiles::default(), "d;0:3+5-5".parse().unwrap());
    let prepared = prepare_logged(&mut table, batch, &barrier).await.unwrap().unwrap();
    barrier.wait().await.unwrap();
    prepared.swap(&mut table).await.into_result(&"silver").unwrap();
    commit(&mut table, &[(0, 8..10)]).await;
    let again = lake.open().await;
    assert_eq!(scanned(&again, None).await.unwrap(), [all(0, 0..3), all(0, 8..10)].concat());
    assert_eq!(again.newest().total.rows, 5);
}

#[tokio::test]
async fn of_two_writers_with_the_same_offsets_one_is_refused_and_leaves_nothing() {
    let lake = Lake::new().await;
    let (mut one, mut other) = (lake.create().await, lake.open().await);
    let first = prepare(&mut one, &[(0, 0..10)]).await.unwrap();
    let second = prepare(&mut other, &[(0, 0..7)]).await.unwrap();
    let (first, second) = tokio::join!(first.swap(&mut one), second.swap(&mut other));
    let refused = |outcome: &CommitOutcome<i64>| matches!(outcome, CommitOutcome::Rejected(Rejection::Offsets(_)));
    assert_eq!([&first, &second].into_iter().filter(|outcome| refused(outcome)).count(), 1, "{first:?} {second:?}");
    assert_eq!(lake.pending(), 0);
    let table = lake.open().await;
    let next = table.checkpoint().unwrap().unwrap().next_offset(0).unwrap();
    assert_eq!(scanned(&table, None).await.unwrap(), all(0, 0..next));
    table.ensure_as_committed().await.unwrap();
    assert!(prepare(&mut other, &[(0, 3..5)]).await.is_err());
}

#[tokio::test]
async fn writers_of_different_topic_partitions_come_one_behind_the_other() {
    let lake = Lake::new().await;
    let (mut one, mut other) = (lake.create().await, lake.open().await);
    for round in 0..4 {
        let (from, to) = (round * 10, round * 10 + 10);
        let first = prepare(&mut one, &[(0, from..to)]).await.unwrap();
        let second = prepare(&mut other, &[(1, from..to)]).await.unwrap();
        let (first, second) = tokio::join!(first.swap(&mut one), second.swap(&mut other));
        first.into_result(&"one").unwrap();
        second.into_result(&"other").unwrap();
    }
    let table = lake.open().await;
    assert_eq!(scanned(&table, None).await.unwrap(), [all(0, 0..40), all(1, 0..40)].concat());
    assert_eq!(scanned(&table, Some((1, 5, 25))).await.unwrap(), all(1, 5..25));
    table.ensure_as_committed().await.unwrap();
}

#[tokio::test]
async fn a_commit_whose_files_have_no_names_yet_is_read_and_completed_by_the_next_writer() {
    let lake = Lake::new().await;
    let mut table = lake.create().await;
    commit(&mut table, &[(0, 0..1)]).await;
    // As a process leaves it that was killed behind its entry.
    let prepared = prepare(&mut table, &[(0, 1..13)]).await.unwrap();
    let entry = prepared.entry(&table).unwrap();
    assert_eq!(table.log().claim(&entry).await.unwrap(), Claim::Won);
    assert_eq!((lake.files().len(), lake.partitions().await.len()), (1, 1));
    let mut next = lake.open().await;
    assert_eq!(scanned(&next, None).await.unwrap(), all(0, 0..13));
    // As it is when the files have names, and the metastore was not told.
    next.log().publish(next.newest()).await.unwrap();
    assert_eq!((lake.files().len(), lake.partitions().await.len()), (7, 1));
    commit(&mut next, &[(0, 13..14)]).await;
    assert_eq!((lake.files().len(), lake.partitions().await.len()), (8, 6));
    assert_eq!(scanned(&lake.open().await, None).await.unwrap(), all(0, 0..14));
}

#[tokio::test]
async fn rows_are_found_when_the_entries_of_their_commits_are_deleted() {
    let lake = Lake::new().await;
    let mut table = lake.create().await;
    for start in 0..150 {
        commit(&mut table, &[(0, start..start + 1), (1, start * 2..start * 2 + 2)]).await;
    }
    let table = lake.open().await;
    assert!(table.log().entry(5).await.unwrap().is_none(), "nothing was deleted");
    assert_eq!(scanned(&table, None).await.unwrap(), [all(0, 0..150), all(1, 0..300)].concat());
    for (start, end) in [(0, 1), (3, 40), (80, 90), (148, 150)] {
        assert_eq!(scanned(&table, Some((0, start, end))).await.unwrap(), all(0, start..end), "{start}..{end}");
    }
    table.ensure_as_committed().await.unwrap();
    // Without the list nobody knows what the table has.
    std::fs::remove_dir_all(lake.directory.path().join("silver/_lakesmith/files")).unwrap();
    let error = scanned(&table, None).await.unwrap_err();
    assert!(error.kind() == Kind::Stop && error.chain().contains("nothing says which files"), "{}", error.chain());
    assert_eq!(scanned(&table, Some((0, 148, 150))).await.unwrap(), all(0, 148..150));
}

#[tokio::test]
async fn a_file_that_is_gone_or_somebody_else_s_is_told() {
    let lake = Lake::new().await;
    let mut table = lake.create().await;
    commit(&mut table, &[(0, 0..6)]).await;
    commit(&mut table, &[(0, 6..12)]).await;
    let at = |name: &str| lake.directory.path().join("silver/Year=2024/Country=DE").join(name);
    std::fs::copy(at("000000000001_0.0-1.parquet"), at("part-0.parquet")).unwrap();
    let error = table.ensure_as_committed().await.unwrap_err();
    assert!(error.chain().contains("part-0.parquet"), "{}", error.chain());
    std::fs::remove_file(at("part-0.parquet")).unwrap();
    table.ensure_as_committed().await.unwrap();
    std::fs::remove_file(at("000000000001_0.0-1.parquet")).unwrap();
    assert!(table.ensure_as_committed().await.unwrap_err().chain().contains("is gone"));
    let error = scanned(&table, None).await.unwrap_err();
    assert!(error.kind() == Kind::Stop && error.chain().contains("is gone"), "{}", error.chain());
    assert_eq!(scanned(&table, Some((0, 6, 12))).await.unwrap(), all(0, 6..12));
}

#[tokio::test]
async fn files_are_skipped_by_the_span_of_their_times() {
    let lake = Lake::new().await;
    let mut table = lake.create().await;
    commit(&mut table, &[(0, 0..24)]).await;
    let spans: Vec<_> = table.newest().files.iter().map(|file| (file.name.clone(), file.spans.clone())).collect();
    for (name, spans) in spans {
        // Offset 13 has no time, and is of 2025 and a/b.
        let expected = !name.starts_with("Year=2025/Country=a%2Fb/");
        assert_eq!(spans.contains_key("kafka_timestamp"), expected, "{name} {spans:?}");
    }
    let late = |file: &crate::hive::LogFile| file.spans.get("kafka_timestamp").is_some_and(|span| span.greatest < JULY + 20);
    let batches: Vec<RecordBatch> = table.scan_but(None, Some(&["offset"]), late).await.unwrap().try_collect().await.unwrap();
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    assert!((4..24).contains(&rows), "{rows} rows");
}

#[tokio::test]
async fn columns_that_the_table_does_not_have_are_refused_before_a_file_is_written() {
    let lake = Lake::new().await;
    let table = lake.create().await;
    let barrier = CloseBarrier::new();
    let mut writer = LoggedForm::writer(&table, &WriterSettings::default(), &barrier).unwrap();
    let mut columns = rows(0, 0..1).columns().to_vec();
    let mut fields: Vec<_> = schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    columns.push(Arc::new(Int32Array::from(vec![1])));
    fields.push(Field::new("Quantity", DataType::Int32, true));
    let more = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    let error = writer.write(&more).await.unwrap_err();
    assert!(error.kind() == Kind::Stop && error.chain().contains("Quantity"), "{}", error.chain());
    assert!(error.hint_text().unwrap().contains("ADD COLUMNS"));
}

#[tokio::test]
async fn a_column_that_came_later_is_null_in_earlier_files() {
    let lake = Lake::new().await;
    let mut table = lake.create().await;
    commit(&mut table, &[(0, 0..1)]).await;
    let metastore = lake.lakehouse.metastore();
    let mut entry = metastore.table("lake", "silver").await.unwrap().unwrap();
    let mut columns = entry.columns();
    columns.push(crate::metastore::FieldSchema::new("quantity", "int"));
    entry.set_columns(&columns);
    metastore.alter_table("lake", "silver", &entry, &crate::metastore::EnvironmentContext::new()).await.unwrap();
    let table = lake.open().await;
    let batches: Vec<RecordBatch> = table.scan(None, Some(&["Quantity", "year"])).await.unwrap().try_collect().await.unwrap();
    assert!(batches[0].column(0).is_null(0));
    assert_eq!(batches[0].column(1).as_primitive::<Int32Type>().value(0), 2024);
}

#[tokio::test]
async fn more_topic_partitions_than_a_name_holds_are_several_files() {
    let lake = Lake::new().await;
    let mut table = lake.create().await;
    let ranges: Vec<_> = (0..14).map(|partition| (partition, 0..1)).collect();
    commit(&mut table, &ranges).await;
    assert_eq!(lake.files().len(), 3);
    assert_eq!(scanned(&lake.open().await, None).await.unwrap().len(), 14);
}

#[test]
fn an_empty_text_is_read_back_as_null_from_a_directory_s_name() {
    let texts = || -> ArrayRef { Arc::new(StringArray::from(vec![Some(""), Some("DE"), None])) };
    let batch = RecordBatch::try_from_iter_with_nullable([("Country", texts(), true), ("City", texts(), true)]).unwrap();
    let found = as_read_back(&batch, &["country".to_owned(), "Year".to_owned()]).unwrap();
    let expected = StringArray::from(vec![None, Some("DE"), None]);
    assert_eq!((found.column(0).as_string::<i32>(), found.column(1)), (&expected, &texts()));
    assert_eq!(as_read_back(&batch, &["Year".to_owned()]).unwrap(), batch);
}

#[test]
fn a_column_of_money_or_time_names_no_directory() {
    let ident = TableIdent::from_strs(["lake", "silver"]).unwrap();
    for column in ["Amount", "kafka_timestamp"] {
        let partition_by = vec![column.to_owned()];
        let schema = schema();
        let spec = PartitionedSpec {
            ident: ident.clone(),
            location: "file:///t".into(),
            schema: &schema,
            partition_by,
            comment: String::new(),
        };
        let error = spec.logged().unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.hint_text().unwrap().contains("silver.derive"), "{error}");
    }
}
