//! The bookkeeping against a model that knows nothing of windows in memory: after every refresh the table is the `GROUP BY` over all
//! rows so far, whatever came late, was evicted, lay in the future, or was lost in a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arrow::array::{Array, AsArray, Decimal128Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Decimal128Type, Field, Int64Type, Schema, TimestampMicrosecondType};
use bytesize::ByteSize;
use proptest::prelude::*;

use super::*;
use crate::gold::settings::{GoldSettings, MeasureSettings};
use crate::gold::state::sorted;
use crate::gold::window::WINDOW_START;
use crate::record::{INSTANT, KAFKA_TIMESTAMP, OFFSET, PARTITION};

const MINUTE: i64 = 60_000_000;

/// One silver row.
#[derive(Debug, Clone)]
struct Sale {
    partition: i32,
    offset: i64,
    timestamp: Option<i64>,
    category: Option<String>,
    amount: Option<i128>,
    customer: String,
}

fn settings(memory_limit: ByteSize) -> GoldSettings {
    GoldSettings {
        table: "sales".into(),
        dimensions: vec!["Category".into()],
        measures: [
            ("Orders", "COUNT(*)"),
            ("Amounts", "count(Amount)"),
            ("Total", "SUM(Amount)"),
            ("Average", "AVG(Amount)"),
            ("Customers", "COUNT(DISTINCT CustomerID)"),
            ("First", "MIN(CustomerID)"),
            ("Highest", "MAX(Amount * 2)"),
            ("Offsets", "SUM(\"offset\")"),
            ("Mean", "AVG(CAST(Amount AS DOUBLE))"),
        ]
        .map(|(name, sql)| MeasureSettings::new(name, sql))
        .into(),
        allowed_lateness: Duration::from_secs(120),
        memory_limit,
        ..GoldSettings::default()
    }
}

fn plan(memory_limit: ByteSize) -> GoldPlan {
    GoldPlan::new(&settings(memory_limit), batch(&[]).schema().as_ref()).unwrap()
}

fn batch(sales: &[Sale]) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new(PARTITION, DataType::Int32, false),
        Field::new(OFFSET, DataType::Int64, false),
        Field::new(KAFKA_TIMESTAMP, INSTANT, true),
        Field::new("Category", DataType::Utf8, true),
        Field::new("Amount", DataType::Decimal128(18, 2), true),
        Field::new("CustomerID", DataType::Utf8, false),
        Field::new("processing_timestamp", INSTANT, false),
    ]);
    let amounts: Decimal128Array = sales.iter().map(|sale| sale.amount).collect();
    RecordBatch::try_new(
        std::sync::Arc::new(schema),
        vec![
            std::sync::Arc::new(sales.iter().map(|sale| Some(sale.partition)).collect::<Int32Array>()),
            std::sync::Arc::new(sales.iter().map(|sale| Some(sale.offset)).collect::<Int64Array>()),
            std::sync::Arc::new(sales.iter().map(|sale| sale.timestamp).collect::<TimestampMicrosecondArray>()),
            std::sync::Arc::new(sales.iter().map(|sale| sale.category.as_deref()).collect::<StringArray>()),
            std::sync::Arc::new(amounts.with_precision_and_scale(18, 2).unwrap()),
            std::sync::Arc::new(sales.iter().map(|sale| Some(sale.customer.as_str())).collect::<StringArray>()),
            std::sync::Arc::new(sales.iter().map(|_| Some(7 * MINUTE)).collect::<TimestampMicrosecondArray>()),
        ],
    )
    .unwrap()
}

/// Gold as a table that keeps each window's rows: what the maintainer does with partitions.
#[derive(Default)]
struct Table {
    windows: BTreeMap<i64, RecordBatch>,
    parameters: BTreeMap<&'static str, String>,
}

impl Table {
    fn progress(&self) -> Progress {
        Progress::from_parameters(|name| self.parameters.get(name).map(String::as_str)).unwrap()
    }

    fn refresh(&mut self, plan: &GoldPlan, open: &mut OpenWindows, silver: &[Sale], now_us: i64) {
        let changes = open.changes();
        for start in changes.live {
            self.windows.insert(start, open.state().windows[&start].finish(plan, start).unwrap());
        }
        for start in changes.recompute {
            assert!(!open.state().windows.contains_key(&start));
            self.windows.insert(start, compute(plan, silver).remove(&start).unwrap());
        }
        let progress = open.progress(now_us);
        self.parameters = progress.to_parameters().into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        open.written(&progress);
    }

