//! Bronze as a plain Hive table of JSON lines: its entry in the metastore, and its records.
//!
//! *Invariants*: the files' names ([`file_name`]) cover every offset that the table has read, also those without a record.
//!
//! *What readers see*: a commit of up to [`PARTITIONS_PER_FILE`](file_name::PARTITIONS_PER_FILE) topic partitions is one file, which is there or
//! isn't; the files of a larger one appear one after the other. After a crash between entry and name it is the next start that makes them
//! visible to engines; lakesmith's own reading finds them before.
//!
//! *Failure*: a file of offsets that are asked for and is gone is an error, never a smaller answer.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::StreamExt;
use iceberg::TableIdent;
use serde_json::json;

use super::json_lines::{self, COLUMNS};
use super::text_writer::{TextWriter, cover};
use crate::catalog::HiveCatalog;
use crate::checkpoint::{Delta, OffsetRange, PartitionId};
use crate::error::{Context, Error, Result};
use crate::hive::{CommitLog, FileFormat, HiveTableSpec, file_name};
use crate::metastore::FieldSchema;
use crate::storage::{CloseBarrier, FileReader};
use crate::table::logged::{LoggedFiles, LoggedForm, LoggedKind, LoggedSpec, LoggedTable};
use crate::table::{OffsetRanges, Records, WriterSettings};
use crate::window::Window;

/// Bytes of a file that are decoded at a time.
const CHUNK_BYTES: u64 = 4 << 20;
/// Rows of one batch that is read.
const BATCH_ROWS: usize = 8_192;

static KIND: LoggedKind =
    LoggedKind { layer: "bronze", format: FileFormat::JsonText, suffix: ".json", claimed: Window::BronzeClaimed, indexed: false };

/// The table, and its state as last read or committed.
#[derive(Debug, Clone)]
pub struct TextTable(LoggedTable);

impl Deref for TextTable {
    type Target = LoggedTable;

    fn deref(&self) -> &LoggedTable {
        &self.0
    }
}

impl DerefMut for TextTable {
    fn deref_mut(&mut self) -> &mut LoggedTable {
        &mut self.0
    }
}

/// Bronze as a table of JSON lines at `location`, a full URI.
pub fn text_spec(ident: TableIdent, location: &str, comment: &str) -> LoggedSpec {
    let parameters = [
        ("comment", comment.to_owned()),
        // Spark does not know the SerDe, and reads the files by its own source.
        ("spark.sql.sources.provider", "json".to_owned()),
        ("spark.sql.sources.schema", spark_schema().to_string()),
    ];
    let table = HiveTableSpec {
        database: ident.namespace().to_url_string(),
        name: ident.name().to_owned(),
        location: location.to_owned(),
        format: FileFormat::JsonText,
        columns: COLUMNS.map(|(name, hive_type)| FieldSchema::new(name, hive_type)).to_vec(),
        partition_keys: Vec::new(),
        parameters: parameters.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        serde_parameters: BTreeMap::from([("path".to_owned(), location.to_owned())]),
    };
    LoggedSpec::new(ident, table)
}

/// The columns in Spark's words.
fn spark_schema() -> serde_json::Value {
    let field = |name: &str, kind: serde_json::Value| json!({"name": name, "type": kind, "nullable": true, "metadata": {}});
    let header = ["key", "value", "value_base64"].map(|name| field(name, json!("string")));
    let fields = COLUMNS.map(|(name, hive_type)| {
        let kind = match hive_type {
            "int" => json!("integer"),
            "bigint" => json!("long"),
            "string" | "timestamp" => json!(hive_type),
            _ => json!({"type": "array", "elementType": {"type": "struct", "fields": header}, "containsNull": true}),
        };
        field(name, kind)
    });
    json!({"type": "struct", "fields": fields})
}

#[async_trait]
impl LoggedForm for TextTable {
    type Writer = TextWriter;

    /// Lines of one topic partition stand in one file.
    const WRITERS_MAX: usize = 1;

    async fn open(catalog: &HiveCatalog, ident: &TableIdent) -> Result<Option<Self>> {
        Ok(LoggedTable::open(catalog, ident, &KIND).await?.map(Self))
    }

