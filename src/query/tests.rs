//! Queries over real tables of every kind, in the embedded metastore and a temporary directory.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use iceberg::TableIdent;
use iceberg::spec::{NestedField, PrimitiveType, Schema, Transform, Type};
use uuid::Uuid;

use super::output::{cells, write_csv};
use super::overview::{TableKind, details, overview};
use super::{QuerySession, QuerySettings};
use crate::catalog::{CatalogSettings, Lakehouse};
use crate::checkpoint::{Delta, OffsetRange};
use crate::compatibility::HiveFiles;
use crate::hive::{
    FileFormat, HiveTableSpec, HiveViewSpec, PartitionKey, PartitionVersion, ViewColumn, ensure_database, ensure_table,
    ensure_view, hive_columns, switch, write_version,
};
use crate::metastore::{FieldSchema, MetastoreSettings};
use crate::storage::{CloseBarrier, StorageSettings};
use crate::table::{Append, LakeTable, Origin, Preparation, TableSpec, WriterSettings};

/// A silver table, and a gold table over two days with a view.
struct Lake {
    lakehouse: Lakehouse,
    session: QuerySession,
    _directory: tempfile::TempDir,
}

async fn lake() -> Lake {
    let directory = tempfile::tempdir().unwrap();
    let storage = StorageSettings { warehouse: directory.path().display().to_string(), ..StorageSettings::default() };
    let lakehouse = Lakehouse::open(&MetastoreSettings::default(), &storage, &CatalogSettings::default()).await.unwrap();
    ensure_database(lakehouse.metastore(), "lake", Some(&format!("{}/lake.db", lakehouse.storages().warehouse()))).await.unwrap();
    silver(&lakehouse).await;
    gold(&lakehouse).await;
    let session = QuerySession::new(lakehouse.catalog().clone(), "lake", &QuerySettings::default()).unwrap();
    Lake { lakehouse, session, _directory: directory }
}

async fn silver(lakehouse: &Lakehouse) {
    let required = |id, name: &str, kind| Arc::new(NestedField::required(id, name, Type::Primitive(kind)));
    let schema = Schema::builder().with_fields([
        required(1, "partition", PrimitiveType::Int),
        required(2, "offset", PrimitiveType::Long),
        required(3, "OrderID", PrimitiveType::String),
        required(4, "Category", PrimitiveType::String),
        required(5, "Revenue", PrimitiveType::Decimal { precision: 10, scale: 2 }),
        required(6, "Year", PrimitiveType::Int),
        required(7, "OrderDate", PrimitiveType::Date),
    ]);
    let spec = TableSpec {
        ident: TableIdent::from_strs(["lake", "silver"]).unwrap(),
        location: Some(format!("{}/silver", lakehouse.storages().warehouse())),
        schema: schema.build().unwrap(),
        partition_by: vec![("Year".to_string(), Transform::Identity)],
        sort_by: Vec::new(),
        properties: BTreeMap::new(),
        comment: None,
    };
    let mut table = LakeTable::open_or_create(lakehouse.catalog(), &spec).await.unwrap();
    let columns: [(&str, ArrayRef); 7] = [
        ("partition", Arc::new(Int32Array::from(vec![0; 4]))),
        ("offset", Arc::new(Int64Array::from(vec![0, 1, 2, 3]))),
        ("OrderID", Arc::new(StringArray::from(vec!["A", "B", "C", "D"]))),
        ("Category", Arc::new(StringArray::from(vec!["Books", "Toys", "Books", "Sports"]))),
        ("Revenue", Arc::new(Decimal128Array::from(vec![1050, 200, 325, 10]).with_precision_and_scale(10, 2).unwrap())),
        ("Year", Arc::new(Int32Array::from(vec![2023, 2023, 2024, 2024]))),
        ("OrderDate", Arc::new(Date32Array::from(vec![19_500, 19_501, 19_800, 19_801]))),
    ];
    let barrier = CloseBarrier::new();
    let mut writer = table.writer(&WriterSettings::default(), &barrier).unwrap();
    writer.write(&RecordBatch::try_from_iter(columns).unwrap()).await.unwrap();
    let mut delta = Delta::default();
    delta.extend(0, OffsetRange::new(0, 4), 4).unwrap();
    let origin = Origin { topic: "t".into(), topic_id: None, cluster_id: None };
    let files = writer.finish().await.unwrap();
    let append = Append { files, delta, origin, commit_id: Uuid::now_v7(), input: None, summary: BTreeMap::new() };
    let Preparation::Ready(ready) = table.prepare(append, &barrier).await.unwrap() else { panic!() };
    barrier.wait().await.unwrap();
    ready.swap(&mut table).await.into_result(&"silver").unwrap();
}

