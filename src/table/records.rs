//! A table of records in either of its forms, as the pipeline sees it: an Iceberg table, or a logged Hive table.
//!
//! Both keep the same promises: a batch is committed if it begins where the table ends, by one atomic step that sets offsets and records
//! together; who loses a race is told, and what is unknown is looked up by the next start.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use iceberg::TableIdent;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::logged::{LoggedFiles, LoggedForm, LoggedPrepared, LoggedSpec, LoggedWriter};
use super::{
    Append, DataFiles, DataWriter, InputRef, LakeTable, OffsetRanges, Origin, Preparation, Prepared, Records, Stated, TableSpec,
    WriterSettings,
};
use crate::catalog::{CommitOutcome, HiveCatalog, Rejection};
use crate::checkpoint::{Checkpoint, Mismatch, PartitionId};
use crate::completeness::Completeness;
use crate::error::{Error, Result};
use crate::storage::CloseBarrier;

/// The form of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableFormat {
    #[default]
    Iceberg,
    Hive,
}

/// A table to be created where it is missing.
#[derive(Debug, Clone)]
pub enum RecordSpec {
    Lake(Box<TableSpec>),
    Logged(Box<LoggedSpec>),
}

impl RecordSpec {
    pub fn ident(&self) -> &TableIdent {
        match self {
            Self::Lake(spec) => &spec.ident,
            Self::Logged(spec) => &spec.ident,
        }
    }

    fn format(&self) -> TableFormat {
        match self {
            Self::Lake(_) => TableFormat::Iceberg,
            Self::Logged(_) => TableFormat::Hive,
        }
    }
}

/// The table and its state as last read or committed.
#[derive(Debug, Clone)]
pub enum RecordTable<L> {
    Lake(Box<LakeTable>),
    Logged(Box<L>),
}

/// Files of a batch that is not committed.
#[derive(Debug, Clone)]
pub enum RecordFiles {
    Lake(DataFiles),
    Logged(LoggedFiles),
}

/// What a writer would leave if it were finished now; bytes as far as they can be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Begun {
    pub files: usize,
    pub bytes: u64,
}

/// Writes the files of a batch.
pub enum RecordWriter<W> {
    Lake(Box<DataWriter>),
    Logged(Box<W>),
}

/// What [`RecordTable::prepare`] found.
pub enum RecordPreparation {
    /// Await the barrier, then swap.
    Ready(RecordPrepared),
    /// An earlier attempt of the batch had landed, as this snapshot.
    Landed(i64),
    Mismatch(Mismatch),
}

/// A batch whose commit is due.
pub enum RecordPrepared {
    Lake(Box<Prepared>),
    Logged(Box<LoggedPrepared>),
}

/// Calls the same method of either form.
macro_rules! either {
    ($table:expr, $inner:ident => $call:expr) => {
        match $table {
            RecordTable::Lake($inner) => $call,
            RecordTable::Logged($inner) => $call,
        }
    };
}

impl<L: LoggedForm> RecordTable<L> {
    /// The table; none if it doesn't exist. Changes nothing.
    pub async fn open(catalog: &HiveCatalog, ident: &TableIdent, format: TableFormat) -> Result<Option<Self>> {
        Ok(match format {
            TableFormat::Iceberg => LakeTable::open(catalog, ident).await?.map(|table| Self::Lake(Box::new(table))),
            TableFormat::Hive => L::open(catalog, ident).await?.map(|table| Self::Logged(Box::new(table))),
        })
    }

    /// As [`Self::open`], to write to it: an Iceberg table whose entry points to a version that is gone is mended first.
    pub async fn open_spec(catalog: &HiveCatalog, spec: &RecordSpec) -> Result<Option<Self>> {
        match Self::open(catalog, spec.ident(), spec.format()).await {
            Err(error) if catalog.put_forward(spec.ident(), &error).await? => {
                Self::open(catalog, spec.ident(), spec.format()).await
            }
            opened => opened,
        }
    }

