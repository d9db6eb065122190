//! The time up to which a table says that it is complete: stated by batches, by a change of metadata alone, and looked up by offsets.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use iceberg::TableUpdate;
use lakesmith::catalog::{CatalogSettings, CommitOutcome};
use lakesmith::checkpoint::OffsetRange;
use lakesmith::completeness::{COMPLETE_UNTIL, Completeness, PARTITION_TIMES};
use lakesmith::metastore::HeldLock;
use lakesmith::retry::RetrySettings;
use lakesmith::storage::CloseBarrier;
use lakesmith::table::offsets::{Side, accept};
use lakesmith::table::{Append, DataFiles, LakeTable, Preparation, Stated};
use uuid::Uuid;

use super::lake::{Lake, append, assert_no_orphans, committed, delta, offsets, origin};

super::on_both_lakes!(
    a_table_states_its_time_for_the_offsets_it_had,
    stating_makes_no_snapshot_and_leaves_no_file,
    times_of_a_thousand_partitions_are_read_back,
);

super::on_lake!(
    locking,
    Lake::real().await.locking(),
    a_table_states_its_time_for_the_offsets_it_had,
    stating_makes_no_snapshot_and_leaves_no_file,
    a_time_is_stated_under_the_lock,
    statements_and_batches_lose_nothing_of_each_other,
);
super::on_lake!(
    hms_3_1_3,
    Lake::of_version("3.1.3").await,
    a_time_is_stated_under_the_lock,
    statements_and_batches_lose_nothing_of_each_other,
);
super::on_lake!(hms_2_3_9, Lake::of_version("2.3.9").await, a_time_is_stated_under_the_lock);

fn known(partitions: &[(i32, i64)], until_ms: i64) -> Completeness {
    Completeness { partitions: partitions.iter().copied().collect(), until_ms: Some(until_ms) }
}

/// A batch that moves a partition's offsets on and states a time.
async fn advance(table: &mut LakeTable, range: OffsetRange, completeness: &Completeness) {
    let barrier = CloseBarrier::new();
    let append = Append {
        files: DataFiles::default(),
        delta: delta(0, range),
        origin: origin(),
        commit_id: Uuid::now_v7(),
        input: None,
        summary: completeness.notes(),
    };
    let Preparation::Ready(prepared) = table.prepare(append, &barrier).await.unwrap() else { panic!("not ready") };
    barrier.wait().await.unwrap();
    committed(prepared.swap(table).await);
}

async fn a_table_states_its_time_for_the_offsets_it_had(lake: &Lake) {
    let mut table = lake.table("t", &[]).await;
    let at = |table: &LakeTable, next: i64| table.complete_at(&BTreeMap::from([(0, next)])).unwrap();
    append(&mut table, 0, OffsetRange::new(0, 5)).await;
    assert_eq!((table.completeness(), at(&table, 5)), (Completeness::default(), None));
    advance(&mut table, OffsetRange::new(5, 10), &known(&[(0, 1_000)], 900)).await;
    advance(&mut table, OffsetRange::new(10, 20), &known(&[(0, 2_000)], 1_900)).await;
    // A batch that knows nothing of time, or less than was stated, takes nothing back, and repeats it.
    append(&mut table, 0, OffsetRange::new(20, 30)).await;
    advance(&mut table, OffsetRange::new(30, 40), &known(&[(0, 500)], 400)).await;
    assert_eq!(table.completeness(), known(&[(0, 2_000)], 1_900));
    let summaries = table.metadata().snapshots().filter(|snapshot| {
        assert!(!snapshot.summary().additional_properties.contains_key(PARTITION_TIMES));
        snapshot.summary().additional_properties.contains_key(COMPLETE_UNTIL)
    });
    assert_eq!(summaries.count(), 4);
    // A reader of the table: what was stated for the offsets that it has reached.
    assert_eq!([9, 10, 19, 20, 35, 40, 99].map(|next| at(&table, next)), {
        [None, Some(900), Some(900), Some(1_900), Some(1_900), Some(1_900), Some(1_900)]
    });
    assert_eq!(table.state(&known(&[(0, 3_000)], 2_900)).await.unwrap(), Stated::Yes);
    assert_eq!([40, 39].map(|next| at(&table, next)), [Some(2_900), Some(1_900)]);
    let reopened = lake.open(&lake.catalog, "t").await;
    assert_eq!(reopened.completeness(), known(&[(0, 3_000)], 2_900));
    let entry = lake.catalog.metastore().table(&lake.database, "t").await.unwrap().unwrap();
    assert_eq!(entry.parameter(COMPLETE_UNTIL), Some("1970-01-01T00:00:02.900Z"));
}

async fn stating_makes_no_snapshot_and_leaves_no_file(lake: &Lake) {
    let mut table = lake.table("t", &[]).await;
    let few = ["write.metadata.previous-versions-max", "write.metadata.delete-after-commit.enabled"].map(str::to_owned);
    let updates = HashMap::from_iter(few.into_iter().zip(["2".to_owned(), "true".to_owned()]));
    let ident = table.ident().clone();
    let set = lake.catalog.commit(&ident, Vec::new(), vec![TableUpdate::SetProperties { updates }]).await;
    assert!(matches!(set, CommitOutcome::Committed(_)));
    advance(&mut table, OffsetRange::new(0, 10), &known(&[(0, 1_000)], 900)).await;
    let mut stale = lake.open(&lake.catalog, "t").await;
    for second in 2..8 {
        let said = known(&[(0, second * 1_000)], second * 1_000 - 100);
        assert_eq!(table.state(&said).await.unwrap(), Stated::Yes);
        assert_eq!(table.completeness(), said);
    }
    assert_eq!(table.metadata().snapshots().count(), 1);
    assert_no_orphans(lake, &table).await;
    // An earlier time changes nothing.
    table.state(&known(&[(0, 1)], 1)).await.unwrap();
    assert_eq!(table.completeness(), known(&[(0, 7_000)], 6_900));
    // A batch goes on top of it, and a time that was worked out for other offsets is not stated.
    append(&mut table, 0, OffsetRange::new(10, 20)).await;
    assert_eq!(stale.state(&known(&[(0, 99_000)], 98_900)).await.unwrap(), Stated::Moved);
    table.refresh().await.unwrap();
    assert_eq!(table.completeness(), known(&[(0, 7_000)], 6_900));
    // A person who decides anew what is in the table lets its time be worked out anew.
    accept(&mut table, Side::Property).await.unwrap();
    assert_eq!(table.completeness(), Completeness::default());
}

