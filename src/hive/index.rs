//! The list of a logged table's files: what the commits brought whose entries are deleted by now.
//!
//! Below `_lakesmith/files` lies one file for each block of 1,024 commits, `files-000000001024-000000001503.json`: it lists what commits
//! 1024 to 1503 brought, and where the table stood after them. Every 16 commits it is written anew with those whose entries are due to
//! be deleted, under a name that says how far it goes; then the earlier one of that block, and then the entries, are deleted. Its content
//! follows from the commits, so it doesn't matter who writes it, and several may.
//!
//! *Invariants*: a commit is in the list or has its entry; for a moment both. Of several lists of one block the one that goes furthest
//! counts.
//!
//! *Costs*: reading what was committed last needs nothing of this. Reading all of a table lists that directory and reads a file for each
//! 1,024 commits, about 200 bytes for each file of the table.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::log::{CommitLog, LogFile};
use crate::error::{Context, Error, Result};
use crate::storage::{Create, Depth, StorageError};

/// Commits of one block.
const BLOCK: u64 = 1_024;

/// What one commit brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedCommit {
    pub sequence: u64,
    pub files: Vec<LogFile>,
}

/// What a block of commits brought, in their order; those that brought nothing are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    pub first: u64,
    pub last: u64,
    /// The table's properties after the last commit.
    pub properties: BTreeMap<String, String>,
    pub commits: Vec<ListedCommit>,
}

/// The lists there are: by first commit, the last one and the location.
pub type Blocks = BTreeMap<u64, (u64, String)>;

impl CommitLog {
    fn list_location(&self, first: u64, last: u64) -> String {
        self.pending_location(&format!("files/files-{first:012}-{last:012}.json"))
    }

    /// The lists of all blocks, of each the one that goes furthest.
    pub async fn blocks(&self) -> Result<Blocks> {
        let listed = self.storages.list(&self.pending_location("files"), Depth::Direct).await;
        let listed = listed.context("the lists of the table's files cannot be listed")?;
        let mut blocks = Blocks::new();
        // They come by name, so that the one that goes furthest is the last.
        for file in listed {
            if let Some((first, last)) = span_of(&file.location) {
                blocks.insert(first, (last, file.location));
            }
        }
        Ok(blocks)
    }

