//! A logged table of Parquet files in partition directories, `Year=2026/Month=11/`, as every Hive reads them.
//!
//! A commit brings a file for each table partition in it and writer at work (and one more for every six topic partitions beyond the first
//! six), `Year=2026/Month=11/000000000017_0.0-1500_1.200-280.3.parquet`: its name tells the commit and which offsets of which topic
//! partitions the rows come from. The partition's columns are in the directory's name alone. Partitions are added to the metastore as they
//! appear.
//!
//! *What readers see*: each file whole; those of a commit one after the other, within the moment that it takes to rename them.
//!
//! *Costs*: rows are found by the log, see [`super::files`]; a file's columns are read as far as they are asked for. Files are never
//! merged: they are as many as commits times the table partitions that a commit has rows of.
//!
//! *Failure*: a file that the log names and that is gone is an error, never a smaller answer. Files that others put beside ours are not
//! read.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, new_null_array};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use iceberg::TableIdent;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::commit::LoggedFiles;
use super::files::CommittedFile;
use super::parquet_writer::ParquetWriter;
use super::{LoggedForm, LoggedKind, LoggedSpec, LoggedTable};
use crate::catalog::HiveCatalog;
use crate::checkpoint::Delta;
use crate::error::{Context, Error, Result};
use crate::hive::{CommitLog, DEFAULT_PARTITION, FileFormat, HiveTableSpec, LogFile, arrow_type, hive_columns};
use crate::record::{OFFSET, PARTITION, position};
use crate::storage::{CloseBarrier, FileReader};
use crate::table::{OffsetRanges, Records, WriterSettings};
use crate::window::Window;

/// In the metastore's entry: the partition columns as the configuration spells them, which Hive does not.
const PARTITION_COLUMNS: &str = "lakesmith.partition-columns";
/// Files that are opened ahead of the one that is read.
const FILES_OPENED: usize = 16;
/// Smaller files are read as a whole when they are opened: most of what such a file costs is the waiting for each read.
const READ_WHOLE_BELOW: u64 = 256 << 10;
/// Rows of one batch that is read.
const BATCH_ROWS: usize = 8_192;

static KIND: LoggedKind = LoggedKind {
    layer: "silver",
    format: FileFormat::Parquet,
    suffix: ".parquet",
    claimed: Window::SilverClaimed,
    indexed: true,
};

/// What a partitioned table is to be.
#[derive(Debug, Clone)]
pub struct PartitionedSpec<'a> {
    pub ident: TableIdent,
    /// A full URI.
    pub location: String,
    pub schema: &'a Schema,
    /// Columns of the schema.
    pub partition_by: Vec<String>,
    pub comment: String,
}

impl PartitionedSpec<'_> {
    /// As Hive has it: the partition columns are no columns of the files.
    pub fn logged(&self) -> Result<LoggedSpec> {
        let is_key = |field: &Field| self.partition_by.contains(field.name());
        let of_files = self.schema.fields().iter().filter(|field| !is_key(field)).cloned();
        let key = |name: &String| self.schema.field_with_name(name).cloned();
        let keys = self.partition_by.iter().map(key).collect::<std::result::Result<Vec<_>, _>>()?;
        keys.iter().try_for_each(ensure_names_directories)?;
        let parameters = [(PARTITION_COLUMNS, self.partition_by.join(",")), ("comment", self.comment.clone())];
        let documented = |fields: &Schema| -> Result<_> {
            let mut columns = hive_columns(fields)?;
            for (column, field) in columns.iter_mut().zip(fields.fields()) {
                column.comment = field.metadata().get("doc").cloned();
            }
            Ok(columns)
        };
        let table = HiveTableSpec {
            database: self.ident.namespace().to_url_string(),
            name: self.ident.name().to_owned(),
            location: self.location.clone(),
            format: FileFormat::Parquet,
            columns: documented(&Schema::new(of_files.collect::<Vec<_>>()))?,
            partition_keys: documented(&Schema::new(keys))?,
            parameters: parameters.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            serde_parameters: BTreeMap::new(),
        };
        Ok(LoggedSpec::new(self.ident.clone(), table))
    }
}

