//! `lakesmith verify`: the layers compared with each other.

use bytesize::ByteSize;

use super::global::GlobalArguments;
use super::{Outcome, page};
use crate::catalog::Lakehouse;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::gold::GoldPlan;
use crate::silver::SilverPlan;
use crate::verify::{self, Layers, Report, Severity, VerifySettings};

/// Compare the layers: bronze = silver + rejected, gold = the GROUP BY over silver
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakesmith verify
  lakesmith verify --output json
  lakesmith verify --memory 32MiB              slower, in less memory
  lakesmith verify --strict                    rows that other engines added or removed are differences too

The exit code is 0 if all agrees, 1 if there are differences. It can run beside the pipeline: what is
compared lies below the offsets that every layer has.")]
pub struct Arguments {
    /// Fail also for differences that snapshots of other engines explain
    #[arg(long)]
    strict: bool,
    /// Memory for what is compared at a time: overrides verify.memory_limit
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Form of the report
    #[arg(short, long, value_enum, default_value_t)]
    output: ReportFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum ReportFormat {
    #[default]
    Text,
    Json,
}

pub async fn run(global: &GlobalArguments, arguments: Arguments) -> Result<Outcome> {
    let config = global.pipeline()?.config;
    let settings = VerifySettings { memory_limit: arguments.memory.unwrap_or(config.verify.memory_limit) };
    settings.validate()?;
    let severity = if arguments.strict { Severity::Strict } else { Severity::Explained };
    let layers = layers(&config)?;
    let lakehouse = Lakehouse::open(&config.metastore, &config.storage, &config.catalog).await?;
    let report = verify::run(&lakehouse, &layers, &settings).await?;
    lakehouse.close().await;
    match arguments.output {
        ReportFormat::Text => page::print(&text(&report, &layers))?,
        ReportFormat::Json => {
            let json = serde_json::to_string_pretty(&report);
            page::print(&json.map_err(|error| Error::failed("the report is not JSON").caused_by(error))?)?;
        }
    }
    Ok(if report.passes(severity) { Outcome::Done } else { Outcome::Differences })
}

fn layers(config: &Config) -> Result<Layers> {
    let ident = |table: &str| iceberg::TableIdent::from_strs([config.tables.database.as_str(), table]);
    let silver = SilverPlan::new(&config.silver)?;
    let plans = config.gold.iter().map(|gold| GoldPlan::new(gold, silver.arrow_schema()));
    Ok(Layers {
        bronze: ident(&config.bronze.table)?,
        bronze_format: config.bronze.format,
        silver: ident(&config.silver.table)?,
        silver_format: config.silver.format,
        rejected: ident(&config.silver.rejected_table())?,
        gold: plans.collect::<Result<_>>()?,
        database: config.tables.database.clone(),
    })
}

/// A line per comparison, marked `ok` or `DIFFERS`, with examples below those that differ.
fn text(report: &Report, layers: &Layers) -> String {
    let mut lines = Vec::new();
    let mut line = |holds: bool, what: String| lines.push(format!("{:<8} {what}", if holds { "ok" } else { "DIFFERS" }));
    let records = &report.records;
    line(
        records.holds(),
        format!(
            "{} = {} + {}: {} = {} + {} records",
            layers.bronze,
            layers.silver,
            layers.rejected,
            page::number(records.bronze_rows),
            page::number(records.silver_rows),
            page::number(records.rejected_rows)
        ),
    );
    if records.reprocessing > 0 {
        let offsets = page::number(records.reprocessing);
        line(
            true,
            format!("{offsets} offsets are being decided anew, and were not compared: `lakesmith reprocess` goes on with them"),
        );
    }
    if let Some(count) = report.bronze_count {
        let (counted, found) = (page::number(count.counted), page::number(count.found));
        line(count.counted == count.found, format!("{}: {counted} records counted, {found} found", layers.bronze));
    }
    for gold in &report.gold {
        let (rows, partitions) = (page::number(gold.rows), page::number(gold.partitions as u64));
        let mut what = format!("{} = GROUP BY of {}: {rows} rows in {partitions} partitions", gold.table, layers.silver);
        if gold.outdated > 0 {
            what += &format!("; {} of them are to be computed again, and were not compared", page::number(gold.outdated as u64));
        }
        line(gold.holds(), what);
    }
    let details = [
        ("in bronze, in neither silver nor rejected", &records.missing),
        ("in silver or rejected, not in bronze", &records.unknown),
        ("in silver and in rejected", &records.both),
        ("more than once in bronze", &records.bronze_repeated),
        ("more than once in silver", &records.silver_repeated),
        ("more than once in rejected", &records.rejected_repeated),
    ];
    for (what, offsets) in details.into_iter().filter(|(_, offsets)| offsets.count > 0) {
        lines.push(format!("  {} records {what}: {}", page::number(offsets.count), offsets.examples.join(", ")));
    }
    for gold in report.gold.iter().filter(|gold| !gold.holds()) {
        let (rows, partitions) = (page::number(gold.differing_rows), gold.differing_partitions.join(", "));
        lines.push(format!("  {rows} rows of {} differ, in {partitions}", gold.table));
        lines.extend(gold.examples.iter().map(|example| format!("    {example}")));
    }
    if !report.foreign_snapshots.is_empty() {
        lines.push("snapshots of other engines:".to_string());
    }
    for snapshot in &report.foreign_snapshots {
        lines.push(format!(
            "  {} {} {} by {}: {} rows added, {} removed",
            snapshot.table,
            snapshot.snapshot_id,
            snapshot.operation,
            snapshot.engine.as_deref().unwrap_or("an unknown engine"),
            page::number(snapshot.added_records),
            page::number(snapshot.removed_records)
        ));
    }
    if report.explained {
        lines.push("the differences can all be explained by these; --strict takes them for differences".to_string());
    }
    lines.join("\n")
}
