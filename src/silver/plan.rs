//! The checked definition of silver and what it does to a batch: decode, derive, expect.
//!
//! *Invariants*: [`SilverPlan::transform`] depends on its arguments alone. Every record of the batch is in exactly one of the two results,
//! in the batch's order, and what is wrong with one has no effect on another.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use iceberg::arrow::arrow_schema_to_schema_auto_assign_ids;
use iceberg::spec::Transform;
use serde::Serialize;

use super::columns::{Column, Columns};
use super::decoder::{self, Fault, Format, Layout, Stage};
use super::expression::{Expression, Planner, Target};
use super::map_column::MapColumn;
use super::names::{self, PROCESSING_TIMESTAMP};
use super::partitioning;
use super::rejected::{self, Rejection};
use super::settings::{ColumnSettings, DeriveSettings, ExpectSettings, OnError, SilverSettings, UnknownFields};
use super::sorting;
use super::time::TimeFormat;
use super::types::ColumnType;
use crate::error::{Context, Error, Result};
use crate::record::{self, INSTANT, KAFKA_TIMESTAMP, OFFSET, PARTITION, RawBatch, SilverBatch, TIMESTAMP, TOPIC, VALUE};
use crate::table::{SortKey, TableFormat};

/// A number that changes whenever the same definition begins to give other rows.
const SEMANTICS_VERSION: u32 = 1;

/// How records become rows: planned once, used for every batch, from any thread.
pub struct SilverPlan {
    format: &'static Format,
    pub(super) columns: Arc<[Column]>,
    pub(super) unknown_fields: UnknownFields,
    max_depth: usize,
    pub(super) max_value_bytes: u64,
    pub(super) derive: Vec<Named>,
    pub(super) expect: Vec<Named>,
    arrow_schema: SchemaRef,
    schema: iceberg::spec::Schema,
    partition_by: Vec<(String, Transform)>,
    sort_by: Option<Vec<SortKey>>,
    read_from: Vec<(String, String)>,
    no_dictionary: Vec<String>,
    definition_hash: String,
}

/// A derived column or an expectation.
pub(super) struct Named {
    pub name: String,
    pub expression: Expression,
}

impl SilverPlan {
    /// Checks the definition and plans its expressions. All errors are of the configuration and name the column concerned.
    pub fn new(settings: &SilverSettings) -> Result<Self> {
        if settings.columns.is_empty() {
            return Err(Error::config("silver has no columns").hint("declare one or more [[silver.columns]]"));
        }
        if settings.max_depth == 0 {
            return Err(Error::config("silver.max_depth is 0").hint("1 admits an object of plain values"));
        }
        if settings.format == TableFormat::Hive {
            let lacks = match settings.unknown_fields {
                UnknownFields::Keep => "\"keep\" needs a map column, which silver.format = \"hive\" has not",
                UnknownFields::Add => "\"add\" needs a table that takes columns, which silver.format = \"hive\" does not",
                UnknownFields::Ignore | UnknownFields::Reject => "",
            };
            if !lacks.is_empty() {
                return Err(Error::config(format!("silver.unknown_fields = {lacks}"))
                    .hint("use the Iceberg form, or \"ignore\": bronze has the messages as they came"));
            }
        }
        let declared = settings.columns.iter().map(|column| column.name.as_str()).chain(settings.kept_in());
        names::check(declared.chain(settings.derive.iter().map(|derive| derive.name.as_str())))?;
        let columns: Vec<Column> = settings.columns.iter().map(column).collect::<Result<_>>()?;
        check_fields(&columns)?;

        let planner = Planner::default();
        let mut fields = row_fields(&settings.columns);
        fields.extend(settings.kept_in().map(kept_field));
        let mut derive = Vec::with_capacity(settings.derive.len());
        for settings in &settings.derive {
            let target = Target::Value(settings.column_type.arrow());
            let expression = planner
                .plan(&settings.sql, &Arc::new(Schema::new(fields.clone())), &target)
                .with_context(|| format!("derived column {} is not usable: `{}`", settings.name, settings.sql.trim()))?;
            derive.push(Named { name: settings.name.clone(), expression });
            fields.push(derived_field(settings));
        }
        let expect = expectations(&planner, &settings.expect, &Arc::new(Schema::new(fields.clone())))?;
        fields.push(documented(PROCESSING_TIMESTAMP, INSTANT, Presence::Required, "when the row was made, in UTC"));

        let arrow_schema = Arc::new(Schema::new(fields));
        let schema = arrow_schema_to_schema_auto_assign_ids(&arrow_schema)
            .map_err(|error| Error::config("silver's columns make no table").caused_by(error))?;
        Ok(Self {
            format: decoder::format(&settings.message_format)?,
            columns: columns.into(),
            unknown_fields: settings.unknown_fields,
            max_depth: settings.max_depth,
            max_value_bytes: settings.max_value_bytes.as_u64(),
            derive,
            expect,
            partition_by: match settings.format {
                TableFormat::Iceberg => partitioning::parse(&settings.partition_by, &schema)?,
                TableFormat::Hive => {
                    partitioning::ensure_directories(partitioning::parse(&settings.partition_by, &schema)?, &arrow_schema)?
                }
            },
            sort_by: sort_by(settings, &schema)?,
            read_from: read_from(settings),
            no_dictionary: no_dictionary(settings),
            definition_hash: definition_hash(settings)?,
            arrow_schema,
            schema,
        })
    }