/// Refuses a partition column whose values not every engine reads back from a directory's name as they were.
pub fn ensure_names_directories(column: &Field) -> Result<()> {
    match column.data_type() {
        DataType::Utf8 | DataType::Int32 | DataType::Int64 | DataType::Date32 | DataType::Boolean => Ok(()),
        other => Err(Error::config(format!("a plain Hive table cannot be partitioned by {}, of type {other}", column.name()))
            .hint(
                "partition by texts, whole numbers, dates or booleans; derive such a column from this one with [[silver.derive]]",
            )),
    }
}

/// See the module head.
#[derive(Debug, Clone)]
pub struct ParquetTable {
    table: LoggedTable,
    /// The files' columns and then the partition's, named as the metastore names them.
    schema: SchemaRef,
    /// The partition columns as they are spelled in directories.
    keys: Arc<[String]>,
}

impl Deref for ParquetTable {
    type Target = LoggedTable;

    fn deref(&self) -> &LoggedTable {
        &self.table
    }
}

impl DerefMut for ParquetTable {
    fn deref_mut(&mut self) -> &mut LoggedTable {
        &mut self.table
    }
}

impl ParquetTable {
    fn new(table: LoggedTable) -> Result<Self> {
        let entry = table.entry();
        let keys = entry.partition_keys();
        let field = |(name, hive): (&str, &str)| Ok(Field::new(name, arrow_type(hive)?, true));
        let columns = entry.columns();
        let fields = columns.iter().chain(&keys).map(|column| field((&column.name, &column.hive_type)));
        let schema = Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?));
        let spelled: Vec<String> =
            entry.parameter(PARTITION_COLUMNS).into_iter().flat_map(|names| names.split(',')).map(str::to_owned).collect();
        let spelling = |key: &str| spelled.iter().find(|name| name.eq_ignore_ascii_case(key)).cloned();
        let keys = keys.iter().map(|key| spelling(&key.name).unwrap_or_else(|| key.name.clone())).collect();
        Ok(Self { table, schema, keys })
    }

    /// The partition columns as they are spelled in directories.
    pub fn keys(&self) -> &Arc<[String]> {
        &self.keys
    }

    /// As [`LoggedForm::scan`], without the files for which `skip` is true.
    pub async fn scan_but(
        &self,
        ranges: Option<&OffsetRanges>,
        columns: Option<&[&str]>,
        skip: impl Fn(&LogFile) -> bool,
    ) -> Result<Records> {
        let ranges = Arc::new(match ranges {
            Some(ranges) => ranges.clone(),
            None => self.whole()?,
        });
        let target = match columns {
            None => self.schema.clone(),
            Some(columns) => {
                let missing = |name: &str| Error::failed(format!("table {} has no column {name}", self.ident()));
                let field = |name: &&str| {
                    let at = position(self.schema.fields(), name).ok_or_else(|| missing(name))?;
                    Ok(self.schema.field(at).clone().with_name(*name))
                };
                Arc::new(Schema::new(columns.iter().map(field).collect::<Result<Vec<_>>>()?))
            }
        };
        let scan = Scan { log: self.log().clone(), keys: self.keys.clone(), target, ranges: ranges.clone() };
        let files: Vec<_> = self.files_of(&ranges).await?.into_iter().filter(|file| !skip(&file.file)).collect();
        let opening = futures::stream::iter(files).map(move |file| scan.clone().open(file).boxed());
        Ok(opening.buffered(FILES_OPENED).try_flatten().boxed())
    }

    /// Fails where the directories don't hold the files that the log names, or hold others that engines read with them: what `verify`
    /// asks, since lakesmith itself reads by the log.
    pub async fn ensure_as_committed(&self) -> Result<()> {
        let known: BTreeSet<String> = self.files_of(&self.whole()?).await?.into_iter().map(|file| file.file.name).collect();
        let found: BTreeSet<String> = self.log().visible_below(self.keys.len()).await?.into_iter().collect();
        let pending: BTreeSet<&String> = self.newest().files.iter().map(|file| &file.name).collect();
        let gone = known.iter().find(|name| !found.contains(*name) && !pending.contains(name));
        let example =
            |what: &str, name: &String| Error::failed(format!("table {}: {what}: {}", self.ident(), self.log().location(name)));
        if let Some(name) = gone {
            return Err(example("a file of its commits is gone", name).hint("put it back from a snapshot or the trash"));
        }
        // What was committed meanwhile has a later number.
        let others = found.iter().find(|name| !known.contains(*name) && !self.is_later(name));
        match others {
            None => Ok(()),
            Some(name) => Err(example("a file that no commit of lakesmith brought is read by engines", name)
                .hint("was it written by an engine, or copied? move it away; silver's rows are lakesmith's alone")),
        }
    }

    /// Whether a file belongs to a commit behind the one that this handle knows.
    fn is_later(&self, name: &str) -> bool {
        let number =
            name.rsplit('/').next().and_then(|name| name.split('_').next()).and_then(|number| number.parse::<u64>().ok());
        number.is_some_and(|number| number > self.newest().sequence)
    }
}

