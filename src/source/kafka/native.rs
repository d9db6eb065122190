//! The consumer below rdkafka's safe interface: many records per call, lent without a copy, and the end of a partition with its offset.
//!
//! rdkafka hands out records one by one, each with its own allocations, and reports the end of a partition without saying at which
//! offset; both matter here, so this file calls librdkafka itself for exactly these: polling in batches, assigning, committing offsets
//! without waiting, and listing offsets for all partitions in one request per broker.
//!
//! *Invariants* that the unsafe blocks rely on: librdkafka's handle is thread safe and lives as long as [`Consumer`]; a message that
//! `rd_kafka_consume_batch_queue` returned belongs to the caller until it is destroyed, and its payload lives as long; no event types are
//! enabled on the handle, so the consumer queue holds nothing but records, consumer errors and callbacks.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as ffi;
use rdkafka::client::Client;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr, RDKafkaType};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::events::Events;
use super::membership::{on_rebalance, partition_list};
use crate::checkpoint::PartitionId;
use crate::error::{Error, Result};

/// Records taken from librdkafka in one call.
const BATCH_MESSAGES: usize = 4_096;

/// A consumer that reads what it is assigned, or, once it has subscribed, what a group gives it.
pub(super) struct Consumer {
    /// Dropped before `client`: see `drop`.
    queue: NonNull<ffi::rd_kafka_queue_t>,
    client: Client<Events>,
}

// SAFETY: `queue` is a reference counted librdkafka queue, and librdkafka's queues and handles may be used from any thread.
unsafe impl Send for Consumer {}
// SAFETY: as above; all calls made through `&self` are documented as thread safe.
unsafe impl Sync for Consumer {}

impl Consumer {
    pub fn new(config: &ClientConfig) -> Result<Self> {
        let native = config
            .create_native_config()
            .map_err(|error| Error::config("the Kafka options are not accepted").caused_by(error))?;
        // SAFETY: the configuration is valid and not yet owned by a handle; the callbacks have the types that librdkafka documents and
        // expect the handle's opaque to be the `Events` that `Client::new` sets.
        unsafe {
            ffi::rd_kafka_conf_set_error_cb(native.ptr(), Some(on_error));
            ffi::rd_kafka_conf_set_log_cb(native.ptr(), Some(on_log));
            ffi::rd_kafka_conf_set_offset_commit_cb(native.ptr(), Some(on_offset_commit));
            ffi::rd_kafka_conf_set_rebalance_cb(native.ptr(), Some(on_rebalance));
        }
        let client = Client::new(config, native, RDKafkaType::RD_KAFKA_CONSUMER, Events::default())
            .map_err(|error| Error::config("the Kafka client could not be created").caused_by(error))?;
        // SAFETY: the handle is valid; from here on callbacks are served by whoever polls the consumer queue.
        let queue = unsafe {
            ffi::rd_kafka_poll_set_consumer(client.native_ptr());
            ffi::rd_kafka_queue_get_consumer(client.native_ptr())
        };
        let queue = NonNull::new(queue).ok_or_else(|| Error::failed("the Kafka client has no consumer queue"))?;
        Ok(Self { queue, client })
    }

    pub fn client(&self) -> &Client<Events> {
        &self.client
    }

    pub fn events(&self) -> &Arc<Events> {
        self.client.context()
    }

