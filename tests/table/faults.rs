//! What becomes of a batch when the swap's answer, or the request, is lost. Each test names the window it opens.

use std::time::Duration;

use lakesmith::catalog::{CatalogSettings, CommitOutcome, HiveCatalog};
use lakesmith::checkpoint::OffsetRange;
use lakesmith::retry::RetrySettings;
use lakesmith::table::{LakeTable, Preparation};
use uuid::Uuid;

use super::lake::{Lake, append, committed, offsets, prepare, ready};
use super::proxy::{Fault, Proxy};

super::on_every_lake!(
    a_lost_reply_is_found_in_the_table,
    a_call_that_the_server_repeats_is_no_conflict,
    a_lost_request_is_sent_again,
    an_unknown_commit_that_lands_later_is_recognized,
    an_unknown_commit_that_never_lands_is_made_again,
);

// On servers that look at the expected value; `locking` has what becomes of it on others.
macro_rules! late {
    ($($module:ident: $lake:expr),+ $(,)?) => {
        $(super::on_lake!($module, $lake, a_late_request_finds_the_value_gone, a_late_request_cannot_undo_what_others_did);)+
    };
}
late!(
    late_embedded: Lake::embedded().await,
    late_real: Lake::real().await,
    late_hms_2_3_10: Lake::of_version("2.3.10").await,
    late_hms_4_1_0: Lake::of_version("4.1.0").await,
    late_hms_4_2_1: Lake::of_version("4.2.1").await,
);

// Under the lock, on servers that look at the expected value: the same holds.
super::on_lake!(
    embedded_locking,
    Lake::embedded().await.locking(),
    a_lost_reply_is_found_in_the_table,
    a_call_that_the_server_repeats_is_no_conflict,
    a_lost_request_is_sent_again,
    a_late_request_finds_the_value_gone,
    a_late_request_cannot_undo_what_others_did,
    an_unknown_commit_that_lands_later_is_recognized,
    an_unknown_commit_that_never_lands_is_made_again,
);
super::on_lake!(
    real_locking,
    Lake::real().await.locking(),
    a_lost_reply_is_found_in_the_table,
    a_call_that_the_server_repeats_is_no_conflict,
    a_lost_request_is_sent_again,
    a_late_request_finds_the_value_gone,
    a_late_request_cannot_undo_what_others_did,
    an_unknown_commit_that_lands_later_is_recognized,
    an_unknown_commit_that_never_lands_is_made_again,
);

/// A lake whose metastore is reached through a proxy, with a table of ten rows.
async fn behind_proxy(lake: &Lake) -> (Proxy, HiveCatalog, LakeTable) {
    lake.table("t", &[]).await;
    let proxy = Proxy::before(&lake.metastore_uri).await;
    let delay = Duration::from_millis(5);
    let commit_retry = RetrySettings { attempts: 4, initial_delay: delay, max_delay: 4 * delay };
    let catalog = lake.another_catalog(Some(proxy.uri()), CatalogSettings { commit_retry }).await;
    let mut table = lake.open(&catalog, "t").await;
    append(&mut table, 0, OffsetRange::new(0, 10)).await;
    (proxy, catalog, table)
}

async fn assert_rows(lake: &Lake, rows: i64) {
    let table = lake.open(&lake.catalog, "t").await;
    assert_eq!(offsets(&table, None).await, (0..rows).collect::<Vec<_>>());
    assert_eq!(table.checkpoint().unwrap().unwrap().positions(), format!("d;0:0+{rows}"));
}

/// Window: the server has committed, its reply doesn't arrive.
async fn a_lost_reply_is_found_in_the_table(lake: &Lake) {
    let (proxy, _, mut table) = behind_proxy(lake).await;
    let prepared = ready(&mut table, 0, OffsetRange::new(10, 20)).await;
    let before = proxy.alters();
    proxy.arm([Fault::LoseReply]);
    let appended = committed(prepared.swap(&mut table).await);
    assert_eq!((appended.attempts, proxy.alters() - before, proxy.faults_left()), (1, 1, 0));
    assert_rows(lake, 20).await;
    // The table goes on from there.
    append(&mut table, 0, OffsetRange::new(20, 30)).await;
    assert_rows(lake, 30).await;
}

/// Window: the server carries the call out twice by itself, and reports the second try's conflict with the first (apache/iceberg#11814).
async fn a_call_that_the_server_repeats_is_no_conflict(lake: &Lake) {
    let (proxy, _, mut table) = behind_proxy(lake).await;
    let prepared = ready(&mut table, 0, OffsetRange::new(10, 20)).await;
    proxy.arm([Fault::Repeat]);
    let appended = committed(prepared.swap(&mut table).await);
    assert_eq!((appended.attempts, proxy.faults_left()), (1, 0));
    // None of its files was deleted.
    assert_rows(lake, 20).await;
    append(&mut table, 0, OffsetRange::new(20, 30)).await;
    assert_rows(lake, 30).await;
}

