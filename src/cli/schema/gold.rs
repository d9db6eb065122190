//! `lakesmith schema show`, `plan` and `apply` for gold tables.
//!
//! A gold table is changed by its maintainer. Where a daemon runs that is the daemon, which finds in the table that it is to have another
//! definition, and reads the pipeline file again; where none runs, the command is the maintainer itself. It stands by for both.

use iceberg::TableIdent;

use crate::catalog::Lakehouse;
use crate::cli::page::{self, Page};
use crate::config::Config;
use crate::error::{Context, Error, Result};
use crate::gold::window::{WINDOW_END, WINDOW_START};
use crate::gold::{GoldDefinition, GoldPlan, GoldSettings, Grant, Workplace, carry_out, null_columns};
use crate::hive::ensure_view;
use crate::metastore::HivePartition;
use crate::schema::Redefinition;
use crate::silver::SilverTable;

/// The pipeline's gold table that a name stands for: its own name, or `gold` where there is one.
pub fn named<'a>(config: &'a Config, name: &str) -> Option<&'a GoldSettings> {
    let only = config.gold.first().filter(|_| config.gold.len() == 1 && name == "gold");
    only.or_else(|| config.gold.iter().find(|gold| gold.table == name))
}

/// The columns of a gold table as it is, what each holds, and in how many partitions it is null.
pub async fn show(config: &Config, lakehouse: &Lakehouse, settings: &GoldSettings) -> Result<String> {
    let (database, name, metastore) = (&config.tables.database, &settings.table, lakehouse.metastore());
    let entry = metastore.table(database, name).await.with_context(|| format!("failed to load {database}.{name}"))?;
    let entry = entry.ok_or_else(|| {
        Error::config(format!("table {database}.{name} does not exist")).hint("see what there is with `lakesmith tables`")
    })?;
    let definition = GoldDefinition::of_entry(&entry).ok_or_else(|| {
        Error::failed(format!("table {database}.{name} does not say how it was computed"))
            .hint("an earlier lakesmith made it; `lakesmith tables show` shows its columns")
    })?;
    let partitions = metastore.partitions(database, name).await;
    let partitions = partitions.with_context(|| format!("failed to list the partitions of {database}.{name}"))?;
    let mut page = Page::new(["column", "type", "what it is", "null in partitions"]).right([3]);
    for column in entry.columns() {
        let is = |name: &String| name.eq_ignore_ascii_case(&column.name);
        let measure = definition.measures.iter().find(|measure| is(&measure.name));
        let what = match measure {
            Some(measure) => measure.sql.clone(),
            None if definition.dimensions.iter().any(is) => "dimension".to_owned(),
            None if [WINDOW_START, WINDOW_END].contains(&column.name.as_str()) => "window".to_owned(),
            None => "not of its definition yet".to_owned(),
        };
        let lacks =
            |partition: &&HivePartition| null_columns(partition).iter().any(|name| name.eq_ignore_ascii_case(&column.name));
        let lacking = partitions.iter().filter(lacks).count();
        let lacking = if lacking == 0 { String::new() } else { format!("{lacking} of {}", partitions.len()) };
        page.row([column.name.clone(), column.hive_type.clone(), what, lacking]);
    }
    let keys: Vec<String> = entry.partition_keys().into_iter().map(|key| key.name).collect();
    let window = humantime::format_duration(definition.window);
    let mut text = format!(
        "{database}.{name}, definition {}, windows of {window} by {}, partitioned by {}",
        definition.fingerprint(),
        definition.time_column,
        keys.join(", ")
    );
    if Grant::of_entry(&entry)?.is_some() {
        text.push_str("; its partitions are being computed again");
    }
    Ok(format!("{text}\n{page}"))
}

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
        let ident = TableIdent::from_strs([database.as_str(), config.silver.table.as_str()])?;
        let silver = SilverTable::open(lakehouse.catalog(), &ident, config.silver.format).await?;
        let mut silver = silver.ok_or_else(|| Error::config(format!("table {ident} does not exist")))?;
        let place = Workplace { database, metastore, storages: lakehouse.storages() };
        let told = |left| page::note(&format!("{} partitions are still to be computed", page::number(left as u64)));
        let is_done = async || {
            if redefinition.is_done(metastore).await? {
                return Ok(true);
            }
            // A maintainer that wrote its progress at the same moment may have written over it.
            redefinition.grant(metastore).await?;
            Ok(false)
        };
        carry_out(plan, place, &mut silver, told, is_done).await?;
    } else if let Some(view) = plan.view_spec(database)? {
        ensure_view(metastore, &view).await?;
    }
    for step in &redefinition.steps {
        page::note(&format!("done: {} in {}", step.what, redefinition.name()));
    }
    Ok(())
}
