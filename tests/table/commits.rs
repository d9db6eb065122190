//! Batches and their offsets: committed once, refused otherwise, beside other writers.

use std::collections::{BTreeMap, HashMap};

use iceberg::spec::MAIN_BRANCH;
use iceberg::{TableRequirement, TableUpdate};
use lakesmith::catalog::{CatalogSettings, CommitOutcome, Rejection};
use lakesmith::checkpoint::{Delta, OffsetRange};
use lakesmith::error::Kind;
use lakesmith::metastore::{CompareAndSwap, EnvironmentContext};
use lakesmith::storage::{CloseBarrier, Depth};
use lakesmith::table::{Append, DataFiles, InputRef, Origin, Preparation, WriterSettings};
use uuid::Uuid;

use super::lake::{Lake, append, assert_no_orphans, committed, delta, offsets, origin, prepare, ready};

super::on_every_lake!(
    batches_are_committed_with_their_offsets,
    a_repeated_batch_is_recognized_or_refused,
    two_writers_lose_nothing,
    others_may_change_the_table_between_load_and_swap,
    a_table_of_another_source_or_input_stops,
    the_entry_is_what_engines_expect,
    a_thousand_topic_partitions_fit,
);

fn range(start: i64, end: i64) -> OffsetRange {
    OffsetRange::new(start, end)
}

async fn batches_are_committed_with_their_offsets(lake: &Lake) {
    let mut table = lake.table("t", &["Year"]).await;
    assert_eq!(table.checkpoint().unwrap(), None);
    append(&mut table, 0, range(0, 100)).await;
    append(&mut table, 1, range(50, 60)).await;
    let last = append(&mut table, 0, range(100, 150)).await;
    assert_eq!(last.checkpoint.positions(), "d;0:0+150;1:50+10");

    let reopened = lake.open(&lake.catalog, "t").await;
    assert_eq!(reopened.checkpoint().unwrap(), Some(last.checkpoint));
    assert_eq!(reopened.snapshot_id(), Some(last.snapshot_id));
    assert_eq!(offsets(&reopened, None).await.len(), 160);
    let ranges = BTreeMap::from([(0, range(90, 110)), (1, range(0, 55))]);
    let expected: Vec<i64> = (50..55).chain(90..110).collect();
    assert_eq!(offsets(&reopened, Some(&ranges)).await, expected);

    let partitions = reopened.partitions().await.unwrap();
    assert_eq!(partitions.keys().collect::<Vec<_>>(), ["Year=2023", "Year=2024"]);
    assert_eq!(partitions.values().map(|partition| (partition.files, partition.records)).collect::<Vec<_>>(), [(3, 80), (3, 80)]);
    let snapshots = reopened.snapshots();
    assert_eq!(snapshots.iter().map(|line| line.total_records).collect::<Vec<_>>(), [Some(160), Some(110), Some(100)]);
    assert_eq!(snapshots[0].batch.as_deref(), Some("d;0:100+50"));
}

async fn a_repeated_batch_is_recognized_or_refused(lake: &Lake) {
    let mut table = lake.table("t", &[]).await;
    let mut zombie = lake.open(&lake.catalog, "t").await;
    let id = Uuid::now_v7();
    let Preparation::Ready(first) = prepare(&mut table, id, 0, range(0, 10)).await else { panic!("not ready") };
    // Prepared before the other one was swapped: only the swap can tell.
    let late = ready(&mut zombie, 0, range(0, 10)).await;
    let appended = committed(first.swap(&mut table).await);
    match late.swap(&mut zombie).await {
        CommitOutcome::Rejected(Rejection::Offsets(mismatch)) => assert_eq!(mismatch.table_next, 10),
        other => panic!("{other:?}"),
    }
    match prepare(&mut zombie, Uuid::now_v7(), 0, range(0, 10)).await {
        Preparation::Mismatch(mismatch) => assert_eq!(mismatch.table_next, 10),
        other => panic!("{other:?}"),
    }
    match prepare(&mut zombie, id, 0, range(0, 10)).await {
        Preparation::AlreadyCommitted(found) => assert_eq!(found.snapshot_id, appended.snapshot_id),
        other => panic!("{other:?}"),
    }
    assert_eq!(offsets(&zombie, None).await.len(), 10);
    // Of the refused batch nothing is left; the two that were never swapped still have their data file.
    let files = lake.storages.list(&format!("{}/data", table.metadata().location()), Depth::Recursive).await.unwrap();
    assert_eq!(files.iter().filter(|file| !file.is_dir).count(), 3);
}