async fn gold(lakehouse: &Lakehouse) {
    let day = |start_s: i64, categories: &[&str], revenues: &[i128]| {
        let rows = categories.len();
        let columns: [(&str, ArrayRef); 3] = [
            ("window_start", Arc::new(TimestampMicrosecondArray::from(vec![start_s * 1_000_000; rows]))),
            ("Category", Arc::new(StringArray::from(categories.to_vec()))),
            ("TotalRevenue", Arc::new(Decimal128Array::from(revenues.to_vec()).with_precision_and_scale(20, 2).unwrap())),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    let days = [
        ("2024-07-01", day(1_719_838_800, &["Books", "Toys"], &[1375, 200])),
        ("2024-07-02", day(1_719_925_200, &["Sports"], &[10])),
    ];
    let location = format!("{}/gold", lakehouse.storages().warehouse());
    let spec = HiveTableSpec {
        database: "lake".into(),
        name: "gold".into(),
        location: location.clone(),
        format: FileFormat::Parquet,
        serde_parameters: BTreeMap::new(),
        columns: hive_columns(&days[0].1.schema()).unwrap(),
        partition_keys: vec![FieldSchema::new("window_date", "string")],
        parameters: BTreeMap::new(),
    };
    let table = ensure_table(lakehouse.metastore(), lakehouse.storages(), &spec).await.unwrap();
    let mut versions = Vec::new();
    for (date, rows) in days {
        let key = PartitionKey::new([("window_date", date)]);
        let location = key.version_location(&location, "v-1-x");
        let statistics =
            write_version(lakehouse.storages(), &location, &rows, &BTreeMap::new(), HiveFiles::default()).await.unwrap();
        versions.push(PartitionVersion { key, location, statistics, parameters: BTreeMap::new() });
    }
    switch(lakehouse.metastore(), &table, &versions, &BTreeMap::new()).await.unwrap();
    let mut columns = table.columns();
    columns.extend(table.partition_keys());
    let names = ["window_start", "category", "total_revenue", "window_date"];
    let columns = columns.iter().zip(names).map(|(column, name)| ViewColumn::new(column, name)).collect();
    let view = HiveViewSpec { database: "lake".into(), name: "gold_view".into(), table: "gold".into(), columns };
    ensure_view(lakehouse.metastore(), &view).await.unwrap();
}

impl Lake {
    async fn csv(&self, sql: &str) -> String {
        let mut text = Vec::new();
        write_csv(self.session.query(sql).await.unwrap_or_else(|error| panic!("{sql}: {}", error.chain())), &mut text)
            .await
            .unwrap();
        String::from_utf8(text).unwrap()
    }

    async fn error(&self, sql: &str) -> String {
        match self.session.query(sql).await {
            Ok(_) => panic!("{sql} was not refused"),
            Err(error) => format!("{}; {}", error.chain(), error.hint_text().unwrap_or_default()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_an_iceberg_table_are_found_in_any_case() {
    let lake = lake().await;
    assert_eq!(
        lake.csv("SELECT category, SUM(revenue) AS Total FROM lake.silver GROUP BY CATEGORY ORDER BY total DESC").await,
        "Category,Total\nBooks,13.75\nToys,2.00\nSports,0.10\n"
    );
    assert_eq!(lake.csv("select count(*) as n from silver").await, "n\n4\n");
    assert_eq!(lake.csv("select OrderID from silver where year = 2024 and revenue > 0.15").await, "OrderID\nC\n");
    assert_eq!(lake.csv("select orderid from Lake.Silver where orderdate >= date '2024-03-19' order by 1").await, "OrderID\nD\n");
    assert_eq!(lake.csv("select s.offset, s.partition from silver s where s.offset = 2").await, "offset,partition\n2,0\n");
    // A list that ends in `partition, offset` is no superfluous comma before an OFFSET clause.
    assert_eq!(lake.csv("select partition, offset from silver order by offset limit 1").await, "partition,offset\n0,0\n");
    assert_eq!(
        lake.csv("select * from silver where not (year = 2023 and upper(category) = 'BOOKS') order by offset limit 1")
            .await
            .lines()
            .count(),
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hive_table_is_read_at_its_partitions_locations() {
    let lake = lake().await;
    assert_eq!(
        lake.csv("SELECT * FROM gold ORDER BY window_start, category").await,
        "window_start,category,totalrevenue,window_date\n\
         2024-07-01 13:00:00,Books,13.75,2024-07-01\n2024-07-01 13:00:00,Toys,2.00,2024-07-01\n2024-07-02 13:00:00,Sports,0.10,2024-07-02\n"
    );
    assert_eq!(lake.csv("SELECT Category FROM gold WHERE window_date = '2024-07-02'").await, "Category\nSports\n");
    assert_eq!(lake.csv("SELECT count(*) AS n FROM gold WHERE TotalRevenue > 1").await, "n\n2\n");
    let instant = "SELECT count(*) AS n FROM gold WHERE window_start = timestamp '2024-07-01 13:00:00'";
    assert_eq!(lake.csv(instant).await, "n\n2\n");
    assert_eq!(
        lake.csv("SELECT max(window_date) AS last, count(*) AS n FROM gold WHERE window_date > '2030'").await,
        "last,n\n,0\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_a_filter_excludes_are_not_even_listed() {
    let lake = lake().await;
    // Without its files the other day can only be skipped.
    let lost = format!("{}/gold/window_date=2024-07-01", lake.lakehouse.storages().warehouse());
    lake.lakehouse.storages().delete_dir(&lost).await.unwrap();
    let plan = lake.csv("EXPLAIN SELECT Category FROM gold WHERE window_date = '2024-07-02' AND TotalRevenue > 0").await;
    assert!(plan.contains("window_date=2024-07-02") && !plan.contains("window_date=2024-07-01"), "{plan}");
    assert_eq!(lake.csv("SELECT Category FROM gold WHERE window_date = '2024-07-02'").await, "Category\nSports\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn views_and_joins_across_formats_work_whatever_the_spelling() {
    let lake = lake().await;
    assert_eq!(
        lake.csv("SELECT category, total_revenue FROM lake.gold_view WHERE window_date = '2024-07-01' ORDER BY 2").await,
        "category,total_revenue\nToys,2.0\nBooks,13.75\n"
    );
    let joined = "SELECT s.Category, sum(s.Revenue) AS silver, max(g.TotalRevenue) AS gold FROM silver s \
                  JOIN gold g ON s.Category = g.category GROUP BY s.Category ORDER BY 1";
    assert_eq!(lake.csv(joined).await, "Category,silver,gold\nBooks,13.75,13.75\nSports,0.10,0.10\nToys,2.00,2.00\n");
    let using = "SELECT count(*) AS n FROM silver JOIN gold_view USING (CATEGORY)";
    assert_eq!(lake.csv(using).await, "n\n4\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_table_consists_of_has_trinos_names() {
    let lake = lake().await;
    let silver = details(lake.lakehouse.catalog(), "lake", "silver").await.unwrap().unwrap();
    let snapshot = silver.snapshots[0].id;
    assert_eq!(
        lake.csv("SELECT snapshot_id, parent_id, operation, summary['total-records'] AS n FROM \"silver$snapshots\"").await,
        format!("snapshot_id,parent_id,operation,n\n{snapshot},,append,4\n")
    );
    let whole = lake.csv("SELECT * FROM \"silver$snapshots\"").await;
    assert!(whole.starts_with("committed_at,snapshot_id,parent_id,operation,manifest_list,summary\n20"), "{whole}");
    assert_eq!(
        lake.csv("SELECT snapshot_id, parent_id, is_current_ancestor FROM LAKE.\"silver$history\"").await,
        format!("snapshot_id,parent_id,is_current_ancestor\n{snapshot},,true\n")
    );
    assert_eq!(
        lake.csv("SELECT content, file_format, spec_id, partition, record_count FROM silver$files ORDER BY partition").await,
        "content,file_format,spec_id,partition,record_count\n0,PARQUET,0,Year=2023,2\n0,PARQUET,0,Year=2024,2\n"
    );
    assert_eq!(
        lake.csv("SELECT partition, record_count, file_count, delete_file_count FROM \"silver$partitions\" ORDER BY 1").await,
        "partition,record_count,file_count,delete_file_count\nYear=2023,2,1,0\nYear=2024,2,1,0\n"
    );
    // Counted as the data is.
    let sum = "SELECT sum(f.file_size_in_bytes) = max(p.n) AS same, max(m.added_data_files_count) AS files FROM silver$files f, \
               (SELECT sum(total_size) AS n FROM silver$partitions) p, silver$manifests m";
    assert_eq!(lake.csv(sum).await, "same,files\ntrue,2\n");
    assert_eq!(
        lake.csv("SELECT window_date, record_count, file_count FROM \"gold$partitions\" ORDER BY 1").await,
        "window_date,record_count,file_count\n2024-07-01,2,1\n2024-07-02,1,1\n"
    );
    assert_eq!(
        lake.error("SELECT * FROM gold$snapshots").await,
        "lake.gold is a Hive table, which has no such thing; it has \"lake.gold$partitions\""
    );
    assert!(lake.error("SELECT * FROM gold_view$partitions").await.contains("is a view"));
    let unknown = lake.error("SELECT * FROM silver$refs").await;
    assert!(unknown.starts_with("a table has no $refs; there are \"silver$snapshots\", "), "{unknown}");
    assert!(lake.error("SELECT * FROM slver$files").await.starts_with("table lake.slver does not exist"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_says_why() {
    let lake = lake().await;
    let error = lake.error("SELECT * FROM lake.slver").await;
    assert_eq!(error, "table lake.slver does not exist; tables of lake: gold, gold_view, silver");
    assert_eq!(lake.error("SELECT Categry FROM silver").await, "column categry does not exist; did you mean Category?");
    assert!(
        lake.error("SELECT s.x FROM silver s")
            .await
            .starts_with("column s.x does not exist; columns: partition, offset, OrderID")
    );
    assert!(lake.error("SELECT upper(1, 2) FROM silver").await.starts_with("the query cannot be planned: "));
    assert!(lake.error("SELECT * FROM nowhere.t").await.contains("databases: "), "{error}");
    assert!(lake.error("DELETE FROM silver").await.contains("a query only reads"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_listed_and_described() {
    let lake = lake().await;
    assert_eq!(
        lake.csv("SHOW TABLES IN lake").await,
        "database,table,kind\nlake,gold,hive\nlake,gold_view,view\nlake,silver,iceberg\n"
    );
    let described = lake.csv("DESCRIBE silver").await;
    assert!(described.contains("OrderID"), "{described}");

    let tables = overview(lake.lakehouse.catalog(), "lake").await.unwrap();
    let sizes: Vec<_> = tables.iter().map(|table| (table.name.as_str(), table.kind, table.rows, table.files)).collect();
    assert_eq!(
        sizes,
        [
            ("gold", TableKind::Hive, Some(3), Some(2)),
            ("gold_view", TableKind::View, None, None),
            ("silver", TableKind::Iceberg, Some(4), Some(2))
        ]
    );
    let silver = details(lake.lakehouse.catalog(), "lake", "silver").await.unwrap().unwrap();
    assert_eq!(silver.partitioned_by, ["Year"]);
    assert_eq!(silver.positions[&0].range, OffsetRange::new(0, 4));
    assert_eq!((silver.snapshots.len(), silver.snapshots[0].offsets.as_deref()), (1, Some("d;0:0+4")));
    assert_eq!(silver.topic.as_deref(), Some("t"));
    let gold = details(lake.lakehouse.catalog(), "lake", "gold").await.unwrap().unwrap();
    assert_eq!(gold.partitions.iter().map(|partition| partition.rows).collect::<Vec<_>>(), [Some(2), Some(1)]);
    assert!(details(lake.lakehouse.catalog(), "lake", "absent").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_in_batches_and_limits_are_honoured() {
    let lake = lake().await;
    let mut answer = lake.session.query("SELECT value AS n FROM generate_series(1, 100000)").await.unwrap();
    let (mut rows, mut batches) = (0, 0);
    while let Some(batch) = answer.next().await {
        rows += batch.unwrap().num_rows();
        batches += 1;
    }
    assert_eq!(rows, 100_000);
    assert!(batches > 1, "the answer came in one piece");

    let settings = QuerySettings { memory_limit: bytesize::ByteSize::mib(1), threads: 1 };
    let small = QuerySession::new(lake.lakehouse.catalog().clone(), "lake", &settings).unwrap();
    let mut answer = small.query("SELECT array_agg(value) FROM generate_series(1, 1000000)").await.unwrap();
    let error = answer.next().await.unwrap().unwrap_err();
    assert_eq!(error.hint_text(), Some("raise query.memory_limit"), "{}", error.chain());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cell_is_shown_as_a_person_would_write_it() {
    let lake = lake().await;
    let mut answer =
        lake.session.query("SELECT NULL AS a, 0.10 AS b, timestamp '2024-07-01 13:00:00' AS c, 'x' AS d").await.unwrap();
    let row = cells(&answer.next().await.unwrap().unwrap()).unwrap();
    assert_eq!(row, [[None, Some("0.10".to_string()), Some("2024-07-01 13:00:00".to_string()), Some("x".to_string())]]);
}
