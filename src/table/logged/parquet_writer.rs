//! Writing the Parquet files of a batch: rows split by table partition, encoded as Hive reads them, without the partition's columns.
//!
//! *Invariants*: all rows that are not encoded yet hold at most about `buffer_size_max` bytes; the table partition with the most of them
//! is encoded first. A file holds rows of one table partition and of at most [`PARTITIONS_PER_FILE`] topic partitions, in the order in
//! which they came.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::HashMap;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use uuid::Uuid;

use super::commit::{LoggedFiles, PendingFile};
use super::parquet::ParquetTable;
use super::{LoggedTable, LoggedWriter};
use crate::checkpoint::{OffsetRange, PartitionId};
use crate::error::{Error, Result};
use crate::hive::file_name::PARTITIONS_PER_FILE;
use crate::hive::{CommitLog, DEFAULT_PARTITION, FileEncoder, FileSpan, PartitionKey, hive_type};
use crate::record::{coordinates, position};
use crate::storage::{CloseBarrier, Create, FileWriter, Storages};
use crate::table::writer::off_the_reactor;
use crate::table::{Begun, WriterSettings};

/// Rows of a file that are collected for a row group of its own, in bytes of memory.
const ROW_GROUP_BYTES: usize = 64 << 20;
/// Files that are finished at the same time.
const FILES_FINISHED_AT_ONCE: usize = 8;

/// See the module head.
pub struct ParquetWriter {
    storages: Storages,
    log: CommitLog,
    barrier: CloseBarrier,
    settings: WriterSettings,
    table: String,
    /// Hive types of the table's columns, partition columns too, by name in lower case.
    types: BTreeMap<String, String>,
    keys: Arc<[String]>,
    open: Vec<OpenFile>,
}

/// A file that takes rows.
struct OpenFile {
    file: PendingFile,
    encoder: FileEncoder,
    rows: Vec<RecordBatch>,
    /// Of `rows`.
    bytes: usize,
    /// Columns with a null, or none that could be compared.
    unspanned: Vec<String>,
    /// None until something is encoded.
    writer: Option<FileWriter>,
}

impl ParquetWriter {
    pub(super) fn new(table: &ParquetTable, settings: &WriterSettings, barrier: &CloseBarrier) -> Self {
        let logged: &LoggedTable = table;
        let entry = logged.entry();
        let columns = entry.columns().into_iter().chain(entry.partition_keys());
        Self {
            storages: logged.catalog().storages().clone(),
            log: logged.log().clone(),
            barrier: barrier.clone(),
            settings: settings.clone(),
            table: logged.ident().to_string(),
            types: columns.map(|column| (column.name.to_lowercase(), column.hive_type)).collect(),
            keys: table.keys().clone(),
            open: Vec::new(),
        }
    }

    /// Stops if the table has other columns than the batch: a file that Hive can't read must not get into it.
    fn ensure_columns(&self, schema: &Schema) -> Result<()> {
        for field in schema.fields() {
            let hive_type = hive_type(field.data_type())?;
            let found = self.types.get(&field.name().to_lowercase());
            if !found.is_some_and(|found| found.eq_ignore_ascii_case(&hive_type)) {
                let found = found.map_or_else(|| "no such column".to_owned(), |found| format!("{found} there"));
                return Err(Error::stop(format!(
                    "table {} does not take column {} {hive_type}: {found}",
                    self.table,
                    field.name()
                ))
                .hint(
                    "add the column to the table in Hive (ALTER TABLE ... ADD COLUMNS ... CASCADE), or choose another table name",
                ));
            }
        }
        Ok(())
    }