    /// Replaces what is read; records fetched for an earlier assignment are dropped by librdkafka.
    pub fn assign(&self, topic: &str, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<()> {
        let list = offset_list(topic, next_offsets)?;
        // SAFETY: both pointers are valid; librdkafka copies the list.
        let code = unsafe { ffi::rd_kafka_assign(self.client.native_ptr(), list.ptr()) };
        check(code, || format!("partitions of topic {topic} could not be assigned"))
    }

    /// Fetches nothing of these partitions any more. What was fetched and not taken is dropped; it comes again after [`Self::resume`]. An
    /// assignment doesn't end it.
    pub fn pause(&self, topic: &str, partitions: &BTreeSet<PartitionId>) -> Result<()> {
        let list = partition_list(topic, partitions);
        // SAFETY: both pointers are valid; the list is changed in place only while the call lasts.
        let code = unsafe { ffi::rd_kafka_pause_partitions(self.client.native_ptr(), list.ptr()) };
        check(code, || format!("partitions of topic {topic} could not be paused"))
    }

    /// Fetches these partitions again, behind the last thing that was taken, which may be the end of a partition: seek afterwards.
    pub fn resume(&self, topic: &str, partitions: &BTreeSet<PartitionId>) -> Result<()> {
        let list = partition_list(topic, partitions);
        // SAFETY: as above.
        let code = unsafe { ffi::rd_kafka_resume_partitions(self.client.native_ptr(), list.ptr()) };
        check(code, || format!("partitions of topic {topic} could not be resumed"))
    }

    /// Starts committing consumer-group offsets; the outcome comes to [`Events`].
    pub fn commit(&self, topic: &str, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<()> {
        let list = offset_list(topic, next_offsets)?;
        // SAFETY: both pointers are valid; librdkafka copies the list. The last argument asks not to wait.
        let code = unsafe { ffi::rd_kafka_commit(self.client.native_ptr(), list.ptr(), 1) };
        check(code, || format!("offsets of topic {topic} could not be committed"))
    }

    /// Offsets by partition for a time (milliseconds), or for one of the two ends. Blocks for up to `timeout`.
    pub fn list_offsets(
        &self,
        topic: &str,
        partitions: &[PartitionId],
        at: Offset,
        timeout: Duration,
    ) -> Result<BTreeMap<PartitionId, i64>> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            list.add_partition_offset(topic, partition, at)
                .map_err(|error| Error::failed("an offset can't be asked for").caused_by(error))?;
        }
        // SAFETY: both pointers are valid; the list is changed in place only while the call lasts.
        let code = unsafe { ffi::rd_kafka_offsets_for_times(self.client.native_ptr(), list.ptr(), millis(timeout)) };
        check(code, || format!("offsets of topic {topic} could not be listed"))?;
        let mut found = BTreeMap::new();
        for element in list.elements() {
            element.error().map_err(|error| {
                Error::transient(format!("the offset of partition {} of topic {topic} could not be listed", element.partition()))
                    .caused_by(error)
            })?;
            let offset = match element.offset() {
                Offset::Offset(offset) => offset,
                // No record at that time or later.
                Offset::End => -1,
                other => {
                    return Err(Error::transient(format!(
                        "Kafka gave {other:?} as an offset of partition {}",
                        element.partition()
                    )));
                }
            };
            found.insert(element.partition(), offset);
        }
        Ok(found)
    }

    /// Appends what is there to `messages`, waiting up to `timeout` for the first. Serves callbacks (log, errors, commits) on the way.
    pub fn poll(&self, messages: &mut MessageQueue, timeout: Duration, limit: usize) -> usize {
        let limit = limit.clamp(1, BATCH_MESSAGES);
        let mut batch = [const { MaybeUninit::<*mut ffi::rd_kafka_message_t>::uninit() }; BATCH_MESSAGES];
        // SAFETY: the queue is valid and the array has room for `limit` pointers.
        let count =
            unsafe { ffi::rd_kafka_consume_batch_queue(self.queue.as_ptr(), millis(timeout), batch.as_mut_ptr().cast(), limit) };
        let count = usize::try_from(count).unwrap_or(0);
        // SAFETY: librdkafka has filled in the first `count` pointers, and each message is ours now.
        messages
            .0
            .extend(batch[..count].iter().filter_map(|message| NonNull::new(unsafe { message.assume_init() })).map(Message));
        count
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // Else librdkafka would wait for answers that nobody gives.
        self.close();
        // SAFETY: this is our own reference, taken in `new`; the handle still lives and is destroyed after it.
        unsafe { ffi::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

/// Records and errors taken from librdkafka and not yet used, in order.
#[derive(Default)]
pub(super) struct MessageQueue(std::collections::VecDeque<Message>);

impl MessageQueue {
    pub fn pop(&mut self) -> Option<Message> {
        self.0.pop_front()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Drops what belongs to these partitions.
    pub fn forget(&mut self, partitions: &BTreeSet<PartitionId>) {
        self.0.retain(|message| !partitions.contains(&message.partition()));
    }
}

/// A record, or an error of a partition, in librdkafka's memory.
pub(super) struct Message(NonNull<ffi::rd_kafka_message_t>);

// SAFETY: a message is owned by one holder, and librdkafka lets any thread read and destroy it.
unsafe impl Send for Message {}

/// What a [`Message`] says.
pub(super) enum Content<'a> {
    Record(Record<'a>),
    /// Everything before this offset has been read, transaction markers included.
    End {
        next: i64,
    },
    /// The next offset of the partition is not there.
    OutOfRange,
    /// Anything else, with librdkafka's code and words.
    Problem {
        code: i32,
        text: String,
    },
}

/// The parts of a record, lent by librdkafka.
pub(super) struct Record<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub timestamp_us: Option<i64>,
}

impl Message {
    fn raw(&self) -> &ffi::rd_kafka_message_t {
        // SAFETY: the message is valid until it is dropped.
        unsafe { self.0.as_ref() }
    }

    pub fn partition(&self) -> PartitionId {
        self.raw().partition
    }

    pub fn offset(&self) -> i64 {
        self.raw().offset
    }

    pub fn content(&self) -> Content<'_> {
        let message = self.0.as_ptr();
        // SAFETY: the message is valid. The code is read as the integer that it is in C: a broker may send one that the Rust enum lacks.
        let code = unsafe { (&raw const (*message).err).cast::<c_int>().read() };
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR as c_int {
            let raw = self.raw();
            // SAFETY: librdkafka gives a pointer and the length of what it points to, or null for a null key or value.
            let (key, value) = unsafe { (borrow(raw.key, raw.key_len), borrow(raw.payload, raw.len)) };
            return Content::Record(Record { key, value, timestamp_us: self.timestamp_us() });
        }
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF as c_int {
            return Content::End { next: self.offset() };
        }
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET as c_int
            || code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE as c_int
            || code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__LOG_TRUNCATION as c_int
        {
            return Content::OutOfRange;
        }
        // SAFETY: the message is valid; the text lives as long as it, or for ever.
        let text = unsafe { text(ffi::rd_kafka_message_errstr(message)) };
        Content::Problem { code, text }
    }

    fn timestamp_us(&self) -> Option<i64> {
        let mut kind = ffi::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is valid, `kind` may be written.
        let millis = unsafe { ffi::rd_kafka_message_timestamp(self.0.as_ptr(), &mut kind) };
        let available = kind != ffi::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && millis >= 0;
        available.then(|| millis.saturating_mul(1_000))
    }

    /// The record's headers in order. Names that are not UTF-8, which Kafka's protocol does not allow, have their bad bytes replaced.
    pub fn headers(&self) -> Vec<(String, Option<&[u8]>)> {
        let mut headers = ptr::null_mut();
        let mut found = Vec::new();
        // SAFETY: the message is valid; the headers, their names and values belong to it and live as long.
        unsafe {
            if ffi::rd_kafka_message_headers(self.0.as_ptr(), &mut headers) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return found;
            }
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            while ffi::rd_kafka_header_get_all(headers, found.len(), &mut name, &mut value, &mut size)
                == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                found.push((text(name), borrow(value.cast_mut(), size)));
            }
        }
        found
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: the message is ours and not used after this.
        unsafe { ffi::rd_kafka_message_destroy(self.0.as_ptr()) };
    }
}

