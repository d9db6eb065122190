//! A worker of a computing engine: computes parts of a reprocessing into data files, and says which.
//!
//! It decides records as the driver would: the same program, the same definition, the same bronze. It commits nothing.
//!
//! *Failure*: the process ends with an error, and the engine's task with it. An engine may try a task again, or have it twice; each attempt
//! writes files of names of its own.
//!
//! *What may leak*: the files of an attempt that failed, or whose result did not reach the driver; no table has them.

use std::path::Path;
use std::sync::Arc;

use iceberg::{NamespaceIdent, TableIdent};
use tokio_util::sync::CancellationToken;
use tracing::info;
use uuid::Uuid;

use super::part::{Job, Part, PartResult, Target};
use crate::bronze::BronzeTable;
use crate::catalog::Lakehouse;
use crate::checkpoint::{OffsetRange, PartitionId};
use crate::error::{Context, Error, Result};
use crate::pipeline::report::Silent;
use crate::pipeline::reprocess::ground::Ground;
use crate::pipeline::reprocess::{Extract, SilverStage, Tally, lake};
use crate::silver::SilverTable;
use crate::storage::CloseBarrier;
use crate::table::{CarriedFiles, RecordFiles, TableFormat};
use crate::window::Window;

/// Computes the parts that the lines name, and tells the result of each when its files are closed.
pub async fn reprocess_parts(job_file: &Path, lines: &[String], mut tell: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let parts = lines.iter().map(|line| Part::from_line(line)).collect::<Result<Vec<_>>>()?;
    if parts.is_empty() {
        return Ok(());
    }
    let job = read(job_file)?;
    if let Some(foreign) = parts.iter().find(|part| part.job != job.id) {
        return Err(Error::failed(format!("part {} belongs to job {}, and this is job {}", foreign.number, foreign.job, job.id)));
    }
    let definition = &job.definition;
    let lakehouse = Lakehouse::open(&definition.metastore, &definition.storage, &definition.catalog).await?;
    let done = compute_all(&job, &parts, &lakehouse, &mut tell).await;
    lakehouse.close().await;
    done
}

fn read(job_file: &Path) -> Result<Job> {
    let name = job_file.display();
    let text = std::fs::read(job_file).map_err(|error| Error::config(format!("{name} cannot be read")).caused_by(error))?;
    let mut job: Job = serde_json::from_slice(&text).map_err(|error| {
        Error::config(format!("{name} describes no reprocessing"))
            .caused_by(error)
            .hint("such files are written by `lakesmith reprocess --engine` of the same version")
    })?;
    let storage = &mut job.definition.storage;
    storage.block_size = job.block_size_bytes.map(bytesize::ByteSize);
    // The driver's Hadoop configuration is not on this machine: its own is in the environment.
    if storage.hadoop_conf_dir.as_ref().is_some_and(|directory| !directory.is_dir()) {
        storage.hadoop_conf_dir = None;
    }
    Ok(job)
}

async fn compute_all(job: &Job, parts: &[Part], lakehouse: &Lakehouse, tell: &mut impl FnMut(&str) -> Result<()>) -> Result<()> {
    let ground = Ground::open(&job.definition, lakehouse).await?;
    if ground.plan.definition_hash() != job.definition_hash {
        return Err(Error::failed("silver's definition is not the one that the driver had").hint(
            "was a column added meanwhile? then the driver has to begin anew; and every machine must have the same lakesmith",
        ));
    }
    ensure_same("bronze", ground.bronze.uuid(), job.bronze_uuid)?;
    let silver = open(&ground, &job.silver).await?;
    let rejected = open(&ground, &job.rejected).await?;
    for part in parts {
        ensure_read(&ground.bronze, part)?;
        let only = job.only_rejected.then(|| ground.rejected.clone());
        let extract = Extract { ranges: part.ranges.clone(), only };
        let tally = Tally::new(Arc::new(Silent));
        let needs = ground.parts(ground.specs.clone(), extract, &tally, &CancellationToken::new());
        let mut stage = SilverStage::new(needs, silver.clone(), rejected.clone())?;
        let result = compute(&mut stage, &ground.bronze, part).await;
        let result = result.with_context(|| format!("part {} of job {} failed", part.number, part.job))?;
        Window::ReprocessPartWritten.pass();
        info!(part = part.number, "a part is computed");
        tell(&result.to_line()?)?;
    }
    Ok(())
}

async fn open(ground: &Ground<'_>, target: &Target) -> Result<SilverTable> {
    let database = NamespaceIdent::new(ground.definition.tables.database.clone());
    let ident = TableIdent::new(database, target.table.clone());
    let opened = SilverTable::open(ground.catalog(), &ident, TableFormat::Iceberg).await?;
    let table = opened.ok_or_else(|| {
        Error::failed(format!("table {ident} is gone")).hint("was the reprocessing abandoned, or finished by another process?")
    })?;
    ensure_same(&target.table, table.uuid(), target.uuid)?;
    Ok(table)
}

fn ensure_same(table: &str, found: Uuid, expected: Uuid) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::failed(format!("{table} is the table with uuid {found}, and the driver's had {expected}")))
}

/// Stops where bronze lacks offsets that it had: a record that is not there would be in neither table.
fn ensure_read(bronze: &BronzeTable, part: &Part) -> Result<()> {
    let has = bronze.checkpoint()?.unwrap_or_default().partitions;
    let is_read = |(partition, range): (&PartitionId, &OffsetRange)| {
        has.get(partition).is_some_and(|coverage| coverage.range.intersect(range) == *range)
    };
    if part.ranges.iter().all(is_read) {
        return Ok(());
    }
    Err(Error::failed(format!("table {} no longer has the offsets of part {}", bronze.ident(), part.number))
        .hint("its pointer went back; give the command again when the daemon has read them again"))
}

async fn compute(stage: &mut SilverStage, bronze: &BronzeTable, part: &Part) -> Result<PartResult> {
    let barrier = CloseBarrier::new();
    let files = stage.encode(bronze, &part.ranges, &barrier).await?;
    barrier.wait().await.context("files of silver could not be closed")?;
    Ok(PartResult {
        part: part.clone(),
        silver: carry(&mut stage.silver, &files.silver)?,
        rejected: carry(&mut stage.rejected, &files.rejected)?,
        silver_rows: files.silver_rows,
        rejected_rows: files.rejected_rows,
    })
}

fn carry(table: &mut SilverTable, files: &RecordFiles) -> Result<CarriedFiles> {
    match files {
        RecordFiles::Lake(files) => lake(table)?.carry(files),
        RecordFiles::Logged(_) => Err(Error::failed(format!("files of table {} cannot be handed on", table.ident()))),
    }
}
