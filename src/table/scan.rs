//! Reading records back by their coordinates.
//!
//! The ranges prune files and row groups by the statistics of partition and offset; an exact filter follows, because statistics only
//! say where a record may be. Columns are asked for by the names that they have now, in any case if that is unambiguous, and found by
//! field id: the iceberg crate resolves names in the snapshot's schema, where a column that was renamed since still has its old name, and
//! one that was added since is missing. They come back under the names that were asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Int32Type, Int64Type, Schema as ArrowSchema, SchemaRef as ArrowSchemaRef,
};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use iceberg::arrow::ArrowReader;
use iceberg::expr::{Bind, Predicate, Reference};
use iceberg::metadata_columns::RESERVED_COL_NAME_FILE;
use iceberg::scan::FileScanTask;
use iceberg::spec::{DataFileFormat, Datum, FormatVersion, Literal, ManifestContentType, NestedFieldRef, Snapshot};

use super::arrow_types::retype;
use super::upkeep::unreadable;
use super::{LakeTable, defaults, late_columns, manifests};
use crate::checkpoint::{OffsetRange, PartitionId};
use crate::error::{Context, Error, Result};
use crate::record::{OFFSET, PARTITION, position};

/// Data files that a scan reads at the same time.
const FILE_CONCURRENCY: usize = 2;
/// Decoded bytes of one batch, as far as the table's average record tells.
const BATCH_BYTES: u64 = 8 << 20;
/// How much larger records are decoded than in a file.
const INFLATION: u64 = 10;
/// Partitions above which a predicate names the span of all ranges instead of each: binding and evaluating it would cost more than it
/// saves.
const PREDICATE_PARTITIONS_MAX: usize = 64;

/// Offsets by topic partition.
pub type OffsetRanges = BTreeMap<PartitionId, OffsetRange>;

/// Records of a scan, batch by batch.
pub type Records = BoxStream<'static, Result<RecordBatch>>;

impl LakeTable {
    /// The records of these offset ranges (all records for none), streamed from the current snapshot; `columns` in the order given, all
    /// in table order if none, in the types of [`Self::arrow_schema`]. Records of one file come in their order; files come in any.
    pub async fn scan(&self, ranges: Option<&OffsetRanges>, columns: Option<&[&str]>) -> Result<Records> {
        self.scan_where(ranges, columns, None).await
    }

    /// A [`LakeTable::scan`] that leaves out records for which `also` is false or null; its columns have the names of
    /// [`LakeTable::scanned_name`].
    pub async fn scan_where(
        &self,
        ranges: Option<&OffsetRanges>,
        columns: Option<&[&str]>,
        also: Option<Predicate>,
    ) -> Result<Records> {
        let Some(snapshot) = self.metadata().current_snapshot() else { return Ok(futures::stream::empty().boxed()) };
        let failed = || format!("failed to read table {}", self.ident());
        self.ensure_no_deletion_vectors(snapshot).await?;
        let layout = Layout::new(self, snapshot, columns)?;
        let mut read: Vec<String> = layout.columns.iter().flatten().cloned().collect();
        let table = self.to_iceberg()?;
        let mut scan =
            table.scan().with_data_file_concurrency_limit(FILE_CONCURRENCY).with_batch_size(Some(batch_rows(snapshot)));
        let mut filter = None;
        let mut predicates: Vec<Predicate> = also.into_iter().collect();
        if let Some(ranges) = ranges {
            let (partition, offset) = (layout.scanned_name(self, PARTITION)?, layout.scanned_name(self, OFFSET)?);
            let Some(predicate) = predicate(ranges, &partition, &offset) else { return Ok(futures::stream::empty().boxed()) };
            predicates.push(predicate);
            read.extend(
                [&partition, &offset].into_iter().filter(|name| !layout.columns.contains(&Some((*name).clone()))).cloned(),
            );
            filter = Some(Exact { ranges: ranges.clone(), partition, offset });
        }
        if let Some(predicate) = predicates.into_iter().reduce(Predicate::and) {
            scan = scan.with_filter(predicate);
        }
        layout.order(&mut read);
        // Files of an earlier schema may have their columns in another order, and where types agree the iceberg crate (0.10) would take one
        // for the other. A column that no file has makes it go by field ids.
        if self.metadata().schemas_iter().count() > 1 {
            read.push(RESERVED_COL_NAME_FILE.to_owned());
        }
        let late = late_columns::late(self.metadata(), &layout.snapshot_schema, &read);
        let scan = scan.select(read).build().with_context(failed)?;
        let batches = match late.is_empty() {
            true => scan.to_arrow().await,
            false => late_columns::read(&table, &scan, late, batch_rows(snapshot), FILE_CONCURRENCY).await,
        };
        let batches = batches.map_err(unreadable).with_context(failed)?;
        let ident = self.ident().clone();
        let batches = batches.map(move |batch| {
            let batch = batch.map_err(|error| unreadable(error).context(format!("failed to read table {ident}")))?;
            let batch = without_file_column(batch);
            let batch = match &filter {
                Some(filter) => filter_record_batch(&batch, &filter.keep(&batch)?)?,
                None => batch,
            };
            layout.arrange(&batch)
        });
        Ok(batches.try_filter(|batch| futures::future::ready(batch.num_rows() > 0)).boxed())
    }

