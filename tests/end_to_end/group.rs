//! Several daemons on the same tables: in one consumer group by design, and without one by mistake.
//!
//! Real servers, real processes: one is killed, one told to leave, one joins late, while a producer sends. Whatever happens to them, each
//! record is in the tables once, and the daemons that live have nothing to complain about.

use std::collections::BTreeMap;
use std::fs;
use std::process::Child;
use std::time::{Duration, Instant};

use lakesmith::gold::maintainer_lock;
use lakesmith::metastore::{Metastore, MetastoreSettings};

use serde_json::Value;

use super::Lake;
use super::lake::{Servers, assert_records, env, expected, on_the_stack};
use super::real::spark_on;
use crate::servers::metastore_uri;

const PATIENCE: Duration = Duration::from_secs(120);

/// A pipeline whose topic has sales to come, and the daemons that work on it.
struct Group {
    topic: String,
    lake: Lake,
    /// The version of the metastore, as the stack names it.
    metastore: &'static str,
}

/// A daemon that is stopped when the test ends, however it ends.
struct Daemon<'a> {
    group: &'a Group,
    log: String,
    child: Child,
}

impl Group {
    fn new(partitions: u32, rows: u32, settings: &[&str]) -> Self {
        Self::on(COMPARES, partitions, rows, settings)
    }

    fn on(metastore: &'static str, partitions: u32, rows: u32, settings: &[&str]) -> Self {
        let topic = format!("e2e_{}", uuid::Uuid::new_v4().simple());
        let mut all = on_the_stack(&topic, &metastore_uri(metastore));
        all.extend([format!("source.kafka.group_id={topic}"), "gold.0.refresh_interval=1s".to_owned()]);
        all.extend(settings.iter().map(|setting| (*setting).to_owned()));
        let lake = Lake::new(&topic, &all, Servers::Stack);
        let rows = rows.to_string();
        lake.ok(&["generate", "--rows", &rows, "--format", "jsonl", "--bad-share", "0.01", "--output", "sales.jsonl"]);
        lake.ok(&["topic", "create", &topic, "--partitions", &partitions.to_string()]);
        Self { topic, lake, metastore }
    }

    fn start(&self, name: &str, settings: &[&str]) -> Daemon<'_> {
        let mut arguments = vec!["run"];
        arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        self.spawn(name, &arguments)
    }

    fn spawn(&self, name: &str, arguments: &[&str]) -> Daemon<'_> {
        let log = format!("{name}.log");
        Daemon { group: self, child: self.lake.spawn(arguments, &log), log }
    }

    fn produce(&self, rate: &str) -> Daemon<'_> {
        self.spawn("producer", &["produce", "sales.jsonl", "--topic", &self.topic, "--key", "OrderID", "--rate", rate])
    }

    /// Every record once, in every layer, by our own reader, by Spark, and by `verify`.
    fn assert_each_record_once(&self) -> Value {
        let expected = expected("--messages", &self.lake.path("sales.jsonl"));
        assert_records(&self.lake, &expected);
        let bronze = self.lake.table("bronze_amazon_sales");
        let most = format!("SELECT max(n) AS n FROM (SELECT count(*) AS n FROM {bronze} GROUP BY \"partition\", \"offset\")");
        assert_eq!(self.lake.query(&most)[0]["n"], 1, "a record is there twice");
        self.lake.verify();
        expected
    }
}