    /// The table's schema: coordinates, columns, derived columns, time of processing; required where a row always has a value.
    pub fn schema(&self) -> &iceberg::spec::Schema {
        &self.schema
    }

    /// The columns of [`SilverBatch::rows`], in order; each field's `doc` says what it holds.
    pub fn arrow_schema(&self) -> &SchemaRef {
        &self.arrow_schema
    }

    /// The columns that the table is partitioned by, with what is made of each.
    pub fn partition_by(&self) -> &[(String, Transform)] {
        &self.partition_by
    }

    /// Columns and the fields that they are read from, where these have other names.
    pub fn read_from(&self) -> &[(String, String)] {
        &self.read_from
    }

    /// How engines are asked to sort the table's rows; none where the definition says nothing of it.
    pub fn sort_by(&self) -> Option<&[SortKey]> {
        self.sort_by.as_deref()
    }

    /// Columns for whose data files a dictionary is a loss.
    pub fn no_dictionary(&self) -> &[String] {
        &self.no_dictionary
    }

    /// Names everything that decides which row or rejection a record becomes; 32 hexadecimal digits. Where tables stand and how columns are
    /// described has no part in it.
    pub fn definition_hash(&self) -> &str {
        &self.definition_hash
    }

    /// Turns records into rows and rejected records. `processing_timestamp_us` is microseconds since 1970.
    pub fn transform(&self, batch: &RawBatch, processing_timestamp_us: i64) -> Result<SilverBatch> {
        let (mut working, rejections, unread) = self.divide(&batch.records)?;
        let made_at = TimestampMicrosecondArray::from_value(processing_timestamp_us, working.rows.num_rows());
        working.push(&self.arrow_schema, Arc::new(made_at))?;
        let rejected = rejected::batch(&batch.records, rejections, processing_timestamp_us)?;
        debug_assert_eq!(working.rows.num_rows() + rejected.num_rows(), batch.records.num_rows());
        Ok(SilverBatch { delta: batch.delta.clone(), rows: working.rows, rejected, unread })
    }

    /// Rejects every record: each with its reason, and one that this definition would accept because an earlier one rejected it. For
    /// records whose fate was decided, and committed to silver, before they could be committed as rejected.
    pub fn reject_all(&self, batch: &RawBatch, rejected_at_us: i64) -> Result<RecordBatch> {
        let (working, mut rejections, _) = self.divide(&batch.records)?;
        rejections.extend(working.origins.into_iter().map(|row| {
            let reason = "an earlier definition of silver rejected it; the present one would accept it";
            Rejection { row, fault: Fault { stage: Stage::Definition, field: None, reason: reason.into() } }
        }));
        rejected::batch(&batch.records, rejections, rejected_at_us)
    }

    /// The records that become rows, but for the time of processing, what is wrong with the others, and the fields that no column reads.
    fn divide(&self, records: &RecordBatch) -> Result<(Working, Vec<Rejection>, Vec<String>)> {
        let mut rejections = Vec::new();
        let (mut working, unread) = self.decode(records, &mut rejections)?;
        for derive in &self.derive {
            let values = working.evaluate(derive, Stage::Derive, &mut rejections)?;
            working.push(&self.arrow_schema, values)?;
        }
        for expect in &self.expect {
            let holds = working.evaluate(expect, Stage::Expect, &mut rejections)?;
            working.keep_expected(expect, holds.as_boolean(), &mut rejections)?;
        }
        Ok((working, rejections, unread))
    }

