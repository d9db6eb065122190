//! What a pipeline file says about silver: which fields become which columns, what is computed from them, what must hold.
//!
//! Everything here is plain data; [`super::SilverPlan`] checks it and turns it into something that runs.

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::types::ColumnType;
use crate::table::TableFormat;

/// The silver layer of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SilverSettings {
    /// Name of the table in the pipeline's database. Default: "silver".
    pub table: String,
    /// Directory of the table; a relative one stands below the warehouse. Default: chosen from the warehouse and the table's name.
    pub location: Option<String>,
    /// How the table is partitioned: a column's name, or `year(c)`, `month(c)`, `day(c)`, `hour(c)`, `bucket(16, c)`,
    /// `truncate(10, c)`. Default: not partitioned.
    pub partition_by: Vec<String>,
    /// The order in which engines that write or compact the table are asked to sort rows: columns or what `partition_by` takes, each with
    /// `desc` or `nulls first|last` behind it. lakesmith itself leaves rows in the order in which they came. Default: as the table has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sort_by: Option<Vec<String>>,
    /// `iceberg`, or `hive`: Parquet files in partition directories. Default: iceberg.
    #[serde(deserialize_with = "table_format")]
    pub format: TableFormat,
    /// Format of a message. Default: "json".
    pub message_format: String,
    /// What happens to a field that no column reads. Default: "ignore".
    pub unknown_fields: UnknownFields,
    /// With `unknown_fields = "keep"`: the column that has them, a map from a field's name to its value. Default: "unknown_fields".
    pub unknown_fields_column: String,
    /// With `unknown_fields = "add"`: how many fields may become columns within 24 hours. Default: 10.
    pub unknown_fields_per_day: usize,
    /// Levels that arrays and objects may be nested, the message's own object included. Default: 128.
    pub max_depth: usize,
    /// A larger message is rejected without being decoded; its bytes are kept. Default: 8 MiB.
    pub max_value_bytes: ByteSize,
    /// The table of the records that could not be used.
    pub rejected: RejectedSettings,
    /// The typed columns.
    pub columns: Vec<ColumnSettings>,
    /// Columns computed from others, in order: each may use those before it.
    pub derive: Vec<DeriveSettings>,
    /// Conditions that every row must meet.
    pub expect: Vec<ExpectSettings>,
}

impl Default for SilverSettings {
    fn default() -> Self {
        Self {
            table: "silver".into(),
            location: None,
            partition_by: Vec::new(),
            sort_by: None,
            format: TableFormat::default(),
            message_format: "json".into(),
            unknown_fields: UnknownFields::default(),
            unknown_fields_column: "unknown_fields".into(),
            unknown_fields_per_day: 10,
            max_depth: 128,
            max_value_bytes: ByteSize::mib(8),
            rejected: RejectedSettings::default(),
            columns: Vec::new(),
            derive: Vec::new(),
            expect: Vec::new(),
        }
    }
}

/// The key was that of the messages' format once.
fn table_format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TableFormat, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "iceberg" => Ok(TableFormat::Iceberg),
        "hive" => Ok(TableFormat::Hive),
        _ => Err(de::Error::custom(format!(
            "expected iceberg or hive, found \"{text}\": silver.format is the form of the table, and the format of messages is \
             silver.message_format"
        ))),
    }
}

impl SilverSettings {
    /// The fields of a message that are read into number columns.
    pub fn number_fields(&self) -> Vec<String> {
        let numbers = self.columns.iter().filter(|column| column.column_type.arrow().is_numeric());
        numbers.map(|column| column.field.as_ref().unwrap_or(&column.name).clone()).collect()
    }

    /// The column that keeps what no other column reads, if there is one.
    pub fn kept_in(&self) -> Option<&str> {
        (self.unknown_fields == UnknownFields::Keep).then_some(self.unknown_fields_column.as_str())
    }

    /// The name of the table of rejected records: as configured, or silver's with `_rejected` behind it.
    pub fn rejected_table(&self) -> String {
        self.rejected.table.clone().unwrap_or_else(|| format!("{}_rejected", self.table))
    }
}

/// Where rejected records go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RejectedSettings {
    /// Name of the table in the pipeline's database. Default: silver's table with `_rejected` behind it.
    pub table: Option<String>,
    /// Directory of the table; a relative one stands below the warehouse. Default: chosen from the warehouse and the table's name.
    pub location: Option<String>,
}

/// What happens to a field of a message that no column reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownFields {
    /// It is skipped; bronze still has it.
    #[default]
    Ignore,
    /// The record is rejected.
    Reject,
    /// It goes into a map: a text as it is, anything else as the JSON that it was.
    Keep,
    /// It becomes a column of its own.
    Add,
}

/// One column read from the message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ColumnSettings {
    /// Name of the column in the table.
    pub name: String,
    /// The field of the message that it is read from. Default: the column's name.
    pub field: Option<String>,
    /// "string", "int", "long", "float", "double", "boolean", "date", "timestamp" or "decimal(precision, scale)". Default: "string".
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// Whether a record without the field, or with null in it, is rejected. Default: true.
    pub required: bool,
    /// For dates and timestamps: the forms that are tried in order. Each is "iso", "epoch_s", "epoch_ms", "epoch_us" or a pattern such
    /// as "%d-%m-%Y". Default: ["iso"].
    pub formats: Vec<String>,
    /// For decimals: what happens to digits beyond the scale. Default: "round".
    pub scale_excess: ScaleExcess,
    /// What happens when the value does not fit the type; "null" needs `required = false`. Default: "reject".
    pub on_error: OnError,
    /// Whether "5" is taken for 5, 5 for "5" and "true" for true. Default: false.
    pub lenient: bool,
    /// Whether the data files may use a dictionary for this column; worth switching off where nearly every value differs.
    /// Default: true for text, dates, integers and booleans, else false.
    pub dictionary: Option<bool>,
    /// What the column means, for people. Default: none.
    pub doc: Option<String>,
}

impl Default for ColumnSettings {
    fn default() -> Self {
        Self {
            name: String::new(),
            field: None,
            column_type: ColumnType::String,
            required: true,
            formats: Vec::new(),
            scale_excess: ScaleExcess::default(),
            on_error: OnError::default(),
            lenient: false,
            dictionary: None,
            doc: None,
        }
    }
}

/// What happens to a decimal's digits beyond the column's scale.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScaleExcess {
    /// Half and more is rounded away from zero: 0.005 becomes 0.01, -0.005 becomes -0.01.
    #[default]
    Round,
    /// The value does not fit the column, unless the digits are zeros.
    Reject,
}

/// What happens to a value that does not fit its column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// The record is rejected.
    #[default]
    Reject,
    /// The column is null in the row.
    Null,
}

/// One column computed by SQL.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeriveSettings {
    /// Name of the column in the table.
    pub name: String,
    /// The type that the result is cast to, as for columns. Default: "string".
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// An expression over the record's coordinates, the columns and the derived columns before this one.
    pub sql: String,
    /// What the column means, for people. Default: the expression.
    pub doc: Option<String>,
}

/// One condition on rows. A row for which it is false or null is rejected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExpectSettings {
    /// Name that a rejected record's reason begins with.
    pub name: String,
    /// A condition over everything that a derived column may use, and the derived columns.
    pub sql: String,
}
