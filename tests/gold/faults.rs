//! What others do to a gold table, and what a killed maintainer leaves behind.

use lakesmith::Kind;
use lakesmith::gold::{CatchUp, GoldMaintainer, Update};
use lakesmith::metastore::{DeleteData, EnvironmentContext, LockComponent, LockRequest};
use uuid::Uuid;

use super::{DAY, MINUTE, NOON, Place, Silver, clock, on_every_metastore};

on_every_metastore!(
    a_second_maintainer_is_kept_out,
    the_lock_of_a_dead_process_is_not_waited_for,
    a_foreign_change_is_put_right,
    a_successor_fences_the_old_maintainer,
    a_late_switch_of_a_woken_maintainer_is_put_right_by_its_successor,
    killed_before_the_progress_was_written,
    silver_that_went_back_is_waited_for,
    a_window_that_lost_its_input_keeps_its_rows,
    little_memory_changes_no_result,
);

async fn filled(place: &Place) -> (GoldMaintainer, Silver) {
    let mut silver = Silver::new();
    let mut gold = place.open(&silver).await.unwrap();
    for minute in [0, 1, 2, 60] {
        silver.commit(0, 50, NOON + minute * MINUTE);
    }
    gold.catch_up(&silver, clock(NOON + 60 * MINUTE)).await.unwrap();
    gold.refresh(&silver, clock(NOON + 60 * MINUTE)).await.unwrap();
    (gold, silver)
}

async fn a_second_maintainer_is_kept_out(place: Place) {
    let (gold, silver) = filled(&place).await;
    let error = place.open(&silver).await.err().unwrap();
    assert!(error.chain().contains("still locked"), "{}", error.chain());
    gold.close().await.unwrap();
    place.open(&silver).await.unwrap().close().await.unwrap();
    place.remove().await;
}

async fn the_lock_of_a_dead_process_is_not_waited_for(place: Place) {
    const LOCK: &str = "sales_by_minute__lakesmith_maintainer";
    let (gold, silver) = filled(&place).await;
    // The lock of a process that has ended: this one's, with another number.
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    let locks = place.metastore.show_locks(&place.database, LOCK).await.unwrap();
    let this = locks[0].agent.clone().unwrap();
    let dead = this.replace(&format!(" pid {} ", std::process::id()), &format!(" pid {pid} "));
    assert_ne!(this, dead);
    gold.close().await.unwrap();
    let request = |agent: &str| LockRequest {
        components: vec![LockComponent::exclusive(&place.database, LOCK)],
        user: place.metastore.user().to_owned(),
        hostname: "here".to_owned(),
        agent: agent.to_owned(),
    };
    place.metastore.lock(&request(&dead)).await.unwrap();
    place.open(&silver).await.unwrap().close().await.unwrap();

    // Of anybody else's nothing is known.
    let foreign = place.metastore.lock(&request("hive_1")).await.unwrap();
    let error = place.open(&silver).await.err().unwrap();
    assert!(error.chain().contains("still locked"), "{}", error.chain());
    place.metastore.unlock(foreign.lock_id).await.unwrap();
    place.remove().await;
}

async fn a_foreign_change_is_put_right(place: Place) {
    let (mut gold, mut silver) = filled(&place).await;
    let first = place.partition("2024-07-01").await;
    silver.commit(0, 50, NOON + 61 * MINUTE);
    gold.catch_up(&silver, clock(NOON + 61 * MINUTE)).await.unwrap();
    gold.refresh(&silver, clock(NOON + 61 * MINUTE)).await.unwrap();

    // A late call of another process moves the partition back. Nothing else has changed since.
    let none = EnvironmentContext::new();
    place.metastore.alter_partitions(&place.database, "sales_by_minute", std::slice::from_ref(&first), &none).await.unwrap();
    let report = gold.refresh(&silver, clock(NOON + 61 * MINUTE)).await.unwrap();
    assert_eq!(report.put_right, ["window_date=2024-07-01"]);
    place.assert_equals_group_by(&silver).await;

    // Someone drops it.
    let values = ["2024-07-01".to_string()];
    place.metastore.drop_partition(&place.database, "sales_by_minute", &values, DeleteData::No).await.unwrap();
    let report = gold.refresh(&silver, clock(NOON + 61 * MINUTE)).await.unwrap();
    assert_eq!(report.put_right, ["window_date=2024-07-01"]);
    place.assert_equals_group_by(&silver).await;

    // Someone deletes its files: noticed when it changes next.
    let location = place.partition("2024-07-01").await.location().unwrap().to_owned();
    place.storages.delete_dir(&location).await.unwrap();
    silver.commit(0, 5, NOON + 61 * MINUTE);
    gold.catch_up(&silver, clock(NOON + 61 * MINUTE)).await.unwrap();
    assert_eq!(gold.refresh(&silver, clock(NOON + 61 * MINUTE)).await.unwrap().partitions_written, 1);
    place.assert_equals_group_by(&silver).await;
    gold.close().await.unwrap();
    place.remove().await;
}

