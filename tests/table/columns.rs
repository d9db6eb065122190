//! Columns that others reorder, put first, drop, rename and widen: the metastore compares their types by position, and a commit goes through
//! all the same.

use std::sync::Arc;

use iceberg::spec::{NestedField, NestedFieldRef, PrimitiveType, Schema, Type};
use iceberg::{TableRequirement, TableUpdate};
use lakesmith::catalog::CommitOutcome;
use lakesmith::checkpoint::OffsetRange;
use lakesmith::metastore::ColumnCheck;
use lakesmith::table::LakeTable;

use super::lake::{Lake, append, offsets};

super::on_every_lake!(
    a_table_whose_columns_moved_is_committed_on,
    a_table_that_hive_does_not_read_is_committed_on,
    columns_that_widen_grow_and_go_are_committed_on,
);

async fn entry_columns(lake: &Lake) -> Vec<String> {
    let entry = lake.catalog.metastore().table(&lake.database, "t").await.unwrap().unwrap();
    entry.columns().into_iter().map(|column| column.name.to_lowercase()).collect()
}

/// The table's columns; servers keep names in lower case.
fn lower_names(table: &LakeTable) -> Vec<String> {
    names(table).into_iter().map(|name| name.to_lowercase()).collect()
}

fn names(table: &LakeTable) -> Vec<String> {
    table.metadata().current_schema().as_struct().fields().iter().map(|field| field.name.clone()).collect()
}

/// As another engine changes the schema: a commit of metadata alone.
async fn evolve(lake: &Lake, table: &mut LakeTable, change: impl FnOnce(&mut Vec<NestedFieldRef>)) {
    let before = table.metadata().current_schema();
    let mut fields = before.as_struct().fields().to_vec();
    change(&mut fields);
    let schema = Schema::builder().with_fields(fields).build().unwrap();
    let requirements = vec![TableRequirement::CurrentSchemaIdMatch { current_schema_id: before.schema_id() }];
    let updates = vec![TableUpdate::AddSchema { schema }, TableUpdate::SetCurrentSchema { schema_id: -1 }];
    match lake.catalog.commit(table.ident(), requirements, updates).await {
        CommitOutcome::Committed(_) => table.refresh().await.unwrap(),
        other => panic!("not committed: {other:?}"),
    }
}

fn optional(id: i32, name: &str, kind: PrimitiveType) -> NestedFieldRef {
    Arc::new(NestedField::optional(id, name, Type::Primitive(kind)))
}

async fn move_columns_about(lake: &Lake, mut table: LakeTable) {
    append(&mut table, 0, OffsetRange::new(0, 3)).await;
    assert_eq!(entry_columns(lake).await, lower_names(&table));
    // `value` (binary) to the front, and `offset` (bigint) behind `Year` (int).
    evolve(lake, &mut table, |fields| {
        let value = fields.remove(3);
        fields.insert(0, value);
        let offset = fields.remove(2);
        fields.push(offset);
    })
    .await;
    assert_eq!(names(&table), ["value", "partition", "timestamp", "Year", "offset"]);
    let check = lake.catalog.metastore().abilities().await.unwrap().column_check;
    if !matches!(check, ColumnCheck::ByPosition { can_be_lifted: false, .. }) {
        assert_eq!(entry_columns(lake).await, lower_names(&table), "the entry changes in the same call as the pointer");
    }
    append(&mut table, 0, OffsetRange::new(3, 6)).await;
    evolve(lake, &mut table, |fields| fields.insert(0, optional(6, "note", PrimitiveType::String))).await;
    append(&mut table, 0, OffsetRange::new(6, 9)).await;
    assert_eq!(offsets(&lake.open(&lake.catalog, "t").await, None).await, (0..9).collect::<Vec<_>>());
    // What Hive 2.3's metastore refuses for one commit, the next one completes.
    assert_eq!(entry_columns(lake).await, lower_names(&table));
    let entry = lake.catalog.metastore().table(&lake.database, "t").await.unwrap().unwrap();
    assert_eq!(entry.parameter("metadata_location"), Some(table.metadata_location()));
    super::lake::assert_no_orphans(lake, &table).await;
}

async fn a_table_whose_columns_moved_is_committed_on(lake: &Lake) {
    move_columns_about(lake, lake.table("t", &[]).await).await;
}

/// Without Iceberg's SerDe, as Spark and Trino create tables: no server exempts such an entry.
async fn a_table_that_hive_does_not_read_is_committed_on(lake: &Lake) {
    let mut spec = lake.spec("t", &[]);
    spec.properties.insert("engine.hive.enabled".to_owned(), "false".to_owned());
    let table = LakeTable::open_or_create(&lake.catalog, &spec).await.unwrap();
    let entry = lake.catalog.metastore().table(&lake.database, "t").await.unwrap().unwrap();
    assert_eq!(entry.serde_library(), Some("org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe"));
    assert_eq!(entry.parameter("storage_handler"), None);
    move_columns_about(lake, table).await;
}

async fn columns_that_widen_grow_and_go_are_committed_on(lake: &Lake) {
    let mut table = lake.table("t", &[]).await;
    append(&mut table, 0, OffsetRange::new(0, 3)).await;
    evolve(lake, &mut table, |fields| {
        fields[4] = optional(5, "YearOfSale", PrimitiveType::Long);
        fields.insert(3, optional(6, "when", PrimitiveType::Date));
    })
    .await;
    evolve(lake, &mut table, |fields| _ = fields.remove(3)).await;
    evolve(lake, &mut table, |fields| _ = fields.remove(2)).await;
    assert_eq!(names(&table), ["partition", "offset", "value", "YearOfSale"]);
    // One commit more, whatever it changes.
    evolve(lake, &mut table, |fields| fields.push(optional(7, "note", PrimitiveType::String))).await;
    assert_eq!(entry_columns(lake).await, lower_names(&table));
    assert_eq!(offsets(&lake.open(&lake.catalog, "t").await, None).await, [0, 1, 2]);
}