    /// The iceberg crate (0.10) takes a deletion vector for a Parquet file.
    async fn ensure_no_deletion_vectors(&self, snapshot: &Snapshot) -> Result<()> {
        let summary = &snapshot.summary().additional_properties;
        let may_have_deletes = summary.get("total-delete-files").is_none_or(|count| count != "0");
        if self.metadata().format_version() < FormatVersion::V3 || !may_have_deletes {
            return Ok(());
        }
        let file_io = self.catalog().file_io();
        for manifest in manifests::read_list(file_io, self.metadata(), snapshot).await?.iter() {
            if manifest.content == ManifestContentType::Deletes {
                let loaded = manifest.load_manifest(file_io).await.map_err(unreadable);
                let loaded = loaded.with_context(|| format!("failed to read manifest {}", manifest.manifest_path))?;
                let mut files = loaded.entries().iter().filter(|entry| entry.is_alive());
                if files.any(|entry| entry.file_format() == DataFileFormat::Puffin) {
                    return Err(Error::failed(format!(
                        "table {} cannot be read: another engine deleted rows of it by deletion vectors, which lakesmith does not read",
                        self.ident()
                    ))
                    .hint(
                        "set its properties write.delete.mode, write.update.mode and write.merge.mode to copy-on-write, and have Spark write its \
                         files anew: CALL system.rewrite_data_files(table => '…', options => map('delete-file-threshold', '1'))",
                    ));
                }
            }
        }
        Ok(())
    }

    /// As [`Self::scanned_name`], for a column that a predicate may be asked of; none also for one that was ever widened, because the iceberg
    /// crate (0.10) compares the statistics of files from before in the new type, and leaves out rows that fit; and for one with a
    /// default, which the crate takes for null in files without it.
    pub fn scanned_column(&self, column: &str) -> Result<Option<String>> {
        let Some(name) = self.scanned_name(column)? else { return Ok(None) };
        let Some(now) = self.metadata().current_schema().as_struct().fields().iter().find(|field| field.name == column) else {
            return Ok(None);
        };
        let mut ever = self.metadata().schemas_iter().filter_map(|schema| schema.field_by_id(now.id));
        if now.initial_default.is_some() {
            return Ok(None);
        }
        Ok(ever.all(|then| then.field_type == now.field_type).then_some(name))
    }

    /// Whether the current snapshot can be asked for a predicate: it has the columns, in types that take the values.
    pub fn can_ask(&self, predicate: &Predicate) -> Result<bool> {
        let Some(snapshot) = self.metadata().current_snapshot() else { return Ok(true) };
        Ok(predicate.bind(snapshot.schema(self.metadata())?, true).is_ok())
    }

    /// The name that a column of now has in the current snapshot; none if the snapshot doesn't have it, or there is none.
    pub fn scanned_name(&self, column: &str) -> Result<Option<String>> {
        let Some(snapshot) = self.metadata().current_snapshot() else { return Ok(None) };
        let layout = Layout::new(self, snapshot, Some(&[column]))?;
        Ok(layout.columns.into_iter().next().flatten())
    }
}

/// Reads data files of one snapshot one by one, with the deletes applied that other engines wrote for them.
pub(super) struct FileReader {
    layout: Layout,
    reader: ArrowReader,
    late: Arc<[i32]>,
    tasks: HashMap<String, FileScanTask>,
    table: String,
}

