//! `produce` and `topic` on a real broker.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, AsArray, BinaryArray};
use arrow::datatypes::TimestampMicrosecondType;
use chrono::DateTime;
use lakesmith::record::{KEY, TIMESTAMP, VALUE, column};
use lakesmith::source::generator::{GeneratorSettings, Messages};
use lakesmith::source::produce::{OnBadRow, Pace, ProduceEvent, ProduceInput, ProduceOptions, Timestamps, produce};
use lakesmith::source::topic::{Created, Follow, TailOptions, TopicSpec, create, describe, tail};

use super::broker::*;

fn csv_file(text: &str) -> (tempfile::TempDir, ProduceInput) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sales.csv");
    std::fs::write(&path, text).unwrap();
    (dir, ProduceInput::File { path, format: None })
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_rows_arrive_as_messages_and_bad_rows_are_reported_with_their_line() {
    with_topic(1, &[], async |topic: String| {
        let (_dir, input) = csv_file("OrderID,Quantity,Tax,Note\nA,1,0.50,\"say \"\"hi\"\"\"\nB,x,1,\nC,3,1e2,x\nD,4\n");
        let mut options = ProduceOptions::new(settings(), &topic, input);
        options.key_column = Some("OrderID".to_owned());
        options.numeric_columns = vec!["Quantity".to_owned(), "Tax".to_owned()];
        options.timestamps =
            Some(Timestamps { start: DateTime::from_timestamp(1_000, 0).unwrap(), step: Duration::from_secs(60) });
        let bad = Arc::new(Mutex::new(Vec::new()));
        let reported = bad.clone();
        let summary = produce(options.clone(), move |event| {
            if let ProduceEvent::BadRow { line, .. } = event {
                reported.lock().unwrap().push(line);
            }
        })
        .await
        .unwrap();
        assert_eq!((summary.sent, summary.failed, summary.skipped, summary.failure), (2, 0, 2, None));
        assert_eq!(*bad.lock().unwrap(), [3, 5]);
        let read = read_all(&mut open(&topic, &[]).await).await;
        assert_eq!(
            read.values(),
            [
                r#"{"OrderID":"A","Quantity":1,"Tax":0.50,"Note":"say \"hi\""}"#,
                r#"{"OrderID":"C","Quantity":3,"Tax":1e2,"Note":"x"}"#
            ]
        );
        let keys: &BinaryArray = column(&read.records[0], KEY).unwrap();
        assert_eq!(keys.iter().collect::<Vec<_>>(), [Some(&b"A"[..]), Some(b"C")]);
        let times = read.records[0].column_by_name(TIMESTAMP).unwrap().as_primitive::<TimestampMicrosecondType>();
        assert_eq!(times.values(), &[1_000_000_000, 1_060_000_000]);

        options.on_bad_row = OnBadRow::Stop;
        let error = produce(options, |_| {}).await.unwrap_err();
        assert!(error.to_string().contains("line 3") && error.hint_text().unwrap().starts_with("1 messages"), "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_sales_arrive_with_their_bad_messages_times_and_a_bounded_queue() {
    with_topic(3, &[], async |topic: String| {
        let generator = GeneratorSettings { rows: 3_000, bad_share: 0.05, ..GeneratorSettings::default() };
        let mut kafka = settings();
        kafka.options.insert("queue.buffering.max.messages".to_owned(), "50".to_owned());
        let options = ProduceOptions::new(kafka, &topic, ProduceInput::Generator(generator.clone()));
        let summary = produce(options, |_| {}).await.unwrap();
        assert_eq!((summary.sent, summary.failed), (3_000, 0));
        let read = read_all(&mut open(&topic, &[]).await).await;
        let mut found = Vec::new();
        for batch in &read.records {
            let (keys, values): (&BinaryArray, &BinaryArray) = (column(batch, KEY).unwrap(), column(batch, VALUE).unwrap());
            let times = batch.column_by_name(TIMESTAMP).unwrap().as_primitive::<TimestampMicrosecondType>();
            for row in 0..batch.num_rows() {
                let value = values.is_valid(row).then(|| values.value(row).to_vec());
                found.push((keys.value(row).to_vec(), value, times.value(row)));
            }
        }
        found.sort();
        let mut messages = Messages::new(&generator);
        let expected = (0..3_000).map(|row| {
            let message = messages.message(row);
            (message.key.to_vec(), message.value.map(<[u8]>::to_vec), message.timestamp_us)
        });
        assert!(found.into_iter().eq(expected), "keys, values and times are those of the generator");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_missing_is_said_before_anything_is_sent() {
    let (_dir, input) = csv_file("a\n1\n");
    let error = produce(ProduceOptions::new(settings(), "lakesmith-no-such-topic", input), |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("does not exist"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paced_run_that_is_dropped_ends_early() {
    with_topic(1, &[], async |topic: String| {
        let input = ProduceInput::Generator(GeneratorSettings::default());
        let options =
            ProduceOptions { pace: Pace::Delay(Duration::from_secs(60)), ..ProduceOptions::new(settings(), &topic, input) };
        let run = tokio::time::timeout(Duration::from_secs(2), produce(options, |_| {})).await;
        assert!(run.is_err(), "the run waits for its second message");
        assert_eq!(read_all(&mut open(&topic, &[]).await).await.offsets(), [0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_created_once_described_and_tailed() {
    with_topic(2, &[("retention.ms", "86400000")], async |topic: String| {
        let spec = TopicSpec { name: topic.clone(), partitions: 2, replication: 1, configs: [].into() };
        assert_eq!(create(&settings(), &spec).await.unwrap(), Created::AlreadyThere);
        let options = ProduceOptions {
            timestamps: Some(Timestamps { start: DateTime::from_timestamp(5, 0).unwrap(), step: Duration::from_secs(1) }),
            key_column: Some("id".to_owned()),
            ..ProduceOptions::new(settings(), &topic, csv_file("id\n1\n2\n3\n4\n5\n6\n7\n8\n9\n").1)
        };
        // The file is gone with its directory: the input must say so.
        assert!(produce(options.clone(), |_| {}).await.is_err());
        let (_dir, input) = csv_file("id\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
        produce(ProduceOptions { input, ..options }, |_| {}).await.unwrap();
        let report = describe(&settings(), &topic).await.unwrap();
        assert_eq!(report.partitions.len(), 2);
        assert!(report.partitions.iter().all(|it| it.partition.leader.is_some() && it.partition.in_sync_replicas.len() == 1));
        assert_eq!(report.partitions.iter().map(|it| it.offsets.unwrap().len()).sum::<i64>(), 9);
        let mut shown = Vec::new();
        tail(&settings(), &topic, TailOptions { last: 4, follow: Follow::No }, &mut |batch| {
            let values: &BinaryArray = column(batch, VALUE)?;
            shown.extend(values.iter().map(|value| String::from_utf8_lossy(value.unwrap_or_default()).into_owned()));
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(shown, [r#"{"id":"6"}"#, r#"{"id":"7"}"#, r#"{"id":"8"}"#, r#"{"id":"9"}"#]);
    })
    .await;
}
