//! What Kafka says about a topic: its id and its partitions.
//!
//! rdkafka has no call for it, and the id is what tells a topic that was deleted and created again from the old one, so this file calls
//! librdkafka's DescribeTopics (one metadata request) itself.
//!
//! *Invariants* that the unsafe blocks rely on: the handle lives for as long as the `Client` that lends it; what hangs on an event lives
//! until the event is destroyed, so everything is copied out before; each object created here is destroyed on every path, by [`Owned`].

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as ffi;
use rdkafka::client::Client;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{ClientContext, Offset};

use super::ends::log_ends;
use super::native::{Consumer, millis};
use crate::checkpoint::{OffsetRange, PartitionId};
use crate::error::{Error, Result};

/// A topic as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// In the form that Kafka's own tools print; none from brokers before 2.8.
    pub topic_id: Option<String>,
    pub partitions: Vec<PartitionDescription>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionDescription {
    pub partition: PartitionId,
    /// Broker id; none while the partition has no leader.
    pub leader: Option<i32>,
    pub replicas: Vec<i32>,
    pub in_sync_replicas: Vec<i32>,
}

/// A topic on its cluster, for questions that need no position.
#[derive(Clone)]
pub(super) struct Topic {
    pub name: String,
    pub consumer: Arc<Consumer>,
    pub timeout: Duration,
}

impl Topic {
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    pub fn describe(&self) -> Result<TopicDescription> {
        let described = describe_topic(self.consumer.client(), &self.name, self.timeout)?;
        self.consumer.events().reached();
        described.ok_or_else(|| {
            Error::stop(format!("topic {} does not exist", self.name))
                .hint(format!("check source.topic, or create it with `lakesmith topic create {}`", self.name))
        })
    }

    pub fn offsets(&self, partitions: &[PartitionId], at: Offset) -> Result<BTreeMap<PartitionId, i64>> {
        self.consumer.list_offsets(&self.name, partitions, at, self.timeout)
    }

    /// The offset behind the last record of each partition, whether its transaction has ended or not.
    pub fn log_ends(&self) -> Result<BTreeMap<PartitionId, i64>> {
        let partitions: Vec<PartitionId> = self.describe()?.partitions.iter().map(|partition| partition.partition).collect();
        log_ends(self.consumer.client(), &self.name, &partitions, self.timeout)
    }

    pub fn watermarks(&self) -> Result<BTreeMap<PartitionId, OffsetRange>> {
        let partitions: Vec<PartitionId> = self.describe()?.partitions.iter().map(|partition| partition.partition).collect();
        // The end first: deletions between the two calls only move the beginning up.
        let ends = self.offsets(&partitions, Offset::End)?;
        let begins = self.offsets(&partitions, Offset::Beginning)?;
        Ok(begins
            .into_iter()
            .filter_map(|(id, start)| ends.get(&id).map(|&end| (id, OffsetRange { start, end: end.max(start) })))
            .collect())
    }
}

/// Asks for a topic; none if it does not exist. Blocks for up to `timeout`; any failure is transient except a refusal.
pub(super) fn describe_topic<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<TopicDescription>> {
    let failed = |reason: String| Error::transient(format!("topic {topic} could not be described: {reason}"));
    let name = CString::new(topic).map_err(|_| Error::config("a topic's name may not hold a zero byte"))?;
    let handle = client.native_ptr();
    // SAFETY: `name` and the array of one pointer to it outlive the call, which copies the text.
    let names = unsafe { ffi::rd_kafka_TopicCollection_of_topic_names([name.as_ptr()].as_mut_ptr(), 1) };
    let names = Owned::new(names, ffi::rd_kafka_TopicCollection_destroy)?;
    // SAFETY: the handle is valid.
    let queue = Owned::new(unsafe { ffi::rd_kafka_queue_new(handle) }, ffi::rd_kafka_queue_destroy)?;
    // SAFETY: the handle is valid.
    let options = unsafe { ffi::rd_kafka_AdminOptions_new(handle, ffi::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS) };
    let options = Owned::new(options, ffi::rd_kafka_AdminOptions_destroy)?;
    // SAFETY: all objects are valid, a reason is not asked for; the request copies what it needs and answers on our own queue.
    let event = unsafe {
        ffi::rd_kafka_AdminOptions_set_request_timeout(options.ptr(), millis(timeout), ptr::null_mut(), 0);
        ffi::rd_kafka_DescribeTopics(handle, names.ptr(), options.ptr(), queue.ptr());
        ffi::rd_kafka_queue_poll(queue.ptr(), millis(timeout))
    };
    if event.is_null() {
        return Err(failed(format!("no answer within {}", humantime::format_duration(timeout))));
    }
    let event = Owned::new(event, ffi::rd_kafka_event_destroy)?;
    // SAFETY: the event is valid until `event` is dropped, and so is all that is reached through it.
    unsafe {
        if ffi::rd_kafka_event_error(event.ptr()) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(failed(copy_text(ffi::rd_kafka_event_error_string(event.ptr()))));
        }
        let result = ffi::rd_kafka_event_DescribeTopics_result(event.ptr());
        if result.is_null() {
            return Err(failed("the answer is of another kind".to_owned()));
        }
        let mut count = 0;
        let topics = ffi::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if topics.is_null() || count != 1 {
            return Err(failed(format!("the answer is about {count} topics")));
        }
        let description = *topics;
        let error = ffi::rd_kafka_TopicDescription_error(description);
        if !error.is_null() && ffi::rd_kafka_error_code(error) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return match RDKafkaErrorCode::from(ffi::rd_kafka_error_code(error)) {
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => Ok(None),
                RDKafkaErrorCode::TopicAuthorizationFailed => {
                    Err(Error::stop(format!("Kafka refuses to describe topic {topic}: not authorized"))
                        .hint("grant Describe and Read on the topic"))
                }
                _ => Err(failed(copy_text(ffi::rd_kafka_error_string(error)))),
            };
        }
        Ok(Some(TopicDescription { topic_id: topic_id(description), partitions: partitions(description) }))
    }
}

