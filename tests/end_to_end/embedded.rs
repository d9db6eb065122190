//! The embedded form: a file as source, a local directory, the embedded metastore; no JVM.

use super::lake::{SMALL_COMMITS, Servers, assert_records, expected, number};
use super::{Lake, WINDOWS};

fn lake() -> Lake {
    let settings = ["source.kind=file", "source.file.path=sales.jsonl", "source.file.format=jsonl"];
    Lake::new("datalake", &settings.map(str::to_owned), Servers::None)
}

#[test]
fn twenty_thousand_sales_arrive_once_in_every_layer() {
    let lake = lake();
    lake.ok(&["generate", "--rows", "20000", "--format", "jsonl", "--bad-share", "0.002", "--output", "sales.jsonl"]);
    let expected = expected("--messages", &lake.path("sales.jsonl"));
    assert!(expected["rejected"]["rows"].as_u64() > Some(10), "the generator made nothing bad");

    lake.ok(&["run", "--until-caught-up"]);
    assert_records(&lake, &expected);
    assert_gold_totals(&lake, &expected);
    lake.verify();

    let before = lake.query(&format!("SELECT count(*) AS n, max(\"offset\") AS o FROM {}", lake.table("bronze_amazon_sales")));
    lake.ok(&["run", "--until-caught-up"]);
    assert_eq!(
        before,
        lake.query(&format!("SELECT count(*) AS n, max(\"offset\") AS o FROM {}", lake.table("bronze_amazon_sales")))
    );
    assert_records(&lake, &expected);
    lake.verify();
}

/// Codecs and encodings of the oldest engine named, whichever it is: what is written is read and compared all the same.
#[test]
fn files_for_old_engines_and_for_new_ones_hold_the_same() {
    for (engines, gold_file) in
        [(r#"["hive-3.1", "iceberg-1.9"]"#, ".snappy.parquet"), (r#"["trino", "spark"]"#, ".zstd.parquet")]
    {
        let settings = ["source.kind=file", "source.file.path=sales.jsonl", "source.file.format=jsonl"].map(str::to_owned);
        let compatibility = format!("tables.compatibility={engines}");
        let lake = Lake::new("datalake", &[&settings[..], &[compatibility]].concat(), Servers::None);
        lake.ok(&["generate", "--rows", "3000", "--format", "jsonl", "--bad-share", "0.01", "--output", "sales.jsonl"]);
        lake.ok(&["run", "--until-caught-up"]);
        let expected = expected("--messages", &lake.path("sales.jsonl"));
        assert_records(&lake, &expected);
        assert_gold_totals(&lake, &expected);
        lake.verify();
        let gold = lake.query("SELECT location FROM datalake.\"gold_amazon_sales_aggregated$partitions\"");
        let location = gold[0]["location"].as_str().expect("a location").trim_start_matches("file:").to_owned();
        let names: Vec<_> =
            std::fs::read_dir(location).expect("a partition").map(|file| file.expect("a file").file_name()).collect();
        assert!(names.iter().any(|name| name.to_string_lossy().ends_with(gold_file)), "{names:?}");
        let windows = "SELECT count(*) AS n FROM datalake.gold_amazon_sales_aggregated WHERE window_end - window_start = INTERVAL '1 minute'";
        let all = "SELECT count(*) AS n FROM datalake.gold_amazon_sales_aggregated";
        assert_eq!(lake.query(windows), lake.query(all));
    }
}

/// Sales with more fields than silver has columns, in a table from before them.
#[test]
fn fields_that_no_column_reads_are_kept_and_found_by_sql() {
    let lake = lake();
    lake.ok(&["generate", "--rows", "500", "--format", "jsonl", "--bad-share", "0.01", "--output", "sales.jsonl"]);
    lake.ok(&["run", "--until-caught-up"]);
    let sales = std::fs::read(lake.path("sales.jsonl")).expect("sales");
    let more = String::from_utf8_lossy(&sales).lines().fold(String::new(), |more, line| match line.strip_prefix('{') {
        Some(rest) if rest.starts_with('"') => more + "{\"Coupon\":\"C7\",\"Stars\":[5, 4]," + rest + "\n",
        _ => more + line + "\n",
    });
    std::fs::write(lake.path("sales.jsonl"), [&sales[..], more.as_bytes()].concat()).expect("written");
    let keep = ["--set", "silver.unknown_fields=keep"];
    // The run says what the table lacks, and the plan adds it.
    let run = lake.output(&[&["run", "--until-caught-up"], &keep[..]].concat());
    let told = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success() && told.contains("add unknown_fields map<string, string>"), "{told}");
    lake.ok(&[&["schema", "plan", "--output", "plan.json"], &keep[..]].concat());
    lake.ok(&["schema", "apply", "plan.json"]);
    lake.ok(&[&["run", "--until-caught-up"], &keep[..]].concat());
    assert_records(&lake, &expected("--messages", &lake.path("sales.jsonl")));
    lake.verify();
    let silver = lake.table("silver_amazon_sales");
    let found = lake.query(&format!(
        "SELECT unknown_fields['Coupon'] AS coupon, unknown_fields['Stars'] AS stars, count(*) AS n FROM {silver} GROUP BY 1, 2 ORDER BY 1"
    ));
    assert_eq!((&found[0]["coupon"], &found[0]["stars"]), (&"C7".into(), &"[5, 4]".into()), "{found:?}");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|group| group["n"].as_i64() > Some(450)), "{found:?}");
}

