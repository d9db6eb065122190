//! Tests of bronze in plain Hive form over local files and an embedded metastore: writers that race, and what a crash leaves behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use futures::TryStreamExt;
use iceberg::TableIdent;
use uuid::Uuid;

use super::text_table::{TextTable, text_spec};
use crate::catalog::{CatalogSettings, CommitOutcome, Lakehouse, Rejection};
use crate::checkpoint::{Delta, OffsetRange, PartitionId};
use crate::completeness::Completeness;
use crate::error::{Kind, Result};
use crate::hive::Claim;
use crate::metastore::MetastoreSettings;
use crate::record::{coordinates, headers_type, raw_schema};
use crate::storage::{CloseBarrier, Create, StorageSettings};
use crate::table::logged::{LoggedFiles, LoggedForm, LoggedPrepared, LoggedSpec, LoggedWriter};
use crate::table::{Append, Origin, Stated, WriterSettings, prepare_logged};

struct Lake {
    lakehouse: Lakehouse,
    spec: LoggedSpec,
    directory: tempfile::TempDir,
}

impl Lake {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let storage = StorageSettings { warehouse: directory.path().display().to_string(), ..StorageSettings::default() };
        let lakehouse = Lakehouse::open(&MetastoreSettings::default(), &storage, &CatalogSettings::default()).await.unwrap();
        let location = format!("{}/bronze", lakehouse.storages().warehouse());
        let spec = text_spec(TableIdent::from_strs(["lake", "bronze"]).unwrap(), &location, "test");
        lakehouse.catalog().ensure_database(spec.ident.namespace()).await.unwrap();
        Self { lakehouse, spec, directory }
    }

    async fn create(&self) -> TextTable {
        TextTable::open_or_create(self.lakehouse.catalog(), &self.spec).await.unwrap()
    }

    async fn open(&self) -> TextTable {
        TextTable::open(self.lakehouse.catalog(), &self.spec.ident).await.unwrap().unwrap()
    }

    /// The visible files, by name.
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path().join("bronze")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != "_lakesmith");
        names.sort();
        names
    }

    /// Hidden files of commits that are not made.
    fn pending(&self) -> usize {
        let entries = std::fs::read_dir(self.directory.path().join("bronze/_lakesmith")).unwrap();
        entries.filter(|entry| !entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("entry-")).count()
    }
}

fn origin() -> Origin {
    Origin { topic: "sales".into(), topic_id: Some("id".into()), cluster_id: None }
}

fn records(partition: PartitionId, offsets: std::ops::Range<i64>) -> RecordBatch {
    let rows = (offsets.end - offsets.start) as usize;
    let values: Vec<_> = offsets.clone().map(|offset| format!("{partition}:{offset}").into_bytes()).collect();
    let none: Vec<Option<&[u8]>> = vec![None; rows];
    RecordBatch::try_new(
        raw_schema(),
        vec![
            Arc::new(StringArray::from(vec!["sales"; rows])),
            Arc::new(Int32Array::from(vec![partition; rows])),
            Arc::new(Int64Array::from_iter_values(offsets)),
            Arc::new(TimestampMicrosecondArray::from(vec![1_719_838_800_000_000; rows])),
            Arc::new(BinaryArray::from(none)),
            Arc::new(BinaryArray::from_iter_values(values)),
            new_null_array(&headers_type(), rows),
            Arc::new(TimestampMicrosecondArray::from(vec![1_719_838_800_000_000; rows])),
        ],
    )
    .unwrap()
}

fn append(files: LoggedFiles, delta: Delta) -> Append<LoggedFiles> {
    Append { files, delta, origin: origin(), commit_id: Uuid::now_v7(), input: None, summary: BTreeMap::new() }
}

/// A batch of all records of some ranges, prepared.
async fn prepare(table: &mut TextTable, ranges: &[(PartitionId, std::ops::Range<i64>)]) -> Result<LoggedPrepared, String> {
    let barrier = CloseBarrier::new();
    let mut writer = LoggedForm::writer(table, &WriterSettings::default(), &barrier).unwrap();
    let mut delta = Delta::default();
    for (partition, offsets) in ranges {
        writer.write(&records(*partition, offsets.clone())).await.unwrap();
        delta.extend(*partition, OffsetRange::new(offsets.start, offsets.end), (offsets.end - offsets.start) as u64).unwrap();
    }
    let batch = append(writer.finish().await.unwrap(), delta);
    let prepared = prepare_logged(table, batch, &barrier).await.unwrap();
    barrier.wait().await.unwrap();
    prepared.map_err(|mismatch| mismatch.to_string())
}

async fn commit(table: &mut TextTable, ranges: &[(PartitionId, std::ops::Range<i64>)]) -> i64 {
    let prepared = prepare(table, ranges).await.unwrap();
    prepared.swap(table).await.into_result(&"bronze").unwrap()
}