async fn a_successor_fences_the_old_maintainer(place: Place) {
    let (mut gold, mut silver) = filled(&place).await;
    // What a successor does first, while this one believes that it holds the lock.
    let mut table = place.metastore.table(&place.database, "sales_by_minute").await.unwrap().unwrap();
    table.set_parameter("lakesmith.revision", "2.0");
    table.set_parameter("lakesmith.epoch", "2");
    place.metastore.alter_table(&place.database, "sales_by_minute", &table, &EnvironmentContext::new()).await.unwrap();
    silver.commit(0, 5, NOON + 60 * MINUTE);
    gold.catch_up(&silver, clock(NOON + 60 * MINUTE)).await.unwrap();
    let error = gold.refresh(&silver, clock(NOON + 60 * MINUTE)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Stop);
    assert!(error.chain().contains("is maintained by another process (epoch 2, ours is 1)"), "{}", error.chain());
    assert_eq!(place.partition("2024-07-01").await.parameter("lakesmith.positions"), Some("d;0:0+200"), "it moved nothing");
    gold.close().await.unwrap();

    let mut gold = place.open(&silver).await.unwrap();
    gold.catch_up(&silver, clock(NOON + 60 * MINUTE)).await.unwrap();
    gold.refresh(&silver, clock(NOON + 60 * MINUTE)).await.unwrap();
    place.assert_equals_group_by(&silver).await;
    gold.close().await.unwrap();
    place.remove().await;
}

async fn a_late_switch_of_a_woken_maintainer_is_put_right_by_its_successor(place: Place) {
    let (mut old, mut silver) = filled(&place).await;
    // Stopped when its next version is durable and the lock was found to be held: what it does when it wakes is this call.
    let late = place.partition("2024-07-01").await;
    // Meanwhile the metastore drops its lock, and whoever stood by takes over and writes.
    let lock = place.metastore.show_locks(&place.database, "sales_by_minute__lakesmith_maintainer").await.unwrap()[0].lock_id;
    let (plan, database) = (place.plan(), place.database.clone());
    let (metastore, storages, seen) = (place.metastore.clone(), place.storages.clone(), silver.clone());
    let standing_by =
        tokio::spawn(async move { GoldMaintainer::stand_by(plan, &database, &metastore, &storages, &seen).await.unwrap() });
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    assert!(!standing_by.is_finished(), "it waits for as long as the other holds the lock");
    place.metastore.unlock(lock).await.unwrap();
    let mut new = standing_by.await.unwrap();
    silver.commit(0, 50, NOON + 61 * MINUTE);
    silver.commit(1, 50, NOON + 61 * MINUTE);
    let now = clock(NOON + 61 * MINUTE);
    assert_eq!(new.catch_up(&silver, now).await.unwrap(), CatchUp::Done { rows: 100 });
    new.refresh(&silver, now).await.unwrap();
    let written = place.partition("2024-07-01").await;

    // It wakes: the partition stands on its version again, which is complete, but old.
    let none = EnvironmentContext::new();
    place.metastore.alter_partitions(&place.database, "sales_by_minute", std::slice::from_ref(&late), &none).await.unwrap();
    assert_ne!(place.partition("2024-07-01").await.location(), written.location());
    old.catch_up(&silver, now).await.unwrap();
    let error = old.refresh(&silver, now).await.unwrap_err();
    assert!(old.is_fenced() || error.chain().contains("is not ours any more"), "{}", error.chain());
    old.close().await.unwrap();

    let report = new.refresh(&silver, now).await.unwrap();
    assert_eq!(report.put_right, ["window_date=2024-07-01"]);
    assert_eq!(place.partition("2024-07-01").await.parameter("lakesmith.positions"), Some("d;0:0+250;1:0+50"));
    place.assert_equals_group_by(&silver).await;
    new.close().await.unwrap();
    place.remove().await;
}

async fn killed_before_the_progress_was_written(place: Place) {
    let (mut gold, mut silver) = filled(&place).await;
    let before = place.metastore.table(&place.database, "sales_by_minute").await.unwrap().unwrap();
    silver.commit(0, 20, NOON + 2 * DAY);
    silver.commit(0, 20, NOON + MINUTE);
    gold.catch_up(&silver, clock(NOON + 2 * DAY)).await.unwrap();
    gold.refresh(&silver, clock(NOON + 2 * DAY)).await.unwrap();
    gold.close().await.unwrap();
    // The partitions are there, the table's progress is the old one.
    place.metastore.alter_table(&place.database, "sales_by_minute", &before, &EnvironmentContext::new()).await.unwrap();

    let mut behind = silver.clone();
    behind.checkpoint.partitions.get_mut(&0).unwrap().range.end -= 10;
    let mut gold = place.open(&silver).await.unwrap();
    assert_eq!(gold.catch_up(&behind, clock(NOON + 2 * DAY)).await.unwrap(), CatchUp::Done { rows: 30 });
    let report = gold.refresh(&behind, clock(NOON + 2 * DAY)).await.unwrap();
    assert_eq!(report.partitions_written, 0, "partitions claim rows that are not counted yet");
    assert_eq!(gold.catch_up(&silver, clock(NOON + 2 * DAY)).await.unwrap(), CatchUp::Done { rows: 10 });
    assert_eq!(gold.refresh(&silver, clock(NOON + 2 * DAY)).await.unwrap().partitions_written, 2);
    place.assert_equals_group_by(&silver).await;
    gold.close().await.unwrap();
    place.remove().await;
}

