//! Which files of an indexed table hold given offsets: from the log, without a look at the table's directories.
//!
//! *Costs*: commits are looked at from the newest back to the one at which the table stood below all of the offsets. Those that this
//! handle has seen cost nothing, the others one small file each, up to the 64 to 80 whose entries are kept; what lies before comes from
//! the lists of the table's files ([`crate::hive::index`]), one for each 1,024 commits. So a reader that follows the table reads next to
//! nothing, and one that wants all of it a few hundred bytes for each file.

use std::collections::VecDeque;
use std::sync::Arc;

use super::LoggedTable;
use crate::checkpoint::{Coverage, OffsetRange, PartitionId};
use crate::error::{Error, Result};
use crate::hive::{LogEntry, LogFile, file_name};
use crate::table::progress::checkpoint as checkpoint_in;
use crate::table::scan::OffsetRanges;

/// A file of a commit.
#[derive(Debug, Clone)]
pub struct CommittedFile {
    pub file: LogFile,
    /// The newest commit's files may be on the way to their names.
    pub newest: bool,
}

/// The table's lists of files are written, and deleted, by its writers: a reader may have to look twice.
const LOOKS_MAX: usize = 4;

impl LoggedTable {
    /// The files that hold offsets of these ranges, in the order of their commits.
    pub async fn files_of(&self, ranges: &OffsetRanges) -> Result<Vec<CommittedFile>> {
        let mut found = VecDeque::new();
        let mut take = |files: Vec<LogFile>, newest: bool| -> Result<()> {
            for file in files.into_iter().rev() {
                if self.holds(&file, ranges)? {
                    found.push_front(CommittedFile { file, newest });
                }
            }
            Ok(())
        };
        let mut entry = self.newest.clone();
        take(entry.files.clone(), true)?;
        let oldest = loop {
            if entry.sequence == 0 {
                return Ok(found.into());
            }
            let Some(before) = self.entry_before(&entry).await? else { break entry.sequence };
            if is_below(&before, ranges)? {
                return Ok(found.into());
            }
            entry = before;
            take(entry.files.clone(), false)?;
        };
        for commits in self.listed(oldest, ranges).await? {
            take(commits, false)?;
        }
        Ok(found.into())
    }

    async fn entry_before(&self, entry: &LogEntry) -> Result<Option<Arc<LogEntry>>> {
        let sequence = entry.sequence - 1;
        match self.earlier.iter().find(|earlier| earlier.sequence == sequence) {
            Some(known) => Ok(Some(known.clone())),
            None => Ok(self.log.entry(sequence).await?.map(Arc::new)),
        }
    }

    /// The files of commits before number `oldest` that have no entry any more, newest commit first.
    async fn listed(&self, oldest: u64, ranges: &OffsetRanges) -> Result<Vec<Vec<LogFile>>> {
        for _ in 0..LOOKS_MAX {
            if let Some(found) = self.look_at_lists(oldest, ranges).await? {
                return Ok(found);
            }
        }
        Err(Error::transient(format!("the lists of the files of table {} change all the time", self.ident)))
    }

    /// None if a list was replaced meanwhile.
    async fn look_at_lists(&self, oldest: u64, ranges: &OffsetRanges) -> Result<Option<Vec<Vec<LogFile>>>> {
        let mut found = Vec::new();
        let mut next = oldest;
        let blocks = self.log.blocks().await?;
        for (first, (last, location)) in blocks.into_iter().rev().filter(|(first, _)| *first < oldest) {
            if last + 1 < next {
                break;
            }
            let Some(block) = self.log.block(&location).await? else { return Ok(None) };
            let properties = block.properties.into_iter().collect();
            if last < next && checkpoint_in(&properties)?.is_none_or(|at| stands_below(&at.partitions, ranges)) {
                return Ok(Some(found));
            }
            let before = block.commits.into_iter().rev().filter(|commit| commit.sequence < next);
            found.extend(before.map(|commit| commit.files));
            next = first;
        }
        match next {
            0 => Ok(Some(found)),
            _ => {
                Err(Error::stop(format!("nothing says which files the commits before {next} brought into table {}", self.ident))
                    .hint("was a file below _lakesmith/files deleted? put it back from a snapshot or the trash"))
            }
        }
    }

    fn holds(&self, file: &LogFile, ranges: &OffsetRanges) -> Result<bool> {
        let name = file.name.rsplit('/').next().unwrap_or_default();
        let held = file_name::parse(name, self.kind.suffix).ok_or_else(|| {
            Error::stop(format!("a commit of table {} brings a file whose name says nothing: {}", self.ident, file.name))
        })?;
        let asked = |(partition, coverage): (&PartitionId, &Coverage)| {
            ranges.get(partition).is_some_and(|range| !range.intersect(&coverage.range).is_empty())
        };
        Ok(held.iter().any(asked))
    }
}

/// Whether the table stood below all of these offsets.
fn is_below(entry: &LogEntry, ranges: &OffsetRanges) -> Result<bool> {
    Ok(checkpoint_in(&entry.properties)?.is_none_or(|at| stands_below(&at.partitions, ranges)))
}

fn stands_below(at: &std::collections::BTreeMap<PartitionId, Coverage>, ranges: &OffsetRanges) -> bool {
    let below = |(partition, range): (&PartitionId, &OffsetRange)| {
        range.is_empty() || at.get(partition).is_none_or(|coverage| coverage.range.end <= range.start)
    };
    ranges.iter().all(below)
}
