//! The commits of a plain Hive table, one after the other, in a hidden directory of the table.
//!
//! Files of a directory become visible one by one, and nothing in their names can keep two writers apart. So each commit is an *entry* of
//! a log below `_lakesmith`, which engines don't see: `entry-000000000017.json` says which files it brings and the table's properties
//! after it. The entry is written aside and renamed to its number. The rename does not replace, so of all who try for a number one wins;
//! that rename is the commit. Its files, complete by then, get their names right after it, by the winner or by whoever comes next.
//!
//! *Invariants*: an entry's files have their names before the next number is tried for. The newest entry tells the whole of the table's
//! state; older ones are only kept so that a late writer finds its number taken. An entry below the newest says nothing any more.
//!
//! *Failure*: where the answer to a rename was lost, or says that the name is taken, the entry of that number is read: it bears the id of
//! the commit that won. Who wins a number whose earlier entry was deleted long ago finds much higher ones, and has lost.
//!
//! What commits brought is forgotten with their entries, unless the table keeps a list of its files ([`super::index`]).
//!
//! *What may leak*: files in `_lakesmith` of commits that were not made; [`CommitLog::sweep`] deletes them after a day.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize, Serializer};
use tracing::debug;
use uuid::Uuid;

use crate::error::{Context, Error, Result};
use crate::storage::{CloseBarrier, Create, Depth, FileReader, StorageError, Storages};

/// The hidden directory of a table. Hive, Trino, Spark and `hdfs dfs -cat table/*.json` pass over it.
pub const LOG_DIRECTORY: &str = "_lakesmith";
/// Entries that are kept beside the newest.
const ENTRIES_KEPT: u64 = 64;
/// Entries between two deletions of old ones.
const PRUNE_EVERY: u64 = 16;
/// Files that get their names at the same time.
const NAMED_AT_ONCE: usize = 8;
/// Leftovers of commits that were not made are this old before they are deleted.
const LEFTOVER_AGE: Duration = Duration::from_secs(86_400);

/// One commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// From 0, without a gap.
    pub sequence: u64,
    /// Of this attempt alone: by it a writer knows its own entry.
    pub id: Uuid,
    /// The table's, from its first entry on.
    pub table_uuid: Uuid,
    pub committed_ms: i64,
    /// The table's after this commit.
    #[serde(serialize_with = "sorted")]
    pub properties: HashMap<String, String>,
    pub files: Vec<LogFile>,
    /// Of the table after this commit, as far as its writers counted.
    pub total: Size,
}

/// A file that a commit brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    /// Below the hidden directory, until it has its name.
    pub pending: String,
    /// Below the table's directory.
    pub name: String,
    pub rows: u64,
    pub size_bytes: u64,
    /// The values of the table's partition keys, raw.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition: Vec<String>,
    /// Of columns by which readers may pass the file over.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spans: BTreeMap<String, FileSpan>,
}

impl LogFile {
    /// The directory that it lies in, below the table's; none for the table's own.
    pub fn directory(&self) -> Option<&str> {
        self.name.rsplit_once('/').map(|(directory, _)| directory)
    }
}

/// The least and the greatest value of a column in a file, of which none is null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSpan {
    pub least: i64,
    pub greatest: i64,
}

/// How much a table holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub rows: u64,
    pub files: u64,
    pub size_bytes: u64,
}

fn sorted<S: Serializer>(map: &HashMap<String, String>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    map.iter().collect::<BTreeMap<_, _>>().serialize(serializer)
}

impl LogEntry {
    /// The next entry: the same properties and totals, no files.
    pub fn next(&self, id: Uuid) -> Self {
        Self { sequence: self.sequence + 1, id, committed_ms: now_ms(), files: Vec::new(), ..self.clone() }
    }

