//! What separates a gold table from its definition in the pipeline file, as steps; and granting the table that definition.
//!
//! Unlike Iceberg tables, a gold table is changed by its maintainer alone: the plan, when it is applied, says in the table's parameters what
//! it is to become, and a running daemon's maintainer, or that of the command, does the work.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::plan::Verdict;
use crate::error::{Context, Error, Result};
use crate::gold::progress::{DEFINITION, NEXT_DEFINITION};
use crate::gold::{GoldDefinition, GoldPlan, Grant, MeasureSettings, OldRows, Work, null_columns};
use crate::hive::HiveViewSpec;
use crate::metastore::{HiveTable, Metastore};

/// One difference.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GoldStep {
    /// For people.
    pub what: String,
    pub verdict: Verdict,
}

/// Steps to a gold table's definition in the pipeline file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Redefinition {
    pub database: String,
    /// Without its database.
    pub table: String,
    /// The definition that the table had, and the one that it was to have, when the plan was made.
    from: String,
    granted: Option<String>,
    to: String,
    old_rows: OldRows,
    pub steps: Vec<GoldStep>,
}

impl Redefinition {
    /// The plan for a gold table; none if it does not exist yet, or is what the pipeline file says. With `backfill` rows of before are computed
    /// again where a plan could leave them as they are.
    pub async fn plan(metastore: &Metastore, database: &str, plan: &GoldPlan, backfill: bool) -> Result<Option<Self>> {
        let (table, view) = (&plan.settings().table, plan.view_spec(database)?);
        let Some(entry) = load(metastore, database, table).await? else { return Ok(None) };
        let has_nulls = backfill && has_nulls(metastore, database, table).await?;
        let view = match &view {
            Some(view) => Some((view, load(metastore, database, &view.name).await?)),
            None => None,
        };
        let view = view.as_ref().map(|(spec, entry)| (*spec, entry.as_ref()));
        let made = Self::new(&entry, view, plan, backfill.then_some(has_nulls))?;
        Ok((!made.steps.is_empty()).then_some(made))
    }

    /// `backfill` says whether there are rows with nulls, where these are to be filled.
    fn new(
        entry: &HiveTable,
        view: Option<(&HiveViewSpec, Option<&HiveTable>)>,
        plan: &GoldPlan,
        backfill: Option<bool>,
    ) -> Result<Self> {
        let wanted = plan.definition();
        let granted = Grant::of_entry(entry)?.filter(|grant| matches!(grant.work, Work::Redefine(_)));
        let from = entry.parameter(DEFINITION).unwrap_or_default().to_owned();
        let mut steps = Vec::new();
        let found = GoldDefinition::of_entry(entry);
        match &found {
            _ if from == wanted.fingerprint() => {}
            Some(found) => steps.extend(differences(found, &wanted)),
            None => steps.push(refused(
                "compute it by this definition".into(),
                "which definition it has is not known: an earlier lakesmith made the table; drop it, and it is computed from silver",
            )),
        }
        steps.extend(other_types(entry, plan)?);
        if granted.is_some() && from == wanted.fingerprint() {
            steps.push(GoldStep { what: "undo what a plan began".into(), verdict: Verdict::Recomputed });
        }
        if backfill == Some(true) && steps.is_empty() {
            steps.push(GoldStep { what: "fill the measures that old rows lack".into(), verdict: Verdict::Recomputed });
        }
        let recomputes = steps.iter().any(|step| step.verdict == Verdict::Recomputed);
        let fills = backfill.is_some() && from != wanted.fingerprint();
        let old_rows = if recomputes || fills { OldRows::Recomputed } else { OldRows::Kept };
        if old_rows == OldRows::Recomputed {
            // What comes with it costs nothing more.
            for step in steps.iter_mut().filter(|step| step.verdict == Verdict::NeedsBackfill) {
                step.verdict = Verdict::Recomputed;
            }
        }
        if let Some((spec, view)) = view {
            match view {
                None => steps.push(GoldStep { what: format!("create view {}", spec.name), verdict: Verdict::Safe }),
                Some(view) if !spec.is_current(view) => {
                    steps.push(GoldStep { what: format!("replace view {}", spec.name), verdict: Verdict::Safe });
                }
                Some(_) => {}
            }
        }
        let (database, table) = (entry.database().to_owned(), entry.name().to_owned());
        let granted = granted.map(|grant| grant.to_string());
        Ok(Self { database, table, from, granted, to: wanted.fingerprint(), old_rows, steps })
    }