impl Daemon<'_> {
    fn log(&self) -> String {
        fs::read_to_string(self.group.lake.path(&self.log)).unwrap_or_default()
    }

    fn wait_for(&mut self, text: &str) -> Duration {
        let began = Instant::now();
        while !self.log().contains(text) {
            assert!(began.elapsed() < PATIENCE, "{}: `{text}` does not appear in\n{}", self.log, self.log());
            assert!(self.child.try_wait().expect("a child").is_none(), "{} has ended:\n{}", self.log, self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        began.elapsed()
    }

    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: a signal to a child that was not waited for yet.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Kills the daemon as a machine does that fails.
    fn kill(&mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("an exit");
    }

    /// Waits for an end that comes by itself, or after a SIGTERM; it must be a good one.
    fn finish(&mut self) {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                assert!(status.success(), "{} ended with {status}:\n{}", self.log, self.log());
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{} does not end:\n{}", self.log, self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        self.finish();
    }

    fn alarms(&self) -> Vec<String> {
        self.log().lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).map(str::to_owned).collect()
    }

    fn assert_calm(&self) {
        let mut alarms = self.alarms();
        if self.group.metastore != COMPARES {
            // The lock of one that was killed is waited for.
            alarms.retain(|line| !line.contains("waiting for a lock"));
        }
        assert!(alarms.is_empty(), "{} complains:\n{}", self.log, alarms.join("\n"));
    }

    /// The offsets that bronze's commits of this daemon covered, by partition.
    fn committed(&self) -> BTreeMap<i32, Vec<(i64, i64)>> {
        let mut all: BTreeMap<i32, Vec<(i64, i64)>> = BTreeMap::new();
        for line in self.log().lines().filter(|line| line.contains("committed table=") && line.contains(".bronze_amazon_sales "))
        {
            let offsets = line.split("offsets=").nth(1).expect("offsets").split(" lag=").next().expect("ranges");
            for part in offsets.split(' ') {
                let numbers: Vec<i64> = part
                    .split([':', '[', ',', ')'])
                    .filter(|text| !text.is_empty())
                    .map(|text| text.parse().expect("a number"))
                    .collect();
                let [partition, start, end] = numbers[..] else { panic!("{part}") };
                all.entry(i32::try_from(partition).expect("a partition")).or_default().push((start, end));
            }
        }
        all
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What makes a daemon one of a group whose dead are soon noticed.
const MEMBER: [&str; 4] = [
    "source.kafka.assignment=group",
    "source.kafka.options.session.timeout.ms=6000",
    "source.kafka.options.heartbeat.interval.ms=500",
    "pipeline.commit_interval=1s",
];

/// A metastore whose commits are compared and not locked.
const COMPARES: &str = "4.0.1";

#[test]
fn members_come_go_and_die_and_every_record_is_there_once() {
    members_come_go_and_die(COMPARES, &[]);
}

mod hms_3_1_3 {
    /// Each commit of each member takes the table's lock.
    #[test]
    fn members_that_lock_come_go_and_die_and_every_record_is_there_once() {
        super::members_come_go_and_die("3.1.3", &[]);
    }
}

/// Seven topic partitions: more than one file of bronze in a commit.
#[test]
fn members_share_a_bronze_of_text_files() {
    members_come_go_and_die(COMPARES, &["bronze.format=hive"]);
}

fn members_come_go_and_die(metastore: &'static str, settings: &[&str]) {
    let group = Group::on(metastore, 7, 24_000, &[&MEMBER[..], settings].concat());
    let mut first = group.start("first", &["source.kafka.group_instance_id=first"]);
    first.wait_for("maintaining a gold table");
    let mut second = group.start("second", &[]);
    second.wait_for("standing by for a lock");
    second.wait_for("the group gives partitions to this daemon");
    let mut producer = group.produce("800");
    first.wait_for("committed table=");
    second.wait_for("committed table=");
    first.kill();
    let took_over = second.wait_for("maintaining a gold table");
    assert!(took_over < Duration::from_secs(20), "gold was taken over after {took_over:?}");
    let mut third = group.start("third", &["pipeline.workers=2"]);
    third.wait_for("the group gives partitions to this daemon");
    second.stop();
    third.wait_for("maintaining a gold table");
    producer.finish();
    third.stop();
    // What nobody has read yet.
    group.lake.ok(&["run", "--until-caught-up"]);

    first.assert_calm();
    second.assert_calm();
    third.assert_calm();
    let expected = group.assert_each_record_once();
    let bronze = group.lake.table("bronze_amazon_sales");
    let answers = spark_on(
        metastore,
        &[
            format!("select count(*), count(distinct `partition`, `offset`) from {bronze}"),
            format!("select sum(n) from (select max(`offset`) + 1 as n from {bronze} group by `partition`)"),
            format!("select sum(TotalOrders) from {}", group.lake.table("gold_amazon_sales_aggregated")),
        ],
    );
    let rows: Vec<_> = answers.iter().flat_map(|answer| answer["rows"][0].as_array().expect("a row").clone()).collect();
    let (sent, accepted) = (&expected["bronze"]["rows"], &expected["silver"]["rows"]);
    assert_eq!(rows.iter().collect::<Vec<_>>(), [sent, sent, sent, accepted]);
}

#[test]
fn what_was_read_is_committed_before_its_partition_goes() {
    // A cycle that would not end by itself while this test runs.
    let group = Group::new(4, 4_000, &[&MEMBER[..3], &["pipeline.commit_interval=10m"]].concat());
    let mut first = group.start("first", &[]);
    first.wait_for("the group gives partitions to this daemon");
    group.produce("100000").finish();
    // All of it is in a cycle that is open, or on its way there.
    std::thread::sleep(Duration::from_secs(2));
    assert!(!first.log().contains("committed table="), "{}", first.log());
    let mut second = group.start("second", &[]);
    second.wait_for("the group gives partitions to this daemon");
    first.wait_for("partitions go to another daemon of the group");
    let before: usize = first
        .log()
        .lines()
        .take_while(|line| !line.contains("partitions go to another"))
        .filter(|line| line.contains("committed table="))
        .count();
    assert!(before >= 2, "bronze and silver are committed before the partitions go:\n{}", first.log());
    first.stop();
    second.stop();
    group.lake.ok(&["run", "--until-caught-up"]);
    let mut read: BTreeMap<i32, Vec<(i64, i64)>> = first.committed();
    second.committed().into_iter().for_each(|(partition, ranges)| read.entry(partition).or_default().extend(ranges));
    for (partition, mut ranges) in read {
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|pair| pair[0].1 == pair[1].0), "partition {partition}: {ranges:?}");
    }
    first.assert_calm();
    second.assert_calm();
    group.assert_each_record_once();
}

