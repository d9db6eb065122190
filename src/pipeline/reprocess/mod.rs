//! Deciding records anew: silver, rejected and gold are computed again from bronze, by the definition of now.
//!
//! | step | a reader finds |
//! |---|---|
//! | silver notes what is decided anew | all as before |
//! | the new rows are gathered in *twins* of silver and rejected (see [`LakeTable::create_twin`]) | the twins, growing |
//! | silver's rows are replaced | silver by the new definition, rejected and gold not yet |
//! | rejected's rows are replaced | gold not yet |
//! | the partitions of gold that had or have such rows are computed again, by gold's maintainer | all by the new definition |
//! | the twins are dropped, and the note is taken away | |
//!
//! A daemon may run: what it commits lies behind the ranges. The twins have offsets of their own, and are filled by the catch-up that silver
//! itself is filled by, so whoever goes on after a kill begins where they end; what comes after is done once, by the note's id.
//!
//! The twins can be filled by a computing engine too (`engine`).
//!
//! *Invariants*: a record in the ranges is in exactly one of silver and rejected before the third step and after the fourth. In between `verify`
//! knows of them by the note. No record behind or before the ranges is touched.
//!
//! *Failure*: everything is left as it is, and the same command goes on.

mod engine;
mod ground;
mod into;
mod replace;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::info;
use uuid::Uuid;

use super::definition::Definition;
use super::report::{Observer, RunReport};
use super::silver_stage::{Extract, SilverStage};
use super::tally::Tally;
use crate::bronze::BronzeTable;
use crate::catalog::Lakehouse;
use crate::checkpoint::PartitionId;
use crate::error::{Error, Result};
use crate::silver::{REPROCESSING, Reprocessing, SilverTable};
use crate::table::{LakeTable, OffsetRanges, RecordTable, Replaced};
use crate::window::Window;

pub use engine::{Engine, EngineOptions, reprocess_parts};
use ground::Ground;
pub use into::reprocess_into;
use replace::Twins;

/// Which records are decided anew; all that silver has had for nothing said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Selection {
    /// Offsets by topic partition; empty for all.
    pub offsets: OffsetRanges,
    /// Only offsets from the first record on whose timestamp is not before this, in microseconds since 1970.
    pub since_us: Option<i64>,
    /// Only offsets up to the last record whose timestamp is before this.
    pub until_us: Option<i64>,
    /// Of these only the ones that were rejected.
    pub only_rejected: bool,
}

impl Selection {
    fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// The same text for the same selection.
    fn text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::failed("a selection is not JSON").caused_by(error))
    }
}

/// How a reprocessing is watched and ended.
#[derive(Clone)]
pub struct ReprocessOptions {
    pub selection: Selection,
    /// Cancelled by SIGTERM or Ctrl-C: the step under way is finished, and the same command goes on.
    pub shutdown: CancellationToken,
    pub observer: Arc<dyn Observer>,
    /// Who computes the new rows; this process if none.
    pub engine: Option<EngineOptions>,
}

/// What a reprocessing did.
#[derive(Debug, Clone, Default)]
pub struct Reprocessed {
    pub ranges: String,
    /// None for a table in which the rows had been replaced before this process began.
    pub silver: Option<Replaced>,
    pub rejected: Option<Replaced>,
    /// Gold tables of which partitions were computed again.
    pub gold: Vec<String>,
    pub run: RunReport,
}

/// Decides records anew in the tables themselves; goes on with what was begun. None if it was told to stop before it was done.
pub async fn reprocess(
    definition: &Definition,
    lakehouse: &Lakehouse,
    options: &ReprocessOptions,
) -> Result<Option<Reprocessed>> {
    let tally = Tally::new(options.observer.clone());
    let mut ground = Ground::open(definition, lakehouse).await?;
    ground.ensure_replaceable()?;
    if let Some(engine) = &options.engine {
        engine.ensure_takes(lake(&mut ground.silver)?)?;
    }
    let mut noted = match Reprocessing::of(ground.silver.note(REPROCESSING))? {
        Some(noted) => {
            ground.ensure_same(&noted, &options.selection)?;
            info!(ranges = noted.display_ranges(), "going on with a reprocessing that was begun");
            noted
        }
        None => begin(&mut ground, &options.selection).await?,
    };
    Window::ReprocessNoted.pass();

    let mut report = Reprocessed { ranges: noted.display_ranges(), ..Reprocessed::default() };
    let mut twins = Twins::open(&ground, noted.id).await?;
    if !lake(&mut ground.silver)?.has_replacement(noted.id) {
        if !fill(&ground, &noted, &mut twins, &tally, options).await? {
            return Ok(None);
        }
        noted = ground.note_gold(&noted, &twins).await?;
        Window::ReprocessComputed.pass();
    }
    (report.silver, report.rejected) = twins.replace(&mut ground, &noted).await?;
    let gold = noted.gold.clone().unwrap_or_default();
    for plan in &ground.gold_plans {
        if let Some(again) = gold.get(&plan.settings().table) {
            replace::compute_gold_again(definition, lakehouse, plan, again, &mut ground.silver).await?;
            report.gold.push(format!("{}.{}", definition.tables.database, plan.settings().table));
        }
    }
    Window::ReprocessedGold.pass();
    twins.drop().await?;
    Window::ReprocessCleared.pass();
    exchange(&mut ground.silver, Some(&noted), None).await?;
    report.run = tally.report();
    Ok(Some(report))
}

