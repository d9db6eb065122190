//! Committing to bronze as JSON lines: the writer of a cycle's file, and the commit that brings it.
//!
//! | found | what happens |
//! |---|---|
//! | the batch begins where the table ends | its entry is tried for under the next number of the log |
//! | somebody else has that number | the newest commit is read, its file named, and the batch tried for again if it still applies |
//! | the table ends elsewhere by now | rejected: the batch's files are deleted |
//! | the answer was lost and nobody can say | unknown: the files stay; the next start reads the newest commit, whoever made it |
//!
//! *Invariants*: files are complete and durable before their entry. A cycle makes one file for up to [`PARTITIONS_PER_FILE`] topic
//! partitions; with more, several files, which get their names one after the other behind the same entry.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use bytes::Bytes;
use tracing::debug;
use uuid::Uuid;

use super::file_name::{self, PARTITIONS_PER_FILE};
use super::json_lines;
use super::text_table::TextTable;
use crate::catalog::{CommitOutcome, Rejection};
use crate::checkpoint::{Checkpoint, Coverage, Delta, Mismatch, PartitionId};
use crate::error::{Error, Result};
use crate::hive::{Claim, CommitLog, LogEntry, LogFile, Size};
use crate::record::coordinates;
use crate::retry::Backoff;
use crate::storage::{CloseBarrier, Create, FileWriter, Storages};
use crate::table::{Origin, batch_marks, ensure_same_source};
use crate::window::Window;

/// Files of a batch, written but not committed.
#[derive(Debug, Clone, Default)]
pub struct TextFiles {
    files: Vec<TextFile>,
}

#[derive(Debug, Clone)]
struct TextFile {
    pending: String,
    /// Rows by topic partition.
    rows: BTreeMap<PartitionId, u64>,
    size_bytes: u64,
}

impl TextFiles {
    pub fn len(&self) -> usize {
        self.files.len()
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    pub fn rows(&self) -> u64 {
        self.files.iter().flat_map(|file| file.rows.values()).sum()
    }

    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }
}

/// Writes batches of records into files that nobody sees yet.
pub struct TextWriter {
    storages: Storages,
    log: CommitLog,
    barrier: CloseBarrier,
    open: Vec<(TextFile, FileWriter)>,
}

impl TextWriter {
    fn new(table: &TextTable, barrier: &CloseBarrier) -> Self {
        let storages = table.catalog().storages().clone();
        Self { storages, log: table.log().clone(), barrier: barrier.clone(), open: Vec::new() }
    }

    pub async fn write(&mut self, records: &RecordBatch) -> Result<()> {
        let mut rows: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let (partitions, _) = coordinates(records)?;
        for (row, partition) in partitions.values().iter().enumerate() {
            let known = self.open.iter().position(|(file, _)| file.rows.contains_key(partition));
            let file = match known {
                Some(file) => file,
                None => self.file_with_room().await?,
            };
            *self.open[file].0.rows.entry(*partition).or_default() += 1;
            rows.entry(file).or_default().push(row);
        }
        for (file, rows) in rows {
            let records = records.clone();
            let encoding = tokio::task::spawn_blocking(move || {
                let mut lines = Vec::new();
                json_lines::encode(&records, rows, &mut lines).map(|()| lines)
            });
            let lines = encoding.await.map_err(|panic| Error::failed("a worker thread panicked").caused_by(panic))??;
            self.open[file].1.write(Bytes::from(lines)).await?;
        }
        Ok(())
    }

    /// A file that takes another topic partition.
    async fn file_with_room(&mut self) -> Result<usize> {
        let roomy = self.open.iter().position(|(file, _)| file.rows.len() < PARTITIONS_PER_FILE);
        if let Some(file) = roomy {
            return Ok(file);
        }
        let pending = format!("pending-{}.json", Uuid::now_v7().simple());
        let writer = self.storages.create(&self.log.pending_location(&pending), Create::New).await?;
        self.open.push((TextFile { pending, rows: BTreeMap::new(), size_bytes: 0 }, writer));
        Ok(self.open.len() - 1)
    }