async fn silver_that_went_back_is_waited_for(place: Place) {
    let (mut gold, silver) = filled(&place).await;
    let mut back = silver.clone();
    back.checkpoint.partitions.get_mut(&0).unwrap().range.end = 150;
    let expected = std::collections::BTreeMap::from([(0, (200, 150))]);
    assert_eq!(gold.catch_up(&back, clock(NOON)).await.unwrap(), CatchUp::Waiting(expected.clone()));
    assert_eq!(gold.refresh(&back, clock(NOON)).await.unwrap().waiting_for, expected);
    gold.close().await.unwrap();

    // A restart in that state waits too, with its open windows still to be read.
    let mut gold = place.open(&back).await.unwrap();
    assert_eq!(gold.catch_up(&back, clock(NOON)).await.unwrap(), CatchUp::Waiting(expected));
    assert_eq!(gold.catch_up(&silver, clock(NOON)).await.unwrap(), CatchUp::Done { rows: 0 });
    gold.close().await.unwrap();

    let other = Silver { uuid: Uuid::new_v4(), ..silver.clone() };
    let error = place.open(&other).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Stop);
    assert!(error.chain().contains("computed from another silver table"), "{}", error.chain());

    let mut settings = place.settings();
    settings.measures[0].sql = "COUNT(Amount)".into();
    let plan = lakesmith::gold::GoldPlan::new(&settings, &super::silver_schema()).unwrap();
    let error = GoldMaintainer::open(plan, &place.database, &place.metastore, &place.storages, &silver).await.err().unwrap();
    assert!(error.chain().contains("computed by another definition"), "{}", error.chain());
    place.remove().await;
}

async fn a_window_that_lost_its_input_keeps_its_rows(place: Place) {
    let (mut gold, mut silver) = filled(&place).await;
    let before = place.rows(&place.partition("2024-07-01").await).await;
    silver.commit(0, 1, NOON + MINUTE);
    // Retention took the first hundred records, the late one's window among them.
    let whole = silver.rows.clone();
    silver.rows = silver.select(|_, offset| offset >= 100);
    gold.catch_up(&silver, clock(NOON + 60 * MINUTE)).await.unwrap();
    let report = gold.refresh(&silver, clock(NOON + 60 * MINUTE)).await.unwrap();
    let refused: Vec<String> = report.refused.iter().map(ToString::to_string).collect();
    assert_eq!(refused, ["window 2024-07-01T12:01:00Z: 50 rows before, 1 found"]);
    assert_eq!(place.rows(&place.partition("2024-07-01").await).await, before);

    // With its input back, the window takes the late record.
    silver.rows = whole;
    silver.commit(0, 1, NOON + MINUTE);
    gold.catch_up(&silver, clock(NOON + 60 * MINUTE)).await.unwrap();
    assert!(gold.refresh(&silver, clock(NOON + 60 * MINUTE)).await.unwrap().refused.is_empty());
    place.assert_equals_group_by(&silver).await;
    gold.close().await.unwrap();
    place.remove().await;
}

async fn little_memory_changes_no_result(place: Place) {
    let mut settings = place.settings();
    settings.memory_limit = bytesize::ByteSize::kib(4);
    let plan = lakesmith::gold::GoldPlan::new(&settings, &super::silver_schema()).unwrap();
    let mut silver = Silver::new();
    let mut gold = GoldMaintainer::open(plan, &place.database, &place.metastore, &place.storages, &silver).await.unwrap();
    let mut recomputed = 0;
    for round in 0..4 {
        for minute in 0..8 {
            let (rows, delta) = silver.commit(minute as i32 % 3, 60, NOON + (minute + round) * MINUTE);
            assert_eq!(gold.update(&rows, &delta, clock(NOON)).unwrap(), Update::Applied);
        }
        let report = gold.refresh(&silver, clock(NOON)).await.unwrap();
        recomputed += report.windows_recomputed;
        place.assert_equals_group_by(&silver).await;
    }
    assert!(recomputed > 0 && gold.memory_bytes() <= 4 << 10, "{recomputed} windows, {} bytes", gold.memory_bytes());
    gold.close().await.unwrap();
    place.remove().await;
}
