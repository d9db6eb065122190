//! Rows of offset ranges that are replaced by others, beside batches and other engines' changes.

use std::collections::BTreeMap;

use arrow::array::{RecordBatch, new_null_array};
use arrow::datatypes::Schema;
use iceberg::TableIdent;
use iceberg::spec::Operation;
use lakesmith::checkpoint::{Delta, OffsetRange};
use lakesmith::storage::CloseBarrier;
use lakesmith::table::{Append, LakeTable, OffsetRanges, Preparation, Replaced, Replacement, WriterSettings};
use uuid::Uuid;

use super::lake::{Lake, append, committed, offsets, origin, rows};

super::on_every_lake!(
    files_leave_stay_or_are_written_anew,
    a_batch_beside_a_replacement_is_kept,
    a_replacement_gets_in_between_many_batches,
    a_replacement_is_made_once,
    a_replacement_that_was_taken_back_changes_nothing,
    a_twin_takes_nothing_with_it,
    files_that_another_process_wrote_are_the_same_files,
);

fn range(start: i64, end: i64) -> OffsetRange {
    OffsetRange::new(start, end)
}

/// Commits the rows of several ranges as one batch, and so in the same files.
async fn append_all(table: &mut LakeTable, ranges: &[(i32, OffsetRange)]) {
    let barrier = CloseBarrier::new();
    let mut writer = table.writer(&WriterSettings::default(), &barrier).unwrap();
    let mut delta = Delta::default();
    for (partition, range) in ranges {
        writer.write(&rows(*partition, *range)).await.unwrap();
        delta.extend(*partition, *range, range.len() as u64).unwrap();
    }
    let files = writer.finish().await.unwrap();
    let commit_id = Uuid::now_v7();
    let append = Append { files, delta, origin: origin(), commit_id, input: None, summary: BTreeMap::new() };
    let Preparation::Ready(prepared) = table.prepare(append, &barrier).await.unwrap() else { panic!("not ready") };
    barrier.wait().await.unwrap();
    committed(prepared.swap(table).await);
}

/// A twin with rows of these ranges.
async fn twin(lake: &Lake, table: &LakeTable, ranges: &[(i32, OffsetRange)]) -> LakeTable {
    let ident = TableIdent::from_strs([&lake.database, "twin"]).unwrap();
    let mut twin = table.create_twin(&ident, &format!("{}/twin", lake.warehouse), "a twin", &BTreeMap::new()).await.unwrap();
    append_all(&mut twin, ranges).await;
    twin
}

async fn replacement(twin: &mut LakeTable, ranges: OffsetRanges) -> Replacement {
    let files = twin.data_files().await.unwrap();
    let rows = twin.checkpoint().unwrap().unwrap().partitions.into_iter().map(|(id, coverage)| (id, coverage.records)).collect();
    let summary = BTreeMap::from([("why".to_owned(), "a test".to_owned())]);
    Replacement { commit_id: Uuid::now_v7(), ranges, files, rows, summary, while_noted: None }
}

/// How often each offset of a partition is in the table.
async fn found(table: &LakeTable, partition: i32) -> Vec<i64> {
    offsets(table, Some(&BTreeMap::from([(partition, range(0, 1 << 40))]))).await
}

async fn files_leave_stay_or_are_written_anew(lake: &Lake) {
    let mut table = lake.table("t", &["Year"]).await;
    append(&mut table, 0, range(0, 10)).await;
    append_all(&mut table, &[(0, range(10, 20)), (1, range(0, 10))]).await;
    append(&mut table, 0, range(20, 30)).await;
    append(&mut table, 1, range(10, 20)).await;
    // Fewer rows than before: of what goes some had been taken, and now are not.
    let mut twin = twin(lake, &table, &[(0, range(4, 12)), (1, range(2, 3))]).await;
    let before = table.snapshot_id();
    let ranges = BTreeMap::from([(0, range(0, 15)), (1, range(0, 10)), (7, range(0, 5))]);
    let replacement = replacement(&mut twin, ranges).await;
    let replaced = table.replace(&replacement, &WriterSettings::default()).await.unwrap();
    // Of the first batch both files went, of the second both were written anew.
    assert_eq!(replaced, Some(Replaced { files_removed: 4, files_rewritten: 2, rows_removed: 25, rows_added: 9 }));

    assert_eq!(found(&table, 0).await, (4..12).chain(15..30).collect::<Vec<_>>());
    assert_eq!(found(&table, 1).await, [2].into_iter().chain(10..20).collect::<Vec<_>>());
    assert_eq!(table.checkpoint().unwrap().unwrap().positions(), "d;0:0+30-7;1:0+20-9");
    let snapshot = table.metadata().current_snapshot().unwrap();
    let summary = &snapshot.summary().additional_properties;
    assert_eq!(snapshot.summary().operation, Operation::Overwrite);
    assert_eq!((summary["total-records"].as_str(), summary["deleted-records"].as_str()), ("34", "30"));
    assert_eq!(summary["total-data-files"], table.files().await.unwrap().len().to_string());
    assert_eq!(summary["why"], "a test");
    // The version before still has what it had.
    let scan = table.to_iceberg().unwrap().scan().snapshot_id(before.unwrap()).build().unwrap();
    assert_eq!(super::lake::collect(scan).await.iter().map(|batch| batch.num_rows()).sum::<usize>(), 50);
    // The table goes on, and a stranger to it reads the same.
    append(&mut table, 0, range(30, 35)).await;
    let reopened = lake.open(&lake.catalog, "t").await;
    assert_eq!(found(&reopened, 0).await, (4..12).chain(15..35).collect::<Vec<_>>());
}