/// Coordinates in the order of the scan.
async fn scanned(table: &TextTable) -> Result<Vec<(i32, i64)>> {
    let batches: Vec<RecordBatch> = table.scan(None, None).await?.try_collect().await?;
    let mut found = Vec::new();
    for batch in batches {
        let (partitions, offsets) = coordinates(&batch)?;
        found.extend(partitions.values().iter().copied().zip(offsets.values().iter().copied()));
    }
    Ok(found)
}

#[tokio::test]
async fn commits_are_files_with_their_offsets_and_are_found_again() {
    let lake = Lake::new().await;
    let mut table = lake.create().await;
    assert_eq!(table.checkpoint().unwrap(), None);
    assert_eq!(commit(&mut table, &[(0, 0..10), (1, 5..8)]).await, 1);
    assert_eq!(commit(&mut table, &[(1, 8..20)]).await, 2);
    assert_eq!(lake.files(), ["000000000001_0.0-10_1.5-8.json", "000000000002_1.8-20.json"]);
    assert_eq!(lake.pending(), 0);
    let again = lake.open().await;
    let checkpoint = again.checkpoint().unwrap().unwrap();
    assert_eq!((checkpoint.positions().as_str(), checkpoint.topic.as_str()), ("d;0:0+10;1:5+15", "sales"));
    assert_eq!(again.uuid(), table.uuid());
    assert_eq!(scanned(&again).await.unwrap().len(), 25);
    let some = BTreeMap::from([(1, OffsetRange::new(7, 9))]);
    let batches: Vec<RecordBatch> =
        again.scan(Some(&some), Some(&["offset", "value"])).await.unwrap().try_collect().await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    assert_eq!(batches[0].num_columns(), 2);
    // Offsets without any record are in a name too.
    let barrier = CloseBarrier::new();
    let delta: Delta = "d;0:10+3-3".parse().unwrap();
    let prepared = prepare_logged(&mut table, append(LoggedFiles::default(), delta), &barrier).await.unwrap().unwrap();
    barrier.wait().await.unwrap();
    prepared.swap(&mut table).await.into_result(&"bronze").unwrap();
    assert_eq!(lake.files()[2], "000000000003_0.10-13.3.json");
    assert_eq!(scanned(&table).await.unwrap().len(), 25);
}

#[tokio::test]
async fn of_two_writers_with_the_same_offsets_one_is_refused_and_leaves_nothing() {
    let lake = Lake::new().await;
    let (mut one, mut other) = (lake.create().await, lake.open().await);
    // Neither knows of the other; their batches end at different offsets.
    let first = prepare(&mut one, &[(0, 0..10)]).await.unwrap();
    let second = prepare(&mut other, &[(0, 0..7)]).await.unwrap();
    let (first, second) = tokio::join!(first.swap(&mut one), second.swap(&mut other));
    let refused = |outcome: &CommitOutcome<i64>| matches!(outcome, CommitOutcome::Rejected(Rejection::Offsets(_)));
    assert_eq!([&first, &second].into_iter().filter(|outcome| refused(outcome)).count(), 1, "{first:?} {second:?}");
    assert_eq!((lake.files().len(), lake.pending()), (1, 0));
    let next = lake.open().await.checkpoint().unwrap().unwrap().next_offset(0).unwrap();
    assert_eq!(scanned(&lake.open().await).await.unwrap().len() as i64, next);
    // A batch that begins elsewhere isn't even tried for.
    assert!(prepare(&mut other, &[(0, 3..5)]).await.is_err());
}

#[tokio::test]
async fn writers_of_different_partitions_come_one_behind_the_other() {
    let lake = Lake::new().await;
    let (mut one, mut other) = (lake.create().await, lake.open().await);
    for round in 0..5 {
        let (from, to) = (round * 10, round * 10 + 10);
        let first = prepare(&mut one, &[(0, from..to)]).await.unwrap();
        let second = prepare(&mut other, &[(1, from..to)]).await.unwrap();
        let (first, second) = tokio::join!(first.swap(&mut one), second.swap(&mut other));
        first.into_result(&"one").unwrap();
        second.into_result(&"other").unwrap();
    }
    let table = lake.open().await;
    assert_eq!(table.checkpoint().unwrap().unwrap().positions(), "d;0:0+50;1:0+50");
    assert_eq!((scanned(&table).await.unwrap().len(), lake.files().len()), (100, 10));
}

