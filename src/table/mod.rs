//! Tables of records: created, written, committed with their offsets, scanned and kept small. They are Iceberg tables ([`LakeTable`]) or plain
//! Hive tables with a log of their commits ([`logged`]); [`RecordTable`] is either.
//!
//! A batch goes into a table in three steps. [`DataWriter`] encodes rows into Parquet files, one set per table partition.
//! [`LakeTable::prepare`] checks that the batch begins where the table ends and writes manifest, manifest list and metadata file. All
//! these files, of several tables if need be, are closed through one barrier; when that has been awaited, [`Prepared::swap`] moves the
//! tables' pointers, one after the other.
//!
//! *Invariants*: a snapshot of ours and the checkpoint after it become visible in the same swap. One commit id per batch, over all its
//! attempts. A snapshot's files are complete and durable before the pointer moves.
//!
//! *Failure*: see [`CommitOutcome`](crate::catalog::CommitOutcome). A batch is looked up by its commit id before anybody decides what
//! became of it.
//!
//! *What may leak*: files of a batch that had an undecided attempt, or whose process was killed; an orphan sweep may delete them.

mod append;
mod arrow_types;
mod carried;
mod change;
mod complete;
mod contents;
mod defaults;
mod late_columns;
pub mod logged;
mod manifests;
pub mod offsets;
mod progress;
mod records;
mod replace;
mod row_ids;
mod scan;
mod spec;
mod summary;
mod twin;
mod upkeep;
mod writer;

pub use append::{Append, Appended, Preparation, Prepared};
pub use carried::CarriedFiles;
pub use complete::Stated;
pub use contents::{FileLine, PartitionLine, SnapshotLine};
pub use progress::{COMMIT_ID, Progress, REJECTED_POSITIONS, WRITER, ensure_same_source};
#[cfg(test)]
pub(crate) use records::prepare_logged;
pub use records::{Begun, RecordFiles, RecordPreparation, RecordPrepared, RecordSpec, RecordTable, RecordWriter, TableFormat};
pub use replace::{Replaced, Replacement, RowCounts, TableFile};
pub use scan::{OffsetRanges, Records};
pub use spec::{SortKey, TableSpec, field_text, partition_name, sort_order};
pub use upkeep::UpkeepSettings;
pub use writer::{DataFiles, DataWriter, IntegerEncoding, WriterSettings};

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef as ArrowSchemaRef;
use iceberg::TableIdent;
use iceberg::spec::TableMetadata;
use iceberg::table::Table;
use uuid::Uuid;

use self::manifests::Manifests;
use crate::catalog::{HiveCatalog, Version, iceberg_table};
use crate::checkpoint::{Checkpoint, PartitionId};
use crate::error::{Error, Result};
use crate::storage::CloseBarrier;

/// Which topic a table's records come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub topic: String,
    pub topic_id: Option<String>,
    pub cluster_id: Option<String>,
}

/// The table that a derived table is computed from, as its snapshots and properties say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputRef {
    pub table_uuid: Uuid,
    /// The input's snapshot when the batch was computed: information only.
    pub snapshot_id: Option<i64>,
}

/// An Iceberg table and its state as last read or committed. Clones go their own ways from there.
#[derive(Debug, Clone)]
pub struct LakeTable {
    catalog: HiveCatalog,
    ident: TableIdent,
    version: Version,
    upkeep: UpkeepSettings,
    /// The manifests of a snapshot, from which the next list is made: known after our own commits, read after others'.
    manifests: Option<(i64, Manifests)>,
    /// Snapshots that branches and tags refer to; our commits don't change them.
    pinned: Option<Arc<HashSet<i64>>>,
    /// Where each partition began that this handle has seen in the table.
    begun: BTreeMap<PartitionId, i64>,
}

impl LakeTable {
    /// The table; none if it doesn't exist.
    pub async fn open(catalog: &HiveCatalog, ident: &TableIdent) -> Result<Option<LakeTable>> {
        let loaded = catalog.load(ident).await?;
        Ok(loaded.map(|loaded| Self::new(catalog, ident, loaded.version)))
    }

    /// The table, created from `spec` if it doesn't exist.
    pub async fn open_or_create(catalog: &HiveCatalog, spec: &TableSpec) -> Result<LakeTable> {
        if let Some(table) = Self::open(catalog, &spec.ident).await? {
            return Ok(table);
        }
        match catalog.create(&spec.ident, spec.creation()?, spec.comment.as_deref()).await {
            Ok(loaded) => Ok(Self::new(catalog, &spec.ident, loaded.version)),
            // Another process may have created it in between.
            Err(error) => Self::open(catalog, &spec.ident).await?.ok_or(error),
        }
    }

    fn new(catalog: &HiveCatalog, ident: &TableIdent, version: Version) -> Self {
        let (catalog, ident) = (catalog.clone(), ident.clone());
        let (upkeep, begun) = (UpkeepSettings::default(), BTreeMap::new());
        let mut table = Self { catalog, ident, version, upkeep, manifests: None, pinned: None, begun };
        table.remember();
        table
    }

    /// With other bounds on the table's metadata.
    #[must_use]
    pub fn with_upkeep(self, upkeep: UpkeepSettings) -> Self {
        Self { upkeep, ..self }
    }

