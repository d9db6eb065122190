//! `reprocess --engine`: Spark's tasks compute what silver and rejected are to have, and what they decide is what this process would have.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use lakesmith::storage::{Depth, StorageSettings, Storages};
use serde_json::Value;

use super::Lake;
use super::embedded::assert_gold_totals;
use super::lake::{assert_records, env, expected};
use super::real::{assert_spark_agrees, cluster, dump};
use super::reprocess::{PRESET, STRICT, change, count, error_of, strict};

/// Those that only an engine opens.
pub const WINDOWS: [&str; 2] = ["reprocess:part-written", "reprocess:engine-ran"];

/// Spark's own client, with two tasks at a time.
fn spark_sql() -> String {
    let client = Path::new(&env("LAKESMITH_SPARK_PYTHON")).with_file_name("spark-sql");
    format!(
        "SPARK_LOCAL_IP=127.0.0.1 PYSPARK_PYTHON={} {} --master 'local[2]' --conf spark.ui.enabled=false \
         --conf spark.sql.catalogImplementation=in-memory -f {{script}} 2>spark.log",
        env("LAKESMITH_SPARK_PYTHON"),
        client.display()
    )
}

/// Sales of which a stricter rule than the preset's has rejected many, on real servers; the pipeline file has the preset's.
pub(super) fn on_servers(rows: u32) -> (String, Lake) {
    let (topic, lake) = cluster(rows, "0.02", &[]);
    change(&lake, PRESET, STRICT);
    lake.ok(&["run", "--until-caught-up"]);
    change(&lake, STRICT, PRESET);
    (topic, lake)
}

fn with_engine<'a>(command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["reprocess", "--engine", "spark", "--engine-command", command, "--part-records", "700"], more].concat()
}

fn spark_log(lake: &Lake) -> String {
    fs::read_to_string(lake.path("spark.log")).unwrap_or_default()
}