    /// `database.table`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.database, self.table)
    }

    /// The reason why it cannot be applied, if there is one.
    pub fn refusal(&self) -> Option<(&str, &str)> {
        self.steps.iter().find_map(|step| match &step.verdict {
            Verdict::Refused(reason) => Some((step.what.as_str(), reason.as_str())),
            _ => None,
        })
    }

    /// Fails if the plan cannot be applied, or the pipeline file says something else by now.
    pub fn ensure_for(&self, plan: &GoldPlan) -> Result<()> {
        if let Some((what, reason)) = self.refusal() {
            return Err(Error::config(format!("the plan for gold table {} cannot be applied: {what}: {reason}", self.name()))
                .hint("change the pipeline file, and make a new plan"));
        }
        if plan.definition().fingerprint() != self.to {
            return Err(Error::config(format!(
                "the pipeline file defines gold table {} in another way than this plan",
                self.name()
            ))
            .hint("make a new plan with `lakesmith schema plan`; nothing was changed"));
        }
        Ok(())
    }

    /// Says in the table what it is to become, if it does not say so yet. Returns whether there is anything left to be done.
    pub async fn grant(&self, metastore: &Metastore) -> Result<bool> {
        let Some(entry) = load(metastore, &self.database, &self.table).await? else {
            return Err(Error::failed(format!("gold table {} does not exist any more", self.name()))
                .hint("the next run computes it by the pipeline file's definition"));
        };
        let grant = Grant { fingerprint: self.to.clone(), work: Work::Redefine(self.old_rows) };
        let now = (entry.parameter(DEFINITION).unwrap_or_default(), entry.parameter(NEXT_DEFINITION));
        if now.1 == Some(grant.to_string().as_str()) {
            return Ok(true);
        }
        let changes_rows = self.from != self.to || self.old_rows == OldRows::Recomputed;
        if !changes_rows || (now == (self.to.as_str(), None) && self.from != self.to) {
            return Ok(false);
        }
        if now != (self.from.as_str(), self.granted.as_deref()) {
            return Err(Error::failed(format!("gold table {} is in no state of this plan: it was changed since", self.name()))
                .hint("make a new plan with `lakesmith schema plan`; nothing was changed"));
        }
        // If the maintainer was faster, it is asked again.
        grant.write(metastore, entry).await?;
        Ok(true)
    }

    /// Whether the table is what the plan leads to.
    pub async fn is_done(&self, metastore: &Metastore) -> Result<bool> {
        let Some(entry) = load(metastore, &self.database, &self.table).await? else { return Ok(false) };
        if entry.parameter(DEFINITION) != Some(self.to.as_str()) || entry.parameter(NEXT_DEFINITION).is_some() {
            return Ok(false);
        }
        // Where the definition is the same only the rows tell.
        Ok(self.from != self.to || !has_nulls(metastore, &self.database, &self.table).await?)
    }
}

async fn load(metastore: &Metastore, database: &str, name: &str) -> Result<Option<HiveTable>> {
    metastore.table(database, name).await.with_context(|| format!("failed to load {database}.{name}"))
}

/// Whether any partition has rows from before some measure was added.
async fn has_nulls(metastore: &Metastore, database: &str, table: &str) -> Result<bool> {
    let partitions = metastore.partitions(database, table).await;
    let partitions = partitions.with_context(|| format!("failed to list the partitions of {database}.{table}"))?;
    Ok(partitions.iter().any(|partition| !null_columns(partition).is_empty()))
}

