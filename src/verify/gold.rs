//! Holds gold against the `GROUP BY` over silver, computed by DataFusion and none of gold's own accumulators.
//!
//! Each partition is compared at the silver offsets that its parameters name, day by day, so memory is bounded by the groups of one table
//! partition. A day of silver without a gold partition is a difference too.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{RecordBatch, TimestampMicrosecondArray};
use arrow::row::{OwnedRow, RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::TryStreamExt;
use iceberg_datafusion::IcebergStaticTableProvider;
use serde::Serialize;

use crate::catalog::Lakehouse;
use crate::checkpoint::{Coverage, PartitionId, parse_positions};
use crate::error::{Context, Error, Result};
use crate::gold::GoldPlan;
use crate::gold::progress::POSITIONS;
use crate::gold::window::WINDOW_START;
use crate::hive::read_version;
use crate::record::column;
use crate::table::LakeTable;

/// Differing rows named in a report, at the most.
const EXAMPLES_MAX: usize = 10;
/// The name under which silver is known to the checker's session.
const SILVER: &str = "silver";

type Positions = BTreeMap<PartitionId, Coverage>;

/// What checking one gold table found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GoldCheck {
    /// `database.table`.
    pub table: String,
    pub partitions: usize,
    pub rows: u64,
    /// Partitions whose rows differ, or that are missing.
    pub differing_partitions: Vec<String>,
    pub differing_rows: u64,
    /// The first differing rows, as `partition: what: row`.
    pub examples: Vec<String>,
}

impl GoldCheck {
    pub fn holds(&self) -> bool {
        self.differing_partitions.is_empty()
    }
}

/// Gold as the metastore had it at one moment.
pub(super) struct Content {
    table: String,
    /// None if the table doesn't exist yet.
    positions: Option<Positions>,
    partitions: BTreeMap<String, Partition>,
}

struct Partition {
    positions: Positions,
    rows: Vec<RecordBatch>,
}

impl Content {
    /// Reads the table's parameters and all its partitions' current versions.
    pub async fn read(lakehouse: &Lakehouse, database: &str, plan: &GoldPlan) -> Result<Self> {
        let name = &plan.settings().table;
        let table = format!("{database}.{name}");
        let metastore = lakehouse.metastore();
        let Some(entry) = metastore.table(database, name).await? else {
            return Ok(Self { table, positions: None, partitions: BTreeMap::new() });
        };
        let positions = positions(&table, entry.parameter(POSITIONS))?;
        let mut partitions = BTreeMap::new();
        for partition in metastore.partitions(database, name).await? {
            let key = partition.values().join("/");
            let location = partition.location().unwrap_or_default().to_owned();
            let files = read_version(lakehouse.storages(), &location, plan.schema())
                .await
                .with_context(|| format!("partition {key} of {table} cannot be read from {location}"))?;
            let rows = files.into_iter().map(|file| file.rows).collect();
            let positions = positions_of(&format!("{table} {key}"), partition.parameter(POSITIONS))?;
            partitions.insert(key, Partition { positions, rows });
        }
        Ok(Self { table, positions, partitions })
    }
}

fn positions(table: &str, text: Option<&str>) -> Result<Option<Positions>> {
    let unreadable = |error| Error::stop(format!("the offsets of {table} are unreadable")).caused_by(error);
    text.map(|text| parse_positions(text).map_err(unreadable)).transpose()
}

fn positions_of(partition: &str, text: Option<&str>) -> Result<Positions> {
    positions(partition, text)?.ok_or_else(|| {
        Error::stop(format!("partition {partition} does not say at which offsets it was computed"))
            .hint("was it written by somebody else? `lakesmith run` puts foreign partitions inside the lateness right")
    })
}

/// Compares each partition with the `GROUP BY` at its offsets.
pub(super) async fn check(plan: &GoldPlan, content: Content, silver: &LakeTable) -> Result<GoldCheck> {
    let mut found = GoldCheck { table: content.table, partitions: content.partitions.len(), ..GoldCheck::default() };
    let Some(positions) = content.positions else { return Ok(found) };
    let session = session(silver).await?;
    let mut begins = partitions_of_silver(&session, plan, &positions).await?;
    for key in begins.keys().filter(|key| !content.partitions.contains_key(*key)) {
        found.differing_partitions.push(key.clone());
        found.examples.push(format!("{key}: the partition is missing, silver has rows of it"));
    }
    for (key, partition) in content.partitions {
        found.rows += partition.rows.iter().map(|rows| rows.num_rows() as u64).sum::<u64>();
        for rows in &partition.rows {
            collect_keys(plan, rows, &mut begins)?;
        }
        let expected = match begins.get(&key) {
            Some(begin_us) => group_by(&session, plan, &partition.positions, *begin_us).await?,
            None => Vec::new(),
        };
        let differences = differences(&partition.rows, &expected)?;
        if !differences.is_empty() {
            found.differing_rows += differences.len() as u64;
            let room = EXAMPLES_MAX.saturating_sub(found.examples.len());
            found.examples.extend(differences.into_iter().take(room).map(|difference| format!("{key}: {difference}")));
            found.differing_partitions.push(key);
        }
    }
    Ok(found)
}

