//! Bronze in either of its forms, as the pipeline sees it.
//!
//! Both keep the same promises: a batch is committed if it begins where the table ends, by one atomic step that sets offsets and records
//! together; who loses a race is told, and what is unknown is looked up by the next start.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use iceberg::TableIdent;
use uuid::Uuid;

use super::BronzeFormat;
use super::text_commit::{TextBatch, TextFiles, TextPrepared, TextWriter};
use super::text_table::{TextSpec, TextTable};
use crate::catalog::{CommitOutcome, HiveCatalog, Rejection};
use crate::checkpoint::{Checkpoint, Delta, Mismatch, PartitionId};
use crate::completeness::Completeness;
use crate::error::{Error, Result};
use crate::storage::CloseBarrier;
use crate::table::{
    Append, DataFiles, DataWriter, LakeTable, OffsetRanges, Origin, Preparation, Prepared, Records, Stated, TableSpec,
    WriterSettings,
};

/// A table to be created where it is missing.
#[derive(Debug, Clone)]
pub enum BronzeSpec {
    Lake(Box<TableSpec>),
    Text(TextSpec),
}

impl BronzeSpec {
    pub fn ident(&self) -> &TableIdent {
        match self {
            Self::Lake(spec) => &spec.ident,
            Self::Text(spec) => &spec.ident,
        }
    }

    fn format(&self) -> BronzeFormat {
        match self {
            Self::Lake(_) => BronzeFormat::Iceberg,
            Self::Text(_) => BronzeFormat::Hive,
        }
    }
}

/// The table and its state as last read or committed.
#[derive(Debug, Clone)]
pub enum BronzeTable {
    Lake(Box<LakeTable>),
    Text(Box<TextTable>),
}

/// Files of a batch that is not committed.
#[derive(Debug, Clone)]
pub enum BronzeFiles {
    Lake(DataFiles),
    Text(TextFiles),
}

/// Writes the files of a batch.
pub enum BronzeWriter {
    Lake(Box<DataWriter>),
    Text(TextWriter),
}

/// One batch to be appended.
#[derive(Debug, Clone)]
pub struct BronzeBatch {
    pub files: BronzeFiles,
    pub delta: Delta,
    pub origin: Origin,
    pub commit_id: Uuid,
    pub notes: BTreeMap<String, String>,
}

/// What [`BronzeTable::prepare`] found.
pub enum BronzePreparation {
    /// Await the barrier, then swap.
    Ready(BronzePrepared),
    /// An earlier attempt of the batch had landed, as this snapshot.
    Landed(i64),
    Mismatch(Mismatch),
}

/// A batch whose commit is due.
pub enum BronzePrepared {
    Lake(Box<Prepared>),
    Text(Box<TextPrepared>),
}

/// Calls the same method of either form.
macro_rules! either {
    ($table:expr, $inner:ident => $call:expr) => {
        match $table {
            BronzeTable::Lake($inner) => $call,
            BronzeTable::Text($inner) => $call,
        }
    };
}

impl BronzeTable {
    /// The table; none if it doesn't exist. Changes nothing.
    pub async fn open(catalog: &HiveCatalog, ident: &TableIdent, format: BronzeFormat) -> Result<Option<Self>> {
        Ok(match format {
            BronzeFormat::Iceberg => LakeTable::open(catalog, ident).await?.map(|table| Self::Lake(Box::new(table))),
            BronzeFormat::Hive => TextTable::open(catalog, ident).await?.map(|table| Self::Text(Box::new(table))),
        })
    }

    pub async fn open_spec(catalog: &HiveCatalog, spec: &BronzeSpec) -> Result<Option<Self>> {
        Self::open(catalog, spec.ident(), spec.format()).await
    }

    /// The table, created if it doesn't exist.
    pub async fn open_or_create(catalog: &HiveCatalog, spec: &BronzeSpec) -> Result<Self> {
        Ok(match spec {
            BronzeSpec::Lake(spec) => Self::Lake(Box::new(LakeTable::open_or_create(catalog, spec).await?)),
            BronzeSpec::Text(spec) => Self::Text(Box::new(TextTable::open_or_create(catalog, spec).await?)),
        })
    }

    /// Completes what a crash left half visible, and deletes leftovers.
    pub async fn complete(&mut self) -> Result<()> {
        match self {
            Self::Lake(_) => Ok(()),
            Self::Text(table) => {
                table.complete().await?;
                table.sweep().await;
                Ok(())
            }
        }
    }

    pub async fn refresh(&mut self) -> Result<()> {
        either!(self, table => table.refresh().await)
    }

    pub fn ident(&self) -> &TableIdent {
        either!(self, table => table.ident())
    }

    pub fn uuid(&self) -> Uuid {
        either!(self, table => table.uuid())
    }

