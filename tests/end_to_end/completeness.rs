//! Up to which time tables say that they are complete, and `lakesmith wait`, which waits for it.

use std::time::{Duration, Instant};

use rdkafka::producer::Producer;

use super::Lake;
use super::data_loss::{TopicLake, signal};
use super::lake::Servers;
use crate::source::broker::{delete_topic, producer, send};

const TABLES: [&str; 3] = ["bronze_amazon_sales", "silver_amazon_sales", "gold_amazon_sales_aggregated"];

/// The time that a table states, as `wait` prints it; none if it states none.
fn stated(lake: &Lake, table: &str) -> Option<String> {
    let output = lake.output(&["wait", table, "--until", "1970-01-01", "--timeout", "0s"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then(|| text.trim().rsplit(' ').next().expect("a time").to_owned())
}

fn snapshots(lake: &Lake, table: &str) -> usize {
    let page = lake.ok(&["tables", "show", table, "--snapshots", "0"]);
    page.lines().skip_while(|line| !line.starts_with("snapshots")).filter(|line| line.contains(" append ")).count()
}

#[test]
fn a_bounded_source_at_its_end_is_complete_up_to_then_and_time_goes_on_without_snapshots() {
    let settings =
        ["source.kind=file", "source.file.path=sales.jsonl", "source.file.format=jsonl", "pipeline.allowed_disorder=0s"];
    let lake = Lake::new("datalake", &settings.map(str::to_owned), Servers::None);
    lake.ok(&["generate", "--rows", "2000", "--format", "jsonl", "--bad-share", "0.01", "--output", "sales.jsonl"]);
    let early = lake.output(&["wait", "silver", "--until", "now", "--timeout", "0s"]);
    assert_eq!(early.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&early.stderr).contains("does not state yet"), "{early:?}");

    let before = chrono::Utc::now().to_rfc3339();
    lake.ok(&["run", "--until-caught-up"]);
    let after = chrono::Utc::now().to_rfc3339();
    for table in TABLES {
        lake.ok(&["wait", table, "--until", &before, "--timeout", "0s"]);
        let late = lake.output(&["wait", table, "--until", &after, "--timeout", "0s"]);
        let error = String::from_utf8_lossy(&late.stderr);
        assert_eq!(late.status.code(), Some(1), "{error}");
        assert!(
            error.contains("is complete up to") && error.contains("partition 0 was read up to") && error.contains("hint:"),
            "{error}"
        );
        assert!(lake.ok(&["tables", "show", table]).contains("complete      up to 20"), "{table}");
    }
    let [bronze, silver, gold] = TABLES.map(|table| stated(&lake, table).expect("a time"));
    assert!(gold <= silver && silver <= bronze, "{gold} {silver} {bronze}");

    // Nothing new: a run states its own time only where that gains enough, and by a change of metadata alone.
    let counts = TABLES.map(|table| snapshots(&lake, table));
    assert_eq!(counts[..2], [1, 1]);
    for interval in ["1h", "0s"] {
        lake.ok(&["run", "--until-caught-up", "--set", &format!("pipeline.completeness_interval={interval}")]);
        let still = TABLES.map(|table| stated(&lake, table).expect("a time"));
        assert_eq!(still, [bronze.clone(), silver.clone(), gold.clone()], "{interval}");
    }
    lake.ok(&["run", "--until-caught-up", "--set", "pipeline.completeness_interval=1ms"]);
    for table in TABLES {
        lake.ok(&["wait", table, "--until", &after, "--timeout", "0s"]);
    }
    assert_eq!(TABLES.map(|table| snapshots(&lake, table)), counts);
    lake.verify();

    let unknown = lake.output(&["wait", "rejected", "--until", "now"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert_eq!(lake.output(&["wait", "bronze", "--until", "soon"]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_states_its_time_while_records_come_and_while_none_come() {
    let settings = [
        "pipeline.commit_interval=200ms",
        "pipeline.allowed_disorder=0s",
        "pipeline.completeness_interval=200ms",
        "source.kafka.partition_check_interval=1s",
    ];
    let here = TopicLake::with_configs(&settings, &[("message.timestamp.type", "LogAppendTime")]).await;
    let lake = &here.lake;
    // No daemon: not reached, however long ago it was sent.
    here.produce(200, 1);
    assert_eq!(lake.output(&["wait", "bronze", "--until", "now", "--timeout", "1s"]).status.code(), Some(1));
    let mut daemon = lake.spawn(&["run", "--set", "gold.0.refresh_interval=500ms"], "running.log");
    for seed in 2..5 {
        here.produce(200, seed);
        // All that was sent before this moment is in the table when it says so.
        let sent = chrono::Utc::now().to_rfc3339();
        for table in TABLES {
            lake.ok(&["wait", table, "--until", &sent, "--timeout", "60s"]);
        }
        assert_eq!(here.count("bronze_amazon_sales"), i64::from(seed) * 200);
        let both = here.count("silver_amazon_sales") + here.count("silver_amazon_sales_rejected");
        assert_eq!(both, i64::from(seed) * 200);
        let orders = lake.query(&format!("SELECT sum(TotalOrders) AS n FROM {}", lake.table(TABLES[2])));
        assert_eq!(orders[0]["n"].as_i64(), Some(here.count("silver_amazon_sales")));
    }
    // Nothing comes; time goes on.
    let counts = TABLES.map(|table| snapshots(lake, table));
    for table in TABLES {
        lake.ok(&["wait", table, "--until", "now", "--timeout", "60s"]);
    }
    assert_eq!(TABLES.map(|table| snapshots(lake, table)), counts);

    // An open transaction holds it: its records are older than what will be seen after it.
    let transaction = producer(Some(&here.topic));
    transaction.begin_transaction().unwrap();
    send(&transaction, &here.topic, 0, &["{}"]);
    let sent = chrono::Utc::now().to_rfc3339();
    // The other partition is read on meanwhile, and a reader that takes the last stable offset for the end would go on stating.
    send(&producer(None), &here.topic, 1, &["{}"]);
    let began = Instant::now();
    while here.count("bronze_amazon_sales") < 801 {
        assert!(began.elapsed() < Duration::from_secs(60));
    }
    assert_eq!(lake.output(&["wait", "bronze", "--until", &sent, "--timeout", "2s"]).status.code(), Some(1));
    transaction.commit_transaction(Duration::from_secs(30)).unwrap();
    lake.ok(&["wait", "silver", "--until", &sent, "--timeout", "60s"]);
    assert_eq!(here.count("bronze_amazon_sales"), 802);

    // A restart states no earlier time.
    let before = TABLES.map(|table| stated(lake, table).expect("a time"));
    daemon.kill().expect("SIGKILL");
    daemon.wait().expect("its end");
    let mut daemon = lake.spawn(&["run"], "again.log");
    here.wait_for("again.log", &mut daemon, "reading continues");
    let after = TABLES.map(|table| stated(lake, table).expect("a time"));
    assert!(before.iter().zip(&after).all(|(before, after)| before <= after), "{before:?} {after:?}");
    signal(&daemon, libc::SIGTERM);
    assert!(daemon.wait().expect("its end").success(), "{}", here.log("again.log"));
    for log in ["running.log", "again.log"] {
        let text = here.log(log);
        let alarms: Vec<_> = text.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect();
        assert!(alarms.is_empty(), "{alarms:?}");
    }
    lake.verify();
    delete_topic(&here.topic).await;
}
