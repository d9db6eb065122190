//! `reprocess`: records that a stricter or other definition decided are decided anew; killed at each of its steps, the next one goes on.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use lakesmith::catalog::EMBEDDED_FILE;
use lakesmith::metastore::{DeleteData, Metastore, MetastoreSettings, embedded};

use super::Lake;
use super::embedded::assert_gold_totals;
use super::lake::{Servers, assert_records, expected};

/// Where it is killed, in an order in which each is passed.
pub const WINDOWS: [&str; 13] = [
    "change:metadata-written",
    "reprocess:noted",
    "silver:catch-up-files-written",
    "silver:catch-up-metadata-written",
    // Between the two tables in which the new rows are gathered.
    "silver:swapped",
    "reprocess:computed",
    "reprocess:silver-replaced",
    "reprocess:rejected-replaced",
    "gold:partition-written",
    "gold:switched",
    "gold:progress-written",
    "reprocess:gold-computed",
    "reprocess:cleared",
];

pub(super) const STRICT: &str = "sql = \"Quantity > 2\"";
pub(super) const PRESET: &str = "sql = \"Quantity > 0\"";

/// A lake with sales from a file of which a stricter rule than the preset's has rejected many; the pipeline file has the preset's.
pub(super) fn strict(settings: &[&str]) -> Lake {
    let file = ["source.kind=file", "source.file.path=sales.jsonl", "source.file.format=jsonl"];
    let lake = Lake::new(
        "datalake",
        &[&file[..], settings].concat().iter().map(|text| text.to_string()).collect::<Vec<_>>(),
        Servers::None,
    );
    lake.ok(&["generate", "--rows", "2000", "--format", "jsonl", "--bad-share", "0.02", "--output", "sales.jsonl"]);
    change(&lake, PRESET, STRICT);
    lake.ok(&["run", "--until-caught-up"]);
    change(&lake, STRICT, PRESET);
    lake
}

pub(super) fn change(lake: &Lake, old: &str, new: &str) {
    let file = lake.path("pipeline.toml");
    let text = fs::read_to_string(&file).expect("a pipeline file");
    assert!(text.contains(old), "{old}");
    fs::write(&file, text.replacen(old, new, 1)).expect("written");
}

pub(super) fn count(lake: &Lake, table: &str) -> i64 {
    lake.query(&format!("SELECT count(*) AS n FROM {}", lake.table(table)))[0]["n"].as_i64().expect("a number")
}

/// Everything is as the preset decides it, and nothing else is there.
fn assert_as_preset(lake: &Lake) {
    let expected = expected("--messages", &lake.path("sales.jsonl"));
    assert_records(lake, &expected);
    assert_gold_totals(lake, &expected);
    lake.verify();
    let tables = lake.ok(&["tables"]);
    assert!(!tables.contains("reprocessing"), "{tables}");
}

