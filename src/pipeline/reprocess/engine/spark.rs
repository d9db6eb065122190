//! A reprocessing whose rows Spark has computed: Spark hands out the ranges, lakesmith itself decides the records.
//!
//! Spark's own functions read JSON and numbers in another way than silver does, so a job in SQL would reject other records. The script that is
//! written here has Spark start this program on its executors (`TRANSFORM`), one process for each part of what the stage lacks. A worker writes
//! data files among silver's and rejected's own and answers with a line that describes them; the lines come back as the rows of the script's
//! query, on the standard output of a command that the user chooses. All parts together become one commit of each table, as a step of the
//! catch-up would.
//!
//! *Invariants*: nothing is committed unless there is one result for each part, and nothing that the engine says is believed but what its marked
//! lines describe. Files are deleted only if they are of this job and before their commit was tried.
//!
//! *Failure*: the tables are as they were, and the same command asks for what they still lack.
//!
//! *What may leak*: files of workers whose results did not come back (a task that failed or was had twice, a script or driver that was killed),
//! and of results that another driver was faster with: data files that no table has, for an orphan sweep of Iceberg's. Of a driver that was
//! killed its directory with script and job stays too.

use tokio_util::sync::CancellationToken;
use tracing::info;
use uuid::Uuid;

use super::command::run;
use super::part::{Job, PartResult, Target, ensure_complete, split};
use super::script::{JobFiles, spark_script};
use crate::error::{Context, Error, Result};
use crate::pipeline::cycle::SilverFiles;
use crate::pipeline::reprocess::ground::Ground;
use crate::pipeline::reprocess::{SilverStage, Tally, lake};
use crate::silver::SilverTable;
use crate::storage::{CloseBarrier, user_name};
use crate::table::{CarriedFiles, OffsetRanges, RecordFiles};
use crate::window::Window;

/// Has Spark compute these ranges, which the stage lacks, and commits them. False if it was told to stop.
pub(super) async fn fill(
    stage: &mut SilverStage,
    ground: &Ground<'_>,
    ranges: &OffsetRanges,
    (command, part_records): (&str, u64),
    tally: &Tally,
    shutdown: &CancellationToken,
) -> Result<bool> {
    let id = Uuid::now_v7();
    let parts = split(id, ranges, part_records)?;
    let files = JobFiles::create(id)?;
    let job =
        serde_json::to_string(&job(id, stage, ground)?).map_err(|error| Error::failed("a job is not JSON").caused_by(error))?;
    let description = files.write(&format!("lakesmith-{id}.json"), &job)?;
    let script = files.write("reprocess.sql", &spark_script(&parts, &description)?)?;
    info!(job = %id, parts = parts.len(), "an engine computes what is lacking");
    let answer = run(command, &script, shutdown).await?;
    drop(files);

    let taken = answer.ended.and_then(|()| ensure_complete(&parts, answer.results.clone()));
    let files = match taken.and_then(|results| joined(stage, &results)) {
        Ok(files) => files,
        Err(error) => {
            discard(stage, id, &answer.results).await;
            return if shutdown.is_cancelled() { Ok(false) } else { Err(error) };
        }
    };
    Window::ReprocessEngineRan.pass();
    // The workers have closed their files; those of the commit are still to be.
    let barrier = CloseBarrier::new();
    let ready = match stage.prepare_from(&ground.bronze, files, ranges, &barrier).await {
        Ok(ready) => ready,
        Err(error) => {
            discard(stage, id, &answer.results).await;
            return Err(error);
        }
    };
    Window::CatchUpMetadataWritten.pass();
    tally.decided(stage.swap(ready).await?.offsets());
    Ok(true)
}

fn job(id: Uuid, stage: &SilverStage, ground: &Ground<'_>) -> Result<Job> {
    let target = |table: &SilverTable| Target { table: table.ident().name().to_owned(), uuid: table.uuid() };
    let mut definition = Job::definition_for(ground.definition);
    if let Some(directory) = &mut definition.storage.hadoop_conf_dir {
        *directory = std::path::absolute(&directory).context("this process has no working directory")?;
    }
    let security = ground.lakehouse.storages().hadoop_conf().get("hadoop.security.authentication");
    if security.is_none_or(|security| security.eq_ignore_ascii_case("simple")) {
        // Executors run as somebody else, who may not write here.
        for user in [&mut definition.storage.user, &mut definition.metastore.user] {
            user.get_or_insert_with(|| user_name(None));
        }
    }
    Ok(Job {
        id,
        definition,
        block_size_bytes: ground.definition.storage.block_size.map(|size| size.as_u64()),
        definition_hash: ground.plan.definition_hash().to_owned(),
        silver: target(&stage.silver),
        rejected: target(&stage.rejected),
        bronze_uuid: ground.bronze.uuid(),
        only_rejected: stage.parts().extract.as_ref().is_some_and(|extract| extract.only.is_some()),
    })
}

/// The files of all parts, as those of one batch.
fn joined(stage: &mut SilverStage, results: &[PartResult]) -> Result<SilverFiles> {
    let mut all = SilverFiles::default();
    for result in results {
        let files = SilverFiles {
            silver: files_of(&mut stage.silver, &result.silver)?,
            rejected: files_of(&mut stage.rejected, &result.rejected)?,
            silver_rows: result.silver_rows.clone(),
            rejected_rows: result.rejected_rows.clone(),
            ..SilverFiles::default()
        };
        for (files, rows) in [(&files.silver, &files.silver_rows), (&files.rejected, &files.rejected_rows)] {
            let is_within = rows.keys().all(|partition| result.part.ranges.contains_key(partition));
            if !is_within || files.rows() != rows.values().sum::<u64>() {
                return Err(Error::failed(format!("the rows of part {} are not those of its files", result.part.number)));
            }
        }
        all.merge(files)?;
    }
    Ok(all)
}

fn files_of(table: &mut SilverTable, carried: &CarriedFiles) -> Result<RecordFiles> {
    Ok(RecordFiles::Lake(lake(table)?.carried(carried)?))
}

/// Deletes the files of this job's results, which no commit has been tried with.
async fn discard(stage: &mut SilverStage, job: Uuid, results: &[PartResult]) {
    for result in results.iter().filter(|result| result.part.job == job) {
        for (table, carried) in [(&mut stage.silver, &result.silver), (&mut stage.rejected, &result.rejected)] {
            // What cannot be read cannot be deleted; an orphan sweep finds it.
            if let Ok(files) = files_of(table, carried) {
                table.discard(&files).await;
            }
        }
    }
}