#[async_trait]
impl LoggedForm for ParquetTable {
    type Writer = ParquetWriter;

    const WRITERS_MAX: usize = usize::MAX;

    async fn open(catalog: &HiveCatalog, ident: &TableIdent) -> Result<Option<Self>> {
        LoggedTable::open(catalog, ident, &KIND).await?.map(Self::new).transpose()
    }

    async fn open_or_create(catalog: &HiveCatalog, spec: &LoggedSpec) -> Result<Self> {
        Self::new(LoggedTable::open_or_create(catalog, spec, &KIND).await?)
    }

    fn writer(&self, settings: &WriterSettings, barrier: &CloseBarrier) -> Result<ParquetWriter> {
        Ok(ParquetWriter::new(self, settings, barrier))
    }

    /// Offsets without a row need no file: the log tells where the table stands.
    async fn complement(&self, _: &mut LoggedFiles, _: &Delta, _: &CloseBarrier) -> Result<()> {
        Ok(())
    }

    /// Columns are matched whatever their case, and come back under the names that were asked for. Records of one file come in their
    /// order, and files in that of their commits.
    async fn scan(&self, ranges: Option<&OffsetRanges>, columns: Option<&[&str]>) -> Result<Records> {
        self.scan_but(ranges, columns, |_| false).await
    }
}

/// Rows as a table partitioned by these columns gives them back: an empty text has no directory of its own, and is null.
pub fn as_read_back(rows: &RecordBatch, keys: &[String]) -> Result<RecordBatch> {
    let is_text_key =
        |field: &Field| *field.data_type() == DataType::Utf8 && keys.iter().any(|key| key.eq_ignore_ascii_case(field.name()));
    if !rows.schema_ref().fields().iter().any(|field| is_text_key(field)) {
        return Ok(rows.clone());
    }
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        if is_text_key(field) {
            let empty = arrow::compute::kernels::cmp::eq(column, &StringArray::new_scalar(""))?;
            fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
            columns.push(arrow::compute::nullif(column, &empty)?);
        } else {
            fields.push(field.clone());
            columns.push(column.clone());
        }
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// What is read of each file.
#[derive(Clone)]
struct Scan {
    log: CommitLog,
    keys: Arc<[String]>,
    target: SchemaRef,
    ranges: Arc<OffsetRanges>,
}

impl Scan {
    async fn open(self, CommittedFile { file, newest }: CommittedFile) -> Result<Records> {
        let pending = newest.then_some(file.pending.as_str());
        let failed = |name: &str| format!("file {name} cannot be read");
        let opened = self.log.open(&file.name, pending).await;
        let opened = opened.map_err(|error| match error {
            crate::storage::StorageError::NotFound { .. } => {
                Error::stop(format!("file {} is gone, which a commit brought", self.log.location(&file.name)))
                    .hint("put it back from a snapshot or the trash")
            }
            error => Error::from(error).context(failed(&file.name)),
        })?;
        let mut reader = StoredFile::of(opened).await.with_context(|| failed(&file.name))?;
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::load_async(&mut reader, options).await.with_context(|| failed(&file.name))?;
        // INT96 is read as nanoseconds by default, which end in 2262.
        let as_read = micros(metadata.schema());
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true).with_schema(as_read.clone());
        let metadata = ArrowReaderMetadata::try_new(metadata.metadata().clone(), options).with_context(|| failed(&file.name))?;
        let wanted = self.target.fields().iter().map(|field| field.name().as_str()).chain([PARTITION, OFFSET]);
        let columns: BTreeSet<usize> = wanted.filter_map(|name| position(as_read.fields(), name)).collect();
        let mask = ProjectionMask::roots(metadata.parquet_schema(), columns);
        let batches = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata)
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .build()
            .with_context(|| failed(&file.name))?;
        let batches = batches.map(move |batch| {
            let batch = batch.with_context(|| failed(&file.name))?;
            let batch = filter_record_batch(&batch, &self.keep(&batch)?)?;
            self.arrange(&batch, &file).with_context(|| failed(&file.name))
        });
        Ok(batches.try_filter(|batch| futures::future::ready(batch.num_rows() > 0)).boxed())
    }

    /// The rows whose offsets are asked for.
    fn keep(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let missing = || Error::failed("a file does not hold the coordinates of its records");
        let column = |name: &str| position(batch.schema_ref().fields(), name).map(|at| batch.column(at));
        let partitions = column(PARTITION).and_then(|column| column.as_primitive_opt::<Int32Type>()).ok_or_else(missing)?;
        let offsets = column(OFFSET).and_then(|column| column.as_primitive_opt::<Int64Type>()).ok_or_else(missing)?;
        let contains = |partition, offset| self.ranges.get(&partition).is_some_and(|range| range.contains(offset));
        let kept = partitions.iter().zip(offsets).map(|(partition, offset)| Some(contains(partition?, offset?)));
        Ok(kept.map(|kept| Some(kept.unwrap_or(false))).collect())
    }

    /// The columns that were asked for: the file's, the partition's, or nulls for those that came later.
    fn arrange(&self, batch: &RecordBatch, file: &LogFile) -> Result<RecordBatch> {
        let rows = batch.num_rows();
        let column = |field: &Arc<Field>| -> Result<ArrayRef> {
            if let Some(key) = self.keys.iter().position(|key| key.eq_ignore_ascii_case(field.name())) {
                return constant(file.partition.get(key), field.data_type(), rows);
            }
            match position(batch.schema_ref().fields(), field.name()) {
                Some(at) => Ok(cast(batch.column(at), field.data_type())?),
                None => Ok(new_null_array(field.data_type(), rows)),
            }
        };
        let columns = self.target.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.target.clone(), columns, &options)?)
    }
}