#[tokio::test]
async fn a_commit_whose_file_has_no_name_yet_is_read_and_completed_by_the_next_writer() {
    let lake = Lake::new().await;
    let mut table = lake.create().await;
    commit(&mut table, &[(0, 0..10)]).await;
    // As a process leaves it that was killed behind its entry.
    let prepared = prepare(&mut table, &[(0, 10..15)]).await.unwrap();
    let entry = prepared.entry(&table).unwrap();
    assert_eq!(table.log().claim(&entry).await.unwrap(), Claim::Won);

    assert_eq!(lake.files().len(), 1);
    let mut next = lake.open().await;
    assert_eq!(next.checkpoint().unwrap().unwrap().next_offset(0), Some(15));
    assert_eq!(scanned(&next).await.unwrap(), (0..15).map(|offset| (0, offset)).collect::<Vec<_>>());
    commit(&mut next, &[(0, 15..20)]).await;
    assert_eq!(lake.files()[1..], ["000000000002_0.10-15.json", "000000000003_0.15-20.json"]);
    assert_eq!(scanned(&next).await.unwrap().len(), 20);
}

#[tokio::test]
async fn a_file_that_is_gone_or_there_twice_is_never_a_different_answer() {
    let lake = Lake::new().await;
    let mut table = lake.create().await;
    for start in [0, 10, 20] {
        commit(&mut table, &[(0, start..start + 10)]).await;
    }
    let at = |name: &str| lake.directory.path().join("bronze").join(name);
    std::fs::copy(at("000000000002_0.10-20.json"), at("000000000009_0.10-20.json")).unwrap();
    let error = scanned(&table).await.unwrap_err();
    assert!(error.kind() == Kind::Stop && error.chain().contains("in two of its files"), "{}", error.chain());
    std::fs::remove_file(at("000000000009_0.10-20.json")).unwrap();
    std::fs::rename(at("000000000002_0.10-20.json"), at("mine.json")).unwrap();
    let error = scanned(&table).await.unwrap_err();
    assert!(error.chain().contains("offsets 10..20 of partition 0 are in none"), "{}", error.chain());
}

#[tokio::test]
async fn files_of_somebody_else_and_tables_of_another_form_stop_the_start() {
    let lake = Lake::new().await;
    let storages = lake.lakehouse.storages();
    let file = format!("{}/part-0.json", lake.spec.location);
    storages.write_file(&file, "{}\n".into(), Create::New).await.unwrap();
    let error = TextTable::open_or_create(lake.lakehouse.catalog(), &lake.spec).await.unwrap_err();
    assert!(error.kind() == Kind::Stop && error.chain().contains("part-0.json"), "{}", error.chain());
    assert!(error.hint_text().unwrap().contains("bronze.location"));
    storages.delete_file(&file).await.unwrap();
    lake.create().await;
    let ident = TableIdent::from_strs(["lake", "other"]).unwrap();
    let catalog = lake.lakehouse.catalog();
    let spec = crate::table::TableSpec {
        ident: ident.clone(),
        location: None,
        schema: super::schema(),
        partition_by: Vec::new(),
        sort_by: Vec::new(),
        properties: BTreeMap::new(),
        comment: None,
    };
    crate::table::LakeTable::open_or_create(catalog, &spec).await.unwrap();
    assert!(TextTable::open(catalog, &ident).await.unwrap_err().hint_text().unwrap().contains("bronze.format"));
    let error = crate::table::LakeTable::open(catalog, &lake.spec.ident).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Stop);
}

#[tokio::test]
async fn a_time_is_stated_without_a_file_and_only_for_the_offsets_it_was_worked_out_for() {
    let lake = Lake::new().await;
    let (mut one, mut other) = (lake.create().await, lake.open().await);
    commit(&mut one, &[(0, 0..10)]).await;
    let times = |until_ms| Completeness { partitions: BTreeMap::from([(0, until_ms)]), until_ms: Some(until_ms) };
    assert_eq!(one.state(&times(5_000)).await.unwrap(), Stated::Yes);
    assert_eq!(other.state(&times(9_000)).await.unwrap(), Stated::Moved);
    assert_eq!(other.completeness(), times(5_000));
    assert_eq!(lake.files().len(), 1);
    assert_eq!(one.complete_at(&BTreeMap::from([(0, 10)])).unwrap(), Some(5_000));
    assert_eq!(one.complete_at(&BTreeMap::from([(0, 9)])).unwrap(), None);
    commit(&mut one, &[(0, 10..11)]).await;
    assert_eq!(lake.open().await.completeness(), times(5_000));
}

#[tokio::test]
async fn more_topic_partitions_than_a_name_holds_are_several_files_of_one_commit() {
    let lake = Lake::new().await;
    let mut table = lake.create().await;
    let ranges: Vec<_> = (0..20).map(|partition| (partition, 0..5)).collect();
    assert_eq!(commit(&mut table, &ranges).await, 1);
    assert_eq!(lake.files().len(), 4);
    assert_eq!(scanned(&lake.open().await).await.unwrap().len(), 100);
    assert_eq!(commit(&mut table, &[(3, 5..9)]).await, 2);
}
