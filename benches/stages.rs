//! What each stage of the hot path costs by itself, on one thread: the preset's messages, as the generator makes them.
//!
//! ```sh
//! cargo bench --bench stages                 everything
//! cargo bench --bench stages -- commit       what a commit costs with few files in the table, and with many
//! ```
//!
//! Rows per second are of a stage that has the processor to itself; files go to a temporary directory. `alone` is the bound of a stage that
//! writes: the same columns through Parquet's own writer, with nothing of lakesmith around it.

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput};
use iceberg::TableIdent;
use iceberg::spec::{DataContentType, DataFileBuilder, DataFileFormat, Schema, Struct, Transform};
use lakesmith::catalog::{CatalogSettings, HiveCatalog, Lakehouse};
use lakesmith::checkpoint::{Delta, OffsetRange};
use lakesmith::config::Config;
use lakesmith::gold::open_windows::OpenWindows;
use lakesmith::gold::{GoldPlan, Progress, Update};
use lakesmith::metastore::MetastoreSettings;
use lakesmith::record::RawBatch;
use lakesmith::silver::SilverPlan;
use lakesmith::storage::{CloseBarrier, StorageSettings};
use lakesmith::table::{Append, DataFiles, LakeTable, Origin, Preparation, TableSpec, WriterSettings};
use tokio::runtime::Runtime;
use uuid::Uuid;

use self::common::{Failure, config, messages, parquet_alone};

const ROWS: u64 = 200_000;
const NOW_US: i64 = 1_735_700_000_000_000;

fn main() -> Result<(), Failure> {
    let runtime = Runtime::new()?;
    let config = config()?;
    let plan = SilverPlan::new(&config.silver)?;
    let raw = runtime.block_on(messages(ROWS))?;
    let mut criterion = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(8)).configure_from_args();

    decode(&mut criterion, &config, &plan, &raw)?;
    let silver = raw.iter().map(|batch| plan.transform(batch, NOW_US)).collect::<Result<Vec<_>, _>>()?;
    let rows: Vec<RecordBatch> = silver.into_iter().map(|batch| batch.rows).collect();
    encode(&mut criterion, &runtime, &plan, &raw, &rows)?;
    gold(&mut criterion, &config, &plan, &raw, &rows)?;
    commit(&mut criterion, &runtime)?;
    criterion.final_summary();
    Ok(())
}

/// From bytes to typed rows: the columns alone, and with derived columns and expectations.
fn decode(criterion: &mut Criterion, config: &Config, plan: &SilverPlan, raw: &[RawBatch]) -> Result<(), Failure> {
    let mut settings = config.silver.clone();
    settings.derive.clear();
    settings.expect.clear();
    settings.partition_by.clear();
    let columns_alone = SilverPlan::new(&settings)?;
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(ROWS));
    for (name, plan) in [("columns", &columns_alone), ("columns, expressions, expectations", plan)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                raw.iter().map(|batch| plan.transform(batch, NOW_US).map(|done| done.rows.num_rows())).sum::<Result<usize, _>>()
            })
        });
    }
    group.finish();
    Ok(())
}

/// From rows to closed files, beside what Parquet's writer takes for the same columns in one file.
fn encode(
    criterion: &mut Criterion,
    runtime: &Runtime,
    plan: &SilverPlan,
    raw: &[RawBatch],
    silver: &[RecordBatch],
) -> Result<(), Failure> {
    let bronze: Vec<RecordBatch> = raw.iter().map(|batch| batch.records.clone()).collect();
    let lake = Lake::open(runtime)?;
    let tables = [
        ("bronze", lakesmith::bronze::schema(), Vec::new(), &bronze[..]),
        ("silver, by month", plan.schema().clone(), plan.partition_by().to_vec(), silver),
        ("silver, not partitioned", plan.schema().clone(), Vec::new(), silver),
    ];
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(ROWS)).sampling_mode(SamplingMode::Flat);
    for (name, schema, partition_by, batches) in tables {
        let table = runtime.block_on(lake.table(schema, partition_by))?;
        let settings = WriterSettings { plain_columns: plan.no_dictionary().to_vec(), ..WriterSettings::default() };
        group.bench_function(name, |bencher| {
            bencher.iter(|| runtime.block_on(write(&table, &settings, batches)).expect("files are written"))
        });
    }
    for (name, batches) in [("bronze alone", &bronze[..]), ("silver alone", silver)] {
        group.bench_function(name, |bencher| bencher.iter(|| parquet_alone(batches).expect("a file is written")));
    }
    group.finish();
    lake.close(runtime);
    Ok(())
}

async fn write(table: &LakeTable, settings: &WriterSettings, batches: &[RecordBatch]) -> Result<(), Failure> {
    let barrier = CloseBarrier::new();
    let mut writer = table.writer(settings, &barrier)?;
    for batch in batches {
        writer.write(batch).await?;
    }
    let files = writer.finish().await?;
    barrier.wait().await?;
    table.discard(&files).await;
    Ok(())
}

