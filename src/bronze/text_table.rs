//! Bronze as a plain Hive table of JSON lines: its entry in the metastore, where it stands, and its records.
//!
//! The metastore's entry says where the files lie and how they are read; it is written once. A commit is an entry of the table's log
//! ([`CommitLog`]), which brings one file and the properties that an Iceberg table has in its metadata: offsets, topic, time. So the
//! table's progress is in the table, and found again by listing one small directory.
//!
//! *Invariants*: the files' names ([`super::file_name`]) cover every offset that the table has read, also those without a record.
//!
//! *What readers see*: a commit of up to [`PARTITIONS_PER_FILE`](super::file_name) topic partitions is one file, which is there or isn't; the
//! files of a larger one appear one after the other. After a crash between entry and name it is the next start that makes them visible to
//! engines; lakesmith's own reading finds them before.
//!
//! *Failure*: a file of offsets that are asked for and is gone is an error, never a smaller answer. Visible files without a log are
//! somebody else's: the start stops before it writes among them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::StreamExt;
use iceberg::TableIdent;
use serde_json::json;
use uuid::Uuid;

use super::file_name;
use super::json_lines::{self, COLUMNS};
use crate::catalog::HiveCatalog;
use crate::checkpoint::{Checkpoint, OffsetRange, PartitionId};
use crate::completeness::{Completeness, PARTITION_TIMES, covers, keep_later};
use crate::error::{Context, Error, Result};
use crate::hive::{Claim, CommitLog, FileFormat, HiveTableSpec, LOG_DIRECTORY, LogEntry, ensure_table};
use crate::metastore::{FieldSchema, HiveTable};
use crate::storage::FileReader;
use crate::table::{COMMIT_ID, OffsetRanges, Origin, Records, Stated, WRITER, checkpoint_in, ensure_same_source};

/// In the metastore's entry: where the log of commits is, below the table's directory.
pub const COMMIT_LOG: &str = "lakesmith.commit-log";
/// Entries that are kept in mind, for the times that they state.
const REMEMBERED: usize = 64;
/// Bytes of a file that are decoded at a time.
const CHUNK_BYTES: u64 = 4 << 20;
/// Rows of one batch that is read.
const BATCH_ROWS: usize = 8_192;

/// A table to be created where it is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextSpec {
    pub ident: TableIdent,
    /// A full URI.
    pub location: String,
    pub comment: String,
}

/// The table, and its state as last read or committed.
#[derive(Debug, Clone)]
pub struct TextTable {
    catalog: HiveCatalog,
    ident: TableIdent,
    log: CommitLog,
    newest: Arc<LogEntry>,
    /// The files of the newest commit are known to have their names.
    named: bool,
    /// Newest first.
    earlier: VecDeque<Arc<LogEntry>>,
}

impl TextSpec {
    fn hive(&self) -> HiveTableSpec {
        let columns = COLUMNS.map(|(name, hive_type)| FieldSchema::new(name, hive_type));
        let parameters = [
            (COMMIT_LOG, LOG_DIRECTORY.to_owned()),
            ("comment", self.comment.clone()),
            // Spark does not know the SerDe, and reads the files by its own source.
            ("spark.sql.sources.provider", "json".to_owned()),
            ("spark.sql.sources.schema", spark_schema().to_string()),
        ];
        HiveTableSpec {
            database: self.ident.namespace().to_url_string(),
            name: self.ident.name().to_owned(),
            location: self.location.clone(),
            format: FileFormat::JsonText,
            columns: columns.to_vec(),
            partition_keys: Vec::new(),
            parameters: parameters.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            serde_parameters: BTreeMap::from([("path".to_owned(), self.location.clone())]),
        }
    }
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

/// Whether an entry is a table of this kind.
pub fn is_text_table(entry: &HiveTable) -> bool {
    entry.parameter(COMMIT_LOG).is_some() && FileFormat::of(entry) == Some(FileFormat::JsonText)
}

impl TextTable {
    /// The table; none if it has no entry, or nothing was ever committed. Changes nothing.
    pub async fn open(catalog: &HiveCatalog, ident: &TableIdent) -> Result<Option<Self>> {
        let Some(entry) = catalog.entry(ident).await? else { return Ok(None) };
        if !is_text_table(&entry) {
            return Err(Error::stop(format!("table {ident} is not bronze in plain Hive form"))
                .hint("set bronze.format to what the table is, or give bronze another table name"));
        }
        let log = CommitLog::new(catalog.storages(), entry.location().unwrap_or_default());
        Ok(log.newest().await?.map(|newest| Self::new(catalog, ident, log, newest)))
    }