    /// The table, created if it doesn't exist.
    pub async fn open_or_create(catalog: &HiveCatalog, spec: &RecordSpec) -> Result<Self> {
        if let Some(table) = Self::open_spec(catalog, spec).await? {
            return Ok(table);
        }
        Ok(match spec {
            RecordSpec::Lake(spec) => Self::Lake(Box::new(LakeTable::open_or_create(catalog, spec).await?)),
            RecordSpec::Logged(spec) => Self::Logged(Box::new(L::open_or_create(catalog, spec).await?)),
        })
    }

    /// Completes what a crash left half visible, and deletes leftovers.
    pub async fn complete(&mut self) -> Result<()> {
        match self {
            Self::Lake(_) => Ok(()),
            Self::Logged(table) => {
                table.complete().await?;
                table.sweep().await;
                Ok(())
            }
        }
    }

    /// Puts an entry forward that points to a version that is gone, as [`Self::refresh`] has failed; says whether it did.
    pub async fn mend(&self, failure: &Error) -> Result<bool> {
        match self {
            Self::Lake(table) => table.catalog().put_forward(table.ident(), failure).await,
            Self::Logged(_) => Ok(false),
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

    /// The Iceberg table, if it is one.
    pub fn lake(&self) -> Option<&LakeTable> {
        match self {
            Self::Lake(table) => Some(table),
            Self::Logged(_) => None,
        }
    }

    /// The snapshot, or the number of the newest commit.
    pub fn snapshot_id(&self) -> Option<i64> {
        match self {
            Self::Lake(table) => table.snapshot_id(),
            Self::Logged(table) => i64::try_from(table.newest().sequence).ok(),
        }
    }

    /// How far the table has come; none if it never held a record.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        either!(self, table => table.checkpoint())
    }

    /// What the table was computed from, if it is a derived one.
    pub fn input(&self) -> Result<Option<InputRef>> {
        either!(self, table => table.input())
    }

    /// An entry that a batch left with [`Append::summary`].
    pub fn note(&self, key: &str) -> Option<&str> {
        either!(self, table => table.note(key))
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

    /// How many writers may share a batch.
    pub fn writers_max(&self) -> usize {
        match self {
            Self::Lake(_) => usize::MAX,
            Self::Logged(_) => L::WRITERS_MAX,
        }
    }

    pub fn writer(&self, settings: &WriterSettings, barrier: &CloseBarrier) -> Result<RecordWriter<L::Writer>> {
        Ok(match self {
            Self::Lake(table) => RecordWriter::Lake(Box::new(table.writer(settings, barrier)?)),
            Self::Logged(table) => RecordWriter::Logged(Box::new(LoggedForm::writer(&**table, settings, barrier)?)),
        })
    }

    /// A batch without files.
    pub fn no_files(&self) -> RecordFiles {
        match self {
            Self::Lake(_) => RecordFiles::Lake(DataFiles::default()),
            Self::Logged(_) => RecordFiles::Logged(LoggedFiles::default()),
        }
    }

    /// Deletes files that were written but never went into a prepared batch.
    pub async fn discard(&self, files: &RecordFiles) {
        match (self, files) {
            (Self::Lake(table), RecordFiles::Lake(files)) => table.discard(files).await,
            (Self::Logged(table), RecordFiles::Logged(files)) => table.discard(files).await,
            _ => {}
        }
    }

    /// Checks that the batch begins where the table ends, and writes what its commit needs.
    pub async fn prepare(&mut self, batch: Append<RecordFiles>, barrier: &CloseBarrier) -> Result<RecordPreparation> {
        let Append { files, delta, origin, commit_id, input, summary } = batch;
        Ok(match (self, files) {
            (Self::Lake(table), RecordFiles::Lake(files)) => {
                let append = Append { files, delta, origin, commit_id, input, summary };
                match table.prepare(append, barrier).await? {
                    Preparation::Ready(prepared) => RecordPreparation::Ready(RecordPrepared::Lake(prepared)),
                    Preparation::AlreadyCommitted(appended) => RecordPreparation::Landed(appended.snapshot_id),
                    Preparation::Mismatch(mismatch) => RecordPreparation::Mismatch(mismatch),
                }
            }
            (Self::Logged(table), RecordFiles::Logged(files)) => {
                let append = Append { files, delta, origin, commit_id, input, summary };
                match prepare_logged(&mut **table, append, barrier).await? {
                    Ok(prepared) => RecordPreparation::Ready(RecordPrepared::Logged(Box::new(prepared))),
                    Err(mismatch) => RecordPreparation::Mismatch(mismatch),
                }
            }
            _ => return Err(other_form()),
        })
    }
}

/// Checks that a batch begins where a logged table ends, and writes its entry.
pub(crate) async fn prepare_logged<L: LoggedForm>(
    table: &mut L,
    mut batch: Append<LoggedFiles>,
    barrier: &CloseBarrier,
) -> Result<Result<LoggedPrepared, Mismatch>> {
    let after = match table.place_anew(&batch).await? {
        Ok(after) => after,
        Err(mismatch) => return Ok(Err(mismatch)),
    };
    table.complement(&mut batch.files, &batch.delta, barrier).await?;
    table.prepare(batch, after, barrier).await.map(Ok)
}

fn other_form() -> Error {
    Error::failed("a batch was written for a table of another form")
}

impl RecordPrepared {
    /// Makes the commit; returns its snapshot's id, or its number. Call it after the barrier was awaited.
    pub async fn swap<L: LoggedForm>(self, table: &mut RecordTable<L>) -> CommitOutcome<i64> {
        match (self, table) {
            (Self::Lake(prepared), RecordTable::Lake(table)) => match prepared.swap(table).await {
                CommitOutcome::Committed(appended) => CommitOutcome::Committed(appended.snapshot_id),
                CommitOutcome::Rejected(rejection) => CommitOutcome::Rejected(rejection),
                CommitOutcome::Unknown(error) => CommitOutcome::Unknown(error),
            },
            (Self::Logged(prepared), RecordTable::Logged(table)) => prepared.swap(table).await,
            _ => CommitOutcome::Rejected(Rejection::Refused(other_form())),
        }
    }

    /// Gives the batch up before its commit.
    pub async fn discard<L: LoggedForm>(self, table: &RecordTable<L>) {
        match (self, table) {
            (Self::Lake(prepared), RecordTable::Lake(table)) => prepared.discard(table).await,
            (Self::Logged(prepared), RecordTable::Logged(table)) => prepared.discard(table).await,
            _ => {}
        }
    }
}

impl Default for RecordFiles {
    fn default() -> Self {
        Self::Lake(DataFiles::default())
    }
}

impl RecordFiles {
    /// Adds the files of another writer; false if the two don't belong into one commit.
    #[must_use]
    pub fn merge(&mut self, other: Self) -> bool {
        match (self, other) {
            (Self::Lake(files), Self::Lake(other)) => files.merge(other),
            (Self::Logged(files), Self::Logged(other)) => {
                files.files.extend(other.files);
                true
            }
            _ => false,
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Lake(files) => files.len(),
            Self::Logged(files) => files.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn rows(&self) -> u64 {
        match self {
            Self::Lake(files) => files.rows(),
            Self::Logged(files) => files.rows(),
        }
    }

    pub fn size_bytes(&self) -> u64 {
        match self {
            Self::Lake(files) => files.size_bytes(),
            Self::Logged(files) => files.size_bytes(),
        }
    }
}

impl<W: LoggedWriter> RecordWriter<W> {
    pub async fn write(&mut self, records: &RecordBatch) -> Result<()> {
        match self {
            Self::Lake(writer) => writer.write(records).await,
            Self::Logged(writer) => writer.write(records).await,
        }
    }

    pub fn begun(&self) -> Begun {
        match self {
            Self::Lake(writer) => writer.begun(),
            Self::Logged(writer) => writer.begun(),
        }
    }

    pub async fn finish(self) -> Result<RecordFiles> {
        Ok(match self {
            Self::Lake(writer) => RecordFiles::Lake(writer.finish().await?),
            Self::Logged(writer) => RecordFiles::Logged(writer.finish().await?),
        })
    }
}
