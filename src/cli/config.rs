//! `lakesmith config`: what is in force, and what is wrong.

use super::global::GlobalArguments;
use super::{Outcome, page};
use crate::config::Config;
use crate::error::Result;

/// Check the configuration, or show what is in force
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakesmith config check
  lakesmith config show -c pipeline.toml")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Say what is wrong with the configuration, all of it; no server is asked
    #[command(after_help = "\
Examples:
  lakesmith config check                       ./pipeline.toml with the environment
  lakesmith config check -c orders.toml --set source.topic=orders

The exit code is 0 if all is right, 2 otherwise.")]
    Check,
    /// Print every setting in force with where it came from; secrets are masked
    #[command(after_help = "\
Examples:
  lakesmith config show
  lakesmith config show | grep -v '# default'  what somebody has set
  KAFKA_TOPIC=orders lakesmith config show | grep topic")]
    Show,
}

pub fn run(global: &GlobalArguments, arguments: Arguments) -> Result<Outcome> {
    let loaded = global.pipeline()?;
    match arguments.action {
        Action::Check => page::print(&summary(&loaded.config))?,
        Action::Show => page::print(&loaded.show())?,
    }
    Ok(Outcome::Done)
}

/// What the pipeline does, in a few lines.
fn summary(config: &Config) -> String {
    let database = &config.tables.database;
    let metastore = match config.metastore.uris.as_slice() {
        [] => "embedded".to_string(),
        uris => uris.join(", "),
    };
    let mut lines = vec![
        format!("ok: pipeline {}", config.pipeline.name),
        format!("  source     {} topic {}", source_kind(config), config.source.topic),
        format!("  bronze     {database}.{}", config.bronze.table),
        format!(
            "  silver     {database}.{}, {} columns, {} derived, {} expectations",
            config.silver.table,
            config.silver.columns.len(),
            config.silver.derive.len(),
            config.silver.expect.len()
        ),
        format!("  rejected   {database}.{}", config.silver.rejected_table()),
    ];
    for gold in &config.gold {
        let (window, measures) = (humantime::format_duration(gold.window), gold.measures.len());
        lines.push(format!("  gold       {database}.{}, {window} windows, {measures} measures", gold.table));
        if !gold.view.is_empty() {
            lines.push(format!("  view       {database}.{}", gold.view));
        }
    }
    lines.push(format!("  warehouse  {}", config.storage.warehouse));
    lines.push(format!("  metastore  {metastore}"));
    lines.join("\n")
}

fn source_kind(config: &Config) -> &'static str {
    use crate::source::SourceKind;
    match config.source.kind {
        SourceKind::Kafka => "kafka",
        SourceKind::File => "file",
        SourceKind::Generator => "generator",
    }
}
