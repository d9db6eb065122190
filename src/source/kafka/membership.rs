//! Membership in the consumer group: what librdkafka decides about partitions, and the calls that answer it.
//!
//! librdkafka calls back from within a poll when partitions come or go, and its group stands still until the assignment has been changed
//! accordingly. That need not happen in the callback: it only takes a note, and the reader changes the assignment when the pipeline has
//! committed, or dropped, what it had read. The group rebalances cooperatively: partitions that stay are read on meanwhile.
//!
//! *Invariants*: changes are answered in the order in which they came, each once. A consumer that is being closed answers at once, and what
//! was noted before is answered first: librdkafka would wait for it forever.
//!
//! librdkafka pauses what stays assigned while the group rebalances, and afterwards fetches behind the last thing that was consumed. It
//! counts the end of a partition as a thing with an offset: of a partition that stood at its end it would leave out the next record. So
//! after each answer whatever stays is sought to where it stands.
//!
//! *Failure*: who doesn't poll for `max.poll.interval.ms`, or whose heartbeats don't arrive for `session.timeout.ms`, loses all its
//! partitions and is told so ([`Change::Lost`]); the table's offsets refuse what it may still commit. A member whose `group.instance.id`
//! another process uses is expelled for good.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rdkafka::bindings as ffi;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};

use super::describe::{copy_text, slice};
use super::native::{Consumer, check, events, millis, offset_list};
use crate::checkpoint::PartitionId;
use crate::error::{Error, Result};
use crate::source::Change;

/// What the group has decided and nobody has answered yet.
#[derive(Debug, Default)]
pub(in crate::source) struct Membership {
    waiting: Mutex<VecDeque<Change>>,
    /// The topic whose partitions are shared; none as long as no group was joined.
    topic: OnceLock<String>,
    closing: AtomicBool,
}

impl Membership {
    /// The change that is to be answered first.
    pub fn change(&self) -> Option<Change> {
        lock(&self.waiting).front().cloned()
    }

    pub fn answered(&self) {
        lock(&self.waiting).pop_front();
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }
}

// What is behind these locks is whole at every moment, whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Consumer {
    /// Joins the group to read a share of the topic. Changes come with polls.
    pub fn subscribe(&self, topic: &str) -> Result<()> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_topic_unassigned(topic);
        // SAFETY: both pointers are valid; librdkafka copies the list.
        let code = unsafe { ffi::rd_kafka_subscribe(self.client().native_ptr(), list.ptr()) };
        let _ = self.events().membership().topic.set(topic.to_owned());
        check(code, || format!("the consumer group of topic {topic} could not be joined"))
    }

    /// Adds partitions to what is read.
    pub fn add(&self, topic: &str, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<()> {
        let list = offset_list(topic, next_offsets)?;
        // SAFETY: both pointers are valid; librdkafka copies the list. The error, if any, is ours.
        let error = unsafe { ffi::rd_kafka_incremental_assign(self.client().native_ptr(), list.ptr()) };
        told(error, || format!("partitions of topic {topic} could not be taken over"))
    }

    /// Takes partitions out of what is read.
    pub fn remove(&self, topic: &str, partitions: &BTreeSet<PartitionId>) -> Result<()> {
        let list = partition_list(topic, partitions);
        // SAFETY: as above.
        let error = unsafe { ffi::rd_kafka_incremental_unassign(self.client().native_ptr(), list.ptr()) };
        told(error, || format!("partitions of topic {topic} could not be given back"))
    }

    /// Continues what is assigned already at these offsets; what was fetched of it is dropped. A partition whose fetching hasn't begun, or was
    /// given up, is left alone.
    pub fn seek(&self, topic: &str, next_offsets: &BTreeMap<PartitionId, i64>, timeout: Duration) -> Result<()> {
        if next_offsets.is_empty() {
            return Ok(());
        }
        let what = || format!("partitions of topic {topic} could not be continued");
        let list = offset_list(topic, next_offsets)?;
        // SAFETY: both pointers are valid; the list is changed in place only while the call lasts. The error, if any, is ours.
        let error = unsafe { ffi::rd_kafka_seek_partitions(self.client().native_ptr(), list.ptr(), millis(timeout)) };
        told(error, what)?;
        for element in list.elements() {
            match element.error() {
                Ok(()) => {}
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::State) => {}
                Err(error) => return Err(Error::transient(what()).caused_by(error)),
            }
        }
        Ok(())
    }

    /// Leaves the group, if it was joined. No message may be held any more. Waits for the group's coordinator, but not for long.
    pub fn close(&self) {
        let membership = self.events().membership();
        let Some(topic) = membership.topic.get() else { return };
        membership.closing.store(true, Ordering::SeqCst);
        while let Some(change) = membership.change() {
            membership.answered();
            let answered = match &change {
                Change::Assigned(partitions) => {
                    // Where they would be read doesn't matter: nothing is polled any more.
                    let list = partition_list(topic, partitions);
                    // SAFETY: as above.
                    told(unsafe { ffi::rd_kafka_incremental_assign(self.client().native_ptr(), list.ptr()) }, String::new)
                }
                Change::Revoked(partitions) | Change::Lost(partitions) => self.remove(topic, partitions),
            };
            if let Err(error) = answered {
                tracing::debug!(error = error.chain(), "a change of partitions could not be answered while leaving the group");
            }
        }
        // SAFETY: the handle is valid, and callbacks that come now answer by themselves. Closing twice is an error without effect.
        let code = unsafe { ffi::rd_kafka_consumer_close(self.client().native_ptr()) };
        tracing::debug!(?code, "the consumer group was left");
    }
}

