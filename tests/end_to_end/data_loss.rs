//! Retention that does not wait: records that are gone from a real topic before the daemon has read them, at a start and while it runs.
//! Tables and metastore are embedded; only the topic matters here.

use std::fs;
use std::process::Child;
use std::time::{Duration, Instant};

use super::Lake;
use super::lake::Servers;
use crate::source::broker::{create_topic, delete_records, delete_topic, settings};

/// A pipeline that reads a topic of its own with two partitions.
pub struct TopicLake {
    pub topic: String,
    pub lake: Lake,
}

impl TopicLake {
    pub async fn new(more_settings: &[&str]) -> Self {
        Self::with_configs(more_settings, &[]).await
    }

    pub async fn with_configs(more_settings: &[&str], topic_configs: &[(&str, &str)]) -> Self {
        let topic = format!("e2e_{}", uuid::Uuid::new_v4().simple());
        create_topic(&topic, 2, topic_configs).await;
        let mut flags = vec![format!("source.topic={topic}"), format!("source.kafka.brokers={}", settings().brokers)];
        flags.extend(more_settings.iter().map(|setting| (*setting).to_owned()));
        Self { topic, lake: Lake::new("datalake", &flags, Servers::None) }
    }

    /// Adds sales to the topic; the seed makes them others than before.
    pub fn produce(&self, rows: u32, seed: u32) {
        let (rows, seed) = (rows.to_string(), seed.to_string());
        let generate = ["generate", "--rows", &rows, "--seed", &seed, "--format", "jsonl", "--bad-share", "0.02"];
        self.lake.ok(&[&generate[..], &["--force", "--output", "sales.jsonl"]].concat());
        // With a key, so that every partition gets some.
        self.lake.ok(&["produce", "sales.jsonl", "--topic", &self.topic, "--key", "OrderID"]);
    }

    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.lake.path(name)).unwrap_or_default()
    }

    /// Waits until the log of a daemon says something.
    pub fn wait_for(&self, name: &str, daemon: &mut Child, text: &str) {
        let began = Instant::now();
        while !self.log(name).contains(text) {
            assert!(began.elapsed() < Duration::from_secs(60), "`{text}` does not appear in\n{}", self.log(name));
            assert!(daemon.try_wait().expect("a child").is_none(), "the daemon has ended:\n{}", self.log(name));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// First offset, next offset and records of a partition in bronze.
    pub fn bronze(&self, partition: i32) -> [i64; 3] {
        let page = self.lake.ok(&["offsets", "show", "bronze"]);
        let row = page.lines().find(|line| line.starts_with(&format!("│ {partition:>9} "))).unwrap_or_else(|| panic!("{page}"));
        let mut numbers =
            row.trim_matches('│').split('┆').skip(1).map(|cell| cell.trim().replace(',', "").parse().expect("a number"));
        [(); 3].map(|()| numbers.next().expect("a column"))
    }

    pub fn count(&self, table: &str) -> i64 {
        let rows = self.lake.query(&format!("SELECT count(*) AS n FROM {}", self.lake.table(table)));
        rows[0]["n"].as_i64().expect("a number")
    }
}

pub fn signal(child: &Child, signal: libc::c_int) {
    // SAFETY: a plain system call; the child is ours and was not waited for.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, signal) }, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_records_stop_the_daemon_unless_it_is_told_to_skip_them() {
    let here = TopicLake::new(&[]).await;
    let lake = &here.lake;
    here.produce(400, 1);
    lake.ok(&["run", "--until-caught-up"]);
    let [_, read, _] = here.bronze(0);
    here.produce(400, 2);
    let lost = read + 50;
    delete_records(&here.topic, 0, lost).await;

    let stopped = lake.output(&["run", "--until-caught-up"]);
    let log = String::from_utf8_lossy(&stopped.stderr);
    assert_eq!(stopped.status.code(), Some(1), "{log}");
    assert!(log.contains("source.on_data_loss") && log.contains("50 offsets are gone"), "{log}");
    assert_eq!(here.bronze(0)[1], read, "nothing of the partition was read");

    let skipped = lake.output(&["run", "--until-caught-up", "--set", "source.on_data_loss=skip"]);
    let log = String::from_utf8_lossy(&skipped.stderr);
    assert!(skipped.status.success(), "{log}");
    let warned: Vec<_> = log.lines().filter(|line| line.contains(" WARN ")).collect();
    assert_eq!(warned.len(), 1, "{log}");
    for part in ["partition=0".to_owned(), format!("first_lost={read}"), format!("last_lost={}", lost - 1), "count=50".to_owned()]
    {
        assert!(warned[0].contains(&part), "{part} in {}", warned[0]);
    }
    let ([_, next, records], [_, other, _]) = (here.bronze(0), here.bronze(1));
    assert_eq!((next + other, records), (800, next - 50));
    assert_eq!(here.count("bronze_amazon_sales"), 750);
    assert_eq!(here.count("silver_amazon_sales") + here.count("silver_amazon_sales_rejected"), 750);
    lake.verify();

    // While it runs: stopped, so that it cannot read what comes and goes meanwhile.
    let small = ["run", "--set", "source.on_data_loss=skip", "--set", "pipeline.commit_interval=100ms"];
    let mut daemon = lake.spawn(&small, "running.log");
    here.wait_for("running.log", &mut daemon, "reading continues");
    here.produce(100, 3);
    here.wait_for("running.log", &mut daemon, "committed");
    signal(&daemon, libc::SIGSTOP);
    // One answer may be on its way to the daemon; it is to these.
    here.produce(10, 4);
    here.produce(200, 5);
    let end = crate::source::broker::open(&here.topic, &[]).await;
    let end = lakesmith::source::Source::watermarks(&end).await.unwrap()[&0].end;
    delete_records(&here.topic, 0, end - 5).await;
    signal(&daemon, libc::SIGCONT);
    here.wait_for("running.log", &mut daemon, "they are skipped");
    let began = Instant::now();
    while here.bronze(0)[1] < end {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", here.log("running.log"));
        std::thread::sleep(Duration::from_millis(50));
    }
    signal(&daemon, libc::SIGTERM);
    assert!(daemon.wait().expect("its end").success(), "{}", here.log("running.log"));
    lake.ok(&["run", "--until-caught-up"]);
    let ([_, next, records], [_, other, others]) = (here.bronze(0), here.bronze(1));
    assert_eq!((next, next + other), (end, 1_110));
    assert!(next - records > 50 && others == other, "{records} of {next}");
    assert_eq!(here.count("bronze_amazon_sales"), records + others);
    lake.verify();
    delete_topic(&here.topic).await;
}
