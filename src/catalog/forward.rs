//! Entries that point to a version that is gone.
//!
//! Whoever writes an old entry back (Hive's ANALYZE, after a while that it took) may put a table's pointer behind the versions that the
//! table keeps: the metadata file that it names is deleted, and nobody can read the table. Then the pointer is put forward, to the newest
//! version of which the files tell that it was current: another version was built on it. The newest file of all may be an attempt that was
//! never made, or is under way; so the last commit may be left out, and is read again like all that a pointer went back by.
//!
//! *Invariants*: the pointer never returns to a value that it has left (see [`super::swap`]): what it is set to is a new file that says
//! what the found version said. It is swapped as in any commit, from the value that was found, so that two who do this don't meet.
//!
//! *What may leak*: that new file, if somebody else was faster.

use std::collections::HashSet;

use iceberg::TableIdent;
use tracing::{debug, warn};

use super::{CommitOutcome, HiveCatalog, Rejection, SwapOutcome, Version, entry};
use crate::error::{Context, Error, Result};
use crate::storage::{Depth, StorageError};

/// Metadata files that are read in search of one, newest first: a table keeps five, and leaves some of attempts that were killed.
const FILES_READ: usize = 64;

impl HiveCatalog {
    /// Puts an entry forward that points to a metadata file that is gone, which reading the table has failed at. Says whether there was
    /// such an entry, and it is mended now; another failure asks no server.
    pub async fn put_forward(&self, ident: &TableIdent, failure: &Error) -> Result<bool> {
        if !matches!(StorageError::within(failure), Some(StorageError::NotFound { .. })) {
            return Ok(false);
        }
        let Some(entry) = self.entry(ident).await? else { return Ok(false) };
        let Ok(gone) = entry::metadata_location(ident, &entry) else { return Ok(false) };
        let Some((directory, _)) = gone.rsplit_once('/') else { return Ok(false) };
        let files =
            self.storages().list(directory, Depth::Direct).await.with_context(|| format!("failed to list {directory}"))?;
        let mut files: Vec<_> = files.into_iter().filter(|file| file.location.ends_with(".metadata.json")).collect();
        if files.iter().any(|file| file.location == gone) {
            return Ok(false);
        }
        files.sort_by(|a, b| (b.modified_ms, &b.location).cmp(&(a.modified_ms, &a.location)));
        let uuid = entry.parameter("uuid");
        let mut built_on = HashSet::new();
        for file in files.into_iter().take(FILES_READ) {
            let version = match self.read_version(file.location).await {
                Ok(version) => version,
                // One that somebody is writing, or was killed over.
                Err(error) => {
                    debug!(table = %ident, error = error.chain(), "a metadata file is passed over");
                    continue;
                }
            };
            if uuid.is_some_and(|uuid| uuid != version.metadata.uuid().to_string()) {
                continue;
            }
            if built_on.contains(&version.location) {
                return self.point_to(ident, gone, version).await;
            }
            built_on.extend(version.metadata.metadata_log().iter().map(|entry| entry.metadata_file.clone()));
        }
        Ok(false)
    }

    async fn point_to(&self, ident: &TableIdent, gone: String, found: Version) -> Result<bool> {
        let built = found.metadata.as_ref().clone().into_builder(Some(found.location.clone())).build()?;
        let to = self.next_version(&found, built.metadata);
        self.write_version(&to).await?;
        let from = Version { location: gone, metadata: found.metadata };
        match self.swap(ident, &from, &to).await {
            SwapOutcome::Committed => {
                warn!(
                    table = %ident,
                    gone = from.location,
                    found = found.location,
                    "the table's entry was put back behind the versions that are kept: it points to the newest one again"
                );
                Ok(true)
            }
            SwapOutcome::Rejected(Rejection::Moved { .. }) => Ok(true),
            SwapOutcome::Rejected(rejection) => CommitOutcome::<bool>::Rejected(rejection).into_result(ident),
            SwapOutcome::Unknown(error) => Err(error),
        }
    }
}
