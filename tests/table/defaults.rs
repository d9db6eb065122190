//! Columns with defaults, for which a table becomes one of format version 3 while batches come.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use iceberg::spec::FormatVersion;
use lakesmith::checkpoint::OffsetRange;
use lakesmith::query::{QuerySession, QuerySettings};
use lakesmith::schema::{self, Change, NewDefault};
use lakesmith::table::LakeTable;

use super::lake::{Lake, append, collect, committed, offsets, ready};

super::on_every_lake!(
    a_default_is_the_value_of_rows_before_it_and_of_rows_without_it,
    a_batch_under_way_goes_into_the_table_of_the_later_version,
);

fn add(name: &str, field_type: &str, value: &str, required: bool) -> Change {
    Change::Add {
        path: name.parse().unwrap(),
        field_type: field_type.to_owned(),
        doc: None,
        position: None,
        default: Some(NewDefault { value: value.to_owned(), required }),
    }
}

async fn change(table: &mut LakeTable, change: Change) {
    schema::apply(table, &["partition", "offset"], &[change]).await.unwrap().expect("a change");
    table.refresh().await.unwrap();
}

/// How many rows a filter leaves.
async fn count(lake: &Lake, filter: &str) -> i64 {
    let session = QuerySession::new(lake.catalog.clone(), &lake.database, &QuerySettings::default()).unwrap();
    let mut answer = session.query(&format!("SELECT count(*) FROM t WHERE {filter}")).await.unwrap();
    let batch = answer.next().await.unwrap().unwrap();
    batch.column(0).as_primitive::<Int64Type>().value(0)
}

/// The values of a text column in a scan of the table.
async fn texts(table: &LakeTable, column: &str) -> Vec<String> {
    let batches: Vec<RecordBatch> = table.scan(None, Some(&[column])).await.unwrap().try_collect().await.unwrap();
    batches.iter().flat_map(|batch| batch.column(0).as_string::<i32>().iter()).map(|text| text.unwrap().to_owned()).collect()
}

async fn a_default_is_the_value_of_rows_before_it_and_of_rows_without_it(lake: &Lake) {
    let mut table = lake.table("t", &["Year"]).await;
    append(&mut table, 0, OffsetRange::new(0, 10)).await;
    let before = table.snapshot_id().unwrap();
    assert_eq!(table.metadata().format_version(), FormatVersion::V2);
    change(&mut table, add("Origin", "string", "web", true)).await;
    assert_eq!(table.metadata().format_version(), FormatVersion::V3);
    // Before any snapshot has the column, and behind one that has it.
    assert_eq!(texts(&table, "Origin").await, vec!["web"; 10]);
    change(&mut table, add("Points", "int", "-7", false)).await;
    append(&mut table, 0, OffsetRange::new(10, 20)).await;
    change(&mut table, Change::Widen { path: "Points".parse().unwrap(), to: "long".into() }).await;
    change(&mut table, Change::Rename { path: "Origin".parse().unwrap(), to: "Source".into() }).await;
    append(&mut table, 0, OffsetRange::new(20, 30)).await;
    assert_eq!(texts(&table, "Source").await, vec!["web"; 30]);
    assert_eq!(offsets(&table, None).await, (0..30).collect::<Vec<_>>());
    for (filter, rows) in
        [("\"Source\" = 'web'", 30), ("\"Source\" <> 'web'", 0), ("\"Points\" < 0", 30), ("\"Points\" IS NULL", 0)]
    {
        assert_eq!(count(lake, filter).await, rows, "{filter}");
    }
    // What was is as it was.
    let scan = table.to_iceberg().unwrap().scan().snapshot_id(before).build().unwrap();
    let batches = collect(scan).await;
    assert!(batches[0].column_by_name("Origin").is_none());
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 10);

    // Another handle, which reads the manifests that this one wrote, goes on.
    let mut another = lake.open(&lake.catalog, "t").await;
    append(&mut another, 0, OffsetRange::new(30, 40)).await;
    assert_eq!(another.metadata().next_row_id(), 40);
    let history: Vec<String> =
        schema::history(another.metadata()).iter().flat_map(|entry| &entry.differences).map(ToString::to_string).collect();
    assert_eq!(history[0], "added Origin string default 'web'");
    let shown = schema::fields(another.metadata(), another.metadata().current_schema());
    let points = shown.iter().find(|line| line.path == "Points").unwrap();
    assert_eq!((points.field_type.as_str(), points.default.as_deref()), ("long", Some("-7")));
    let entry = lake.catalog.metastore().table(&lake.database, "t").await.unwrap().unwrap();
    assert!(entry.columns().iter().any(|column| column.name.eq_ignore_ascii_case("points") && column.hive_type == "bigint"));
}

async fn a_batch_under_way_goes_into_the_table_of_the_later_version(lake: &Lake) {
    let mut table = lake.table("t", &["Year"]).await;
    append(&mut table, 0, OffsetRange::new(0, 10)).await;
    let mut behind = lake.open(&lake.catalog, "t").await;
    let prepared = ready(&mut behind, 0, OffsetRange::new(10, 20)).await;
    change(&mut table, add("Origin", "string", "web", false)).await;
    let appended = committed(prepared.swap(&mut behind).await);
    assert_eq!(appended.attempts, 2);
    assert_eq!(behind.metadata().format_version(), FormatVersion::V3);
    assert_eq!(behind.metadata().current_snapshot().unwrap().row_range(), Some((0, 20)));
    assert_eq!(texts(&behind, "Origin").await, vec!["web"; 20]);
    append(&mut table, 0, OffsetRange::new(20, 30)).await;
    assert_eq!(table.metadata().current_snapshot().unwrap().row_range(), Some((20, 10)));
    assert_eq!(offsets(&table, None).await, (0..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_default_that_cannot_be_is_refused_and_nothing_changes() {
    let lake = Lake::embedded().await;
    let mut table = lake.table("t", &[]).await;
    append(&mut table, 0, OffsetRange::new(0, 10)).await;
    let place = Change::Add {
        path: "place".parse().unwrap(),
        field_type: "struct<city: string>".into(),
        doc: None,
        position: None,
        default: None,
    };
    change(&mut table, place).await;
    let before = table.metadata_location().to_owned();
    for (refused, why) in [
        (add("Points", "int", "seven", false), "`seven` is no int"),
        (add("Points", "decimal(4, 2)", "1.005", false), "`1.005` is no decimal(4, 2)"),
        (add("Points", "list<int>", "1", false), "a column of type list<int> can have no default"),
        (add("place.zip", "string", "0000", false), "place.zip can have no default"),
        (add("OFFSET", "int", "1", false), "offset"),
    ] {
        let error = schema::apply(&table, &["partition", "offset"], &[refused]).await.unwrap_err();
        assert!(error.chain().contains(why), "{}", error.chain());
    }
    table.refresh().await.unwrap();
    assert_eq!((table.metadata_location(), table.metadata().format_version()), (before.as_str(), FormatVersion::V2));
    lake.remove().await;
}
