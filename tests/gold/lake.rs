//! Gold over a real silver: an Iceberg table whose files are pruned by time when a window is computed again.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use iceberg::TableIdent;
use iceberg::spec::{NestedField, PrimitiveType, Schema, Type};
use lakesmith::catalog::{CatalogSettings, CommitOutcome, HiveCatalog};
use lakesmith::checkpoint::Delta;
use lakesmith::gold::{CatchUp, Update};
use lakesmith::storage::CloseBarrier;
use lakesmith::table::{Append, LakeTable, Origin, Preparation, TableSpec, WriterSettings};
use uuid::Uuid;

use super::{DAY, MINUTE, NOON, Place, Silver, clock, on_every_metastore};

on_every_metastore!(gold_follows_an_iceberg_table);

async fn silver_table(place: &Place) -> LakeTable {
    let catalog = HiveCatalog::new(place.metastore.clone(), place.storages.clone(), CatalogSettings::default());
    let required = |id, name: &str, kind| Arc::new(NestedField::required(id, name, Type::Primitive(kind)));
    let optional = |id, name: &str, kind| Arc::new(NestedField::optional(id, name, Type::Primitive(kind)));
    let schema = Schema::builder().with_fields([
        required(1, "partition", PrimitiveType::Int),
        required(2, "offset", PrimitiveType::Long),
        optional(3, "kafka_timestamp", PrimitiveType::Timestamp),
        optional(4, "Category", PrimitiveType::String),
        optional(5, "Amount", PrimitiveType::Decimal { precision: 18, scale: 2 }),
        optional(6, "CustomerID", PrimitiveType::String),
        required(7, "processing_timestamp", PrimitiveType::Timestamp),
    ]);
    let spec = TableSpec {
        ident: TableIdent::from_strs([&place.database, "silver"]).unwrap(),
        location: Some(format!("{}/silver", place.storages.warehouse())),
        schema: schema.build().unwrap(),
        partition_by: Vec::new(),
        sort_by: Vec::new(),
        properties: BTreeMap::new(),
        comment: None,
    };
    LakeTable::open_or_create(&catalog, &spec).await.unwrap()
}

async fn commit(table: &mut LakeTable, rows: &RecordBatch, delta: &Delta) {
    let barrier = CloseBarrier::new();
    let mut writer = table.writer(&WriterSettings::default(), &barrier).unwrap();
    writer.write(rows).await.unwrap();
    let append = Append {
        files: writer.finish().await.unwrap(),
        delta: delta.clone(),
        origin: Origin { topic: "sales".into(), topic_id: None, cluster_id: None },
        commit_id: Uuid::now_v7(),
        input: None,
        summary: BTreeMap::new(),
    };
    let Preparation::Ready(prepared) = table.prepare(append, &barrier).await.unwrap() else { panic!("not ready") };
    barrier.wait().await.unwrap();
    assert!(matches!(prepared.swap(table).await, CommitOutcome::Committed(_)));
}

async fn gold_follows_an_iceberg_table(place: Place) {
    let mut silver = silver_table(&place).await;
    // The same rows in memory, to compare with.
    let mut copy = Silver::new();
    let mut gold = place.open(&silver).await.unwrap();
    for minute in 0..6 {
        let (rows, delta) = copy.commit(minute as i32 % 2, 100, NOON + minute * 10 * MINUTE);
        commit(&mut silver, &rows, &delta).await;
        if minute < 3 {
            assert_eq!(gold.update(&rows, &delta, clock(NOON + DAY)).unwrap(), Update::Applied);
        }
    }
    assert_eq!(gold.catch_up(&silver, clock(NOON + DAY)).await.unwrap(), CatchUp::Done { rows: 300 });
    gold.refresh(&silver, clock(NOON + DAY)).await.unwrap();
    place.assert_equals_group_by(&copy).await;

    // A record for a closed window, and one without a timestamp.
    let (rows, delta) = copy.commit(0, 30, NOON + 10 * MINUTE);
    commit(&mut silver, &rows, &delta).await;
    assert_eq!(gold.update(&rows, &delta, clock(NOON + DAY)).unwrap(), Update::Applied);
    let report = gold.refresh(&silver, clock(NOON + DAY)).await.unwrap();
    assert_eq!((report.windows_recomputed, report.partitions_written), (1, 1));
    place.assert_equals_group_by(&copy).await;
    gold.close().await.unwrap();

    let mut gold = place.open(&silver).await.unwrap();
    let (rows, delta) = copy.commit(1, 30, NOON + 50 * MINUTE);
    commit(&mut silver, &rows, &delta).await;
    assert_eq!(gold.catch_up(&silver, clock(NOON + DAY)).await.unwrap(), CatchUp::Done { rows: 30 });
    gold.refresh(&silver, clock(NOON + DAY)).await.unwrap();
    place.assert_equals_group_by(&copy).await;
    gold.close().await.unwrap();
    drop(silver);
    place.remove().await;
}
