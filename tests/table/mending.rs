//! Tables that went back, were emptied or are not ours: what stops the daemon, and the ways out.

use std::collections::{BTreeMap, HashMap};

use iceberg::TableUpdate;
use iceberg::spec::{SnapshotReference, SnapshotRetention};
use lakesmith::catalog::{CommitOutcome, Rejection};
use lakesmith::checkpoint::OffsetRange;
use lakesmith::error::Kind;
use lakesmith::metastore::EnvironmentContext;
use lakesmith::table::offsets::{Side, accept, inspect, rebuild, set};
use lakesmith::table::{LakeTable, Preparation};
use uuid::Uuid;

use super::lake::{Lake, append, offsets, origin, prepare};

super::on_every_lake!(
    a_rollback_stops_until_a_person_decides,
    a_pointer_that_went_back_is_healed_by_reading_again,
    a_partition_whose_beginning_is_gone_is_not_continued,
    lost_offsets_are_rebuilt_from_the_records,
    offsets_can_be_set,
);

async fn change(lake: &Lake, table: &LakeTable, updates: Vec<TableUpdate>) {
    match lake.catalog.commit(table.ident(), Vec::new(), updates).await {
        CommitOutcome::Committed(_) => {}
        other => panic!("{other:?}"),
    }
}

/// As Spark's `rollback_to_snapshot`.
fn rollback_to(snapshot_id: i64) -> TableUpdate {
    let retention = SnapshotRetention::Branch { min_snapshots_to_keep: None, max_snapshot_age_ms: None, max_ref_age_ms: None };
    TableUpdate::SetSnapshotRef { ref_name: "main".to_owned(), reference: SnapshotReference::new(snapshot_id, retention) }
}

async fn a_rollback_stops_until_a_person_decides(lake: &Lake) {
    let mut table = lake.table("t", &[]).await;
    let first = append(&mut table, 0, OffsetRange::new(0, 10)).await;
    append(&mut table, 0, OffsetRange::new(10, 20)).await;
    change(lake, &table, vec![rollback_to(first.snapshot_id)]).await;
    table.refresh().await.unwrap();

    let error = table.checkpoint().unwrap_err();
    assert_eq!(error.kind(), Kind::Stop);
    assert!(error.to_string().contains("rolled back"), "{error}");
    let report = inspect(&table).unwrap();
    assert_eq!(report.progress.property.as_ref().unwrap().positions(), "d;0:0+20");
    assert_eq!(report.progress.summary.as_ref().unwrap().1.positions(), "d;0:0+10");
    assert!(report.verdict.is_err());

    // The rows were rolled back on purpose: read them again.
    assert_eq!(accept(&mut table, Side::Summary).await.unwrap().positions(), "d;0:0+10");
    append(&mut table, 0, OffsetRange::new(10, 15)).await;
    assert_eq!(offsets(&table, None).await, (0..15).collect::<Vec<_>>());

    // The other way: they are not wanted any more.
    change(lake, &table, vec![rollback_to(first.snapshot_id)]).await;
    table.refresh().await.unwrap();
    assert_eq!(accept(&mut table, Side::Property).await.unwrap().positions(), "d;0:0+15");
    append(&mut table, 0, OffsetRange::new(15, 20)).await;
    assert_eq!(offsets(&table, None).await, (0..10).chain(15..20).collect::<Vec<_>>());
    assert!(inspect(&table).unwrap().verdict.is_ok());
}

/// Somebody writes the entry back as it was before a commit (Hive's get-then-alter): the commit is gone, without a contradiction.
async fn a_pointer_that_went_back_is_healed_by_reading_again(lake: &Lake) {
    let mut table = lake.table("t", &[]).await;
    append(&mut table, 0, OffsetRange::new(0, 10)).await;
    let metastore = lake.catalog.metastore();
    let stale = metastore.table(&lake.database, "t").await.unwrap().unwrap();
    append(&mut table, 0, OffsetRange::new(10, 20)).await;
    metastore.alter_table(&lake.database, "t", &stale, &EnvironmentContext::new().without_statistics()).await.unwrap();

    match prepare(&mut table, Uuid::now_v7(), 0, OffsetRange::new(20, 30)).await {
        // Prepared on the version that has gone; the swap will see.
        Preparation::Ready(prepared) => assert!(prepared.swap(&mut table).await.into_result(&"t").is_err()),
        other => panic!("{other:?}"),
    }
    table.refresh().await.unwrap();
    let next = table.checkpoint().unwrap().unwrap().next_offset(0);
    assert_eq!(next, Some(10));
    append(&mut table, 0, OffsetRange::new(10, 30)).await;
    assert_eq!(offsets(&table, None).await, (0..30).collect::<Vec<_>>());
}

