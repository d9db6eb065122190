//! What can be wrong with settings that are each well formed: limits, and what modules expect of each other.

use std::collections::HashMap;
use std::time::Duration;

use iceberg::arrow::schema_to_arrow_schema;

use super::Config;
use super::problem::Problem;
use super::sources::path_of;
use super::tree::{Node, Origin};
use crate::error::{Error, Result};
use crate::gold::GoldPlan;
use crate::silver::SilverPlan;
use crate::table::TableFormat;

/// Everything that is wrong with a configuration.
pub(super) fn validate(config: &Config, origins: &Node) -> Vec<Problem> {
    let mut check = Check { origins, problems: Vec::new() };
    check.limits(config);
    check.note("source", config.source.validate());
    check.names(config);
    check.nothing_below_hive(config);
    check.layers(config);
    check.problems
}

struct Check<'a> {
    origins: &'a Node,
    problems: Vec<Problem>,
}

impl Check<'_> {
    /// Notes a problem at the deepest part of a path that somebody has set.
    fn problem(&mut self, path: &str, message: impl Into<String>, hint: Option<&str>) {
        let path = path_of(path);
        let known = (0..=path.len()).rev().find_map(|parts| self.origins.find(&path[..parts]).filter(|_| parts > 0));
        let origin = known.map_or(Origin::Default, |node| node.origin.clone());
        self.problems.push(Problem { origin, path, message: message.into(), hint: hint.map(str::to_string) });
    }

    fn note(&mut self, path: &str, result: Result<()>) {
        if let Err(error) = result {
            self.error(path, &error);
        }
    }

    fn error(&mut self, path: &str, error: &Error) {
        self.problem(path, error.chain(), error.hint_text());
    }

    fn limits(&mut self, config: &Config) {
        let pipeline = &config.pipeline;
        self.between("pipeline.commit_interval", pipeline.commit_interval, Duration::from_millis(100), Duration::from_secs(3600));
        if let Some(longest) = pipeline.commit_interval_max {
            self.between("pipeline.commit_interval_max", longest, Duration::from_millis(100), Duration::from_secs(3600));
        }
        self.between("pipeline.shutdown_grace", pipeline.shutdown_grace, Duration::from_secs(1), Duration::from_secs(3600));
        self.note("pipeline", pipeline.validate());
        self.note("verify", config.verify.validate());
        for (index, gold) in config.gold.iter().enumerate() {
            let path = format!("gold.{index}.refresh_interval");
            self.between(&path, gold.refresh_interval, Duration::from_millis(100), Duration::from_secs(86_400));
        }
    }

    fn between(&mut self, path: &str, value: Duration, least: Duration, most: Duration) {
        if value < least || value > most {
            let show = humantime::format_duration;
            self.problem(path, format!("{} is not between {} and {}", show(value), show(least), show(most)), None);
        }
    }

    /// Names as the metastore takes them, no two tables of one name or one directory.
    fn names(&mut self, config: &Config) {
        self.identifier("tables.database", &config.tables.database);
        if config.tables.compatibility.is_empty() {
            let hint = "name those that read the tables, or leave the setting out";
            self.problem("tables.compatibility", "names no engine", Some(hint));
        }
        let mut tables = vec![
            ("bronze".to_string(), config.bronze.table.clone(), config.bronze.location.clone()),
            ("silver".to_string(), config.silver.table.clone(), config.silver.location.clone()),
            ("silver.rejected".to_string(), config.silver.rejected_table(), config.silver.rejected.location.clone()),
        ];
        for (index, gold) in config.gold.iter().enumerate() {
            let location = Some(gold.location.clone()).filter(|location| !location.is_empty());
            tables.push((format!("gold.{index}"), gold.table.clone(), location));
            if !gold.view.is_empty() {
                self.identifier(&format!("gold.{index}.view"), &gold.view);
            }
        }
        let (mut names, mut locations) = (HashMap::new(), HashMap::new());
        for (path, table, location) in tables {
            self.identifier(&format!("{path}.table"), &table);
            if let Some(other) = names.insert(table.clone(), path.clone()) {
                self.problem(
                    &format!("{path}.table"),
                    format!("{table} is also the table of {other}"),
                    Some("give each table a name of its own"),
                );
            }
            if let Some(location) = location.map(|location| config.location(&location))
                && let Some(other) = locations.insert(location.clone(), path.clone())
            {
                let message = format!("{location} is also the directory of {other}");
                self.problem(&format!("{path}.location"), message, Some("give each table a directory of its own"));
            }
        }
    }

    /// Hive reads a directory of files with everything below it, or refuses to.
    fn nothing_below_hive(&mut self, config: &Config) {
        let mut tables = vec![
            ("bronze".to_string(), config.bronze.location.clone(), config.bronze.format),
            ("silver".to_string(), config.silver.location.clone(), config.silver.format),
            ("silver.rejected".to_string(), config.silver.rejected.location.clone(), TableFormat::Iceberg),
        ];
        let gold = config.gold.iter().enumerate();
        tables.extend(gold.map(|(index, gold)| (format!("gold.{index}"), Some(gold.location.clone()), TableFormat::Iceberg)));
        let of_hive = tables.iter().filter(|(_, _, format)| *format == TableFormat::Hive);
        for (layer, location) in of_hive.filter_map(|(layer, location, _)| Some((layer, location.as_ref()?))) {
            let above = format!("{}/", config.location(location));
            for (path, location, _) in &tables {
                if location.as_ref().is_some_and(|location| config.location(location).starts_with(&above)) {
                    let message = format!(
                        "it is below {layer}'s directory {above}, which Hive reads as a whole ({layer}.format = \"hive\")"
                    );
                    self.problem(&format!("{path}.location"), message, Some("give each table a directory beside the others"));
                }
            }
        }
    }

    /// Hive's names: letters of lower case, digits and underscores.
    fn identifier(&mut self, path: &str, name: &str) {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || name.len() > 128 || !name.chars().all(fits) {
            let hint = "use up to 128 letters of lower case, digits and underscores, as Hive's metastore does";
            self.problem(path, format!("\"{name}\" is not a name"), Some(hint));
        }
    }

    /// Silver is planned over its settings, gold over silver's columns: what does not fit is found here and not at midnight.
    fn layers(&mut self, config: &Config) {
        if config.silver.columns.is_empty() {
            self.problem("silver", "no columns are declared", Some("declare [[silver.columns]], or begin with `lakesmith init`"));
            return;
        }
        let schema = match SilverPlan::new(&config.silver).and_then(|plan| Ok(schema_to_arrow_schema(plan.schema())?)) {
            Ok(schema) => schema,
            Err(error) => return self.error("silver", &error),
        };
        for (index, gold) in config.gold.iter().enumerate() {
            if let Err(error) = GoldPlan::new(gold, &schema) {
                self.error(&format!("gold.{index}"), &error);
            }
        }
    }
}