    /// The records that can be decoded, with their coordinates.
    fn decode(&self, records: &RecordBatch, rejections: &mut Vec<Rejection>) -> Result<(Working, Vec<String>)> {
        let messages = record::column::<arrow::array::BinaryArray>(records, VALUE)?;
        let layout = Layout { columns: &self.columns, unknown_fields: self.unknown_fields, max_depth: self.max_depth };
        let mut decoder = (self.format.decoder)(layout);
        let mut columns = Columns::new(self.columns.clone(), messages.len());
        if self.unknown_fields == UnknownFields::Keep {
            columns = columns.keeping_others();
        }
        let mut origins = Vec::with_capacity(messages.len());
        for (row, message) in (0..).zip(messages) {
            let outcome = self.check_size(message).and_then(|message| {
                decoder.decode(message, &mut columns)?;
                columns.end_row()
            });
            match outcome {
                Ok(()) => origins.push(row),
                Err(fault) => {
                    columns.roll_back();
                    rejections.push(Rejection { row, fault });
                }
            }
        }
        let names = [TOPIC, PARTITION, OFFSET, TIMESTAMP];
        let indexes = names.map(|name| records.schema_ref().index_of(name)).into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut coordinates = records.project(&indexes)?;
        if !rejections.is_empty() {
            coordinates = take_record_batch(&coordinates, &UInt32Array::from(origins.clone()))?;
        }
        let mut arrays = coordinates.columns().to_vec();
        arrays.extend(columns.finish()?);
        let unread = if self.unknown_fields == UnknownFields::Add { decoder.unread() } else { Vec::new() };
        Ok((Working { rows: prefix(&self.arrow_schema, arrays, origins.len())?, origins }, unread))
    }

    fn check_size<'m>(&self, message: Option<&'m [u8]>) -> Result<&'m [u8], Fault> {
        match message {
            None => Err(Fault::message("value is null")),
            Some([]) => Err(Fault::message("value is empty")),
            Some(message) if message.len() as u64 > self.max_value_bytes => {
                Err(Fault::message(format!("has {} bytes, silver.max_value_bytes is {}", message.len(), self.max_value_bytes)))
            }
            Some(message) => Ok(message),
        }
    }
}

/// Rows on their way: the first columns of silver, and for each row the record that it comes from.
struct Working {
    rows: RecordBatch,
    origins: Vec<u32>,
}

impl Working {
    /// Evaluates an expression. Rows for which it fails are rejected and leave the batch.
    fn evaluate(&mut self, named: &Named, stage: Stage, rejections: &mut Vec<Rejection>) -> Result<ArrayRef> {
        // Each turn rejects a row or more. One turn is the rule: only rows that fail together, but not alone, need another.
        loop {
            let failed = match named.expression.evaluate(&self.rows) {
                Ok(values) => return Ok(values),
                Err(failed) => failed,
            };
            let mut keep = vec![true; self.origins.len()];
            for (row, reason) in failed {
                let inputs = named.expression.inputs(&self.rows, row);
                let reason = format!("`{}` failed: {reason}; {inputs}", named.expression.sql());
                rejections.push(Rejection { row: self.origins[row], fault: Fault::field(stage, &named.name, reason) });
                keep[row] = false;
            }
            self.keep(&keep.into())?;
        }
    }

    /// Rejects the rows for which a condition is false or null.
    fn keep_expected(&mut self, expect: &Named, holds: &BooleanArray, rejections: &mut Vec<Rejection>) -> Result<()> {
        if holds.null_count() == 0 && !holds.has_false() {
            return Ok(());
        }
        let keep: BooleanArray = (0..holds.len()).map(|row| Some(holds.is_valid(row) && holds.value(row))).collect();
        for row in (0..holds.len()).filter(|row| !keep.value(*row)) {
            let found = if holds.is_null(row) { "unknown" } else { "false" };
            let inputs = expect.expression.inputs(&self.rows, row);
            let reason = format!("`{}` is {found}: {inputs}", expect.expression.sql());
            rejections.push(Rejection { row: self.origins[row], fault: Fault::field(Stage::Expect, &expect.name, reason) });
        }
        self.keep(&keep)
    }

