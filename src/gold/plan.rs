//! A gold definition, planned once over silver's columns: which columns are read, how a batch is split into windows and groups, what
//! the table looks like, and the SQL that gives the same rows.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int32Array, Int64Array, PrimitiveArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::DFSchema;
use datafusion::execution::context::{SessionConfig, SessionContext};

use super::accumulator::{Accumulator, Argument};
use super::measure::Measure;
use super::settings::GoldSettings;
use super::window::{WINDOW_END, WINDOW_START, Windows, is_nameable};
use crate::compatibility::HiveFiles;
use crate::error::{Error, Result};
use crate::hive::hive_type;
use crate::record::{INSTANT, OFFSET, PARTITION, column};

/// The column that stands in for a missing timestamp.
pub const PROCESSING_TIMESTAMP: &str = "processing_timestamp";

/// A gold definition that is known to be computable.
#[derive(Debug, Clone)]
pub struct GoldPlan {
    settings: GoldSettings,
    windows: Windows,
    measures: Vec<Measure>,
    /// The columns of silver that are read, in silver's order.
    input: SchemaRef,
    /// The columns of gold's files.
    output: SchemaRef,
    dimensions: Option<Arc<RowConverter>>,
    files: HiveFiles,
}

/// A batch of silver rows, split and evaluated.
pub struct Evaluated {
    pub partitions: Int32Array,
    pub offsets: Int64Array,
    /// When each record happened.
    pub instants: Vec<i64>,
    /// The start of each record's window.
    pub starts: Vec<i64>,
    /// Each record's dimensions as bytes; none if there are no dimensions.
    pub keys: Option<Rows>,
    /// One per measure.
    pub arguments: Vec<Argument>,
}

impl GoldPlan {
    /// Plans a definition over silver's schema. Every error is a configuration error that names the column or measure.
    pub fn new(settings: &GoldSettings, silver: &Schema) -> Result<Self> {
        settings.validate()?;
        let about = |error: Error| error.context(format!("gold table {}", settings.table));
        Self::plan(settings, silver).map_err(about)
    }

