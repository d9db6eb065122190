//! `lakesmith schema plan` and `apply`: silver's steps and gold's, in one file.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Opened, Target, gold, open, open_for_change};
use crate::catalog::Lakehouse;
use crate::cli::Outcome;
use crate::cli::page::{self, Page};
use crate::config::Config;
use crate::error::{Context, Error, Result};
use crate::schema::{self, Plan, Redefinition, Verdict, Wanted};
use crate::silver::{self, SilverPlan};
use crate::table::TableFormat;

/// What `schema plan` writes, and `schema apply` reads.
#[derive(Debug, Serialize, Deserialize)]
struct PlanFile {
    /// None where silver is no Iceberg table, or nothing is to be done.
    silver: Option<Plan>,
    gold: Vec<Redefinition>,
}

pub async fn plan(
    config: &Config,
    lakehouse: &Lakehouse,
    drop_unnamed: bool,
    backfill: bool,
    output: Option<&Path>,
) -> Result<Outcome> {
    let silver = match config.silver.format {
        TableFormat::Iceberg => Some(silver_plan(config, lakehouse, drop_unnamed).await?).filter(|plan| !plan.steps.is_empty()),
        TableFormat::Hive => None,
    };
    let plan = PlanFile { silver, gold: gold::plan(config, lakehouse, backfill).await? };
    if plan.silver.is_none() && plan.gold.is_empty() {
        page::print("the tables are what the pipeline file says: nothing to do")?;
        return Ok(Outcome::Done);
    }
    let mut texts = Vec::new();
    if let Some(silver) = &plan.silver {
        texts.push(steps(&silver.table, silver.steps.iter().map(|step| (&step.what, &step.verdict))));
    }
    for gold in &plan.gold {
        texts.push(steps(&gold.name(), gold.steps.iter().map(|step| (&step.what, &step.verdict))));
    }
    page::print(&texts.join("\n"))?;
    if let Some(file) = output {
        let text = serde_json::to_string_pretty(&plan).map_err(|error| Error::failed("the plan is not JSON").caused_by(error))?;
        std::fs::write(file, text + "\n").with_context(|| format!("the plan cannot be written to {}", file.display()))?;
    }
    let refused = plan.silver.as_ref().and_then(Plan::refusal).or_else(|| plan.gold.iter().find_map(Redefinition::refusal));
    Ok(if refused.is_some() { Outcome::Differences } else { Outcome::Done })
}

async fn silver_plan(config: &Config, lakehouse: &Lakehouse, drop_unnamed: bool) -> Result<Plan> {
    let table = open(config, lakehouse, &Target { table: "silver".to_owned() }).await?;
    // What the table has got by itself is no difference.
    let silver = SilverPlan::new(&schema::with_added(&config.silver, &table))?;
    let wanted = Wanted {
        schema: silver.schema(),
        partition_by: silver.partition_by(),
        sort_by: silver.sort_by(),
        read_from: silver.read_from(),
        kept: &silver::OWN_COLUMNS,
        drop_unnamed,
    };
    Plan::new(&table, wanted)
}

/// A table of steps, and what each means for readers.
fn steps<'a>(table: &str, steps: impl Iterator<Item = (&'a String, &'a Verdict)>) -> String {
    let mut page = Page::new(["step", table, "what it means"]).right([0]);
    for (number, (what, verdict)) in steps.enumerate() {
        page.row([(number + 1).to_string(), what.clone(), verdict.to_string()]);
    }
    page.to_string()
}

pub async fn apply(config: &Config, lakehouse: &Lakehouse, file: &Path) -> Result<Outcome> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Error::config(format!("the plan {} cannot be read", file.display())).caused_by(error))?;
    let plan: PlanFile = serde_json::from_str(&text)
        .map_err(|error| Error::config(format!("{} is no plan of `lakesmith schema plan`", file.display())).caused_by(error))?;
    let mut gold_plans = Vec::new();
    for redefinition in &plan.gold {
        gold_plans.push(gold::ensure_applicable(config, lakehouse, redefinition)?);
    }
    if let Some(plan) = &plan.silver {
        let Opened { mut table, kept, .. } = open_for_change(config, lakehouse, &Target { table: plan.table.clone() }).await?;
        let kept: Vec<&str> = kept.iter().map(String::as_str).collect();
        plan.apply(&mut table, &kept, |step, before| {
            page::note(&format!("{} {}", if before { "was done:" } else { "done:" }, step.what));
        })
        .await?;
    }
    for (redefinition, gold_plan) in plan.gold.iter().zip(gold_plans) {
        gold::apply(config, lakehouse, redefinition, gold_plan).await?;
    }
    let names = plan.silver.iter().map(|plan| plan.table.clone()).chain(plan.gold.iter().map(Redefinition::name));
    page::print(&format!("what the plan says is true of {}", names.collect::<Vec<_>>().join(", ")))?;
    Ok(Outcome::Done)
}
