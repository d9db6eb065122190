//! `lakesmith schema plan` and `apply` for gold tables.
//!
//! A gold table is changed by its maintainer. Where a daemon runs that is the daemon, which finds in the table that it is to have another
//! definition, and reads the pipeline file again; where none runs, the command is the maintainer itself. It stands by for both.

use std::time::{Duration, SystemTime};

use iceberg::TableIdent;

use crate::catalog::Lakehouse;
use crate::cli::page;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::gold::{CatchUp, GoldMaintainer, GoldPlan};
use crate::hive::ensure_view;
use crate::metastore::Metastore;
use crate::schema::Redefinition;
use crate::silver::SilverTable;

/// How often the table is looked at while another process changes it.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The plans for the gold tables that differ from the pipeline file.
pub async fn plan(config: &Config, lakehouse: &Lakehouse, backfill: bool) -> Result<Vec<Redefinition>> {
    let mut plans = Vec::new();
    for plan in config.definition().gold_plans(lakehouse.storages())? {
        plans.extend(Redefinition::plan(lakehouse.metastore(), &config.tables.database, &plan, backfill).await?);
    }
    Ok(plans)
}

/// Whether a plan can be applied: before any other has changed something.
pub fn ensure_applicable(config: &Config, lakehouse: &Lakehouse, redefinition: &Redefinition) -> Result<GoldPlan> {
    let plans = config.definition().gold_plans(lakehouse.storages())?;
    let plan = plans.into_iter().find(|plan| plan.settings().table == redefinition.table);
    let plan = plan.ok_or_else(|| {
        Error::config(format!("the pipeline file has no gold table {}", redefinition.table))
            .hint("make a new plan with `lakesmith schema plan`; nothing was changed")
    })?;
    redefinition.ensure_for(&plan)?;
    Ok(plan)
}

/// Leads a table to its new definition, or waits until the daemon has done so.
pub async fn apply(config: &Config, lakehouse: &Lakehouse, redefinition: &Redefinition, plan: GoldPlan) -> Result<()> {
    let (metastore, database) = (lakehouse.metastore(), &config.tables.database);
    if redefinition.grant(metastore).await? {
        tokio::select! {
            done = maintain(config, lakehouse, plan) => done?,
            done = watch(redefinition, metastore) => done?,
        }
    } else if let Some(view) = plan.view_spec(database)? {
        ensure_view(metastore, &view).await?;
    }
    for step in &redefinition.steps {
        page::note(&format!("done: {} in {}", step.what, redefinition.name()));
    }
    Ok(())
}

/// Becomes the table's maintainer, and does the work.
async fn maintain(config: &Config, lakehouse: &Lakehouse, plan: GoldPlan) -> Result<()> {
    let ident = TableIdent::from_strs([config.tables.database.as_str(), config.silver.table.as_str()])?;
    let silver = SilverTable::open(lakehouse.catalog(), &ident, config.silver.format).await?;
    let mut silver = silver.ok_or_else(|| Error::config(format!("table {ident} does not exist")))?;
    let (metastore, storages) = (lakehouse.metastore(), lakehouse.storages());
    let mut maintainer = GoldMaintainer::stand_by(plan, &config.tables.database, metastore, storages, &silver).await?;
    let mut left = maintainer.partitions_left();
    while maintainer.is_redefining() {
        silver.refresh().await?;
        if let CatchUp::Waiting(partitions) = maintainer.catch_up(&silver, SystemTime::now()).await? {
            let (partition, (gold, silver)) = partitions.into_iter().next().unwrap_or_default();
            return Err(Error::stop(format!(
                "silver is behind gold in partition {partition}, at offset {silver} and not {gold}"
            ))
            .hint("let the daemon run until silver has passed it, and apply the plan again: it goes on"));
        }
        maintainer.refresh(&silver, SystemTime::now()).await?;
        let now_left = maintainer.partitions_left();
        if now_left != left && now_left > 0 {
            page::note(&format!("{} partitions are still to be computed", page::number(now_left as u64)));
        }
        left = now_left;
    }
    maintainer.close().await
}

/// Waits until another process has done the work.
async fn watch(redefinition: &Redefinition, metastore: &Metastore) -> Result<()> {
    loop {
        crate::retry::sleep(LOOK_EVERY).await;
        if redefinition.is_done(metastore).await? {
            return Ok(());
        }
        // A maintainer that wrote its progress at the same moment may have written over it.
        redefinition.grant(metastore).await?;
    }
}