async fn a_batch_beside_a_replacement_is_kept(lake: &Lake) {
    let mut table = lake.table("t", &[]).await;
    append_all(&mut table, &[(0, range(0, 10)), (1, range(0, 10))]).await;
    let mut twin = twin(lake, &table, &[(0, range(0, 5))]).await;
    let replacement = replacement(&mut twin, BTreeMap::from([(0, range(0, 5))])).await;
    // Both handles have read the table before the other writes.
    let mut daemon = lake.open(&lake.catalog, "t").await;
    let batch = super::lake::ready(&mut daemon, 0, range(10, 20)).await;
    let (replaced, _) = tokio::join!(async { table.replace(&replacement, &WriterSettings::default()).await.unwrap() }, async {
        committed(batch.swap(&mut daemon).await)
    },);
    assert!(replaced.is_some());
    append(&mut daemon, 1, range(10, 12)).await;
    table.refresh().await.unwrap();
    assert_eq!(found(&table, 0).await, (0..20).collect::<Vec<_>>());
    assert_eq!(found(&table, 1).await, (0..12).collect::<Vec<_>>());
    assert_eq!(table.checkpoint().unwrap().unwrap().positions(), "d;0:0+20;1:0+12");
}

/// What it wrote for one version of the table serves for the next: only the list and the metadata are written again.
async fn a_replacement_gets_in_between_many_batches(lake: &Lake) {
    let mut table = lake.table("t", &[]).await;
    for commit in 0..10 {
        append_all(&mut table, &[(0, range(commit * 10, commit * 10 + 10)), (1, range(commit * 10, commit * 10 + 10))]).await;
    }
    let mut twin = twin(lake, &table, &[(0, range(5, 40))]).await;
    let replacement = replacement(&mut twin, BTreeMap::from([(0, range(5, 95))])).await;
    let mut daemon = lake.open(&lake.catalog, "t").await;
    let (replaced, ()) = tokio::join!(async { table.replace(&replacement, &WriterSettings::default()).await.unwrap() }, async {
        for commit in 10..20 {
            append(&mut daemon, 0, range(commit * 10, commit * 10 + 10)).await;
        }
    });
    assert_eq!(replaced, Some(Replaced { files_removed: 10, files_rewritten: 10, rows_removed: 90, rows_added: 35 }));
    let reopened = lake.open(&lake.catalog, "t").await;
    assert_eq!(found(&reopened, 0).await, (0..40).chain(95..200).collect::<Vec<_>>());
    assert_eq!(found(&reopened, 1).await, (0..100).collect::<Vec<_>>());
    assert_eq!(reopened.checkpoint().unwrap().unwrap().positions(), "d;0:0+200-55;1:0+100");
}

async fn a_replacement_is_made_once(lake: &Lake) {
    let mut table = lake.table("t", &[]).await;
    append(&mut table, 0, range(0, 10)).await;
    let mut twin = twin(lake, &table, &[(0, range(0, 3))]).await;
    let mut replacement = replacement(&mut twin, BTreeMap::from([(0, range(0, 10))])).await;
    assert!(table.replace(&replacement, &WriterSettings::default()).await.unwrap().is_some());
    let mut again = lake.open(&lake.catalog, "t").await;
    assert_eq!(again.replace(&replacement, &WriterSettings::default()).await.unwrap(), None);
    assert_eq!(found(&again, 0).await, [0, 1, 2]);
    // All may go, and nothing come.
    (replacement.commit_id, replacement.files, replacement.rows) = (Uuid::now_v7(), Vec::new(), BTreeMap::new());
    let emptied = again.replace(&replacement, &WriterSettings::default()).await.unwrap().unwrap();
    assert_eq!((emptied.rows_removed, emptied.rows_added), (3, 0));
    assert!(found(&again, 0).await.is_empty());
    assert_eq!(again.checkpoint().unwrap().unwrap().positions(), "d;0:0+10-10");
    append(&mut again, 0, range(10, 12)).await;
    assert_eq!(found(&again, 0).await, [10, 11]);
}

