//! A reprocessing whose rows Trino has computed: one `INSERT` into a staging table, whose files become the table's own when they are checked.
//!
//! Trino computes the rows of plain records ([`SilverPlan::trino_rows`]); which ones these were, their coordinates in the staging table say. All
//! other records of the ranges, those to be rejected among them, are decided and written here. Both are one commit of each table.
//!
//! *Invariants*: the coordinates of the new rows are those of records that were to be decided, each once. Rows of a sample were compared, value
//! by value, with what silver makes of the records ([`ensure_equal`]).
//!
//! *Failure*: nothing is committed. Rows that are not what was asked for are deleted with their files; those of a driver that was killed are there
//! for the next one.
//!
//! *What may leak*: files of an `INSERT` that did not end, and, of a driver that was killed, its directory with the script.
//!
//! [`SilverPlan::trino_rows`]: crate::silver::SilverPlan::trino_rows

use std::fmt::Write as _;

use futures::TryStreamExt;
use roaring::RoaringTreemap;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::command::run;
use super::sample::{WrongRows, ensure_equal};
use super::script::JobFiles;
use super::staging;
use crate::checkpoint::Delta;
use crate::error::{Error, Result};
use crate::pipeline::cycle::SilverFiles;
use crate::pipeline::fates::{Offsets, offsets_in, records_at};
use crate::pipeline::reprocess::ground::Ground;
use crate::pipeline::reprocess::{SilverStage, Tally, lake};
use crate::record::{OFFSET, PARTITION, RawBatch, coordinates};
use crate::silver::{TrinoInsert, trino_identifier};
use crate::storage::CloseBarrier;
use crate::table::{LakeTable, OffsetRanges, RecordFiles, RecordTable};
use crate::window::Window;

/// Has Trino compute the plain records of these ranges, which the stage lacks, decides the others, and commits all. False if it was told to stop.
pub(super) async fn fill(
    stage: &mut SilverStage,
    ground: &Ground<'_>,
    ranges: &OffsetRanges,
    command: &str,
    tally: &Tally,
    shutdown: &CancellationToken,
) -> Result<bool> {
    let question = question(stage, ground, ranges);
    let silver = lake(&mut stage.silver)?.clone();
    let answered = match staging::answered(&silver, &question).await? {
        Some(table) => {
            info!(table = %table.ident(), "going on with rows that Trino has computed");
            Some(table)
        }
        None => ask(&silver, stage, ground, ranges, (command, &question), shutdown).await?,
    };
    let Some(mut table) = answered else { return Ok(false) };
    let found = checked(stage, ground, ranges, &table).await;
    let (computed, left) = match found {
        Ok(found) => found,
        Err(error) => {
            // What could not be read may be right, and took its time: it stays for the next try.
            if error.has_cause::<WrongRows>() {
                discard(ground, &silver).await;
            }
            return Err(error);
        }
    };
    let (by_trino, here) = (count(&computed), count(&left));
    info!(by_trino, here, "Trino's rows are those that silver would have; the other records are decided here");
    if here > by_trino {
        warn!(
            by_trino,
            here, "Trino computed less than half: unusual records, and all that are to be rejected, are decided here"
        );
    }
    Window::ReprocessEngineRan.pass();

    let barrier = CloseBarrier::new();
    let mut encoder = stage.encoder(&barrier)?;
    let mut records = records_at(left, &ground.bronze).await?;
    while let Some(records) = records.try_next().await? {
        encoder.write(RawBatch { delta: Delta::default(), records }).await?;
    }
    let mut files = encoder.finish().await?;
    files.merge(SilverFiles {
        silver: RecordFiles::Lake(table.handed_over().await?),
        silver_rows: computed.iter().map(|(partition, offsets)| (*partition, offsets.len())).collect(),
        ..SilverFiles::default()
    })?;
    let ready = stage.prepare_from(&ground.bronze, files, ranges, &barrier).await?;
    Window::CatchUpMetadataWritten.pass();
    tally.decided(stage.swap(ready).await?.offsets());
    Window::ReprocessEngineTaken.pass();
    table.drop_twin().await?;
    Ok(true)
}

/// The same text for the same rows.
fn question(stage: &SilverStage, ground: &Ground<'_>, ranges: &OffsetRanges) -> String {
    let mut text = format!("{} {}", ground.plan.definition_hash(), stage.silver.uuid());
    if only_rejected(stage).is_some() {
        text.push_str(" rejected");
    }
    for (partition, range) in ranges {
        // Writing to a string does not fail.
        let _ = write!(text, " {partition}:{}..{}", range.start, range.end);
    }
    blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
}

fn only_rejected(stage: &SilverStage) -> Option<&crate::silver::SilverTable> {
    stage.parts().extract.as_ref().and_then(|extract| extract.only.as_ref())
}