/// Counting rows in open windows.
fn gold(
    criterion: &mut Criterion,
    config: &Config,
    plan: &SilverPlan,
    raw: &[RawBatch],
    silver: &[RecordBatch],
) -> Result<(), Failure> {
    let settings = config.gold.first().ok_or("the preset has no gold")?;
    let gold = GoldPlan::new(settings, plan.arrow_schema())?;
    let columns = gold.columns();
    let project = |rows: &RecordBatch| {
        let indices = columns.iter().map(|name| rows.schema_ref().index_of(name)).collect::<Result<Vec<_>, _>>()?;
        rows.project(&indices)
    };
    let rows = silver.iter().map(project).collect::<Result<Vec<_>, _>>()?;
    let mut group = criterion.benchmark_group("gold");
    group.throughput(Throughput::Elements(ROWS));
    group.bench_function("update", |bencher| {
        bencher.iter_batched(
            || OpenWindows::new(&gold, &Progress::start()),
            |mut windows| {
                for (rows, raw) in rows.iter().zip(raw) {
                    let update = windows.update(rows, &raw.delta, NOW_US).expect("rows are counted");
                    assert_eq!(update, Update::Applied);
                }
                windows
            },
            BatchSize::PerIteration,
        )
    });
    group.finish();
    Ok(())
}

/// Appending one file to a table that has few, and to one that has many.
fn commit(criterion: &mut Criterion, runtime: &Runtime) -> Result<(), Failure> {
    let lake = Lake::open(runtime)?;
    let mut group = criterion.benchmark_group("commit");
    group.sampling_mode(SamplingMode::Flat);
    for files in [0, 1_000, 50_000] {
        let mut table = runtime.block_on(lake.table(lakesmith::bronze::schema(), Vec::new()))?;
        let mut next = 0;
        // In commits of a thousand, as from many partitions.
        for _ in 0..files / 1_000 {
            runtime.block_on(append(&mut table, &mut next, 1_000))?;
        }
        group.bench_function(BenchmarkId::new("files in the table", files), |bencher| {
            bencher.iter_custom(|times| {
                let began = Instant::now();
                for _ in 0..times {
                    runtime.block_on(append(&mut table, &mut next, 1)).expect("a commit");
                }
                began.elapsed()
            })
        });
    }
    group.finish();
    lake.close(runtime);
    Ok(())
}

/// Commits so many files, which are described but not there: what is measured is metadata.
async fn append(table: &mut LakeTable, next: &mut i64, files: i64) -> Result<(), Failure> {
    let (range, spec_id) = (OffsetRange::new(*next, *next + files), table.metadata().default_partition_spec_id());
    *next = range.end;
    let location = table.metadata().location().to_owned();
    let described = (0..files).map(|_| {
        DataFileBuilder::default()
            .content(DataContentType::Data)
            .file_path(format!("{location}/data/{}.parquet", Uuid::now_v7()))
            .file_format(DataFileFormat::Parquet)
            .partition(Struct::empty())
            .partition_spec_id(spec_id)
            .record_count(1)
            .file_size_in_bytes(1_000)
            .build()
    });
    let files = DataFiles::of(described.collect::<Result<_, _>>()?, spec_id);
    let mut delta = Delta::default();
    delta.extend(0, range, range.len() as u64)?;
    let origin = Origin { topic: "bench".into(), topic_id: None, cluster_id: None };
    let barrier = CloseBarrier::new();
    let append = Append { files, delta, origin, commit_id: Uuid::now_v7(), input: None, summary: BTreeMap::new() };
    let Preparation::Ready(prepared) = table.prepare(append, &barrier).await? else { return Err("not ready".into()) };
    barrier.wait().await?;
    let ident = table.ident().clone();
    prepared.swap(table).await.into_result(&ident)?;
    Ok(())
}

/// Tables in a temporary directory, with the embedded metastore.
struct Lake {
    lakehouse: Lakehouse,
    _directory: tempfile::TempDir,
}

impl Lake {
    fn open(runtime: &Runtime) -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let warehouse = directory.path().to_string_lossy().into_owned();
        let storage = StorageSettings { warehouse, ..StorageSettings::default() };
        let (metastore, catalog) = (MetastoreSettings::default(), CatalogSettings::default());
        let lakehouse = runtime.block_on(Lakehouse::open(&metastore, &storage, &catalog))?;
        Ok(Self { lakehouse, _directory: directory })
    }

    async fn table(&self, schema: Schema, partition_by: Vec<(String, Transform)>) -> Result<LakeTable, Failure> {
        let catalog: &HiveCatalog = self.lakehouse.catalog();
        let ident = TableIdent::from_strs(["bench", &format!("t{}", Uuid::new_v4().simple())])?;
        catalog.ensure_database(ident.namespace()).await?;
        let spec = TableSpec {
            ident,
            location: None,
            schema,
            partition_by,
            sort_by: Vec::new(),
            properties: BTreeMap::new(),
            comment: None,
        };
        Ok(LakeTable::open_or_create(catalog, &spec).await?)
    }

    fn close(self, runtime: &Runtime) {
        runtime.block_on(self.lakehouse.close());
    }
}
