//! Gold tables that get another definition: what the plan says of it, what becomes of rows and columns, and who is kept out.

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use lakesmith::Kind;
use lakesmith::gold::{CatchUp, GoldMaintainer, GoldPlan, GoldSettings, MeasureSettings, OtherDefinition};
use lakesmith::metastore::{ColumnCheck, HiveTable};
use lakesmith::schema::Redefinition;

use super::{DAY, MINUTE, NOON, Place, Silver, clock, on_every_metastore, silver_schema};

on_every_metastore!(
    a_measure_is_added_and_old_rows_lack_it,
    everything_else_computes_every_partition_again,
    what_cannot_be_done_is_refused,
    a_column_whose_type_no_other_has_takes_no_other_with_it,
);

/// More than one refresh computes again.
const DAYS: i64 = 20;

fn plan(place: &Place, change: impl FnOnce(&mut GoldSettings)) -> GoldPlan {
    let mut settings = place.settings();
    change(&mut settings);
    GoldPlan::new(&settings, &silver_schema()).unwrap()
}

async fn open(place: &Place, plan: &GoldPlan, silver: &Silver) -> lakesmith::Result<GoldMaintainer> {
    GoldMaintainer::open(plan.clone(), &place.database, &place.metastore, &place.storages, silver).await
}

/// Rows in two windows on each of some days, and gold over them, which nobody maintains now. All windows but the last are closed.
async fn filled(place: &Place, days: i64) -> Silver {
    let mut silver = Silver::new();
    for day in 0..days {
        silver.commit(0, 10, NOON + day * DAY - 60 * MINUTE);
        silver.commit(0, 30, NOON + day * DAY);
    }
    let mut gold = place.open(&silver).await.unwrap();
    go_on(&mut gold, &silver, days).await;
    gold.close().await.unwrap();
    silver
}

async fn go_on(gold: &mut GoldMaintainer, silver: &Silver, days: i64) {
    let now = clock(NOON + days * DAY);
    assert!(matches!(gold.catch_up(silver, now).await.unwrap(), CatchUp::Done { .. }));
    gold.refresh(silver, now).await.unwrap();
}

async fn difference(place: &Place, plan: &GoldPlan, backfill: bool) -> Option<Redefinition> {
    Redefinition::plan(&place.metastore, &place.database, plan, backfill).await.unwrap()
}

fn steps(redefinition: &Redefinition) -> Vec<String> {
    redefinition.steps.iter().map(|step| format!("{}: {}", step.what, step.verdict)).collect()
}

async fn entry(place: &Place, name: &str) -> HiveTable {
    place.metastore.table(&place.database, name).await.unwrap().unwrap()
}

fn names(columns: &[lakesmith::metastore::FieldSchema]) -> Vec<String> {
    columns.iter().map(|column| column.name.clone()).collect()
}

async fn columns(place: &Place) -> Vec<String> {
    let table = names(&entry(place, "sales_by_minute").await.columns());
    for partition in place.partitions().await {
        assert_eq!(names(&partition.columns()), table, "{:?}", partition.values());
    }
    table
}

