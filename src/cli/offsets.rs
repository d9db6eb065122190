//! `lakesmith offsets`: how far each table is, and the way out when a table stopped the pipeline.

use std::collections::BTreeMap;

use iceberg::TableIdent;

use super::Outcome;
use super::global::GlobalArguments;
use super::page::{self, Page, number};
use crate::bronze::BronzeTable;
use crate::catalog::Lakehouse;
use crate::checkpoint::{Checkpoint, Coverage, PartitionId};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::query::overview;
use crate::silver::SilverTable;
use crate::source;
use crate::table::offsets::{self, OffsetsReport, Side};
use crate::table::{LakeTable, Origin, Progress, TableFormat};

/// Show how far each table is; decide what is right where a table contradicts itself
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakesmith offsets show                       what each table says, and why the pipeline would stop
  lakesmith offsets accept silver --side snapshot
  lakesmith offsets rebuild silver
  lakesmith offsets set bronze 0=1500 1=1480

A table is named by its layer (bronze, silver, rejected) or by its name. Stop the pipeline first.")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show the offsets of all tables, and whether the pipeline could go on with them
    #[command(after_help = "\
Examples:
  lakesmith offsets show
  lakesmith offsets show silver")]
    Show {
        /// Layer or table; without it all
        table: Option<String>,
    },
    /// Declare one of two contradicting sides to be right
    #[command(after_help = "\
Examples:
  lakesmith offsets accept silver --side snapshot   after a rollback: read again what was undone
  lakesmith offsets accept silver --side property   keep the offsets committed last, whatever was
                                                    done to the table")]
    Accept {
        /// Layer or table
        table: String,
        /// The side that is right
        #[arg(long, value_enum)]
        side: AcceptedSide,
    },
    /// Recompute a table's offsets from its records
    #[command(after_help = "\
Examples:
  lakesmith offsets rebuild bronze

For each partition: the first offset, the one after the last, and how many records lie between.")]
    Rebuild {
        /// Layer or table
        table: String,
    },
    /// Set the next offset of partitions
    #[command(after_help = "\