fn refused(what: String, reason: impl Into<String>) -> GoldStep {
    GoldStep { what, verdict: Verdict::Refused(reason.into()) }
}

fn recomputed(what: String) -> GoldStep {
    GoldStep { what, verdict: Verdict::Recomputed }
}

fn differences(found: &GoldDefinition, wanted: &GoldDefinition) -> Vec<GoldStep> {
    const ANOTHER: &str = "its windows would not be those of the rows so far; give the new one another name";
    let mut steps = Vec::new();
    let length = |definition: &GoldDefinition| humantime::format_duration(definition.window).to_string();
    for (what, from, to) in [
        ("windows", length(found), length(wanted)),
        ("time_column", found.time_column.clone(), wanted.time_column.clone()),
        ("partition_by", format!("{:?}", found.partition_by).to_lowercase(), format!("{:?}", wanted.partition_by).to_lowercase()),
    ] {
        if from != to {
            steps.push(refused(format!("change {what} from {from} to {to}"), ANOTHER));
        }
    }
    let lacks = |names: &[String], name: &String| !names.contains(name);
    let gone = found.dimensions.iter().filter(|name| lacks(&wanted.dimensions, name));
    steps.extend(gone.map(|name| recomputed(format!("drop dimension {name}"))));
    let new = wanted.dimensions.iter().filter(|name| lacks(&found.dimensions, name));
    steps.extend(new.map(|name| recomputed(format!("add dimension {name}"))));
    if steps.is_empty() && found.dimensions != wanted.dimensions {
        steps.push(recomputed("order the dimensions anew".into()));
    }
    let before = steps.len();
    steps.extend(of_measures(found, wanted));
    if steps.len() == before && found.measures != wanted.measures {
        steps.push(GoldStep { what: "order the measures anew".into(), verdict: Verdict::Safe });
    }
    steps
}

fn of_measures(found: &GoldDefinition, wanted: &GoldDefinition) -> Vec<GoldStep> {
    let mut steps = Vec::new();
    let mut gone: Vec<&MeasureSettings> =
        found.measures.iter().filter(|measure| wanted.measure(&measure.name).is_none()).collect();
    for measure in &wanted.measures {
        match found.measure(&measure.name) {
            Some(known) if known.sql == measure.sql => {}
            Some(known) => {
                steps.push(recomputed(format!("compute {} by {} instead of {}", measure.name, measure.sql, known.sql)));
            }
            // The same under another name.
            None => match gone.iter().position(|gone| gone.sql == measure.sql) {
                Some(position) => {
                    steps.push(recomputed(format!("rename measure {} to {}", gone.remove(position).name, measure.name)));
                }
                None => steps.push(GoldStep {
                    what: format!("add measure {} as {}", measure.name, measure.sql),
                    verdict: Verdict::NeedsBackfill,
                }),
            },
        }
    }
    steps.extend(gone.into_iter().map(|measure| recomputed(format!("drop measure {}", measure.name))));
    steps
}

/// Columns that the table has in another type.
fn other_types(entry: &HiveTable, plan: &GoldPlan) -> Result<Vec<GoldStep>> {
    let found: BTreeMap<String, String> =
        entry.columns().into_iter().map(|column| (column.name.to_lowercase(), column.hive_type)).collect();
    let wanted = plan.table_spec(entry.database(), entry.location().unwrap_or_default())?.columns;
    let differs = wanted.iter().filter_map(|column| {
        let known = found.get(&column.name).filter(|known| !known.eq_ignore_ascii_case(&column.hive_type))?;
        let what = format!("change {} from {known} to {}", column.name, column.hive_type);
        Some(refused(what, "files of both types would be read as one; give the new one another name"))
    });
    Ok(differs.collect())
}
