//! What a schema change costs on a table with 10,000 data files and 1,000 snapshots, beside an empty one.
//!
//! ```sh
//! cargo bench --bench schema
//! ```
//!
//! The tables lie in a temporary directory, with the embedded metastore. Each change is one `lakesmith schema` command's work: the table
//! is opened, checked, and committed. It prints milliseconds for both tables, and fails if a data file was written or taken away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch};
use iceberg::TableIdent;
use iceberg::spec::{NestedField, PrimitiveType, Schema, Transform, Type};
use lakesmith::catalog::{CatalogSettings, HiveCatalog, Lakehouse};
use lakesmith::checkpoint::{Delta, OffsetRange};
use lakesmith::metastore::MetastoreSettings;
use lakesmith::schema::{self, Change, NewDefault, PartitionChange, Position};
use lakesmith::storage::{CloseBarrier, Depth, StorageSettings};
use lakesmith::table::{Append, LakeTable, Origin, Preparation, TableSpec, UpkeepSettings, WriterSettings};
use uuid::Uuid;

const SNAPSHOTS: i64 = 1_000;
const FILES_EACH: i64 = 10;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run())
}

async fn run() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let warehouse = directory.path().to_string_lossy().into_owned();
    let storage = StorageSettings { warehouse, ..StorageSettings::default() };
    let lakehouse = Lakehouse::open(&MetastoreSettings::default(), &storage, &CatalogSettings::default()).await?;
    let catalog = lakehouse.catalog();
    let empty = create(catalog, "empty").await?;
    let began = Instant::now();
    let full = fill(create(catalog, "full").await?).await?;
    eprintln!("{SNAPSHOTS} commits of {FILES_EACH} files took {:.0?}", began.elapsed());
    let files = data_files(&lakehouse, &full).await?;
    if files.len() as i64 != SNAPSHOTS * FILES_EACH || full.metadata().snapshots().count() as i64 != SNAPSHOTS {
        return Err(format!("{} files, {} snapshots", files.len(), full.metadata().snapshots().count()).into());
    }

    println!("| change | {} files, {SNAPSHOTS} snapshots | empty |\n|---|---|---|", files.len());
    for (name, change) in changes()? {
        let (full, empty) = (time(catalog, &full, &change).await?, time(catalog, &empty, &change).await?);
        println!("| {name} | {:.0} ms | {:.0} ms |", full.as_secs_f64() * 1e3, empty.as_secs_f64() * 1e3);
    }
    if data_files(&lakehouse, &full).await? != files {
        return Err("a change of the schema touched data files".into());
    }
    lakehouse.close().await;
    Ok(())
}

enum Work {
    Columns(Change),
    Partitions(PartitionChange),
}

fn changes() -> Result<Vec<(&'static str, Work)>, Failure> {
    let add = Change::Add {
        path: "note".parse()?,
        field_type: "string".into(),
        doc: Some("a note".into()),
        position: Some(Position::First),
        default: None,
    };
    // The first default also makes the table one of format version 3.
    let default = Change::Add {
        path: "points".parse()?,
        field_type: "int".into(),
        doc: None,
        position: None,
        default: Some(NewDefault { value: "7".into(), required: true }),
    };
    let rename = Change::Rename { path: "note".parse()?, to: "remark".into() };
    let widen = Change::Widen { path: "amount".parse()?, to: "long".into() };
    let moved = Change::Move { path: "amount".parse()?, position: Position::First };
    let partition = PartitionChange::Add("bucket(4, amount)".into());
    Ok(vec![
        ("add-column", Work::Columns(add)),
        ("rename-column", Work::Columns(rename)),
        ("widen-column", Work::Columns(widen)),
        ("move-column", Work::Columns(moved)),
        ("drop-column", Work::Columns(Change::Drop { path: "remark".parse()? })),
        ("partition add", Work::Partitions(partition)),
        ("add-column --default", Work::Columns(default)),
    ])
}

async fn time(catalog: &HiveCatalog, table: &LakeTable, work: &Work) -> Result<Duration, Failure> {
    let began = Instant::now();
    let table = schema::open(catalog, table.ident()).await?;
    let done = match work {
        Work::Columns(change) => schema::apply(&table, &["partition", "offset"], std::slice::from_ref(change)).await?.is_some(),
        Work::Partitions(change) => schema::repartition(&table, change).await?.is_some(),
    };
    if done { Ok(began.elapsed()) } else { Err("nothing was changed".into()) }
}

async fn create(catalog: &HiveCatalog, name: &str) -> Result<LakeTable, Failure> {
    let ident = TableIdent::from_strs(["bench", name])?;
    catalog.ensure_database(ident.namespace()).await?;
    let required = |id, name: &str, kind| Arc::new(NestedField::required(id, name, Type::Primitive(kind)));
    let fields = [
        required(1, "partition", PrimitiveType::Int),
        required(2, "offset", PrimitiveType::Long),
        required(3, "part", PrimitiveType::Int),
        required(4, "amount", PrimitiveType::Int),
    ];
    let spec = TableSpec {
        ident,
        location: None,
        schema: Schema::builder().with_fields(fields).build()?,
        partition_by: vec![("part".to_owned(), Transform::Identity)],
        sort_by: Vec::new(),
        properties: BTreeMap::new(),
        comment: None,
    };
    // The daemon keeps 720 snapshots; a table that Spark looks after may have any number.
    let upkeep = UpkeepSettings { snapshots_max: SNAPSHOTS as usize, ..UpkeepSettings::default() };
    Ok(LakeTable::open_or_create(catalog, &spec).await?.with_upkeep(upkeep))
}

async fn fill(mut table: LakeTable) -> Result<LakeTable, Failure> {
    for commit in 0..SNAPSHOTS {
        let range = OffsetRange::new(commit * FILES_EACH, (commit + 1) * FILES_EACH);
        let offsets: Vec<i64> = (range.start..range.end).collect();
        let columns: [(&str, ArrayRef); 4] = [
            ("partition", Arc::new(Int32Array::from(vec![0; offsets.len()]))),
            ("offset", Arc::new(Int64Array::from(offsets.clone()))),
            ("part", Arc::new(Int32Array::from_iter_values(offsets.iter().map(|offset| (offset % FILES_EACH) as i32)))),
            ("amount", Arc::new(Int32Array::from_iter_values(offsets.iter().map(|offset| (offset % 1_000) as i32)))),
        ];
        let barrier = CloseBarrier::new();
        let mut writer = table.writer(&WriterSettings::default(), &barrier)?;
        writer.write(&RecordBatch::try_from_iter(columns)?).await?;
        let files = writer.finish().await?;
        let mut delta = Delta::default();
        delta.extend(0, range, range.len() as u64)?;
        let origin = Origin { topic: "bench".into(), topic_id: None, cluster_id: None };
        let append = Append { files, delta, origin, commit_id: Uuid::now_v7(), input: None, summary: BTreeMap::new() };
        let Preparation::Ready(prepared) = table.prepare(append, &barrier).await? else { return Err("not ready".into()) };
        barrier.wait().await?;
        let ident = table.ident().clone();
        prepared.swap(&mut table).await.into_result(&ident)?;
    }
    Ok(table)
}

async fn data_files(lakehouse: &Lakehouse, table: &LakeTable) -> Result<Vec<(String, u64)>, Failure> {
    let files = lakehouse.storages().list(&format!("{}/data", table.metadata().location()), Depth::Recursive).await?;
    let mut files: Vec<_> = files.into_iter().filter(|file| !file.is_dir).map(|file| (file.location, file.modified_ms)).collect();
    files.sort();
    Ok(files)
}
