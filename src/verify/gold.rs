//! Holds gold against the `GROUP BY` over silver, computed by DataFusion and none of gold's own accumulators.
//!
//! Each partition is compared at the silver offsets that its parameters name. So that memory stays within `verify.memory_limit`, the
//! windows of a partition are compared in as many passes over silver as that takes: gold's rows say how many groups to expect. A day
//! of silver without a gold partition is a difference too.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, TimestampMicrosecondArray, new_null_array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Schema;
use arrow::row::{OwnedRow, RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::TableProvider;
use datafusion::common::Column;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{Expr, SessionConfig, SessionContext};
use futures::TryStreamExt;
use serde::Serialize;

use super::VerifySettings;
use crate::catalog::Lakehouse;
use crate::checkpoint::{Coverage, PartitionId, parse_positions};
use crate::error::{Context, Error, Result};
use crate::gold::progress::{COMPUTED_AGAIN, DEFINITION, POSITIONS};
use crate::gold::window::WINDOW_START;
use crate::gold::{self, Again, GoldPlan, Standing, Work};
use crate::hive::{PartitionKey, read_version};
use crate::query::{HiveTableProvider, IcebergTableProvider};
use crate::record::{column, position};
use crate::silver::{Reprocessing, SilverTable};
use crate::table::{LakeTable, RecordTable};

/// Differing rows named in a report, at the most.
const EXAMPLES_MAX: usize = 10;
/// What a group may take while it is computed and compared: keys, accumulators, sets of distinct values, the row.
const GROUP_BYTES: usize = 2 << 10;
/// The name under which silver is known to the checker's session.
const SILVER: &str = "silver";

type Positions = BTreeMap<PartitionId, Coverage>;

/// What checking one gold table found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GoldCheck {
    /// `database.table`.
    pub table: String,
    pub partitions: usize,
    /// Partitions that are still to be computed, by the table's new definition or from rows of silver that were replaced; not compared.
    pub outdated: usize,
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
    /// Partitions that are to be computed again because rows of silver were replaced.
    again: Option<Again>,
}

struct Partition {
    positions: Positions,
    /// A version's directory stays as it is, and stays for as long as gold's `sweep_after` says.
    location: String,
    /// Measures that may be null in rows from before the table had them, in the order in which they were added.
    null_columns: Vec<String>,
    /// The table is becoming what the plan says, and this is still what it was before.
    is_outdated: bool,
    /// After which reprocessing of silver it was computed again.
    computed_again: Option<String>,
}

impl Content {
    /// Reads the table's parameters, and which versions its partitions are at.
    pub async fn read(lakehouse: &Lakehouse, database: &str, plan: &GoldPlan) -> Result<Self> {
        let name = &plan.settings().table;
        let table = format!("{database}.{name}");
        let metastore = lakehouse.metastore();
        let Some(entry) = metastore.table(database, name).await? else {
            return Ok(Self { table, positions: None, partitions: BTreeMap::new(), again: None });
        };
        let (is_redefining, again) = match plan.standing(&entry)? {
            Standing::Current => (false, None),
            Standing::Granted(Work::Redefine(_)) => (true, None),
            Standing::Granted(Work::Again(again)) => (false, Some(again)),
        };
        let own = plan.definition().fingerprint();
        let positions = positions(&table, entry.parameter(POSITIONS))?;
        let mut partitions = BTreeMap::new();
        for partition in metastore.partitions(database, name).await? {
            let key = partition.values().join("/");
            let location = partition.location().unwrap_or_default().to_owned();
            let positions = positions_of(&format!("{table} {key}"), partition.parameter(POSITIONS))?;
            let null_columns = gold::null_columns(&partition).into_iter().map(str::to_owned).collect();
            let is_outdated = is_redefining && partition.parameter(DEFINITION) != Some(&own);
            let computed_again = partition.parameter(COMPUTED_AGAIN).map(str::to_owned);
            partitions.insert(key, Partition { positions, location, null_columns, is_outdated, computed_again });
        }
        Ok(Self { table, positions, partitions, again })
    }

    /// As it stands during a reprocessing that silver notes: its rows are replaced before gold is told.
    pub fn during(self, reprocessing: Option<&Reprocessing>) -> Self {
        let told = || {
            let (_, table) = self.table.split_once('.')?;
            reprocessing?.gold.as_ref()?.get(table).cloned()
        };
        Self { again: self.again.clone().or_else(told), ..self }
    }
}