    /// The first entry of a table.
    pub fn first() -> Self {
        Self {
            sequence: 0,
            id: Uuid::now_v7(),
            table_uuid: Uuid::new_v4(),
            committed_ms: now_ms(),
            properties: HashMap::new(),
            files: Vec::new(),
            total: Size::default(),
        }
    }
}

fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

/// What became of an attempt to make an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is in the log; others may have built on it by now.
    Won,
    /// Somebody else has that number; the attempt changed nothing and never will.
    Taken,
}

/// The log of one table.
#[derive(Debug, Clone)]
pub struct CommitLog {
    pub(super) storages: Storages,
    /// The table's directory, without a `/` behind it.
    table: String,
    /// Whether files are listed before their entries are deleted.
    indexed: bool,
}

impl CommitLog {
    pub fn new(storages: &Storages, table_location: &str) -> Self {
        Self { storages: storages.clone(), table: table_location.trim_end_matches('/').to_owned(), indexed: false }
    }

    /// The log of a table that keeps a list of its files.
    #[must_use]
    pub fn indexed(self) -> Self {
        Self { indexed: true, ..self }
    }

    /// Where a file that is not committed yet lies.
    pub fn pending_location(&self, pending: &str) -> String {
        format!("{}/{LOG_DIRECTORY}/{pending}", self.table)
    }

    pub fn location(&self, name: &str) -> String {
        format!("{}/{name}", self.table)
    }

    fn entry_location(&self, sequence: u64) -> String {
        self.pending_location(&format!("entry-{sequence:012}.json"))
    }

    /// The newest entry; none for a table without a commit.
    pub async fn newest(&self) -> Result<Option<LogEntry>> {
        let Some(sequence) = self.sequences().await?.pop_last() else { return Ok(None) };
        let found = self.entry(sequence).await?;
        found.map(Some).ok_or_else(|| Error::transient(format!("{} is gone again", self.entry_location(sequence))))
    }

    async fn sequences(&self) -> Result<BTreeSet<u64>> {
        let listed = self.storages.list(&self.pending_location(""), Depth::Direct).await;
        let listed = listed.with_context(|| format!("the commits in {} cannot be listed", self.table))?;
        Ok(listed.iter().filter_map(|file| sequence_of(&file.location)).collect())
    }