async fn two_writers_lose_nothing(lake: &Lake) {
    const COMMITS: i64 = 8;
    lake.table("t", &[]).await;
    let write = async |partition: i32| {
        let catalog = lake.another_catalog(None, CatalogSettings::default()).await;
        let mut table = lake.open(&catalog, "t").await;
        let mut attempts = 0;
        for commit in 0..COMMITS {
            attempts += append(&mut table, partition, range(commit * 10, commit * 10 + 10)).await.attempts;
        }
        attempts
    };
    let (left, right) = tokio::join!(write(0), write(1));
    let table = lake.open(&lake.catalog, "t").await;
    assert_eq!(table.snapshots().len(), 2 * COMMITS as usize);
    assert_eq!(table.checkpoint().unwrap().unwrap().positions(), "d;0:0+80;1:0+80");
    let found = offsets(&table, None).await;
    let expected: Vec<i64> = (0..COMMITS * 10).flat_map(|offset| [offset, offset]).collect();
    assert_eq!(found, expected);
    assert!(left + right > 2 * COMMITS as u32, "the writers never met");
    assert_no_orphans(lake, &table).await;
}

async fn others_may_change_the_table_between_load_and_swap(lake: &Lake) {
    let mut table = lake.table("t", &[]).await;
    append(&mut table, 0, range(0, 10)).await;
    let prepared = ready(&mut table, 0, range(10, 20)).await;
    // Another engine changes a property and adds a column; an administrator changes the entry.
    let mut fields = table.metadata().current_schema().as_struct().fields().to_vec();
    let added =
        iceberg::spec::NestedField::optional(6, "added", iceberg::spec::Type::Primitive(iceberg::spec::PrimitiveType::Date));
    fields.push(added.into());
    let schema = iceberg::spec::Schema::builder().with_schema_id(1).with_fields(fields).build().unwrap();
    let requirements = vec![TableRequirement::UuidMatch { uuid: table.uuid() }];
    let updates = vec![
        TableUpdate::SetProperties { updates: HashMap::from([("theirs".to_owned(), "kept".to_owned())]) },
        TableUpdate::AddSchema { schema },
        TableUpdate::SetCurrentSchema { schema_id: -1 },
    ];
    let CommitOutcome::Committed(_) = lake.catalog.commit(table.ident(), requirements, updates).await else {
        panic!("not committed")
    };
    let metastore = lake.catalog.metastore();
    let mut entry = metastore.table(&lake.database, "t").await.unwrap().unwrap();
    entry.set_owner("another");
    entry.set_parameter("administrator", "was here");
    metastore.alter_table(&lake.database, "t", &entry, &EnvironmentContext::new().without_statistics()).await.unwrap();

    let appended = committed(prepared.swap(&mut table).await);
    assert_eq!(appended.attempts, 2);
    let table = lake.open(&lake.catalog, "t").await;
    assert_eq!(table.note("theirs"), Some("kept"));
    assert_eq!(table.metadata().current_schema().as_struct().fields().len(), 6);
    assert_eq!(offsets(&table, None).await, (0..20).collect::<Vec<_>>());
    let entry = metastore.table(&lake.database, "t").await.unwrap().unwrap();
    assert_eq!((entry.owner(), entry.parameter("administrator")), (Some("another"), Some("was here")));
    assert_eq!(entry.parameter("theirs"), Some("kept"));
    assert!(entry.columns().iter().any(|column| column.name == "added" && column.hive_type == "date"));
}