/// Its note is gone: whoever took it may have deleted its files by now.
async fn a_replacement_that_was_taken_back_changes_nothing(lake: &Lake) {
    const NOTE: &str = "lakesmith.note";
    let mut table = lake.table("t", &[]).await;
    append(&mut table, 0, range(0, 10)).await;
    let mut twin = twin(lake, &table, &[(0, range(0, 3))]).await;
    let mut replacement = replacement(&mut twin, BTreeMap::from([(0, range(0, 10))])).await;
    replacement.while_noted = Some((NOTE.to_owned(), "mine".to_owned()));
    for note in [None, Some("another's")] {
        assert!(table.exchange_note(NOTE, None, note).await.unwrap());
        let mut late = lake.open(&lake.catalog, "t").await;
        let error = late.replace(&replacement, &WriterSettings::default()).await.unwrap_err();
        assert!(error.to_string().contains("was taken back meanwhile"), "{error}");
        assert_eq!(found(&late, 0).await, (0..10).collect::<Vec<_>>());
    }
    // A note is exchanged for what was expected, and for nothing else.
    assert!(!table.exchange_note(NOTE, None, Some("mine")).await.unwrap());
    assert!(table.exchange_note(NOTE, Some("another's"), Some("mine")).await.unwrap());
    assert!(table.replace(&replacement, &WriterSettings::default()).await.unwrap().is_some());
    assert_eq!(found(&table, 0).await, [0, 1, 2]);
}

async fn a_twin_takes_nothing_with_it(lake: &Lake) {
    let mut table = lake.table("t", &["Year"]).await;
    append(&mut table, 0, range(0, 10)).await;
    let mut twin = twin(lake, &table, &[(0, range(0, 10))]).await;
    assert_eq!(twin.metadata().current_schema(), table.metadata().current_schema());
    assert_eq!(twin.metadata().default_partition_spec(), table.metadata().default_partition_spec());
    assert_ne!(twin.uuid(), table.uuid());
    let replacement = replacement(&mut twin, BTreeMap::from([(0, range(0, 10))])).await;
    table.replace(&replacement, &WriterSettings::default()).await.unwrap();
    twin.drop_twin().await.unwrap();
    assert_eq!(found(&table, 0).await, (0..10).collect::<Vec<_>>());
    assert!(table.files().await.unwrap().iter().all(|file| file.path.starts_with(&table.data_location())));
}

/// Described as text, as a worker of a computing engine hands them on.
async fn files_that_another_process_wrote_are_the_same_files(lake: &Lake) {
    for partition_by in [&["Year"][..], &["partition", "Year", "timestamp", "value"], &[]] {
        let name = format!("by_{}", partition_by.len());
        let mut table = lake.table(&name, partition_by).await;
        let worker = lake.open(&lake.catalog, &name).await;
        let barrier = CloseBarrier::new();
        let mut writer = worker.writer(&WriterSettings::default(), &barrier).unwrap();
        writer.write(&rows(0, range(0, 10))).await.unwrap();
        writer.write(&without_time(&rows(1, range(0, 4)))).await.unwrap();
        let files = writer.finish().await.unwrap();
        barrier.wait().await.unwrap();
        let text = serde_json::to_string(&worker.carry(&files).unwrap()).unwrap();

        let carried = table.carried(&serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(carried, files);
        let delta: Delta = "d;0:0+10;1:0+4".parse().unwrap();
        let commit_id = Uuid::now_v7();
        let append = Append { files: carried, delta, origin: origin(), commit_id, input: None, summary: BTreeMap::new() };
        let Preparation::Ready(prepared) = table.prepare(append, &barrier).await.unwrap() else { panic!("not ready") };
        barrier.wait().await.unwrap();
        committed(prepared.swap(&mut table).await);
        assert_eq!((found(&table, 0).await, found(&table, 1).await), ((0..10).collect(), (0..4).collect()));
        assert!(table.carried(&serde_json::from_str(&text.replace("\"spec_id\":0", "\"spec_id\":9")).unwrap()).is_err());
    }
}

fn without_time(rows: &RecordBatch) -> RecordBatch {
    let mut columns = rows.columns().to_vec();
    columns[2] = new_null_array(columns[2].data_type(), rows.num_rows());
    let schema =
        Schema::new(rows.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>());
    RecordBatch::try_new(schema.into(), columns).unwrap()
}
