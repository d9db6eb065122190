//! The nouns that travel between the stages: a batch as read, a batch decoded.
//!
//! *Invariants*: a batch's `delta` covers every row in it, and also the offsets without a record (transaction markers, compacted or
//! aborted data), so a batch may have no rows and still make progress. Within a topic partition rows stand in offset order.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, Int32Array, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

use crate::checkpoint::Delta;
use crate::error::{Error, Result};

/// Names of the columns that every layer with single records has: the record's coordinates in Kafka.
pub const TOPIC: &str = "topic";
pub const PARTITION: &str = "partition";
pub const OFFSET: &str = "offset";
/// Bronze names the record's timestamp `timestamp`; silver and rejected name it [`KAFKA_TIMESTAMP`].
pub const TIMESTAMP: &str = "timestamp";
pub const KAFKA_TIMESTAMP: &str = "kafka_timestamp";
pub const KEY: &str = "key";
pub const VALUE: &str = "value";
pub const HEADERS: &str = "headers";
pub const INGESTED_AT: &str = "ingested_at";

/// Microseconds since 1970 in UTC, without a zone: how lakesmith holds an instant.
pub const INSTANT: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// The struct of one record header; a header's value may be null.
pub fn header_fields() -> Fields {
    Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)])
}

/// The type of the headers column: a list of [`header_fields`].
pub fn headers_type() -> DataType {
    DataType::List(Arc::new(Field::new("element", DataType::Struct(header_fields()), false)))
}

/// The columns of [`RawBatch::records`], in order.
pub fn raw_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new(TOPIC, DataType::Utf8, false),
            Field::new(PARTITION, DataType::Int32, false),
            Field::new(OFFSET, DataType::Int64, false),
            Field::new(TIMESTAMP, INSTANT, true),
            Field::new(KEY, DataType::Binary, true),
            Field::new(VALUE, DataType::Binary, true),
            Field::new(HEADERS, headers_type(), true),
            Field::new(INGESTED_AT, INSTANT, false),
        ]))
    });
    SCHEMA.clone()
}

/// Records as a source read them: exact bytes and coordinates, nothing parsed.
#[derive(Debug, Clone)]
pub struct RawBatch {
    pub delta: Delta,
    /// Columns of [`raw_schema`].
    pub records: RecordBatch,
}

/// The same records after decoding: each is in exactly one of `rows` and `rejected`.
#[derive(Debug, Clone)]
pub struct SilverBatch {
    pub delta: Delta,
    pub rows: RecordBatch,
    pub rejected: RecordBatch,
    /// Fields that no column reads, where these may become columns; else nothing.
    pub unread: Vec<String>,
}

/// Records as read back from bronze, in the types of [`raw_schema`] (Iceberg's reader has larger offsets and field ids).
pub fn as_raw(records: &RecordBatch) -> Result<RecordBatch> {
    let schema = raw_schema();
    let columns = schema.fields().iter().map(|field| {
        let found = position(records.schema_ref().fields(), field.name())
            .map(|at| records.column(at))
            .ok_or_else(|| Error::failed(format!("column {} is missing in bronze", field.name())))?;
        Ok(cast(found, field.data_type())?)
    });
    Ok(RecordBatch::try_new(schema.clone(), columns.collect::<Result<_>>()?)?)
}

/// Where a column stands: the one of exactly this name, else the only one that differs from it in case. Hive and Spark don't tell case
/// apart, and Trino writes the names of all columns that it renames in lower case.
pub fn position(fields: &Fields, name: &str) -> Option<usize> {
    fields.iter().position(|field| field.name() == name).or_else(|| {
        let lower = name.to_lowercase();
        let mut alike = fields.iter().enumerate().filter(|(_, field)| field.name().to_lowercase() == lower);
        alike.next().filter(|_| alike.next().is_none()).map(|(at, _)| at)
    })
}

/// The coordinate columns of a batch of single records, by name.
pub fn coordinates(batch: &RecordBatch) -> Result<(&Int32Array, &Int64Array)> {
    Ok((column::<Int32Array>(batch, PARTITION)?, column::<Int64Array>(batch, OFFSET)?))
}

/// A column by name and Arrow array type.
pub fn column<'a, A: Array + 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a A> {
    let array = batch.column_by_name(name).ok_or_else(|| Error::failed(format!("column {name} is missing in a batch")))?;
    array
        .as_any()
        .downcast_ref::<A>()
        .ok_or_else(|| Error::failed(format!("column {name} has the unexpected type {} in a batch", array.data_type())))
}