    async fn open_or_create(catalog: &HiveCatalog, spec: &LoggedSpec) -> Result<Self> {
        LoggedTable::open_or_create(catalog, spec, &KIND).await.map(Self)
    }

    fn writer(&self, _: &WriterSettings, barrier: &CloseBarrier) -> Result<TextWriter> {
        Ok(TextWriter::new(self, barrier))
    }

    async fn complement(&self, files: &mut LoggedFiles, delta: &Delta, barrier: &CloseBarrier) -> Result<()> {
        cover(self, files, delta, barrier).await
    }

    /// The records of these offset ranges (all for none); `columns` in the order given, all of [`raw_schema`](crate::record::raw_schema) if
    /// none. Records of one file come in their order, and files in that of their commits.
    async fn scan(&self, ranges: Option<&OffsetRanges>, columns: Option<&[&str]>) -> Result<Records> {
        let ranges: OffsetRanges = match ranges {
            Some(ranges) => ranges.clone(),
            None => self.whole()?,
        };
        let files = self.files_with(&ranges).await?;
        let schema = crate::record::raw_schema();
        let projection = match columns {
            None => (0..schema.fields().len()).collect(),
            Some(columns) => columns.iter().map(|name| schema.index_of(name)).collect::<std::result::Result<Vec<_>, _>>()?,
        };
        let reading =
            Reading { log: self.log().clone(), ranges: Arc::new(ranges), projection, files, open: None, ready: VecDeque::new() };
        Ok(futures::stream::try_unfold(reading, Reading::next).boxed())
    }
}

impl TextTable {
    /// The committed files that hold offsets of these ranges.
    async fn files_with(&self, ranges: &OffsetRanges) -> Result<VecDeque<CommittedFile>> {
        let mut names = self.log().visible().await?;
        let unnamed = |name: &String| !names.contains(name);
        let pending: BTreeMap<_, _> =
            self.newest().files.iter().filter(|file| unnamed(&file.name)).map(|f| (&f.name, &f.pending)).collect();
        names.extend(pending.keys().map(|name| (*name).clone()));
        names.sort_unstable();
        let mut files = VecDeque::new();
        let mut held: BTreeMap<PartitionId, Vec<OffsetRange>> = BTreeMap::new();
        for name in names {
            // Files of others are theirs.
            let Some(partitions) = file_name::parse(&name, KIND.suffix) else { continue };
            let wanted = |(partition, range): (&PartitionId, &OffsetRange)| {
                ranges.get(partition).is_some_and(|asked| !asked.intersect(range).is_empty())
            };
            if partitions.iter().any(|(partition, coverage)| wanted((partition, &coverage.range))) {
                for (partition, coverage) in &partitions {
                    held.entry(*partition).or_default().push(coverage.range);
                }
                files.push_back(CommittedFile { pending: pending.get(&name).map(|pending| (*pending).clone()), name });
            }
        }
        ranges.iter().try_for_each(|(partition, range)| {
            ensure_held(*partition, range, held.remove(partition).unwrap_or_default())
                .map_err(|error| error.context(format!("table {} cannot be read", self.ident())))
        })?;
        Ok(files)
    }
}

/// Fails where files don't cover a range, or cover a part of it twice.
fn ensure_held(partition: PartitionId, range: &OffsetRange, mut held: Vec<OffsetRange>) -> Result<()> {
    held.retain(|held| !held.intersect(range).is_empty());
    held.sort_unstable_by_key(|held| held.start);
    let mut next = range.start;
    let wrong = |what: &str, start, end| {
        Err(Error::stop(format!("offsets {start}..{end} of partition {partition} are {what}"))
            .hint("was a file deleted, copied or put back? `hdfs dfs -ls` shows each file's offsets in its name"))
    };
    for held in held {
        if held.start > next {
            return wrong("in none of its files", next, held.start);
        }
        if next > range.start && held.start < next {
            return wrong("in two of its files", held.start, next.min(held.end));
        }
        next = held.end;
    }
    if next < range.end { wrong("in none of its files", next, range.end) } else { Ok(()) }
}

