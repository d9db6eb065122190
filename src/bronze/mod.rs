//! Bronze: every record of the topic with its coordinates and exact bytes, nothing parsed, nothing dropped.
//!
//! A batch of records as read ([`crate::record::RawBatch`]) already has the columns of the table, so this module only says what they are
//! and how they are best stored. The table is not partitioned: it is read by offsets, and files hold narrow ranges of them anyway.
//!
//! The table is an Iceberg table, or a plain Hive table of JSON lines ([`TextTable`]); [`BronzeTable`] is either.
//!
//! *Invariants*: an empty value, a null value and one that is no text are records like any other.

mod json_lines;
mod text_table;
#[cfg(test)]
mod text_tests;
mod text_writer;

use std::sync::Arc;

use arrow::datatypes::Schema;
use iceberg::arrow::arrow_schema_to_schema_auto_assign_ids;
use serde::{Deserialize, Serialize};

pub use text_table::{TextTable, text_spec};
pub use text_writer::TextWriter;

use crate::record::{HEADERS, INGESTED_AT, KEY, OFFSET, PARTITION, TIMESTAMP, TOPIC, VALUE, raw_schema};
use crate::table::{RecordTable, RecordWriter, TableFormat};

/// The bronze layer of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BronzeSettings {
    /// Name of the table in the pipeline's database. Default: "bronze".
    pub table: String,
    /// Directory of the table; a relative one stands below the warehouse. Default: chosen from the warehouse and the table's name.
    pub location: Option<String>,
    /// `iceberg`, or `hive`: JSON text files, one for each commit. Default: iceberg.
    pub format: TableFormat,
}

/// The table in either of its forms.
pub type BronzeTable = RecordTable<TextTable>;
/// Writes the files of a batch for it.
pub type BronzeWriter = RecordWriter<TextWriter>;

impl Default for BronzeSettings {
    fn default() -> Self {
        Self { table: "bronze".into(), location: None, format: TableFormat::default() }
    }
}

/// Columns for whose data files a dictionary is a loss: nearly every value differs, and a dictionary of payloads is a second copy of them.
pub const NO_DICTIONARY: [&str; 4] = [OFFSET, TIMESTAMP, KEY, VALUE];

/// Columns whose least and greatest value tell nobody anything; those of payloads would only make manifests large.
pub const NO_STATISTICS: [&str; 3] = [KEY, VALUE, HEADERS];

/// Numbers that rise slowly from row to row: their differences take a fraction of their own space.
pub const DELTA_ENCODED: [&str; 2] = [OFFSET, TIMESTAMP];

const DOCS: [(&str, &str); 8] = [
    (TOPIC, "topic of the record"),
    (PARTITION, "topic partition of the record"),
    (OFFSET, "offset of the record in its topic partition"),
    (TIMESTAMP, "the record's own timestamp, in UTC"),
    (KEY, "key of the record, exact bytes"),
    (VALUE, "value of the record, exact bytes"),
    (HEADERS, "headers of the record"),
    (INGESTED_AT, "when the record was read from the topic, in UTC"),
];

/// The Iceberg schema of the bronze table: the columns of [`raw_schema`], each with what it means.
pub fn schema() -> iceberg::spec::Schema {
    let raw = raw_schema();
    let fields: Vec<_> = raw
        .fields()
        .iter()
        .map(|field| {
            let doc = DOCS.iter().find(|(name, _)| name == field.name()).map(|(_, doc)| ("doc".to_owned(), (*doc).to_owned()));
            Arc::new(field.as_ref().clone().with_metadata(doc.into_iter().collect()))
        })
        .collect();
    arrow_schema_to_schema_auto_assign_ids(&Schema::new(fields)).expect("the columns of a record have Iceberg types")
}

#[cfg(test)]
mod tests {
    use iceberg::arrow::schema_to_arrow_schema;

    use super::*;

    #[test]
    fn the_table_has_the_columns_of_a_record_with_a_word_on_each() {
        let schema = schema();
        let fields = schema.as_struct().fields();
        assert_eq!(fields.iter().map(|field| field.id).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
        for (field, raw) in fields.iter().zip(raw_schema().fields()) {
            assert_eq!((&field.name, field.required), (raw.name(), !raw.is_nullable()));
            assert!(field.doc.is_some(), "{}", field.name);
        }
        let types: Vec<_> = fields.iter().map(|field| field.field_type.to_string()).collect();
        assert_eq!(types[..6], ["string", "int", "long", "timestamp", "binary", "binary"]);
        assert_eq!(schema_to_arrow_schema(&schema).unwrap().fields().len(), 8);
        for name in NO_DICTIONARY.iter().chain(&NO_STATISTICS).chain(&DELTA_ENCODED) {
            assert!(schema.field_by_name(name).is_some(), "{name}");
        }
    }
}