    /// The files; their closing is handed to the barrier.
    pub fn finish(self) -> TextFiles {
        let mut files = Vec::new();
        for (mut file, writer) in self.open {
            file.size_bytes = writer.bytes_written();
            writer.defer_close(&self.barrier);
            files.push(file);
        }
        TextFiles { files }
    }
}

/// One batch to be appended.
#[derive(Debug, Clone)]
pub struct TextBatch {
    pub files: TextFiles,
    pub delta: Delta,
    pub origin: Origin,
    pub commit_id: Uuid,
    /// Properties that the commit sets.
    pub notes: BTreeMap<String, String>,
}

/// A batch that continues the table.
#[derive(Debug)]
pub struct TextPrepared {
    batch: TextBatch,
    after: Checkpoint,
    /// Written in time for the barrier; of no use once others have committed.
    aside: Option<Aside>,
}

#[derive(Debug)]
struct Aside {
    entry: LogEntry,
    /// The commit that it was prepared to follow.
    behind: Uuid,
    location: String,
}

enum Attempt {
    Committed,
    Taken,
    Refused(Error),
    Unknown(Error),
}

impl TextTable {
    pub fn writer(&self, barrier: &CloseBarrier) -> TextWriter {
        TextWriter::new(self, barrier)
    }

    /// Deletes files that were written but never went into a commit.
    pub async fn discard(&self, files: &TextFiles) {
        for file in &files.files {
            self.log().delete(&self.log().pending_location(&file.pending)).await;
        }
    }

    /// Checks that a batch begins where the table ends. Offsets without a record come into a file's name too; a batch without any record
    /// gets an empty file for that, closed at the barrier.
    pub async fn prepare(&mut self, mut batch: TextBatch, barrier: &CloseBarrier) -> Result<Result<TextPrepared, Mismatch>> {
        let mut place = self.place(&batch)?;
        if place.is_err() {
            // What was read last may be old.
            self.refresh().await?;
            place = self.place(&batch)?;
        }
        let after = match place {
            Ok(after) => after,
            Err(mismatch) => return Ok(Err(mismatch)),
        };
        let covered =
            batch.delta.partitions.iter().filter(|(_, coverage)| !coverage.range.is_empty()).map(|(partition, _)| *partition);
        let mut unnamed = Vec::new();
        for partition in covered {
            if batch.files.files.iter().any(|file| file.rows.contains_key(&partition)) {
                continue;
            }
            match batch.files.files.iter_mut().find(|file| file.rows.len() < PARTITIONS_PER_FILE) {
                Some(file) => _ = file.rows.insert(partition, 0),
                None => unnamed.push(partition),
            }
        }
        for partitions in unnamed.chunks(PARTITIONS_PER_FILE) {
            let pending = format!("pending-{}.json", Uuid::now_v7().simple());
            let storages = self.catalog().storages();
            storages.create(&self.log().pending_location(&pending), Create::New).await?.defer_close(barrier);
            let rows = partitions.iter().map(|partition| (*partition, 0)).collect();
            batch.files.files.push(TextFile { pending, rows, size_bytes: 0 });
        }
        let mut prepared = TextPrepared { batch, after, aside: None };
        prepared.aside = Some(prepared.write_aside(self, barrier).await?);
        Ok(Ok(prepared))
    }

    /// The checkpoint after a batch, or why it doesn't continue the table.
    fn place(&self, batch: &TextBatch) -> Result<Result<Checkpoint, Mismatch>> {
        let known = self.checkpoint()?;
        if let Some(known) = &known {
            ensure_same_source(self.ident(), known, &batch.origin)?;
        }
        let mut base = known.unwrap_or_else(|| batch.origin.start());
        base.topic_id = base.topic_id.or_else(|| batch.origin.topic_id.clone());
        base.cluster_id = base.cluster_id.or_else(|| batch.origin.cluster_id.clone());
        Ok(base.advance(&batch.delta))
    }
}