/// Runs the script. None if this process was told to stop meanwhile.
async fn ask(
    silver: &LakeTable,
    stage: &SilverStage,
    ground: &Ground<'_>,
    ranges: &OffsetRanges,
    (command, question): (&str, &str),
    shutdown: &CancellationToken,
) -> Result<Option<LakeTable>> {
    let table = staging::create(silver, question).await?;
    let id = Uuid::now_v7();
    let files = JobFiles::create(id)?;
    let script = files.write("reprocess.sql", &script(&table, stage, ground, ranges)?)?;
    info!(job = %id, table = %table.ident(), "Trino computes rows");
    let answer = run(command, &script, shutdown).await?;
    drop(files);
    if let Err(error) = answer.ended {
        discard(ground, silver).await;
        return if shutdown.is_cancelled() { Ok(None) } else { Err(error) };
    }
    let found = LakeTable::open(ground.catalog(), table.ident()).await?.filter(|found| found.uuid() == table.uuid());
    found.map(Some).ok_or_else(|| {
        Error::failed(format!("table {} is gone", table.ident()))
            .hint("was the reprocessing abandoned, or finished by another process?")
    })
}

/// Deletes the staging table and its files. What stays, the next try drops; the error that led here matters more.
async fn discard(ground: &Ground<'_>, silver: &LakeTable) {
    if let Err(error) = staging::delete(ground.catalog(), ground.lakehouse.storages(), silver.ident()).await {
        warn!(error = %error.chain(), "rows of Trino's that are of no use could not be deleted");
    }
}

fn script(table: &LakeTable, stage: &SilverStage, ground: &Ground<'_>, ranges: &OffsetRanges) -> Result<String> {
    let name = |ident: &iceberg::TableIdent| {
        format!("{}.{}", trino_identifier(&ident.namespace().to_url_string()), trino_identifier(ident.name()))
    };
    let snapshot = ground.bronze.lake().and_then(|bronze| bronze.metadata().current_snapshot_id());
    let snapshot = snapshot.ok_or_else(|| Error::failed(format!("table {} has no snapshot", ground.bronze.ident())))?;
    let (partition, offset) = (trino_identifier(PARTITION), trino_identifier(OFFSET));
    let within = |(id, range): (&i32, &crate::checkpoint::OffsetRange)| {
        format!("({partition} = {id} AND {offset} >= {} AND {offset} < {})", range.start, range.end)
    };
    let mut records = format!("({})", ranges.iter().map(within).collect::<Vec<_>>().join(" OR "));
    if let Some(rejected) = only_rejected(stage) {
        let _ = write!(
            records,
            " AND EXISTS (SELECT 1 FROM {} AS rejected WHERE rejected.{partition} = bronze.{partition} AND rejected.{offset} = \
             bronze.{offset})",
            name(rejected.ident())
        );
    }
    let insert = ground.plan.trino_rows()?.insert(&TrinoInsert {
        table: &name(table.ident()),
        bronze: &format!("{} FOR VERSION AS OF {snapshot} AS bronze", name(ground.bronze.ident())),
        records: &records,
        processing_timestamp_us: chrono::Utc::now().timestamp_micros(),
    })?;
    Ok(format!(
        "-- By `lakesmith reprocess`, which waits for the end of --engine-command.\n-- The catalog is the session's: one of Iceberg's \
         tables.\n{insert};\n"
    ))
}

/// The offsets that Trino has computed rows for, and those that are left, once both are known to be what was asked for.
async fn checked(
    stage: &SilverStage,
    ground: &Ground<'_>,
    ranges: &OffsetRanges,
    table: &LakeTable,
) -> Result<(Offsets, Offsets)> {
    let wrong = |what: String| Error::failed(format!("Trino's rows are not what was asked for: {what}")).caused_by(WrongRows);
    let mut computed = Offsets::new();
    let mut batches = table.scan(None, Some(&[PARTITION, OFFSET])).await?;
    while let Some(batch) = batches.try_next().await? {
        let (partitions, offsets) = coordinates(&batch)?;
        for (partition, offset) in partitions.values().iter().zip(offsets.values()) {
            let is_new = *offset >= 0 && computed.entry(*partition).or_default().insert(*offset as u64);
            if !is_new {
                return Err(wrong(format!("offset {offset} of partition {partition} is there twice")));
            }
        }
    }
    let mut left = match only_rejected(stage) {
        Some(rejected) => offsets_in(rejected, ranges).await?,
        None => offsets_in(&ground.bronze, ranges).await?,
    };
    for (partition, offsets) in &computed {
        let asked = left.entry(*partition).or_default();
        if let Some(foreign) = (offsets - &*asked).min() {
            return Err(wrong(format!("offset {foreign} of partition {partition} is none of the records")));
        }
        *asked -= offsets;
    }
    let rows = RecordTable::Lake(Box::new(table.clone()));
    ensure_equal(&ground.plan, &ground.bronze, &rows, &computed).await?;
    Ok((computed, left))
}

fn count(offsets: &Offsets) -> u64 {
    offsets.values().map(RoaringTreemap::len).sum()
}
