//! Committing to a logged table: the entry that brings a batch's files.
//!
//! | found | what happens |
//! |---|---|
//! | the batch begins where the table ends | its entry is tried for under the next number of the log |
//! | somebody else has that number | the newest commit is read and completed, and the batch tried for again if it still applies |
//! | the table ends elsewhere by now | rejected: the batch's files are deleted |
//! | the answer was lost and nobody can say | unknown: the files stay; the next start reads the newest commit, whoever made it |
//!
//! *Invariants*: files are complete and durable before their entry. They get their names one after the other behind the same entry.

use std::collections::BTreeMap;

use tracing::debug;
use uuid::Uuid;

use super::LoggedTable;
use crate::catalog::{CommitOutcome, Rejection};
use crate::checkpoint::{Checkpoint, Coverage, Delta, Mismatch, OffsetRange, PartitionId};
use crate::error::{Error, Result};
use crate::hive::{Claim, FileSpan, LogEntry, LogFile, PartitionKey, Size, file_name};
use crate::retry::Backoff;
use crate::storage::CloseBarrier;
use crate::table::append::Append;
use crate::table::progress::{ensure_same_input, ensure_same_source, marks};

/// Files of a batch, written but not committed.
#[derive(Debug, Clone, Default)]
pub struct LoggedFiles {
    pub files: Vec<PendingFile>,
}

/// One of them.
#[derive(Debug, Clone, Default)]
pub struct PendingFile {
    /// Below the log's directory.
    pub pending: String,
    pub held: BTreeMap<PartitionId, Held>,
    pub size_bytes: u64,
    /// The table partition that it belongs to; its `Display` form is the directory.
    pub partition: Option<PartitionKey>,
    /// Of columns by which readers may pass the file over.
    pub spans: BTreeMap<String, FileSpan>,
}

/// What a file holds of a topic partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    pub rows: u64,
    /// From the first row's offset to behind the last one's; none if the file holds all that the batch has of the topic partition.
    pub range: Option<OffsetRange>,
}

impl PendingFile {
    pub fn rows(&self) -> u64 {
        self.held.values().map(|held| held.rows).sum()
    }
}

impl LoggedFiles {
    pub fn len(&self) -> usize {
        self.files.len()
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    pub fn rows(&self) -> u64 {
        self.files.iter().map(PendingFile::rows).sum()
    }

    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }
}

/// A batch that continues the table.
#[derive(Debug)]
pub struct LoggedPrepared {
    batch: Append<LoggedFiles>,
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

impl LoggedTable {
    /// Deletes files that were written but never went into a commit.
    pub async fn discard(&self, files: &LoggedFiles) {
        for file in &files.files {
            self.log().delete(&self.log().pending_location(&file.pending)).await;
        }
    }

    /// The checkpoint after a batch, or why it doesn't continue the table, also after a second look.
    pub async fn place_anew(&mut self, batch: &Append<LoggedFiles>) -> Result<Result<Checkpoint, Mismatch>> {
        let place = self.place(batch)?;
        if place.is_ok() {
            return Ok(place);
        }
        // What was read last may be old.
        self.refresh().await?;
        self.place(batch)
    }

    /// Writes the entry of a batch after which the table stands at `after`; its closing is handed to the barrier.
    pub async fn prepare(
        &mut self,
        batch: Append<LoggedFiles>,
        after: Checkpoint,
        barrier: &CloseBarrier,
    ) -> Result<LoggedPrepared> {
        let mut prepared = LoggedPrepared { batch, after, aside: None };
        prepared.aside = Some(prepared.write_aside(self, barrier).await?);
        Ok(prepared)
    }