#[test]
fn a_run_that_was_killed_again_and_again_loses_nothing_and_repeats_nothing() {
    let lake = lake();
    lake.ok(&["generate", "--rows", "20000", "--format", "jsonl", "--bad-share", "0.002", "--output", "sales.jsonl"]);
    for kill in 0..4 {
        let log = format!("killed-{kill}.log");
        let mut child = lake.spawn(&SMALL_COMMITS, &log);
        let commits = |lake: &Lake| std::fs::read_to_string(lake.path(&log)).unwrap_or_default().matches("committed").count();
        // Another commit more each time, so that the kill meets another place in the cycle.
        for _ in 0..3_000 {
            if commits(&lake) > kill * 2 || child.try_wait().expect("a child").is_some() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        child.kill().expect("SIGKILL");
        child.wait().expect("an exit");
    }
    let output = lake.output(&["run", "--until-caught-up"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = expected("--messages", &lake.path("sales.jsonl"));
    assert_records(&lake, &expected);
    assert_gold_totals(&lake, &expected);
    lake.verify();
}

#[test]
fn a_kill_at_any_window_loses_nothing_and_repeats_nothing() {
    let lake = lake();
    lake.ok(&["generate", "--rows", "6000", "--format", "jsonl", "--bad-share", "0.02", "--output", "sales.jsonl"]);
    WINDOWS.iter().for_each(|window| lake.kill_at(window));
    let output = lake.output(&["run", "--until-caught-up"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = expected("--messages", &lake.path("sales.jsonl"));
    assert_records(&lake, &expected);
    assert_gold_totals(&lake, &expected);
    lake.verify();
}

/// A file's records have no time of their own, so gold's windows depend on when the test ran; its totals don't.
pub(super) fn assert_gold_totals(lake: &Lake, expected: &serde_json::Value) {
    let sql = format!(
        "SELECT sum(TotalOrders) AS orders, sum(TotalQuantity) AS quantity, sum(TotalRevenue) AS revenue FROM {}",
        lake.table("gold_amazon_sales_aggregated")
    );
    let found = &lake.query(&sql)[0];
    assert_eq!(found["orders"], expected["silver"]["rows"]);
    assert_eq!(number(&found["quantity"]), number(&expected["silver"]["sums"]["Quantity"]));
    assert_eq!(number(&found["revenue"]), number(&expected["silver"]["sums"]["TotalAmount"]));
}
