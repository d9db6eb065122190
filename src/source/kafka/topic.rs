//! Create, describe and look into topics: what `lakesmith topic` does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use rdkafka::Offset;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::types::RDKafkaErrorCode;

use super::describe::{PartitionDescription, Topic, describe_topic};
use super::events::Events;
use super::native::Consumer;
use super::{KafkaSettings, KafkaSource};
use crate::checkpoint::{OffsetRange, PartitionId};
use crate::error::{Error, Result};
use crate::record::{OFFSET, PARTITION, TIMESTAMP, raw_schema};
use crate::retry::{Backoff, RetrySettings, with_deadline};
use crate::source::{PollLimits, Source, Start, blocking};

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    pub name: String,
    pub partitions: u32,
    pub replication: u32,
    /// Topic configuration under Kafka's names, such as `retention.ms`.
    pub configs: BTreeMap<String, String>,
}

/// Whether [`create`] had anything to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    Yes,
    AlreadyThere,
}

/// Creates a topic and waits until it can be described. An existing topic of the name is left as it is.
pub async fn create(settings: &KafkaSettings, spec: &TopicSpec) -> Result<Created> {
    settings.validate()?;
    let failed = || format!("topic {} could not be created", spec.name);
    let admin: AdminClient<Events> = settings
        .admin()
        .create_with_context(Events::default())
        .map_err(|error| Error::config("the Kafka client could not be created").caused_by(error))?;
    let (partitions, replication) = (spec.partitions as i32, TopicReplication::Fixed(spec.replication as i32));
    let topic = NewTopic::new(&spec.name, partitions, replication);
    let topic = spec.configs.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
    let options =
        AdminOptions::new().request_timeout(Some(settings.request_timeout)).operation_timeout(Some(settings.request_timeout));
    let results = with_deadline(
        &format!("creating topic {}", spec.name),
        settings.request_timeout * 2,
        admin.create_topics([&topic], &options),
    )
    .await?
    .map_err(|error| Error::transient(failed()).caused_by(error).hint("check the brokers' addresses"))?;
    let created = match results.into_iter().next() {
        Some(Ok(_)) => Created::Yes,
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Created::AlreadyThere,
        Some(Err((_, code))) => return Err(Error::failed(failed()).caused_by(code)),
        None => return Err(Error::failed(failed())),
    };
    let topic = connect(settings, &spec.name).await?;
    let mut backoff = Backoff::new(&RetrySettings { attempts: 20, ..RetrySettings::default() });
    while !exists(&topic).await? {
        if !backoff.wait().await {
            return Err(Error::transient(format!("topic {} was created but does not appear", spec.name))
                .hint("look again with `lakesmith topic describe`"));
        }
    }
    Ok(created)
}

async fn exists(topic: &Topic) -> Result<bool> {
    let topic = topic.clone();
    blocking(move || Ok(describe_topic(topic.consumer.client(), &topic.name, topic.timeout)?.is_some())).await
}

async fn connect(settings: &KafkaSettings, name: &str) -> Result<Topic> {
    settings.validate()?;
    let (settings, name) = (settings.clone(), name.to_owned());
    blocking(move || {
        Ok(Topic { name, consumer: Arc::new(Consumer::new(&settings.consumer())?), timeout: settings.request_timeout })
    })
    .await
}

/// What [`describe`] finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicReport {
    pub name: String,
    pub topic_id: Option<String>,
    pub cluster_id: Option<String>,
    pub partitions: Vec<PartitionReport>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionReport {
    pub partition: PartitionDescription,
    /// Earliest offset and high watermark; none while the partition can't be asked.
    pub offsets: Option<OffsetRange>,
}

