//! Where the logs of a topic's partitions end, open transactions included.
//!
//! The consumer's own question answers with the last stable offset, where reading stops for now. Records behind it may be older than that
//! answer, so it proves nothing about time; this one asks for the end of the log, whatever the consumer's isolation level.
//!
//! *Invariants* that the unsafe blocks rely on: those of [`super::describe`].

use std::collections::BTreeMap;
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as ffi;
use rdkafka::client::Client;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::describe::{Owned, copy_text, slice};
use super::native::millis;
use crate::checkpoint::PartitionId;
use crate::error::{Error, Result};

/// Asks for the ends. Blocks for up to `timeout`; any failure is transient.
pub(super) fn log_ends<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partitions: &[PartitionId],
    timeout: Duration,
) -> Result<BTreeMap<PartitionId, i64>> {
    let failed = |reason: String| Error::transient(format!("the ends of topic {topic} could not be listed: {reason}"));
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for &partition in partitions {
        // The number that stands for the end is the one that this question uses for its latest offset.
        list.add_partition_offset(topic, partition, Offset::End).map_err(|error| failed(error.to_string()))?;
    }
    let handle = client.native_ptr();
    // SAFETY: the handle is valid.
    let queue = Owned::new(unsafe { ffi::rd_kafka_queue_new(handle) }, ffi::rd_kafka_queue_destroy)?;
    // SAFETY: the handle is valid.
    let options = unsafe { ffi::rd_kafka_AdminOptions_new(handle, ffi::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS) };
    let options = Owned::new(options, ffi::rd_kafka_AdminOptions_destroy)?;
    // SAFETY: all objects are valid, a reason is not asked for; the request copies the list and answers on our own queue.
    let event = unsafe {
        ffi::rd_kafka_AdminOptions_set_request_timeout(options.ptr(), millis(timeout), ptr::null_mut(), 0);
        let refused = ffi::rd_kafka_AdminOptions_set_isolation_level(
            options.ptr(),
            ffi::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
        );
        if !refused.is_null() {
            ffi::rd_kafka_error_destroy(refused);
            return Err(failed("librdkafka refuses to read open transactions".to_owned()));
        }
        ffi::rd_kafka_ListOffsets(handle, list.ptr(), options.ptr(), queue.ptr());
        ffi::rd_kafka_queue_poll(queue.ptr(), millis(timeout))
    };
    if event.is_null() {
        return Err(failed(format!("no answer within {}", humantime::format_duration(timeout))));
    }
    let event = Owned::new(event, ffi::rd_kafka_event_destroy)?;
    let mut ends = BTreeMap::new();
    // SAFETY: the event is valid until `event` is dropped, and so is all that is reached through it.
    unsafe {
        if ffi::rd_kafka_event_error(event.ptr()) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(failed(copy_text(ffi::rd_kafka_event_error_string(event.ptr()))));
        }
        let result = ffi::rd_kafka_event_ListOffsets_result(event.ptr());
        if result.is_null() {
            return Err(failed("the answer is of another kind".to_owned()));
        }
        let mut count = 0;
        let infos = ffi::rd_kafka_ListOffsets_result_infos(result, &mut count);
        for &info in slice(infos, count) {
            let end = ffi::rd_kafka_ListOffsetsResultInfo_topic_partition(info);
            if end.is_null() {
                continue;
            }
            let end = &*end;
            if end.err != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                let reason = copy_text(ffi::rd_kafka_err2str(end.err));
                return Err(failed(format!("partition {}: {reason}", end.partition)));
            }
            ends.insert(end.partition, end.offset);
        }
    }
    match partitions.iter().find(|partition| !ends.contains_key(partition)) {
        None => Ok(ends),
        Some(partition) => Err(failed(format!("the answer lacks partition {partition}"))),
    }
}
