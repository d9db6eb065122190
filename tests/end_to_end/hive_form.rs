//! Bronze in plain Hive form (`bronze.format = "hive"`): the same way of a record, with JSON text files in place of an Iceberg table.
//!
//! What bronze holds is counted from the bare files, and by Spark.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::Lake;
use super::lake::{SMALL_COMMITS, Servers, assert_records, env, expected};
use super::real::{assert_a_run_completes, assert_spark_agrees, base64, cluster, spark};

/// The windows that a run with this form passes, in an order in which each is passed.
pub const WINDOWS: [&str; 14] = [
    "start:tables-created",
    "bronze:files-written",
    "bronze:metadata-written",
    "bronze:claimed",
    "bronze:swapped",
    "silver:catch-up-files-written",
    "silver:catch-up-metadata-written",
    "silver:swapped@2",
    "rejected:swapped",
    "bronze:claimed@2",
    "lock:held",
    "gold:partition-written",
    "gold:switched",
    "gold:progress-written",
];

fn lake() -> Lake {
    let settings = ["source.kind=file", "source.file.path=sales.jsonl", "source.file.format=jsonl", "bronze.format=hive"];
    let lake = Lake::new("datalake", &settings.map(str::to_owned), Servers::None);
    lake.ok(&["generate", "--rows", "6000", "--format", "jsonl", "--bad-share", "0.02", "--output", "sales.jsonl"]);
    lake
}

/// Every line of the visible files, as text tools see them.
fn lines(directory: &Path) -> Vec<Value> {
    let files = fs::read_dir(directory).expect("bronze's directory").map(|entry| entry.expect("an entry").path());
    let visible = |path: &Path| !path.file_name().expect("a name").to_string_lossy().starts_with(['_', '.']);
    let mut lines = Vec::new();
    for file in files.filter(|path| visible(path)) {
        let text = fs::read_to_string(&file).expect("a file of text");
        lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON")));
    }
    lines
}

/// Each message of the input is a line of bronze, once.
fn assert_bare_files(lake: &Lake) {
    let lines = lines(&lake.path("lakehouse/datalake/bronze/amazon_sales"));
    let coordinates: BTreeSet<_> = lines.iter().map(|line| (line["partition"].as_i64(), line["offset"].as_i64())).collect();
    assert_eq!(coordinates.len(), lines.len(), "offsets are repeated");
    let mut found: Vec<String> =
        lines.iter().map(|line| line["value"].as_str().or(line["value_base64"].as_str()).expect("a value").to_owned()).collect();
    let content = fs::read(lake.path("sales.jsonl")).expect("the input");
    let messages = content.strip_suffix(b"\n").unwrap_or(&content).split(|byte| *byte == b'\n');
    let mut sent: Vec<String> =
        messages.map(|message| std::str::from_utf8(message).map_or_else(|_| base64(message), str::to_owned)).collect();
    found.sort();
    sent.sort();
    assert!(found == sent, "{} lines for {} messages", found.len(), sent.len());
}

#[test]
fn a_kill_at_any_window_loses_nothing_and_repeats_nothing() {
    let lake = lake();
    WINDOWS.iter().for_each(|window| lake.kill_at(window));
    lake.ok(&["run", "--until-caught-up"]);
    assert_bare_files(&lake);
    assert_records(&lake, &expected("--messages", &lake.path("sales.jsonl")));
    lake.verify();
    // Nothing more comes of another run.
    lake.ok(&["run", "--until-caught-up"]);
    assert_bare_files(&lake);

    let shown = lake.ok(&["tables", "show", "bronze_amazon_sales"]);
    assert!(shown.contains("hive (bronze)") && shown.contains("topic") && shown.contains("offsets"), "{shown}");
    let offsets = lake.ok(&["offsets", "show", "bronze"]);
    assert!(offsets.contains("goes on at"), "{offsets}");
    let refused = lake.output(&["offsets", "set", "bronze", "0=5"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("bronze.format"));
    lake.ok(&["wait", "bronze", "--until", "-1d", "--timeout", "0s"]);
    let doctor = lake.ok(&["doctor"]);
    assert!(doctor.contains("a rename that does not replace"), "{doctor}");
}

#[test]
fn verify_fails_where_a_file_is_gone() {
    let lake = lake();
    lake.ok(&SMALL_COMMITS);
    lake.verify();
    let directory = lake.path("lakehouse/datalake/bronze/amazon_sales");
    let mut files: Vec<_> = fs::read_dir(&directory).expect("bronze").map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    assert!(files.len() > 2, "{files:?}");
    fs::remove_file(&files[1]).expect("deleted");
    let output = lake.output(&["verify"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("in none of its files"));
}

#[test]
fn the_other_form_is_refused_before_anything_is_changed() {
    let settings = ["source.kind=file", "source.file.path=sales.jsonl", "source.file.format=jsonl"];
    let lake = Lake::new("datalake", &settings.map(str::to_owned), Servers::None);
    lake.ok(&["generate", "--rows", "500", "--format", "jsonl", "--output", "sales.jsonl"]);
    let hive = ["--set", "bronze.format=hive"];
    lake.ok(&[&["run", "--until-caught-up"], &hive[..]].concat());
    assert_bare_files(&lake);
    let refused = lake.output(&["run", "--until-caught-up"]);
    let log = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && log.contains("bronze.format"), "{log}");
    assert_bare_files(&lake);
    lake.ok(&[&["verify"], &hive[..]].concat());

    let iceberg = Lake::new("datalake", &settings.map(str::to_owned), Servers::None);
    iceberg.ok(&["generate", "--rows", "500", "--format", "jsonl", "--output", "sales.jsonl"]);
    iceberg.ok(&["run", "--until-caught-up"]);
    let refused = iceberg.output(&[&["run", "--until-caught-up"], &hive[..]].concat());
    let log = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && log.contains("bronze.format"), "{log}");
    iceberg.verify();
}

#[test]
fn from_kafka_to_hdfs_it_survives_kills_and_spark_agrees() {
    let (topic, lake) = cluster(6_000, "0.02", &["bronze.format=hive"]);
    WINDOWS.iter().for_each(|window| lake.kill_at(window));
    let expected = assert_a_run_completes(&topic, &lake);
    assert_spark_agrees(&lake, &expected);
    // The bare files, as text; and the coordinates that the table shows.
    let files = format!("{}/{topic}/datalake/bronze/amazon_sales/*.json", env("HDFS_URL"));
    let answers = spark(&[
        format!("select count(*) from text.`{files}`"),
        format!("select count(*), count(distinct `partition`, `offset`) from {}", lake.table("bronze_amazon_sales")),
    ]);
    let rows = &expected["bronze"]["rows"];
    assert_eq!(&answers[0]["rows"][0][0], rows);
    assert_eq!(answers[1]["rows"][0], Value::from(vec![rows.clone(), rows.clone()]));
}