async fn session(silver: &LakeTable) -> Result<SessionContext> {
    let mut config = SessionConfig::new();
    config.options_mut().sql_parser.enable_ident_normalization = false;
    let context = SessionContext::new_with_config(config);
    let provider = IcebergStaticTableProvider::try_new_from_table(silver.to_iceberg()?).await.map_err(sql_error)?;
    context.register_table(SILVER, Arc::new(provider)).map_err(sql_error)?;
    Ok(context)
}

fn sql_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::failed("the check's query over silver failed").caused_by(error)
}

/// Silver below the given offsets, as a subquery.
fn silver_at(positions: &Positions) -> String {
    let ranges: Vec<_> = positions
        .iter()
        .map(|(partition, coverage)| format!("(partition = {partition} AND \"offset\" < {})", coverage.range.end))
        .collect();
    let condition = if ranges.is_empty() { "false".to_owned() } else { ranges.join(" OR ") };
    format!("(SELECT * FROM {SILVER} WHERE {condition}) AS silver_at")
}

/// The partitions that silver's rows fall into: by key, the instant at which each begins.
async fn partitions_of_silver(session: &SessionContext, plan: &GoldPlan, positions: &Positions) -> Result<BTreeMap<String, i64>> {
    let sql = format!("SELECT DISTINCT window_start FROM ({})", plan.group_by_sql(&silver_at(positions)));
    let mut keys = BTreeMap::new();
    for rows in collect(session, &sql).await? {
        collect_keys(plan, &rows, &mut keys)?;
    }
    Ok(keys)
}

/// Adds the partitions of rows with a `window_start`.
fn collect_keys(plan: &GoldPlan, rows: &RecordBatch, keys: &mut BTreeMap<String, i64>) -> Result<()> {
    for start in column::<TimestampMicrosecondArray>(rows, WINDOW_START)?.values() {
        let partition = plan.windows().partition_of(*start);
        keys.insert(plan.windows().partition_key(partition)?.values().join("/"), partition);
    }
    Ok(())
}

/// The `GROUP BY` of the windows in one partition.
async fn group_by(session: &SessionContext, plan: &GoldPlan, positions: &Positions, begin_us: i64) -> Result<Vec<RecordBatch>> {
    let inner = plan.group_by_sql(&silver_at(positions));
    let instant = |us: i64| format!("arrow_cast(CAST({us} AS BIGINT), 'Timestamp(Microsecond, None)')");
    let (from, to) = (instant(begin_us), instant(plan.windows().partition_end(begin_us)));
    let sql = format!("SELECT * FROM ({inner}) WHERE window_start >= {from} AND window_start < {to}");
    collect(session, &sql).await?.iter().map(|rows| plan.from_group_by(rows)).collect()
}

async fn collect(session: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>> {
    let stream = session.sql(sql).await.map_err(sql_error)?.execute_stream().await.map_err(sql_error)?;
    stream.try_collect().await.map_err(sql_error)
}

/// Rows that are in one side only, told apart by what they are.
fn differences(found: &[RecordBatch], expected: &[RecordBatch]) -> Result<Vec<String>> {
    let Some(schema) = found.iter().chain(expected).map(RecordBatch::schema).next() else { return Ok(Vec::new()) };
    let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let mut balance: HashMap<OwnedRow, (i64, String)> = HashMap::new();
    for (side, batches) in [(1, found), (-1, expected)] {
        for batch in batches {
            let rows = converter.convert_columns(batch.columns())?;
            for (index, row) in rows.iter().enumerate() {
                let entry = balance.entry(row.owned()).or_insert_with(|| (0, String::new()));
                entry.0 += side;
                if entry.0 != 0 && entry.1.is_empty() {
                    entry.1 = text(batch, index)?;
                }
            }
        }
    }
    let mut differing: Vec<_> = balance
        .into_values()
        .filter(|(count, _)| *count != 0)
        .map(|(count, row)| format!("{}: {row}", if count > 0 { "in gold only" } else { "in the GROUP BY only" }))
        .collect();
    differing.sort();
    Ok(differing)
}

fn text(batch: &RecordBatch, row: usize) -> Result<String> {
    let options = FormatOptions::default().with_null("null");
    let cells = batch
        .schema_ref()
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| Ok(format!("{}={}", field.name(), ArrayFormatter::try_new(column, &options)?.value(row))));
    Ok(cells.collect::<Result<Vec<_>>>()?.join(" "))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, StringArray};

    use super::*;

    fn rows(names: &[&str]) -> RecordBatch {
        let array: Arc<dyn Array> = Arc::new(StringArray::from(names.to_vec()));
        RecordBatch::try_from_iter([("name", array)]).unwrap()
    }

    #[test]
    fn rows_of_one_side_only_differ_and_repeated_rows_count() {
        assert!(differences(&[rows(&["a", "b"])], &[rows(&["b"]), rows(&["a"])]).unwrap().is_empty());
        let found = differences(&[rows(&["a", "a", "b"])], &[rows(&["a", "c"])]).unwrap();
        assert_eq!(found, ["in gold only: name=a", "in gold only: name=b", "in the GROUP BY only: name=c"]);
    }

    #[test]
    fn silver_is_read_below_the_offsets_of_a_partition() {
        let positions = parse_positions("d;0:0+5;2:7+3").unwrap();
        let sql = silver_at(&positions);
        assert!(sql.contains("(partition = 0 AND \"offset\" < 5) OR (partition = 2 AND \"offset\" < 10)"), "{sql}");
    }
}