    /// One list; none if a longer one has taken its place.
    pub async fn block(&self, location: &str) -> Result<Option<Block>> {
        let content = match self.storages.read(location).await {
            Ok(content) => content,
            Err(StorageError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(Error::from(error).context(format!("failed to read {location}"))),
        };
        let unreadable = |error| Error::stop(format!("the list of files {location} is unreadable")).caused_by(error);
        serde_json::from_slice(&content).map(Some).map_err(unreadable)
    }

    /// Takes what these commits brought into the lists.
    pub(super) async fn list_files_of(&self, sequences: &[u64]) -> Result<()> {
        let mut blocks = self.blocks().await?;
        let mut due: BTreeMap<u64, u64> = BTreeMap::new();
        for sequence in sequences {
            due.insert(sequence - sequence % BLOCK, *sequence);
        }
        for (first, last) in due {
            let known = blocks.remove(&first);
            if known.as_ref().is_some_and(|(known, _)| *known >= last) {
                continue;
            }
            let gone = || Error::transient(format!("commits before {last} were listed by another process"));
            let mut block = match &known {
                None => Block { first, ..Block::default() },
                Some((_, location)) => self.block(location).await?.ok_or_else(gone)?,
            };
            for sequence in known.as_ref().map_or(first, |(known, _)| known + 1)..=last {
                let entry = self.entry(sequence).await?.ok_or_else(gone)?;
                if !entry.files.is_empty() {
                    block.commits.push(ListedCommit { sequence, files: entry.files });
                }
                block.properties = entry.properties.into_iter().collect();
            }
            block.last = last;
            self.write_block(&block).await?;
            if let Some((_, location)) = known {
                self.delete(&location).await;
            }
        }
        Ok(())
    }

    async fn write_block(&self, block: &Block) -> Result<()> {
        let text =
            serde_json::to_vec(block).map_err(|error| Error::failed("a list of files has no JSON form").caused_by(error))?;
        let aside = self.pending_location(&format!("files-{}.json", Uuid::now_v7().simple()));
        self.storages
            .write_file(&aside, Bytes::from(text), Create::New)
            .await
            .with_context(|| format!("failed to write {aside}"))?;
        match self.storages.rename(&aside, &self.list_location(block.first, block.last)).await {
            Ok(()) => Ok(()),
            // The same list, by another process.
            Err(StorageError::AlreadyExists { .. }) => {
                self.delete(&aside).await;
                Ok(())
            }
            Err(error) => Err(Error::from(error).context("the list of files did not get its name")),
        }
    }
}

/// The first and the last commit of a list, by its name.
fn span_of(location: &str) -> Option<(u64, u64)> {
    let (first, last) = location.rsplit('/').next()?.strip_prefix("files-")?.strip_suffix(".json")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hive::{Claim, LogEntry};
    use crate::storage::{StorageSettings, Storages};

    fn log() -> (tempfile::TempDir, CommitLog) {
        let directory = tempfile::tempdir().unwrap();
        let warehouse = directory.path().to_string_lossy().into_owned();
        let storages = Storages::new(&StorageSettings { warehouse, ..StorageSettings::default() }).unwrap();
        let log = CommitLog::new(&storages, &format!("{}/t/", storages.warehouse())).indexed();
        (directory, log)
    }

    async fn commit(log: &CommitLog, newest: &LogEntry) -> LogEntry {
        let mut next = newest.next(Uuid::now_v7());
        let pending = format!("pending-{}", next.id);
        log.storages.write_file(&log.pending_location(&pending), Bytes::from_static(b"x"), Create::New).await.unwrap();
        let (name, partition) = (format!("a=1/{:04}", next.sequence), vec!["1".to_owned()]);
        next.files.push(LogFile { pending, name, rows: 1, size_bytes: 1, partition, spans: BTreeMap::new() });
        next.properties.insert("at".into(), next.sequence.to_string());
        assert_eq!(log.claim(&next).await.unwrap(), Claim::Won);
        log.publish(&next).await.unwrap();
        next
    }

    /// What is listed, by commit, block by block.
    async fn listed(log: &CommitLog) -> Vec<u64> {
        let mut found = Vec::new();
        for (first, (last, location)) in log.blocks().await.unwrap() {
            let block = log.block(&location).await.unwrap().unwrap();
            assert_eq!((block.first, block.last), (first, last));
            assert_eq!(block.properties["at"], last.to_string());
            assert!(block.commits.iter().all(|commit| commit.files[0].name == format!("a=1/{:04}", commit.sequence)));
            found.extend(block.commits.iter().map(|commit| commit.sequence));
        }
        found
    }

    #[tokio::test]
    async fn what_a_commit_brought_is_listed_before_its_entry_is_deleted() {
        let (directory, log) = log();
        let mut newest = LogEntry::first();
        log.claim(&newest).await.unwrap();
        while newest.sequence < 200 {
            newest = commit(&log, &newest).await;
        }
        let listed = listed(&log).await;
        assert_eq!(listed, (1..listed.len() as u64 + 1).collect::<Vec<_>>());
        assert!(listed.len() > 100, "{listed:?}");
        // Whatever is not listed has its entry.
        for sequence in listed.len() as u64 + 1..=200 {
            assert!(log.entry(sequence).await.unwrap().is_some(), "{sequence}");
        }
        assert!(log.entry(3).await.unwrap().is_none());
        // One list is left, and nothing aside.
        let names = |path: &str| std::fs::read_dir(directory.path().join("t").join(path)).unwrap().count();
        assert_eq!(names("_lakesmith/files"), 1);
        assert_eq!(names("_lakesmith"), 200 - listed.len() + 1);
    }

    #[tokio::test]
    async fn a_block_ends_and_the_next_one_begins() {
        let (_directory, log) = log();
        let mut entry = LogEntry::first();
        entry.sequence = BLOCK - 3;
        let first = entry.sequence;
        // The block before these commits, as others left it.
        let block = Block { first: 0, last: first, ..Block::default() };
        log.write_block(&block).await.unwrap();
        for _ in 0..6 {
            entry = commit(&log, &entry).await;
        }
        let all: Vec<u64> = (first + 1..=first + 6).collect();
        let (some, _) = all.split_at(4);
        log.list_files_of(some).await.unwrap();
        log.list_files_of(&all).await.unwrap();
        // Again, as by another process.
        log.list_files_of(&all).await.unwrap();
        assert_eq!(listed(&log).await, all);
        assert_eq!(
            log.blocks().await.unwrap().into_iter().map(|(first, (last, _))| (first, last)).collect::<Vec<_>>(),
            [(0, BLOCK - 1), (BLOCK, BLOCK + 3)]
        );
        // A commit that is neither listed nor there is never passed over.
        assert!(log.list_files_of(&[BLOCK + 9]).await.is_err());
    }
}