    /// The table, created if it doesn't exist.
    pub async fn open_or_create(catalog: &HiveCatalog, spec: &TextSpec) -> Result<Self> {
        let entry = ensure_table(catalog.metastore(), catalog.storages(), &spec.hive()).await?;
        let log = CommitLog::new(catalog.storages(), entry.location().unwrap_or(&spec.location));
        if log.newest().await?.is_none() {
            if let Some(file) = log.visible().await?.first() {
                let (table, location) = (&spec.ident, log.location(file));
                return Err(Error::stop(format!(
                    "the directory of table {table} holds files, but no commit of lakesmith: {location}"
                ))
                .hint("set bronze.location to another directory, or move the files away"));
            }
            // Another process may be as fast: then its entry is the first one.
            log.claim(&LogEntry::first()).await?;
        }
        let missing = || Error::transient(format!("the first commit of table {} is gone again", spec.ident));
        let newest = log.newest().await?.ok_or_else(missing)?;
        Ok(Self::new(catalog, &spec.ident, log, newest))
    }

    fn new(catalog: &HiveCatalog, ident: &TableIdent, log: CommitLog, newest: LogEntry) -> Self {
        let (catalog, ident) = (catalog.clone(), ident.clone());
        Self { catalog, ident, log, newest: Arc::new(newest), named: false, earlier: VecDeque::new() }
    }

    /// Gives the newest commit's files their names, where a crash left that out.
    pub async fn complete(&mut self) -> Result<()> {
        if !self.named {
            self.log.publish(&self.newest).await.with_context(|| format!("table {}", self.ident))?;
            self.named = true;
        }
        Ok(())
    }

    /// Deletes what is left of commits that were not made, long ago.
    pub async fn sweep(&self) {
        self.log.sweep().await;
    }

    /// Reads the newest commit again. Stops if the table is gone or another one by now.
    pub async fn refresh(&mut self) -> Result<()> {
        let dropped = || {
            Error::stop(format!("table {} was dropped", self.ident))
                .hint("start again to create it anew, if that was meant to be")
        };
        let (entry, newest) = tokio::try_join!(self.catalog.entry(&self.ident), self.log.newest())?;
        entry.ok_or_else(dropped)?;
        let newest = newest.ok_or_else(dropped)?;
        if newest.table_uuid != self.newest.table_uuid {
            return Err(Error::stop(format!("the files of table {} were replaced by another table's", self.ident))
                .hint("start again if that was meant to be"));
        }
        self.adopt(newest);
        Ok(())
    }

    /// Takes over what is the newest commit now.
    pub(super) fn adopt(&mut self, newest: LogEntry) {
        if newest.id != self.newest.id {
            self.earlier.push_front(std::mem::replace(&mut self.newest, Arc::new(newest)));
            self.earlier.truncate(REMEMBERED);
            self.named = false;
        }
    }

    pub fn ident(&self) -> &TableIdent {
        &self.ident
    }

    pub fn catalog(&self) -> &HiveCatalog {
        &self.catalog
    }

    pub(super) fn log(&self) -> &CommitLog {
        &self.log
    }

    pub(super) fn newest(&self) -> &LogEntry {
        &self.newest
    }

    pub fn uuid(&self) -> Uuid {
        self.newest.table_uuid
    }

    /// How far the table has come; none if it never held a record.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        checkpoint_in(&self.newest.properties).with_context(|| format!("table {}", self.ident))
    }

    pub fn ensure_same_source(&self, origin: &Origin) -> Result<()> {
        match self.checkpoint()? {
            Some(known) => ensure_same_source(&self.ident, &known, origin),
            None => Ok(()),
        }
    }