    /// The rows of each table partition, in their order.
    fn split(&self, records: &RecordBatch) -> Result<Vec<(Option<PartitionKey>, RecordBatch)>> {
        let fields = records.schema_ref().fields();
        let mut keys: Vec<ArrayRef> = Vec::with_capacity(self.keys.len());
        for key in self.keys.iter() {
            let missing = || Error::failed(format!("rows for table {} lack its partition column {key}", self.table));
            keys.push(records.column(position(fields, key).ok_or_else(missing)?).clone());
        }
        let is_key = |field: &Field| self.keys.iter().any(|key| key.eq_ignore_ascii_case(field.name()));
        let columns: Vec<usize> = (0..fields.len()).filter(|at| !is_key(&fields[*at])).collect();
        let rows = records.project(&columns)?;
        if keys.is_empty() {
            return Ok(vec![(None, rows)]);
        }
        let sorts = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
        let encoded = RowConverter::new(sorts)?.convert_columns(&keys)?;
        let mut groups: Vec<Vec<u32>> = Vec::new();
        let mut known: HashMap<&[u8], usize> = HashMap::default();
        for row in 0..records.num_rows() {
            let group = *known.entry(encoded.row(row).data()).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[group].push(row as u32);
        }
        let texts = keys.iter().map(|key| Ok(cast(key, &DataType::Utf8)?)).collect::<Result<Vec<_>>>()?;
        let whole = groups.len() == 1;
        let part = |group: Vec<u32>| {
            let value = |text: &ArrayRef| {
                let text: &StringArray = text.as_string();
                let row = group[0] as usize;
                let value = if text.is_valid(row) { text.value(row) } else { "" };
                if value.is_empty() { DEFAULT_PARTITION.to_owned() } else { value.to_owned() }
            };
            let key = PartitionKey::new(self.keys.iter().cloned().zip(texts.iter().map(value)));
            let rows = if whole { rows.clone() } else { take_record_batch(&rows, &UInt32Array::from(group))? };
            Ok((Some(key), rows))
        };
        groups.into_iter().map(part).collect()
    }

    /// The position of the file that takes a topic partition's rows of a table partition.
    fn file_for(&mut self, key: Option<&PartitionKey>, partition: PartitionId, schema: &SchemaRef) -> Result<usize> {
        let of_key = |open: &&OpenFile| open.file.partition.as_ref() == key;
        let at = |wanted: &dyn Fn(&OpenFile) -> bool| self.open.iter().position(|open| of_key(&open) && wanted(open));
        let known = at(&|open| open.file.held.contains_key(&partition));
        let file = known.or_else(|| at(&|open| open.file.held.len() < PARTITIONS_PER_FILE));
        if let Some(file) = file {
            return Ok(file);
        }
        let pending = format!("pending-{}.parquet", Uuid::now_v7().simple());
        let encoder =
            FileEncoder::new(schema, &BTreeMap::new(), self.settings.compatibility.hive_files(), &self.settings.plain_columns)?;
        let file = PendingFile { pending, partition: key.cloned(), ..PendingFile::default() };
        self.open.push(OpenFile { file, encoder, rows: Vec::new(), bytes: 0, unspanned: Vec::new(), writer: None });
        Ok(self.open.len() - 1)
    }

    /// Hands the rows of one table partition to its files.
    fn collect(&mut self, key: Option<PartitionKey>, rows: RecordBatch) -> Result<()> {
        let schema = rows.schema();
        let (partitions, offsets) = coordinates(&rows)?;
        let mut by_file: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for row in 0..rows.num_rows() {
            let (partition, offset) = (partitions.value(row), offsets.value(row));
            let file = self.file_for(key.as_ref(), partition, &schema)?;
            let held = self.open[file].file.held.entry(partition).or_default();
            held.rows += 1;
            let range = held.range.get_or_insert(OffsetRange { start: offset, end: offset + 1 });
            *range = OffsetRange { start: range.start.min(offset), end: range.end.max(offset + 1) };
            by_file.entry(file).or_default().push(row as u32);
        }
        let whole = by_file.len() == 1;
        for (file, numbers) in by_file {
            let rows = if whole { rows.clone() } else { take_record_batch(&rows, &UInt32Array::from(numbers))? };
            self.open[file].take(rows);
        }
        Ok(())
    }

    /// Encodes what is collected of large files, and of the largest while all together hold too much.
    async fn bound_memory(&mut self) -> Result<()> {
        let limit = self.settings.buffer_size_max.as_u64() as usize;
        loop {
            let held: usize = self.open.iter().map(|open| open.bytes).sum();
            let largest = self.open.iter_mut().max_by_key(|open| open.bytes);
            let Some(largest) = largest.filter(|open| open.bytes > 0 && (held > limit || open.bytes > ROW_GROUP_BYTES)) else {
                return Ok(());
            };
            off_the_reactor(|| largest.encode())?;
            largest.send(&self.storages, &self.log).await?;
        }
    }
}

