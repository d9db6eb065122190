//! How a swap is protected on each kind of server, and that writers who lock lose nothing to each other.

use std::time::Duration;

use lakesmith::catalog::{CatalogSettings, CommitOutcome, HiveCatalog, Rejection};
use lakesmith::checkpoint::OffsetRange;
use lakesmith::metastore::{CompareAndSwap, HeldLock, Metastore, MetastoreSettings};
use lakesmith::retry::RetrySettings;
use lakesmith::table::Preparation;
use lakesmith::{Error, Kind};
use uuid::Uuid;

use super::lake::{Lake, append, committed, offsets, prepare, ready};
use super::proxy::{Fault, Proxy};

const LOCK_ENABLED: &str = "engine.hive.lock-enabled";

super::on_lake!(
    embedded,
    Lake::embedded().await.locking(),
    racing_writers_lose_nothing,
    a_lock_of_another_is_waited_for_and_explained,
    a_lock_whose_holder_was_dropped_is_given_back,
);
super::on_lake!(
    real,
    Lake::real().await.locking(),
    racing_writers_lose_nothing,
    a_lock_of_another_is_waited_for_and_explained,
    a_lock_whose_holder_was_dropped_is_given_back,
);
super::on_lake!(real_by_value, Lake::real().await, new_tables_swap_by_the_expected_value, racing_writers_lose_nothing);
super::on_lake!(hms_4_1_0, Lake::of_version("4.1.0").await, new_tables_swap_by_the_expected_value, racing_writers_lose_nothing,);
super::on_lake!(
    hms_4_1_0_locking,
    Lake::of_version("4.1.0").await.locking(),
    racing_writers_lose_nothing,
    a_lock_of_another_is_waited_for_and_explained,
    a_lock_whose_holder_was_dropped_is_given_back,
);
super::on_lake!(hms_4_2_1, Lake::of_version("4.2.1").await, new_tables_swap_by_the_expected_value, racing_writers_lose_nothing,);
super::on_lake!(
    hms_4_2_1_locking,
    Lake::of_version("4.2.1").await.locking(),
    racing_writers_lose_nothing,
    a_lock_of_another_is_waited_for_and_explained,
    a_lock_whose_holder_was_dropped_is_given_back,
);
super::on_lake!(hms_2_3_10, Lake::of_version("2.3.10").await, new_tables_swap_by_the_expected_value, racing_writers_lose_nothing,);
super::on_lake!(
    hms_2_3_10_locking,
    Lake::of_version("2.3.10").await.locking(),
    racing_writers_lose_nothing,
    a_lock_of_another_is_waited_for_and_explained,
    a_lock_whose_holder_was_dropped_is_given_back,
);
super::on_lake!(
    hms_2_3_9,
    Lake::of_version("2.3.9").await,
    where_the_value_is_ignored_new_tables_lock,
    racing_writers_lose_nothing,
    a_late_request_that_nothing_fences_is_healed,
    a_table_that_nothing_protects_is_left_alone,
    a_lock_of_another_is_waited_for_and_explained,
);
super::on_lake!(
    hms_3_1_3,
    Lake::of_version("3.1.3").await,
    where_the_value_is_ignored_new_tables_lock,
    racing_writers_lose_nothing,
    a_late_request_that_nothing_fences_is_healed,
    a_table_that_nothing_protects_is_left_alone,
    a_lock_of_another_is_waited_for_and_explained,
);
super::on_lake!(
    stock_derby,
    Lake::of_version("derby").await,
    where_the_value_breaks_the_call_new_tables_lock,
    writers_take_turns,
    a_table_that_nothing_protects_is_left_alone,
);

async fn new_tables_swap_by_the_expected_value(lake: &Lake) {
    let table = lake.table("t", &[]).await;
    assert_eq!(lake.catalog.metastore().compare_and_swap(&lake.database).await.unwrap(), CompareAndSwap::Honoured);
    assert_eq!(table.metadata().properties()[LOCK_ENABLED], "false");
}

async fn where_the_value_is_ignored_new_tables_lock(lake: &Lake) {
    let table = lake.table("t", &[]).await;
    assert_eq!(lake.catalog.metastore().compare_and_swap(&lake.database).await.unwrap(), CompareAndSwap::Ignored);
    assert_eq!(table.metadata().properties()[LOCK_ENABLED], "true");
}