/// Whether a partition that begins at that instant awaits being computed again.
fn awaits(again: Option<&Again>, begin_us: i64, computed_again: Option<&str>) -> bool {
    again.is_some_and(|again| again.covers(begin_us) && !again.is_done(computed_again))
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
pub(super) async fn check(
    plan: &GoldPlan,
    content: Content,
    silver: &SilverTable,
    lakehouse: &Lakehouse,
    settings: &VerifySettings,
) -> Result<GoldCheck> {
    let mut found = GoldCheck { table: content.table, partitions: content.partitions.len(), ..GoldCheck::default() };
    let Some(positions) = content.positions else { return Ok(found) };
    let memory_limit = settings.memory_limit.as_u64() as usize;
    let session = session(silver, plan, memory_limit).await?;
    let storages = lakehouse.storages();
    let mut begins = partitions_of_silver(&session, plan, &positions).await?;
    let again = content.again.as_ref();
    for (key, begin_us) in begins.iter().filter(|(key, _)| !content.partitions.contains_key(*key)) {
        if awaits(again, *begin_us, None) {
            found.outdated += 1;
            continue;
        }
        found.differing_partitions.push(key.clone());
        found.examples.push(format!("{key}: the partition is missing, silver has rows of it"));
    }
    for (key, partition) in content.partitions {
        let begin_us = begins.get(&key).copied().or_else(|| partition_start(plan, &key));
        if partition.is_outdated || begin_us.is_some_and(|begin| awaits(again, begin, partition.computed_again.as_deref())) {
            found.outdated += 1;
            continue;
        }
        let location = &partition.location;
        let lacking: Vec<&str> = partition.null_columns.iter().map(String::as_str).collect();
        let files = read_version(storages, location, plan.schema(), &lacking)
            .await
            .with_context(|| format!("partition {key} of {} cannot be read from {location}", found.table))?;
        let rows: Vec<_> = files.into_iter().map(|file| file.rows).collect();
        found.rows += rows.iter().map(|rows| rows.num_rows() as u64).sum::<u64>();
        for rows in &rows {
            collect_keys(plan, rows, &mut begins)?;
        }
        let Some(begin_us) = begins.get(&key).copied() else { continue };
        let whole = begin_us..plan.windows().partition_end(begin_us);
        // Rows that don't belong into the partition have nothing that they could be equal to.
        let strays = [i64::MIN..whole.start, whole.end..i64::MAX];
        let passes = passes(&rows, whole, memory_limit / GROUP_BYTES)?;
        let mut differing = 0;
        for (windows, grouped) in passes.into_iter().map(|windows| (windows, true)).chain(strays.map(|windows| (windows, false)))
        {
            let mut balance = Balance::new(plan.schema(), &lacking)?;
            for rows in &rows {
                balance.found(&within(rows, &windows)?)?;
            }
            if grouped {
                let mut groups = group_by(&session, plan, &partition.positions, &windows).await?;
                while let Some(rows) = groups.try_next().await.map_err(sql_error)? {
                    balance.expected(&plan.from_group_by(&rows)?)?;
                }
            }
            let (count, examples) = balance.differences(&rows)?;
            differing += count;
            let room = EXAMPLES_MAX.saturating_sub(found.examples.len());
            found.examples.extend(examples.into_iter().take(room).map(|difference| format!("{key}: {difference}")));
        }
        if differing > 0 {
            found.differing_rows += differing;
            found.differing_partitions.push(key);
        }
    }
    Ok(found)
}

/// The instant at which the partition with these values begins.
fn partition_start(plan: &GoldPlan, values: &str) -> Option<i64> {
    let columns = plan.windows().partition_columns();
    plan.windows().partition_start(&PartitionKey::new(columns.iter().copied().zip(values.split('/').map(str::to_owned))))
}

/// Ranges of windows that cover a partition, each with about `groups_max` of gold's rows at the most; a window is never divided.
fn passes(rows: &[RecordBatch], partition: Range<i64>, groups_max: usize) -> Result<Vec<Range<i64>>> {
    let mut groups: BTreeMap<i64, usize> = BTreeMap::new();
    for rows in rows {
        let starts: &TimestampMicrosecondArray = column(rows, WINDOW_START)?;
        for start in starts.values().iter().filter(|start| partition.contains(start)) {
            *groups.entry(*start).or_default() += 1;
        }
    }
    let mut passes = Vec::new();
    let (mut from, mut taken) = (partition.start, 0);
    for (start, count) in groups {
        if taken > 0 && taken + count > groups_max && start > from {
            passes.push(from..start);
            (from, taken) = (start, 0);
        }
        taken += count;
    }
    passes.push(from..partition.end);
    Ok(passes)
}

/// The rows whose windows begin in a range.
fn within(rows: &RecordBatch, windows: &Range<i64>) -> Result<RecordBatch> {
    let starts: &TimestampMicrosecondArray = column(rows, WINDOW_START)?;
    let keep: BooleanArray = starts.values().iter().map(|start| Some(windows.contains(start))).collect();
    Ok(filter_record_batch(rows, &keep)?)
}

/// Silver's columns, under the names that the plan has for them: in the table they may be written in another case.
async fn session(silver: &SilverTable, plan: &GoldPlan, memory_limit: usize) -> Result<SessionContext> {
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(memory_limit)));
    // Each thread groups by itself first: two of them hold most groups twice.
    let mut config = SessionConfig::new().with_target_partitions(1);
    config.options_mut().sql_parser.enable_ident_normalization = false;
    let context = SessionContext::new_with_config_rt(config, runtime.build_arc().map_err(sql_error)?);
    let (provider, columns): (Arc<dyn TableProvider>, Vec<Expr>) = match silver {
        RecordTable::Lake(silver) => {
            let provider = IcebergTableProvider::new(LakeTable::clone(silver))?;
            let schema = provider.schema();
            let columns = plan.columns().into_iter().map(|name| {
                let known = position(schema.fields(), name).map_or(name, |at| schema.field(at).name());
                Expr::Column(Column::from_name(known)).alias(name)
            });
            let columns = columns.collect();
            (Arc::new(provider), columns)
        }
        // As engines read it: by its directories.
        RecordTable::Logged(silver) => {
            let provider = HiveTableProvider::open(silver.catalog(), silver.entry(), context.runtime_env().as_ref()).await?;
            let columns = plan.columns().into_iter().map(|name| Expr::Column(Column::from_name(name.to_lowercase())).alias(name));
            (Arc::new(provider), columns.collect())
        }
    };
    let scan = context.read_table(provider).map_err(sql_error)?;
    context.register_table(SILVER, scan.select(columns).map_err(sql_error)?.into_view()).map_err(sql_error)?;
    Ok(context)
}