    fn keep(&mut self, keep: &BooleanArray) -> Result<()> {
        self.rows = filter_record_batch(&self.rows, keep)?;
        let mut row = 0;
        self.origins.retain(|_| {
            row += 1;
            keep.value(row - 1)
        });
        Ok(())
    }

    /// Adds the next column of silver.
    fn push(&mut self, schema: &SchemaRef, values: ArrayRef) -> Result<()> {
        let mut arrays = self.rows.columns().to_vec();
        arrays.push(values);
        self.rows = prefix(schema, arrays, self.origins.len())?;
        Ok(())
    }
}

/// The first columns of a schema as a batch.
fn prefix(schema: &SchemaRef, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let schema = if arrays.len() == schema.fields().len() {
        schema.clone()
    } else {
        Arc::new(Schema::new(schema.fields()[..arrays.len()].to_vec()))
    };
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema, arrays, &options)?)
}

/// How a column is read, from its settings.
fn column(settings: &ColumnSettings) -> Result<Column> {
    let name = &settings.name;
    if settings.required && settings.on_error == OnError::Null {
        return Err(Error::config(format!("silver column {name} is required, so nothing in it can become null"))
            .hint("set `required = false` beside `on_error = \"null\"`"));
    }
    let is_time = matches!(settings.column_type, ColumnType::Date | ColumnType::Timestamp);
    if !is_time && !settings.formats.is_empty() {
        return Err(Error::config(format!("silver column {name} is of type {} and has no formats", settings.column_type))
            .hint("`formats` is for dates and timestamps"));
    }
    let formats = settings.formats.iter().map(|format| format.parse()).collect::<Result<Vec<TimeFormat>, _>>();
    let mut formats =
        formats.map_err(|error| Error::config(format!("a format of silver column {name} is wrong")).caused_by(error))?;
    if let Some(format) = formats.iter().find(|format| is_time && !format.gives(settings.column_type)) {
        return Err(Error::config(format!("format `{format}` of silver column {name} has no full {}", settings.column_type))
            .hint("a date needs year, month and day, an instant also hour and minute or nothing of the time"));
    }
    if is_time && formats.is_empty() {
        formats.push(TimeFormat::Iso);
    }
    Ok(Column {
        name: name.clone(),
        field: settings.field.clone().unwrap_or_else(|| name.clone()),
        column_type: settings.column_type,
        required: settings.required,
        on_error: settings.on_error,
        formats,
        scale_excess: settings.scale_excess,
        lenient: settings.lenient,
    })
}

/// Refuses two columns that are read from one field.
fn check_fields(columns: &[Column]) -> Result<()> {
    for (index, column) in columns.iter().enumerate() {
        if let Some(other) = columns[..index].iter().find(|other| other.field == column.field) {
            return Err(Error::config(format!(
                "silver columns {} and {} are both read from field {}",
                other.name, column.name, column.field
            ))
            .hint("read it once and compute the other with [[silver.derive]]"));
        }
    }
    Ok(())
}

fn expectations(planner: &Planner, settings: &[ExpectSettings], scope: &SchemaRef) -> Result<Vec<Named>> {
    let mut expect: Vec<Named> = Vec::with_capacity(settings.len());
    for settings in settings {
        let name = &settings.name;
        if name.is_empty() || expect.iter().any(|other| other.name == *name) {
            return Err(Error::config(format!("a silver expectation is named {name:?}, which is no name or another one's"))
                .hint("rejected records are told apart by the names of expectations"));
        }
        let expression = planner
            .plan(&settings.sql, scope, &Target::Condition)
            .with_context(|| format!("expectation {name} is not usable: `{}`", settings.sql.trim()))?;
        expect.push(Named { name: name.clone(), expression });
    }
    Ok(expect)
}

#[derive(Clone, Copy)]
enum Presence {
    Required,
    Optional,
}

fn documented(name: &str, data_type: DataType, presence: Presence, doc: &str) -> Field {
    let nullable = matches!(presence, Presence::Optional);
    Field::new(name, data_type, nullable).with_metadata([("doc".to_owned(), doc.to_owned())].into())
}