    fn place(&self, batch: &Append<LoggedFiles>) -> Result<Result<Checkpoint, Mismatch>> {
        let known = self.checkpoint()?;
        if let Some(known) = &known {
            ensure_same_source(self.ident(), known, &batch.origin)?;
        }
        ensure_same_input(self.ident(), self.input()?.as_ref(), batch.input.as_ref())?;
        Ok(batch.origin.base(known).advance(&batch.delta))
    }
}

impl LoggedPrepared {
    /// Makes the commit; returns its number. Call it after the barrier was awaited.
    pub async fn swap(mut self, table: &mut LoggedTable) -> CommitOutcome<i64> {
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

    async fn write_aside(&self, table: &LoggedTable, barrier: &CloseBarrier) -> Result<Aside> {
        let entry = self.entry(table)?;
        let location = table.log().write_aside(&entry, barrier).await?;
        Ok(Aside { entry, behind: table.newest().id, location })
    }

    /// The entry behind the newest commit, complete and durable.
    async fn aside(&mut self, table: &mut LoggedTable) -> Result<Aside> {
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

    async fn attempt(&mut self, table: &mut LoggedTable) -> Attempt {
        let Aside { entry, location, .. } = match self.aside(table).await {
            Ok(aside) => aside,
            Err(error) => return Attempt::Refused(error),
        };
        match table.log().claim_written(&entry, &location).await {
            Ok(Claim::Taken) => return Attempt::Taken,
            Err(error) => return Attempt::Unknown(error),
            Ok(Claim::Won) => {}
        }
        table.kind.claimed.pass();
        table.adopt(entry);
        match table.complete().await {
            Ok(()) => Attempt::Committed,
            // It is in the table; the next session begins behind it.
            Err(error) => Attempt::Unknown(error),
        }
    }

    /// The batch as the commit behind the table's newest.
    pub(crate) fn entry(&self, table: &LoggedTable) -> Result<LogEntry> {
        let newest = table.newest();
        let Append { files, delta, commit_id, input, summary, .. } = &self.batch;
        let mut entry = newest.next(*commit_id);
        let marks = marks(&self.after, delta, *commit_id, input.as_ref(), summary, &newest.properties)?;
        for removed in &marks.removed {
            entry.properties.remove(removed);
        }
        entry.properties.extend(marks.summary);
        entry.properties.extend(marks.properties);
        for file in &files.files {
            entry.files.push(log_file(file, entry.sequence, delta, table.kind.suffix)?);
        }
        let Size { rows, files: count, size_bytes } = newest.total;
        entry.total =
            Size { rows: rows + files.rows(), files: count + files.len() as u64, size_bytes: size_bytes + files.size_bytes() };
        Ok(entry)
    }

    async fn rejected(self, table: &LoggedTable, rejection: Rejection) -> CommitOutcome<i64> {
        self.discard(table).await;
        CommitOutcome::Rejected(rejection)
    }

    /// Gives the batch up before its commit.
    pub async fn discard(self, table: &LoggedTable) {
        if let Some(aside) = &self.aside {
            table.log().delete(&aside.location).await;
        }
        table.discard(&self.batch.files).await;
    }
}

/// A file with the name that it gets as one of commit `sequence`.
fn log_file(file: &PendingFile, sequence: u64, delta: &Delta, suffix: &str) -> Result<LogFile> {
    let unknown = || Error::failed("a file holds records of a partition that its batch does not name");
    let coverage = |(partition, held): (&PartitionId, &Held)| {
        let whole = delta.partitions.get(partition)?.range;
        Some((*partition, Coverage { range: held.range.unwrap_or(whole), records: held.rows }))
    };
    let partitions = file.held.iter().map(coverage).collect::<Option<BTreeMap<_, _>>>().ok_or_else(unknown)?;
    let name = file_name::format(sequence, &partitions, suffix);
    let name = file.partition.as_ref().map_or(name.clone(), |partition| format!("{partition}/{name}"));
    Ok(LogFile {
        pending: file.pending.clone(),
        name,
        rows: file.rows(),
        size_bytes: file.size_bytes,
        partition: file.partition.as_ref().map_or_else(Vec::new, PartitionKey::values),
        spans: file.spans.clone(),
    })
}
