//! Builds a [`RawBatch`]: records are appended as they come from the source, and every offset passed is accounted for.
//!
//! *Invariants*: per partition, offsets only grow; a batch covers `[position before it, position after it)` and counts the records in
//! between, so consecutive batches join without a hole or an overlap whatever the gaps in the offsets. Payload bytes are copied once,
//! from the source's buffer into the Arrow column, which begins as large as the one before became: growing it would copy them again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Array, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder, StructBuilder,
    TimestampMicrosecondArray, TimestampMicrosecondBuilder, new_null_array,
};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};

use crate::checkpoint::{Coverage, Delta, OffsetRange, PartitionId};
use crate::error::{Error, Result};
use crate::record::{RawBatch, header_fields, headers_type, raw_schema};

/// Columns of keys, values and headers have 32-bit positions; limits above this are lowered to it.
pub const BATCH_BYTES_MAX: usize = 1 << 30;

/// Microseconds since 1970, now.
pub fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_micros() as i64)
}

/// What became of a record given to [`RawBatchBuilder::append`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    Yes,
    /// The partition is not assigned, or already stands behind this offset: a left-over of an earlier assignment.
    Stale,
}

/// One header of a record; the value may be null.
pub type Header<'a> = (&'a str, Option<&'a [u8]>);

#[derive(Debug, Clone, Copy)]
struct Position {
    start: i64,
    next: i64,
    records: u64,
    /// Named in the next batch even if nothing came: a partition that begins must be known to the table before `start` is asked again.
    announce: bool,
}

/// The batch under construction and, across batches, the position in each partition.
pub struct RawBatchBuilder {
    topic: String,
    positions: BTreeMap<PartitionId, Position>,
    partitions: Vec<i32>,
    offsets: Vec<i64>,
    timestamps: TimestampMicrosecondBuilder,
    keys: BinaryBuilder,
    values: BinaryBuilder,
    /// Made when the first header appears: most topics have none.
    headers: Option<ListBuilder<StructBuilder>>,
    bytes: usize,
}