/// As before, but the table that comes back doesn't know the partition at all, and an unknown partition may begin anywhere.
async fn a_partition_whose_beginning_is_gone_is_not_continued(lake: &Lake) {
    let mut table = lake.table("t", &[]).await;
    append(&mut table, 0, OffsetRange::new(0, 10)).await;
    let metastore = lake.catalog.metastore();
    let stale = metastore.table(&lake.database, "t").await.unwrap().unwrap();
    append(&mut table, 1, OffsetRange::new(100, 110)).await;
    metastore.alter_table(&lake.database, "t", &stale, &EnvironmentContext::new().without_statistics()).await.unwrap();

    match prepare(&mut table, Uuid::now_v7(), 1, OffsetRange::new(110, 120)).await {
        Preparation::Ready(prepared) => match prepared.swap(&mut table).await {
            CommitOutcome::Rejected(Rejection::Offsets(mismatch)) => assert_eq!(mismatch.table_next, 100),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
    assert!(matches!(prepare(&mut table, Uuid::now_v7(), 1, OffsetRange::new(110, 120)).await, Preparation::Mismatch(_)));
    append(&mut table, 1, OffsetRange::new(100, 120)).await;
    assert_eq!(offsets(&table, None).await, (0..10).chain(100..120).collect::<Vec<_>>());
}

async fn lost_offsets_are_rebuilt_from_the_records(lake: &Lake) {
    let mut table = lake.table("t", &["Year"]).await;
    append(&mut table, 0, OffsetRange::new(5, 15)).await;
    append(&mut table, 3, OffsetRange::new(0, 4)).await;
    let gone = TableUpdate::RemoveProperties { removals: vec!["lakesmith.positions".to_owned()] };
    change(lake, &table, vec![gone]).await;
    table.refresh().await.unwrap();
    assert_eq!(table.checkpoint().unwrap_err().kind(), Kind::Stop);
    assert_eq!(rebuild(&mut table, &origin()).await.unwrap().positions(), "d;0:5+10;3:0+4");
    append(&mut table, 0, OffsetRange::new(15, 16)).await;
    let reopened = lake.open(&lake.catalog, "t").await;
    assert_eq!(reopened.checkpoint().unwrap().unwrap().positions(), "d;0:5+11;3:0+4");
}

async fn offsets_can_be_set(lake: &Lake) {
    let mut table = lake.table("t", &[]).await;
    // A table that never held a record may begin anywhere.
    assert_eq!(set(&mut table, None, &BTreeMap::new()).await.unwrap_err().kind(), Kind::Config);
    set(&mut table, Some(&origin()), &BTreeMap::from([(0, 100), (1, 7)])).await.unwrap();
    assert!(matches!(prepare(&mut table, Uuid::now_v7(), 0, OffsetRange::new(0, 5)).await, Preparation::Mismatch(_)));
    append(&mut table, 0, OffsetRange::new(100, 110)).await;
    // Records are skipped by a person's decision.
    let checkpoint = set(&mut table, None, &BTreeMap::from([(0, 200)])).await.unwrap();
    assert_eq!(checkpoint.positions(), "d;0:100+100-90;1:7+0");
    append(&mut table, 0, OffsetRange::new(200, 201)).await;
    // Another handle's look is out of date by now.
    let mut late = lake.open(&lake.catalog, "t").await;
    append(&mut table, 0, OffsetRange::new(201, 202)).await;
    assert_eq!(set(&mut late, None, &BTreeMap::from([(0, 1)])).await.unwrap_err().kind(), Kind::Stop);
    let properties = HashMap::from([("lakesmith.positions".to_owned(), "d;0:0+1".to_owned())]);
    change(lake, &table, vec![TableUpdate::SetProperties { updates: properties }]).await;
    table.refresh().await.unwrap();
    assert_eq!(table.checkpoint().unwrap_err().kind(), Kind::Stop);
}
