//! Silver in plain Hive form (`silver.format = "hive"`), with bronze as text: no Iceberg but for the rejected records.
//!
//! What silver holds is counted from the bare Parquet files, and by Spark through the metastore.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use super::Lake;
use super::lake::{SMALL_COMMITS, Servers, assert_records, expected};
use super::real::{assert_a_run_completes, assert_spark_agrees, cluster, spark};

const HIVE: [&str; 2] = ["bronze.format=hive", "silver.format=hive"];

/// The windows that a run with this form passes, in an order in which each is passed.
pub const WINDOWS: [&str; 16] = [
    "start:tables-created",
    "bronze:files-written",
    "bronze:metadata-written",
    "bronze:claimed",
    "bronze:swapped",
    "silver:catch-up-files-written",
    "silver:catch-up-metadata-written",
    "silver:claimed",
    "silver:claimed@2",
    "silver:swapped@2",
    "rejected:swapped",
    "bronze:claimed@2",
    "lock:held",
    "gold:partition-written",
    "gold:switched",
    "gold:progress-written",
];

fn lake(rows: &str) -> Lake {
    lake_with(rows, &HIVE)
}

fn lake_with(rows: &str, settings: &[&str]) -> Lake {
    let settings = ["source.kind=file", "source.file.path=sales.jsonl", "source.file.format=jsonl"].iter().chain(settings);
    let settings: Vec<String> = settings.map(|setting| (*setting).to_owned()).collect();
    let lake = Lake::new("datalake", &settings, Servers::None);
    lake.ok(&["generate", "--rows", rows, "--format", "jsonl", "--bad-share", "0.02", "--output", "sales.jsonl"]);
    lake
}

fn directory(lake: &Lake) -> PathBuf {
    lake.path("lakehouse/datalake/silver/amazon_sales")
}

