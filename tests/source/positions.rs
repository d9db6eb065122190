//! Positions that Kafka can't honour, topics that are not what they were, partitions that come later.

use std::time::Duration;

use lakesmith::Kind;
use lakesmith::source::{KafkaSettings, KafkaSource, Source, Start};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::broker::*;

#[tokio::test(flavor = "multi_thread")]
async fn deleted_records_stop_a_table_that_needs_them_and_no_other() {
    with_topic(2, &[], async |topic: String| {
        send(&producer(None), &topic, 0, &["0", "1", "2", "3", "4"]);
        send(&producer(None), &topic, 1, &["a"]);
        delete_records(&topic, 0, 3).await;
        let mut behind = open(&topic, &[(0, 1), (1, 0)]).await;
        let error = failure(&mut behind).await;
        assert_eq!(error.kind(), Kind::Stop);
        let text = error.to_string();
        assert!(text.contains("offset 1 of") && text.contains(&topic) && text.contains("earliest available is 3"), "{text}");
        assert!(error.hint_text().unwrap().contains("lakesmith offsets"));
        assert_eq!(failure(&mut behind).await.to_string(), text, "it stays stopped");
        // A way out: the table is told to go on where Kafka does.
        behind.assign(&[(0, 3), (1, 1)].into()).await.unwrap();
        assert_eq!(read_all(&mut behind).await.values(), ["3", "4"]);
        // A report about an earlier assignment that comes late must not stop the present one.
        for _ in 0..5 {
            behind.assign(&[(0, 1), (1, 1)].into()).await.unwrap();
            behind.watermarks().await.unwrap();
            behind.assign(&[(0, 3), (1, 1)].into()).await.unwrap();
            assert_eq!(read_all(&mut behind).await.values(), ["3", "4"]);
        }
        // A table that knows nothing begins at what there is.
        let read = read_all(&mut open(&topic, &[]).await).await;
        assert_eq!(read.checkpoint.positions(), "d;0:3+2;1:0+1");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_beyond_the_end_stops() {
    with_topic(1, &[], async |topic: String| {
        send(&producer(None), &topic, 0, &["0"]);
        let error = failure(&mut open(&topic, &[(0, 50)]).await).await;
        assert_eq!(error.kind(), Kind::Stop);
        assert!(error.to_string().contains("offset 50") && error.to_string().contains("beyond the end 1"), "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_created_again_has_another_id_and_stops_a_running_source() {
    with_topic(1, &[], async |topic: String| {
        send(&producer(None), &topic, 0, &["old", "old"]);
        let mut source = open(&topic, &[]).await;
        assert_eq!(read_all(&mut source).await.values(), ["old", "old"]);
        delete_topic(&topic).await;
        // The name may be taken for a moment longer.
        let created = async || {
            create_topic(&topic, 1, &[]).await;
            KafkaSource::open(&settings(), &topic, &Start::Earliest).await.unwrap()
        };
        let mut again = created().await;
        for _ in 0..100 {
            if again.identity().topic_id != source.identity().topic_id {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            again = created().await;
        }
        assert_ne!(again.identity().topic_id, source.identity().topic_id);
        assert_eq!(again.identity().cluster_id, source.identity().cluster_id);
        assert!(again.identity().topic_id.is_some() && again.identity().cluster_id.is_some());
        // More records than the old topic had: the old position exists in the new topic, and must not be read on from.
        send(&producer(None), &topic, 0, &["new 0", "new 1", "new 2", "new 3"]);
        let error = failure(&mut source).await;
        assert_eq!(error.kind(), Kind::Stop);
        assert!(error.to_string().contains("created again") || error.to_string().contains("does not exist"), "{error}");
        assert_eq!(source.positions(), [(0, 2)].into(), "nothing of the new topic was handed out");
        assert_eq!(source.assign(&[(0, 2)].into()).await.unwrap_err().kind(), Kind::Stop);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn added_partitions_are_noticed_and_read_from_their_beginning() {
    with_topic(1, &[], async |topic: String| {
        let producer = producer(None);
        send(&producer, &topic, 0, &["a"]);
        let mut source = KafkaSource::open(&settings(), &topic, &Start::Latest).await.unwrap();
        source.assign(&[].into()).await.unwrap();
        assert_eq!(source.poll(&LIMITS).await.unwrap().unwrap().delta.to_string(), "d;0:1+0");
        add_partitions(&topic, 3).await;
        while source.watermarks().await.unwrap().len() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // A producer of its own, which knows of the partitions.
        let producer = super::broker::producer(None);
        send(&producer, &topic, 2, &["b", "c"]);
        send(&producer, &topic, 0, &["d"]);
        let read = read_all(&mut source).await;
        assert_eq!(read.checkpoint.positions(), "d;0:1+1;1:0+0;2:0+2");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_a_partition_that_is_not_there_stops() {
    with_topic(1, &[], async |topic: String| {
        let mut source = KafkaSource::open(&settings(), &topic, &Start::Earliest).await.unwrap();
        let error = source.assign(&[(0, 0), (4, 17)].into()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Stop);
        assert!(error.to_string().contains("partition 4"), "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_offsets_are_there_for_lag_tools() {
    with_topic(2, &[], async |topic: String| {
        let settings = KafkaSettings { group_id: topic.clone(), ..settings() };
        let mut source = KafkaSource::open(&settings, &topic, &Start::Earliest).await.unwrap();
        source.assign(&[].into()).await.unwrap();
        source.mark_committed(&[(0, 41), (1, 7)].into());
        let lag_tool: BaseConsumer = config().set("group.id", &topic).create().unwrap();
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition_range(&topic, 0, 1);
        for _ in 0..100 {
            source.poll(&LIMITS).await.unwrap();
            let found = lag_tool.committed_offsets(wanted.clone(), PATIENCE).unwrap();
            let offsets: Vec<Offset> = found.elements().iter().map(|element| element.offset()).collect();
            if offsets == [Offset::Offset(41), Offset::Offset(7)] {
                return;
            }
        }
        panic!("the group's offsets do not appear");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_and_a_missing_broker_are_told_apart() {
    let error = KafkaSource::open(&settings(), "lakesmith-no-such-topic", &Start::Earliest).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Stop);
    assert!(error.chain().contains("does not exist"), "{}", error.chain());
    let nobody = KafkaSettings { request_timeout: Duration::from_secs(1), ..KafkaSettings::with_brokers("127.0.0.1:1") };
    let error = KafkaSource::open(&nobody, "t", &Start::Earliest).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Transient);
    assert!(error.chain().contains("127.0.0.1:1"), "{}", error.chain());
}