pub(super) fn partition_list(topic: &str, partitions: &BTreeSet<PartitionId>) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for &partition in partitions {
        // The end is an offset that the list takes.
        let _ = list.add_partition_offset(topic, partition, Offset::End);
    }
    list
}

/// The error that a call returned, if it returned one.
fn told(error: *mut ffi::rd_kafka_error_t, what: impl FnOnce() -> String) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the error is ours; its text lives as long as it and is copied before it is destroyed.
    let text = unsafe {
        let text = copy_text(ffi::rd_kafka_error_string(error));
        ffi::rd_kafka_error_destroy(error);
        text
    };
    Err(Error::transient(format!("{}: {text}", what())))
}

/// Takes a note of a change; the assignment stays as it is until the reader answers.
pub(super) unsafe extern "C" fn on_rebalance(
    handle: *mut ffi::rd_kafka_t,
    code: RDKafkaRespErr,
    partitions: *mut ffi::rd_kafka_topic_partition_list_t,
    _: *mut c_void,
) {
    // SAFETY: librdkafka passes its handle, and a list that lives during the call.
    let (events, named) = unsafe {
        let named = partitions.as_ref().map_or(&[][..], |list| slice(list.elems, usize::try_from(list.cnt).unwrap_or(0)));
        (events(handle), named)
    };
    let Some(events) = events else { return };
    let ids: BTreeSet<PartitionId> = named.iter().map(|element| element.partition).collect();
    let assigned = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
    if events.membership().is_closing() {
        // SAFETY: the handle and the list are valid.
        let error = unsafe {
            match assigned {
                true => ffi::rd_kafka_incremental_assign(handle, partitions),
                false => ffi::rd_kafka_incremental_unassign(handle, partitions),
            }
        };
        if let Err(error) = told(error, String::new) {
            tracing::debug!(error = error.chain(), "a change of partitions could not be answered while leaving the group");
        }
        return;
    }
    // SAFETY: the handle is valid.
    let lost = !assigned && unsafe { ffi::rd_kafka_assignment_lost(handle) } != 0;
    let change = match (assigned, lost || code != RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS) {
        (true, _) => Change::Assigned(ids),
        (false, false) => Change::Revoked(ids),
        (false, true) => Change::Lost(ids),
    };
    lock(&events.membership().waiting).push_back(change);
}
