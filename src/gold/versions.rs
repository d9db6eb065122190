//! The partitions' current versions: which of them are ours, and what the next version of one is made of.
//!
//! A new version is the closed rows of the current one, the live windows, and windows computed again. Where the current version is not
//! the one that this maintainer (or the one before it) put there, nothing of it is trusted: the partition is computed whole from silver.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use tracing::warn;
use uuid::Uuid;

use super::open_windows::OpenWindows;
use super::plan::GoldPlan;
use super::progress::{EPOCH, NULL_COLUMNS, SILVER_UUID, WINDOW_ROWS, format_window_rows, parse_window_rows};
use super::recompute::{Wanted, recompute};
use super::silver::{SilverRows, TimeRange};
use super::state::sorted;
use super::window::{WINDOW_START, display_instant};
use crate::error::{Error, Result};
use crate::hive::{read_footers, read_version, version_of, written_us};
use crate::metastore::HivePartition;
use crate::storage::Storages;

/// A version that was put in place by this maintainer or the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub version: String,
    pub epoch: u64,
    /// When it was written, by this process or the one before it, as far as its name tells.
    pub written_us: Option<i64>,
}

impl Known {
    /// What a partition's entry says; none if lakesmith didn't write it for this silver table.
    pub fn of(partition: &HivePartition, silver: Uuid) -> Option<Self> {
        let uuid: Uuid = partition.parameter(SILVER_UUID)?.parse().ok()?;
        let epoch = partition.parameter(EPOCH)?.parse().ok()?;
        let version = version_of(partition.location()?).to_string();
        let written_us = written_us(&version);
        (uuid == silver).then_some(Self { version, epoch, written_us })
    }
}

/// How a partition's next version begins.
#[derive(Debug)]
pub enum Base {
    /// Nothing is there, and nothing ever was.
    New,
    /// The current version.
    Current(Box<HivePartition>),
    /// Everything from silver.
    Whole,
    /// Everything from silver, by another definition than the current version's; silver must still have all that it was computed from.
    Redefined(Box<HivePartition>),
}

impl Base {
    /// Whether rows of an earlier version may be in the next one.
    pub fn keeps_rows(&self) -> bool {
        matches!(self, Self::Current(_))
    }
}

/// The measures that are null in a partition's rows of before, in the order in which they were added.
pub fn null_columns(partition: &HivePartition) -> Vec<&str> {
    partition.parameter(NULL_COLUMNS).into_iter().flat_map(|text| text.split(',')).filter(|name| !name.is_empty()).collect()
}

/// A window that silver no longer has all rows of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedWindow {
    pub window_start_us: i64,
    pub rows_before: u64,
    pub rows_found: u64,
}

impl std::fmt::Display for RefusedWindow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "window {}: {} rows before, {} found", display_instant(self.window_start_us), self.rows_before, self.rows_found)
    }
}

/// The rows of a partition's next version.
pub struct NextVersion {
    pub rows: RecordBatch,
    pub footer: BTreeMap<String, String>,
    pub refused: Vec<RefusedWindow>,
}

/// Puts a partition's next version together.
pub async fn next_version(
    plan: &GoldPlan,
    storages: &Storages,
    silver: &dyn SilverRows,
    open: &OpenWindows,
    partition_us: i64,
    base: &Base,
    again: &BTreeSet<i64>,
) -> Result<NextVersion> {
    let stretch = TimeRange { from_us: partition_us, to_us: plan.windows().partition_end(partition_us) };
    let live: BTreeSet<i64> = open.state().windows.range(stretch.from_us..stretch.to_us).map(|(start, _)| *start).collect();
    let current = match base {
        Base::New => Some(CurrentRows::none(plan)),
        Base::Whole | Base::Redefined(_) => None,
        Base::Current(partition) => CurrentRows::read(plan, storages, partition).await?,
    };
    let wanted = if current.is_some() { Wanted::These(again) } else { Wanted::AllBut(&live) };
    let mut computed = recompute(plan, silver, open.positions(), stretch, wanted).await?;

    if let Base::Redefined(partition) = base {
        let rows = |start: &i64| {
            let live = open.state().windows.get(start).map(|window| window.rows);
            live.or_else(|| computed.get(start).map(|window| window.input_rows)).unwrap_or(0)
        };
        ensure_complete(storages, partition, rows).await?;
    }
    let mut batches = Vec::new();
    let mut window_rows = BTreeMap::new();
    let mut refused = Vec::new();
    if let Some(current) = current {
        for start in again {
            let Some(before) = current.window_rows.get(start).copied() else { continue };
            let found = computed.get(start).map_or(0, |window| window.input_rows);
            if found < before {
                computed.remove(start);
                refused.push(RefusedWindow { window_start_us: *start, rows_before: before, rows_found: found });
            }
        }
        let kept = |start: i64| !live.contains(&start) && !computed.contains_key(&start);
        window_rows.extend(current.window_rows.iter().filter(|(start, _)| kept(**start)).map(|(start, rows)| (*start, *rows)));
        for rows in current.rows {
            batches.push(filter_windows(&rows, kept)?);
        }
    }
    for (start, window) in computed {
        window_rows.insert(start, window.input_rows);
        batches.push(window.rows);
    }
    for start in live {
        if let Some(window) = open.state().windows.get(&start) {
            window_rows.insert(start, window.rows);
            batches.push(window.finish(plan, start)?);
        }
    }
    let footer = BTreeMap::from([(WINDOW_ROWS.to_string(), format_window_rows(&window_rows))]);
    Ok(NextVersion { rows: sorted(plan, &batches)?, footer, refused })
}