Examples:
  lakesmith offsets set bronze 0=1500 1=1480
  lakesmith offsets set bronze 0=0 1=0 --follow-topic   after the topic was created again")]
    Set {
        /// Layer or table
        table: String,
        /// Next offset to read of a partition; partitions that are not named keep theirs
        #[arg(required = true, value_name = "PARTITION=OFFSET", value_parser = partition_offset)]
        next: Vec<(PartitionId, i64)>,
        /// From here on the table holds records of the topic as it is now
        #[arg(long)]
        follow_topic: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum AcceptedSide {
    /// The table's properties: the last thing that lakesmith committed
    Property,
    /// The newest snapshot of lakesmith in the table
    Snapshot,
}

/// The layers whose tables hold single records.
const LAYERS: [&str; 3] = ["bronze", "silver", "rejected"];

fn partition_offset(text: &str) -> std::result::Result<(PartitionId, i64), String> {
    let parts = text.split_once('=').and_then(|(partition, next)| Some((partition.parse().ok()?, next.parse().ok()?)));
    parts
        .filter(|(partition, next)| *partition >= 0 && *next >= 0)
        .ok_or_else(|| "expected PARTITION=OFFSET, for example 0=1500".to_string())
}

pub async fn run(global: &GlobalArguments, arguments: Arguments) -> Result<Outcome> {
    let config = global.pipeline()?.config;
    let lakehouse = Lakehouse::open(&config.metastore, &config.storage, &config.catalog).await?;
    let outcome = match arguments.action {
        Action::Show { table } => show(&config, &lakehouse, table.as_deref()).await,
        Action::Accept { table, side } => {
            let side = match side {
                AcceptedSide::Property => Side::Property,
                AcceptedSide::Snapshot => Side::Summary,
            };
            let mut table = open(&config, &lakehouse, &table).await?;
            offsets::accept(&mut table, side).await.and_then(|checkpoint| changed(&table, &checkpoint))
        }
        Action::Rebuild { table } => {
            let mut table = open(&config, &lakehouse, &table).await?;
            let origin = match known_origin(&table)? {
                Some(origin) => origin,
                None => topic_now(&config).await?,
            };
            offsets::rebuild(&mut table, &origin).await.and_then(|checkpoint| changed(&table, &checkpoint))
        }
        Action::Set { table, next, follow_topic } => {
            let mut table = open(&config, &lakehouse, &table).await?;
            let origin = if follow_topic { Some(topic_now(&config).await?) } else { None };
            let next: BTreeMap<_, _> = next.into_iter().collect();
            offsets::set(&mut table, origin.as_ref(), &next).await.and_then(|checkpoint| changed(&table, &checkpoint))
        }
    };
    lakehouse.close().await;
    outcome
}

fn changed(table: &LakeTable, checkpoint: &Checkpoint) -> Result<Outcome> {
    page::print(&format!("{} goes on at\n{}", table.ident(), positions(&checkpoint.partitions)))?;
    Ok(Outcome::Done)
}

async fn show(config: &Config, lakehouse: &Lakehouse, only: Option<&str>) -> Result<Outcome> {
    let mut text = Vec::new();
    for name in LAYERS.iter().map(|layer| table_name(config, layer)) {
        if only.is_some_and(|only| table_name(config, only) != name) {
            continue;
        }
        let ident = TableIdent::from_strs([config.tables.database.as_str(), &name])?;
        if let Some(layer) = logged_layer(config, &name) {
            let catalog = lakehouse.catalog();
            let checkpoint = match layer {
                "bronze" => BronzeTable::open(catalog, &ident, TableFormat::Hive).await?.map(|table| table.checkpoint()),
                _ => SilverTable::open(catalog, &ident, TableFormat::Hive).await?.map(|table| table.checkpoint()),
            };
            text.push(match checkpoint.transpose()? {
                None => format!("{ident}: not there yet"),
                Some(checkpoint) => describe_logged(&ident, checkpoint.as_ref()),
            });
            continue;
        }
        text.push(match LakeTable::open(lakehouse.catalog(), &ident).await? {
            None => format!("{ident}: not there yet"),
            Some(table) => describe(&offsets::inspect(&table)?),
        });
    }
    for gold in config.gold.iter().filter(|gold| only.is_none_or(|only| only == "gold" || only == gold.table)) {
        let name = format!("{}.{}", config.tables.database, gold.table);
        text.push(match overview::details(lakehouse.catalog(), &config.tables.database, &gold.table).await? {
            None => format!("{name}: not there yet"),
            Some(details) => format!("{name}: holds silver up to\n{}", positions(&details.positions)),
        });
    }
    if let (true, Some(only)) = (text.is_empty(), only) {
        return Err(unknown(config, only));
    }
    let text: Vec<_> = text.iter().map(|table| table.trim_end()).collect();
    page::print(&text.join("\n\n"))?;
    Ok(Outcome::Done)
}

fn describe(report: &OffsetsReport) -> String {
    let mut text = match &report.verdict {
        Ok(None) => format!("{}: no records yet", report.table),
        Ok(Some(checkpoint)) => {
            format!("{}: topic {}, goes on at\n{}", report.table, checkpoint.topic, positions(&checkpoint.partitions))
        }
        Err(stop) => {
            let Progress { property, summary, .. } = &report.progress;
            let mut text = format!("{}: the pipeline would stop: {}\n", report.table, stop.chain());
            if let Some(property) = property {
                text.push_str(&format!("its properties say:\n{}", positions(&property.partitions)));
            }
            if let Some((snapshot, summary)) = summary {
                text.push_str(&format!("its snapshot {snapshot} says:\n{}", positions(&summary.partitions)));
            }
            text
        }
    };
    if !report.later_snapshots.is_empty() {
        let later: Vec<_> = report.later_snapshots.iter().take(5).map(|(id, operation)| format!("{id} ({operation})")).collect();
        text.push_str(&format!("snapshots of other engines since: {}\n", later.join(", ")));
    }
    text.trim_end().to_string()
}

/// A table in plain Hive form has one side only: its newest commit.
fn describe_logged(ident: &TableIdent, checkpoint: Option<&Checkpoint>) -> String {
    match checkpoint {
        None => format!("{ident}: no records yet"),
        Some(checkpoint) => {
            format!("{ident}: topic {}, goes on at\n{}", checkpoint.topic, positions(&checkpoint.partitions))
        }
    }
}

/// The layer of a table that is in plain Hive form.
fn logged_layer(config: &Config, name: &str) -> Option<&'static str> {
    let layers = [("bronze", &config.bronze.table, config.bronze.format), ("silver", &config.silver.table, config.silver.format)];
    layers.into_iter().find(|(_, table, format)| *table == name && *format == TableFormat::Hive).map(|(layer, ..)| layer)
}

