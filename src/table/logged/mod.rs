//! Tables whose commits are entries of a log: plain Hive tables with what an Iceberg table has in its metadata.
//!
//! The metastore's entry says where the files lie and how they are read; it is written once. A commit is an entry of the table's log
//! ([`CommitLog`]), which names the files that it brings and the table's properties after it: offsets, topic, time. So the table's progress
//! is in the table, and found again by listing one small directory.
//!
//! What the files hold is the layer's matter ([`LoggedForm`]): bronze keeps JSON lines, silver Parquet files in partition directories
//! ([`ParquetTable`]).
//!
//! *Invariants*: the newest commit's files have their names, and its partitions are in the metastore, before the next commit is tried for.
//!
//! *Failure*: visible files without a log are somebody else's: the start stops before it writes among them.

mod commit;
mod files;
mod parquet;
mod parquet_writer;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::DerefMut;
use std::sync::Arc;

use async_trait::async_trait;
use iceberg::TableIdent;
use uuid::Uuid;

pub use commit::{Held, LoggedFiles, LoggedPrepared, PendingFile};
pub use parquet::{ParquetTable, PartitionedSpec, as_read_back, ensure_names_directories};
pub use parquet_writer::ParquetWriter;

use super::complete::Stated;
use super::progress::{COMMIT_ID, WRITER, checkpoint as checkpoint_in, ensure_same_source, input};
use super::{Begun, InputRef, OffsetRanges, Origin, Records, WriterSettings};
use crate::catalog::HiveCatalog;
use crate::checkpoint::{Checkpoint, Delta, PartitionId};
use crate::completeness::{Completeness, PARTITION_TIMES, covers, keep_later};
use crate::error::{Context, Error, Result};
use crate::hive::{Claim, CommitLog, FileFormat, HiveTableSpec, LOG_DIRECTORY, LogEntry, ensure_table};
use crate::metastore::{HivePartition, HiveTable, IfNotExists};
use crate::storage::CloseBarrier;
use crate::window::Window;

/// In the metastore's entry: where the log of commits is, below the table's directory.
pub const COMMIT_LOG: &str = "lakesmith.commit-log";
/// Entries that are kept in mind, for the times that they state and the files that they brought.
const REMEMBERED: usize = 64;
/// Partitions in one call to the metastore, some 10 ms each.
const PARTITIONS_PER_CALL: usize = 500;

/// What distinguishes the logged tables of one layer from those of another.
#[derive(Debug, PartialEq, Eq)]
pub struct LoggedKind {
    /// The section of the configuration that it is set in.
    pub layer: &'static str,
    pub format: FileFormat,
    /// Of the files' names.
    pub suffix: &'static str,
    /// Passed right behind a commit's entry.
    pub claimed: Window,
    /// Whether the log keeps a list of the table's files; else their names tell what they hold.
    pub indexed: bool,
}

impl LoggedKind {
    /// The log of an entry's table.
    fn log(&self, catalog: &HiveCatalog, entry: &HiveTable) -> CommitLog {
        let log = CommitLog::new(catalog.storages(), entry.location().unwrap_or_default());
        if self.indexed { log.indexed() } else { log }
    }
}

/// A table to be created where it is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedSpec {
    pub ident: TableIdent,
    /// A full URI.
    pub location: String,
    pub table: HiveTableSpec,
}

impl LoggedSpec {
    /// A spec with the parameter that marks a table as logged.
    pub fn new(ident: TableIdent, mut table: HiveTableSpec) -> Self {
        table.parameters.insert(COMMIT_LOG.to_owned(), LOG_DIRECTORY.to_owned());
        Self { ident, location: table.location.clone(), table }
    }
}

/// A logged table with what its layer makes of the files.
#[async_trait]
pub trait LoggedForm: DerefMut<Target = LoggedTable> + std::fmt::Debug + Clone + Send + Sync + Sized + 'static {
    type Writer: LoggedWriter;

    /// How many writers may share a batch.
    const WRITERS_MAX: usize;

    /// The table; none if it has no entry, or nothing was ever committed. Changes nothing.
    async fn open(catalog: &HiveCatalog, ident: &TableIdent) -> Result<Option<Self>>;

    /// The table, created if it doesn't exist.
    async fn open_or_create(catalog: &HiveCatalog, spec: &LoggedSpec) -> Result<Self>;

    fn writer(&self, settings: &WriterSettings, barrier: &CloseBarrier) -> Result<Self::Writer>;

    /// Adds to a batch's files what its commit needs beside them.
    async fn complement(&self, files: &mut LoggedFiles, delta: &Delta, barrier: &CloseBarrier) -> Result<()>;

    /// The records of these offset ranges (all for none); `columns` in the order given, all if none.
    async fn scan(&self, ranges: Option<&OffsetRanges>, columns: Option<&[&str]>) -> Result<Records>;
}

/// Writes batches of records into files that nobody sees yet.
#[async_trait]
pub trait LoggedWriter: Send {
    async fn write(&mut self, records: &arrow::array::RecordBatch) -> Result<()>;

    fn begun(&self) -> Begun;

    /// The files; their closing is handed to the barrier.
    async fn finish(self) -> Result<LoggedFiles>;
}