pub(super) fn error_of(lake: &Lake, arguments: &[&str]) -> String {
    let output = lake.output(arguments);
    assert!(!output.status.success(), "{arguments:?} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_reprocessing_that_is_killed_at_every_step_is_finished_by_the_next() {
    let lake = strict(&[]);
    let before = count(&lake, "silver_amazon_sales");
    for window in WINDOWS {
        let killed = lake.command(&["reprocess"]).env("LAKESMITH_KILL_AT", window).output().expect("it starts");
        let told = String::from_utf8_lossy(&killed.stderr);
        assert_eq!(killed.status.signal(), Some(libc::SIGKILL), "not killed at {window}:\n{told}");
        // Half of it done, the tables agree as far as they can, and who compares them knows how far that is.
        let report = lake.ok(&["verify"]);
        let is_noted = window != "change:metadata-written";
        assert_eq!(report.contains("2,000 offsets are being decided anew"), is_noted, "{report}");
        assert!(!report.contains("DIFFERS"), "{report}");
        let rows = count(&lake, "silver_amazon_sales");
        let is_replaced = WINDOWS.iter().position(|known| *known == window) >= Some(6);
        assert_eq!(rows > before, is_replaced, "{rows} rows at {window}");
    }
    let told = lake.ok(&["reprocess"]);
    assert!(told.contains("silver_amazon_sales: was replaced before"), "{told}");
    assert_as_preset(&lake);
    // The pipeline goes on from there.
    let more = fs::read(lake.path("sales.jsonl")).expect("sales").repeat(2);
    fs::write(lake.path("sales.jsonl"), more).expect("written");
    lake.ok(&["run", "--until-caught-up"]);
    assert_as_preset(&lake);
}

#[test]
fn what_was_rejected_is_taken_and_the_rest_stays() {
    let lake = strict(&[]);
    let rejected = count(&lake, "silver_amazon_sales_rejected");
    let files = |lake: &Lake| lake.query("SELECT file_path FROM datalake.\"silver_amazon_sales$files\" ORDER BY 1");
    let before = files(&lake);
    let told = lake.ok(&["reprocess", "--rejected"]);
    assert!(told.contains("rows in place of 0\n") && told.contains(&format!("rows in place of {rejected}")), "{told}");
    assert_as_preset(&lake);
    // No file of silver was touched.
    let after = files(&lake);
    assert!(after.len() > before.len() && before.iter().all(|file| after.contains(file)));
    // Once more there is nothing to gain.
    let left = count(&lake, "silver_amazon_sales_rejected");
    let told = lake.ok(&["reprocess", "--rejected"]);
    assert!(told.contains("sales: 0 rows in place of 0") && told.contains(&format!("{left} rows in place of {left}")), "{told}");
    assert_as_preset(&lake);
}

#[test]
fn a_range_is_decided_anew_and_the_rest_stays() {
    let lake = strict(&[]);
    let rejected = |lake: &Lake, from: i64, to: i64| {
        let sql = format!(
            "SELECT count(*) AS n FROM {} WHERE \"offset\" >= {from} AND \"offset\" < {to}",
            lake.table("silver_amazon_sales_rejected")
        );
        lake.query(&sql)[0]["n"].as_i64().expect("a number")
    };
    let (inside, outside) = (rejected(&lake, 500, 700), rejected(&lake, 0, 500) + rejected(&lake, 700, 2_000));
    let told = lake.ok(&["reprocess", "--offsets", "0:500..700"]);
    assert!(told.contains("decided anew: 0:[500,700)") && told.contains("with other rows written anew"), "{told}");
    lake.verify();
    assert!(rejected(&lake, 500, 700) < inside);
    assert_eq!(rejected(&lake, 0, 500) + rejected(&lake, 700, 2_000), outside);
    // Rejected by a stricter rule again: rows leave silver, and gold.
    change(&lake, PRESET, "sql = \"Quantity > 3\"");
    lake.ok(&["reprocess", "--offsets", "0:..600"]);
    lake.verify();
    let least =
        lake.query(&format!("SELECT min(\"Quantity\") AS q FROM {} WHERE \"offset\" < 600", lake.table("silver_amazon_sales")));
    assert_eq!(least[0]["q"].as_i64(), Some(4));
    change(&lake, "sql = \"Quantity > 3\"", PRESET);
    lake.ok(&["reprocess"]);
    assert_as_preset(&lake);
}

/// From the first record to the last whose time lies in the selection, in each topic partition.
#[test]
fn a_time_is_decided_anew() {
    let settings = ["source.kind=generator", "source.generator.rows=3000", "source.generator.partitions=2"];
    let lake = Lake::new("datalake", &settings.map(str::to_owned), Servers::None);
    lake.ok(&["run", "--until-caught-up"]);
    let span = lake
        .query(&format!("SELECT min(\"timestamp\") AS a, max(\"timestamp\") AS b FROM {}", lake.table("bronze_amazon_sales")));
    let at = |name: &str| {
        chrono::NaiveDateTime::parse_from_str(span[0][name].as_str().expect("a time"), "%Y-%m-%dT%H:%M:%S%.f").expect("a time")
    };
    let middle = at("a") + (at("b") - at("a")) / 2;
    change(&lake, PRESET, STRICT);
    lake.ok(&["reprocess", "--since", &middle.to_string()]);
    lake.verify();
    let least = |condition: &str| {
        let sql = format!(
            "SELECT min(\"Quantity\") AS q FROM {} WHERE kafka_timestamp {condition} TIMESTAMP '{middle}'",
            lake.table("silver_amazon_sales")
        );
        lake.query(&sql)[0]["q"].as_i64()
    };
    assert_eq!((least("<"), least(">=")), (Some(1), Some(3)));
}

#[test]
fn new_tables_are_made_beside_those_that_are() {
    for settings in [&[][..], &["bronze.format=hive", "silver.format=hive"]] {
        let lake = strict(settings);
        let before = count(&lake, "silver_amazon_sales");
        let killed = lake
            .command(&["reprocess", "--into", "_new"])
            .env("LAKESMITH_KILL_AT", "silver:swapped")
            .output()
            .expect("it starts");
        assert_eq!(killed.status.signal(), Some(libc::SIGKILL), "{}", String::from_utf8_lossy(&killed.stderr));
        let told = lake.ok(&["reprocess", "--into", "_new"]);
        assert!(told.contains("datalake.gold_amazon_sales_aggregated_new"), "{told}");
        // What there was is as it was.
        assert_eq!(count(&lake, "silver_amazon_sales"), before);
        lake.verify();
        let expected = expected("--messages", &lake.path("sales.jsonl"));
        assert_eq!(count(&lake, "silver_amazon_sales_new"), expected["silver"]["rows"].as_i64().expect("a number"));
        assert_eq!(count(&lake, "silver_amazon_sales_rejected_new"), expected["rejected"]["rows"].as_i64().expect("a number"));
        let orders = lake.query("SELECT sum(totalorders) AS n FROM datalake.gold_amazon_sales_aggregated_new");
        assert_eq!(orders[0]["n"], expected["silver"]["rows"]);
        // Again: nothing is left to do. Another definition does not go into the same tables, nor other offsets.
        lake.ok(&["reprocess", "--into", "_new"]);
        let error = error_of(&lake, &["reprocess", "--into", "_new", "--offsets", "0:5..9"]);
        assert!(error.contains("holds offsets that are not selected") && error.contains("another suffix"), "{error}");
        change(&lake, PRESET, STRICT);
        let error = error_of(&lake, &["reprocess", "--into", "_new"]);
        assert!(error.contains("was computed by another definition"), "{error}");
    }
}

#[test]
fn what_cannot_be_reprocessed_is_refused_and_what_was_begun_is_taken_back() {
    let lake = strict(&["silver.format=hive"]);
    let error = error_of(&lake, &["reprocess"]);
    assert!(error.contains("is a plain Hive table") && error.contains("--into"), "{error}");

    let lake = strict(&[]);
    for (arguments, said) in [
        (&["--offsets", "3:0..5"][..], "silver has no offsets 0..5 of partition 3"),
        (&["--offsets", "0:2000.."], "it has 0:0..2000"),
        (&["--offsets", "0:5..2"], "no range of offsets"),
        (&["--since", "soon"], "this is no time"),
        (&["--since", "now"], "no record is selected"),
        (&["--into", "new tables"], "letters, digits and underscores"),
    ] {
        let error = error_of(&lake, &[&["reprocess"], arguments].concat());
        assert!(error.contains(said), "{error}");
    }
    assert!(lake.ok(&["reprocess", "--abandon"]).contains("nothing to take back"));

    let kill_at = |window: &str, arguments: &[&str]| {
        let killed =
            lake.command(&[&["reprocess"], arguments].concat()).env("LAKESMITH_KILL_AT", window).output().expect("it starts");
        assert_eq!(killed.status.signal(), Some(libc::SIGKILL), "{}", String::from_utf8_lossy(&killed.stderr));
    };
    let before = count(&lake, "silver_amazon_sales");
    kill_at("reprocess:computed", &["--offsets", "0:100..900"]);
    // Another one has to wait; so has another definition.
    let error = error_of(&lake, &["reprocess", "--rejected"]);
    assert!(error.contains("a reprocessing of 0:[100,900) was begun and not finished") && error.contains("--abandon"), "{error}");
    change(&lake, PRESET, STRICT);
    let error = error_of(&lake, &["reprocess"]);
    assert!(error.contains("by another definition than the pipeline file's"), "{error}");
    let told = lake.ok(&["reprocess", "--abandon"]);
    assert!(told.contains("0:[100,900) is taken back"), "{told}");
    assert_eq!(count(&lake, "silver_amazon_sales"), before);
    lake.verify();
    // Its files are gone too: what is there is what the table has.
    let data = lake.path("lakehouse/datalake/silver/amazon_sales/data");
    let listed = std::process::Command::new("find").arg(&data).args(["-name", "*.parquet"]).output().expect("find starts");
    let known = lake.query("SELECT file_path FROM datalake.\"silver_amazon_sales$files\"").len();
    assert_eq!(String::from_utf8_lossy(&listed.stdout).lines().count(), known, "in {}", data.display());

    // Once silver has the new rows there is only one way.
    change(&lake, STRICT, PRESET);
    kill_at("reprocess:silver-replaced", &[]);
    let error = error_of(&lake, &["reprocess", "--abandon"]);
    assert!(error.contains("silver has its new rows already"), "{error}");
    lake.ok(&["reprocess"]);
    assert_as_preset(&lake);
}

/// Somebody drops the table in which rejected's new rows were gathered, when silver has its own already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_finished_is_given_up_and_done_again() {
    let lake = strict(&[]);
    let killed = lake.command(&["reprocess"]).env("LAKESMITH_KILL_AT", "reprocess:silver-replaced").output().expect("it starts");
    assert_eq!(killed.status.signal(), Some(libc::SIGKILL), "{}", String::from_utf8_lossy(&killed.stderr));
    let file = lake.path("lakehouse").join(EMBEDDED_FILE);
    let server = embedded::serve(&file, ([127, 0, 0, 1], 0).into()).await.expect("a metastore");
    let settings = MetastoreSettings { uris: vec![server.uri()], ..MetastoreSettings::default() };
    let metastore = Metastore::connect(&settings).await.expect("a connection");
    metastore.drop_table("datalake", "silver_amazon_sales_rejected_reprocessing", DeleteData::No).await.expect("dropped");
    drop(metastore);
    server.shutdown().await;

    let error = error_of(&lake, &["reprocess"]);
    assert!(error.contains("--abandon"), "{error}");
    let told = lake.ok(&["reprocess", "--abandon"]);
    assert!(told.contains("0:[0,2000) is given up") && told.contains("reprocess these offsets again"), "{told}");
    let report = lake.output(&["verify"]);
    assert_eq!(report.status.code(), Some(1), "records are in both tables");
    assert!(lake.ok(&["reprocess", "--abandon"]).contains("nothing to take back"));
    lake.ok(&["reprocess"]);
    assert_as_preset(&lake);
}