/// The coordinates and the declared columns.
fn row_fields(columns: &[ColumnSettings]) -> Vec<Field> {
    let mut fields = vec![
        documented(TOPIC, DataType::Utf8, Presence::Required, "topic of the record"),
        documented(PARTITION, DataType::Int32, Presence::Required, "topic partition of the record"),
        documented(OFFSET, DataType::Int64, Presence::Required, "offset of the record in its topic partition"),
        documented(KAFKA_TIMESTAMP, INSTANT, Presence::Optional, "the record's own timestamp, in UTC"),
    ];
    fields.extend(columns.iter().map(|column| {
        let field = Field::new(&column.name, column.column_type.arrow(), !column.required);
        match &column.doc {
            Some(doc) => field.with_metadata([("doc".to_owned(), doc.clone())].into()),
            None => field,
        }
    }));
    fields
}

/// The map of fields that no column reads.
fn kept_field(name: &str) -> Field {
    let data_type = MapColumn::data_type();
    documented(name, data_type, Presence::Optional, "fields of the message that no column reads")
}

fn derived_field(derive: &DeriveSettings) -> Field {
    let doc = derive.doc.as_deref().unwrap_or(derive.sql.trim());
    documented(&derive.name, derive.column_type.arrow(), Presence::Optional, doc)
}

fn read_from(settings: &SilverSettings) -> Vec<(String, String)> {
    let named =
        |column: &ColumnSettings| Some((column.name.clone(), column.field.clone().filter(|field| *field != column.name)?));
    settings.columns.iter().filter_map(named).collect()
}

fn sort_by(settings: &SilverSettings, schema: &iceberg::spec::Schema) -> Result<Option<Vec<SortKey>>> {
    let Some(keys) = &settings.sort_by else { return Ok(None) };
    match settings.format {
        TableFormat::Iceberg => sorting::parse(keys, schema).map(Some),
        TableFormat::Hive => {
            Err(Error::config("silver.sort_by is set, and a plain Hive table (silver.format = \"hive\") has no sort order")
                .hint("leave it out, or set silver.format = \"iceberg\""))
        }
    }
}

fn no_dictionary(settings: &SilverSettings) -> Vec<String> {
    let columns = settings.columns.iter();
    let columns = columns.filter(|column| !column.dictionary.unwrap_or_else(|| column.column_type.usually_repeats()));
    let derive = settings.derive.iter().filter(|derive| !derive.column_type.usually_repeats());
    let coordinates = [OFFSET, KAFKA_TIMESTAMP].into_iter();
    coordinates
        .map(str::to_owned)
        .chain(columns.map(|column| column.name.clone()))
        .chain(derive.map(|derive| derive.name.clone()))
        .collect()
}

fn definition_hash(settings: &SilverSettings) -> Result<String> {
    #[derive(Serialize)]
    struct Definition<'a> {
        semantics: u32,
        format: &'a str,
        unknown_fields: UnknownFields,
        #[serde(skip_serializing_if = "Option::is_none")]
        kept_in: Option<&'a str>,
        max_depth: usize,
        max_value_bytes: u64,
        columns: Vec<ColumnSettings>,
        derive: Vec<(&'a str, ColumnType, &'a str)>,
        expect: &'a [ExpectSettings],
    }
    // Everything spelled out that a default stands for, and nothing that rows don't depend on.
    let column = |column: &ColumnSettings| ColumnSettings {
        field: Some(column.field.clone().unwrap_or_else(|| column.name.clone())),
        dictionary: None,
        doc: None,
        ..column.clone()
    };
    let definition = Definition {
        semantics: SEMANTICS_VERSION,
        format: &settings.message_format,
        unknown_fields: settings.unknown_fields,
        kept_in: settings.kept_in(),
        max_depth: settings.max_depth,
        max_value_bytes: settings.max_value_bytes.as_u64(),
        columns: settings.columns.iter().map(column).collect(),
        derive: settings.derive.iter().map(|derive| (derive.name.as_str(), derive.column_type, derive.sql.trim())).collect(),
        expect: &settings.expect,
    };
    let text =
        serde_json::to_vec(&definition).map_err(|error| Error::failed("silver's definition has no hash").caused_by(error))?;
    Ok(blake3::hash(&text).to_hex()[..32].to_owned())
}