    fn rows(&self, plan: &GoldPlan) -> RecordBatch {
        sorted(plan, &self.windows.values().cloned().collect::<Vec<_>>()).unwrap()
    }
}

/// The windows of all rows, each from a fresh state.
fn compute(plan: &GoldPlan, silver: &[Sale]) -> BTreeMap<i64, RecordBatch> {
    let mut state = State::default();
    let evaluated = plan.evaluate(&batch(silver)).unwrap();
    for (start, rows) in rows_by_window(&evaluated.starts) {
        state.add(plan, start, &rows, &evaluated).unwrap();
    }
    state.windows.iter().map(|(start, window)| (*start, window.finish(plan, *start).unwrap())).collect()
}

fn whole(plan: &GoldPlan, silver: &[Sale]) -> RecordBatch {
    sorted(plan, &compute(plan, silver).into_values().collect::<Vec<_>>()).unwrap()
}

fn delta(sales: &[Sale], positions: &Positions) -> Delta {
    let mut delta = Delta::default();
    for sale in sales {
        let start = positions.get(&sale.partition).map_or(0, |coverage| coverage.range.end);
        let coverage = delta
            .partitions
            .entry(sale.partition)
            .or_insert(Coverage { range: OffsetRange::new(start, sale.offset + 1), records: 0 });
        coverage.range.end = sale.offset + 1;
        coverage.records += 1;
    }
    delta
}

/// A naive model of one group, without Arrow.
#[derive(Default, Debug, PartialEq)]
struct Group {
    orders: i64,
    amounts: Vec<i128>,
    customers: BTreeSet<String>,
    offsets: i64,
}

fn model(silver: &[Sale]) -> BTreeMap<(i64, Option<String>), Group> {
    let mut groups: BTreeMap<_, Group> = BTreeMap::new();
    for sale in silver {
        let instant = sale.timestamp.unwrap_or(7 * MINUTE);
        let group = groups.entry((instant.div_euclid(MINUTE) * MINUTE, sale.category.clone())).or_default();
        group.orders += 1;
        group.amounts.extend(sale.amount);
        group.customers.insert(sale.customer.clone());
        group.offsets += sale.offset;
    }
    groups
}

fn assert_equals_model(rows: &RecordBatch, silver: &[Sale]) {
    let model = model(silver);
    assert_eq!(rows.num_rows(), model.len());
    let starts = rows.column_by_name(WINDOW_START).unwrap().as_primitive::<TimestampMicrosecondType>();
    let categories = rows.column_by_name("Category").unwrap().as_string::<i32>();
    let int = |name: &str| rows.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
    let decimal = |name: &str| rows.column_by_name(name).unwrap().as_primitive::<Decimal128Type>().clone();
    for (row, ((start, category), group)) in model.iter().enumerate() {
        assert_eq!(starts.value(row), *start);
        assert_eq!(categories.is_valid(row).then(|| categories.value(row).to_string()), *category);
        assert_eq!(int("Orders").value(row), group.orders);
        assert_eq!(int("Amounts").value(row), group.amounts.len() as i64);
        assert_eq!(int("Customers").value(row), group.customers.len() as i64);
        assert_eq!(int("Offsets").value(row), group.offsets);
        let first = rows.column_by_name("First").unwrap().as_string::<i32>().value(row).to_string();
        assert_eq!(Some(&first), group.customers.first());
        let (total, highest) = (decimal("Total"), decimal("Highest"));
        assert_eq!(total.is_valid(row), !group.amounts.is_empty());
        if let Some(largest) = group.amounts.iter().max() {
            assert_eq!(total.value(row), group.amounts.iter().sum::<i128>());
            assert_eq!(highest.value(row), largest * 2);
            let mean = group.amounts.iter().sum::<i128>() as f64 / 100.0 / group.amounts.len() as f64;
            assert!((decimal("Average").value(row) as f64 / 10_000.0 - mean).abs() <= 0.000_050_1);
        }
    }
}