/// What engines read: all files below directories whose names don't begin with `_` or a dot.
fn visible(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("silver's directory") {
        let path = entry.expect("an entry").path();
        match path.file_name().expect("a name").to_string_lossy().starts_with(['_', '.']) {
            true => {}
            false if path.is_dir() => found.extend(visible(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// Year and month of a file, by its directories.
fn month(file: &Path) -> (i64, i64) {
    let value = |level: usize, name: &str| {
        let directory = file.ancestors().nth(level).and_then(Path::file_name).expect("a directory").to_string_lossy();
        directory.strip_prefix(name).unwrap_or_else(|| panic!("{name} in {directory}")).parse().expect("a number")
    };
    (value(2, "Year="), value(1, "Month="))
}

/// Each row of silver stands in one of the bare files, once, in the directory of its month.
fn assert_bare_files(lake: &Lake, expected: &Value) {
    let mut coordinates = BTreeSet::new();
    let mut months: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    for path in visible(&directory(lake)) {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).expect("a file")).expect("Parquet");
        let names: Vec<String> = reader.schema().fields().iter().map(|field| field.name().clone()).collect();
        assert!(names.contains(&"OrderID".to_owned()) && !names.contains(&"Year".to_owned()), "{names:?}");
        let mask = ProjectionMask::columns(reader.parquet_schema(), ["partition", "offset"]);
        for batch in reader.with_projection(mask).build().expect("a reader") {
            let batch = batch.expect("rows");
            let partitions = batch.column(0).as_primitive::<Int32Type>().values();
            let offsets = batch.column(1).as_primitive::<Int64Type>().values();
            for at in partitions.iter().zip(offsets) {
                assert!(coordinates.insert((*at.0, *at.1)), "{at:?} is there twice");
            }
            *months.entry(month(&path)).or_default() += batch.num_rows() as i64;
        }
    }
    assert_eq!(json!(coordinates.len()), expected["silver"]["rows"]);
    let months: Vec<Value> = months.into_iter().map(|((year, month), rows)| json!([year, month, rows])).collect();
    assert_eq!(Value::from(months), expected["silver"]["months"]);
}

#[test]
fn a_kill_at_any_window_loses_nothing_and_repeats_nothing() {
    let lake = lake("6000");
    WINDOWS.iter().for_each(|window| lake.kill_at(window));
    lake.ok(&["run", "--until-caught-up"]);
    let expected = expected("--messages", &lake.path("sales.jsonl"));
    assert_bare_files(&lake, &expected);
    assert_records(&lake, &expected);
    lake.verify();
    // Nothing more comes of another run.
    lake.ok(&["run", "--until-caught-up"]);
    assert_bare_files(&lake, &expected);

    let shown = lake.ok(&["tables", "show", "silver_amazon_sales"]);
    assert!(shown.contains("hive (silver)") && shown.contains("topic") && shown.contains("year, month"), "{shown}");
    assert!(lake.ok(&["tables"]).contains("silver_amazon_sales"));
    assert!(lake.ok(&["offsets", "show", "silver"]).contains("goes on at"));
    let refused = lake.output(&["offsets", "set", "silver", "0=5"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("silver.format"));
    lake.ok(&["wait", "silver", "--until", "-1d", "--timeout", "0s"]);
    let doctor = lake.ok(&["doctor"]);
    assert_eq!(doctor.matches("a rename that does not replace").count(), 2, "{doctor}");
    lake.ok(&["locks"]);
}

#[test]
fn filters_on_partition_columns_and_without_them_give_the_same() {
    let lake = lake("2000");
    lake.ok(&["run", "--until-caught-up"]);
    let count = |condition: &str| {
        let sql = format!("SELECT count(*) AS n FROM {} WHERE {condition}", lake.table("silver_amazon_sales"));
        lake.query(&sql)[0]["n"].as_i64().expect("a count")
    };
    let expected = expected("--messages", &lake.path("sales.jsonl"));
    for month in expected["silver"]["months"].as_array().expect("months").iter().take(3) {
        let (year, number, rows) = (&month[0], &month[1], month[2].as_i64().expect("a count"));
        assert_eq!(count(&format!("Year = {year} AND Month = {number}")), rows);
        let dates = format!("date_part('year', OrderDate) = {year} AND date_part('month', OrderDate) = {number}");
        assert_eq!(count(&dates), rows);
    }
}

#[test]
fn verify_fails_where_a_file_is_gone_or_not_of_lakesmith() {
    let lake = lake("2000");
    lake.ok(&SMALL_COMMITS);
    lake.verify();
    let files = visible(&directory(&lake));
    let copy = files[0].with_file_name("part-00000.parquet");
    fs::copy(&files[0], &copy).expect("a copy");
    let output = lake.output(&["verify"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && log.contains("part-00000.parquet"), "{log}");
    fs::remove_file(copy).expect("deleted");
    lake.verify();
    fs::remove_file(&files[1]).expect("deleted");
    let output = lake.output(&["verify"]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && log.contains("is gone"), "{log}");
}

#[test]
fn the_other_form_is_refused_before_anything_is_changed() {
    let hive = ["--set", "silver.format=hive"];
    let lake = lake_with("500", &[]);
    lake.ok(&[&["run", "--until-caught-up"], &hive[..]].concat());
    let expected = expected("--messages", &lake.path("sales.jsonl"));
    let refused = lake.output(&["run", "--until-caught-up"]);
    let log = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && log.contains("silver.format"), "{log}");
    assert_bare_files(&lake, &expected);
    lake.ok(&[&["verify"], &hive[..]].concat());

    let iceberg = lake_with("500", &[]);
    iceberg.ok(&["run", "--until-caught-up"]);
    let refused = iceberg.output(&[&["run", "--until-caught-up"], &hive[..]].concat());
    let log = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && log.contains("silver.format"), "{log}");
    iceberg.verify();
}

#[test]
fn from_kafka_to_hdfs_it_survives_kills_and_spark_agrees() {
    let (topic, lake) = cluster(6_000, "0.02", &HIVE);
    WINDOWS.iter().for_each(|window| lake.kill_at(window));
    let expected = assert_a_run_completes(&topic, &lake);
    assert_spark_agrees(&lake, &expected);
    let silver = lake.table("silver_amazon_sales");
    let answers = spark(&[
        format!("select count(*), count(distinct `partition`, `offset`) from {silver}"),
        format!("select year, month, count(*) from {silver} group by year, month order by year, month"),
    ]);
    let rows = &expected["silver"]["rows"];
    assert_eq!(answers[0]["rows"][0], Value::from(vec![rows.clone(), rows.clone()]));
    assert_eq!(answers[1]["rows"], expected["silver"]["months"]);
}
