//! A daemon of the simulation: it starts, commits and starts again after an error as the pipeline does, with the shipped tables.
//!
//! What is left out is what the pipeline does between commits: polling, decoding, encoding. A data file is a text with a line per record,
//! and is described in the manifest as a writer of Parquet would describe it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use iceberg::spec::{DataContentType, DataFileBuilder, DataFileFormat, Struct};
use lakesmith::catalog::HiveCatalog;
use lakesmith::checkpoint::{Checkpoint, Delta, OffsetRange};
use lakesmith::storage::{CloseBarrier, Create};
use lakesmith::table::{Append, DataFiles, InputRef, LakeTable, Preparation, Prepared};
use lakesmith::{Error, Kind, Result, clock};
use uuid::Uuid;

use super::process::Process;
use super::world::{BRONZE, Plan, SILVER, World, origin};

/// As `pipeline.retry` between sessions, about: from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// The partitions that a writer reads now; the group may move them.
pub type Assigned = Arc<Mutex<BTreeSet<i32>>>;

/// Runs until its partitions are read to the end, in bronze and in silver. An error is one that a person has to look at.
pub async fn run(world: Arc<World>, process: Arc<Process>, assigned: Assigned) -> Result<()> {
    let mut pause = PAUSES.0;
    loop {
        let failure = match world.catalog(&process).await {
            Ok(catalog) => loop {
                match session(&world, &catalog, &assigned).await {
                    Ok(()) => return Ok(()),
                    Err(error) if error.kind() == Kind::Transient => {
                        clock::sleep(pause).await;
                        pause = PAUSES.1.min(pause * 2);
                    }
                    Err(error) => break error,
                }
            },
            Err(error) => error,
        };
        // A stop is final. Anything else ends the process; whoever supervises it starts another. A server that fails all through
        // the probe seems to protect nothing: that stop is safe, and another start finds out.
        let doubted = world.plan.probes && failure.chain().contains("commits could be lost");
        if failure.kind() == Kind::Stop && !doubted {
            return Err(failure);
        }
        clock::sleep(pause).await;
        pause = PAUSES.1.min(pause * 2);
    }
}

struct Tables {
    bronze: LakeTable,
    silver: LakeTable,
}

/// A layer's share of a commit.
struct Ready(Box<Prepared>);

async fn session(world: &World, catalog: &HiveCatalog, assigned: &Assigned) -> Result<()> {
    let open =
        async |name| LakeTable::open_or_create(catalog, &world.spec(name)).await.map(|table| table.with_upkeep(world.upkeep()));
    let mut tables = Tables { bronze: open(BRONZE).await?, silver: open(SILVER).await? };
    // The source is read from where bronze stood; after a commit from where it then stands.
    let mut positions = checkpoint(&tables.bronze)?.next_offsets();
    loop {
        let mine = assigned.lock().unwrap().clone();
        catch_up(world, &mut tables, &mine).await?;
        let ends = world.plan.ends.iter().filter(|(partition, _)| mine.contains(partition));
        let due: BTreeMap<i32, OffsetRange> = ends
            .map(|(&partition, &end)| {
                let next = positions.get(&partition).copied().unwrap_or(0);
                (partition, OffsetRange { start: next, end: end.min(next + world.plan.step) })
            })
            .filter(|(_, range)| !range.is_empty())
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        cycle(&mut tables, due).await?;
        positions = checkpoint(&tables.bronze)?.next_offsets();
    }
}

fn checkpoint(table: &LakeTable) -> Result<Checkpoint> {
    Ok(table.checkpoint()?.unwrap_or_else(|| Checkpoint::start("sales", None, None)))
}

/// Writes both layers' files, closes them at one barrier, and swaps bronze, then silver.
async fn cycle(tables: &mut Tables, due: BTreeMap<i32, OffsetRange>) -> Result<()> {
    let barrier = CloseBarrier::new();
    let commit_id = Uuid::now_v7();
    let Tables { bronze, silver } = tables;
    let next = checkpoint(silver)?.next_offsets();
    // What bronze reads again after its pointer went back, silver has already.
    let silver_due: BTreeMap<i32, OffsetRange> = due
        .iter()
        .map(|(partition, range)| {
            (*partition, OffsetRange { start: range.start.max(next.get(partition).copied().unwrap_or(0)), ..*range })
        })
        .filter(|(_, range)| !range.is_empty())
        .collect();
    let input = InputRef { table_uuid: bronze.uuid(), snapshot_id: None };
    let bronze_rows = rows_of(&due);
    let bronze_ready = prepare(bronze, &due, &bronze_rows, commit_id, None, &barrier);
    let silver_ready = async {
        if silver_due.is_empty() {
            return Ok(None);
        }
        prepare(silver, &silver_due, &rows_of(&silver_due), commit_id, Some(input), &barrier).await
    };
    let (bronze_ready, silver_ready) = tokio::join!(bronze_ready, silver_ready);
    let closed = barrier.wait().await;
    let (bronze_ready, silver_ready) = match (bronze_ready, silver_ready, closed) {
        (Ok(bronze_ready), Ok(silver_ready), Ok(())) => (bronze_ready, silver_ready),
        (bronze_ready, silver_ready, closed) => {
            let mut failure = closed.err().map(Error::from);
            for (ready, table) in [(bronze_ready, &*bronze), (silver_ready, &*silver)] {
                match ready {
                    Ok(Some(Ready(prepared))) => prepared.discard(table).await,
                    Ok(None) => {}
                    Err(error) => failure = Some(error),
                }
            }
            return Err(failure.expect("one of the three failed"));
        }
    };
    if let Some(Ready(prepared)) = bronze_ready
        && let Err(error) = prepared.swap(bronze).await.into_result(&BRONZE)
    {
        if let Some(Ready(prepared)) = silver_ready {
            prepared.discard(silver).await;
        }
        return Err(error);
    }
    if let Some(Ready(prepared)) = silver_ready {
        prepared.swap(silver).await.into_result(&SILVER)?;
    }
    Ok(())
}