impl OpenFile {
    fn take(&mut self, rows: RecordBatch) {
        self.span(&rows);
        self.bytes += rows.get_array_memory_size();
        self.rows.push(rows);
    }

    /// As far as it can be told: what is not encoded yet will be about a quarter of what it is.
    fn size_bytes(&self) -> u64 {
        self.writer.as_ref().map_or(0, FileWriter::bytes_written) + self.bytes as u64 / 4
    }

    /// Widens the spans of the columns with instants, which the file itself has no statistics of.
    fn span(&mut self, rows: &RecordBatch) {
        for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
            let Some(instants) = column.as_primitive_opt::<TimestampMicrosecondType>() else { continue };
            let bounds = (arrow::compute::min(instants), arrow::compute::max(instants));
            match bounds {
                (Some(least), Some(greatest)) if instants.null_count() == 0 && !self.unspanned.contains(field.name()) => {
                    let span = self.file.spans.entry(field.name().clone()).or_insert(FileSpan { least, greatest });
                    *span = FileSpan { least: span.least.min(least), greatest: span.greatest.max(greatest) };
                }
                _ => {
                    self.file.spans.remove(field.name());
                    self.unspanned.push(field.name().clone());
                }
            }
        }
    }

    /// Encodes the collected rows as a row group.
    fn encode(&mut self) -> Result<()> {
        let Some(first) = self.rows.first() else { return Ok(()) };
        let rows = concat_batches(&first.schema(), &self.rows)?;
        self.rows.clear();
        self.bytes = 0;
        self.encoder.write(&rows)
    }

    /// Sends what is encoded.
    async fn send(&mut self, storages: &Storages, log: &CommitLog) -> Result<()> {
        let content = self.encoder.take();
        if !content.is_empty() {
            if self.writer.is_none() {
                self.writer = Some(storages.create(&log.pending_location(&self.file.pending), Create::New).await?);
            }
            if let Some(writer) = &mut self.writer {
                writer.write(content).await?;
            }
        }
        Ok(())
    }

    /// Ends the file; its closing is handed to the barrier.
    async fn finish(mut self, storages: Storages, log: CommitLog, barrier: CloseBarrier) -> Result<PendingFile> {
        off_the_reactor(|| self.encode())?;
        self.send(&storages, &log).await?;
        let rest = self.encoder.finish()?;
        let mut writer = match self.writer {
            Some(writer) => writer,
            None => storages.create(&log.pending_location(&self.file.pending), Create::New).await?,
        };
        writer.write(rest).await?;
        self.file.size_bytes = writer.bytes_written();
        writer.defer_close(&barrier);
        Ok(self.file)
    }
}

#[async_trait]
impl LoggedWriter for ParquetWriter {
    async fn write(&mut self, records: &RecordBatch) -> Result<()> {
        if records.num_rows() == 0 {
            return Ok(());
        }
        self.ensure_columns(records.schema_ref())?;
        let parts = off_the_reactor(|| self.split(records))?;
        for (key, rows) in parts {
            self.collect(key, rows)?;
        }
        self.bound_memory().await
    }

    fn begun(&self) -> Begun {
        Begun { files: self.open.len(), bytes: self.open.iter().map(OpenFile::size_bytes).sum() }
    }

    async fn finish(mut self) -> Result<LoggedFiles> {
        let (storages, log, barrier) = (self.storages.clone(), self.log.clone(), self.barrier.clone());
        let finish = |open: OpenFile| open.finish(storages.clone(), log.clone(), barrier.clone());
        let finishing: Vec<_> = std::mem::take(&mut self.open).into_iter().map(finish).collect();
        let files = futures::stream::iter(finishing).buffered(FILES_FINISHED_AT_ONCE).try_collect().await?;
        Ok(LoggedFiles { files })
    }
}