    /// How far the table has come; none if it never held a record.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        either!(self, table => table.checkpoint())
    }

    /// Who wrote the newest batch, for a person.
    pub fn last_writer(&self) -> Option<String> {
        either!(self, table => table.last_writer())
    }

    pub fn ensure_same_source(&self, origin: &Origin) -> Result<()> {
        either!(self, table => table.ensure_same_source(origin))
    }

    pub fn completeness(&self) -> Completeness {
        either!(self, table => table.completeness())
    }

    /// The latest time that the table states for offsets which a reader of it with these next offsets has reached.
    pub fn complete_at(&self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<Option<i64>> {
        either!(self, table => table.complete_at(next_offsets))
    }

    pub async fn state(&mut self, completeness: &Completeness) -> Result<Stated> {
        either!(self, table => table.state(completeness).await)
    }

    /// The records of these offset ranges (all records for none), in the columns given or all.
    pub async fn scan(&self, ranges: Option<&OffsetRanges>, columns: Option<&[&str]>) -> Result<Records> {
        either!(self, table => table.scan(ranges, columns).await)
    }

    /// How many writers may share a batch: lines of one topic partition stand in one file.
    pub fn writers_max(&self) -> usize {
        match self {
            Self::Lake(_) => usize::MAX,
            Self::Text(_) => 1,
        }
    }

    pub fn writer(&self, settings: &WriterSettings, barrier: &CloseBarrier) -> Result<BronzeWriter> {
        Ok(match self {
            Self::Lake(table) => BronzeWriter::Lake(Box::new(table.writer(settings, barrier)?)),
            Self::Text(table) => BronzeWriter::Text(table.writer(barrier)),
        })
    }

    /// A batch without files.
    pub fn no_files(&self) -> BronzeFiles {
        match self {
            Self::Lake(_) => BronzeFiles::Lake(DataFiles::default()),
            Self::Text(_) => BronzeFiles::Text(TextFiles::default()),
        }
    }

    /// Deletes files that were written but never went into a prepared batch.
    pub async fn discard(&self, files: &BronzeFiles) {
        match (self, files) {
            (Self::Lake(table), BronzeFiles::Lake(files)) => table.discard(files).await,
            (Self::Text(table), BronzeFiles::Text(files)) => table.discard(files).await,
            _ => {}
        }
    }

    /// Checks that the batch begins where the table ends, and writes what its commit needs.
    pub async fn prepare(&mut self, batch: BronzeBatch, barrier: &CloseBarrier) -> Result<BronzePreparation> {
        let BronzeBatch { files, delta, origin, commit_id, notes } = batch;
        Ok(match (self, files) {
            (Self::Lake(table), BronzeFiles::Lake(files)) => {
                let append = Append { files, delta, origin, commit_id, input: None, summary: notes };
                match table.prepare(append, barrier).await? {
                    Preparation::Ready(prepared) => BronzePreparation::Ready(BronzePrepared::Lake(prepared)),
                    Preparation::AlreadyCommitted(appended) => BronzePreparation::Landed(appended.snapshot_id),
                    Preparation::Mismatch(mismatch) => BronzePreparation::Mismatch(mismatch),
                }
            }
            (Self::Text(table), BronzeFiles::Text(files)) => {
                match table.prepare(TextBatch { files, delta, origin, commit_id, notes }, barrier).await? {
                    Ok(prepared) => BronzePreparation::Ready(BronzePrepared::Text(Box::new(prepared))),
                    Err(mismatch) => BronzePreparation::Mismatch(mismatch),
                }
            }
            _ => return Err(other_form()),
        })
    }
}

fn other_form() -> Error {
    Error::failed("a batch was written for a bronze table of another form")
}

impl BronzePrepared {
    /// Makes the commit; returns its snapshot's id, or its number. Call it after the barrier was awaited.
    pub async fn swap(self, table: &mut BronzeTable) -> CommitOutcome<i64> {
        match (self, table) {
            (Self::Lake(prepared), BronzeTable::Lake(table)) => match prepared.swap(table).await {
                CommitOutcome::Committed(appended) => CommitOutcome::Committed(appended.snapshot_id),
                CommitOutcome::Rejected(rejection) => CommitOutcome::Rejected(rejection),
                CommitOutcome::Unknown(error) => CommitOutcome::Unknown(error),
            },
            (Self::Text(prepared), BronzeTable::Text(table)) => prepared.swap(table).await,
            _ => CommitOutcome::Rejected(Rejection::Refused(other_form())),
        }
    }

    /// Gives the batch up before its commit.
    pub async fn discard(self, table: &BronzeTable) {
        match (self, table) {
            (Self::Lake(prepared), BronzeTable::Lake(table)) => prepared.discard(table).await,
            (Self::Text(prepared), BronzeTable::Text(table)) => prepared.discard(table).await,
            _ => {}
        }
    }
}

impl BronzeFiles {
    /// Adds the files of another writer; false if the two don't belong into one commit.
    #[must_use]
    pub fn merge(&mut self, other: Self) -> bool {
        match (self, other) {
            (Self::Lake(files), Self::Lake(other)) => files.merge(other),
            _ => false,
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Lake(files) => files.len(),
            Self::Text(files) => files.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn rows(&self) -> u64 {
        match self {
            Self::Lake(files) => files.rows(),
            Self::Text(files) => files.rows(),
        }
    }

    pub fn size_bytes(&self) -> u64 {
        match self {
            Self::Lake(files) => files.size_bytes(),
            Self::Text(files) => files.size_bytes(),
        }
    }
}

impl BronzeWriter {
    pub async fn write(&mut self, records: &RecordBatch) -> Result<()> {
        match self {
            Self::Lake(writer) => writer.write(records).await,
            Self::Text(writer) => writer.write(records).await,
        }
    }

    pub async fn finish(self) -> Result<BronzeFiles> {
        Ok(match self {
            Self::Lake(writer) => BronzeFiles::Lake(writer.finish().await?),
            Self::Text(writer) => BronzeFiles::Text(writer.finish()),
        })
    }
}