/// # Safety
/// `bytes` is null, or points to `length` bytes that live for `'a`.
unsafe fn borrow<'a>(bytes: *mut c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: as above.
    (!bytes.is_null()).then(|| unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length) })
}

/// # Safety
/// `text` is null, or a text that ends with a zero byte.
unsafe fn text(text: *const c_char) -> String {
    // SAFETY: as above.
    if text.is_null() { String::new() } else { unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned() }
}

pub(super) fn offset_list(topic: &str, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(next_offsets.len());
    for (&partition, &next) in next_offsets {
        list.add_partition_offset(topic, partition, Offset::Offset(next))
            .map_err(|error| Error::failed(format!("offset {next} of partition {partition} is not valid")).caused_by(error))?;
    }
    Ok(list)
}

pub(super) fn millis(duration: Duration) -> c_int {
    c_int::try_from(duration.as_millis()).unwrap_or(c_int::MAX)
}

pub(super) fn check(code: RDKafkaRespErr, what: impl FnOnce() -> String) -> Result<()> {
    match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(Error::transient(what()).caused_by(RDKafkaErrorCode::from(code))),
    }
}

/// # Safety
/// Called by librdkafka on a handle whose opaque is the `Events` of its `Client`.
pub(super) unsafe fn events<'a>(handle: *const ffi::rd_kafka_t) -> Option<&'a Events> {
    // SAFETY: `Client` keeps the `Events` in an `Arc` for as long as the handle lives.
    unsafe { ffi::rd_kafka_opaque(handle).cast::<Events>().as_ref() }
}

unsafe extern "C" fn on_error(handle: *mut ffi::rd_kafka_t, code: c_int, reason: *const c_char, _: *mut c_void) {
    // SAFETY: librdkafka passes its handle and a text that ends with a zero byte.
    if let (Some(events), reason) = unsafe { (events(handle), text(reason)) } {
        events.failed(code, &reason);
    }
}

unsafe extern "C" fn on_log(handle: *const ffi::rd_kafka_t, level: c_int, facility: *const c_char, line: *const c_char) {
    // SAFETY: as above; the handle may be null while it is being created.
    if let (Some(events), facility, line) =
        unsafe { (if handle.is_null() { None } else { events(handle) }, text(facility), text(line)) }
    {
        events.logged(level, &facility, &line);
    }
}

unsafe extern "C" fn on_offset_commit(
    handle: *mut ffi::rd_kafka_t,
    code: RDKafkaRespErr,
    _: *mut ffi::rd_kafka_topic_partition_list_t,
    _: *mut c_void,
) {
    // SAFETY: librdkafka passes its handle.
    if let Some(events) = unsafe { events(handle) } {
        events.committed(RDKafkaErrorCode::from(code));
    }
}