/// What became of a reprocessing that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Abandoned {
    /// The tables are as they were before it; its ranges.
    TakenBack(String),
    /// Silver has the new rows, those of rejected are lost because somebody dropped their table; the ranges, to be reprocessed again.
    HalfDone(String),
}

/// Takes back a reprocessing of which no table shows anything yet, or gives up one that cannot be finished. None if there was none.
///
/// The note goes first: a process that is still at work replaces nothing without it. Only then the files go, which no table can have.
pub async fn abandon_reprocessing(definition: &Definition, lakehouse: &Lakehouse) -> Result<Option<Abandoned>> {
    let mut ground = Ground::open(definition, lakehouse).await?;
    let Some(noted) = Reprocessing::of(ground.silver.note(REPROCESSING))? else { return Ok(None) };
    let twins = Twins::open(&ground, noted.id).await?;
    let ways_on = || Error::config("silver has its new rows already").hint("finish it: `lakesmith reprocess` goes on");
    if lake(&mut ground.silver)?.has_replacement(noted.id) && twins.can_finish(&mut ground.rejected, noted.id).await? {
        return Err(ways_on());
    }
    exchange(&mut ground.silver, Some(&noted), None).await?;
    if !lake(&mut ground.silver)?.has_replacement(noted.id) {
        twins.delete(&ground).await?;
        return Ok(Some(Abandoned::TakenBack(noted.display_ranges())));
    }
    if twins.can_finish(&mut ground.rejected, noted.id).await? {
        // The process at work was faster.
        exchange(&mut ground.silver, None, Some(&noted)).await?;
        return Err(ways_on());
    }
    twins.drop().await?;
    Ok(Some(Abandoned::HalfDone(noted.display_ranges())))
}

async fn begin(ground: &mut Ground<'_>, selection: &Selection) -> Result<Reprocessing> {
    ground.ensure_gold_is_current().await?;
    let noted = Reprocessing {
        id: Uuid::now_v7(),
        ranges: ground.ranges(selection).await?,
        only_rejected: selection.only_rejected,
        asked: selection.text()?,
        definition: ground.plan.definition_hash().to_owned(),
        gold: None,
    };
    exchange(&mut ground.silver, None, Some(&noted)).await?;
    info!(ranges = noted.display_ranges(), only_rejected = noted.only_rejected, "records are decided anew");
    Ok(noted)
}

/// Computes what the twins lack. False if it was told to stop.
async fn fill(
    ground: &Ground<'_>,
    noted: &Reprocessing,
    twins: &mut Twins,
    tally: &Tally,
    options: &ReprocessOptions,
) -> Result<bool> {
    let only = noted.only_rejected.then(|| ground.rejected.clone());
    let extract = Extract { ranges: noted.ranges.clone(), only };
    let parts = ground.parts(ground.specs.clone(), extract, tally, &options.shutdown);
    let (silver, rejected) = twins.create(ground, noted.id).await?;
    let mut stage = SilverStage::new(parts, silver, rejected)?;
    let filled = catch_up(&mut stage, ground, tally, options).await?;
    twins.take(stage.silver, stage.rejected);
    Ok(filled)
}

/// Brings a stage to the end of its extract. False if it was told to stop.
async fn catch_up(stage: &mut SilverStage, ground: &Ground<'_>, tally: &Tally, options: &ReprocessOptions) -> Result<bool> {
    let bronze = &ground.bronze;
    stage.complete_rejected(bronze).await?;
    let lacking: i64 = stage.lacking(bronze)?.values().map(|range| range.len()).sum();
    tally.expect(u64::try_from(lacking).unwrap_or(0));
    let filled = match &options.engine {
        Some(engine) => engine::fill(stage, ground, engine, tally, &options.shutdown).await?,
        None => fill_here(stage, bronze, tally, &options.shutdown).await?,
    };
    if filled {
        engine::clear(ground.catalog(), stage.silver.ident()).await?;
    }
    Ok(filled)
}

async fn fill_here(stage: &mut SilverStage, bronze: &BronzeTable, tally: &Tally, shutdown: &CancellationToken) -> Result<bool> {
    while !shutdown.is_cancelled() {
        match stage.catch_up(bronze).await? {
            Some(rows) => tally.decided(rows.offsets()),
            None => return Ok(true),
        }
    }
    Ok(false)
}

/// Writes silver's note, or takes it away.
async fn exchange(silver: &mut SilverTable, from: Option<&Reprocessing>, to: Option<&Reprocessing>) -> Result<()> {
    let (from, to) = (from.map(Reprocessing::to_note).transpose()?, to.map(Reprocessing::to_note).transpose()?);
    let table = lake(silver)?;
    if table.exchange_note(REPROCESSING, from.as_deref(), to.as_deref()).await? {
        return Ok(());
    }
    Err(Error::failed(format!("another process reprocesses records of {}", table.ident()))
        .hint("wait for it; if it was killed, the same command goes on with what it had begun"))
}

/// The Iceberg table that silver or rejected is here.
fn lake(table: &mut SilverTable) -> Result<&mut LakeTable> {
    match table {
        RecordTable::Lake(table) => Ok(table),
        RecordTable::Logged(table) => Err(Error::config(format!("table {} is no Iceberg table", table.ident()))),
    }
}

/// Rows by topic partition, as a table counts them.
fn rows_of(table: &LakeTable) -> Result<BTreeMap<PartitionId, u64>> {
    let found = table.checkpoint()?.unwrap_or_default();
    Ok(found.partitions.into_iter().map(|(partition, coverage)| (partition, coverage.records)).collect())
}