impl TextPrepared {
    /// Makes the commit; returns its number. Call it after the barrier was awaited.
    pub async fn swap(mut self, table: &mut TextTable) -> CommitOutcome<i64> {
        let mut backoff = Backoff::new(&table.catalog().settings().commit_retry);
        loop {
            match self.attempt(table).await {
                Attempt::Committed => return CommitOutcome::Committed(table.newest().sequence as i64),
                Attempt::Unknown(error) => return CommitOutcome::Unknown(error),
                Attempt::Refused(error) => return self.rejected(table, Rejection::Refused(error)).await,
                Attempt::Taken => debug!(table = %table.ident(), "another commit was faster, putting the batch behind it"),
            }
            if !backoff.wait().await {
                let found = Some(format!("{} commits", table.newest().sequence));
                return self.rejected(table, Rejection::Moved { found }).await;
            }
            let place = match table.refresh().await {
                Ok(()) => table.place(&self.batch),
                Err(error) => Err(error),
            };
            match place {
                Ok(Ok(after)) => self.after = after,
                Ok(Err(mismatch)) => return self.rejected(table, Rejection::Offsets(mismatch)).await,
                Err(error) => return self.rejected(table, Rejection::Refused(error)).await,
            }
        }
    }

    async fn write_aside(&self, table: &TextTable, barrier: &CloseBarrier) -> Result<Aside> {
        let entry = self.entry(table.newest())?;
        let location = table.log().write_aside(&entry, barrier).await?;
        Ok(Aside { entry, behind: table.newest().id, location })
    }

    /// The entry behind the newest commit, complete and durable.
    async fn aside(&mut self, table: &mut TextTable) -> Result<Aside> {
        table.complete().await?;
        match self.aside.take() {
            Some(aside) if aside.behind == table.newest().id => return Ok(aside),
            Some(aside) => table.log().delete(&aside.location).await,
            None => {}
        }
        let barrier = CloseBarrier::new();
        let aside = self.write_aside(table, &barrier).await?;
        barrier.wait().await?;
        Ok(aside)
    }

    async fn attempt(&mut self, table: &mut TextTable) -> Attempt {
        let Aside { entry, location, .. } = match self.aside(table).await {
            Ok(aside) => aside,
            Err(error) => return Attempt::Refused(error),
        };
        match table.log().claim_written(&entry, &location).await {
            Ok(Claim::Taken) => return Attempt::Taken,
            Err(error) => return Attempt::Unknown(error),
            Ok(Claim::Won) => {}
        }
        Window::BronzeClaimed.pass();
        table.adopt(entry);
        match table.complete().await {
            Ok(()) => Attempt::Committed,
            // It is in the table; the next session begins behind it.
            Err(error) => Attempt::Unknown(error),
        }
    }

    /// The batch as the commit behind `newest`.
    pub(super) fn entry(&self, newest: &LogEntry) -> Result<LogEntry> {
        let TextBatch { files, delta, commit_id, notes, .. } = &self.batch;
        let mut entry = newest.next(*commit_id);
        let marks = batch_marks(&self.after, delta, *commit_id, None, notes, &newest.properties)?;
        for removed in &marks.removed {
            entry.properties.remove(removed);
        }
        entry.properties.extend(marks.summary);
        entry.properties.extend(marks.properties);
        for file in &files.files {
            let coverage = |(partition, rows): (&PartitionId, &u64)| {
                let range = delta.partitions.get(partition)?.range;
                Some((*partition, Coverage { range, records: *rows }))
            };
            let partitions = file.rows.iter().map(coverage).collect::<Option<BTreeMap<_, _>>>();
            let partitions =
                partitions.ok_or_else(|| Error::failed("a file holds records of a partition that its batch does not name"))?;
            let rows = file.rows.values().sum();
            let name = file_name::format(entry.sequence, &partitions);
            entry.files.push(LogFile { pending: file.pending.clone(), name, rows, size_bytes: file.size_bytes });
        }
        let Size { rows, files, size_bytes } = newest.total;
        let added = &self.batch.files;
        entry.total =
            Size { rows: rows + added.rows(), files: files + added.len() as u64, size_bytes: size_bytes + added.size_bytes() };
        Ok(entry)
    }

    async fn rejected(self, table: &TextTable, rejection: Rejection) -> CommitOutcome<i64> {
        self.discard(table).await;
        CommitOutcome::Rejected(rejection)
    }

    /// Gives the batch up before its commit.
    pub async fn discard(self, table: &TextTable) {
        if let Some(aside) = &self.aside {
            table.log().delete(&aside.location).await;
        }
        table.discard(&self.batch.files).await;
    }
}