impl RawBatchBuilder {
    pub fn new(topic: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            positions: BTreeMap::new(),
            partitions: Vec::new(),
            offsets: Vec::new(),
            timestamps: TimestampMicrosecondBuilder::new(),
            keys: BinaryBuilder::new(),
            values: BinaryBuilder::new(),
            headers: None,
            bytes: 0,
        }
    }

    /// Begins the next batch's columns with room for as much as this one has.
    fn begin_columns(&mut self) -> (Vec<i32>, Vec<i64>, BinaryBuilder, BinaryBuilder) {
        let rows = self.offsets.len();
        let like = |column: &BinaryBuilder| BinaryBuilder::with_capacity(rows, with_slack(column.values_slice().len()));
        let (keys, values) = (like(&self.keys), like(&self.values));
        (
            std::mem::replace(&mut self.partitions, Vec::with_capacity(rows)),
            std::mem::replace(&mut self.offsets, Vec::with_capacity(rows)),
            std::mem::replace(&mut self.keys, keys),
            std::mem::replace(&mut self.values, values),
        )
    }

    /// Drops what was appended and continues at these offsets. `begins` names the partitions that no table knows yet.
    pub fn reset(&mut self, next_offsets: &BTreeMap<PartitionId, i64>, begins: impl Fn(PartitionId) -> bool) {
        *self = Self::new(std::mem::take(&mut self.topic));
        self.positions = next_offsets
            .iter()
            .map(|(&id, &next)| (id, Position { start: next, next, records: 0, announce: begins(id) }))
            .collect();
    }

    /// Adds a partition that appeared while reading.
    pub fn add_partition(&mut self, partition: PartitionId, next: i64) {
        self.positions.entry(partition).or_insert(Position { start: next, next, records: 0, announce: true });
    }

    /// Continues a partition at an offset that a table has named.
    pub fn continue_partition(&mut self, partition: PartitionId, next: i64) {
        self.positions.insert(partition, Position { start: next, next, records: 0, announce: false });
    }

    /// Takes no more of a partition. Call it between two batches: rows that were appended stay.
    pub fn remove_partition(&mut self, partition: PartitionId) {
        self.positions.remove(&partition);
    }

    pub fn append(
        &mut self,
        partition: PartitionId,
        offset: i64,
        timestamp_us: Option<i64>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Appended {
        let Some(position) = self.positions.get_mut(&partition).filter(|position| offset >= position.next) else {
            return Appended::Stale;
        };
        position.next = offset + 1;
        position.records += 1;
        self.partitions.push(partition);
        self.offsets.push(offset);
        self.timestamps.append_option(timestamp_us);
        self.keys.append_option(key);
        self.values.append_option(value);
        self.bytes += key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
        if !headers.is_empty() || self.headers.is_some() {
            self.append_headers(headers);
        }
        Appended::Yes
    }

    /// Moves a partition's position over offsets that have no record; never backwards.
    pub fn advance(&mut self, partition: PartitionId, next: i64) {
        if let Some(position) = self.positions.get_mut(&partition) {
            position.next = position.next.max(next);
        }
    }

    fn append_headers(&mut self, headers: &[Header<'_>]) {
        let rows_before = self.offsets.len() - 1;
        let column = self.headers.get_or_insert_with(|| {
            let element = Field::new("element", DataType::Struct(header_fields()), false);
            let mut column = ListBuilder::new(StructBuilder::from_fields(header_fields(), 0)).with_field(element);
            (0..rows_before).for_each(|_| column.append(false));
            column
        });
        let entries = column.values();
        for (name, value) in headers {
            // The builders are the ones that `header_fields` asks for.
            if let Some(names) = entries.field_builder::<StringBuilder>(0) {
                names.append_value(name);
            }
            if let Some(values) = entries.field_builder::<BinaryBuilder>(1) {
                values.append_option(*value);
            }
            entries.append(true);
            self.bytes += name.len() + value.map_or(0, <[u8]>::len);
        }
        column.append(!headers.is_empty());
    }

    pub fn rows(&self) -> usize {
        self.offsets.len()
    }

    /// Bytes of keys, values and headers appended so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether finishing now would give a batch that changes a table's checkpoint.
    pub fn has_progress(&self) -> bool {
        self.positions.values().any(|position| position.next > position.start || position.announce)
    }

    pub fn position(&self, partition: PartitionId) -> Option<i64> {
        self.positions.get(&partition).map(|position| position.next)
    }

    pub fn positions(&self) -> BTreeMap<PartitionId, i64> {
        self.positions.iter().map(|(&id, position)| (id, position.next)).collect()
    }

    /// The batch so far; the next one continues behind it. The rows carry one `ingested_at`.
    pub fn finish(&mut self, ingested_at_us: i64) -> Result<RawBatch> {
        let rows = self.offsets.len();
        let headers: ArrayRef = match self.headers.take() {
            Some(mut column) => Arc::new(column.finish()),
            None => new_null_array(&headers_type(), rows),
        };
        let (partitions, offsets, mut keys, mut values) = self.begin_columns();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(repeated(&self.topic, rows)?),
            Arc::new(Int32Array::from(partitions)),
            Arc::new(Int64Array::from(offsets)),
            Arc::new(self.timestamps.finish()),
            Arc::new(keys.finish()),
            Arc::new(values.finish()),
            headers,
            Arc::new(TimestampMicrosecondArray::from_value(ingested_at_us, rows)),
        ];
        self.bytes = 0;
        let records = RecordBatch::try_new(raw_schema(), columns)?;
        Ok(RawBatch { delta: self.take_delta(), records })
    }

    fn take_delta(&mut self) -> Delta {
        let mut delta = Delta::default();
        for (&partition, position) in &mut self.positions {
            if position.next > position.start || position.announce {
                let range = OffsetRange::new(position.start, position.next);
                delta.partitions.insert(partition, Coverage { range, records: position.records });
            }
            *position = Position { start: position.next, next: position.next, records: 0, announce: false };
        }
        delta
    }
}

/// Batches of as many rows differ a little in bytes.
fn with_slack(bytes: usize) -> usize {
    bytes + bytes / 16
}