/// Describes a topic with its partitions' leaders and offsets.
pub async fn describe(settings: &KafkaSettings, name: &str) -> Result<TopicReport> {
    let mut settings = settings.clone();
    // The high watermark is wanted, not the end of the last finished transaction.
    settings.options.insert("isolation.level".to_owned(), "read_uncommitted".to_owned());
    let topic = connect(&settings, name).await?;
    blocking(move || {
        let description = topic.describe()?;
        let offsets = |partition: PartitionId| -> Option<OffsetRange> {
            let end = *topic.offsets(&[partition], Offset::End).ok()?.get(&partition)?;
            let start = *topic.offsets(&[partition], Offset::Beginning).ok()?.get(&partition)?;
            Some(OffsetRange { start, end: end.max(start) })
        };
        let all = topic.watermarks();
        let partitions = description.partitions.into_iter().map(|partition| {
            let id = partition.partition;
            // One partition without a leader must not hide the others.
            let offsets = all.as_ref().map_or_else(|_| offsets(id), |all| all.get(&id).copied());
            PartitionReport { partition, offsets }
        });
        Ok(TopicReport {
            topic_id: description.topic_id,
            partitions: partitions.collect(),
            cluster_id: topic.consumer.client().fetch_cluster_id(topic.timeout),
            name: topic.name,
        })
    })
    .await
}

/// Whether [`tail`] ends with the records there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    No,
    Yes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailOptions {
    /// Newest records to show, over all partitions.
    pub last: u64,
    pub follow: Follow,
}

/// Gives the newest records, oldest first, and then, if asked to, those that follow for as long as `each` returns `Ok`. Batches have the
/// columns of [`raw_schema`]. Partitions whose records are far apart in time are cut by timestamp.
pub async fn tail(
    settings: &KafkaSettings,
    name: &str,
    options: TailOptions,
    each: &mut (dyn FnMut(&RecordBatch) -> Result<()> + Send),
) -> Result<()> {
    let mut source = KafkaSource::open(settings, name, &Start::Latest).await?;
    let watermarks = source.watermarks().await?;
    let last = i64::try_from(options.last).unwrap_or(i64::MAX);
    let starts = watermarks.iter().map(|(&id, range)| (id, range.end.saturating_sub(last).max(range.start))).collect();
    source.assign(&starts).await?;
    let limits = PollLimits { max_wait: Duration::from_millis(200), ..PollLimits::default() };
    let mut found = Vec::new();
    while watermarks.iter().any(|(id, range)| source.positions().get(id).is_some_and(|next| *next < range.end)) {
        found.extend(source.poll(&limits).await?.map(|batch| batch.records));
    }
    let newest = newest(&concat_batches(&raw_schema(), &found)?, options.last)?;
    if newest.num_rows() > 0 {
        each(&newest)?;
    }
    if options.follow == Follow::No {
        return Ok(());
    }
    loop {
        if let Some(batch) = source.poll(&limits).await?
            && batch.records.num_rows() > 0
        {
            each(&batch.records)?;
        }
    }
}

/// The last `count` rows by time, then partition and offset.
fn newest(records: &RecordBatch, count: u64) -> Result<RecordBatch> {
    let by = [TIMESTAMP, PARTITION, OFFSET]
        .map(|name| records.column_by_name(name).map(|values| SortColumn { values: values.clone(), options: None }));
    let order = lexsort_to_indices(&by.into_iter().flatten().collect::<Vec<_>>(), None)?;
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(order.len());
    Ok(take_record_batch(records, &order.slice(order.len() - count, count))?)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;
    use crate::record::column;
    use crate::source::RawBatchBuilder;

    #[test]
    fn the_newest_records_are_those_with_the_latest_times() {
        let mut builder = RawBatchBuilder::new("t");
        builder.reset(&BTreeMap::from([(0, 0), (1, 10)]), |_| false);
        for (partition, offset, time) in [(0, 0, 5), (0, 1, 50), (1, 10, 7), (1, 11, 6)] {
            builder.append(partition, offset, Some(time), None, None, &[]);
        }
        let newest = newest(&builder.finish(0).unwrap().records, 2).unwrap();
        let offsets: &Int64Array = column(&newest, OFFSET).unwrap();
        assert_eq!(offsets.values(), &[10, 1]);
    }
}