#[test]
fn a_maintainer_that_was_stopped_for_long_is_followed_and_follows() {
    let group = Group::new(4, 24_000, &MEMBER);
    let mut first = group.start("first", &[]);
    first.wait_for("maintaining a gold table");
    let mut second = group.start("second", &[]);
    second.wait_for("standing by for a lock");
    second.wait_for("the group gives partitions to this daemon");
    let mut producer = group.produce("600");
    first.wait_for("refreshed table=");
    second.wait_for("committed table=");
    first.signal(libc::SIGSTOP);
    // As the metastore does after its timeout, which is too long for a test.
    give_the_lock_back(&group);
    second.wait_for("maintaining a gold table");
    second.wait_for("refreshed table=");
    // Its partitions go to the other.
    std::thread::sleep(Duration::from_secs(8));
    first.signal(libc::SIGCONT);
    first.wait_for("standing by for a lock");
    producer.finish();
    first.stop();
    second.stop();
    group.lake.ok(&["run", "--until-caught-up"]);
    assert!(!first.alarms().is_empty(), "the one that was stopped says what it lost:\n{}", first.log());
    // What it had under way when it was stopped may still have been faster.
    let others: Vec<_> = second.alarms().into_iter().filter(|line| !line.contains("another writer was faster")).collect();
    assert!(others.is_empty(), "{}", others.join("\n"));
    group.assert_each_record_once();
}

/// Ends the lock of whoever maintains gold.
fn give_the_lock_back(group: &Group) {
    let settings = MetastoreSettings { uris: vec![env("HIVE_METASTORE_URIS")], ..MetastoreSettings::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let metastore = Metastore::connect(&settings).await.expect("the metastore");
        let name = maintainer_lock("gold_amazon_sales_aggregated");
        let locks = metastore.show_locks(&group.topic, &name).await.expect("locks");
        let held = locks.iter().find(|lock| lock.acquired_at_ms.is_some()).expect("a maintainer");
        metastore.unlock(held.lock_id).await.expect("unlocked");
    });
}

#[test]
fn of_two_daemons_by_mistake_the_slower_says_what_happens() {
    two_daemons_by_mistake(&[]);
}

#[test]
fn of_two_daemons_with_text_files_by_mistake_the_slower_says_what_happens() {
    two_daemons_by_mistake(&["bronze.format=hive"]);
}

fn two_daemons_by_mistake(settings: &[&str]) {
    let group = Group::new(3, 12_000, &[&["pipeline.commit_interval=300ms"], settings].concat());
    let mut daemons = ["one", "two"].map(|name| group.start(name, &[&*format!("pipeline.name={name}")]));
    for daemon in &mut daemons {
        daemon.wait_for("reading continues where bronze ends");
    }
    // Both read the same records from here on.
    group.produce("100000").finish();
    let began = Instant::now();
    while !daemons.iter().any(|daemon| daemon.log().contains("reading the tables again after a failure")) {
        assert!(began.elapsed() < PATIENCE, "nobody says that the other was faster:\n{}\n{}", daemons[0].log(), daemons[1].log());
        std::thread::sleep(Duration::from_millis(20));
    }
    // One may be about to read the tables again, and has nothing to commit then.
    daemons.iter().for_each(|daemon| daemon.signal(libc::SIGTERM));
    daemons.iter_mut().for_each(|daemon| drop(daemon.child.wait()));
    group.lake.ok(&["run", "--until-caught-up"]);
    let alarms: Vec<String> =
        daemons.iter().flat_map(Daemon::alarms).filter(|line| !line.contains("waiting for a lock")).collect();
    let bronze = group.lake.table("bronze_amazon_sales");
    let told = |line: &&String| {
        line.contains(&format!("table {bronze} is not where this daemon left it: partition "))
            && line.contains(": the table continues at offset ")
            && (line.contains("its last writer was one on ") || line.contains("its last writer was two on "))
            && line.contains(", with commit ")
    };
    assert!(alarms.iter().any(|line| told(&line)), "nobody says that the other was faster:\n{}", alarms.join("\n"));
    group.assert_each_record_once();
}
