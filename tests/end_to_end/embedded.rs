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
fn assert_gold_totals(lake: &Lake, expected: &serde_json::Value) {
    let sql = format!(
        "SELECT sum(TotalOrders) AS orders, sum(TotalQuantity) AS quantity, sum(TotalRevenue) AS revenue FROM {}",
        lake.table("gold_amazon_sales_aggregated")
    );
    let found = &lake.query(&sql)[0];
    assert_eq!(found["orders"], expected["silver"]["rows"]);
    assert_eq!(number(&found["quantity"]), number(&expected["silver"]["sums"]["Quantity"]));
    assert_eq!(number(&found["revenue"]), number(&expected["silver"]["sums"]["TotalAmount"]));
}