    fn plan(settings: &GoldSettings, silver: &Schema) -> Result<Self> {
        let context = session();
        let silver: Vec<Field> =
            silver.fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true)).collect();
        let all = to_df_schema(silver.clone())?;
        let measures =
            settings.measures.iter().map(|measure| Measure::parse(measure, &context, &all)).collect::<Result<Vec<_>>>()?;

        let mut read: BTreeSet<&str> = BTreeSet::from([PARTITION, OFFSET, PROCESSING_TIMESTAMP, &settings.time_column]);
        read.extend(settings.dimensions.iter().map(String::as_str));
        read.extend(measures.iter().flat_map(|measure| &measure.columns).map(String::as_str));
        if let Some(missing) = read.iter().find(|name| silver.iter().all(|field| field.name() != *name)) {
            let names: Vec<_> = silver.iter().map(|field| field.name().as_str()).collect();
            return Err(Error::config(format!("silver has no column {missing}"))
                .hint(format!("silver's columns are {}", names.join(", "))));
        }
        let input: Vec<Field> = silver.iter().filter(|field| read.contains(field.name().as_str())).cloned().collect();
        for name in [settings.time_column.as_str(), PROCESSING_TIMESTAMP] {
            let timestamp =
                input.iter().any(|field| field.name() == name && matches!(field.data_type(), DataType::Timestamp(_, _)));
            if !timestamp {
                return Err(
                    Error::config(format!("column {name} is not a timestamp")).hint("set gold.time_column to a timestamp column")
                );
            }
        }
        let input_schema = to_df_schema(input.clone())?;
        let measures = measures.into_iter().map(|measure| measure.bind(&context, &input_schema)).collect::<Result<Vec<_>>>()?;

        let windows = Windows::new(settings.window, settings.partition_by);
        let mut output = vec![Field::new(WINDOW_START, INSTANT, false), Field::new(WINDOW_END, INSTANT, false)];
        for name in &settings.dimensions {
            let field = input.iter().find(|field| field.name() == name).cloned();
            let field = field.ok_or_else(|| Error::config(format!("silver has no column {name}")))?;
            if matches!(field.data_type(), DataType::Float32 | DataType::Float64 | DataType::Binary) {
                return Err(Error::config(format!("dimension {name} has the type {}, which makes no groups", field.data_type())));
            }
            output.push(field);
        }
        output.extend(measures.iter().map(Measure::field));
        let mut names: BTreeSet<String> = windows.partition_columns().iter().map(|name| name.to_string()).collect();
        for field in &output {
            hive_type(field.data_type()).map_err(|error| error.context(format!("column {}", field.name())))?;
            if !names.insert(field.name().to_lowercase()) {
                let hint = "Hive does not tell upper from lower case; give the measure or dimension another name";
                return Err(Error::config(format!("column {} is there twice", field.name())).hint(hint));
            }
        }
        let sort_fields: Vec<_> =
            output[2..2 + settings.dimensions.len()].iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let dimensions = if sort_fields.is_empty() { None } else { Some(Arc::new(RowConverter::new(sort_fields)?)) };
        Ok(Self {
            settings: settings.clone(),
            windows,
            measures,
            input: Arc::new(Schema::new(input)),
            output: Arc::new(Schema::new(output)),
            dimensions,
            files: HiveFiles::default(),
        })
    }

    /// The plan with files of that kind.
    pub fn with_files(self, files: HiveFiles) -> Self {
        Self { files, ..self }
    }

    /// What its files are like.
    pub fn files(&self) -> HiveFiles {
        self.files
    }

    pub fn settings(&self) -> &GoldSettings {
        &self.settings
    }

    pub fn windows(&self) -> Windows {
        self.windows
    }

    pub fn measures(&self) -> &[Measure] {
        &self.measures
    }

    /// The columns of silver that are read.
    pub fn columns(&self) -> Vec<&str> {
        self.input.fields().iter().map(|field| field.name().as_str()).collect()
    }

    /// A batch of the columns that are read, without rows.
    pub fn no_rows(&self) -> RecordBatch {
        RecordBatch::new_empty(self.input.clone())
    }

    /// The columns of gold's files: window, dimensions, measures. Partition keys are not among them.
    pub fn schema(&self) -> &SchemaRef {
        &self.output
    }

    /// How dimensions become bytes and come back; none without dimensions.
    pub fn dimensions(&self) -> Option<&RowConverter> {
        self.dimensions.as_deref()
    }

    pub fn accumulators(&self) -> Result<Vec<Box<dyn Accumulator>>> {
        self.measures.iter().map(Measure::accumulator).collect()
    }

    /// Splits silver rows into windows and groups and evaluates the measures' arguments.
    pub fn evaluate(&self, rows: &RecordBatch) -> Result<Evaluated> {
        let rows = self.project(rows)?;
        let (instants, starts) = self.instants(&rows)?;
        let keys = match &self.dimensions {
            None => None,
            Some(converter) => {
                let columns = self.settings.dimensions.iter().map(|name| {
                    rows.column_by_name(name)
                        .cloned()
                        .ok_or_else(|| Error::failed(format!("column {name} is missing in a batch")))
                });
                Some(converter.convert_columns(&columns.collect::<Result<Vec<_>>>()?)?)
            }
        };
        let arguments = self.measures.iter().map(|measure| measure.argument(&rows)).collect::<Result<_>>()?;
        Ok(Evaluated {
            partitions: column::<Int32Array>(&rows, PARTITION)?.clone(),
            offsets: column::<Int64Array>(&rows, OFFSET)?.clone(),
            instants,
            starts,
            keys,
            arguments,
        })
    }

    /// The columns that are read, by name, in the types that were planned.
    fn project(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.input.fields().iter().map(|field| {
            let array = rows
                .column_by_name(field.name())
                .ok_or_else(|| Error::failed(format!("column {} is missing in silver's rows", field.name())))?;
            Ok(if array.data_type() == field.data_type() { array.clone() } else { cast(array, field.data_type())? })
        });
        Ok(RecordBatch::try_new(self.input.clone(), columns.collect::<Result<_>>()?)?)
    }

    /// When each record happened, and the start of its window. A record without a timestamp, or with one outside the years 1 to 9999
    /// that no partition could be named after, happened when it was processed.
    fn instants(&self, rows: &RecordBatch) -> Result<(Vec<i64>, Vec<i64>)> {
        let timestamps = |name: &str| -> Result<PrimitiveArray<TimestampMicrosecondType>> {
            let array = rows.column_by_name(name).ok_or_else(|| Error::failed(format!("column {name} is missing in a batch")))?;
            Ok(cast(array, &INSTANT)?.as_primitive::<TimestampMicrosecondType>().clone())
        };
        let (happened, processed) = (timestamps(&self.settings.time_column)?, timestamps(PROCESSING_TIMESTAMP)?);
        let mut instants = Vec::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            let usable = |array: &PrimitiveArray<_>| array.is_valid(row) && is_nameable(array.value(row));
            instants.push(match (usable(&happened), usable(&processed)) {
                (true, _) => happened.value(row),
                (false, true) => processed.value(row),
                (false, false) => return Err(Error::stop("a silver row has neither a timestamp nor a processing timestamp")),
            });
        }
        let starts = instants.iter().map(|instant| self.windows.start_of(*instant)).collect();
        Ok((instants, starts))
    }
}

/// A session in which names are what they are written as.
fn session() -> SessionContext {
    SessionContext::new_with_config(SessionConfig::new().set_bool("datafusion.sql_parser.enable_ident_normalization", false))
}

fn to_df_schema(fields: Vec<Field>) -> Result<DFSchema> {
    DFSchema::try_from(Schema::new(fields)).map_err(|error| Error::config("silver's columns are not usable").caused_by(error))
}