    /// The entry of a number; none if it was deleted, or is not made yet.
    pub async fn entry(&self, sequence: u64) -> Result<Option<LogEntry>> {
        let location = self.entry_location(sequence);
        let content = match self.storages.read(&location).await {
            Ok(content) => content,
            Err(StorageError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(Error::from(error).context(format!("failed to read the commit {location}"))),
        };
        let unreadable = |error| {
            Error::stop(format!("the commit {location} is unreadable"))
                .hint("was the file changed by hand? what the table holds is said by the newest of these files")
                .caused_by(error)
        };
        serde_json::from_slice(&content).map(Some).map_err(unreadable)
    }

    /// Writes an entry aside; its closing is handed to the barrier. Returns where it lies.
    pub async fn write_aside(&self, entry: &LogEntry, barrier: &CloseBarrier) -> Result<String> {
        let aside = self.pending_location(&format!("attempt-{}-{}.json", entry.sequence, Uuid::now_v7().simple()));
        let text = serde_json::to_vec(entry).map_err(|error| Error::failed("a commit has no JSON form").caused_by(error))?;
        let write = async {
            let mut file = self.storages.create(&aside, Create::New).await?;
            file.write(Bytes::from(text)).await?;
            file.defer_close(barrier);
            Ok::<_, StorageError>(())
        };
        write.await.with_context(|| format!("failed to write {aside}"))?;
        Ok(aside)
    }

    /// Writes an entry and tries for its number; see [`Self::claim_written`].
    pub async fn claim(&self, entry: &LogEntry) -> Result<Claim> {
        let barrier = CloseBarrier::new();
        let aside = self.write_aside(entry, &barrier).await?;
        barrier.wait().await.with_context(|| format!("failed to write {aside}"))?;
        self.claim_written(entry, &aside).await
    }

    /// Tries for the number of an entry that lies aside. An error leaves it open whether it was won: the next writer may find it there, with
    /// all its files.
    pub async fn claim_written(&self, entry: &LogEntry, aside: &str) -> Result<Claim> {
        let location = self.entry_location(entry.sequence);
        if let Err(error) = self.storages.rename(aside, &location).await {
            // An answer to a repeated request may say that the name is taken, by the first one.
            match self.entry(entry.sequence).await? {
                Some(found) if found.id == entry.id => {}
                Some(_) => {
                    self.delete(aside).await;
                    return Ok(Claim::Taken);
                }
                None => {
                    return Err(Error::from(error).context(format!("nobody can say yet whether the commit {location} was made")));
                }
            }
        }
        // A number is free once more when its entry was deleted. One that is kept was free the first time, also if others are further by now.
        if self.sequences().await?.last().is_some_and(|newest| entry.sequence < oldest_kept(*newest)) {
            self.delete(&location).await;
            return Ok(Claim::Taken);
        }
        Ok(Claim::Won)
    }

    /// Gives the files of the newest entry their names, as far as they don't have them. Anybody may do it, and several at once.
    pub async fn publish(&self, entry: &LogEntry) -> Result<()> {
        // Made before the stream: closures over borrowed items make a future that the compiler takes for one that cannot change threads.
        let naming: Vec<_> = entry.files.iter().map(|file| self.name(file)).collect();
        futures::stream::iter(naming).buffer_unordered(NAMED_AT_ONCE).try_collect::<()>().await?;
        if entry.sequence.is_multiple_of(PRUNE_EVERY) {
            self.prune(entry.sequence).await;
        }
        Ok(())
    }

    async fn name(&self, file: &LogFile) -> Result<()> {
        let (from, to) = (self.pending_location(&file.pending), self.location(&file.name));
        match self.storages.rename(&from, &to).await {
            Ok(()) | Err(StorageError::AlreadyExists { .. }) => Ok(()),
            Err(error) => match self.storages.status(&to).await {
                Ok(Some(_)) => Ok(()),
                Ok(None) if matches!(error, StorageError::NotFound { .. }) => {
                    Err(Error::stop(format!("file {} of the newest commit is gone", file.name))
                        .hint("put it back from a snapshot or the trash; every later commit builds on it"))
                }
                _ => Err(Error::from(error).context(format!("file {to} is committed, but did not get its name yet"))),
            },
        }
    }

    /// Deletes old entries, as well as it can; what they brought is listed before, where the table keeps a list.
    async fn prune(&self, newest: u64) {
        let Ok(sequences) = self.sequences().await else { return };
        let old: Vec<u64> = sequences.range(..oldest_kept(newest)).copied().collect();
        if self.indexed
            && let Err(error) = self.list_files_of(&old).await
        {
            debug!(table = self.table, error = %error.chain(), "old commits could not be listed, and stay until they are");
            return;
        }
        for old in old {
            self.delete(&self.entry_location(old)).await;
        }
    }

    /// Deletes what is left of commits that were not made, as well as it can. Call it when the newest commit's files have their names.
    pub async fn sweep(&self) {
        let Ok(listed) = self.storages.list(&self.pending_location(""), Depth::Direct).await else { return };
        let before_ms = now_ms().saturating_sub(LEFTOVER_AGE.as_millis() as i64);
        for file in listed {
            if !file.is_dir && sequence_of(&file.location).is_none() && (file.modified_ms as i64) < before_ms {
                self.delete(&file.location).await;
            }
        }
    }

    pub(crate) async fn delete(&self, location: &str) {
        if let Err(error) = self.storages.delete_file(location).await {
            debug!(location, %error, "a file that nobody refers to could not be deleted");
        }
    }

    /// Names of what engines see in the table's directory, files and directories.
    pub async fn visible(&self) -> Result<Vec<String>> {
        let listed = self.storages.list(&self.table, Depth::Direct).await;
        let listed = listed.with_context(|| format!("the files in {} cannot be listed", self.table))?;
        let name = |location: &str| location.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
        Ok(listed.iter().map(|file| name(&file.location)).filter(|name| !name.starts_with(['.', '_'])).collect())
    }

    /// The same of what lies so many directories below the table's, for tables with so many partition keys; without a partition directory
    /// that has another name than `key=value`.
    pub async fn visible_below(&self, levels: usize) -> Result<Vec<String>> {
        let mut directories = vec![String::new()];
        for _ in 0..levels {
            let mut below = Vec::new();
            for directory in &directories {
                let listed = self.storages.list(&self.location(directory), Depth::Direct).await;
                let listed = listed.with_context(|| format!("the partitions in {} cannot be listed", self.table))?;
                for child in listed.into_iter().filter(|child| child.is_dir) {
                    let name = child.location.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
                    if name.contains('=') && !name.starts_with(['.', '_']) {
                        below.push(format!("{directory}{name}/"));
                    }
                }
            }
            directories = below;
        }
        let mut names = Vec::new();
        for directory in directories {
            let listed = self.storages.list(&self.location(&directory), Depth::Direct).await;
            let listed = listed.with_context(|| format!("the files in {}/{directory} cannot be listed", self.table))?;
            let name = |location: &str| location.rsplit('/').next().unwrap_or_default().to_owned();
            let files = listed.iter().filter(|file| !file.is_dir).map(|file| name(&file.location));
            names.extend(files.filter(|name| !name.starts_with(['.', '_'])).map(|name| format!("{directory}{name}")));
        }
        Ok(names)
    }

    /// Opens a committed file, wherever it is on its way to its name.
    pub async fn open(&self, name: &str, pending: Option<&str>) -> Result<FileReader, StorageError> {
        if let Some(pending) = pending {
            match self.storages.open(&self.pending_location(pending)).await {
                // It has got its name by now.
                Err(StorageError::NotFound { .. }) => {}
                opened => return opened,
            }
        }
        self.storages.open(&self.location(name)).await
    }
}

/// The first number whose entry is not deleted while this is the newest.
fn oldest_kept(newest: u64) -> u64 {
    newest.saturating_sub(ENTRIES_KEPT)
}

fn sequence_of(location: &str) -> Option<u64> {
    location.rsplit('/').next()?.strip_prefix("entry-")?.strip_suffix(".json")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::StorageSettings;

    fn log() -> (tempfile::TempDir, CommitLog) {
        let directory = tempfile::tempdir().unwrap();
        let warehouse = directory.path().to_string_lossy().into_owned();
        let storages = Storages::new(&StorageSettings { warehouse, ..StorageSettings::default() }).unwrap();
        let log = CommitLog::new(&storages, &format!("{}/t/", storages.warehouse()));
        (directory, log)
    }

    fn file(pending: String, name: &str) -> LogFile {
        LogFile { pending, name: name.into(), rows: 1, size_bytes: 2, partition: Vec::new(), spans: BTreeMap::new() }
    }

    async fn with_file(log: &CommitLog, entry: LogEntry, name: &str) -> LogEntry {
        let pending = format!("pending-{}", entry.id);
        log.storages.write_file(&log.pending_location(&pending), Bytes::from_static(b"x\n"), Create::New).await.unwrap();
        LogEntry { files: vec![file(pending, name)], ..entry }
    }

    #[tokio::test]
    async fn of_two_who_try_for_a_number_one_wins_and_the_other_knows() {
        let (_directory, log) = log();
        let first = LogEntry::first();
        assert_eq!(log.newest().await.unwrap(), None);
        assert_eq!(log.claim(&first).await.unwrap(), Claim::Won);
        let (one, other) = (first.next(Uuid::now_v7()), first.next(Uuid::now_v7()));
        let claims = tokio::join!(log.claim(&one), log.claim(&other));
        let won = [claims.0.unwrap(), claims.1.unwrap()];
        assert_eq!(won.iter().filter(|claim| **claim == Claim::Won).count(), 1, "{won:?}");
        let newest = log.newest().await.unwrap().unwrap();
        assert_eq!(newest.id, if won[0] == Claim::Won { one.id } else { other.id });
        // A request that is repeated after its answer was lost has won all the same.
        assert_eq!(log.claim(&newest).await.unwrap(), Claim::Won);
    }

    /// The answer to the rename is lost, and another has made the next commit before the first writer looks.
    #[tokio::test]
    async fn a_commit_that_another_has_built_on_was_made() {
        let (_directory, log) = log();
        let first = LogEntry::first();
        log.claim(&first).await.unwrap();
        let next = first.next(Uuid::now_v7());
        log.claim(&next).await.unwrap();
        assert_eq!(log.claim(&first).await.unwrap(), Claim::Won);
        assert_eq!(log.sequences().await.unwrap(), BTreeSet::from([0, 1]));
        assert_eq!(log.newest().await.unwrap().unwrap(), next);
    }

    #[tokio::test]
    async fn a_file_gets_its_name_by_whoever_comes_first_and_is_readable_before() {
        let (_directory, log) = log();
        let entry = with_file(&log, LogEntry::first(), "a.json").await;
        assert_eq!(log.claim(&entry).await.unwrap(), Claim::Won);
        assert!(log.visible().await.unwrap().is_empty());
        let pending = entry.files[0].pending.clone();
        assert_eq!(log.open("a.json", Some(&pending)).await.unwrap().size_bytes(), 2);
        let (one, other) = tokio::join!(log.publish(&entry), log.publish(&entry));
        one.and(other).unwrap();
        log.publish(&entry).await.unwrap();
        assert_eq!(log.visible().await.unwrap(), ["a.json"]);
        assert_eq!(log.open("a.json", Some(&pending)).await.unwrap().size_bytes(), 2);
        log.delete(&log.location("a.json")).await;
        assert_eq!(log.publish(&entry).await.unwrap_err().kind(), crate::Kind::Stop);
    }

    #[tokio::test]
    async fn leftovers_are_deleted_after_a_day() {
        let (directory, log) = log();
        log.claim(&LogEntry::first()).await.unwrap();
        let hidden = directory.path().join("t").join(LOG_DIRECTORY);
        for name in ["pending-old", "pending-new", "attempt-old"] {
            std::fs::write(hidden.join(name), "x").unwrap();
        }
        let long_ago = std::time::SystemTime::now() - LEFTOVER_AGE - Duration::from_secs(60);
        for name in ["pending-old", "attempt-old", "entry-000000000000.json"] {
            std::fs::File::options().write(true).open(hidden.join(name)).unwrap().set_modified(long_ago).unwrap();
        }
        log.sweep().await;
        let mut left: Vec<_> = std::fs::read_dir(hidden).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["entry-000000000000.json", "pending-new"]);
    }

    #[tokio::test]
    async fn a_writer_that_slept_while_its_number_was_deleted_has_lost() {
        let (_directory, log) = log();
        let mut newest = LogEntry::first();
        log.claim(&newest).await.unwrap();
        let late = newest.next(Uuid::now_v7());
        for _ in 0..96 {
            newest = newest.next(Uuid::now_v7());
            assert_eq!(log.claim(&newest).await.unwrap(), Claim::Won);
            log.publish(&newest).await.unwrap();
        }
        let kept = log.sequences().await.unwrap();
        assert!(!kept.contains(&late.sequence) && kept.len() as u64 <= ENTRIES_KEPT + PRUNE_EVERY, "{kept:?}");
        assert_eq!(log.claim(&late).await.unwrap(), Claim::Taken);
        assert_eq!(log.sequences().await.unwrap(), kept);
        assert_eq!(log.newest().await.unwrap().unwrap(), newest);
    }
}