async fn a_measure_is_added_and_old_rows_lack_it(place: Place) {
    let mut silver = filled(&place, 3).await;
    let more = plan(&place, |settings| settings.measures.push(MeasureSettings::new("Items", "COUNT(Amount)")));
    assert!(difference(&place, &place.plan(), false).await.is_none());
    let made = difference(&place, &more, false).await.unwrap();
    let expected = [
        "add measure Items as COUNT(Amount): needs backfill: null in the rows so far",
        "replace view sales_by_minute_view: safe",
    ];
    assert_eq!(steps(&made), expected);

    // Who runs with the file's definition before the plan is applied does nothing, and says what does.
    let error = open(&place, &more, &silver).await.err().unwrap();
    assert!(
        error.chain().contains("computed by another definition") && error.has_cause::<OtherDefinition>(),
        "{}",
        error.chain()
    );
    assert!(error.hint_text().unwrap().contains("schema plan"));

    assert!(made.grant(&place.metastore).await.unwrap());
    assert!(made.grant(&place.metastore).await.unwrap(), "what is granted stays so");
    assert!(!made.is_done(&place.metastore).await.unwrap());
    // Nobody goes on with the old one.
    let error = place.open(&silver).await.err().unwrap();
    assert!(
        error.chain().contains("about to get another definition") && error.has_cause::<OtherDefinition>(),
        "{}",
        error.chain()
    );
    let mut gold = open(&place, &more, &silver).await.unwrap();
    assert!(!gold.is_redefining(), "nothing is to be computed");
    assert!(made.is_done(&place.metastore).await.unwrap());
    assert!(!made.grant(&place.metastore).await.unwrap());
    assert_eq!(columns(&place).await.last().unwrap(), "items");
    assert_eq!(names(&entry(&place, "sales_by_minute_view").await.columns())[7..], ["items", "window_date"]);

    // The windows of before keep their rows; new ones in an old partition have the measure, as have new partitions.
    silver.commit(0, 30, NOON + 2 * DAY + 5 * MINUTE);
    silver.commit(0, 30, NOON + 3 * DAY);
    go_on(&mut gold, &silver, 4).await;
    let nulls = async |day: &str| {
        let partition = place.partition(day).await;
        let items = place.rows_of(&more, &partition).await.column_by_name("Items").unwrap().clone();
        (items.null_count(), items.len(), partition.parameter("lakesmith.null-columns").map(str::to_owned))
    };
    let marked = Some("Items".to_owned());
    let (null, rows, mark) = nulls("2024-07-01").await;
    assert!(null > 0 && null == rows && mark == marked, "{null} of {rows}, {mark:?}");
    let (null, rows, mark) = nulls("2024-07-03").await;
    assert!(null > 0 && null < rows && mark == marked, "{null} of {rows}, {mark:?}");
    assert_eq!(nulls("2024-07-04").await, (0, nulls("2024-07-04").await.1, None));

    // Filled later.
    let fill = difference(&place, &more, true).await.unwrap();
    assert_eq!(steps(&fill), ["fill the measures that old rows lack: every partition is computed again from silver"]);
    assert!(!fill.is_done(&place.metastore).await.unwrap());
    assert!(fill.grant(&place.metastore).await.unwrap());
    // Whoever maintains the table finds that at its next refresh, and begins anew.
    let error = gold.refresh(&silver, clock(NOON + 4 * DAY)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Transient, "{}", error.chain());
    gold.close().await.unwrap();
    let mut gold = open(&place, &more, &silver).await.unwrap();
    assert_eq!(gold.partitions_left(), 3);
    go_on(&mut gold, &silver, 4).await;
    assert!(!gold.is_redefining() && fill.is_done(&place.metastore).await.unwrap());
    place.assert_equals_group_by_of(&more, &silver).await;
    let items = place.rows_of(&more, &place.partition("2024-07-01").await).await.column_by_name("Items").unwrap().clone();
    assert_eq!(items.as_primitive::<Int64Type>().iter().flatten().sum::<i64>(), 36);
    assert!(difference(&place, &more, true).await.is_none());
    gold.close().await.unwrap();
    place.remove().await;
}