/// Stops if silver has fewer rows of any window than the partition's current version was computed from.
async fn ensure_complete(storages: &Storages, partition: &HivePartition, rows: impl Fn(&i64) -> u64) -> Result<()> {
    let Some(location) = partition.location() else { return Ok(()) };
    let footers = match read_footers(storages, location).await {
        Ok(footers) => footers,
        Err(error) if error.kind() == crate::error::Kind::Transient => return Err(error),
        // Nobody can say what was in it.
        Err(error) => {
            warn!(partition = location, error = error.chain(), "the files of a partition that is computed again cannot be read");
            return Ok(());
        }
    };
    let before = footers.iter().filter_map(|footer| footer.get(WINDOW_ROWS)).flat_map(|text| parse_window_rows(text));
    for (start, rows_before) in before {
        let rows_found = rows(&start);
        if rows_found < rows_before {
            let window = RefusedWindow { window_start_us: start, rows_before, rows_found };
            return Err(Error::stop(format!("silver has lost rows that gold was computed from ({window})")).hint(
                "the partition stays as it is; let the pipeline file and a new plan say what they said before, or drop the table",
            ));
        }
    }
    Ok(())
}

/// The rows of a current version, with how many silver rows each of its windows had.
struct CurrentRows {
    rows: Vec<RecordBatch>,
    window_rows: BTreeMap<i64, u64>,
}

impl CurrentRows {
    fn none(_plan: &GoldPlan) -> Self {
        Self { rows: Vec::new(), window_rows: BTreeMap::new() }
    }

    /// None if its files are not what the partition says they are: someone has changed or deleted them.
    async fn read(plan: &GoldPlan, storages: &Storages, partition: &HivePartition) -> Result<Option<Self>> {
        let Some(location) = partition.location() else { return Ok(None) };
        let expected: Option<usize> = partition.parameter("numRows").and_then(|rows| rows.parse().ok());
        let distrusted = |reason: String| {
            warn!(
                partition = location,
                reason, "a version's files are not as they were written; the partition is computed whole"
            );
            Ok(None)
        };
        let files = match read_version(storages, location, plan.schema(), &null_columns(partition)).await {
            Ok(files) => files,
            Err(error) if error.kind() == crate::error::Kind::Transient => return Err(error),
            Err(error) => return distrusted(error.chain()),
        };
        let rows: usize = files.iter().map(|file| file.rows.num_rows()).sum();
        if Some(rows) != expected {
            return distrusted(format!("{rows} rows, not {}", expected.map_or("a known number".into(), |rows| rows.to_string())));
        }
        let window_rows =
            files.iter().filter_map(|file| file.footer.get(WINDOW_ROWS)).flat_map(|text| parse_window_rows(text)).collect();
        Ok(Some(Self { rows: files.into_iter().map(|file| file.rows).collect(), window_rows }))
    }
}

fn filter_windows(rows: &RecordBatch, kept: impl Fn(i64) -> bool) -> Result<RecordBatch> {
    let starts = rows.column_by_name(WINDOW_START).and_then(|array| array.as_primitive_opt::<TimestampMicrosecondType>());
    let starts = starts.ok_or_else(|| Error::failed("a gold file has no window_start"))?;
    let mask: BooleanArray = (0..starts.len()).map(|row| Some(kept(starts.value(row)))).collect();
    Ok(filter_record_batch(rows, &mask)?)
}