struct CommittedFile {
    name: String,
    /// Where it lies if it has not got its name yet.
    pending: Option<String>,
}

/// A scan under way.
struct Reading {
    log: CommitLog,
    ranges: Arc<OffsetRanges>,
    projection: Vec<usize>,
    files: VecDeque<CommittedFile>,
    open: Option<OpenFile>,
    ready: VecDeque<RecordBatch>,
}

struct OpenFile {
    name: String,
    reader: FileReader,
    read: u64,
    /// The beginning of a line whose end was not read yet.
    rest: Vec<u8>,
}

impl Reading {
    async fn next(mut self) -> Result<Option<(RecordBatch, Self)>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some((batch.project(&self.projection)?, self)));
            }
            let Some(mut open) = self.open.take() else {
                let Some(file) = self.files.pop_front() else { return Ok(None) };
                let reader = self.log.open(&file.name, file.pending.as_deref()).await;
                let reader = reader.with_context(|| format!("bronze's file {} cannot be read", file.name))?;
                self.open = Some(OpenFile { name: file.name, reader, read: 0, rest: Vec::new() });
                continue;
            };
            let end = open.reader.size_bytes().min(open.read + CHUNK_BYTES);
            let chunk =
                open.reader.read(open.read..end).await.with_context(|| format!("bronze's file {} cannot be read", open.name))?;
            open.read = end;
            let mut content = std::mem::take(&mut open.rest);
            content.extend_from_slice(&chunk);
            if end < open.reader.size_bytes() {
                let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                open.rest = content.split_off(whole);
            }
            let ranges = self.ranges.clone();
            let keep = move |partition, offset| ranges.get(&partition).is_some_and(|range| range.contains(offset));
            let decoding = tokio::task::spawn_blocking(move || json_lines::decode(&content, BATCH_ROWS, keep));
            let decoded = decoding.await.map_err(|panic| Error::failed("a worker thread panicked").caused_by(panic))?;
            self.ready.extend(decoded.with_context(|| format!("bronze's file {}", open.name))?);
            if end < open.reader.size_bytes() {
                self.open = Some(open);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_held_by_files_that_join() {
        let held = |ranges: &[(i64, i64)]| {
            let ranges = ranges.iter().map(|(start, end)| OffsetRange::new(*start, *end)).collect();
            ensure_held(0, &OffsetRange::new(10, 30), ranges).map_err(|error| error.to_string())
        };
        held(&[(20, 40), (0, 15), (15, 20), (40, 50)]).unwrap();
        for (files, why) in [
            (&[(0, 20)][..], "20..30 of partition 0 are in none"),
            (&[(15, 30)], "10..15 of partition 0 are in none"),
            (&[(0, 15), (20, 30)], "15..20 of partition 0 are in none"),
            (&[], "10..30 of partition 0 are in none"),
            (&[(0, 20), (18, 30)], "18..20 of partition 0 are in two"),
        ] {
            let error = held(files).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn the_ddl_for_people_has_the_same_columns() {
        let ddl = include_str!("../../hive/sql/bronze_text.sql");
        let columns: Vec<_> = COLUMNS.map(|(name, hive_type)| format!("  `{name}` {hive_type}")).into();
        assert!(ddl.to_lowercase().contains(&format!("(\n{}\n)", columns.join(",\n"))), "{columns:?}");
        let spec = text_spec(TableIdent::from_strs(["a", "b"]).unwrap(), "file:///b", "");
        for key in spec.table.parameters.keys().filter(|key| key.starts_with("spark")) {
            assert!(ddl.contains(&format!("'{key}'")), "{key}");
        }
        assert!(ddl.contains(&spark_schema().to_string()), "{}", spark_schema());
    }

    #[test]
    fn spark_and_hive_are_told_the_same_columns() {
        let schema = spark_schema();
        let names: Vec<_> = schema["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap()).collect();
        assert_eq!(names, COLUMNS.map(|(name, _)| name));
        assert_eq!(schema["fields"][2]["type"], "long");
        assert_eq!(schema["fields"][6]["type"]["elementType"]["fields"][2]["name"], "value_base64");
    }
}
