//! `lakesmith reprocess`: records decided anew by the definition of now.

use std::collections::BTreeMap;
use std::str::FromStr;

use chrono::{DateTime, Utc};

use super::global::GlobalArguments;
use super::{Outcome, page, progress, run, wait};
use crate::catalog::Lakehouse;
use crate::checkpoint::{OffsetRange, PartitionId};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::pipeline::{self, Abandoned, EngineOptions, ReprocessOptions, Reprocessed, Selection};
use crate::table::Replaced;

/// Compute silver, rejected and gold again from bronze, by the definition of now
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakesmith reprocess --rejected                    what was rejected, since a rule was relaxed
  lakesmith reprocess                               everything
  lakesmith reprocess --offsets 0:1000..2000 --offsets 1:500..
  lakesmith reprocess --since 2025-01-01 --until \"2025-01-02 12:00\"
  lakesmith reprocess --since 2025-01-01 --into _new    into new tables, to be compared first
  lakesmith reprocess --engine spark --engine-command \"spark-sql --master yarn -f {script}\"
  lakesmith reprocess --engine trino --engine-command \"trino --catalog iceberg -f {script}\"
  lakesmith reprocess --abandon                     take back what was begun

It may run beside the daemon, and goes on where it was killed or stopped when it is given again. The
new rows are computed aside. Then each table is replaced in one step: silver, rejected, and the
partitions of gold that are concerned, one after the other. In between a record may be in both of
silver and rejected, or in neither; `lakesmith verify` knows of it. Rows that others changed or
deleted in these ranges come back as bronze has them. Snapshots from before still show the old rows.

A time selects all offsets from the first to the last record of each topic partition whose timestamp
lies in it. Times are in UTC. One like -1d is another time when it is given again: leave it out to go
on; with --into, name the time.

With --engine the rows are computed by other machines. The tables must be on HDFS, and in a metastore
that these machines reach. For Spark this process writes a script that starts lakesmith itself on the
executors, one task for each --part-records offsets: every record is decided there. The executors need
HADOOP_CONF_DIR where HDFS needs it. Trino gets one INSERT, for the records that its SQL reads exactly
as silver does; this process checks a sample of these rows value by value, and decides all others
itself. A pipeline with an expression that Trino has no equal of is refused.")]
pub struct Arguments {
    /// Only records that are in the rejected table
    #[arg(long)]
    rejected: bool,
    /// Only these offsets of a topic partition, the end not included; may be repeated
    #[arg(long, value_name = "PARTITION:START..END")]
    offsets: Vec<Offsets>,
    /// Only records with a timestamp from this time on: 2025-01-01T12:00:00Z, 2025-01-01 12:00, -1d
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Only records with a timestamp before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// Write new tables instead, whose names are those of the pipeline with this behind them
    #[arg(long, value_name = "SUFFIX")]
    into: Option<String>,
    /// Have the rows computed by the machines of this engine
    #[arg(long, value_enum, value_name = "ENGINE")]
    engine: Option<Engine>,
    /// What runs the script of --engine, and for Spark prints the rows of its query [default: spark-sql -f
    /// {script}, or trino --catalog iceberg -f {script}]
    #[arg(long, value_name = "COMMAND", requires = "engine")]
    engine_command: Option<String>,
    /// Most offsets that one task of Spark's computes [default: 1000000]
    #[arg(long, value_name = "NUMBER", requires = "engine", value_parser = clap::value_parser!(u64).range(1..))]
    part_records: Option<u64>,
    /// Take back a reprocessing that no table shows yet
    #[arg(long, conflicts_with_all = ["rejected", "offsets", "since", "until", "into", "engine"])]
    abandon: bool,
}

/// Who computes the rows, if not this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Engine {
    /// Every record, by a script for Spark SQL that starts lakesmith
    Spark,
    /// Records that its SQL reads as silver does, by a script for Trino
    Trino,
}

/// `0:1000..2000`; either end may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Offsets {
    partition: PartitionId,
    range: OffsetRange,
}

impl FromStr for Offsets {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parsed = (|| {
            let (partition, range) = text.split_once(':')?;
            let (start, end) = range.split_once("..")?;
            let number = |text: &str, otherwise| if text.is_empty() { Some(otherwise) } else { text.parse::<i64>().ok() };
            let (start, end) = (number(start, 0)?, number(end, i64::MAX)?);
            let partition = partition.parse().ok().filter(|partition| *partition >= 0)?;
            (0 <= start && start < end).then_some(Self { partition, range: OffsetRange { start, end } })
        })();
        parsed.ok_or_else(|| "that is no range of offsets; for example 0:1000..2000, or 0:1000.. to the end".to_owned())
    }
}

const STOPPING: &str = "stopping after the step under way: the same command goes on (once more ends at once)";

pub async fn run(global: &GlobalArguments, arguments: Arguments) -> Result<Outcome> {
    let selection = selection(&arguments)?;
    let config = global.pipeline()?.config;
    if let Some(engine) = engine(&arguments)? {
        engine.ensure_fits(&config.definition())?;
    }
    let lakehouse = Lakehouse::open(&config.metastore, &config.storage, &config.catalog).await?;
    let done = carry_out(&config, &lakehouse, &arguments, selection).await;
    lakehouse.close().await;
    page::print(&done?)?;
    Ok(Outcome::Done)
}