    /// Who wrote the newest batch, for a person.
    pub fn last_writer(&self) -> Option<String> {
        let (commit, writer) = (self.newest.properties.get(COMMIT_ID)?, self.newest.properties.get(WRITER)?);
        let at = chrono::DateTime::from_timestamp_millis(self.newest.committed_ms)?.format("%H:%M:%S%.3f UTC");
        Some(format!("{writer}, with commit {commit} at {at}"))
    }

    pub fn completeness(&self) -> Completeness {
        Completeness::of(&self.newest.properties)
    }

    /// The latest time that the table states for offsets which a reader of it with these next offsets has reached, as far as this handle
    /// has seen its commits.
    pub fn complete_at(&self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<Option<i64>> {
        for entry in std::iter::once(&self.newest).chain(&self.earlier) {
            let reached = checkpoint_in(&entry.properties)?.is_some_and(|at| covers(next_offsets, &at.partitions));
            if let (true, Some(until_ms)) = (reached, Completeness::of(&entry.properties).until_ms) {
                return Ok(Some(until_ms));
            }
        }
        Ok(None)
    }

    /// Makes a commit that states a time and brings nothing; a later time that stands there stays.
    pub async fn state(&mut self, completeness: &Completeness) -> Result<Stated> {
        let expected = self.checkpoint()?;
        self.refresh().await?;
        if self.checkpoint()? != expected {
            return Ok(Stated::Moved);
        }
        self.complete().await?;
        let mut entry = self.newest.next(Uuid::now_v7());
        let mut notes = completeness.notes().into_iter().collect();
        keep_later(&mut notes, &entry.properties);
        if completeness.partitions.is_empty() {
            notes.remove(PARTITION_TIMES);
        }
        entry.properties.extend(notes);
        match self.log.claim(&entry).await? {
            Claim::Taken => Ok(Stated::Moved),
            Claim::Won => {
                self.adopt(entry);
                Ok(Stated::Yes)
            }
        }
    }

    /// The records of these offset ranges (all for none); `columns` in the order given, all of [`raw_schema`](crate::record::raw_schema) if
    /// none. Records of one file come in their order, and files in that of their commits.
    pub async fn scan(&self, ranges: Option<&OffsetRanges>, columns: Option<&[&str]>) -> Result<Records> {
        let whole =
            || Ok::<_, Error>(self.checkpoint()?.unwrap_or_default().partitions.iter().map(|(p, c)| (*p, c.range)).collect());
        let ranges: OffsetRanges = match ranges {
            Some(ranges) => ranges.clone(),
            None => whole()?,
        };
        let files = self.files_of(&ranges).await?;
        let schema = crate::record::raw_schema();
        let projection = match columns {
            None => (0..schema.fields().len()).collect(),
            Some(columns) => columns.iter().map(|name| schema.index_of(name)).collect::<std::result::Result<Vec<_>, _>>()?,
        };
        let reading =
            Reading { log: self.log.clone(), ranges: Arc::new(ranges), projection, files, open: None, ready: VecDeque::new() };
        Ok(futures::stream::try_unfold(reading, Reading::next).boxed())
    }

    /// The committed files that hold offsets of these ranges.
    async fn files_of(&self, ranges: &OffsetRanges) -> Result<VecDeque<CommittedFile>> {
        let mut names = self.log.visible().await?;
        let unnamed = |name: &String| !names.contains(name);
        let pending: BTreeMap<_, _> =
            self.newest.files.iter().filter(|file| unnamed(&file.name)).map(|f| (&f.name, &f.pending)).collect();
        names.extend(pending.keys().map(|name| (*name).clone()));
        names.sort_unstable();
        let mut files = VecDeque::new();
        let mut held: BTreeMap<PartitionId, Vec<OffsetRange>> = BTreeMap::new();
        for name in names {
            // Files of others are theirs.
            let Some(partitions) = file_name::parse(&name) else { continue };
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
                .map_err(|error| error.context(format!("table {} cannot be read", self.ident)))
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
        let entry =
            TextSpec { ident: TableIdent::from_strs(["a", "b"]).unwrap(), location: "file:///b".into(), comment: String::new() };
        for key in entry.hive().parameters.keys().filter(|key| key.starts_with("spark")) {
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