async fn times_of_a_thousand_partitions_are_read_back(lake: &Lake) {
    let mut table = lake.table("t", &[]).await;
    let times =
        (0..1_000).map(|partition| (partition, 1_735_732_800_000 + i64::from(partition) * 1_009)).collect::<BTreeMap<_, _>>();
    let completeness = Completeness { partitions: times, until_ms: Some(1_735_732_740_000) };
    advance(&mut table, OffsetRange::new(0, 10), &completeness).await;
    assert_eq!(lake.open(&lake.catalog, "t").await.completeness(), completeness);
    let entry = lake.catalog.metastore().table(&lake.database, "t").await.unwrap().unwrap();
    let text = entry.parameter(PARTITION_TIMES).expect("the metastore keeps it");
    assert!(text.len() < 32_672, "{} bytes", text.len());
}

/// Where only the lock protects a table, a statement waits for it, and is checked against the offsets that are found under it.
async fn a_time_is_stated_under_the_lock(lake: &Lake) {
    let mut table = lake.table("t", &[]).await;
    assert_eq!(table.metadata().properties()["engine.hive.lock-enabled"], "true");
    advance(&mut table, OffsetRange::new(0, 10), &known(&[(0, 1_000)], 900)).await;
    let mut stale = lake.open(&lake.catalog, "t").await;

    let other = HeldLock::acquire(lake.catalog.metastore(), &lake.database, "t").await.unwrap();
    let said = known(&[(0, 2_000)], 1_900);
    let another = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let entry = lake.catalog.metastore().table(&lake.database, "t").await.unwrap().unwrap();
        assert_eq!(entry.parameter(COMPLETE_UNTIL), Some("1970-01-01T00:00:00.900Z"), "stated while another held the lock");
        other.release().await.unwrap();
    };
    let (stated, ()) = tokio::join!(table.state(&said), another);
    assert_eq!(stated.unwrap(), Stated::Yes);
    let entry = lake.catalog.metastore().table(&lake.database, "t").await.unwrap().unwrap();
    assert_eq!(entry.parameter(COMPLETE_UNTIL), Some("1970-01-01T00:00:01.900Z"));

    // Worked out for offsets that the table has left by the time that the lock is ours.
    let other = HeldLock::acquire(lake.catalog.metastore(), &lake.database, "t").await.unwrap();
    let late = known(&[(0, 9_000)], 8_900);
    let another = async {
        other.release().await.unwrap();
        append(&mut table, 0, OffsetRange::new(10, 20)).await;
        stale.state(&late).await.unwrap()
    };
    assert_eq!(another.await, Stated::Moved);
    table.refresh().await.unwrap();
    assert_eq!((table.completeness(), offsets(&table, None).await), (said, (10..20).collect::<Vec<_>>()));
    assert!(lake.catalog.metastore().show_locks(&lake.database, "t").await.unwrap().is_empty());
}

/// A writer commits batches while an idle one goes on stating times, with connections of their own.
async fn statements_and_batches_lose_nothing_of_each_other(lake: &Lake) {
    let table = lake.table("t", &[]).await;
    drop(table);
    let commit_retry = RetrySettings { attempts: 60, ..CatalogSettings::default().commit_retry };
    let settings = || CatalogSettings { commit_retry: commit_retry.clone() };
    let (mine, other) = tokio::join!(lake.another_catalog(None, settings()), lake.another_catalog(None, settings()));
    let (mut writer, mut idle) = tokio::join!(lake.open(&mine, "t"), lake.open(&other, "t"));
    let done = AtomicBool::new(false);
    let writing = async {
        for batch in 0..8 {
            append(&mut writer, 0, OffsetRange::new(batch * 10, batch * 10 + 10)).await;
        }
        done.store(true, Ordering::Relaxed);
    };
    let stating = async {
        let (mut second, mut stated) = (0, 0);
        while !done.load(Ordering::Relaxed) || stated == 0 {
            second += 1;
            idle.refresh().await.unwrap();
            match idle.state(&known(&[(0, second * 1_000)], second * 1_000 - 100)).await.unwrap() {
                Stated::Yes => stated = second,
                Stated::Moved => {}
            }
            // Statements without a pause would make a batch without a lock lose every race.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        stated
    };
    let ((), stated) = tokio::join!(writing, stating);
    let table = lake.open(&lake.catalog, "t").await;
    assert_eq!(offsets(&table, None).await, (0..80).collect::<Vec<_>>());
    assert_eq!((table.snapshots().len(), table.completeness()), (8, known(&[(0, stated * 1_000)], stated * 1_000 - 100)));
    assert!(lake.catalog.metastore().show_locks(&lake.database, "t").await.unwrap().is_empty());
}