/// One step of a run.
#[derive(Debug, Clone)]
enum Step {
    Batch(usize),
    Refresh,
    Restart,
}

fn sales() -> impl Strategy<Value = Vec<Sale>> {
    let one = (
        0..3i32,
        prop::option::weighted(0.95, -5i64..30),
        // Some records claim to come from the far future.
        prop::bool::weighted(0.03),
        prop::option::weighted(0.9, 0..3u8),
        prop::option::weighted(0.9, -10_000i128..10_000),
        0..20u8,
        1..3i64,
    );
    prop::collection::vec(one, 0..300).prop_map(|rows| {
        let mut next = [0i64; 3];
        let mut sales = Vec::new();
        for (row, (partition, jitter, future, category, amount, customer, gap)) in rows.into_iter().enumerate() {
            let drift = row as i64 / 10;
            let minute = |jitter: i64| if future { 500_000 + jitter } else { drift + jitter };
            sales.push(Sale {
                partition,
                offset: next[partition as usize],
                timestamp: jitter.map(|jitter| minute(jitter) * MINUTE + row as i64),
                category: category.map(|category| format!("c{category}")),
                amount,
                customer: format!("customer {customer}"),
            });
            next[partition as usize] += gap;
        }
        sales
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![4 => (1usize..60).prop_map(Step::Batch), 2 => Just(Step::Refresh), 1 => Just(Step::Restart)];
    prop::collection::vec(step, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn after_every_refresh_the_table_is_the_group_by(
        sales in sales(), steps in steps(), limit in prop_oneof![Just(2_000u64), Just(20_000), Just(1 << 30)],
    ) {
        let plan = plan(ByteSize::b(limit));
        let mut table = Table::default();
        let mut open = OpenWindows::new(&plan, &table.progress());
        let mut taken = 0;
        let last = [Step::Restart, Step::Batch(usize::MAX), Step::Refresh];
        for (tick, step) in steps.into_iter().chain(last).enumerate() {
            // Time passes unevenly, so partitions become idle now and then.
            let now_us = 60 * MINUTE + (tick as i64 / 5) * 2 * MINUTE;
            match step {
                Step::Batch(rows) => {
                    let until = sales.len().min(taken + rows.min(sales.len()));
                    let rows = &sales[taken..until];
                    let update = open.update(&batch(rows), &delta(rows, open.positions()), now_us).unwrap();
                    prop_assert_eq!(update, Update::Applied);
                    taken = until;
                }
                Step::Refresh => {
                    table.refresh(&plan, &mut open, &sales[..taken], now_us);
                    assert_equals_model(&table.rows(&plan), &sales[..taken]);
                    prop_assert_eq!(table.rows(&plan), whole(&plan, &sales[..taken]));
                }
                Step::Restart => {
                    let progress = table.progress();
                    open = OpenWindows::new(&plan, &progress);
                    let replay = progress.replay();
                    let known: Vec<Sale> = sales.iter().filter(|sale| {
                        replay.get(&sale.partition).is_some_and(|range| range.contains(sale.offset))
                    }).cloned().collect();
                    for rows in known.chunks(7) {
                        open.restore(&batch(rows), now_us).unwrap();
                    }
                    prop_assert_eq!(open.changes(), Changes::default());
                    // What no refresh has written is read again.
                    taken = sales.iter().rposition(|sale| {
                        progress.positions.get(&sale.partition).is_some_and(|coverage| coverage.range.contains(sale.offset))
                    }).map_or(0, |last| last + 1);
                }
            }
        }
    }
}

fn sale(partition: i32, offset: i64, minute: i64) -> Sale {
    Sale {
        partition,
        offset,
        timestamp: Some(minute * MINUTE),
        category: None,
        amount: Some(100),
        customer: format!("{partition}/{offset}"),
    }
}

#[test]
fn a_late_row_makes_its_window_be_computed_again() {
    let plan = plan(ByteSize::mib(1));
    let mut open = OpenWindows::new(&plan, &Progress::start());
    let mut table = Table::default();
    let mut silver = vec![sale(0, 0, 0), sale(0, 1, 10)];
    assert_eq!(open.update(&batch(&silver), &delta(&silver, open.positions()), 10 * MINUTE).unwrap(), Update::Applied);
    table.refresh(&plan, &mut open, &silver, 10 * MINUTE);
    assert_eq!(open.closed_before_us(), 8 * MINUTE);
    assert_eq!(open.state().windows.keys().copied().collect::<Vec<_>>(), [10 * MINUTE]);
    assert_eq!(table.progress().replay(), BTreeMap::from([(0, OffsetRange::new(1, 2))]));

    let late = [sale(0, 2, 0)];
    assert_eq!(open.update(&batch(&late), &delta(&late, open.positions()), 0).unwrap(), Update::Applied);
    assert_eq!(open.changes(), Changes { live: BTreeSet::new(), recompute: BTreeSet::from([0]) });
    silver.extend(late);
    table.refresh(&plan, &mut open, &silver, 10 * MINUTE);
    assert_equals_model(&table.rows(&plan), &silver);
    assert_eq!(open.changes(), Changes::default());
}

#[test]
fn a_batch_that_does_not_continue_is_refused_and_changes_nothing() {
    let plan = plan(ByteSize::mib(1));
    let mut open = OpenWindows::new(&plan, &Progress::start());
    let first = [sale(0, 0, 0)];
    let again = delta(&first, open.positions());
    assert_eq!(open.update(&batch(&first), &again, 0).unwrap(), Update::Applied);
    let mismatch = Mismatch { partition: 0, table_next: 1, batch: OffsetRange::new(0, 1) };
    assert_eq!(open.update(&batch(&first), &again, 0).unwrap(), Update::Gap(mismatch));
    assert_eq!(open.state().windows[&0].rows, 1);
    let outside = Delta { partitions: BTreeMap::from([(0, Coverage { range: OffsetRange::new(1, 2), records: 1 })]) };
    assert!(open.update(&batch(&first), &outside, 0).is_err(), "its row lies outside its range");
}

#[test]
fn a_clock_that_runs_ahead_does_not_hold_the_floor() {
    let plan = plan(ByteSize::mib(1));
    let mut open = OpenWindows::new(&plan, &Progress::start());
    let mut table = Table::default();
    let silver = [sale(0, 0, 1_000_000), sale(0, 1, 10), sale(0, 2, 20)];
    assert_eq!(open.update(&batch(&silver), &delta(&silver, open.positions()), 20 * MINUTE).unwrap(), Update::Applied);
    table.refresh(&plan, &mut open, &silver, 20 * MINUTE);
    assert_equals_model(&table.rows(&plan), &silver);
    assert_eq!(open.closed_before_us(), 18 * MINUTE);
    assert_eq!(table.progress().floor[&0], 2);
    assert_eq!(table.progress().cold, BTreeSet::from([1_000_000 * MINUTE]));
}

#[tokio::test]
async fn the_query_for_checkers_gives_the_same_rows() {
    use datafusion::prelude::{SessionConfig, SessionContext};
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let plan = plan(ByteSize::mib(1));
    let config = SessionConfig::new().set_bool("datafusion.sql_parser.enable_ident_normalization", false);
    let mut runner = TestRunner::deterministic();
    for _ in 0..8 {
        let mut sales = sales().new_tree(&mut runner).unwrap().current();
        sales.push(Sale { timestamp: Some(i64::MAX), ..sale(7, 0, 0) });
        sales.push(Sale { timestamp: Some(-1), ..sale(8, 0, 0) });
        let context = SessionContext::new_with_config(config.clone());
        context.register_batch("silver", batch(&sales)).unwrap();
        let answer = context.sql(&plan.group_by_sql("silver")).await.unwrap().collect().await.unwrap();
        let answer: Vec<RecordBatch> = answer.iter().map(|rows| plan.from_group_by(rows).unwrap()).collect();
        let (expected, found) = (without_floats(&whole(&plan, &sales)), without_floats(&sorted(&plan, &answer).unwrap()));
        assert_eq!(found, expected);
    }
}

/// The exact columns: floating-point averages may differ in their last bit.
fn without_floats(rows: &RecordBatch) -> RecordBatch {
    let exact: Vec<usize> =
        (0..rows.num_columns()).filter(|column| rows.column(*column).data_type() != &DataType::Float64).collect();
    rows.project(&exact).unwrap()
}
