//! Deciding records anew into tables of other names, to be compared before anything is replaced.
//!
//! These are a pipeline's silver, rejected and gold like any other, computed from the same bronze. Their offsets say how far they are, so the
//! same command goes on with them.

use std::time::SystemTime;

use super::ground::Ground;
use super::{Definition, Lakehouse, ReprocessOptions, RunReport, Tally, catch_up};
use crate::error::{Error, Result};
use crate::gold::{CatchUp, GoldMaintainer};
use crate::pipeline::silver_stage::{DEFINITION, Extract, SilverStage};
use crate::pipeline::specs::{gold_plans, rejected_spec, silver_spec};
use crate::pipeline::tally::CommitStats;
use crate::silver::SilverTable;
use crate::table::OffsetRanges;

/// Computes silver, rejected and gold into tables whose names end in `suffix`. None if it was told to stop before it was done.
pub async fn reprocess_into(
    definition: &Definition,
    lakehouse: &Lakehouse,
    suffix: &str,
    options: &ReprocessOptions,
) -> Result<Option<RunReport>> {
    let tally = Tally::new(options.observer.clone());
    let ground = Ground::open(definition, lakehouse).await?;
    let ranges = ground.ranges(&options.selection).await?;
    let renamed = renamed(definition, suffix);
    let storages = lakehouse.storages();
    let specs = (silver_spec(&renamed, &ground.plan, storages)?, rejected_spec(&renamed, storages)?);
    let gold = gold_plans(&renamed, &ground.plan, storages)?;

    let only = options.selection.only_rejected.then(|| ground.rejected.clone());
    let parts = ground.parts(specs, Extract { ranges: ranges.clone(), only }, &tally, &options.shutdown);
    if let Some(existing) = SilverTable::open_spec(ground.catalog(), &parts.silver).await? {
        ensure_begun_by(&existing, ground.plan.definition_hash(), &ranges)?;
    }
    let mut stage = SilverStage::open(parts).await?;
    if !catch_up(&mut stage, &ground, &tally, options).await? {
        return Ok(None);
    }
    let silver = stage.silver;
    for plan in gold {
        let table = format!("{}.{}", definition.tables.database, plan.settings().table);
        tally.layer("gold", &table);
        let started = std::time::Instant::now();
        let (database, metastore) = (&definition.tables.database, lakehouse.metastore());
        let mut maintainer = GoldMaintainer::open(plan, database, metastore, storages, &silver).await?;
        if let CatchUp::Waiting(_) = maintainer.catch_up(&silver, SystemTime::now()).await? {
            return Err(Error::stop(format!("gold table {table} is ahead of {}", silver.ident()))
                .hint("drop both, and give the command again"));
        }
        let report = maintainer.refresh(&silver, SystemTime::now()).await?;
        maintainer.close().await?;
        let (rows, files, bytes) = (report.rows, report.files, report.bytes);
        tally.committed(&table, &CommitStats { rows, files, bytes, busy: started.elapsed() });
    }
    Ok(Some(tally.report()))
}

/// The definition with other tables behind bronze.
fn renamed(definition: &Definition, suffix: &str) -> Definition {
    let mut renamed = definition.clone();
    let put = |name: &mut String| name.push_str(suffix);
    let rejected = renamed.silver.rejected.table.get_or_insert_with(|| definition.silver.rejected_table());
    put(rejected);
    put(&mut renamed.silver.table);
    renamed.silver.location.iter_mut().chain(&mut renamed.silver.rejected.location).for_each(put);
    for gold in &mut renamed.gold {
        put(&mut gold.table);
        [&mut gold.location, &mut gold.view].into_iter().filter(|name| !name.is_empty()).for_each(put);
    }
    renamed
}

/// Stops if a table of that name holds anything else than a part of what is to be computed.
fn ensure_begun_by(table: &SilverTable, definition: &str, ranges: &OffsetRanges) -> Result<()> {
    let name = table.ident();
    let other = |what: String| {
        Err(Error::config(format!("table {name} exists, and {what}"))
            .hint("choose another suffix for --into, or drop that table"))
    };
    let Some(found) = table.checkpoint()? else { return Ok(()) };
    if table.note(DEFINITION) != Some(definition) {
        return other("was computed by another definition than the pipeline file's".to_owned());
    }
    let is_part = found.partitions.iter().all(|(partition, coverage)| {
        let range = ranges.get(partition);
        range.is_some_and(|range| range.start == coverage.range.start && coverage.range.end <= range.end)
    });
    if is_part { Ok(()) } else { other(format!("holds offsets that are not selected: {}", found.positions())) }
}
