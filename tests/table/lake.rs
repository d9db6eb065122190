//! A lake to test on: a metastore, storage, and a database of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use iceberg::TableIdent;
use iceberg::spec::{NestedField, PrimitiveType, Schema, Transform, Type};
use lakesmith::catalog::{CatalogSettings, CommitOutcome, HiveCatalog};
use lakesmith::checkpoint::{Delta, OffsetRange};
use lakesmith::metastore::embedded::{self, EmbeddedMetastore};
use lakesmith::metastore::{Cascade, DeleteData, Metastore, MetastoreSettings};
use lakesmith::storage::{CloseBarrier, Depth, StorageSettings, Storages};
use lakesmith::table::{Append, Appended, LakeTable, Origin, Preparation, Prepared, TableSpec, WriterSettings};
use uuid::Uuid;

use crate::servers::{metastore_uri, variable};

/// Everything that a table needs, and what keeps it alive.
pub struct Lake {
    pub catalog: HiveCatalog,
    pub storages: Storages,
    pub metastore_uri: String,
    pub database: String,
    pub warehouse: String,
    /// Whether new tables say that their writers take the metastore's lock; none leaves it to the catalog.
    locking: Option<bool>,
    metastore_settings: MetastoreSettings,
    /// Its directory goes with it.
    _directory: Option<tempfile::TempDir>,
    server: Option<EmbeddedMetastore>,
}

impl Lake {
    /// lakesmith's own metastore and a local directory.
    pub async fn embedded() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let warehouse = directory.path().to_str().expect("a UTF-8 path").to_owned();
        let free_port = ([127, 0, 0, 1], 0).into();
        let server = embedded::serve(&directory.path().join("metastore.db"), free_port).await.expect("a metastore");
        let uri = server.uri();
        Self::new(uri, warehouse, Some(directory), Some(server)).await
    }

    /// The metastore and the HDFS that the environment names. Their absence is a failure.
    pub async fn real() -> Self {
        let warehouse = format!("{}/lakesmith-test/{}", variable("HDFS_URL"), Uuid::new_v4().simple());
        Self::new(variable("HIVE_METASTORE_URIS"), warehouse, None, None).await
    }

    /// Another version of the metastore, which `tests/stack/stack up --hms VERSION` starts, and the HDFS of the environment.
    pub async fn of_version(version: &str) -> Self {
        let warehouse = format!("{}/lakesmith-test/{}", variable("HDFS_URL"), Uuid::new_v4().simple());
        Self::new(metastore_uri(version), warehouse, None, None).await
    }

    /// With tables whose writers all take the metastore's lock.
    #[must_use]
    pub fn locking(self) -> Self {
        Self { locking: Some(true), ..self }
    }

    async fn new(
        metastore_uri: String,
        warehouse: String,
        directory: Option<tempfile::TempDir>,
        server: Option<EmbeddedMetastore>,
    ) -> Self {
        let storages = Storages::new(&StorageSettings { warehouse, ..StorageSettings::default() }).expect("storage");
        let metastore_settings = MetastoreSettings { uris: vec![metastore_uri.clone()], ..MetastoreSettings::default() };
        let metastore = Metastore::connect(&metastore_settings).await.expect("a metastore");
        let catalog = HiveCatalog::new(metastore, storages.clone(), CatalogSettings::default());
        let database = format!("table_test_{}", Uuid::new_v4().simple());
        let warehouse = storages.warehouse();
        Self {
            catalog,
            storages,
            metastore_uri,
            database,
            warehouse,
            locking: None,
            metastore_settings,
            _directory: directory,
            server,
        }
    }

    /// A catalog of its own connections, through another address if need be.
    pub async fn another_catalog(&self, metastore_uri: Option<String>, settings: CatalogSettings) -> HiveCatalog {
        self.catalog_through(vec![metastore_uri.unwrap_or_else(|| self.metastore_uri.clone())], settings).await
    }

    /// A catalog of its own connections to any of several servers.
    pub async fn catalog_through(&self, uris: Vec<String>, settings: CatalogSettings) -> HiveCatalog {
        let metastore =
            Metastore::connect(&MetastoreSettings { uris, ..self.metastore_settings.clone() }).await.expect("a metastore");
        HiveCatalog::new(metastore, self.storages.clone(), settings)
    }

    /// Removes what the test left.
    pub async fn remove(self) {
        self.catalog.metastore().drop_database(&self.database, DeleteData::Yes, Cascade::Yes).await.expect("the database to go");
        self.storages.delete_dir(&self.warehouse).await.expect("the warehouse to go");
        if let Some(server) = self.server {
            server.shutdown().await;
        }
    }

    pub fn spec(&self, name: &str, partition_by: &[&str]) -> TableSpec {
        TableSpec {
            ident: TableIdent::from_strs([&self.database, name]).expect("a name"),
            location: Some(format!("{}/{name}", self.warehouse)),
            schema: schema(),
            partition_by: partition_by.iter().map(|column| ((*column).to_owned(), Transform::Identity)).collect(),
            sort_by: Vec::new(),
            properties: self
                .locking
                .map(|locking| ("engine.hive.lock-enabled".to_owned(), locking.to_string()))
                .into_iter()
                .collect(),
            comment: Some("a table of a test".to_owned()),
        }
    }

    pub async fn table(&self, name: &str, partition_by: &[&str]) -> LakeTable {
        LakeTable::open_or_create(&self.catalog, &self.spec(name, partition_by)).await.expect("a table")
    }

    /// Another handle, as another process would have it.
    pub async fn open(&self, catalog: &HiveCatalog, name: &str) -> LakeTable {
        let ident = TableIdent::from_strs([&self.database, name]).expect("a name");
        LakeTable::open(catalog, &ident).await.expect("a readable table").expect("a table")
    }
}

