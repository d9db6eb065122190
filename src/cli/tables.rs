//! `lakesmith tables`: what there is, and all about one table.

use super::Outcome;
use super::global::GlobalArguments;
use super::page::{self, Page, bytes, cut, instant, number};
use crate::catalog::Lakehouse;
use crate::completeness::{COMPLETE_UNTIL, parse_instant};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::query::overview::{self, TableDetails, TableKind, TableOverview};

/// List the tables, or show one: schema, partitions, snapshots, offsets, files, bytes
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  lakesmith tables                             the tables of the pipeline's database
  lakesmith tables show silver_amazon_sales"
)]
pub struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show all about one table
    #[command(after_help = "\
Examples:
  lakesmith tables show silver_amazon_sales
  lakesmith tables show datalake.gold_amazon_sales_aggregated --snapshots 0")]
    Show {
        /// TABLE or DATABASE.TABLE
        table: String,
        /// Most snapshots, or partitions of a Hive table, to list; 0 lists all
        #[arg(long, default_value_t = 10)]
        snapshots: usize,
    },
}

pub async fn run(global: &GlobalArguments, arguments: Arguments) -> Result<Outcome> {
    let config = global.pipeline()?.config;
    let lakehouse = Lakehouse::open(&config.metastore, &config.storage, &config.catalog).await?;
    let database = &config.tables.database;
    match arguments.action {
        None => {
            let tables = overview::overview(lakehouse.catalog(), database).await?;
            match tables.is_empty() {
                true => page::print(&format!("database {database} has no tables yet; `lakesmith run` creates them"))?,
                false => page::print(&list(&config, &tables).to_string())?,
            }
        }
        Some(Action::Show { table, snapshots }) => {
            let (database, name) = table.split_once('.').unwrap_or((database, &table));
            let (database, name) = (database.to_lowercase(), name.to_lowercase());
            let details = overview::details(lakehouse.catalog(), &database, &name).await?;
            let details = details.ok_or_else(|| {
                Error::config(format!("table {database}.{name} does not exist")).hint("see what there is with `lakesmith tables`")
            })?;
            let most = if snapshots == 0 { usize::MAX } else { snapshots };
            page::print(&show(&config, &details, most))?;
        }
    }
    Ok(Outcome::Done)
}

fn list(config: &Config, tables: &[TableOverview]) -> Page {
    let mut page = Page::new(["table", "layer", "format", "rows", "files", "size", "last commit (UTC)"]).right(3..6);
    let mut tables: Vec<_> = tables.iter().collect();
    tables.sort_by_key(|table| (LAYERS.iter().position(|layer| *layer == layer_of(config, &table.name)), table.name.clone()));
    let unknown = || "-".to_string();
    for table in tables {
        page.row([
            table.name.clone(),
            layer_of(config, &table.name).to_string(),
            table.kind.to_string(),
            table.rows.map_or_else(unknown, number),
            table.files.map_or_else(unknown, number),
            table.size_bytes.map_or_else(unknown, bytes),
            table.committed_ms.filter(|_| table.kind != TableKind::View).map_or_else(unknown, instant),
        ]);
    }
    page
}

/// In the order in which a record meets them; what is not the pipeline's comes last.
const LAYERS: &[&str] = &["bronze", "silver", "rejected", "gold", "view", ""];

fn layer_of(config: &Config, table: &str) -> &'static str {
    if table == config.bronze.table {
        "bronze"
    } else if table == config.silver.table {
        "silver"
    } else if table == config.silver.rejected_table() {
        "rejected"
    } else if config.gold.iter().any(|gold| table == gold.table) {
        "gold"
    } else if config.gold.iter().any(|gold| table == gold.view) {
        "view"
    } else {
        ""
    }
}

/// Characters of a property that are shown.
const PROPERTY_WIDTH: usize = 100;

