//! `lakesmith doctor`: everything that a run depends on, with a tick or a cross.

use super::global::GlobalArguments;
use super::{Outcome, page};
use crate::doctor::{self, Check, Finding};
use crate::error::{Error, Result};

/// Check everything that a run depends on, and say what would stop it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakesmith doctor                      ✓ is well, ! wants a look, ✗ would stop a run
  lakesmith doctor --output json        one object per line: finding, area, what, found, hint
  lakesmith doctor -c orders.toml && lakesmith run -c orders.toml

It opens the topic, asks each metastore for its version and abilities, and reads the tables. Nothing
is left behind: a view for the probe of compare-and-swap, a lock on a name of its own, and a small
file in the warehouse come and go. The exit code is 1 if something would stop a run, 2 if the
pipeline file is wrong.")]
pub struct Arguments {
    /// Form of the list: lines for people, or one JSON object per line
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum OutputFormat {
    #[default]
    Text,
    Json,
}

pub async fn run(global: &GlobalArguments, arguments: Arguments) -> Result<Outcome> {
    let config = global.pipeline()?.config;
    let valid = Check {
        finding: Finding::Ok,
        area: "configuration",
        what: format!("pipeline {}", config.pipeline.name),
        found: "valid".to_owned(),
        hint: None,
    };
    let mut checks = vec![valid];
    checks.extend(doctor::examine(&config.definition()).await);
    match arguments.output {
        OutputFormat::Json => {
            let lines = checks.iter().map(serde_json::to_string).collect::<std::result::Result<Vec<_>, _>>();
            page::print(&lines.map_err(|error| Error::failed("the list is not JSON").caused_by(error))?.join("\n"))?;
        }
        OutputFormat::Text => page::print(&checks.iter().map(line).collect::<Vec<_>>().join("\n"))?,
    }
    let failed = checks.iter().any(|check| check.finding == Finding::Failed);
    Ok(if failed { Outcome::Differences } else { Outcome::Done })
}

fn line(check: &Check) -> String {
    let mark = match check.finding {
        Finding::Ok => '✓',
        Finding::Warning => '!',
        Finding::Failed => '✗',
    };
    let hint = check.hint.as_ref().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
    // An error's words may go on for lines.
    let found = check.found.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    format!("{mark} {} {}: {found}{hint}", check.area, check.what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_mark_a_reason_and_the_way_out() {
        let check = Check {
            finding: Finding::Failed,
            area: "storage",
            what: "hdfs://nn/lake".into(),
            found: "it cannot be written:\n  Permission denied".into(),
            hint: Some("set HADOOP_USER_NAME".into()),
        };
        let text = "✗ storage hdfs://nn/lake: it cannot be written: Permission denied\n  hint: set HADOOP_USER_NAME";
        assert_eq!(line(&check), text);
        let json = serde_json::to_string(&Check { finding: Finding::Warning, hint: None, ..check }).unwrap();
        assert!(json.starts_with(r#"{"finding":"warning","area":"storage""#) && json.ends_with(r#""hint":null}"#), "{json}");
    }
}
