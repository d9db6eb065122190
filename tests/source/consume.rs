//! What comes out is what was put in, byte by byte, and where it was put.

use std::collections::BTreeSet;
use std::task::Poll;

use arrow::array::{Array, AsArray, BinaryArray, Int64Array, ListArray};
use arrow::datatypes::TimestampMicrosecondType;
use lakesmith::checkpoint::OffsetRange;
use lakesmith::record::{HEADERS, KEY, OFFSET, TIMESTAMP, VALUE, column};
use lakesmith::source::{KafkaSource, PollLimits, Source, Start};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};

use super::broker::*;

#[tokio::test(flavor = "multi_thread")]
async fn null_empty_and_arbitrary_bytes_headers_and_times_arrive_as_sent() {
    with_topic(1, &[], async |topic: String| {
        let producer = producer(None);
        let headers = OwnedHeaders::new()
            .insert(Header { key: "trace", value: Some(&b"\xff\x00\x01"[..]) })
            .insert(Header { key: "empty", value: Some(&b""[..]) })
            .insert(Header::<&[u8]> { key: "null", value: None });
        let to = || BaseRecord::<[u8], [u8]>::to(&topic).partition(0);
        let records = [
            to().key(b"k").payload(b"v").timestamp(1_700_000_000_123),
            to().key(b"").payload(b""),
            to().payload(b"\xc3\x28\x00\xff").headers(headers),
            to().key(b"\xfe\xed"),
            to(),
        ];
        records.into_iter().for_each(|record| producer.send(record).map_err(|(error, _)| error).unwrap());
        producer.flush(PATIENCE).unwrap();

        let mut source = open(&topic, &[]).await;
        let read = read_all(&mut source).await;
        assert_eq!(read.records.len(), 1, "one batch holds them all");
        let batch = &read.records[0];
        let keys: &BinaryArray = column(batch, KEY).unwrap();
        let values: &BinaryArray = column(batch, VALUE).unwrap();
        assert_eq!(keys.iter().collect::<Vec<_>>(), [Some(&b"k"[..]), Some(b""), None, Some(b"\xfe\xed"), None]);
        assert_eq!(values.iter().collect::<Vec<_>>(), [Some(&b"v"[..]), Some(b""), Some(b"\xc3\x28\x00\xff"), None, None]);
        let times = batch.column_by_name(TIMESTAMP).unwrap().as_primitive::<TimestampMicrosecondType>();
        assert_eq!(times.value(0), 1_700_000_000_123_000);
        assert!(times.is_valid(1), "the broker's or the producer's clock");
        let headers: &ListArray = column(batch, HEADERS).unwrap();
        assert_eq!((headers.is_null(0), headers.is_null(4)), (true, true));
        let row = headers.value(2);
        let (names, contents) = (row.as_struct().column(0).as_string::<i32>(), row.as_struct().column(1).as_binary::<i32>());
        assert_eq!(names.iter().collect::<Vec<_>>(), [Some("trace"), Some("empty"), Some("null")]);
        assert_eq!(contents.iter().collect::<Vec<_>>(), [Some(&b"\xff\x00\x01"[..]), Some(b""), None]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_partition_goes_on_where_it_stood() {
    with_topic(2, &[], async |topic: String| {
        let producer = producer(None);
        let values: Vec<String> = (0..150).map(|number| format!("value {number}")).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let sent = |range: std::ops::Range<usize>| (0..2).for_each(|id| send(&producer, &topic, id, &values[range.clone()]));
        sent(0..100);
        let mut source = open(&topic, &[]).await;
        assert_eq!(read_all(&mut source).await.checkpoint.positions(), "d;0:0+100;1:0+100");
        // Both stand at their ends. The one that is paused gets nothing, the other one goes on.
        source.pause(&[1].into()).await.unwrap();
        sent(100..120);
        assert_eq!(read_to(&mut source, &[(0, OffsetRange::new(0, 120))].into()).await.checkpoint.positions(), "d;0:100+20");
        assert_eq!(source.poll(&LIMITS).await.unwrap().map(|batch| batch.delta), None);
        sent(120..150);
        source.pause(&BTreeSet::new()).await.unwrap();
        let read = read_all(&mut source).await;
        assert_eq!(read.checkpoint.positions(), "d;0:120+30;1:100+50", "no record is left out");
        // Paused in the middle of what was fetched, and what an assignment makes of it.
        source.assign(&[(0, 0), (1, 0)].into()).await.unwrap();
        source.poll(&PollLimits { max_rows: 7, ..LIMITS }).await.unwrap().unwrap();
        source.pause(&[0, 1].into()).await.unwrap();
        source.pause(&[1].into()).await.unwrap();
        source.pause(&BTreeSet::new()).await.unwrap();
        read_all(&mut source).await;
        assert_eq!(source.positions(), [(0, 150), (1, 150)].into());
        source.pause(&[0, 1].into()).await.unwrap();
        source.assign(&[(0, 0), (1, 0)].into()).await.unwrap();
        assert_eq!(read_all(&mut source).await.checkpoint.records(), 300);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_offset_continues_without_a_repetition_or_a_hole() {
    with_topic(2, &[], async |topic: String| {
        let producer = producer(None);
        let values: Vec<String> = (0..500).map(|number| format!("value {number}")).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        send(&producer, &topic, 0, &values);
        send(&producer, &topic, 1, &values[..100]);
        let mut source = open(&topic, &[(0, 490), (1, 0)]).await;
        assert_eq!(read_all(&mut source).await.checkpoint.records(), 110);
        // The same source again from elsewhere: what it had fetched ahead must not come through.
        source.assign(&[(0, 3), (1, 99)].into()).await.unwrap();
        let read = read_all(&mut source).await;
        assert_eq!(read.checkpoint.positions(), "d;0:3+497;1:99+1");
        // Small batches join as well as large ones, and limits hold.
        source.assign(&[(0, 0), (1, 0)].into()).await.unwrap();
        let mut rows = 0;
        while rows < 600 {
            let batch = source.poll(&PollLimits { max_rows: 7, ..LIMITS }).await.unwrap().unwrap();
            assert!(batch.records.num_rows() <= 7);
            rows += batch.records.num_rows();
        }
        assert_eq!(source.positions(), [(0, 500), (1, 100)].into());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_show_committed_records_and_positions_pass_their_markers() {
    with_topic(1, &[], async |topic: String| {
        let producer = producer(Some(&topic));
        producer.begin_transaction().unwrap();
        send(&producer, &topic, 0, &["a", "b"]);
        producer.commit_transaction(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        send(&producer, &topic, 0, &["lost", "lost", "lost"]);
        producer.abort_transaction(PATIENCE).unwrap();
        // a, b, commit marker, three aborted records, abort marker
        let mut source = open(&topic, &[]).await;
        let ends = source.watermarks().await.unwrap();
        assert_eq!((ends[&0].start, ends[&0].end), (0, 7));
        let read = read_to(&mut source, &ends).await;
        assert_eq!((read.values(), read.checkpoint.positions()), (vec!["a".to_owned(), "b".to_owned()], "d;0:0+7-5".to_owned()));

        // An open transaction holds the end back, and its end lets it go.
        producer.begin_transaction().unwrap();
        send(&producer, &topic, 0, &["c"]);
        assert_eq!(source.watermarks().await.unwrap()[&0].end, 7);
        assert!(source.poll(&LIMITS).await.unwrap().is_none());
        producer.commit_transaction(PATIENCE).unwrap();
        assert_eq!(read_all(&mut source).await.values(), ["c"]);
        assert_eq!(source.positions(), [(0, 9)].into());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_ten_megabytes_passes_and_the_byte_limit_splits_batches() {
    with_topic(1, &[("max.message.bytes", "20000000")], async |topic: String| {
        let producer = producer(None);
        let large = "x".repeat(10 << 20);
        send(&producer, &topic, 0, &["small", &large, "small", &large]);
        let mut source = open(&topic, &[]).await;
        let mut sizes = Vec::new();
        while sizes.iter().sum::<usize>() < 4 {
            if let Some(batch) = source.poll(&PollLimits { max_bytes: 1 << 20, ..LIMITS }).await.unwrap() {
                sizes.push(batch.records.num_rows());
            }
        }
        assert!(sizes.len() >= 2, "{sizes:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_unread_messages_can_be_closed() {
    with_topic(1, &[], async |topic: String| {
        let producer = producer(None);
        let values: Vec<String> = (0..500).map(|number| number.to_string()).collect();
        send(&producer, &topic, 0, &values.iter().map(String::as_str).collect::<Vec<_>>());
        let mut source = open(&topic, &[]).await;
        // One row of many that librdkafka has handed over by then.
        while source.poll(&PollLimits { max_rows: 1, ..LIMITS }).await.unwrap().is_none_or(|batch| batch.records.num_rows() == 0)
        {
        }
        let closed = tokio::task::spawn_blocking(move || drop(source));
        tokio::time::timeout(std::time::Duration::from_secs(30), closed).await.expect("closed within 30 s").unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_that_is_dropped_loses_nothing() {
    with_topic(1, &[], async |topic: String| {
        let mut source = open(&topic, &[]).await;
        let producer = producer(None);
        let mut offsets = Vec::new();
        for round in 0..20 {
            send(&producer, &topic, 0, &[&format!("value {round}")]);
            // Mostly not ready, and dropped at once.
            if let Poll::Ready(batch) = futures::poll!(std::pin::pin!(source.poll(&LIMITS))) {
                let batch = batch.unwrap().unwrap();
                offsets.extend_from_slice(column::<Int64Array>(&batch.records, OFFSET).unwrap().values());
            }
        }
        offsets.extend(read_all(&mut source).await.offsets());
        assert_eq!(offsets, (0..20).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_knows_nothing_begins_at_the_configured_start_and_remembers_it() {
    with_topic(2, &[], async |topic: String| {
        let producer = producer(None);
        for (value, time) in [("old", 1_000), ("new", 2_000)] {
            producer
                .send(BaseRecord::<(), str>::to(&topic).partition(0).payload(value).timestamp(time))
                .map_err(|(error, _)| error)
                .unwrap();
            producer.flush(PATIENCE).unwrap();
        }
        let begin = async |start: &str| {
            let start: Start = start.parse().unwrap();
            let mut source = KafkaSource::open(&settings(), &topic, &start).await.unwrap();
            source.assign(&[].into()).await.unwrap();
            let delta = source.poll(&LIMITS).await.unwrap().unwrap().delta;
            delta.to_string()
        };
        assert_eq!(begin("earliest").await, "d;0:0+2;1:0+0");
        assert_eq!(begin("latest").await, "d;0:2+0;1:0+0");
        assert_eq!(begin("0:1").await, "d;0:1+1;1:0+0");
        assert_eq!(begin("1970-01-01T00:00:01.500Z").await, "d;0:1+1;1:0+0");
        assert_eq!(begin("2099-01-01T00:00:00Z").await, "d;0:2+0;1:0+0");
    })
    .await;
}