fn show(config: &Config, table: &TableDetails, most: usize) -> String {
    let overview = &table.overview;
    let mut text = format!("{}.{}", overview.database, overview.name);
    let layer = layer_of(config, &overview.name);
    let mut fact = |name: &str, value: String| text.push_str(&format!("\n  {name:<13} {value}"));
    fact("format", if layer.is_empty() { overview.kind.to_string() } else { format!("{} ({layer})", overview.kind) });
    if let Some(location) = &table.location {
        fact("location", location.clone());
    }
    if let Some(location) = &table.metadata_location {
        fact("metadata", location.clone());
    }
    for (name, value) in
        [("rows", overview.rows.map(number)), ("files", overview.files.map(number)), ("size", overview.size_bytes.map(bytes))]
    {
        if let Some(value) = value {
            fact(name, value);
        }
    }
    if let Some(committed) = overview.committed_ms {
        fact("last commit", format!("{} UTC", instant(committed)));
    }
    if !table.partitioned_by.is_empty() {
        fact("partitioned", format!("by {}", table.partitioned_by.join(", ")));
    }
    if let Some(until) = table.properties.get(COMPLETE_UNTIL).and_then(|text| parse_instant(text)) {
        fact("complete", format!("up to {} UTC", instant(until)));
    }
    if let Some(topic) = &table.topic {
        fact("topic", topic.clone());
    }
    let mut section = |title: &str, page: &str| text.push_str(&format!("\n\n{title}\n{}", page.trim_end()));

    let mut columns = Page::new(["id", "column", "type", "required", "doc"]).right([0]);
    for column in &table.columns {
        let id = column.id.map_or_else(String::new, |id| id.to_string());
        let required = if column.required { "yes" } else { "" };
        let doc = cut(column.doc.as_deref().unwrap_or_default(), PROPERTY_WIDTH);
        columns.row([id, column.name.clone(), column.data_type.clone(), required.to_string(), doc]);
    }
    section("columns", &columns.to_string());

    if !table.positions.is_empty() {
        let mut page = Page::new(["partition", "first offset", "next offset", "records"]).right(0..4);
        for (partition, coverage) in &table.positions {
            page.row([partition.to_string(), number(coverage.range.start), number(coverage.range.end), number(coverage.records)]);
        }
        section("offsets", &page.to_string());
    }
    if !table.snapshots.is_empty() {
        let mut page =
            Page::new(["snapshot", "committed (UTC)", "operation", "added rows", "total rows", "offsets"]).right([3, 4]);
        for snapshot in table.snapshots.iter().take(most) {
            page.row([
                snapshot.id.to_string(),
                instant(snapshot.committed_ms),
                snapshot.operation.clone(),
                snapshot.added_rows.map_or_else(String::new, number),
                snapshot.total_rows.map_or_else(String::new, number),
                cut(snapshot.offsets.as_deref().unwrap_or_default(), PROPERTY_WIDTH),
            ]);
        }
        section(&counted("snapshots", table.snapshots.len(), most), &page.to_string());
    }
    if !table.partitions.is_empty() {
        let mut page = Page::new(["partition", "rows", "files", "size", "location"]).right(1..4);
        // The newest are the last by value.
        for partition in table.partitions.iter().rev().take(most) {
            page.row([
                partition.values.join("/"),
                partition.rows.map_or_else(String::new, number),
                partition.files.map_or_else(String::new, number),
                partition.size_bytes.map_or_else(String::new, bytes),
                partition.location.clone(),
            ]);
        }
        section(&counted("partitions", table.partitions.len(), most), &page.to_string());
    }
    if let Some(view) = &table.view_text {
        section("view", view);
    }
    let mut page = Page::new(["property", "value"]);
    for (key, value) in &table.properties {
        page.row([key.clone(), cut(value, PROPERTY_WIDTH)]);
    }
    section("properties", &page.to_string());
    text
}

fn counted(what: &str, count: usize, most: usize) -> String {
    match count > most {
        true => format!("{what}, the newest {most} of {}", number(count as u64)),
        false => what.to_string(),
    }
}