fn schema() -> Schema {
    let required = |id, name: &str, kind| Arc::new(NestedField::required(id, name, Type::Primitive(kind)));
    let optional = |id, name: &str, kind| Arc::new(NestedField::optional(id, name, Type::Primitive(kind)));
    Schema::builder()
        .with_fields([
            required(1, "partition", PrimitiveType::Int),
            required(2, "offset", PrimitiveType::Long),
            optional(3, "timestamp", PrimitiveType::Timestamp),
            optional(4, "value", PrimitiveType::Binary),
            optional(5, "Year", PrimitiveType::Int),
        ])
        .build()
        .expect("a schema")
}

pub fn origin() -> Origin {
    Origin { topic: "sales".to_owned(), topic_id: Some("topic-1".to_owned()), cluster_id: Some("cluster-1".to_owned()) }
}

/// One row per offset, in two years.
pub fn rows(partition: i32, range: OffsetRange) -> RecordBatch {
    let offsets: Vec<i64> = (range.start..range.end).collect();
    let columns: [(&str, ArrayRef); 5] = [
        ("partition", Arc::new(Int32Array::from(vec![partition; offsets.len()]))),
        ("offset", Arc::new(Int64Array::from(offsets.clone()))),
        ("timestamp", Arc::new(TimestampMicrosecondArray::from_iter_values(offsets.iter().map(|offset| offset * 1_000_000)))),
        ("value", Arc::new(BinaryArray::from_iter_values(offsets.iter().map(|offset| format!("message {offset}"))))),
        ("Year", Arc::new(Int32Array::from_iter_values(offsets.iter().map(|offset| 2023 + (offset % 2) as i32)))),
    ];
    RecordBatch::try_from_iter(columns).expect("a batch")
}

pub fn delta(partition: i32, range: OffsetRange) -> Delta {
    let mut delta = Delta::default();
    delta.extend(partition, range, range.len() as u64).expect("a delta");
    delta
}

/// Writes the rows of a range and prepares them; everything is durable.
pub async fn prepare(table: &mut LakeTable, commit_id: Uuid, partition: i32, range: OffsetRange) -> Preparation {
    let barrier = CloseBarrier::new();
    let mut writer = table.writer(&WriterSettings::default(), &barrier).expect("a writer");
    writer.write(&rows(partition, range)).await.expect("rows written");
    let files = writer.finish().await.expect("files");
    let append =
        Append { files, delta: delta(partition, range), origin: origin(), commit_id, input: None, summary: BTreeMap::new() };
    let prepared = table.prepare(append, &barrier).await.expect("a prepared batch");
    barrier.wait().await.expect("files closed");
    prepared
}

pub async fn ready(table: &mut LakeTable, partition: i32, range: OffsetRange) -> Prepared {
    match prepare(table, Uuid::now_v7(), partition, range).await {
        Preparation::Ready(prepared) => *prepared,
        other => panic!("not ready: {other:?}"),
    }
}

pub async fn append(table: &mut LakeTable, partition: i32, range: OffsetRange) -> Appended {
    committed(ready(table, partition, range).await.swap(table).await)
}

pub fn committed(outcome: CommitOutcome<Appended>) -> Appended {
    match outcome {
        CommitOutcome::Committed(appended) => appended,
        other => panic!("not committed: {other:?}"),
    }
}

/// The offsets that a scan finds, sorted.
pub async fn offsets(table: &LakeTable, ranges: Option<&BTreeMap<i32, OffsetRange>>) -> Vec<i64> {
    let records = table.scan(ranges, Some(&["offset"])).await.expect("a scan");
    let batches: Vec<RecordBatch> = records.try_collect().await.expect("records");
    let mut offsets: Vec<i64> =
        batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
    offsets.sort_unstable();
    offsets
}

/// Everything below the table's metadata directory is in use.
pub async fn assert_no_orphans(lake: &Lake, table: &LakeTable) {
    let mut known: Vec<String> = vec![table.metadata_location().to_owned()];
    known.extend(table.metadata().metadata_log().iter().map(|entry| entry.metadata_file.clone()));
    for snapshot in table.metadata().snapshots() {
        known.push(snapshot.manifest_list().to_owned());
        let list = table.to_iceberg().unwrap().manifest_list_reader(snapshot).load().await.unwrap();
        known.extend(list.entries().iter().map(|manifest| manifest.manifest_path.clone()));
    }
    let files = lake.storages.list(&format!("{}/metadata", table.metadata().location()), Depth::Direct).await.unwrap();
    let orphans: Vec<_> = files.iter().filter(|file| !known.contains(&file.location)).map(|file| &file.location).collect();
    assert!(orphans.is_empty(), "{orphans:#?}");
}

pub async fn collect(scan: iceberg::scan::TableScan) -> Vec<RecordBatch> {
    scan.to_arrow().await.expect("a scan").try_collect().await.expect("records")
}
