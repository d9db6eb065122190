//! Records that Kafka dropped before they were read, where the pipeline is told to go on.

use lakesmith::Kind;
use lakesmith::source::{KafkaSettings, KafkaSource, OnDataLoss, PollLimits, Source, Start};

use super::broker::*;

async fn open_to_skip(settings: &KafkaSettings, topic: &str, next_offsets: &[(i32, i64)]) -> KafkaSource {
    let mut source = KafkaSource::open_with(settings, topic, &Start::Earliest, OnDataLoss::Skip).await.unwrap();
    source.assign(&next_offsets.iter().copied().collect()).await.unwrap();
    source
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_dropped_before_the_start_is_passed_as_a_range_without_records() {
    with_topic(3, &[], async |topic: String| {
        send(&producer(None), &topic, 0, &["0", "1", "2", "3", "4"]);
        send(&producer(None), &topic, 1, &["a", "b"]);
        send(&producer(None), &topic, 2, &["x", "y"]);
        delete_records(&topic, 0, 3).await;
        // Nothing is left of this one.
        delete_records(&topic, 1, 2).await;
        let mut source = open_to_skip(&settings(), &topic, &[(0, 1), (1, 0), (2, 0)]).await;
        let read = read_all(&mut source).await;
        let mut values = read.values();
        values.sort();
        assert_eq!(values, ["3", "4", "x", "y"]);
        assert_eq!(read.checkpoint.positions(), "d;0:1+4-2;1:0+2-2;2:0+2");
        // What comes later is read on as ever.
        send(&producer(None), &topic, 1, &["c"]);
        assert_eq!(read_all(&mut source).await.checkpoint.positions(), "d;1:2+1");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_while_running_is_passed_where_reading_meets_it() {
    with_topic(1, &[], async |topic: String| {
        let large = "x".repeat(500_000);
        let values: Vec<String> = (0..40).map(|number| format!("{number:02}{large}")).collect();
        send(&producer(None), &topic, 0, &values.iter().map(String::as_str).collect::<Vec<_>>());
        // The queue has room for a few of the 20 MB, so that most of them are still at the broker when they are dropped.
        let settings = KafkaSettings { queue_bytes: bytesize::ByteSize::mib(1), ..settings() };
        let mut source = open_to_skip(&settings, &topic, &[(0, 0)]).await;
        let first = loop {
            if let Some(batch) = source.poll(&PollLimits { max_rows: 1, ..LIMITS }).await.unwrap() {
                break batch;
            }
        };
        assert_eq!(first.delta.to_string(), "d;0:0+1");
        delete_records(&topic, 0, 30).await;
        let read = read_all(&mut source).await;
        let offsets = read.offsets();
        let (before, after): (Vec<i64>, Vec<i64>) = offsets.iter().partition(|offset| **offset < 30);
        assert_eq!(before, (1..1 + before.len() as i64).collect::<Vec<_>>(), "what had been fetched, without a hole");
        assert!(before.len() < 25, "nothing was lost: {offsets:?}");
        assert_eq!(after, (30..40).collect::<Vec<_>>());
        let coverage = read.checkpoint.partitions[&0];
        assert_eq!((coverage.range.start, coverage.range.end, coverage.records), (1, 40, offsets.len() as u64));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_beyond_the_end_stops_all_the_same() {
    with_topic(1, &[], async |topic: String| {
        send(&producer(None), &topic, 0, &["0"]);
        let mut source = open_to_skip(&settings(), &topic, &[(0, 50)]).await;
        let error = failure(&mut source).await;
        assert_eq!(error.kind(), Kind::Stop);
        assert!(error.to_string().contains("beyond the end 1"), "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_topic_has_gaps_that_are_passed() {
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.0"),
        ("min.compaction.lag.ms", "0"),
        ("max.compaction.lag.ms", "100"),
        ("delete.retention.ms", "100"),
    ];
    with_topic(1, &configs, async |topic: String| {
        let producer = producer(None);
        let send_keyed = |key: &str, value: &str| {
            let record = rdkafka::producer::BaseRecord::to(&topic).partition(0).key(key).payload(value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
            rdkafka::producer::Producer::flush(&producer, PATIENCE).unwrap();
        };
        (0..50).for_each(|round| send_keyed("k", &format!("{round}")));
        // A record in a new segment lets the old ones be compacted; the broker's cleaner does it when it gets to it.
        let mut fewer = None;
        for round in 0..60 {
            send_keyed("other", &format!("{round}"));
            let mut source = open(&topic, &[(0, 0)]).await;
            let read = read_all(&mut source).await;
            let coverage = read.checkpoint.partitions[&0];
            assert_eq!(coverage.range.end, 51 + round, "the position passes the gaps");
            assert_eq!(coverage.records, read.offsets().len() as u64);
            if coverage.records < coverage.range.len() as u64 {
                fewer = Some(read);
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        let read = fewer.expect("the broker compacts the topic within 30 s");
        assert!(read.values().contains(&"49".to_owned()), "the last value of a key stays");
    })
    .await;
}
