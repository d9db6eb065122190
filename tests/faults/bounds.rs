//! Memory that is bounded by settings and not by what comes: very large messages, a batch with a thousand table partitions, a metastore
//! that takes its time. What is measured is the greatest resident memory (`VmHWM`) of the daemon's process, as the kernel has it.
//!
//! The bound is the sum in the preset ([`sum`]); a build that is not optimized needs no more than an optimized one. `cargo test --
//! --nocapture` prints the numbers.

use std::fs;
use std::process::Child;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::cluster::{BRONZE, Cluster, GOLD, PATIENCE, REJECTED, SILVER};
use crate::end_to_end::lake::env;
use crate::table::proxy::Proxy;

/// Hundreds of megabytes go through Kafka and HDFS, which on a machine with a slow disk takes its time.
const PATIENCE_WITH_MUCH: Duration = Duration::from_secs(720);

/// The settings that bound memory, in MiB, as a test sets them.
struct Limits {
    queue: u64,
    batch: u64,
    commit: u64,
    gold: u64,
}

impl Limits {
    const SMALL: Self = Self { queue: 8, batch: 1, commit: 16, gold: 32 };

    fn settings(&self) -> Vec<String> {
        vec![
            format!("source.kafka.queue_bytes={}MiB", self.queue),
            format!("pipeline.batch_bytes={}MiB", self.batch),
            format!("pipeline.commit_bytes={}MiB", self.commit),
            format!("gold.0.memory_limit={}MiB", self.gold),
        ]
    }

    /// What the preset says: the program, and what each setting allows. `largest` is the largest message, in MiB.
    fn sum(&self, largest: u64) -> ByteSize {
        ByteSize::mib(200 + 2 * self.queue + 8 * self.batch.max(5 * largest) + 3 * self.commit + self.gold)
    }
}

/// The greatest resident memory of a process so far; none once it has ended.
fn peak(process: &Child) -> Option<ByteSize> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(ByteSize::kib(line.split_whitespace().nth(1)?.parse().ok()?))
}

/// Waits for a run to end well; its greatest memory.
fn run_to_its_end(here: &Cluster, arguments: &[&str], patience: Duration) -> ByteSize {
    let mut run = here.lake.spawn(arguments, "run.log");
    let (began, mut most) = (Instant::now(), ByteSize::b(0));
    let status = loop {
        most = most.max(peak(&run).unwrap_or_default());
        if let Some(status) = run.try_wait().expect("a child") {
            break status;
        }
        assert!(began.elapsed() < patience, "not within {patience:?}:\n{}", here.log("run.log"));
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{}", here.log("run.log"));
    most
}

fn report(what: &str, sent: ByteSize, most: ByteSize, bound: ByteSize) {
    println!("{what}: {sent} sent, {most} at the most, of {bound}");
    assert!(most <= bound, "{what}: {most} at the most, more than {bound}");
}

/// Sends records of the given size: sales with a long field that no column reads; every fourth is a record without meaning.
fn send_large(topic: &str, records: usize, bytes: usize) -> ByteSize {
    let producer: BaseProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", env("KAFKA_BROKER"))
        .set("message.max.bytes", "16000000")
        .set("queue.buffering.max.kbytes", "65536")
        .create()
        .expect("a producer");
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for number in 0..records {
        let sale = if number % 4 == 3 { "no sale".to_owned() } else { format!("{{{}", sale(number)) };
        let mut value = sale.into_bytes();
        value.reserve(bytes);
        // Not to be compressed to nothing.
        while value.len() < bytes - 2 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            value.extend_from_slice(format!("{random:016x}").as_bytes());
        }
        value.extend_from_slice(b"\"}");
        let key = number.to_string();
        let mut record = BaseRecord::to(topic).payload(&value).key(&key);
        while let Err((error, back)) = producer.send(record) {
            assert!(error.to_string().contains("QueueFull") || error.to_string().contains("Queue full"), "{error}");
            producer.poll(Duration::from_millis(100));
            record = back;
        }
    }
    producer.flush(PATIENCE_WITH_MUCH).expect("all sent");
    ByteSize::b((records * bytes) as u64)
}

/// The fields of a sale, open at its last one.
fn sale(number: usize) -> String {
    format!(
        "\"OrderID\":\"ORD{number}\",\"OrderDate\":\"2024-07-01\",\"CustomerID\":\"C{}\",\"CustomerName\":\"A B\",\
         \"ProductID\":\"P1\",\"ProductName\":\"Pen\",\"Category\":\"Office\",\"Brand\":\"X\",\"Quantity\":2,\"UnitPrice\":1.50,\
         \"Discount\":0.10,\"Tax\":0.20,\"ShippingCost\":1.00,\"TotalAmount\":3.90,\"PaymentMethod\":\"Cash\",\
         \"OrderStatus\":\"Shipped\",\"City\":\"Rome\",\"State\":\"RM\",\"Country\":\"Italy\",\"SellerID\":\"S1\",\"Note\":\"",
        number % 50
    )
}