/// What was done, as it is told.
async fn carry_out(config: &Config, lakehouse: &Lakehouse, arguments: &Arguments, selection: Selection) -> Result<String> {
    let definition = config.definition();
    if arguments.abandon {
        return Ok(match pipeline::abandon_reprocessing(&definition, lakehouse).await? {
            Some(Abandoned::TakenBack(ranges)) => {
                format!("the reprocessing of {ranges} is taken back; the tables are as they were")
            }
            Some(Abandoned::HalfDone(ranges)) => format!(
                "the reprocessing of {ranges} is given up: silver has the new rows, and rejected's are lost; \
                 reprocess these offsets again, so that every record is in one of the two"
            ),
            None => "no reprocessing was begun: nothing to take back".to_owned(),
        });
    }
    let (shutdown, observer) = (run::stop_on_signal(STOPPING)?, progress::observer()?);
    let options = ReprocessOptions { selection, shutdown, observer, engine: engine(arguments)? };
    let stopped = || Error::failed("stopped before it was done").hint("the same command goes on; nothing is lost");
    match &arguments.into {
        Some(suffix) => {
            ensure_suffix(suffix)?;
            let report = pipeline::reprocess_into(&definition, lakehouse, suffix, &options).await?;
            Ok(progress::summary(&report.ok_or_else(stopped)?))
        }
        None => {
            let report = pipeline::reprocess(&definition, lakehouse, &options).await?;
            Ok(text(&report.ok_or_else(stopped)?, &config.silver.table, &config.silver.rejected_table()))
        }
    }
}

/// The engine that was asked for.
fn engine(arguments: &Arguments) -> Result<Option<EngineOptions>> {
    let engine = match (arguments.engine, arguments.part_records) {
        (None, _) => return Ok(None),
        (Some(Engine::Spark), part_records) => pipeline::Engine::Spark { part_records: part_records.unwrap_or(1_000_000) },
        (Some(Engine::Trino), None) => pipeline::Engine::Trino,
        (Some(Engine::Trino), Some(_)) => {
            return Err(Error::config("--part-records is for Spark: Trino gets one statement").hint("leave it out"));
        }
    };
    let command = arguments.engine_command.clone().unwrap_or_else(|| engine.command().to_owned());
    Ok(Some(EngineOptions { engine, command }))
}

fn selection(arguments: &Arguments) -> Result<Selection> {
    let mut offsets = BTreeMap::new();
    for Offsets { partition, range } in &arguments.offsets {
        if offsets.insert(*partition, *range).is_some() {
            return Err(Error::config(format!("--offsets names topic partition {partition} twice"))
                .hint("give one range for each partition; reprocess the other one afterwards"));
        }
    }
    let now = Utc::now();
    let instant = |flag: &str, text: &Option<String>| -> Result<Option<i64>> {
        let Some(text) = text else { return Ok(None) };
        let found: Option<DateTime<Utc>> = wait::instant(text, now);
        let found = found.ok_or_else(|| {
            Error::config(format!("{flag} {text}: this is no time"))
                .hint("for example 2025-01-01T12:00:00Z, \"2025-01-01 12:00\", now, or -1d")
        })?;
        Ok(Some(found.timestamp_micros()))
    };
    Ok(Selection {
        offsets,
        since_us: instant("--since", &arguments.since)?,
        until_us: instant("--until", &arguments.until)?,
        only_rejected: arguments.rejected,
    })
}

/// Names of tables in a metastore have letters, digits and underscores.
fn ensure_suffix(suffix: &str) -> Result<()> {
    if !suffix.is_empty() && suffix.chars().all(|character| character.is_ascii_alphanumeric() || character == '_') {
        return Ok(());
    }
    Err(Error::config(format!("--into {suffix:?}: tables cannot have names that end so"))
        .hint("use letters, digits and underscores, for example _new"))
}

fn text(report: &Reprocessed, silver: &str, rejected: &str) -> String {
    let mut lines = vec![format!("decided anew: {}", report.ranges)];
    for (table, replaced) in [(silver, report.silver), (rejected, report.rejected)] {
        lines.push(match replaced {
            Some(Replaced { rows_removed, rows_added, files_rewritten, .. }) => {
                let (removed, added) = (page::number(rows_removed), page::number(rows_added));
                let rewritten = match files_rewritten {
                    0 => String::new(),
                    1 => ", 1 file with other rows written anew".to_owned(),
                    many => format!(", {} files with other rows written anew", page::number(many as u64)),
                };
                format!("{table}: {added} rows in place of {removed}{rewritten}")
            }
            None => format!("{table}: was replaced before"),
        });
    }
    lines.extend(report.gold.iter().map(|table| format!("{table}: computed again where such rows are or were")));
    lines.push(format!("{} s in all", page::seconds(report.run.elapsed)));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_with_open_ends() {
        let parse =
            |text: &str| text.parse::<Offsets>().map(|offsets| (offsets.partition, offsets.range.start, offsets.range.end));
        assert_eq!(parse("3:10..20"), Ok((3, 10, 20)));
        assert_eq!(parse("0:10.."), Ok((0, 10, i64::MAX)));
        assert_eq!(parse("0:..7"), Ok((0, 0, 7)));
        for wrong in ["", "0", "0:5", "0:5..5", "0:7..5", "-1:0..5", "x:0..5", "0:-3..5"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
