//! The cluster form: Kafka, HDFS and a Hive Metastore as real servers; read by Spark SQL through the metastore as well.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use super::lake::{SMALL_COMMITS, SUMMED, Servers, assert_records, env, expected, number, on_the_stack, plain};
use super::{Lake, WINDOWS};

/// A topic with sales in three partitions, and tables on HDFS in a database of their own.
pub(super) fn cluster(rows: u32, bad_share: &str, more_settings: &[&str]) -> (String, Lake) {
    let name = format!("e2e_{}", uuid::Uuid::new_v4().simple());
    let mut settings = on_the_stack(&name, &env("HIVE_METASTORE_URIS"));
    settings.extend(more_settings.iter().map(|setting| (*setting).to_owned()));
    let lake = Lake::new(&name, &settings, Servers::Stack);
    let rows = rows.to_string();
    lake.ok(&["generate", "--rows", &rows, "--format", "jsonl", "--bad-share", bad_share, "--output", "sales.jsonl"]);
    lake.ok(&["topic", "create", &name, "--partitions", "3"]);
    lake.ok(&["produce", "sales.jsonl", "--topic", &name]);
    (name, lake)
}

#[test]
fn sales_through_kafka_hdfs_and_the_metastore_survive_a_kill_and_equal_the_reference() {
    let (topic, lake) = cluster(20_000, "0.002", &[]);
    kill_in_the_middle(&lake);
    let expected = assert_a_run_completes(&topic, &lake);
    lake.ok(&["run", "--until-caught-up"]);
    assert_records(&lake, &expected);
    lake.verify();
    assert_spark_agrees(&lake, &expected);
}

#[test]
fn a_kill_at_any_window_loses_nothing_and_repeats_nothing() {
    let (topic, lake) = cluster(6_000, "0.02", &[]);
    WINDOWS.iter().for_each(|window| lake.kill_at(window));
    let expected = assert_a_run_completes(&topic, &lake);
    assert_spark_agrees(&lake, &expected);
}

/// Runs to the end of the topic; then every layer equals the reference, which is returned.
pub(super) fn assert_a_run_completes(topic: &str, lake: &Lake) -> Value {
    let resumed = lake.output(&["run", "--until-caught-up"]);
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    dump(topic, &lake.path("dump.jsonl"));
    let expected = expected("--dump", &lake.path("dump.jsonl"));
    assert_records(lake, &expected);
    assert_gold(lake, &expected);
    lake.verify();
    expected
}

/// Starts a run with small commits and kills it after its first ones.
fn kill_in_the_middle(lake: &Lake) {
    let mut child = lake.spawn(&SMALL_COMMITS, "killed.log");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) && child.try_wait().expect("a child").is_none() {
        let log = fs::read_to_string(lake.path("killed.log")).unwrap_or_default();
        if log.matches("committed").count() >= 4 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("an exit");
    let log = fs::read_to_string(lake.path("killed.log")).expect("a log");
    assert!(log.contains("committed") && !log.contains("everything read is committed"), "not killed in the middle:\n{log}");
}

/// Writes every record of the topic as another consumer sees it.
pub(super) fn dump(topic: &str, file: &Path) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", env("KAFKA_BROKER"))
        .set("group.id", topic)
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    let mut ends = BTreeMap::new();
    for partition in 0..3 {
        let (_, end) = consumer.fetch_watermarks(topic, partition, Duration::from_secs(30)).expect("watermarks");
        assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
        ends.insert(partition, end);
    }
    consumer.assign(&assignment).expect("an assignment");
    let mut out = std::io::BufWriter::new(fs::File::create(file).expect("a file"));
    let mut missing: i64 = ends.values().sum();
    while missing > 0 {
        let message = consumer.poll(Duration::from_secs(30)).expect("a record within 30 s").expect("no Kafka error");
        let value = message.payload().map(|bytes| json!(base64(bytes)));
        let line = json!({
            "partition": message.partition(),
            "offset": message.offset(),
            "timestamp_ms": message.timestamp().to_millis(),
            "value": value,
        });
        writeln!(out, "{line}").expect("written");
        missing -= 1;
    }
}

pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

const GOLD: [(&str, &str); 6] = [
    ("TotalOrders", "total_orders"),
    ("TotalQuantity", "total_quantity"),
    ("TotalRevenue", "total_revenue"),
    ("TotalNetRevenue", "total_net_revenue"),
    ("AvgOrderValue", "avg_order_value"),
    ("UniqueCustomers", "unique_customers"),
];