/// A column that holds the same text in every row.
fn repeated(text: &str, rows: usize) -> Result<StringArray> {
    if text.len().saturating_mul(rows) > i32::MAX as usize {
        return Err(Error::failed(format!("a batch of {rows} rows is too large for topic name {text}"))
            .hint("lower the batch's row limit"));
    }
    let offsets = OffsetBuffer::from_repeated_length(text.len(), rows);
    Ok(StringArray::try_new(offsets, Buffer::from(text.repeat(rows).into_bytes()), None)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, BinaryArray, ListArray};
    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::record::{HEADERS, KEY, TOPIC, VALUE, column};

    fn builder(positions: &[(i32, i64)]) -> RawBatchBuilder {
        let mut builder = RawBatchBuilder::new("sales");
        builder.reset(&positions.iter().copied().collect(), |_| false);
        builder
    }

    #[test]
    fn a_batch_covers_gaps_before_between_and_behind_its_records() {
        let mut builder = builder(&[(0, 10), (1, 5), (2, 0)]);
        assert_eq!(builder.append(0, 12, None, None, Some(b"a"), &[]), Appended::Yes);
        assert_eq!(builder.append(0, 15, None, None, Some(b"b"), &[]), Appended::Yes);
        builder.advance(0, 20);
        builder.advance(1, 7);
        let batch = builder.finish(1).unwrap();
        let coverage = |start, end, records| Coverage { range: OffsetRange::new(start, end), records };
        assert_eq!(batch.delta.partitions, BTreeMap::from([(0, coverage(10, 20, 2)), (1, coverage(5, 7, 0))]));
        assert_eq!(batch.records.num_rows(), 2);
        assert!(!builder.has_progress());
        assert_eq!(builder.positions(), BTreeMap::from([(0, 20), (1, 7), (2, 0)]));
    }

    #[test]
    fn records_behind_the_position_or_of_other_partitions_are_not_taken() {
        let mut builder = builder(&[(0, 10)]);
        assert_eq!(builder.append(0, 9, None, None, None, &[]), Appended::Stale);
        assert_eq!(builder.append(7, 10, None, None, None, &[]), Appended::Stale);
        builder.advance(0, 3);
        assert!(!builder.has_progress());
    }

    #[test]
    fn a_partition_that_begins_is_named_once_even_without_records() {
        let mut builder = RawBatchBuilder::new("sales");
        builder.reset(&BTreeMap::from([(0, 100), (1, 3)]), |partition| partition == 0);
        assert!(builder.has_progress());
        let delta = builder.finish(1).unwrap().delta;
        assert_eq!(delta.partitions.keys().collect::<Vec<_>>(), [&0]);
        assert!(delta.is_empty());
        assert_eq!(Checkpoint::start("sales", None, None).advance(&delta).unwrap().next_offset(0), Some(100));
        assert!(!builder.has_progress());
    }

    #[test]
    fn null_empty_and_arbitrary_bytes_stay_distinct_and_headers_stay_in_their_rows() {
        let mut builder = builder(&[(0, 0)]);
        builder.append(0, 0, Some(5), None, Some(b""), &[]);
        builder.append(0, 1, None, Some(b""), None, &[("trace", Some(b"\xff\x00")), ("empty", None)]);
        builder.append(0, 2, None, Some(b"\xfe"), Some(b"\xc3\x28"), &[]);
        let batch = builder.finish(77).unwrap().records;
        let values: &BinaryArray = column(&batch, VALUE).unwrap();
        let keys: &BinaryArray = column(&batch, KEY).unwrap();
        assert_eq!(values.iter().collect::<Vec<_>>(), [Some(&b""[..]), None, Some(b"\xc3\x28")]);
        assert_eq!(keys.iter().collect::<Vec<_>>(), [None, Some(&b""[..]), Some(b"\xfe")]);
        let headers: &ListArray = column(&batch, HEADERS).unwrap();
        assert_eq!((headers.is_null(0), headers.value_length(1), headers.is_null(2)), (true, 2, true));
        let topics: &StringArray = column(&batch, TOPIC).unwrap();
        assert_eq!(topics.iter().collect::<Vec<_>>(), [Some("sales"); 3]);
    }

    proptest! {
        #[test]
        fn any_sequence_of_batches_joins_into_one_range(steps in prop::collection::vec((0i64..4, 0i64..3, prop::bool::ANY), 1..60)) {
            let mut builder = builder(&[(0, 7)]);
            let mut table = Checkpoint::start("sales", None, None);
            let (mut next, mut records) = (7, 0u64);
            for (gap, trailing, finish) in steps {
                next += gap;
                prop_assert_eq!(builder.append(0, next, None, None, Some(b"x"), &[]), Appended::Yes);
                next += 1 + trailing;
                records += 1;
                builder.advance(0, next);
                if finish {
                    table = table.advance(&builder.finish(0).unwrap().delta).unwrap();
                }
            }
            table = table.advance(&builder.finish(0).unwrap().delta).unwrap();
            let coverage = table.partitions[&0];
            prop_assert_eq!((coverage.range.start, coverage.range.end, coverage.records), (7, next, records));
        }
    }
}
