//! Keeping a table's metadata small: old snapshots leave with each commit, and the files that only they used after it.
//!
//! A commit every ten seconds makes 8,640 snapshots a day, and every commit writes the whole metadata file: unbounded, it would soon
//! write more metadata than data. Data files are never touched here.
//!
//! *Invariants*: a file is deleted only after the swap that dropped it, and only below the table's metadata directory. A snapshot that a
//! branch or tag refers to stays.
//!
//! *What may leak*: what could not be deleted, or was due when the process ended; nothing refers to it.

use std::collections::HashSet;
use std::sync::Arc;

use bytesize::ByteSize;
use futures::StreamExt;
use iceberg::io::FileIO;
use iceberg::spec::{MetadataLog, SnapshotRef, TableMetadata};
use serde::{Deserialize, Serialize};
use tracing::debug;

use super::manifests::{dropped, read_list};
use super::progress::Ancestry;
use crate::error::{Error, Result};
use crate::storage::{StorageError, Storages};

/// How large a table's metadata may get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpkeepSettings {
    /// Snapshots that are kept: two hours of time travel at one commit every 10 s. Fewer where offsets of many topic partitions would
    /// make them larger than `offsets_size_max`, but never fewer than 20. Default: 720.
    pub snapshots_max: usize,
    /// Most bytes of offsets in the summaries of all snapshots together; each commit writes them anew. Default: 1 MiB.
    pub offsets_size_max: ByteSize,
    /// Manifests of about the same size that are merged into one. Default: 32.
    pub manifests_to_merge: usize,
    /// Size beyond which a manifest is merged no further. Default: 8 MiB.
    pub manifest_size_max: ByteSize,
}

impl Default for UpkeepSettings {
    fn default() -> Self {
        Self {
            snapshots_max: 720,
            offsets_size_max: ByteSize::mib(1),
            manifests_to_merge: 32,
            manifest_size_max: ByteSize::mib(8),
        }
    }
}

/// Kept whatever their offsets weigh: enough for a reader that takes its time, and for looking up a commit.
const SNAPSHOTS_MIN: usize = 20;

impl UpkeepSettings {
    /// Snapshots to keep when each one's summary holds `offsets_bytes` of offsets.
    pub(super) fn snapshots(&self, offsets_bytes: usize) -> usize {
        let affordable = self.offsets_size_max.as_u64() as usize / offsets_bytes.max(1);
        self.snapshots_max.min(affordable.max(SNAPSHOTS_MIN)).max(1)
    }
}

/// Deletes at the same time.
const DELETE_CONCURRENCY: usize = 8;

/// What a commit drops from the table.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    /// Expired snapshots, newest first, and the oldest ancestor that stays.
    snapshots: Vec<SnapshotRef>,
    successor: Option<SnapshotRef>,
    metadata_files: Vec<String>,
    /// Other snapshots may use the same manifests.
    keep_manifests: bool,
}

impl Dropped {
    /// The snapshots that are due, where all but the newest `kept` are. `pinned` is asked only if some are: see [`pinned`].
    pub fn due(metadata: &TableMetadata, kept: usize, pinned: impl FnOnce() -> Result<Arc<HashSet<i64>>>) -> Result<Self> {
        if metadata.properties().get("gc.enabled").is_some_and(|enabled| enabled == "false") {
            return Ok(Self::default());
        }
        let ancestry = Ancestry::of(metadata);
        if ancestry.snapshots.len() <= kept {
            return Ok(Self::default());
        }
        let pinned = pinned()?;
        let expired: Vec<_> = ancestry
            .snapshots
            .iter()
            .skip(kept)
            .filter(|snapshot| !pinned.contains(&snapshot.snapshot_id()))
            .map(|snapshot| (*snapshot).clone())
            .collect();
        let successor = kept.checked_sub(1).and_then(|last| ancestry.snapshots.get(last)).map(|snapshot| (*snapshot).clone());
        let keep_manifests = !pinned.is_empty() || successor.is_none() || metadata.snapshots().len() != ancestry.snapshots.len();
        Ok(Self { snapshots: expired, successor, metadata_files: Vec::new(), keep_manifests })
    }