/// A gold row as the reference and every engine agree to write it: window, dimensions, measures.
fn gold_line(row: &Value, name: impl Fn(&str) -> String) -> String {
    let start = plain(&row[name("window_start")]).replace(' ', "T");
    let start = start.split('.').next().unwrap_or_default().trim_end_matches('Z').to_owned();
    let dimensions = ["Category", "Country", "PaymentMethod"].map(|dimension| plain(&row[name(dimension)])).join("|");
    let measures = GOLD.map(|(measure, _)| number(&row[name(measure)])).join("|");
    format!("{start}|{dimensions}|{measures}")
}

fn assert_gold(lake: &Lake, expected: &Value) {
    let mut wanted: Vec<String> =
        expected["gold"].as_array().expect("gold rows").iter().map(|row| gold_line(row, str::to_owned)).collect();
    let rows = lake.query(&format!("SELECT * FROM {}", lake.table("gold_amazon_sales_aggregated")));
    let mut found: Vec<String> = rows.iter().map(|row| gold_line(row, str::to_lowercase)).collect();
    wanted.sort();
    found.sort();
    assert_eq!(found.len(), wanted.len(), "gold rows");
    for (found, wanted) in found.iter().zip(&wanted) {
        assert_eq!(found, wanted);
    }
}

/// Spark's answers to statements, through the stack's main metastore.
pub fn spark(statements: &[String]) -> Vec<Value> {
    spark_on("4.0.1", statements)
}

/// Spark's answers to statements, through the metastore of this version.
pub fn spark_on(metastore: &str, statements: &[String]) -> Vec<Value> {
    let script = crate::repository().join("tests/stack/spark_sql.py");
    let output = Command::new(script).args(["--metastore", metastore]).args(statements).output().expect("spark_sql.py starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

/// Spark, through the metastore, counts and sums the same in every layer and in the view.
pub(super) fn assert_spark_agrees(lake: &Lake, expected: &Value) {
    let sums = SUMMED.map(|name| format!("sum({name})")).join(", ");
    let statements = [
        format!("select count(*) from {}", lake.table("bronze_amazon_sales")),
        format!("select count(*) from {}", lake.table("silver_amazon_sales_rejected")),
        format!("select count(*), {sums} from {}", lake.table("silver_amazon_sales")),
        format!(
            "select count(*), sum(TotalOrders), sum(TotalQuantity), sum(TotalRevenue), sum(TotalNetRevenue), sum(UniqueCustomers) from {}",
            lake.table("gold_amazon_sales_aggregated")
        ),
        format!(
            "select count(*), sum(total_orders), sum(total_quantity), sum(unique_customers), min(window_start), max(window_date) from {}",
            lake.table("gold_amazon_sales_aggregated_view")
        ),
    ];
    let answers = spark(&statements);
    let row = |statement: usize| answers[statement]["rows"][0].as_array().expect("a row").iter().map(plain).collect::<Vec<_>>();
    let numbers =
        |statement: usize| answers[statement]["rows"][0].as_array().expect("a row").iter().map(number).collect::<Vec<_>>();

    assert_eq!(row(0), [plain(&expected["bronze"]["rows"])]);
    assert_eq!(row(1), [plain(&expected["rejected"]["rows"])]);
    let silver = &expected["silver"];
    let mut wanted = vec![plain(&silver["rows"])];
    wanted.extend(SUMMED.map(|name| number(&silver["sums"][name])));
    assert_eq!(numbers(2), wanted);

    let gold = expected["gold"].as_array().expect("gold rows");
    let total = |measure: &str| {
        gold.iter().map(|row| plain(&row[measure]).parse::<i64>().expect("a whole number")).sum::<i64>().to_string()
    };
    let gold_found = numbers(3);
    let counts = [gold.len().to_string(), total("TotalOrders"), total("TotalQuantity")];
    assert_eq!(gold_found[..3], counts);
    assert_eq!(gold_found[3], number(&silver["sums"]["TotalAmount"]));
    assert_eq!(gold_found[4], number(&silver["sums"]["NetRevenue"]));
    assert_eq!(gold_found[5], total("UniqueCustomers"));
    let view = row(4);
    assert_eq!(view[..3], counts);
    assert_eq!(view[3], total("UniqueCustomers"));
    let first = gold.iter().map(|row| plain(&row["window_start"])).min().expect("a window");
    assert_eq!(view[4], first);
    assert_eq!(view[5], gold.iter().map(|row| plain(&row["window_date"])).max().expect("a window"));
}
