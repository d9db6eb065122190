//! A topic of its own for each test, and what the tests do to it behind the source's back.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use arrow::array::{Array, BinaryArray, Int64Array, RecordBatch};
use futures::FutureExt;
use lakesmith::checkpoint::{Checkpoint, OffsetRange};
use lakesmith::record::{RawBatch, VALUE, column, coordinates};
use lakesmith::source::topic::{TopicSpec, create};
use lakesmith::source::{KafkaSettings, KafkaSource, PollLimits, Source, Start};
use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

/// No step of a test takes longer, or the test has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const LIMITS: PollLimits = PollLimits { max_rows: 10_000, max_bytes: 64 << 20, max_wait: Duration::from_millis(300) };

pub fn settings() -> KafkaSettings {
    let broker = std::env::var("KAFKA_BROKER").expect("KAFKA_BROKER names the broker to test against");
    KafkaSettings { partition_check_interval: Duration::from_millis(200), ..KafkaSettings::with_brokers(broker) }
}

pub fn config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", settings().brokers).set("message.max.bytes", "20000000");
    config
}

fn admin() -> AdminClient<DefaultClientContext> {
    config().create().unwrap()
}

fn admin_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

/// Runs a test with a topic of its own and deletes the topic afterwards, also when the test fails.
pub async fn with_topic<F: Future<Output = ()>>(partitions: u32, configs: &[(&str, &str)], test: impl FnOnce(String) -> F) {
    let name = format!("lakesmith-source-{}", uuid::Uuid::new_v4().simple());
    create_topic(&name, partitions, configs).await;
    let outcome = AssertUnwindSafe(tokio::time::timeout(4 * PATIENCE, test(name.clone()))).catch_unwind().await;
    delete_topic(&name).await;
    match outcome {
        Ok(in_time) => in_time.expect("the test ends in time"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

pub async fn create_topic(name: &str, partitions: u32, configs: &[(&str, &str)]) {
    let configs = configs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    create(&settings(), &TopicSpec { name: name.to_owned(), partitions, replication: 1, configs }).await.unwrap();
}

pub async fn delete_topic(name: &str) {
    let results = admin().delete_topics(&[name], &admin_options()).await.unwrap();
    results.into_iter().for_each(|result| drop(result.unwrap()));
}

pub async fn add_partitions(name: &str, count: usize) {
    let results = admin().create_partitions(&[NewPartitions::new(name, count)], &admin_options()).await.unwrap();
    results.into_iter().for_each(|result| drop(result.unwrap()));
}

/// Deletes the records of a partition before an offset.
pub async fn delete_records(name: &str, partition: i32, before: i64) {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(name, partition, rdkafka::Offset::Offset(before)).unwrap();
    admin().delete_records(&offsets, &admin_options()).await.unwrap();
}

/// A producer without idempotence or batching of its own making; transactional with an id.
pub fn producer(transactional_id: Option<&str>) -> BaseProducer {
    let mut config = config();
    if let Some(id) = transactional_id {
        config.set("transactional.id", id);
    }
    let producer: BaseProducer = config.create().unwrap();
    if transactional_id.is_some() {
        producer.init_transactions(PATIENCE).unwrap();
    }
    producer
}

/// Sends values to a partition and waits until they are there.
pub fn send(producer: &BaseProducer, topic: &str, partition: i32, values: &[&str]) {
    for value in values {
        producer.send(BaseRecord::<(), str>::to(topic).partition(partition).payload(*value)).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

pub async fn open(topic: &str, next_offsets: &[(i32, i64)]) -> KafkaSource {
    let mut source = KafkaSource::open(&settings(), topic, &Start::Earliest).await.unwrap();
    source.assign(&next_offsets.iter().copied().collect()).await.unwrap();
    source
}

/// Everything that was read, and the checkpoint that a table would have after committing it.
pub struct Read {
    pub records: Vec<RecordBatch>,
    pub checkpoint: Checkpoint,
}

impl Read {
    fn take(&mut self, batch: RawBatch) {
        let (partitions, offsets) = coordinates(&batch.records).unwrap();
        for row in 0..batch.records.num_rows() {
            assert!(
                batch.delta.partitions[&partitions.value(row)].range.contains(offsets.value(row)),
                "row {row} of {:?}",
                batch.delta
            );
        }
        assert_eq!(batch.delta.records(), batch.records.num_rows() as u64);
        self.checkpoint = self.checkpoint.advance(&batch.delta).unwrap();
        self.records.push(batch.records);
    }

    pub fn values(&self) -> Vec<String> {
        let values = |batch: &RecordBatch| {
            let values: &BinaryArray = column(batch, VALUE).unwrap();
            (0..values.len()).map(|row| String::from_utf8_lossy(values.value(row)).into_owned()).collect::<Vec<_>>()
        };
        self.records.iter().flat_map(values).collect()
    }

    pub fn offsets(&self) -> Vec<i64> {
        let offsets = |batch: &RecordBatch| {
            let offsets: &Int64Array = column(batch, lakesmith::record::OFFSET).unwrap();
            offsets.values().to_vec()
        };
        self.records.iter().flat_map(offsets).collect()
    }
}

/// Reads until the positions are at the given ends.
pub async fn read_to(source: &mut KafkaSource, ends: &BTreeMap<i32, OffsetRange>) -> Read {
    let mut read = Read { records: Vec::new(), checkpoint: Checkpoint::start("t", None, None) };
    let began = Instant::now();
    while ends.iter().any(|(partition, range)| source.positions().get(partition).is_none_or(|next| *next < range.end)) {
        assert!(began.elapsed() < PATIENCE, "positions {:?} do not reach {ends:?}", source.positions());
        if let Some(batch) = source.poll(&LIMITS).await.unwrap() {
            read.take(batch);
        }
    }
    read
}

/// Reads what is there now.
pub async fn read_all(source: &mut KafkaSource) -> Read {
    let ends = source.watermarks().await.unwrap();
    read_to(source, &ends).await
}

/// Polls until the source fails.
pub async fn failure(source: &mut KafkaSource) -> lakesmith::Error {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Err(error) = source.poll(&LIMITS).await {
            return error;
        }
    }
    panic!("the source goes on");
}