/// A partition's value for each of its rows.
fn constant(value: Option<&String>, data_type: &DataType, rows: usize) -> Result<ArrayRef> {
    let text = value.map(String::as_str).filter(|value| *value != DEFAULT_PARTITION);
    let one = cast(&StringArray::from(vec![text]), data_type)?;
    if text.is_some() && one.null_count() > 0 {
        return Err(Error::failed(format!("the partition's value {} is no {data_type}", text.unwrap_or_default())));
    }
    Ok(arrow::compute::take(&one, &arrow::array::UInt32Array::from_value(0, rows), None)?)
}

/// A file's columns, with instants in microseconds.
fn micros(schema: &Schema) -> SchemaRef {
    let field = |field: &Arc<Field>| match field.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            Arc::new(field.as_ref().clone().with_data_type(DataType::Timestamp(TimeUnit::Microsecond, zone.clone())))
        }
        _ => field.clone(),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Fields>()))
}

/// Reads of a file what Parquet asks for.
struct StoredFile {
    file: FileReader,
    whole: Option<Bytes>,
}

impl StoredFile {
    async fn of(file: FileReader) -> Result<Self> {
        let whole = match file.size_bytes() {
            size if size < READ_WHOLE_BELOW => Some(file.read(0..size).await?),
            _ => None,
        };
        Ok(Self { file, whole })
    }
}

impl AsyncFileReader for StoredFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            match &self.whole {
                Some(whole) if range.start <= range.end && range.end <= whole.len() as u64 => {
                    Ok(whole.slice(range.start as usize..range.end as usize))
                }
                Some(whole) => Err(ParquetError::EOF(format!("bytes {range:?} of a file of {}", whole.len()))),
                None => self.file.read(range).await.map_err(|error| ParquetError::External(Box::new(error))),
            }
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let size_bytes = self.file.size_bytes();
            let reader = ParquetMetaDataReader::new().with_prefetch_hint(Some(16 << 10));
            Ok(Arc::new(reader.load_and_finish(self, size_bytes).await?))
        }
        .boxed()
    }
}
