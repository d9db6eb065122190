//! The demo, and the commands that one tries after it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::run::Lakesmith;

/// The number in a column of the summary's row for a layer.
fn cell(page: &str, layer: &str, column: usize) -> u64 {
    let row =
        page.lines().find(|line| line.starts_with(&format!("│ {layer} "))).unwrap_or_else(|| panic!("no {layer} in\n{page}"));
    row.trim_matches('│').split('┆').nth(column).expect("a column").trim().replace(',', "").parse().expect("a number")
}

fn count(here: &Lakesmith, table: &str) -> u64 {
    let answer = here.run(&["query", "-o", "csv", &format!("select count(*) as n from datalake.{table}")]).done();
    answer.lines().nth(1).expect("a row").parse().expect("a number")
}

#[test]
fn a_demo_can_be_looked_at_and_is_never_doubled() {
    let here = Lakesmith::new();
    let ended = here.run(&["demo", "--rows", "3000", "--seed", "5"]).done();
    let (bronze, silver, rejected) = (cell(&ended, "bronze", 2), cell(&ended, "silver", 2), cell(&ended, "rejected", 2));
    assert_eq!((bronze, silver + rejected), (3000, 3000), "{ended}");
    assert!(ended.contains("try next:"), "{ended}");
    assert_eq!(count(&here, "bronze_amazon_sales"), 3000);
    assert_eq!(count(&here, "silver_amazon_sales"), silver);
    assert_eq!(count(&here, "silver_amazon_sales_rejected"), rejected);

    let orders = here.run(&["query", "-o", "csv", "select sum(total_orders) as n from gold_amazon_sales_aggregated_view"]).done();
    assert_eq!(orders, format!("n\n{silver}\n"));
    let tables = here.run(&["tables"]).done();
    for table in
        ["bronze_amazon_sales", "silver_amazon_sales", "gold_amazon_sales_aggregated", "gold_amazon_sales_aggregated_view"]
    {
        assert!(tables.contains(table), "{tables}");
    }
    let shown = here.run(&["tables", "show", "datalake.silver_amazon_sales"]).done();
    assert!(shown.contains("partitioned   by Year, Month") && shown.contains("supermarket-sales"), "{shown}");
    assert!(here.run(&["verify"]).done().lines().all(|line| line.starts_with("ok ")));
    let report: serde_json::Value = serde_json::from_str(&here.run(&["verify", "--output", "json"]).done()).expect("JSON");
    assert_eq!(report["records"]["bronze_rows"], 3000);
    let offsets = here.run(&["offsets", "show", "bronze"]).done();
    assert!(offsets.starts_with("datalake.bronze_amazon_sales: topic supermarket-sales, goes on at"), "{offsets}");

    let again = here.run(&["demo", "--rows", "3000", "--seed", "5"]).done();
    assert!(
        again.starts_with("./lakehouse holds a finished demo; nothing was changed") && again.contains("begin anew"),
        "{again}"
    );
    assert_eq!(count(&here, "bronze_amazon_sales"), 3000);
    let resumed = here.run(&["run", "--until-caught-up"]).done();
    assert_eq!(cell(&resumed, "bronze", 2), 0, "{resumed}");
}

#[test]
fn a_killed_demo_goes_on_where_it_was() {
    let here = Lakesmith::new();
    let arguments = ["demo", "--rows", "6000", "--rate", "2000"];
    let mut child = here.command(&arguments, &[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the demo starts");
    // Killed in the middle: something is committed, and not everything.
    let committed =
        |line: &str| line.split(", ").nth(1).is_some_and(|part| part.ends_with("committed") && !part.starts_with("0 "));
    let errors = BufReader::new(child.stderr.take().expect("its errors"));
    let line = errors.lines().map_while(Result::ok).find(|line| committed(line)).expect("a commit is told");
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    assert!(!line.starts_with("6,000 of"), "{line}");

    let other = here.run(&["demo", "--rows", "7000"]);
    assert_eq!(other.code, 2);
    assert!(other.errors.contains("the demo in ./lakehouse has 6,000 rows of seed 42"), "{}", other.errors);
    let ended = here.run(&arguments);
    assert!(ended.errors.contains("going on with the demo in ./lakehouse"), "{}", ended.errors);
    assert!(cell(&ended.done(), "bronze", 2) < 6000);
    assert_eq!(count(&here, "bronze_amazon_sales"), 6000);
    here.run(&["verify"]).done();
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let here = Lakesmith::new();
    std::fs::create_dir(here.path("mine")).expect("a directory");
    here.write("mine/file.txt", "mine");
    let ended = here.run(&["demo", "--dir", "mine"]);
    assert_eq!(
        (ended.code, ended.errors.as_str()),
        (2, "error: mine is not empty and holds no demo\n hint: name another directory with --dir\n")
    );
    assert_eq!(here.read("mine/file.txt"), "mine");
}

#[test]
fn questions_that_cannot_be_answered_are_errors_with_a_hint() {
    let here = Lakesmith::new();
    here.run(&["demo", "--rows", "100"]).done();
    for (sql, error, hint) in [
        ("selec 1", "the SQL text cannot be read: ", ""),
        ("drop table silver_amazon_sales", "`DROP TABLE` is refused: a query only reads", "SELECT, WITH"),
        ("select OrderIDD from silver_amazon_sales", "column orderidd does not exist", "did you mean OrderID?"),
        ("select * from silver", "table datalake.silver does not exist", "tables of datalake: "),
    ] {
        let ended = here.run(&["query", sql]);
        assert_eq!((ended.code, ended.output.as_str()), (2, ""), "{sql}");
        assert!(ended.errors.starts_with(&format!("error: {error}")) && ended.errors.contains(hint), "{sql}: {}", ended.errors);
    }
    here.write("report.sql", "SELECT topic, partition, offset FROM bronze_amazon_sales ORDER BY partition, offset LIMIT 1");
    let answer = here.run(&["query", "--file", "report.sql", "--output", "json"]).done();
    assert_eq!(answer, "{\"topic\":\"supermarket-sales\",\"partition\":0,\"offset\":0}\n");
    let few = here.run(&["query", "--max-rows", "2", "select 1 union all select 2 union all select 3"]);
    assert!(few.errors.contains("the first 2 rows; there are more"), "{}", few.errors);
    let first = here.run_cut_short(&["query", "-o", "csv", "select value from generate_series(1, 3000000)"], 1);
    assert_eq!((first.code, first.errors.as_str()), (0, ""));
}

#[test]
fn a_hadoop_on_the_machine_is_not_touched_by_a_demo() {
    let here = Lakesmith::new();
    let site = |key: &str, value: &str| {
        format!("<configuration><property><name>{key}</name><value>{value}</value></property></configuration>")
    };
    std::fs::create_dir(here.path("conf")).expect("a directory");
    // Nobody listens there: whoever tries fails.
    here.write("conf/hive-site.xml", &site("hive.metastore.uris", "thrift://127.0.0.1:1"));
    here.write("conf/core-site.xml", &site("fs.defaultFS", "hdfs://127.0.0.1:1"));
    let environment = [("HADOOP_CONF_DIR", "conf"), ("KAFKA_TOPIC", "elsewhere")];
    assert!(here.run_with(&["demo", "--rows", "100"], &environment).done().contains("try next:"));
    assert!(here.run_with(&["tables"], &environment).done().contains("silver_amazon_sales"));
}
