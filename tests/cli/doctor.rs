//! `lakesmith doctor`: what would stop a run, before it is started.

use serde_json::Value;

use super::run::{Ended, Lakesmith};
use crate::servers::{metastore_uri, variable};

fn checks(ended: &Ended) -> Vec<Value> {
    ended.output.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))).collect()
}

fn find<'a>(checks: &'a [Value], what: &str) -> &'a Value {
    let found = checks.iter().find(|check| check["what"].as_str().is_some_and(|text| text.contains(what)));
    found.unwrap_or_else(|| panic!("no {what} in {checks:#?}"))
}

/// A pipeline over a file of sales.
fn embedded() -> Lakesmith {
    let here = Lakesmith::new();
    here.run(&["init"]).done();
    let text = here.read("pipeline.toml").replace("kind = \"kafka\"", "kind = \"file\"");
    let text = text.replace("[source.kafka]", "[source.file]\npath = \"sales.jsonl\"\n\n[source.kafka]");
    here.write("pipeline.toml", &text);
    here.run(&["generate", "--rows", "50", "--format", "jsonl", "-o", "sales.jsonl"]).done();
    here
}

#[test]
fn a_pipeline_that_is_well_is_ticked_off_before_and_after_its_first_run() {
    let here = embedded();
    let before = here.run(&["doctor"]).done();
    assert!(before.lines().all(|line| line.starts_with('✓')), "{before}");
    assert!(before.contains("the first run makes it") && before.contains("1 partition with 50 offsets"), "{before}");
    // Nothing was made by looking.
    let left: Vec<_> = std::fs::read_dir(here.path(".")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");

    here.run(&["run", "--until-caught-up"]).done();
    let ended = here.run(&["doctor", "--output", "json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let checks = checks(&ended);
    assert!(checks.iter().all(|check| check["finding"] == "ok" && check["hint"].is_null()), "{checks:#?}");
    let bronze = find(&checks, ".bronze_amazon_sales")["found"].as_str().unwrap();
    assert!(bronze.starts_with("50 records") && bronze.contains("the expected value"), "{bronze}");
    assert!(find(&checks, "compare-and-swap")["found"].as_str().unwrap().starts_with("honoured"));
    assert_eq!(here.run(&["locks"]).done(), "no locks on the pipeline's tables in datalake\n");
}

#[test]
fn what_would_stop_a_run_is_crossed_with_the_way_out() {
    let here = embedded();
    here.run(&["run", "--until-caught-up"]).done();
    // Another file under the same name: another topic.
    std::fs::write(here.path("sales.jsonl"), "{\"OrderID\": \"other\"}\n".repeat(60)).unwrap();
    let ended = here.run(&["doctor"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    let crossed: Vec<_> = ended.output.lines().filter(|line| line.starts_with('✗')).collect();
    assert!(crossed.iter().any(|line| line.contains("datalake.bronze_amazon_sales")), "{}", ended.output);
    assert!(ended.output.contains("\n  hint: "), "{}", ended.output);
    let run = here.run(&["run", "--until-caught-up"]);
    assert_eq!(run.code, 1, "what is crossed does stop a run: {run:?}");

    let ended = here.run(&["doctor", "--set", "metastore.uris=thrift://127.0.0.1:1", "--set", "metastore.connect_timeout=1s"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.output.contains("✗ metastore thrift://127.0.0.1:1: no metastore answers"), "{}", ended.output);
    assert_eq!(here.run(&["doctor", "--set", "pipeline.name="]).code, 2);
}

/// The words by which each server's abilities are known, and its verdict.
fn on_a_real_server(version: &str, says: &str, swap: &str) {
    let here = embedded();
    let database = format!("doctor_{}", uuid::Uuid::new_v4().simple());
    let uris = format!("metastore.uris=[\"{}\", \"thrift://127.0.0.1:1\"]", metastore_uri(version));
    let warehouse = format!("storage.warehouse={}/lakesmith-test/{database}", variable("HDFS_URL"));
    let database = format!("tables.database={database}");
    let settings = ["--set", &uris, "--set", &warehouse, "--set", &database];
    // Where nothing is optimized, futures on HDFS are too large for a thread's usual stack.
    let run = |arguments: &[&str]| here.run_with(&[arguments, &settings[..]].concat(), &[("RUST_MIN_STACK", "16777216")]);
    let look = || {
        let ended = run(&["doctor", "--output", "json"]);
        assert_eq!(ended.code, 0, "{ended:?}");
        let checks = checks(&ended);
        assert_eq!(find(&checks, "thrift://127.0.0.1:1")["finding"], "warning", "one of two servers is down");
        let server = find(&checks, &metastore_uri(version))["found"].as_str().unwrap().to_owned();
        assert!(server.starts_with(says), "{server}");
        let verdict = find(&checks, "compare-and-swap");
        assert!(verdict["found"].as_str().unwrap().starts_with(swap), "{verdict}");
        let locks = find(&checks, &format!("{} locks", metastore_uri(version)));
        assert!(locks["finding"] == "ok" && locks["found"].as_str().unwrap().contains("5m after the last"), "{locks}");
        checks
    };
    assert!(find(&look(), "hdfs://")["found"].as_str().unwrap().contains("still to be made"));
    let ended = run(&["run", "--until-caught-up"]);
    assert_eq!(ended.code, 0, "{}", ended.errors);
    // The log of a run says it too, in one line for each server that was there.
    let said = ended.errors.lines().filter(|line| line.contains(says) && line.contains(&format!("expected values are {swap}")));
    assert_eq!(said.count(), 1, "{}", ended.errors);
    let checks = look();
    assert_eq!(find(&checks, "hdfs://")["found"], "readable and writable");
    assert!(find(&checks, ".silver_amazon_sales")["finding"] == "ok", "{checks:#?}");
}

mod hms_4_0_1 {
    #[test]
    fn its_abilities_are_said() {
        super::on_a_real_server("4.0.1", "Hive Metastore 4.0.1", "honoured");
    }
}

mod hms_3_1_3 {
    #[test]
    fn its_abilities_are_said() {
        super::on_a_real_server("3.1.3", "Hive Metastore 3.x (says 3.0)", "ignored");
    }
}

mod hms_2_3_10 {
    #[test]
    fn its_abilities_are_said() {
        super::on_a_real_server("2.3.10", "Hive Metastore 2.x (says 3.0)", "honoured");
    }
}