    /// Reads the table's entry again, and its metadata if the pointer has moved. Stops if the table is gone or another one by now.
    pub async fn refresh(&mut self) -> Result<()> {
        let gone = || {
            Error::stop(format!("table {} was dropped", self.ident))
                .hint("start again to create it anew, if that was meant to be")
        };
        let version = self.catalog.load_if_moved(&self.ident, &self.version).await?.ok_or_else(gone)?;
        let (known, found) = (self.uuid(), version.metadata.uuid());
        if known != found {
            let text = format!("table {} was dropped and created again: its uuid was {known} and is {found}", self.ident);
            return Err(Error::stop(text).hint("start again if that was meant to be"));
        }
        if version.location != self.version.location {
            (self.version, self.pinned) = (version, None);
            self.remember();
        }
        Ok(())
    }

    pub fn ident(&self) -> &TableIdent {
        &self.ident
    }

    pub fn catalog(&self) -> &HiveCatalog {
        &self.catalog
    }

    pub fn metadata(&self) -> &TableMetadata {
        &self.version.metadata
    }

    /// The metadata file that the table's state was read from, or written to.
    pub fn metadata_location(&self) -> &str {
        &self.version.location
    }

    pub fn uuid(&self) -> Uuid {
        self.version.metadata.uuid()
    }

    pub fn snapshot_id(&self) -> Option<i64> {
        self.version.metadata.current_snapshot_id()
    }

    /// The table in the iceberg crate's form.
    pub fn to_iceberg(&self) -> Result<Table> {
        iceberg_table(&self.ident, &self.version, self.catalog.file_io().clone())
    }

    /// The current schema in Arrow's form, with `PARQUET:field_id` on every field: what scans return. Bytes are `Binary`.
    pub fn arrow_schema(&self) -> Result<ArrowSchemaRef> {
        arrow_types::arrow_schema(self.metadata().current_schema())
    }

    /// How far the table has come; none if it never held a record. Stops where property and newest summary contradict each other, and at
    /// a table with records but without a checkpoint.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        Progress::read(self.metadata())?.checkpoint(&self.ident)
    }

    /// What the table was computed from, if it is a derived one.
    pub fn input(&self) -> Result<Option<InputRef>> {
        progress::input(self.metadata().properties())
    }

    /// An entry that a batch left with [`Append::summary`].
    pub fn note(&self, key: &str) -> Option<&str> {
        self.metadata().properties().get(key).map(String::as_str)
    }

    /// Who wrote the newest batch, and which one it was, for a person; none if the table doesn't say.
    pub fn last_writer(&self) -> Option<String> {
        let newest = progress::Ancestry::of(self.metadata()).snapshots.into_iter().find_map(|snapshot| {
            let summary = &snapshot.summary().additional_properties;
            Some((snapshot, summary.get(COMMIT_ID)?, summary.get(WRITER)))
        });
        let (snapshot, commit, writer) = newest?;
        let at =
            snapshot.timestamp().map_or_else(|_| "an unknown time".to_owned(), |at| at.format("%H:%M:%S%.3f UTC").to_string());
        let writer = writer.map_or("a lakesmith that does not say its name", String::as_str);
        Some(format!("{writer}, with commit {commit} at {at}"))
    }

    /// Stops if the table's records come from another topic or cluster.
    pub fn ensure_same_source(&self, origin: &Origin) -> Result<()> {
        match self.checkpoint()? {
            Some(known) => ensure_same_source(&self.ident, &known, origin),
            None => Ok(()),
        }
    }

    /// A writer of data files in the table's current schema and partition spec.
    pub fn writer(&self, settings: &WriterSettings, barrier: &CloseBarrier) -> Result<DataWriter> {
        DataWriter::new(self.metadata(), self.catalog.storages(), settings, barrier)
    }

    /// Deletes files that were written but never went into a [`Prepared`] batch.
    pub async fn discard(&self, files: &DataFiles) {
        writer::delete_files(self.catalog.storages(), &files.files).await;
    }

    fn version(&self) -> &Version {
        &self.version
    }

    fn upkeep(&self) -> &UpkeepSettings {
        &self.upkeep
    }

    /// The manifests of the current snapshot.
    async fn manifests(&mut self) -> Result<Manifests> {
        let Some(snapshot) = self.version.metadata.current_snapshot() else { return Ok(Manifests::default()) };
        match &self.manifests {
            Some((id, manifests)) if *id == snapshot.snapshot_id() => Ok(manifests.clone()),
            _ => {
                let manifests = manifests::read_list(self.catalog.file_io(), self.metadata(), snapshot).await?;
                self.manifests = Some((snapshot.snapshot_id(), manifests.clone()));
                Ok(manifests)
            }
        }
    }

    fn pinned(&mut self) -> Result<Arc<HashSet<i64>>> {
        if let Some(pinned) = &self.pinned {
            return Ok(pinned.clone());
        }
        let pinned = Arc::new(upkeep::pinned(self.metadata())?);
        self.pinned = Some(pinned.clone());
        Ok(pinned)
    }

    /// Takes over the version that a swap made current.
    fn adopt(&mut self, version: Version, snapshot_id: i64, manifests: Manifests) {
        self.version = version;
        self.manifests = Some((snapshot_id, manifests));
        self.remember();
    }

    /// Keeps in mind which partitions the table has begun, should its pointer go back to before that.
    fn remember(&mut self) {
        // A checkpoint that stops is told to whoever asks for it.
        let known = self.checkpoint().ok().flatten().unwrap_or_default();
        self.begun.extend(known.partitions.into_iter().map(|(partition, coverage)| (partition, coverage.range.start)));
    }
}