/// Window: the request is lost on its way, twice.
async fn a_lost_request_is_sent_again(lake: &Lake) {
    let (proxy, _, mut table) = behind_proxy(lake).await;
    let prepared = ready(&mut table, 0, OffsetRange::new(10, 20)).await;
    proxy.arm([Fault::LoseRequest, Fault::LoseRequest]);
    let appended = committed(prepared.swap(&mut table).await);
    assert_eq!((appended.attempts, proxy.faults_left()), (1, 0));
    assert_rows(lake, 20).await;
}

/// Window: the request stays on its way while it is sent again, and arrives afterwards.
async fn a_late_request_finds_the_value_gone(lake: &Lake) {
    let (proxy, _, mut table) = behind_proxy(lake).await;
    let prepared = ready(&mut table, 0, OffsetRange::new(10, 20)).await;
    proxy.arm([Fault::HoldRequest]);
    let appended = committed(prepared.swap(&mut table).await);
    append(&mut table, 0, OffsetRange::new(20, 30)).await;
    proxy.deliver_held().await;
    assert_rows(lake, 30).await;
    assert_eq!(lake.open(&lake.catalog, "t").await.snapshots()[1].snapshot_id, appended.snapshot_id);
}

/// Window: the request stays on its way, another writer commits, and then it arrives.
async fn a_late_request_cannot_undo_what_others_did(lake: &Lake) {
    let (proxy, _, mut table) = behind_proxy(lake).await;
    let prepared = ready(&mut table, 0, OffsetRange::new(10, 20)).await;
    // Held again and again, so that nothing is decided before the other writer has been there.
    proxy.arm([Fault::HoldRequest, Fault::HoldRequest]);
    let other = async {
        proxy.holding().await;
        let mut other = lake.open(&lake.catalog, "t").await;
        append(&mut other, 1, OffsetRange::new(100, 105)).await
    };
    let (outcome, _) = tokio::join!(prepared.swap(&mut table), other);
    committed(outcome);
    while proxy.held() > 0 {
        proxy.deliver_held().await;
    }
    let table = lake.open(&lake.catalog, "t").await;
    assert_eq!(table.checkpoint().unwrap().unwrap().positions(), "d;0:0+20;1:100+5");
    assert_eq!(offsets(&table, None).await, (0..20).chain(100..105).collect::<Vec<_>>());
}

/// Window: the request is held and the metastore goes away, so that nobody can look; then it lands.
async fn an_unknown_commit_that_lands_later_is_recognized(lake: &Lake) {
    let (proxy, catalog, mut table) = behind_proxy(lake).await;
    let id = Uuid::now_v7();
    let Preparation::Ready(prepared) = prepare(&mut table, id, 0, OffsetRange::new(10, 20)).await else { panic!("not ready") };
    proxy.arm([Fault::HoldRequestAndGoDown]);
    match prepared.swap(&mut table).await {
        CommitOutcome::Unknown(_) => {}
        other => panic!("{other:?}"),
    }
    assert_rows(lake, 10).await;
    proxy.come_back();
    proxy.deliver_held().await;
    // Its files were not deleted: it can be read.
    assert_rows(lake, 20).await;
    // Whoever hasn't seen it yet prepares it again, and finds it at the swap.
    let Preparation::Ready(again) = prepare(&mut table, id, 0, OffsetRange::new(10, 20)).await else { panic!("not ready") };
    committed(again.swap(&mut table).await);
    let mut restarted = lake.open(&catalog, "t").await;
    for table in [&mut table, &mut restarted] {
        assert!(matches!(prepare(table, id, 0, OffsetRange::new(10, 20)).await, Preparation::AlreadyCommitted(_)));
        assert!(matches!(prepare(table, Uuid::now_v7(), 0, OffsetRange::new(10, 20)).await, Preparation::Mismatch(_)));
    }
    assert_rows(lake, 20).await;
}

/// Window: the request is lost and the metastore goes away, so that nobody can look; it never lands.
async fn an_unknown_commit_that_never_lands_is_made_again(lake: &Lake) {
    let (proxy, _, mut table) = behind_proxy(lake).await;
    let id = Uuid::now_v7();
    let Preparation::Ready(prepared) = prepare(&mut table, id, 0, OffsetRange::new(10, 20)).await else { panic!("not ready") };
    proxy.arm([Fault::LoseRequestAndGoDown]);
    match prepared.swap(&mut table).await {
        CommitOutcome::Unknown(_) => {}
        other => panic!("{other:?}"),
    }
    proxy.come_back();
    let Preparation::Ready(again) = prepare(&mut table, id, 0, OffsetRange::new(10, 20)).await else { panic!("not ready") };
    committed(again.swap(&mut table).await);
    assert_rows(lake, 20).await;
}