async fn where_the_value_breaks_the_call_new_tables_lock(lake: &Lake) {
    let table = lake.table("t", &[]).await;
    let found = lake.catalog.metastore().compare_and_swap(&lake.database).await.unwrap();
    assert!(matches!(found, CompareAndSwap::Broken { .. }), "{found:?}");
    assert_eq!(table.metadata().properties()[LOCK_ENABLED], "true");
}

/// Four writers with connections of their own, each with a topic partition of its own, five batches each.
async fn racing_writers_lose_nothing(lake: &Lake) {
    lake.table("t", &[]).await;
    let commit_retry = RetrySettings { attempts: 60, ..CatalogSettings::default().commit_retry };
    let writers = (0..4).map(async |partition| {
        let catalog = lake.another_catalog(None, CatalogSettings { commit_retry: commit_retry.clone() }).await;
        let mut table = lake.open(&catalog, "t").await;
        // Who was too late takes the lock before it builds on what it finds: nobody is faster twice.
        let attempts_max = if table.metadata().properties()[LOCK_ENABLED] == "true" { 2 } else { 60 };
        for batch in 0..5 {
            let start = i64::from(partition) * 1_000 + batch * 10;
            let appended = append(&mut table, partition, OffsetRange::new(start, start + 10)).await;
            assert!(appended.attempts <= attempts_max, "{}", appended.attempts);
        }
    });
    futures::future::join_all(writers).await;
    let table = lake.open(&lake.catalog, "t").await;
    let expected: Vec<i64> = (0..4).flat_map(|partition| partition * 1_000..partition * 1_000 + 50).collect();
    assert_eq!(offsets(&table, None).await, expected);
    assert_eq!(table.snapshots().len(), 20);
    let left = lake.catalog.metastore().show_locks(&lake.database, "t").await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

/// For a server whose own lock tables make four racing writers wait for minutes (Derby).
async fn writers_take_turns(lake: &Lake) {
    lake.table("t", &[]).await;
    for partition in 0..3 {
        let catalog = lake.another_catalog(None, CatalogSettings::default()).await;
        let mut table = lake.open(&catalog, "t").await;
        append(&mut table, partition, OffsetRange::new(0, 10)).await;
    }
    let table = lake.open(&lake.catalog, "t").await;
    assert_eq!(table.checkpoint().unwrap().unwrap().positions(), "d;0:0+10;1:0+10;2:0+10");
    assert!(lake.catalog.metastore().show_locks(&lake.database, "t").await.unwrap().is_empty());
}

/// A catalog that waits for locks no longer than `patience`.
async fn impatient(lake: &Lake, patience: Duration) -> HiveCatalog {
    let settings =
        MetastoreSettings { uris: vec![lake.metastore_uri.clone()], lock_timeout: patience, ..MetastoreSettings::default() };
    let commit_retry = RetrySettings { attempts: 2, ..CatalogSettings::default().commit_retry };
    let metastore = Metastore::connect(&settings).await.unwrap();
    HiveCatalog::new(metastore, lake.storages.clone(), CatalogSettings { commit_retry })
}

fn refusal(outcome: CommitOutcome<lakesmith::table::Appended>) -> Error {
    match outcome {
        CommitOutcome::Rejected(Rejection::Refused(error)) => error,
        other => panic!("not refused: {other:?}"),
    }
}

async fn a_lock_of_another_is_waited_for_and_explained(lake: &Lake) {
    lake.table("t", &[]).await;
    let catalog = impatient(lake, Duration::from_millis(300)).await;
    let mut table = lake.open(&catalog, "t").await;
    let other = HeldLock::acquire(lake.catalog.metastore(), &lake.database, "t").await.unwrap();
    let prepared = ready(&mut table, 0, OffsetRange::new(0, 10)).await;
    let error = refusal(prepared.swap(&mut table).await);
    assert_eq!(error.kind(), Kind::Transient);
    let text = error.chain();
    assert!(text.contains("still locked") && text.contains(&format!("lock {} of", other.id())), "{text}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("lakesmith locks")), "{:?}", error.hint_text());
    // It was not stolen, and our own place in the queue was given up: by a call of its own, if the first one took too long.
    catalog.metastore().finish().await;
    let held = lake.catalog.metastore().show_locks(&lake.database, "t").await.unwrap();
    assert_eq!(held.iter().map(|lock| lock.lock_id).collect::<Vec<_>>(), [other.id()]);

    // One who waits as long as by default gets it.
    let mut table = lake.open(&lake.catalog, "t").await;
    let prepared = ready(&mut table, 0, OffsetRange::new(0, 10)).await;
    let release = async {
        other.release().await.unwrap();
    };
    let (outcome, ()) = tokio::join!(prepared.swap(&mut table), release);
    committed(outcome);
    assert_eq!(offsets(&table, None).await, (0..10).collect::<Vec<_>>());
}

async fn a_lock_whose_holder_was_dropped_is_given_back(lake: &Lake) {
    lake.table("t", &[]).await;
    let metastore = lake.catalog.metastore();
    let unwound = std::panic::AssertUnwindSafe(async {
        let _held = HeldLock::acquire(metastore, &lake.database, "t").await.unwrap();
        assert_eq!(metastore.show_locks(&lake.database, "t").await.unwrap().len(), 1);
        panic!("a bug while the lock is held");
    });
    assert!(futures::FutureExt::catch_unwind(unwound).await.is_err());
    metastore.finish().await;
    assert!(metastore.show_locks(&lake.database, "t").await.unwrap().is_empty());
}

/// Window: a request under the lock stays on its way; it is sent again and commits, another batch follows, and then the first request lands
/// on a server that doesn't look at what it expected.
async fn a_late_request_that_nothing_fences_is_healed(lake: &Lake) {
    lake.table("t", &[]).await;
    let proxy = Proxy::before(&lake.metastore_uri).await;
    let catalog = lake.another_catalog(Some(proxy.uri()), CatalogSettings::default()).await;
    let mut table = lake.open(&catalog, "t").await;
    append(&mut table, 0, OffsetRange::new(0, 10)).await;

    let prepared = ready(&mut table, 0, OffsetRange::new(10, 20)).await;
    proxy.arm([Fault::HoldRequest]);
    committed(prepared.swap(&mut table).await);
    append(&mut table, 0, OffsetRange::new(20, 30)).await;
    proxy.deliver_held().await;

    // The pointer went back, to a version whose files are all there.
    let mut back = lake.open(&lake.catalog, "t").await;
    assert_eq!(back.checkpoint().unwrap().unwrap().positions(), "d;0:0+20");
    assert_eq!(offsets(&back, None).await, (0..20).collect::<Vec<_>>());
    // The writer is told by the next offset, and what was undone is committed again, once.
    let next = prepare(&mut table, Uuid::now_v7(), 0, OffsetRange::new(30, 40)).await;
    let outcome = match next {
        Preparation::Ready(prepared) => prepared.swap(&mut table).await,
        Preparation::Mismatch(_) => CommitOutcome::Unknown(Error::failed("told before the swap")),
        other => panic!("{other:?}"),
    };
    assert!(!matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
    append(&mut back, 0, OffsetRange::new(20, 30)).await;
    assert_eq!(offsets(&back, None).await, (0..30).collect::<Vec<_>>());
}

async fn a_table_that_nothing_protects_is_left_alone(lake: &Lake) {
    let mut spec = lake.spec("t", &[]);
    spec.properties.insert(LOCK_ENABLED.to_owned(), "false".to_owned());
    let mut table = lakesmith::table::LakeTable::open_or_create(&lake.catalog, &spec).await.unwrap();
    let before = table.metadata_location().to_owned();
    let prepared = ready(&mut table, 0, OffsetRange::new(0, 10)).await;
    let error = refusal(prepared.swap(&mut table).await);
    assert_eq!(error.kind(), Kind::Stop);
    assert!(error.chain().contains("commits could be lost"), "{}", error.chain());
    assert!(error.hint_text().is_some_and(|hint| hint.contains(LOCK_ENABLED)));
    table.refresh().await.unwrap();
    assert_eq!(table.metadata_location(), before);
}
