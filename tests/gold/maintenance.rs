//! The ordinary life of a gold table.

use lakesmith::gold::{CatchUp, Update};
use lakesmith::metastore::HiveTable;

use super::{DAY, MINUTE, NOON, Place, Silver, clock, on_every_metastore};

on_every_metastore!(
    a_table_is_made_and_follows_silver,
    a_late_row_changes_its_window,
    a_restart_goes_on_from_the_floor,
    old_versions_are_swept
);

async fn a_table_is_made_and_follows_silver(place: Place) {
    let mut silver = Silver::new();
    let mut gold = place.open(&silver).await.unwrap();
    let (rows, delta) = silver.commit(0, 500, NOON);
    assert_eq!(gold.update(&rows, &delta, clock(NOON)).unwrap(), Update::Applied);
    let (rows, delta) = silver.commit(1, 300, NOON + DAY);
    assert_eq!(gold.update(&rows, &delta, clock(NOON + DAY)).unwrap(), Update::Applied);
    // In a task of its own, as the pipeline runs it.
    let refreshed = tokio::spawn(async move {
        let report = gold.refresh(&silver, clock(NOON + DAY)).await.unwrap();
        gold.catch_up(&silver, clock(NOON + DAY)).await.unwrap();
        (gold, silver, report)
    });
    let (mut gold, mut silver, report) = refreshed.await.unwrap();
    assert_eq!((report.partitions_written, report.files, report.watermark_us), (2, 2, Some(NOON + DAY + 299)));
    assert!(report.put_right.is_empty() && report.refused.is_empty());
    place.assert_equals_group_by(&silver).await;

    let table = place.metastore.table(&place.database, "sales_by_minute").await.unwrap().unwrap();
    assert_eq!(table.parameter("lakesmith.positions"), Some("d;0:0+500;1:0+300"));
    assert_eq!(table.parameter("lakesmith.epoch"), Some("1"));
    assert_eq!(table.parameter("lakesmith.revision"), Some("1.1"));
    assert_eq!(table.parameter("lakesmith.silver-uuid"), Some(silver.uuid.to_string().as_str()));
    let view = place.metastore.table(&place.database, "sales_by_minute_view").await.unwrap().unwrap();
    assert_eq!(view.table_type(), HiveTable::VIEW);
    assert!(view.view_expanded_text().unwrap().contains("CAST(`t`.`totalrevenue` AS DOUBLE) AS `total_revenue`"));
    assert_eq!(view.columns().last().unwrap().name, "window_date");

    // Only the second day changes; its first version stays where it is for readers that are still at it.
    let before = (place.partition("2024-07-01").await, place.partition("2024-07-02").await);
    let (rows, delta) = silver.commit(1, 200, NOON + DAY + MINUTE);
    assert_eq!(gold.update(&rows, &delta, clock(NOON + DAY)).unwrap(), Update::Applied);
    let report = gold.refresh(&silver, clock(NOON + DAY)).await.unwrap();
    assert_eq!(report.partitions_written, 1);
    let after = (place.partition("2024-07-01").await, place.partition("2024-07-02").await);
    assert_eq!(before.0.location(), after.0.location());
    assert_ne!(before.1.location(), after.1.location());
    assert!(after.1.location().unwrap().contains("/window_date=2024-07-02/v-1-"));
    place.rows(&before.1).await;
    place.assert_equals_group_by(&silver).await;

    // Nothing changed: nothing is written.
    let report = gold.refresh(&silver, clock(NOON + DAY)).await.unwrap();
    assert_eq!(report.partitions_written, 0);
    assert_eq!(place.partition("2024-07-02").await.location(), after.1.location());
    tokio::spawn(gold.close()).await.unwrap().unwrap();
    place.remove().await;
}