/// The table, and its state as last read or committed.
#[derive(Debug, Clone)]
pub struct LoggedTable {
    catalog: HiveCatalog,
    ident: TableIdent,
    kind: &'static LoggedKind,
    entry: Arc<HiveTable>,
    log: CommitLog,
    newest: Arc<LogEntry>,
    /// The files of the newest commit are known to have their names, and its partitions to be in the metastore.
    named: bool,
    /// Newest first.
    earlier: VecDeque<Arc<LogEntry>>,
    /// Directories of partitions that this handle has seen in the metastore.
    registered: BTreeSet<String>,
}

/// Whether an entry is a logged table.
pub fn is_logged(entry: &HiveTable) -> bool {
    entry.parameter(COMMIT_LOG).is_some()
}

impl LoggedTable {
    /// The table; none if it has no entry, or nothing was ever committed. Changes nothing.
    pub async fn open(catalog: &HiveCatalog, ident: &TableIdent, kind: &'static LoggedKind) -> Result<Option<Self>> {
        let Some(entry) = catalog.entry(ident).await? else { return Ok(None) };
        let layer = kind.layer;
        if !is_logged(&entry) || FileFormat::of(&entry) != Some(kind.format) {
            return Err(Error::stop(format!("table {ident} is not {layer} in plain Hive form"))
                .hint(format!("set {layer}.format to what the table is, or give {layer} another table name")));
        }
        let log = kind.log(catalog, &entry);
        Ok(log.newest().await?.map(|newest| Self::new(catalog, ident, kind, entry, log, newest)))
    }

    /// The table, created if it doesn't exist.
    pub async fn open_or_create(catalog: &HiveCatalog, spec: &LoggedSpec, kind: &'static LoggedKind) -> Result<Self> {
        let entry = ensure_table(catalog.metastore(), catalog.storages(), &spec.table).await?;
        let log = kind.log(catalog, &entry);
        if log.newest().await?.is_none() {
            if let Some(file) = log.visible().await?.first() {
                let (table, location) = (&spec.ident, log.location(file));
                return Err(Error::stop(format!(
                    "the directory of table {table} holds files, but no commit of lakesmith: {location}"
                ))
                .hint(format!("set {}.location to another directory, or move the files away", kind.layer)));
            }
            // Another process may be as fast: then its entry is the first one.
            log.claim(&LogEntry::first()).await?;
        }
        let missing = || Error::transient(format!("the first commit of table {} is gone again", spec.ident));
        let newest = log.newest().await?.ok_or_else(missing)?;
        Ok(Self::new(catalog, &spec.ident, kind, entry, log, newest))
    }

    fn new(
        catalog: &HiveCatalog,
        ident: &TableIdent,
        kind: &'static LoggedKind,
        entry: HiveTable,
        log: CommitLog,
        newest: LogEntry,
    ) -> Self {
        Self {
            catalog: catalog.clone(),
            ident: ident.clone(),
            kind,
            entry: Arc::new(entry),
            log,
            newest: Arc::new(newest),
            named: false,
            earlier: VecDeque::new(),
            registered: BTreeSet::new(),
        }
    }

    /// Gives the newest commit's files their names, and adds its partitions to the metastore, where a crash left that out.
    pub async fn complete(&mut self) -> Result<()> {
        if !self.named {
            self.log.publish(&self.newest).await.with_context(|| format!("table {}", self.ident))?;
            self.register().await?;
            self.named = true;
        }
        Ok(())
    }

    /// Adds the newest commit's partitions to the metastore, as far as they are not there. Row counts are left out: they would be wrong
    /// from the next commit on.
    async fn register(&mut self) -> Result<()> {
        let mut missing: BTreeMap<String, HivePartition> = BTreeMap::new();
        for file in self.newest.files.iter().filter(|file| !file.partition.is_empty()) {
            let directory = file.directory().unwrap_or_default();
            if !self.registered.contains(directory) && !missing.contains_key(directory) {
                let location = self.log.location(directory);
                missing.insert(directory.to_owned(), HivePartition::new(&self.entry, &file.partition, &location));
            }
        }
        let partitions: Vec<_> = missing.values().cloned().collect();
        for partitions in partitions.chunks(PARTITIONS_PER_CALL) {
            let added = self.catalog.metastore().add_partitions(partitions, IfNotExists::Yes).await;
            let failed = || format!("{} partitions of table {} are not in the metastore yet", partitions.len(), self.ident);
            added.with_context(failed)?;
        }
        self.registered.extend(missing.into_keys());
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
    pub(crate) fn adopt(&mut self, newest: LogEntry) {
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

    /// The metastore's entry, as it was when the table was opened.
    pub fn entry(&self) -> &HiveTable {
        &self.entry
    }

    pub fn log(&self) -> &CommitLog {
        &self.log
    }

    pub fn newest(&self) -> &LogEntry {
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

    /// What the table was computed from, if it is a derived one.
    pub fn input(&self) -> Result<Option<InputRef>> {
        input(&self.newest.properties)
    }

    /// An entry that a batch left with its summary.
    pub fn note(&self, key: &str) -> Option<&str> {
        self.newest.properties.get(key).map(String::as_str)
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

    /// All offsets that the table holds.
    pub fn whole(&self) -> Result<OffsetRanges> {
        Ok(self.checkpoint()?.unwrap_or_default().partitions.iter().map(|(partition, c)| (*partition, c.range)).collect())
    }
}