fn positions(partitions: &BTreeMap<PartitionId, Coverage>) -> String {
    let mut page = Page::new(["partition", "first offset", "next offset", "records"]).right(0..4);
    for (partition, coverage) in partitions {
        page.row([partition.to_string(), number(coverage.range.start), number(coverage.range.end), number(coverage.records)]);
    }
    page.to_string()
}

/// The table that a layer or a table's name stands for.
fn table_name(config: &Config, named: &str) -> String {
    match named {
        "bronze" => config.bronze.table.clone(),
        "silver" => config.silver.table.clone(),
        "rejected" => config.silver.rejected_table(),
        other => other.split_once('.').map_or(other, |(_, table)| table).to_string(),
    }
}

async fn open(config: &Config, lakehouse: &Lakehouse, named: &str) -> Result<LakeTable> {
    let name = table_name(config, named);
    if LAYERS.iter().all(|layer| table_name(config, layer) != name) {
        return Err(unknown(config, named));
    }
    let ident = TableIdent::from_strs([config.tables.database.as_str(), &name])?;
    if let Some(layer) = logged_layer(config, &name) {
        return Err(Error::config(format!(
            "the offsets of {ident} are in the names of its files, and cannot be set ({layer}.format = \"hive\")"
        ))
        .hint("a deleted file can be put back; to read the topic anew, give the pipeline new table names"));
    }
    let missing = || Error::failed(format!("table {ident} does not exist")).hint("`lakesmith run` creates it");
    LakeTable::open(lakehouse.catalog(), &ident).await?.ok_or_else(missing)
}

fn unknown(config: &Config, named: &str) -> Error {
    let (bronze, silver, rejected) = (&config.bronze.table, &config.silver.table, config.silver.rejected_table());
    Error::config(format!("{named} is no table of this pipeline whose offsets can be set"))
        .hint(format!("name bronze ({bronze}), silver ({silver}) or rejected ({rejected})"))
}

/// The topic that a table says it holds.
fn known_origin(table: &LakeTable) -> Result<Option<Origin>> {
    let Progress { property, summary, .. } = Progress::read(table.metadata())?;
    let known = property.or_else(|| summary.map(|(_, checkpoint)| checkpoint));
    Ok(known.map(|known| Origin { topic: known.topic, topic_id: known.topic_id, cluster_id: known.cluster_id }))
}

/// The topic as the source finds it.
async fn topic_now(config: &Config) -> Result<Origin> {
    let source = source::open(&config.source).await?;
    let identity = source.identity().clone();
    Ok(Origin { topic: identity.topic, topic_id: identity.topic_id, cluster_id: identity.cluster_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_pairs_of_numbers_that_are_not_negative() {
        assert_eq!(partition_offset("3=1500"), Ok((3, 1500)));
        for text in ["3", "3=", "=5", "a=1", "-1=5", "1=-5", "1=2=3"] {
            assert!(partition_offset(text).is_err(), "{text}");
        }
    }
}
