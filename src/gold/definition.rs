//! What decides the values of a gold table, as it stands in the table's parameters; and what a table is for a plan.
//!
//! A table says by which definition its partitions were computed. Another one is *granted* by `lakesmith schema apply`, which writes only
//! that the table is to have it; the table's maintainer does the work under its lease (see [`super::redefine`]). A maintainer whose plan is
//! neither the table's definition nor the granted one does nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::grant::{Grant, Work};
use super::plan::GoldPlan;
use super::progress::{DEFINITION, DEFINITION_TEXT};
use super::settings::{GoldSettings, MeasureSettings, PartitionBy};
use crate::error::{Error, Result};
use crate::metastore::HiveTable;

/// Everything that decides a row's values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoldDefinition {
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    pub time_column: String,
    pub dimensions: Vec<String>,
    pub measures: Vec<MeasureSettings>,
    pub partition_by: PartitionBy,
}

impl GoldDefinition {
    pub fn of(settings: &GoldSettings) -> Self {
        let GoldSettings { window, time_column, dimensions, measures, partition_by, .. } = settings.clone();
        Self { window, time_column, dimensions, measures, partition_by }
    }

    /// The definition that a table's entry names; none if an earlier version of lakesmith did not write it, or nobody can read it.
    pub fn of_entry(entry: &HiveTable) -> Option<Self> {
        let found: Self = serde_json::from_str(entry.parameter(DEFINITION_TEXT)?).ok()?;
        (Some(found.fingerprint().as_str()) == entry.parameter(DEFINITION)).then_some(found)
    }

    /// A short text that is another one for every other definition.
    pub fn fingerprint(&self) -> String {
        let Self { window, time_column, dimensions, measures, partition_by } = self;
        let text = format!("{:?}", (window, time_column, dimensions, measures, partition_by));
        blake3::hash(text.as_bytes()).to_hex()[..16].to_string()
    }

    /// The parameters that name it.
    pub fn parameters(&self) -> Vec<(&'static str, Option<String>)> {
        let text = serde_json::to_string(self).ok();
        vec![(DEFINITION, Some(self.fingerprint())), (DEFINITION_TEXT, text)]
    }

    pub fn measure(&self, name: &str) -> Option<&MeasureSettings> {
        self.measures.iter().find(|measure| measure.name == name)
    }
}

/// What a table is for a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Computed by it.
    Current,
    /// To become it, or to be computed by it again.
    Granted(Work),
}

/// The cause of an error: the table has, or is to have, another definition than the plan's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline file defines it in another way")]
pub struct OtherDefinition;

/// The cause of an error: the table was told to be computed again meanwhile, which whoever opens it next begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was told so meanwhile")]
pub struct WorkGranted;

impl GoldPlan {
    /// What decides a row's values.
    pub fn definition(&self) -> GoldDefinition {
        GoldDefinition::of(self.settings())
    }

    /// Whether a table can be maintained with this plan.
    pub fn standing(&self, entry: &HiveTable) -> Result<Standing> {
        let name = format!("{}.{}", entry.database(), entry.name());
        let own = self.definition().fingerprint();
        if let Some(grant) = Grant::of_entry(entry)? {
            if grant.fingerprint == own {
                return Ok(Standing::Granted(grant.work));
            }
            return Err(Error::stop(format!("gold table {name} is about to get another definition"))
                .caused_by(OtherDefinition)
                .hint("let the pipeline file say what the applied plan says, or apply a new plan of `lakesmith schema plan`"));
        }
        if entry.parameter(DEFINITION).is_some_and(|found| found != own) {
            return Err(Error::stop(format!("gold table {name} was computed by another definition"))
                .caused_by(OtherDefinition)
                .hint(format!(
                    "`lakesmith schema plan --output plan.json` shows what leads there, `lakesmith schema apply plan.json` does it; \
                     or drop {name}, and it is computed again from silver"
                )));
        }
        Ok(Standing::Current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> GoldSettings {
        GoldSettings { table: "g".into(), measures: vec![MeasureSettings::new("n", "COUNT(*)")], ..GoldSettings::default() }
    }

    fn entry(parameters: &[(&'static str, Option<String>)]) -> HiveTable {
        let mut entry = HiveTable::new("lake", "g");
        for (name, value) in parameters {
            if let Some(value) = value {
                entry.set_parameter(name, value);
            }
        }
        entry
    }

    #[test]
    fn a_definition_is_read_back_from_the_parameters() {
        let definition = GoldDefinition::of(&settings());
        let entry = entry(&definition.parameters());
        assert_eq!(GoldDefinition::of_entry(&entry), Some(definition.clone()));
        // One that somebody else has changed says nothing.
        let mut other = entry.clone();
        other.set_parameter(DEFINITION, "0123456789abcdef");
        assert_eq!(GoldDefinition::of_entry(&other), None);
        let more = GoldSettings { measures: vec![MeasureSettings::new("n", "COUNT(x)")], ..settings() };
        assert_ne!(GoldDefinition::of(&more).fingerprint(), definition.fingerprint());
        // What decides no value is no part of it.
        let later = GoldSettings { refresh_interval: Duration::from_secs(1), ..settings() };
        assert_eq!(GoldDefinition::of(&later).fingerprint(), definition.fingerprint());
    }

    #[test]
    fn the_cause_is_found_below_contexts() {
        let error = Error::stop("x").caused_by(OtherDefinition).context("about y");
        assert!(error.has_cause::<OtherDefinition>() && !error.has_cause::<WorkGranted>());
        assert!(!Error::stop("x").has_cause::<OtherDefinition>());
    }
}