/// Measured, each message is held some 36 times over: fetched, in a batch, decoded, in pages, compressed, and in what the allocator keeps.
#[test]
fn messages_of_ten_megabytes_do_not_fill_the_memory() {
    let limits = Limits::SMALL;
    let mut settings = limits.settings();
    settings.push("silver.max_value_bytes=16MiB".to_owned());
    let here = Cluster::with_topic(&env("HIVE_METASTORE_URIS"), &settings, &["max.message.bytes=12000000"]);
    let sent = send_large(&here.topic, 80, 10_000_000);
    let most = run_to_its_end(&here, &["run", "--until-caught-up"], PATIENCE_WITH_MUCH);
    let counts = [BRONZE, SILVER, REJECTED].map(|table| here.count(table));
    let reasons = format!("SELECT stage, reason, count(*) AS n FROM {} GROUP BY stage, reason", here.lake.table(REJECTED));
    assert_eq!(counts, [80, 60, 20], "{:?}", here.lake.query(&reasons));
    here.lake.verify();
    let bound = limits.sum(10);
    report("messages of 10 MB", sent, most, bound);
    assert!(sent.as_u64() > bound.as_u64(), "less was sent than memory may hold");
}

#[test]
fn a_thousand_partitions_in_one_batch_do_not_fill_the_memory() {
    let limits = Limits { commit: 64, ..Limits::SMALL };
    let mut settings = limits.settings();
    settings.push("silver.partition_by=[\"bucket(1000, OrderID)\"]".to_owned());
    let here = Cluster::with_topic(&env("HIVE_METASTORE_URIS"), &settings, &[]);
    here.send(30_000);
    let most = run_to_its_end(&here, &["run", "--until-caught-up"], PATIENCE_WITH_MUCH);
    let files = here.lake.ok(&["tables", "show", &here.lake.table(SILVER)]);
    report("1,000 partitions in a batch", ByteSize::b(0), most, limits.sum(0));
    // One file for each partition, however many batches make up the commit.
    let commits =
        here.log("run.log").lines().filter(|line| line.contains("committed") && line.contains(&format!("{SILVER} "))).count();
    println!("{commits} commits of silver\n{files}");
    here.assert_exact();
}

/// How long each call to the metastore takes in the test; 60 s by hand: `LAKESMITH_SLOW_METASTORE=60`.
fn slowness() -> Duration {
    let seconds = std::env::var("LAKESMITH_SLOW_METASTORE").map_or(1.5, |text| text.parse().expect("seconds"));
    Duration::from_secs_f64(seconds)
}

/// Scaled down: with a call that takes 1.5 s instead of 60 s, and limits of a few MiB instead of hundreds, the same happens earlier. More
/// is waiting in the topic than memory may hold, commits are far slower than reading, and so the source has to wait for them.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_metastore_holds_the_source_back() {
    let limits = Limits::SMALL;
    let proxy = Proxy::before(&env("HIVE_METASTORE_URIS")).await;
    let mut settings = limits.settings();
    let slow = slowness();
    settings.push(format!("metastore.call_timeout={}s", slow.as_secs() * 2 + 30));
    let here = Cluster::with_topic(&proxy.uri(), &settings, &[]);
    let sent = tokio::task::block_in_place(|| send_large(&here.topic, 4_000, 100_000));
    proxy.delay(slow);
    let mut daemon = here.lake.spawn(&["run"], "run.log");
    let committed = || here.log("run.log").matches("committed").count();
    let began = Instant::now();
    // Several commits, so that the cycles behind them have filled up as far as they may.
    while committed() < 6 {
        assert!(began.elapsed() < PATIENCE.max(slow * 60), "{}", here.log("run.log"));
        assert!(daemon.try_wait().expect("a child").is_none(), "{}", here.log("run.log"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let most = peak(&daemon).expect("a living daemon");
    proxy.delay(Duration::ZERO);
    super::cluster::signal(&daemon, libc::SIGTERM);
    assert!(daemon.wait().expect("its end").success(), "{}", here.log("run.log"));
    let bound = limits.sum(0);
    report("a slow metastore", sent, most, bound);
    assert!(sent.as_u64() > bound.as_u64(), "less was sent than memory may hold");
    tokio::task::block_in_place(|| {
        here.lake.ok(&["run", "--until-caught-up"]);
        assert_eq!([BRONZE, SILVER, REJECTED].map(|table| here.count(table)), [4_000, 3_000, 1_000]);
        assert!(here.count(GOLD) > 0);
        here.lake.verify();
    });
}