    pub fn snapshot_ids(&self) -> Vec<i64> {
        self.snapshots.iter().map(|snapshot| snapshot.snapshot_id()).collect()
    }

    /// Adds the metadata files that fell out of the log, if the table's owner lets us delete them.
    pub fn log(&mut self, metadata: &TableMetadata, expired: Vec<MetadataLog>) {
        if metadata.properties().get("write.metadata.delete-after-commit.enabled").is_some_and(|enabled| enabled == "true") {
            self.metadata_files.extend(expired.into_iter().map(|entry| entry.metadata_file));
        }
    }

    /// Deletes the files that only the dropped snapshots and versions used. `metadata` is the version that dropped them.
    pub async fn delete(self, storages: &Storages, file_io: &FileIO, metadata: &TableMetadata) {
        let mut files = self.metadata_files.clone();
        match self.manifests(file_io, metadata).await {
            Ok(manifests) => files.extend(manifests),
            Err(error) => {
                debug!(error = %error.chain(), "manifests of expired snapshots stay: their lists could not be compared")
            }
        }
        files.extend(self.snapshots.iter().map(|snapshot| snapshot.manifest_list().to_owned()));
        let directory = format!("{}/metadata/", metadata.location());
        let files = files.into_iter().filter(|file| file.starts_with(&directory));
        let deleted = futures::stream::iter(files).map(|file| async move {
            if let Err(error) = storages.delete_file(&file).await {
                debug!(file, %error, "a file of an expired snapshot could not be deleted");
            }
        });
        deleted.buffer_unordered(DELETE_CONCURRENCY).collect::<()>().await;
    }

    /// Manifests that were merged away: in an expired snapshot's list, but no longer in its successor's. Later snapshots don't have
    /// them either: in one line of snapshots, what has left a list never comes back.
    async fn manifests(&self, file_io: &FileIO, metadata: &TableMetadata) -> Result<Vec<String>> {
        let Some(successor) = self.successor.as_ref().filter(|_| !self.keep_manifests && !self.snapshots.is_empty()) else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        let mut later = read_list(file_io, metadata, successor).await?;
        for snapshot in &self.snapshots {
            let list = read_list(file_io, metadata, snapshot).await?;
            found.extend(dropped(&list, &later));
            later = list;
        }
        Ok(found)
    }
}

/// A failure to read what a version of the table names. Where a file is missing, a commit since then may have dropped it with its
/// snapshot, be it another writer's or one of our own beside a long read: whoever looks at the table again finds the files of now. A
/// file that is really lost fails again, until the caller's tries are used up.
pub(super) fn unreadable(error: iceberg::Error) -> Error {
    if matches!(StorageError::within(&error), Some(StorageError::NotFound { .. })) {
        return Error::transient("the version of the table that was read is out of date, or a file of it is lost")
            .caused_by(error);
    }
    error.into()
}

/// The snapshots that branches and tags other than main refer to. The iceberg crate doesn't show a table's references, but writes them.
pub(super) fn pinned(metadata: &TableMetadata) -> Result<HashSet<i64>> {
    #[derive(Deserialize)]
    struct References {
        #[serde(default)]
        refs: std::collections::HashMap<String, Reference>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Reference {
        snapshot_id: i64,
    }
    let unreadable = |error| Error::failed("the table's branches and tags cannot be read").caused_by(error);
    let json = serde_json::to_vec(metadata).map_err(unreadable)?;
    let references: References = serde_json::from_slice(&json).map_err(unreadable)?;
    let others = references.refs.into_iter().filter(|(name, _)| name != iceberg::spec::MAIN_BRANCH);
    Ok(others.map(|(_, reference)| reference.snapshot_id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_partitions_keep_fewer_snapshots() {
        let settings = UpkeepSettings::default();
        assert_eq!(settings.snapshots(100), 720);
        assert_eq!(settings.snapshots(10_000), 104);
        assert_eq!(settings.snapshots(1_000_000), SNAPSHOTS_MIN);
        assert_eq!(UpkeepSettings { snapshots_max: 0, ..settings }.snapshots(1), 1);
    }
}