/// Data files below silver's and rejected's directories, whether a table has them or not, once no worker writes any more.
pub(super) async fn stored(topic: &str) -> usize {
    let warehouse = format!("{}/{topic}", env("HDFS_URL"));
    let storages = Storages::new(&StorageSettings { warehouse: warehouse.clone(), ..StorageSettings::default() }).expect("HDFS");
    let is_data = |location: &str| location.ends_with(".parquet") && location.contains("/silver") && location.contains("/data/");
    let mut known = None;
    loop {
        let files = storages.list(&warehouse, Depth::Recursive).await.expect("a listing");
        let found = files.iter().filter(|file| is_data(&file.location)).count();
        if known.replace(found) == Some(found) {
            return found;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

/// What the topic's records are by the preset's rule; nothing else is there.
pub(super) fn assert_as_preset(topic: &str, lake: &Lake) -> Value {
    dump(topic, &lake.path("dump.jsonl"));
    let expected = expected("--dump", &lake.path("dump.jsonl"));
    assert_records(lake, &expected);
    assert_gold_totals(lake, &expected);
    lake.verify();
    let tables = lake.ok(&["tables"]);
    assert!(!tables.contains("reprocessing"), "{tables}");
    expected
}

/// Runs it with the engine; it must succeed.
fn done(lake: &Lake, arguments: &[&str]) -> String {
    let ended = lake.output(arguments);
    assert!(ended.status.success(), "{}\n{}", String::from_utf8_lossy(&ended.stderr), spark_log(lake));
    String::from_utf8(ended.stdout).expect("text")
}

#[test]
fn spark_decides_every_record_as_this_process_does() {
    let (topic, lake) = on_servers(6_000);
    let command = spark_sql();
    let told = done(&lake, &with_engine(&command, &["--into", "_spark"]));
    assert!(told.contains("silver_amazon_sales_rejected_spark"), "{told}");
    lake.ok(&["reprocess", "--into", "_here"]);
    let rows = |table: &str, suffix: &str, but: &str| {
        let table = lake.table(&format!("{table}{suffix}"));
        lake.query(&format!("SELECT * EXCEPT ({but}) FROM {table} ORDER BY \"partition\", \"offset\""))
    };
    for (table, but) in [("silver_amazon_sales", "processing_timestamp"), ("silver_amazon_sales_rejected", "rejected_at")] {
        let (found, expected) = (rows(table, "_spark", but), rows(table, "_here", but));
        assert!(!expected.is_empty() && found == expected, "{table}: {} and {} rows", found.len(), expected.len());
    }
    // A part is a file of its own, of each month; all of them came in one commit.
    let commits = lake.query(&format!("SELECT * FROM {}.\"silver_amazon_sales_spark$snapshots\"", lake.database));
    assert_eq!(commits.len(), 1, "{commits:?}");
    lake.verify();

    // The tables themselves: of rejected records alone, then all.
    done(&lake, &with_engine(&command, &["--rejected"]));
    assert_as_preset(&topic, &lake);
    let told = done(&lake, &with_engine(&command, &[]));
    assert!(told.contains("rows in place of"), "{told}");
    let expected = assert_as_preset(&topic, &lake);
    assert_spark_agrees(&lake, &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_or_worker_that_was_killed_is_followed_by_one_that_goes_on() {
    let (topic, lake) = on_servers(3_000);
    let command = spark_sql();
    let before = stored(&topic).await;

    // A worker: Spark's task fails, and so does all.
    let killed = lake.command(&with_engine(&command, &[])).env("LAKESMITH_KILL_AT", WINDOWS[0]).output().expect("it starts");
    let told = String::from_utf8_lossy(&killed.stderr);
    assert_eq!(killed.status.code(), Some(1), "{told}");
    assert!(told.contains("the engine's command ended with exit status: 1"), "{told}");
    assert!(lake.ok(&["verify"]).contains("3,000 offsets are being decided anew"));

    // Results that are of no use: their files are deleted. Those of results that never came are nobody's, as the worker's are.
    let mut left = stored(&topic).await;
    assert!(left > before);
    for (command, said, leaks) in [
        (format!("{{ {command}; }} && exit 3"), "ended with exit status: 3", false),
        (format!("{{ {command}; }} >rows.txt"), "part 0 is missing, 0 of 5 are there", true),
        // Those of another job are not touched either.
        (": {script}; cat rows.txt".to_owned(), "is none of this job's", false),
    ] {
        let error = error_of(&lake, &with_engine(&command, &[]));
        assert!(error.contains(said), "{error}\n{}", spark_log(&lake));
        let now = stored(&topic).await;
        assert_eq!(now > left, leaks, "{said}: {left} files before, {now} behind it");
        left = now;
    }

    // A driver: before its commit, and between those of the two tables.
    for window in [WINDOWS[1], "silver:swapped"] {
        let killed = lake.command(&with_engine(&command, &[])).env("LAKESMITH_KILL_AT", window).output().expect("it starts");
        let told = String::from_utf8_lossy(&killed.stderr);
        assert_eq!(killed.status.signal(), Some(libc::SIGKILL), "{window}: {told}\n{}", spark_log(&lake));
        assert!(!lake.ok(&["verify"]).contains("DIFFERS"));
    }
    // Nothing is left for an engine to do.
    done(&lake, &with_engine("false {script}", &[]));
    let expected = assert_as_preset(&topic, &lake);
    assert_spark_agrees(&lake, &expected);
}

#[test]
fn what_no_engine_can_do_is_refused() {
    let lake = strict(&[]);
    for (arguments, said) in [
        (&["--engine", "trino"][..], "the embedded metastore serves this process alone"),
        (&["--engine", "trino", "--part-records", "5"], "--part-records is for Spark"),
        (&["--engine", "spark"], "the embedded metastore serves this process alone"),
        (&["--engine", "spark", "--set", "metastore.uris=thrift://m:9083"], "is on this machine alone"),
        (&["--engine", "spark", "--engine-command", "spark-sql -f"], "does not say where the script goes"),
        (&["--engine", "spark", "--part-records", "0"], "0 is not in 1.."),
        (&["--engine-command", "x {script}"], "--engine <ENGINE>"),
        (&["--engine", "spark", "--abandon"], "cannot be used with"),
        (&["--engine", "presto"], "possible values: spark, trino"),
    ] {
        let output = lake.output(&[&["reprocess"], arguments].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && error.contains(said), "{arguments:?}: {error}");
    }
    assert!(lake.ok(&["reprocess", "--abandon"]).contains("nothing to take back"));
    let workers = lake.output(&["reprocess-part", "nowhere.json"]);
    assert!(workers.status.success() && workers.stdout.is_empty(), "{}", String::from_utf8_lossy(&workers.stderr));
    assert!(count(&lake, "silver_amazon_sales") > 0);
}
