//! How close lakesmith comes to what its libraries allow: a topic through all layers to HDFS and the metastore, beside the same messages
//! consumed, decoded, and written as Parquet, with nothing else done.
//!
//! ```sh
//! eval "$(tests/stack/stack env)"
//! LAKESMITH_BIN=target/release/lakesmith cargo bench --bench limit -- 1000000
//! ```
//!
//! Counted are seconds of processor time, user and system, of the process that does the work; servers are not. The limit has one file for each
//! layer; lakesmith splits silver by month, keeps gold, commits, and starts, in the time that is counted.

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lakesmith::silver::SilverPlan;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use uuid::Uuid;

use self::common::{Failure, config, messages, parquet_alone};

const PARTITIONS: i32 = 3;
const NOW_US: i64 = 1_735_700_000_000_000;

fn main() -> Result<(), Failure> {
    let rows: u64 = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000);
    let Ok(program) = std::env::var("LAKESMITH_BIN") else {
        eprintln!("not run: LAKESMITH_BIN is the program, and `tests/stack/stack env` names the servers");
        return Ok(());
    };
    let broker = std::env::var("KAFKA_BROKER").map_err(|_| "KAFKA_BROKER is not set: eval \"$(tests/stack/stack env)\"")?;
    let directory = tempfile::tempdir()?;
    let topic = format!("limit_{}", Uuid::new_v4().simple());
    fill(&program, directory.path(), &topic, rows)?;

    let consume = timed(|| consume(&broker, &topic, rows))?;
    let raw = tokio::runtime::Runtime::new()?.block_on(messages(rows))?;
    let plan = SilverPlan::new(&config()?.silver)?;
    let mut silver = Vec::new();
    let decode = timed(|| {
        for batch in &raw {
            silver.push(plan.transform(batch, NOW_US)?.rows);
        }
        Ok(())
    })?;
    let bronze: Vec<_> = raw.iter().map(|batch| batch.records.clone()).collect();
    let bronze = timed(|| parquet_alone(&bronze).map(|_| ()))?;
    let silver = timed(|| parquet_alone(&silver).map(|_| ()))?;
    drop(raw);
    let limit = consume + decode + bronze + silver;
    let drain = drain(&program, directory.path(), &topic)?;

    println!("| {rows} rows | seconds of processor time | rows per second of it |\n|---|---|---|");
    for (what, time) in [
        ("consume with rdkafka alone", consume),
        ("decode, derive, check", decode),
        ("bronze as Parquet alone", bronze),
        ("silver as Parquet alone", silver),
        ("limit: all of these", limit),
        ("lakesmith run --until-caught-up", drain),
    ] {
        println!("| {what} | {:.2} | {:.0} |", time.as_secs_f64(), rows as f64 / time.as_secs_f64());
    }
    println!("\nlakesmith reaches {:.0} % of the limit", limit.as_secs_f64() / drain.as_secs_f64() * 100.0);
    Ok(())
}

/// Makes a pipeline file, and a topic with so many sales.
fn fill(program: &str, directory: &Path, topic: &str, rows: u64) -> Result<(), Failure> {
    let rows = rows.to_string();
    run(program, directory, topic, &["init"])?;
    run(program, directory, topic, &["topic", "create", topic, "--partitions", &PARTITIONS.to_string()])?;
    run(program, directory, topic, &["generate", "--rows", &rows, "--format", "jsonl", "--output", "sales.jsonl"])?;
    run(program, directory, topic, &["produce", "sales.jsonl", "--topic", topic])
}

fn run(program: &str, directory: &Path, topic: &str, arguments: &[&str]) -> Result<(), Failure> {
    let warehouse = format!("{}/{topic}", std::env::var("HDFS_URL").map_err(|_| "HDFS_URL is not set")?);
    let done = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .env("KAFKA_TOPIC", topic)
        .env("LAKESMITH_TABLES__DATABASE", topic)
        .env("LAKESMITH_STORAGE__WAREHOUSE", warehouse)
        .output()?;
    match done.status.success() {
        true => Ok(()),
        false => Err(format!("lakesmith {}: {}", arguments.join(" "), String::from_utf8_lossy(&done.stderr)).into()),
    }
}

/// Reads every message and forgets it.
fn consume(broker: &str, topic: &str, rows: u64) -> Result<(), Failure> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker)
        .set("group.id", topic)
        .set("enable.auto.commit", "false")
        .create()?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&partitions)?;
    let (mut read, mut bytes) = (0, 0);
    while read < rows {
        let message = consumer.poll(Duration::from_secs(30)).ok_or("no message came within 30 s")??;
        bytes += message.payload().map_or(0, <[u8]>::len);
        read += 1;
    }
    eprintln!("{read} messages of {} bytes on average", bytes as u64 / rows.max(1));
    Ok(())
}

/// What a whole run takes, from its start to its end.
fn drain(program: &str, directory: &Path, topic: &str) -> Result<Duration, Failure> {
    let before = processor_time(libc::RUSAGE_CHILDREN);
    run(program, directory, topic, &["run", "--until-caught-up"])?;
    Ok(processor_time(libc::RUSAGE_CHILDREN) - before)
}

fn timed(work: impl FnOnce() -> Result<(), Failure>) -> Result<Duration, Failure> {
    let before = processor_time(libc::RUSAGE_SELF);
    work()?;
    Ok(processor_time(libc::RUSAGE_SELF) - before)
}

/// Processor time of this process, or of its children that have ended.
fn processor_time(who: libc::c_int) -> Duration {
    // SAFETY: getrusage writes the whole of a struct of plain numbers that is ours, and fails only for another `who`.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(who, &mut usage);
        usage
    };
    let time = |value: libc::timeval| Duration::from_secs(value.tv_sec as u64) + Duration::from_micros(value.tv_usec as u64);
    time(usage.ru_utime) + time(usage.ru_stime)
}
