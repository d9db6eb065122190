//! Records that silver could not use: their exact bytes, where they stand in the topic, and why.
//!
//! *Invariants*: together with silver's rows these are the records of bronze, offset by offset, each once.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use iceberg::arrow::arrow_schema_to_schema_auto_assign_ids;

use super::decoder::Fault;
use crate::checkpoint::{Checkpoint, OffsetRange, PartitionId, parse_positions};
use crate::error::{Error, Result};
use crate::record::{HEADERS, INSTANT, KAFKA_TIMESTAMP, KEY, OFFSET, PARTITION, TIMESTAMP, TOPIC, VALUE, headers_type};

pub const STAGE: &str = "stage";
pub const FIELD: &str = "field";
pub const REASON: &str = "reason";
pub const REJECTED_AT: &str = "rejected_at";

/// Silver's note with the positions at which the rejected table stands once it holds every record that silver had rejected until then.
/// A rejected table behind them lacks records.
pub use crate::table::REJECTED_POSITIONS as POSITIONS;

/// Columns for whose data files a dictionary is a loss: nearly every value differs.
pub const NO_DICTIONARY: [&str; 4] = [OFFSET, KAFKA_TIMESTAMP, KEY, VALUE];
/// Columns whose least and greatest value tell nobody anything.
pub const NO_STATISTICS: [&str; 4] = [KEY, VALUE, HEADERS, REASON];

/// The offsets whose rejected records are not in the rejected table, which stands at `found`, by the [`POSITIONS`] note of the silver table
/// `table`; empty without one.
pub fn lacking(note: Option<&str>, table: &impl Display, found: &Checkpoint) -> Result<BTreeMap<PartitionId, OffsetRange>> {
    let Some(note) = note.filter(|note| !note.is_empty()) else { return Ok(BTreeMap::new()) };
    let partitions = parse_positions(note)
        .map_err(|error| Error::stop(format!("property {POSITIONS} of table {table} is unreadable")).caused_by(error))?;
    Ok(found.missing_from(&Checkpoint { partitions, ..found.clone() }))
}

/// The columns of [`crate::record::SilverBatch::rejected`], in order; each field's `doc` says what it holds.
pub fn arrow_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let field = |name: &str, data_type: DataType, nullable: bool, doc: &str| {
            Field::new(name, data_type, nullable).with_metadata([("doc".to_owned(), doc.to_owned())].into())
        };
        Arc::new(Schema::new(vec![
            field(TOPIC, DataType::Utf8, false, "topic of the record"),
            field(PARTITION, DataType::Int32, false, "topic partition of the record"),
            field(OFFSET, DataType::Int64, false, "offset of the record in its topic partition"),
            field(KAFKA_TIMESTAMP, INSTANT, true, "the record's own timestamp, in UTC"),
            field(KEY, DataType::Binary, true, "key of the record, exact bytes"),
            field(VALUE, DataType::Binary, true, "value of the record, exact bytes"),
            field(HEADERS, headers_type(), true, "headers of the record"),
            field(STAGE, DataType::Utf8, false, "where it failed: decode, type, derive, expect or definition"),
            field(FIELD, DataType::Utf8, true, "the column, field or expectation concerned"),
            field(REASON, DataType::Utf8, false, "why it was rejected"),
            field(REJECTED_AT, INSTANT, false, "when it was rejected, in UTC"),
        ]))
    });
    SCHEMA.clone()
}

/// The Iceberg schema of the table of rejected records.
pub fn schema() -> iceberg::spec::Schema {
    arrow_schema_to_schema_auto_assign_ids(&arrow_schema()).expect("the columns above have Iceberg types")
}

/// A record of a batch and what is wrong with it.
#[derive(Debug)]
pub(super) struct Rejection {
    pub row: u32,
    pub fault: Fault,
}

/// The rejected records of a batch, in its order.
pub(super) fn batch(records: &RecordBatch, mut rejections: Vec<Rejection>, rejected_at_us: i64) -> Result<RecordBatch> {
    let schema = arrow_schema();
    if rejections.is_empty() {
        return Ok(RecordBatch::new_empty(schema));
    }
    rejections.sort_unstable_by_key(|rejection| rejection.row);
    let rows: UInt32Array = rejections.iter().map(|rejection| rejection.row).collect::<Vec<_>>().into();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for name in [TOPIC, PARTITION, OFFSET, TIMESTAMP, KEY, VALUE, HEADERS] {
        columns.push(take(records.column(records.schema_ref().index_of(name)?), &rows, None)?);
    }
    let faults = || rejections.iter().map(|rejection| &rejection.fault);
    columns.push(Arc::new(StringArray::from_iter_values(faults().map(|fault| fault.stage.name()))));
    columns.push(Arc::new(faults().map(|fault| fault.field.as_deref()).collect::<StringArray>()));
    columns.push(Arc::new(StringArray::from_iter_values(faults().map(|fault| &fault.reason))));
    columns.push(Arc::new(TimestampMicrosecondArray::from_value(rejected_at_us, rejections.len())));
    Ok(RecordBatch::try_new(schema, columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_behind_the_noted_positions_is_lacking() {
        let at = |text: &str| Checkpoint { partitions: parse_positions(text).unwrap(), ..Checkpoint::default() };
        let lacking = |note, found: &str| lacking(note, &"t", &at(found));
        assert_eq!(lacking(None, "d;0:0+5").unwrap(), BTreeMap::new());
        assert_eq!(lacking(Some("d;0:0+5-4"), "d;0:0+5-4").unwrap(), BTreeMap::new());
        // Ahead: silver went back.
        assert_eq!(lacking(Some("d;0:0+5-4"), "d;0:0+9-4").unwrap(), BTreeMap::new());
        let behind = lacking(Some("d;0:0+9-4;1:7+5-1"), "d;0:0+5-4").unwrap();
        assert_eq!(behind, BTreeMap::from([(0, OffsetRange::new(5, 9)), (1, OffsetRange::new(7, 12))]));
        assert!(lacking(Some("nonsense"), "d").unwrap_err().to_string().contains(POSITIONS));
    }

    #[test]
    fn the_table_has_the_columns_of_the_batch() {
        let schema = schema();
        let ids: Vec<_> = schema.as_struct().fields().iter().map(|field| field.id).collect();
        assert_eq!(ids, (1..=11).collect::<Vec<_>>());
        for (field, arrow) in schema.as_struct().fields().iter().zip(arrow_schema().fields()) {
            assert_eq!((&field.name, field.required), (arrow.name(), !arrow.is_nullable()));
            assert!(field.doc.is_some(), "{}", field.name);
        }
        for name in NO_DICTIONARY.iter().chain(&NO_STATISTICS) {
            assert!(schema.field_by_name(name).is_some(), "{name}");
        }
    }
}