async fn a_table_of_another_source_or_input_stops(lake: &Lake) {
    let mut table = lake.table("t", &[]).await;
    let barrier = CloseBarrier::new();
    let batch = |start: i64, topic_id: &str, input: u128| Append {
        files: DataFiles::default(),
        delta: delta(0, range(start, start + 5)),
        origin: Origin { topic_id: Some(topic_id.to_owned()), ..origin() },
        commit_id: Uuid::now_v7(),
        input: Some(InputRef { table_uuid: Uuid::from_u128(input), snapshot_id: None }),
        summary: BTreeMap::from([("lakesmith.pending".to_owned(), if start == 0 { "yes" } else { "" }.to_owned())]),
    };
    for start in [0, 5] {
        let Preparation::Ready(prepared) = table.prepare(batch(start, "id-1", 7), &barrier).await.unwrap() else {
            panic!("not ready")
        };
        barrier.wait().await.unwrap();
        committed(prepared.swap(&mut table).await);
        assert_eq!(table.note("lakesmith.pending"), (start == 0).then_some("yes"));
    }
    assert_eq!(table.input().unwrap().unwrap().table_uuid, Uuid::from_u128(7));
    for wrong in [batch(10, "id-2", 7), batch(10, "id-1", 8)] {
        let error = table.prepare(wrong, &barrier).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Stop, "{error}");
    }
}

async fn the_entry_is_what_engines_expect(lake: &Lake) {
    let mut table = lake.table("t", &["Year"]).await;
    let created = table.metadata_location().to_owned();
    let barrier = CloseBarrier::new();
    let empty = table.writer(&WriterSettings::default(), &barrier).unwrap().finish().await.unwrap();
    assert!(empty.is_empty());
    let appended = append(&mut table, 0, range(0, 10)).await;
    let entry = lake.catalog.metastore().table(&lake.database, "t").await.unwrap().unwrap();
    let snapshot = appended.snapshot_id.to_string();
    let honoured = lake.catalog.metastore().compare_and_swap(&lake.database).await.unwrap() == CompareAndSwap::Honoured;
    for (key, value) in [
        ("EXTERNAL", "TRUE"),
        ("table_type", "ICEBERG"),
        ("metadata_location", appended.metadata_location.as_str()),
        ("previous_metadata_location", created.as_str()),
        ("uuid", &table.uuid().to_string()),
        ("current-snapshot-id", &snapshot),
        ("numFiles", "2"),
        ("numRows", "10"),
        ("snapshot-count", "1"),
        ("engine.hive.enabled", "true"),
        ("engine.hive.lock-enabled", if honoured { "false" } else { "true" }),
        ("storage_handler", "org.apache.iceberg.mr.hive.HiveIcebergStorageHandler"),
        ("comment", "a table of a test"),
    ] {
        assert_eq!(entry.parameter(key), Some(value), "{key}");
    }
    assert_eq!(entry.table_type(), "EXTERNAL_TABLE");
    assert_eq!(entry.serde_library(), Some("org.apache.iceberg.mr.hive.HiveIcebergSerDe"));
    assert!(entry.parameter("current-snapshot-summary").unwrap().contains("lakesmith.positions"));
    assert_eq!(entry.columns().len(), 5);
    assert_eq!(table.metadata().snapshot_for_ref(MAIN_BRANCH).unwrap().snapshot_id(), appended.snapshot_id);
}

async fn a_thousand_topic_partitions_fit(lake: &Lake) {
    let mut table = lake.table("t", &[]).await;
    let barrier = CloseBarrier::new();
    for step in 0..2 {
        let mut delta = Delta::default();
        for partition in 0..1_000 {
            let start = 1_700_000_000_000 + step * 800_000_000_000;
            delta.extend(partition, range(start, start + 800_000_000_000), 700_000_000_000).unwrap();
        }
        let append = Append {
            files: DataFiles::default(),
            delta,
            origin: origin(),
            commit_id: Uuid::now_v7(),
            input: None,
            summary: BTreeMap::new(),
        };
        let Preparation::Ready(prepared) = table.prepare(append, &barrier).await.unwrap() else { panic!("not ready") };
        barrier.wait().await.unwrap();
        committed(prepared.swap(&mut table).await);
    }
    let reopened = lake.open(&lake.catalog, "t").await;
    assert_eq!(reopened.checkpoint().unwrap(), table.checkpoint().unwrap());
    assert_eq!(reopened.checkpoint().unwrap().unwrap().next_offset(999), Some(3_300_000_000_000));
    let entry = lake.catalog.metastore().table(&lake.database, "t").await.unwrap().unwrap();
    assert!(entry.parameter("lakesmith.positions").unwrap().len() < 32_672);
    // Too long for the metastore with the batch's own offsets beside it; the metadata file has it.
    assert_eq!(entry.parameter("current-snapshot-summary"), None);
}