fn sql_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::failed("the check's query over silver failed")
        .caused_by(error)
        .hint("if it is memory that was short, raise verify.memory_limit")
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
    let mut windows = stream(session, &plan.windows_sql(&silver_at(positions))).await?;
    let mut keys = BTreeMap::new();
    while let Some(rows) = windows.try_next().await.map_err(sql_error)? {
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

/// The `GROUP BY` of the windows that begin in a range.
async fn group_by(
    session: &SessionContext,
    plan: &GoldPlan,
    positions: &Positions,
    windows: &Range<i64>,
) -> Result<SendableRecordBatchStream> {
    let inner = plan.group_by_sql(&silver_at(positions));
    let instant = |us: i64| format!("arrow_cast(CAST({us} AS BIGINT), 'Timestamp(Microsecond, None)')");
    let (from, to) = (instant(windows.start), instant(windows.end));
    stream(session, &format!("SELECT * FROM ({inner}) WHERE window_start >= {from} AND window_start < {to}")).await
}

async fn stream(session: &SessionContext, sql: &str) -> Result<SendableRecordBatchStream> {
    session.sql(sql).await.map_err(sql_error)?.execute_stream().await.map_err(sql_error)
}

/// How often rows stand on either side; those that stand on both as often are forgotten.
struct Balance {
    converter: RowConverter,
    /// More often in gold, by how much.
    found: HashMap<OwnedRow, u64>,
    /// In the `GROUP BY` only.
    missing: u64,
    examples: Vec<String>,
    /// Positions of columns that may be null on gold's side; a row in which one is has nulls in all behind it.
    nullable: Vec<usize>,
}

impl Balance {
    fn new(schema: &Schema, nullable: &[&str]) -> Result<Self> {
        let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let nullable = nullable.iter().filter_map(|name| schema.index_of(name).ok()).collect();
        Ok(Self { converter: RowConverter::new(fields)?, found: HashMap::new(), missing: 0, examples: Vec::new(), nullable })
    }

    /// Takes rows of gold; all of them come first.
    fn found(&mut self, batch: &RecordBatch) -> Result<()> {
        for row in &self.converter.convert_columns(batch.columns())? {
            *self.found.entry(row.owned()).or_default() += 1;
        }
        Ok(())
    }

    /// Takes rows of the `GROUP BY`.
    fn expected(&mut self, batch: &RecordBatch) -> Result<()> {
        // As they are, and as they stand in gold from before the last measure was added, from before the last two, and so on.
        let mut forms = vec![self.converter.convert_columns(batch.columns())?];
        let mut columns = batch.columns().to_vec();
        for position in self.nullable.iter().rev() {
            columns[*position] = new_null_array(columns[*position].data_type(), batch.num_rows());
            forms.push(self.converter.convert_columns(&columns)?);
        }
        for index in 0..batch.num_rows() {
            if !forms.iter().any(|form| self.take(form.row(index).owned())) {
                self.missing += 1;
                if self.examples.len() < EXAMPLES_MAX {
                    self.examples.push(format!("in the GROUP BY only: {}", text(batch, index)?));
                }
            }
        }
        Ok(())
    }

    /// Takes a row away from those that were found, if it is among them.
    fn take(&mut self, row: OwnedRow) -> bool {
        match self.found.entry(row) {
            Entry::Occupied(mut entry) if *entry.get() > 1 => {
                *entry.get_mut() -= 1;
                true
            }
            Entry::Occupied(entry) => {
                entry.remove();
                true
            }
            Entry::Vacant(_) => false,
        }
    }

    /// How many rows differ, and the first of them; `rows` are gold's.
    fn differences(mut self, rows: &[RecordBatch]) -> Result<(u64, Vec<String>)> {
        let (mut count, mut examples) = (self.missing, Vec::new());
        if !self.found.is_empty() {
            count += self.found.len() as u64;
            for batch in rows {
                for (index, row) in self.converter.convert_columns(batch.columns())?.iter().enumerate() {
                    if examples.len() < EXAMPLES_MAX && self.found.remove(&row.owned()).is_some() {
                        examples.push(format!("in gold only: {}", text(batch, index)?));
                    }
                }
            }
        }
        examples.append(&mut self.examples);
        examples.sort();
        Ok((count, examples))
    }
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
    use arrow::array::{Array, ArrayRef, StringArray};

    use super::*;

    fn rows(names: &[&str]) -> RecordBatch {
        let array: Arc<dyn Array> = Arc::new(StringArray::from(names.to_vec()));
        RecordBatch::try_from_iter([("name", array)]).unwrap()
    }

    fn differences(found: &[RecordBatch], expected: &[RecordBatch]) -> (u64, Vec<String>) {
        let mut balance = Balance::new(&found[0].schema(), &[]).unwrap();
        found.iter().for_each(|rows| balance.found(rows).unwrap());
        expected.iter().for_each(|rows| balance.expected(rows).unwrap());
        balance.differences(found).unwrap()
    }

    #[test]
    fn rows_of_one_side_only_differ_and_repeated_rows_count() {
        assert_eq!(differences(&[rows(&["a", "b"])], &[rows(&["b"]), rows(&["a"])]).0, 0);
        let (count, examples) = differences(&[rows(&["a", "a", "b"])], &[rows(&["a", "c"])]);
        assert_eq!(count, 3);
        assert_eq!(examples, ["in gold only: name=a", "in gold only: name=b", "in the GROUP BY only: name=c"]);
    }

    #[test]
    fn passes_cover_a_partition_and_divide_no_window() {
        let starts: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![10, 10, 20, 20, 20, 30, 50]));
        let rows = [RecordBatch::try_from_iter([(WINDOW_START, starts)]).unwrap()];
        assert_eq!(passes(&rows, 0..100, 1_000).unwrap(), vec![0..100; 1]);
        assert_eq!(passes(&rows, 0..100, 3).unwrap(), [0..20, 20..30, 30..100]);
        assert_eq!(passes(&rows, 10..100, 1).unwrap(), [10..20, 20..30, 30..50, 50..100]);
        assert_eq!(passes(&[], 0..100, 1).unwrap(), vec![0..100; 1]);
        assert_eq!(within(&rows[0], &(20..50)).unwrap().num_rows(), 4);
    }

    #[test]
    fn silver_is_read_below_the_offsets_of_a_partition() {
        let positions = parse_positions("d;0:0+5;2:7+3").unwrap();
        let sql = silver_at(&positions);
        assert!(sql.contains("(partition = 0 AND \"offset\" < 5) OR (partition = 2 AND \"offset\" < 10)"), "{sql}");
    }
}
