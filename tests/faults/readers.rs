//! Readers at every moment: while silver and gold are written and gold's partitions are switched, DataFusion and Spark read gold again and
//! again. Each partition must be there once it has been, be readable, and equal the `GROUP BY` of silver at the offsets in the parameters
//! of the version that was read.
//!
//! Which versions a partition had is watched in the metastore the whole time. Spark says itself which file it has read; DataFusion's answer
//! must be that of a version which was current between the query's beginning and its end.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lakesmith::catalog::{CatalogSettings, HiveCatalog};
use lakesmith::checkpoint::parse_positions;
use lakesmith::metastore::Metastore;
use lakesmith::query::{QuerySession, QuerySettings};
use lakesmith::storage::{StorageSettings, Storages};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::Value;

use super::cluster::{Cluster, GOLD, PATIENCE, SILVER};
use crate::end_to_end::lake::env;

/// How long is read at least.
const SECONDS: u64 = 20;
/// What each engine has to read at least, however long it takes; many times that on an idle machine.
const QUERIES_MIN: usize = 6;
const COLUMNS: &str =
    "Category, Country, PaymentMethod, TotalOrders, TotalQuantity, TotalRevenue, TotalNetRevenue, UniqueCustomers";
/// 2024-07-01 12:00 UTC, in milliseconds.
const NOON_MS: i64 = 1_719_835_200_000;
const HOURS: i64 = 3;

/// The key of a partition (day and hour), and the versions that it has had, in order: location and offsets.
type Versions = BTreeMap<(String, String), Vec<(String, String)>>;

#[derive(Clone, Default)]
struct Watched {
    versions: Arc<Mutex<Versions>>,
    /// One look after the other: an older answer must not follow a newer one.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Watched {
    async fn look(&self, metastore: &Metastore, database: &str) {
        let _turn = self.turn.lock().await;
        // The table may not be there yet.
        let Ok(partitions) = metastore.partitions(database, GOLD).await else { return };
        let mut seen = self.versions.lock().unwrap();
        let found: BTreeSet<_> = partitions.iter().map(|partition| key(&partition.values())).collect();
        assert!(seen.keys().all(|key| found.contains(key)), "a partition is missing: {found:?}");
        for partition in partitions {
            let positions = partition.parameter("lakesmith.positions").expect("offsets").to_owned();
            let version = (partition.location().expect("a location").to_owned(), positions);
            let versions = seen.entry(key(&partition.values())).or_default();
            if versions.last() != Some(&version) {
                versions.push(version);
            }
        }
    }

    fn keys(&self) -> Vec<(String, String)> {
        self.versions.lock().unwrap().keys().cloned().collect()
    }

    fn count(&self, key: &(String, String)) -> usize {
        self.versions.lock().unwrap()[key].len()
    }

    /// The versions from the `from`th on.
    fn since(&self, key: &(String, String), from: usize) -> Vec<(String, String)> {
        self.versions.lock().unwrap()[key][from..].to_vec()
    }
}

fn key(values: &[String]) -> (String, String) {
    (values[0].clone(), values[1].clone())
}

/// Rows as sorted text; decimals as both engines print them, without the zeros at the end.
fn lines(rows: impl IntoIterator<Item = Vec<String>>) -> Vec<String> {
    let short = |cell: String| match cell.contains('.') && cell.parse::<f64>().is_ok() {
        true => cell.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => cell,
    };
    let mut lines: Vec<String> = rows.into_iter().map(|row| row.into_iter().map(short).collect::<Vec<_>>().join("|")).collect();
    lines.sort();
    lines
}

async fn datafusion(session: &QuerySession, sql: &str) -> Vec<String> {
    let mut answer = session.query(sql).await.unwrap_or_else(|error| panic!("{}\n{sql}", error.chain()));
    let mut rows = Vec::new();
    while let Some(batch) = answer.next().await {
        let batch = batch.unwrap_or_else(|error| panic!("{}\n{sql}", error.chain()));
        let options = arrow::util::display::FormatOptions::default();
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| arrow::util::display::ArrayFormatter::try_new(column, &options).expect("a formatter"))
            .collect();
        rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|column| column.value(row).to_string()).collect()));
    }
    lines(rows)
}

