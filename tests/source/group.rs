//! Members of a consumer group: who reads what, and that no offset is left out or read twice when partitions change hands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use lakesmith::checkpoint::Checkpoint;
use lakesmith::source::{Assignment, Change, KafkaSettings, KafkaSource, Source, Start};

use super::broker::{LIMITS, PATIENCE, producer, send, settings, with_topic};

/// A member, and what it has read beyond the tables' offsets.
struct Member {
    source: KafkaSource,
}

impl Member {
    async fn join(topic: &str, instance: Option<&str>) -> Self {
        let settings = KafkaSettings {
            group_id: topic.to_owned(),
            assignment: Assignment::Group,
            group_instance_id: instance.map(str::to_owned),
            ..settings()
        };
        let mut source = KafkaSource::open(&settings, topic, &Start::Earliest).await.unwrap();
        source.assign(&BTreeMap::new()).await.unwrap();
        Self { source }
    }

    /// Reads for a moment; whatever the table takes is in it afterwards. Changes are answered from the table.
    async fn step(&mut self, table: &mut Checkpoint) -> Option<Change> {
        if let Some(batch) = self.source.poll(&LIMITS).await.unwrap() {
            for (partition, coverage) in &batch.delta.partitions {
                let length = coverage.range.len() as u64;
                assert_eq!(coverage.records, length, "partition {partition}: records are left out of {}", coverage.range);
            }
            *table = table.advance(&batch.delta).expect("it continues the table");
            return None;
        }
        let change = self.source.change()?;
        self.source.answer(&table.next_offsets()).await.unwrap();
        Some(change)
    }

    fn owned(&self) -> BTreeSet<i32> {
        self.source.owned().expect("a member")
    }
}

/// Lets the members read until `done`.
async fn until(table: &mut Checkpoint, members: &mut [&mut Member], done: impl Fn(&Checkpoint, &[&mut Member]) -> bool) {
    let began = Instant::now();
    while !done(table, members) {
        assert!(began.elapsed() < PATIENCE, "{table:?}: {:?}", members.iter().map(|member| member.owned()).collect::<Vec<_>>());
        for member in members.iter_mut() {
            member.step(table).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_change_hands_without_a_record_left_out() {
    with_topic(4, &[], |topic| async move {
        let producer = producer(None);
        let mut sent = 0;
        let mut send_one_each = || {
            (0..4).for_each(|partition| send(&producer, &topic, partition, &["x"]));
            sent += 4;
            sent
        };
        let read = |records: u64| move |table: &Checkpoint, _: &[&mut Member]| table.records() == records;
        let shared = |_: &Checkpoint, members: &[&mut Member]| {
            let all: BTreeSet<i32> = members.iter().flat_map(|member| member.owned()).collect();
            all.len() == 4 && members.iter().all(|member| member.owned().len() == 4 / members.len())
        };
        let mut table = Checkpoint::start(topic.as_str(), None, None);
        let mut one = Member::join(&topic, None).await;
        until(&mut table, &mut [&mut one], shared).await;
        let all = send_one_each();
        until(&mut table, &mut [&mut one], read(all)).await;

        // All stand at their ends when the group rebalances: the next record of what stays must not be passed.
        let mut two = Member::join(&topic, Some("two")).await;
        until(&mut table, &mut [&mut one, &mut two], shared).await;
        for _ in 0..3 {
            let all = send_one_each();
            until(&mut table, &mut [&mut one, &mut two], read(all)).await;
        }
        assert!(one.owned().is_disjoint(&two.owned()));

        // One leaves: the other reads everything, from where the table is.
        one.source.leave().await;
        until(&mut table, &mut [&mut two], shared).await;
        let all = send_one_each();
        until(&mut table, &mut [&mut two], read(all)).await;
        two.source.leave().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_waits_for_its_answer() {
    with_topic(2, &[], |topic| async move {
        let producer = producer(None);
        let mut table = Checkpoint::start(topic.as_str(), None, None);
        let mut one = Member::join(&topic, None).await;
        until(&mut table, &mut [&mut one], |_, members| members[0].owned().len() == 2).await;
        let mut two = Member::join(&topic, None).await;
        let began = Instant::now();
        let revoked = loop {
            assert!(began.elapsed() < PATIENCE);
            assert_eq!(two.source.poll(&LIMITS).await.unwrap().map(|batch| batch.delta), None);
            if two.source.change().is_some() {
                two.source.answer(&table.next_offsets()).await.unwrap();
            }
            if one.source.poll(&LIMITS).await.unwrap().is_none()
                && let Some(change) = one.source.change()
            {
                match change {
                    Change::Revoked(partitions) => break partitions,
                    _ => one.source.answer(&table.next_offsets()).await.unwrap(),
                }
            }
        };
        // As long as nobody answers, nobody else gets them, and nothing is read.
        (0..2).for_each(|partition| send(&producer, &topic, partition, &["x"]));
        for _ in 0..4 {
            assert_eq!(one.source.poll(&LIMITS).await.unwrap().map(|batch| batch.delta), None);
            two.step(&mut table).await;
        }
        assert!(two.owned().is_empty(), "{:?}", two.owned());
        assert_eq!(one.source.change(), Some(Change::Revoked(revoked.clone())));
        until(&mut table, &mut [&mut one, &mut two], |table, _| table.records() == 2).await;
        assert_eq!(two.owned(), revoked);
        one.source.leave().await;
        two.source.leave().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_another_process_takes_expels_the_first() {
    with_topic(1, &[], |topic| async move {
        let mut table = Checkpoint::start(topic.as_str(), None, None);
        let mut one = Member::join(&topic, Some("same")).await;
        until(&mut table, &mut [&mut one], |_, members| members[0].owned().len() == 1).await;
        let mut two = Member::join(&topic, Some("same")).await;
        let began = Instant::now();
        let error = loop {
            assert!(began.elapsed() < PATIENCE);
            two.step(&mut table).await;
            if let Err(error) = one.source.poll(&LIMITS).await {
                break error;
            }
        };
        assert_eq!(error.kind(), lakesmith::Kind::Stop);
        assert!(error.to_string().contains("has expelled this process"), "{error}");
        assert!(error.hint_text().unwrap().contains("group_instance_id"));
        one.source.leave().await;
        two.source.leave().await;
    })
    .await;
}