async fn everything_else_computes_every_partition_again(place: Place) {
    let mut silver = filled(&place, DAYS).await;
    let other = plan(&place, |settings| {
        settings.dimensions.push("CustomerID".into());
        settings.measures = [
            ("TotalOrders", "COUNT(Amount)"),
            ("Revenue", "SUM(Amount)"),
            ("UniqueCustomers", "COUNT(DISTINCT CustomerID)"),
            ("Largest", "MAX(Amount)"),
        ]
        .map(|(name, sql)| MeasureSettings::new(name, sql))
        .into();
    });
    let made = difference(&place, &other, false).await.unwrap();
    let again = "every partition is computed again from silver";
    let expected = [
        format!("add dimension CustomerID: {again}"),
        format!("compute TotalOrders by COUNT(Amount) instead of COUNT(*): {again}"),
        format!("rename measure TotalRevenue to Revenue: {again}"),
        format!("add measure Largest as MAX(Amount): {again}"),
        format!("drop measure AvgOrderValue: {again}"),
        "replace view sales_by_minute_view: safe".to_owned(),
    ];
    assert_eq!(steps(&made), expected);
    made.grant(&place.metastore).await.unwrap();

    // One refresh does some; whoever comes next does the rest. What is read meanwhile has all columns.
    let mut gold = open(&place, &other, &silver).await.unwrap();
    assert_eq!(gold.partitions_left(), DAYS as usize);
    let all = columns(&place).await;
    assert!(["totalrevenue", "revenue", "largest", "customerid"].iter().all(|name| all.iter().any(|known| known == name)));
    go_on(&mut gold, &silver, DAYS).await;
    assert!(gold.is_redefining() && gold.partitions_left() < DAYS as usize);
    assert_eq!(columns(&place).await, all);
    assert!(!made.is_done(&place.metastore).await.unwrap());
    gold.close().await.unwrap();

    // Rows that came meanwhile are counted by the new definition.
    silver.commit(1, 30, NOON + DAYS * DAY);
    let mut gold = open(&place, &other, &silver).await.unwrap();
    assert!((1..DAYS as usize).contains(&gold.partitions_left()), "{}", gold.partitions_left());
    go_on(&mut gold, &silver, DAYS + 1).await;
    assert!(!gold.is_redefining() && made.is_done(&place.metastore).await.unwrap());
    place.assert_equals_group_by_of(&other, &silver).await;
    assert_eq!(place.partitions().await.len(), DAYS as usize + 1);
    let mut found = columns(&place).await;
    found.sort();
    let mut wanted = names(&other.table_spec(&place.database, "").unwrap().columns);
    wanted.sort();
    assert_eq!(found, wanted);
    let view = names(&entry(&place, "sales_by_minute_view").await.columns());
    assert_eq!(
        view,
        [
            "window_start",
            "window_end",
            "category",
            "customer_id",
            "total_orders",
            "revenue",
            "unique_customers",
            "largest",
            "window_date"
        ]
    );

    // It is a table like any other then.
    silver.commit(0, 10, NOON + DAYS * DAY);
    go_on(&mut gold, &silver, DAYS + 1).await;
    place.assert_equals_group_by_of(&other, &silver).await;
    gold.close().await.unwrap();
    place.remove().await;
}

/// Those behind it move up to places of another type, and are there all the time: where the server compares types it is told not to. Hive 2.3's
/// can't be told.
async fn a_column_whose_type_no_other_has_takes_no_other_with_it(place: Place) {
    let measures = |names: &'static [(&str, &str)]| {
        plan(&place, |settings| settings.measures = names.iter().map(|(name, sql)| MeasureSettings::new(*name, *sql)).collect())
    };
    let with = measures(&[("Largest", "MAX(Amount)"), ("TotalOrders", "COUNT(*)")]);
    let without = measures(&[("TotalOrders", "COUNT(*)")]);
    let mut silver = Silver::new();
    silver.commit(0, 30, NOON);
    silver.commit(0, 10, NOON + 60 * MINUTE);
    let mut gold = open(&place, &with, &silver).await.unwrap();
    go_on(&mut gold, &silver, 1).await;
    gold.close().await.unwrap();
    assert_eq!(columns(&place).await[3..], ["largest", "totalorders"]);
    difference(&place, &without, false).await.unwrap().grant(&place.metastore).await.unwrap();

    let watched = (place.metastore.clone(), place.database.clone());
    let (ended, mut end) = tokio::sync::oneshot::channel::<()>();
    let watch = tokio::spawn(async move {
        let (mut seen, mut incomplete) = (0, Vec::new());
        while end.try_recv().is_err() {
            let columns = names(&watched.0.table(&watched.1, "sales_by_minute").await.unwrap().unwrap().columns());
            seen += 1;
            if !columns.iter().any(|column| column == "totalorders") {
                incomplete.push(columns);
            }
            tokio::task::yield_now().await;
        }
        (seen, incomplete)
    });
    let mut gold = open(&place, &without, &silver).await.unwrap();
    go_on(&mut gold, &silver, 1).await;
    ended.send(()).unwrap();
    let (seen, incomplete) = watch.await.unwrap();
    assert_eq!(columns(&place).await[3..], ["totalorders"]);
    place.assert_equals_group_by_of(&without, &silver).await;
    let check = place.metastore.abilities().await.unwrap().column_check;
    if !matches!(check, ColumnCheck::ByPosition { can_be_lifted: false, .. }) {
        assert!(seen > 10 && incomplete.is_empty(), "{} of {seen}: {:?}", incomplete.len(), incomplete.first());
    }
    gold.close().await.unwrap();
    place.remove().await;
}

