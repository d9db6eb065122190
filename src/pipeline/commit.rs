//! A batch's way through `prepare` and `swap` as the pipeline sees it, and the one log line that each commit leaves.

use std::fmt::Display;
use std::time::{Duration, Instant};

use iceberg::TableIdent;
use tracing::info;

use super::tally::{CommitStats, Tally};
use crate::catalog::{CommitOutcome, Rejection};
use crate::checkpoint::{Checkpoint, Delta};
use crate::error::{Error, Result};
use crate::storage::CloseBarrier;
use crate::table::logged::LoggedForm;
use crate::table::{Append, RecordFiles, RecordPreparation, RecordPrepared, RecordTable};

/// A batch whose metadata is written; once its files are closed it can be swapped in.
pub(super) struct Ready {
    /// The snapshot where an earlier attempt of the same batch had landed, if one had.
    step: Result<RecordPrepared, i64>,
    line: CommitLine,
}

/// What is told of a commit.
pub(super) struct CommitLine {
    table: String,
    delta: Delta,
    stats: CommitStats,
    snapshot: i64,
}

/// A table as a place that others may have moved.
pub(super) trait Place {
    fn ident(&self) -> &TableIdent;
    fn last_writer(&self) -> Option<String>;
    fn checkpoint(&self) -> Result<Option<Checkpoint>>;
    async fn refresh(&mut self) -> Result<()>;
    async fn mend(&self, failure: &Error) -> Result<bool>;
}

impl<L: LoggedForm> Place for RecordTable<L> {
    fn ident(&self) -> &TableIdent {
        self.ident()
    }

    fn last_writer(&self) -> Option<String> {
        self.last_writer()
    }

    fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        self.checkpoint()
    }

    async fn refresh(&mut self) -> Result<()> {
        self.refresh().await
    }

    async fn mend(&self, failure: &Error) -> Result<bool> {
        self.mend(failure).await
    }
}

/// The error for a table that another writer, or a pointer that went back, has moved away from where this daemon thought it was.
pub(super) fn moved_on(table: &impl Place, found: impl Display) -> Error {
    let writer = table.last_writer().unwrap_or_else(|| "nobody that is known".to_owned());
    Error::transient(format!("table {} is not where this daemon left it: {found}; its last writer was {writer}", table.ident()))
        .hint("does another lakesmith run on the same tables, or did somebody put its entry back? this one continues from where the table is")
}

/// How this process signs its batches.
pub(super) fn signature(pipeline: &str) -> String {
    let host = whoami::hostname().unwrap_or_else(|_| "an unknown host".to_owned());
    format!("{pipeline} on {host}, process {}", std::process::id())
}

impl Ready {
    /// Writes a batch's metadata. A batch that doesn't begin where the table ends is a transient error: the tables must be read again.
    pub async fn prepare<L: LoggedForm>(
        table: &mut RecordTable<L>,
        batch: Append<RecordFiles>,
        barrier: &CloseBarrier,
    ) -> Result<Self> {
        let files = &batch.files;
        let stats =
            CommitStats { rows: files.rows(), files: files.len() as u64, bytes: files.size_bytes(), busy: Duration::ZERO };
        let line = CommitLine { table: table.ident().to_string(), delta: batch.delta.clone(), stats, snapshot: 0 };
        let step = match table.prepare(batch, barrier).await? {
            RecordPreparation::Ready(prepared) => Ok(prepared),
            RecordPreparation::Landed(snapshot) => Err(snapshot),
            RecordPreparation::Mismatch(mismatch) => return Err(moved_on(table, mismatch)),
        };
        Ok(Self { step, line })
    }

    /// Adds the time that encoding and preparing took.
    pub fn took(mut self, busy: Duration) -> Self {
        self.line.stats.busy += busy;
        self
    }

    pub fn delta(&self) -> &Delta {
        &self.line.delta
    }

    /// Makes the commit. Await the barrier before.
    pub async fn swap<L: LoggedForm>(self, table: &mut RecordTable<L>) -> Result<CommitLine> {
        let started = Instant::now();
        let mut line = self.line;
        line.snapshot = match self.step {
            Ok(prepared) => match prepared.swap(table).await {
                CommitOutcome::Rejected(Rejection::Offsets(mismatch)) => return Err(moved_on(table, mismatch)),
                outcome => outcome.into_result(&line.table)?,
            },
            Err(landed) => landed,
        };
        line.stats.busy += started.elapsed();
        Ok(line)
    }

    /// Gives the batch up before its swap.
    pub async fn discard<L: LoggedForm>(self, table: &RecordTable<L>) {
        if let Ok(prepared) = self.step {
            prepared.discard(table).await;
        }
    }
}

impl CommitLine {
    /// Counts the commit and logs it; `lag` is the number of records that wait in the source, where it is known.
    pub fn tell(self, tally: &Tally, lag: Option<u64>) {
        info!(
            table = %self.table,
            snapshot = self.snapshot,
            rows = self.stats.rows,
            files = self.stats.files,
            offsets = %offsets(&self.delta),
            lag,
            ms = self.stats.busy.as_millis() as u64,
            "committed"
        );
        tally.committed(&self.table, &self.stats);
    }
}

/// The ranges of a delta as a person reads them: `0:[120,340) 1:[7,9)`, the first eight partitions at most.
pub(super) fn offsets(delta: &Delta) -> String {
    const SHOWN: usize = 8;
    let mut text: Vec<String> = delta
        .partitions
        .iter()
        .take(SHOWN)
        .map(|(partition, c)| format!("{partition}:[{},{})", c.range.start, c.range.end))
        .collect();
    if delta.partitions.len() > SHOWN {
        text.push(format!("and {} more partitions", delta.partitions.len() - SHOWN));
    }
    text.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_written_as_half_open_ranges() {
        assert_eq!(offsets(&"d;0:120+220;1:7+2-1".parse().unwrap()), "0:[120,340) 1:[7,9)");
    }
}