async fn a_late_row_changes_its_window(place: Place) {
    let mut silver = Silver::new();
    let mut gold = place.open(&silver).await.unwrap();
    for minute in [0, 1, 2, 60] {
        let (rows, delta) = silver.commit(0, 50, NOON + minute * MINUTE);
        assert_eq!(gold.update(&rows, &delta, clock(NOON + 60 * MINUTE)).unwrap(), Update::Applied);
    }
    let report = gold.refresh(&silver, clock(NOON + 60 * MINUTE)).await.unwrap();
    assert_eq!(report.windows_open, 1, "windows that ended over ten minutes before the watermark are closed");
    for (instant, partitions) in [(NOON + MINUTE, 1), (NOON - 3 * DAY, 1), (NOON + 60 * MINUTE, 1)] {
        let (rows, delta) = silver.commit(0, 20, instant);
        assert_eq!(gold.update(&rows, &delta, clock(NOON + 60 * MINUTE)).unwrap(), Update::Applied);
        let report = gold.refresh(&silver, clock(NOON + 60 * MINUTE)).await.unwrap();
        assert_eq!(report.partitions_written, partitions);
        place.assert_equals_group_by(&silver).await;
    }
    assert_eq!(place.partitions().await.len(), 2);
    gold.close().await.unwrap();
    place.remove().await;
}

async fn a_restart_goes_on_from_the_floor(place: Place) {
    let mut silver = Silver::new();
    let mut gold = place.open(&silver).await.unwrap();
    for minute in 0..40 {
        silver.commit(minute as i32 % 2, 25, NOON + minute * MINUTE);
    }
    assert_eq!(gold.catch_up(&silver, clock(NOON + 40 * MINUTE)).await.unwrap(), CatchUp::Done { rows: 1000 });
    gold.refresh(&silver, clock(NOON + 40 * MINUTE)).await.unwrap();
    // Counted, but not written: killed. The lock of a process that is gone would be held until the server's timeout, so it is let go.
    let (rows, delta) = silver.commit(0, 25, NOON + 40 * MINUTE);
    assert_eq!(gold.update(&rows, &delta, clock(NOON + 40 * MINUTE)).unwrap(), Update::Applied);
    gold.close().await.unwrap();

    let mut gold = place.open(&silver).await.unwrap();
    let progress = gold.progress().clone();
    assert!(progress.floor[&0] > 0 && progress.floor[&0] < 500, "only open windows are read again: {progress:?}");
    let (rows, delta) = silver.commit(1, 25, NOON + 41 * MINUTE);
    assert!(matches!(gold.update(&rows, &delta, clock(NOON)).unwrap(), Update::Gap(_)), "open windows are not complete yet");
    assert_eq!(gold.refresh(&silver, clock(NOON)).await.unwrap().partitions_written, 0);
    assert_eq!(gold.catch_up(&silver, clock(NOON + 41 * MINUTE)).await.unwrap(), CatchUp::Done { rows: 50 });
    let report = gold.refresh(&silver, clock(NOON + 41 * MINUTE)).await.unwrap();
    assert_eq!(report.partitions_written, 1);
    assert_eq!(place.partition("2024-07-01").await.parameter("lakesmith.epoch"), Some("2"));
    place.assert_equals_group_by(&silver).await;
    gold.close().await.unwrap();
    place.remove().await;
}

async fn old_versions_are_swept(place: Place) {
    let mut silver = Silver::new();
    let mut gold = place.open(&silver).await.unwrap();
    for minute in 0..3 {
        silver.commit(0, 25, NOON + minute * MINUTE);
        gold.catch_up(&silver, clock(NOON)).await.unwrap();
        gold.refresh(&silver, clock(NOON)).await.unwrap();
    }
    let now = std::time::SystemTime::now();
    assert_eq!(gold.sweep(now).await.unwrap().versions_deleted, 0, "they are younger than a day");
    let report = gold.sweep(now + std::time::Duration::from_secs(2 * 86_400)).await.unwrap();
    assert_eq!((report.versions_deleted, report.versions_kept), (2, 1));
    place.assert_equals_group_by(&silver).await;
    gold.close().await.unwrap();
    place.remove().await;
}