impl FileReader {
    /// The rows of a file of the snapshot.
    pub async fn read(&self, path: &str) -> Result<Records> {
        let failed = || format!("failed to read {path} of table {}", self.table);
        let task =
            self.tasks.get(path).cloned().ok_or_else(|| Error::failed("it is no file of the snapshot").context(failed()))?;
        let batches = late_columns::read_file(self.reader.clone(), task, self.late.clone()).await;
        let (layout, failed) = (self.layout.clone(), failed());
        let batches = batches.map_err(unreadable).with_context(|| failed.clone())?;
        let arranged = batches.map(move |batch| {
            layout.arrange(&without_file_column(batch.map_err(|error| unreadable(error).context(failed.clone()))?))
        });
        Ok(arranged.boxed())
    }
}

impl LakeTable {
    /// Reads files of the current snapshot, in the columns given or all.
    pub(super) async fn file_reader(&self, columns: Option<&[&str]>) -> Result<FileReader> {
        let failed = || format!("failed to read table {}", self.ident());
        let snapshot = self.metadata().current_snapshot().ok_or_else(|| Error::failed("it has no snapshot").context(failed()))?;
        self.ensure_no_deletion_vectors(snapshot).await?;
        let layout = Layout::new(self, snapshot, columns)?;
        let mut read: Vec<String> = layout.columns.iter().flatten().cloned().collect();
        layout.order(&mut read);
        read.push(RESERVED_COL_NAME_FILE.to_owned());
        let late = late_columns::late(self.metadata(), &layout.snapshot_schema, &read).into();
        let table = self.to_iceberg()?;
        let scan = table.scan().select(read).build().with_context(failed)?;
        let tasks = scan.plan_files().await.map_err(unreadable).with_context(failed)?;
        let tasks: Vec<FileScanTask> = tasks.try_collect().await.map_err(unreadable).with_context(failed)?;
        let tasks = tasks.into_iter().map(|task| (task.data_file_path.clone(), task)).collect();
        let reader = table.reader_builder().with_batch_size(batch_rows(snapshot)).with_data_file_concurrency_limit(1).build();
        Ok(FileReader { layout, reader, late, tasks, table: self.ident().to_string() })
    }
}

/// Rows of one batch, so that large messages don't fill the memory.
fn batch_rows(snapshot: &Snapshot) -> usize {
    let count = |key: &str| snapshot.summary().additional_properties.get(key).and_then(|count| count.parse::<u64>().ok());
    let record_bytes = match (count("total-files-size"), count("total-records")) {
        (Some(bytes), Some(records)) if records > 0 => bytes / records * INFLATION,
        _ => 0,
    };
    (BATCH_BYTES / record_bytes.max(1)).clamp(64, 8192) as usize
}

/// How the columns that were asked for are found in what the snapshot has.
#[derive(Clone)]
struct Layout {
    target: ArrowSchemaRef,
    /// For each target column its name in the snapshot's schema; none where the snapshot doesn't have it yet.
    columns: Vec<Option<String>>,
    /// For each target column what files without it show.
    defaults: Vec<Option<Literal>>,
    snapshot_schema: iceberg::spec::SchemaRef,
}

impl Layout {
    fn new(table: &LakeTable, snapshot: &Snapshot, columns: Option<&[&str]>) -> Result<Self> {
        let snapshot_schema = snapshot.schema(table.metadata())?;
        let whole = table.arrow_schema()?;
        let target = match columns {
            None => whole,
            Some(columns) => {
                let field = |name: &&str| match position(whole.fields(), name) {
                    Some(at) => Ok(whole.field(at).clone().with_name(*name)),
                    None => Err(missing(table, name)),
                };
                Arc::new(ArrowSchema::new(columns.iter().map(field).collect::<Result<Vec<_>>>()?))
            }
        };
        let mut layout = Self { target: target.clone(), columns: Vec::new(), defaults: Vec::new(), snapshot_schema };
        layout.columns = target.fields().iter().map(|field| layout.scanned_name(table, field.name()).ok()).collect();
        let default = |field: &FieldRef| current_field(table, field.name())?.initial_default.clone();
        layout.defaults = target.fields().iter().map(default).collect();
        Ok(layout)
    }

