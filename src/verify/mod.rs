//! Holds the layers against each other: bronze = silver + rejected, offset by offset; gold = the `GROUP BY` over silver.
//!
//! Everything is compared on a *cut*: for each topic partition the offsets below the least next offset of the layers, so that a check is
//! right also while the daemon runs. Gold's partitions each name the silver offsets at which they were computed, and are compared there.
//!
//! Differences that a snapshot of another engine explains (a `DELETE` by Spark, an `INSERT` by Trino) are reported, but fail only a strict
//! check.

mod coverage;
mod foreign;
mod gold;
mod settings;

use std::collections::BTreeMap;

use iceberg::TableIdent;
use serde::Serialize;

pub use coverage::{Offsets, RecordsCheck};
pub use foreign::ForeignSnapshot;
pub use gold::GoldCheck;
pub use settings::VerifySettings;

use crate::bronze::BronzeTable;
use crate::catalog::{HiveCatalog, Lakehouse};
use crate::checkpoint::{Checkpoint, OffsetRange, PartitionId};
use crate::error::{Error, Result};
use crate::gold::GoldPlan;
use crate::silver::{REPROCESSING, Reprocessing, SilverTable, rejected};
use crate::table::logged::LoggedForm;
use crate::table::{RecordTable, TableFormat};

/// The tables to check.
pub struct Layers {
    pub bronze: TableIdent,
    pub bronze_format: TableFormat,
    pub silver: TableIdent,
    pub silver_format: TableFormat,
    pub rejected: TableIdent,
    /// Each gold table's plan, with the database it lies in.
    pub gold: Vec<GoldPlan>,
    pub database: String,
}

/// How severe a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Differences that a foreign snapshot explains are reported only.
    Explained,
    /// Any difference fails.
    Strict,
}

/// What a check found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The offsets checked, by topic partition.
    pub cut: BTreeMap<PartitionId, OffsetRange>,
    pub records: RecordsCheck,
    /// Bronze's own count against its rows; only where the cut is where bronze ends.
    pub bronze_count: Option<CountCheck>,
    /// Snapshots of other engines in the record tables, newest first.
    pub foreign_snapshots: Vec<ForeignSnapshot>,
    pub gold: Vec<GoldCheck>,
    /// Differences exist, and foreign snapshots can explain all of them.
    pub explained: bool,
}

/// What the checkpoint counted, and what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CountCheck {
    pub counted: u64,
    pub found: u64,
}

impl Report {
    /// True when nothing differs.
    pub fn holds(&self) -> bool {
        self.records.holds()
            && self.gold.iter().all(GoldCheck::holds)
            && self.bronze_count.is_none_or(|count| count.counted == count.found)
    }

    /// The command's verdict.
    pub fn passes(&self, severity: Severity) -> bool {
        self.holds() || (severity == Severity::Explained && self.explained)
    }
}

/// Checks all layers. Reads only.
pub async fn run(lakehouse: &Lakehouse, layers: &Layers, settings: &VerifySettings) -> Result<Report> {
    let catalog = lakehouse.catalog();
    // Gold first: what it was computed from is in silver by then, however fast the daemon goes on.
    let mut gold = Vec::new();
    for plan in &layers.gold {
        gold.push(gold::Content::read(lakehouse, &layers.database, plan).await?);
    }
    let rejected: SilverTable = open(catalog, &layers.rejected, TableFormat::Iceberg).await?;
    let silver: SilverTable = open(catalog, &layers.silver, layers.silver_format).await?;
    let bronze: BronzeTable = open(catalog, &layers.bronze, layers.bronze_format).await?;
    if let RecordTable::Logged(silver) = &silver {
        silver.ensure_as_committed().await?;
    }

    let (bronze_at, silver_at) = (bronze.checkpoint()?.unwrap_or_default(), checkpoint(&silver)?);
    let cut = cut(&bronze_at, &silver_at, &pending(&silver, &rejected)?);
    let reprocessing = Reprocessing::of(silver.note(REPROCESSING))?;
    let records = coverage::check(&bronze, &silver, &rejected, &cut, reprocessing.as_ref()).await?;
    let whole =
        cut.iter().map(|(partition, range)| (*partition, range.end)).collect::<BTreeMap<_, _>>() == bronze_at.next_offsets();
    let bronze_count = whole.then_some(CountCheck { counted: bronze_at.records(), found: records.bronze_rows });

    let lake = [bronze.lake(), silver.lake(), rejected.lake()];
    let foreign_snapshots = foreign::snapshots(&lake.into_iter().flatten().collect::<Vec<_>>());
    let mut gold_checks = Vec::new();
    for (plan, content) in layers.gold.iter().zip(gold) {
        let content = content.during(reprocessing.as_ref());
        gold_checks.push(gold::check(plan, content, &silver, lakehouse, settings).await?);
    }
    let mut report = Report { cut, records, bronze_count, foreign_snapshots, gold: gold_checks, explained: false };
    report.explained = !report.holds() && foreign::explains(&report);
    Ok(report)
}

async fn open<L: LoggedForm>(catalog: &HiveCatalog, ident: &TableIdent, format: TableFormat) -> Result<RecordTable<L>> {
    RecordTable::open(catalog, ident, format).await?.ok_or_else(|| missing(ident))
}

fn missing(ident: &TableIdent) -> Error {
    Error::failed(format!("table {ident} does not exist"))
        .hint("run the pipeline first: `lakesmith run --until-caught-up`, or `lakesmith demo`")
}

fn checkpoint(table: &SilverTable) -> Result<Checkpoint> {
    Ok(table.checkpoint()?.unwrap_or_default())
}

/// Where rejected records begin that are still to be committed: everything from there on is above the cut.
fn pending(silver: &SilverTable, rejected: &SilverTable) -> Result<BTreeMap<PartitionId, i64>> {
    let lacking = rejected::lacking(silver.note(rejected::POSITIONS), silver.ident(), &checkpoint(rejected)?)?;
    Ok(lacking.into_iter().map(|(partition, range)| (partition, range.start)).collect())
}

/// Bronze's offsets below the least next offset of bronze and silver, and below what is pending.
fn cut(bronze: &Checkpoint, silver: &Checkpoint, pending: &BTreeMap<PartitionId, i64>) -> BTreeMap<PartitionId, OffsetRange> {
    bronze
        .partitions
        .iter()
        .map(|(partition, coverage)| {
            let silver_next = silver.next_offset(*partition).unwrap_or(coverage.range.start);
            let end = coverage.range.end.min(silver_next).min(pending.get(partition).copied().unwrap_or(i64::MAX));
            (*partition, OffsetRange { start: coverage.range.start, end: end.max(coverage.range.start) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cut_lies_below_every_layer() {
        let at = |text: &str| Checkpoint::start("t", None, None).advance(&text.parse().unwrap()).unwrap();
        let cut = cut(&at("d;0:10+90;1:0+5;2:0+7"), &at("d;0:10+60;1:0+5"), &BTreeMap::from([(1, 3)]));
        assert_eq!(
            cut,
            BTreeMap::from([(0, OffsetRange::new(10, 70)), (1, OffsetRange::new(0, 3)), (2, OffsetRange::new(0, 0))])
        );
    }
}