/// # Safety
/// `description` belongs to a live event.
unsafe fn topic_id(description: *const ffi::rd_kafka_TopicDescription_t) -> Option<String> {
    // SAFETY: by the contract above; the id belongs to the description.
    let (high, low) = unsafe {
        let id = ffi::rd_kafka_TopicDescription_topic_id(description);
        if id.is_null() {
            return None;
        }
        (ffi::rd_kafka_Uuid_most_significant_bits(id), ffi::rd_kafka_Uuid_least_significant_bits(id))
    };
    ((high, low) != (0, 0)).then(|| uuid_text(high as u64, low as u64))
}

/// # Safety
/// `description` belongs to a live event.
unsafe fn partitions(description: *const ffi::rd_kafka_TopicDescription_t) -> Vec<PartitionDescription> {
    let mut count = 0;
    // SAFETY: by the contract above; librdkafka gives arrays of `count` valid pointers that belong to the description.
    unsafe {
        let list = ffi::rd_kafka_TopicDescription_partitions(description, &mut count);
        slice(list, count)
            .iter()
            .map(|&info| {
                let (mut replicas, mut in_sync) = (0, 0);
                let leader = ffi::rd_kafka_TopicPartitionInfo_leader(info);
                let replica_list = ffi::rd_kafka_TopicPartitionInfo_replicas(info, &mut replicas);
                let in_sync_list = ffi::rd_kafka_TopicPartitionInfo_isr(info, &mut in_sync);
                PartitionDescription {
                    partition: ffi::rd_kafka_TopicPartitionInfo_partition(info),
                    leader: if leader.is_null() { None } else { Some(ffi::rd_kafka_Node_id(leader)).filter(|id| *id >= 0) },
                    replicas: slice(replica_list, replicas).iter().map(|&node| ffi::rd_kafka_Node_id(node)).collect(),
                    in_sync_replicas: slice(in_sync_list, in_sync).iter().map(|&node| ffi::rd_kafka_Node_id(node)).collect(),
                }
            })
            .collect()
    }
}

/// # Safety
/// `list` is null, or points to `count` elements that live for `'a`.
pub(super) unsafe fn slice<'a, T>(list: *mut T, count: usize) -> &'a [T] {
    // SAFETY: by the contract above.
    if list.is_null() { &[] } else { unsafe { std::slice::from_raw_parts(list, count) } }
}

/// # Safety
/// `text` is null, or ends with a zero byte.
pub(super) unsafe fn copy_text(text: *const c_char) -> String {
    // SAFETY: by the contract above.
    if text.is_null() { "no reason given".to_owned() } else { unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned() }
}

/// Kafka's text form of a UUID: base64 for URLs, without padding. (librdkafka's own function uses the other alphabet.)
fn uuid_text(high: u64, low: u64) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = (u128::from(high) << 64) | u128::from(low);
    // 128 bits are 21 digits of 6 bits and one of 2, which is filled up with zeros.
    (0..22)
        .map(|digit| if digit < 21 { bits >> (122 - 6 * digit) } else { bits << 4 })
        .map(|value| DIGITS[(value & 63) as usize] as char)
        .collect()
}

/// An object of librdkafka that is destroyed when it goes out of scope.
pub(super) struct Owned<T> {
    object: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    pub fn new(object: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Result<Self> {
        let object = NonNull::new(object).ok_or_else(|| Error::failed("librdkafka could not create an object"))?;
        Ok(Self { object, destroy })
    }

    pub fn ptr(&self) -> *mut T {
        self.object.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the object is ours and `destroy` is its destructor; nothing uses it after this.
        unsafe { (self.destroy)(self.object.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_as_kafka_writes_them() {
        // org.apache.kafka.common.Uuid: ONE_UUID is (0, 1).
        assert_eq!(uuid_text(0, 1), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(uuid_text(u64::MAX, u64::MAX), "_____________________w");
        assert_eq!(uuid_text(0x0011_2233_4455_6677, 0x8899_aabb_ccdd_eeff), "ABEiM0RVZneImaq7zN3u_w");
    }
}