async fn what_cannot_be_done_is_refused(place: Place) {
    let mut silver = filled(&place, 2).await;
    for (change, what, reason) in [
        (
            Box::new(|settings: &mut GoldSettings| settings.window = std::time::Duration::from_secs(300))
                as Box<dyn Fn(&mut GoldSettings)>,
            "change windows from 1m to 5m",
            "windows would not be those",
        ),
        (
            Box::new(|settings: &mut GoldSettings| settings.time_column = "processing_timestamp".into()),
            "change time_column from kafka_timestamp to processing_timestamp",
            "windows would not be those",
        ),
        (
            Box::new(|settings: &mut GoldSettings| settings.measures[1].sql = "COUNT(Amount)".into()),
            "change totalrevenue from decimal(38,2) to bigint",
            "files of both types",
        ),
    ] {
        let made = difference(&place, &plan(&place, change), false).await.unwrap();
        let (found, why) = made.refusal().unwrap();
        assert!(found == what && why.contains(reason), "{found}: {why}");
        let error = made.ensure_for(&place.plan()).unwrap_err();
        assert!(error.chain().contains("cannot be applied"), "{}", error.chain());
    }

    let [one, two] = ["Items", "Things"]
        .map(|name| plan(&place, |settings| settings.measures.push(MeasureSettings::new(name, "COUNT(Amount)"))));
    let (first, second) = (difference(&place, &one, true).await.unwrap(), difference(&place, &two, true).await.unwrap());
    assert!(first.ensure_for(&two).unwrap_err().chain().contains("in another way than this plan"));
    first.grant(&place.metastore).await.unwrap();
    // Made before the other one was applied.
    let stale = second.grant(&place.metastore).await.unwrap_err();
    assert!(stale.chain().contains("in no state of this plan"), "{}", stale.chain());

    // Silver must have everything that is computed again.
    let whole = silver.rows.clone();
    silver.rows = silver.select(|_, offset| offset >= 10);
    let mut gold = open(&place, &one, &silver).await.unwrap();
    gold.catch_up(&silver, clock(NOON + 2 * DAY)).await.unwrap();
    let error = gold.refresh(&silver, clock(NOON + 2 * DAY)).await.unwrap_err();
    assert!(error.chain().contains("silver has lost rows"), "{}", error.chain());
    gold.close().await.unwrap();

    // The way back is a plan too.
    let back = difference(&place, &place.plan(), false).await.unwrap();
    assert_eq!(steps(&back), ["undo what a plan began: every partition is computed again from silver"]);
    silver.rows = whole;
    back.grant(&place.metastore).await.unwrap();
    let mut gold = place.open(&silver).await.unwrap();
    if gold.is_redefining() {
        go_on(&mut gold, &silver, 2).await;
    }
    assert!(back.is_done(&place.metastore).await.unwrap() && !columns(&place).await.contains(&"items".to_owned()));
    place.assert_equals_group_by(&silver).await;
    gold.close().await.unwrap();
    place.remove().await;
}