/// What a partition must hold at some offsets of silver.
async fn group_by(session: &QuerySession, database: &str, key: &(String, String), positions: &str) -> Vec<String> {
    let below: Vec<_> = parse_positions(positions)
        .expect("offsets")
        .into_iter()
        .map(|(partition, coverage)| format!("(\"partition\" = {partition} AND \"offset\" < {})", coverage.range.end))
        .collect();
    let sql = format!(
        "SELECT Category, Country, PaymentMethod, count(*), sum(Quantity), sum(TotalAmount), sum(NetRevenue), \
         count(DISTINCT CustomerID) FROM {database}.{SILVER} \
         WHERE ({}) AND date_trunc('hour', kafka_timestamp) = CAST('{} {}:00:00' AS TIMESTAMP) \
         GROUP BY date_trunc('minute', kafka_timestamp), Category, Country, PaymentMethod",
        below.join(" OR "),
        key.0,
        key.1
    );
    datafusion(session, &sql).await
}

/// Spark in one session that answers statement by statement.
struct Spark {
    process: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Spark {
    fn start() -> Self {
        let script = crate::repository().join("tests/stack/spark_sql.py");
        let mut process = Command::new(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Spark starts");
        let answers = BufReader::new(process.stdout.take().expect("its answers"));
        Self { process, answers }
    }

    fn rows(&mut self, sql: &str) -> Vec<Vec<String>> {
        writeln!(self.process.stdin.as_mut().expect("its input"), "{sql};").expect("a statement sent");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(answer.get("error").is_none(), "Spark: {answer}");
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let rows = answer["rows"].as_array().expect("rows").iter();
        rows.map(|row| row.as_array().expect("a row").iter().map(text).collect()).collect()
    }
}

impl Drop for Spark {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        _ = self.process.wait();
    }
}

/// Sends sales whose times wander over three hours, so that all partitions change all the time.
async fn send(topic: String, sales: Vec<Vec<u8>>, done: Arc<AtomicBool>) {
    let mut config = rdkafka::ClientConfig::new();
    let producer: FutureProducer = config.set("bootstrap.servers", env("KAFKA_BROKER")).create().expect("a producer");
    for (number, sale) in sales.iter().enumerate() {
        if done.load(Ordering::Relaxed) {
            return;
        }
        let number = number as i64;
        let time = NOON_MS + (number % HOURS) * 3_600_000 + (number * 37 % 20) * 60_000 + number % 60_000;
        let key = number.to_string();
        let record = FutureRecord::to(&topic).payload(sale).key(&key).timestamp(time);
        producer.send(record, Duration::from_secs(30)).await.map_err(|(error, _)| error).expect("sent");
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_partition_read_is_the_group_by_at_its_offsets() {
    let here = Cluster::new(&[
        "pipeline.commit_interval=300ms",
        "gold.0.partition_by=hour",
        "gold.0.allowed_lateness=6h",
        "silver.partition_by=[]",
    ]);
    let database = here.lake.database.clone();
    here.lake.ok(&["generate", "--rows", "20000", "--format", "jsonl", "--bad-share", "0.02", "--output", "sales.jsonl"]);
    let sales = std::fs::read(here.lake.path("sales.jsonl")).expect("sales");
    let sales: Vec<Vec<u8>> = sales.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let storage = StorageSettings { warehouse: format!("{}/{}", env("HDFS_URL"), here.topic), ..StorageSettings::default() };
    let metastore = here.metastore().await;
    let storages = Storages::new(&storage).expect("storage");
    let catalog = HiveCatalog::new(metastore.clone(), storages, CatalogSettings::default());
    let session = QuerySession::new(catalog, &database, &QuerySettings::default()).expect("a session");

    let done = Arc::new(AtomicBool::new(false));
    let producing = tokio::spawn(send(here.topic.clone(), sales, done.clone()));
    let mut daemon = here.lake.spawn(&["run", "--set", "gold.0.refresh_interval=1s"], "daemon.log");
    let watched = Watched::default();
    let watching = tokio::spawn({
        let (watched, metastore, database, done) = (watched.clone(), metastore.clone(), database.clone(), done.clone());
        async move {
            while !done.load(Ordering::Relaxed) {
                watched.look(&metastore, &database).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    let mut spark = tokio::task::spawn_blocking(|| {
        let mut spark = Spark::start();
        spark.rows("select 1");
        spark
    })
    .await
    .expect("Spark");
    here.wait(&mut daemon, "daemon.log", "all partitions", async || watched.keys().len() == HOURS as usize).await;

    let began = Instant::now();
    let goes_on = move |read: usize| {
        let elapsed = began.elapsed();
        elapsed < PATIENCE && (elapsed < Duration::from_secs(SECONDS) || read < QUERIES_MIN)
    };
    let by_spark = tokio::task::spawn_blocking({
        let (watched, database) = (watched.clone(), database.clone());
        move || {
            let mut read = Vec::new();
            while goes_on(read.len()) {
                for key in watched.keys() {
                    let (day, hour) = &key;
                    let sql = format!(
                        "select {COLUMNS}, input_file_name() from {database}.{GOLD} where window_date = '{day}' and window_hour = '{hour}'"
                    );
                    let mut rows = spark.rows(&sql);
                    let files: BTreeSet<String> = rows.iter_mut().filter_map(Vec::pop).collect();
                    assert_eq!(files.len(), 1, "Spark found {files:?} in {key:?}");
                    read.push((key, files.into_iter().next().expect("a file"), lines(rows)));
                }
            }
            read
        }
    });
    let (mut by_datafusion, mut versions_compared) = (0, 0);
    while goes_on(by_datafusion) {
        for key in watched.keys() {
            let before = watched.count(&key) - 1;
            let (day, hour) = &key;
            let sql = format!("SELECT {COLUMNS} FROM {database}.{GOLD} WHERE window_date = '{day}' AND window_hour = '{hour}'");
            let found = datafusion(&session, &sql).await;
            watched.look(&metastore, &database).await;
            let candidates = watched.since(&key, before);
            let mut matches = false;
            for (_, positions) in &candidates {
                versions_compared += 1;
                matches = matches || group_by(&session, &database, &key, positions).await == found;
            }
            assert!(matches, "{key:?} is the GROUP BY of none of {candidates:?}:\n{}", found.join("\n"));
            by_datafusion += 1;
        }
    }
    let by_spark = by_spark.await.expect("Spark's loop");
    done.store(true, Ordering::Relaxed);
    watching.await.expect("no partition went missing");
    producing.await.expect("the producer");
    for (key, file, found) in &by_spark {
        let versions = watched.since(key, 0);
        let version = versions.iter().find(|(location, _)| file.contains(location.rsplit('/').next().expect("a name")));
        let (location, positions) = version.unwrap_or_else(|| panic!("nobody saw {file} among {versions:?}"));
        let expected = group_by(&session, &database, key, positions).await;
        assert_eq!(*found, expected, "{location} by Spark");
    }
    let switched: usize = watched.keys().iter().map(|key| watched.count(key) - 1).sum();
    println!(
        "{by_datafusion} partitions read by DataFusion ({versions_compared} versions compared), {} by Spark, {switched} switches",
        by_spark.len()
    );
    assert!(by_datafusion >= QUERIES_MIN && by_spark.len() >= QUERIES_MIN, "{by_datafusion} and {}", by_spark.len());
    assert!(switched >= QUERIES_MIN, "{switched} switches");
    here.stop(daemon, "daemon.log", &[]);
    here.lake.verify();
}