    /// The name that a column of now has in the snapshot's schema.
    fn scanned_name(&self, table: &LakeTable, column: &str) -> Result<String> {
        let name = current_field(table, column).and_then(|field| self.snapshot_schema.name_by_field_id(field.id));
        name.map(str::to_owned).ok_or_else(|| missing(table, column))
    }

    /// Names of the snapshot's columns in the order in which its files have them.
    fn order(&self, names: &mut [String]) {
        let fields = self.snapshot_schema.as_struct().fields();
        names.sort_by_key(|name| fields.iter().position(|field| field.name == *name));
    }

    fn arrange(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let found = self.columns.iter().map(|name| batch.column_by_name(name.as_ref()?));
        let columns = self.target.fields().iter().zip(found).zip(&self.defaults).map(|((field, found), default)| match found {
            Some(column) => retype(column, field),
            None => defaults::column(default.as_ref(), field, batch.num_rows()),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.target.clone(), columns, &options)?)
    }
}

/// A column of the table's schema of now.
fn current_field<'a>(table: &'a LakeTable, column: &str) -> Option<&'a NestedFieldRef> {
    let now = table.metadata().current_schema().as_struct().fields();
    let names: Fields = now.iter().map(|field| Field::new(&field.name, DataType::Null, true)).collect();
    position(&names, column).map(|at| &now[at])
}

fn without_file_column(mut batch: RecordBatch) -> RecordBatch {
    if let Ok(at) = batch.schema_ref().index_of(RESERVED_COL_NAME_FILE) {
        batch.remove_column(at);
    }
    batch
}

fn missing(table: &LakeTable, column: &str) -> Error {
    Error::failed(format!("table {} has no column {column}", table.ident()))
}

/// None if the ranges are empty.
fn predicate(ranges: &OffsetRanges, partition_column: &str, offset_column: &str) -> Option<Predicate> {
    let ranges = || ranges.iter().filter(|(_, range)| !range.is_empty());
    let span = |start: i64, end: i64| {
        let offset = || Reference::new(offset_column);
        offset().greater_than_or_equal_to(Datum::long(start)).and(offset().less_than(Datum::long(end)))
    };
    if ranges().count() > PREDICATE_PARTITIONS_MAX {
        let start = ranges().map(|(_, range)| range.start).min()?;
        let end = ranges().map(|(_, range)| range.end).max()?;
        return Some(span(start, end));
    }
    let one = |(partition, range): (&PartitionId, &OffsetRange)| {
        Reference::new(partition_column).equal_to(Datum::int(*partition)).and(span(range.start, range.end))
    };
    ranges().map(one).reduce(Predicate::or)
}

/// The exact filter.
struct Exact {
    ranges: OffsetRanges,
    partition: String,
    offset: String,
}

impl Exact {
    fn keep(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let missing = || Error::failed("the scan did not return the coordinates of its records");
        let partitions = batch.column_by_name(&self.partition).and_then(|column| column.as_primitive_opt::<Int32Type>());
        let offsets = batch.column_by_name(&self.offset).and_then(|column| column.as_primitive_opt::<Int64Type>());
        let (partitions, offsets) = partitions.zip(offsets).ok_or_else(missing)?;
        let contains = |partition, offset| self.ranges.get(&partition).is_some_and(|range| range.contains(offset));
        let kept = partitions.iter().zip(offsets).map(|(partition, offset)| Some(contains(partition?, offset?)));
        Ok(BooleanArray::from_iter(kept.map(|kept| Some(kept.unwrap_or(false)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(partitions: i32) -> OffsetRanges {
        (0..partitions).map(|partition| (partition, OffsetRange::new(i64::from(partition), 10_000))).collect()
    }

    #[test]
    fn few_ranges_are_named_and_many_are_spanned() {
        let predicate = |ranges| predicate(&ranges, "partition", "offset");
        assert!(predicate(BTreeMap::from([(0, OffsetRange::new(5, 5))])).is_none());
        assert_eq!(predicate(ranges(2)).unwrap().to_string().matches("partition").count(), 2);
        let many = predicate(ranges(1000)).unwrap().to_string();
        assert!(!many.contains("partition") && many.contains("offset >= 0"), "{many}");
    }
}