/// Commits to silver what it lacks of bronze, from bronze's files.
async fn catch_up(world: &World, tables: &mut Tables, mine: &BTreeSet<i32>) -> Result<()> {
    let Tables { bronze, silver } = tables;
    let mut missing = checkpoint(silver)?.missing_from(&checkpoint(bronze)?);
    missing.retain(|partition, _| mine.contains(partition));
    if missing.is_empty() {
        return Ok(());
    }
    // Another writer's upkeep may have deleted files of a version that is out of date: that passes when bronze is looked at again, as it
    // does for `LakeTable::scan`. Of the version in force nothing may be missing.
    let location = bronze.metadata_location();
    let mut rows = world.reader.rows(location).map_err(|found| {
        let in_force = world.metastore.parameter(BRONZE, "metadata_location").as_deref() == Some(location);
        if in_force { Error::stop(found) } else { Error::transient(found) }
    })?;
    rows.retain(|(partition, offset)| missing.get(partition).is_some_and(|range| range.contains(*offset)));
    let barrier = CloseBarrier::new();
    let input = InputRef { table_uuid: bronze.uuid(), snapshot_id: None };
    let ready = prepare(silver, &missing, &rows, Uuid::now_v7(), Some(input), &barrier).await;
    let closed = barrier.wait().await;
    match (ready?, closed) {
        (Some(Ready(prepared)), Ok(())) => prepared.swap(silver).await.into_result(&SILVER).map(drop),
        (Some(Ready(prepared)), Err(error)) => {
            prepared.discard(silver).await;
            Err(error.into())
        }
        (None, _) => Ok(()),
    }
}

fn rows_of(ranges: &BTreeMap<i32, OffsetRange>) -> Vec<(i32, i64)> {
    ranges
        .iter()
        .flat_map(|(&partition, &range)| Plan::records(partition, range).map(move |offset| (partition, offset)))
        .collect()
}

/// Writes a batch's data file and metadata; none if the batch is in the table already.
async fn prepare(
    table: &mut LakeTable,
    ranges: &BTreeMap<i32, OffsetRange>,
    rows: &[(i32, i64)],
    commit_id: Uuid,
    input: Option<InputRef>,
    barrier: &CloseBarrier,
) -> Result<Option<Ready>> {
    let mut delta = Delta::default();
    for (&partition, &range) in ranges {
        let records = rows.iter().filter(|(of, offset)| *of == partition && range.contains(*offset)).count();
        delta.extend(partition, range, records as u64).expect("a delta");
    }
    let files = data_file(table, rows, barrier).await?;
    let append = Append { files, delta, origin: origin(), commit_id, input, summary: BTreeMap::new() };
    match table.prepare(append, barrier).await? {
        Preparation::Ready(prepared) => Ok(Some(Ready(prepared))),
        Preparation::AlreadyCommitted(_) => Ok(None),
        Preparation::Mismatch(mismatch) => Err(Error::transient("the table is elsewhere").caused_by(mismatch)),
    }
}

async fn data_file(table: &LakeTable, rows: &[(i32, i64)], barrier: &CloseBarrier) -> Result<DataFiles> {
    let spec_id = table.metadata().default_partition_spec_id();
    if rows.is_empty() {
        return Ok(DataFiles::of(Vec::new(), spec_id));
    }
    let location = format!("{}/data/{}.rows", table.metadata().location(), Uuid::now_v7());
    let content: String = rows.iter().map(|(partition, offset)| format!("{partition} {offset}\n")).collect();
    let size_bytes = content.len() as u64;
    let mut file = table.catalog().storages().create(&location, Create::New).await?;
    file.write(Bytes::from(content)).await?;
    file.defer_close(barrier);
    let described = DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_path(location)
        .file_format(DataFileFormat::Parquet)
        .partition(Struct::empty())
        .partition_spec_id(spec_id)
        .record_count(rows.len() as u64)
        .file_size_in_bytes(size_bytes)
        .build()
        .expect("a data file");
    Ok(DataFiles::of(vec![described], spec_id))
}
