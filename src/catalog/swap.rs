//! Moving a table's pointer, and finding out whether it moved when the answer doesn't tell.
//!
//! One attempt is two calls: the entry is read, changed and written back. Of all writers that start from one version one must succeed;
//! what sees to that is the table's [`Way`]: the server compares the pointer with the one that the write expects, or the metastore's lock
//! is held around both calls, or both. The lock is checked on both sides of the write, and given back on every path. Who was too late once
//! takes the lock before reading the version to build on ([`HiveCatalog::next_turn`]): the server's queue of locks is fair, and a writer whose
//! attempts take longer than those of others would else lose every race.
//!
//! After an error the pointer is looked at. What is found decides, and nothing else:
//!
//! | the pointer is at | the attempt |
//! |---|---|
//! | the new file | was applied |
//! | a file that was built on the new file | was applied, others went on from there |
//! | a file whose log no longer reaches back to the old one | unknown: it may have been applied and forgotten |
//! | another file | fenced: was not applied and cannot be any more, as it expects a value that has gone; else the last row |
//! | the old file, and the error certainly means "not applied" | was not applied |
//! | the old file, any other error | unknown: the request may still be under way |
//! | another file, not fenced, any other error | was not applied, but may still be under way and undo others' commits |
//!
//! *Fenced* is a write that carries an expected value which the server looks at. That it cannot be applied any more needs a pointer that
//! never returns to a value it has left. Names of metadata files are never used twice, so only a person who sets an old one again could break it; the
//! batch's offsets, which every attempt checks, then still keep it from being doubled.
//!
//! Nothing can stop an unfenced write that arrives after its lock was given back (a server that was paused between reading the request
//! and its database's commit). Two things make it harmless. None of the files it points to is ever deleted: a writer that had an
//! unknown attempt deletes nothing of it. And the pointer then stands on an older version, whose offsets are those of that version:
//! the daemon reads on from there, so that the records of the commits that were undone come again.

use iceberg::TableIdent;
use tracing::{debug, warn};

use super::entry::{self, METADATA_LOCATION};
use super::way::Way;
use super::{HiveCatalog, Rejection, SwapOutcome, Version};
use crate::error::{Error, Result};
use crate::metastore::{EnvironmentContext, HeldLock, HiveTable, MetastoreError};
use crate::retry::{self, Backoff};

/// Where a version of a table stands now.
pub(crate) enum Standing {
    /// The entry points to it.
    Current,
    /// The entry points to a version that was built on it.
    Below,
    /// The entry points to a version that knows nothing of it.
    Elsewhere(Version),
    /// There is no such table any more.
    Gone,
}

/// A writer's turn at a table: with its lock, where its way is the lock.
#[derive(Debug, Default)]
pub(crate) struct Turn(Option<HeldLock>);

impl Turn {
    /// The lock, for the swap.
    pub(super) fn take(&mut self) -> Option<HeldLock> {
        self.0.take()
    }

    /// Gives the lock back when there is nothing to swap after all.
    pub async fn pass(self) {
        if let Some(lock) = self.0
            && let Err(error) = lock.release().await
        {
            warn!(error = error.chain(), "a lock stays until the metastore's timeout");
        }
    }
}

impl HiveCatalog {
    /// Moves the table's pointer from `from` to `to`, whose metadata file must be durable. One attempt; an answer that doesn't tell is
    /// looked up once.
    pub async fn swap(&self, ident: &TableIdent, from: &Version, to: &Version) -> SwapOutcome {
        self.swap_in_turn(ident, from, to, None).await
    }

    /// As [`Self::swap`], with the table's lock if the caller has it already; it is given back.
    pub(super) async fn swap_in_turn(
        &self,
        ident: &TableIdent,
        from: &Version,
        to: &Version,
        held: Option<HeldLock>,
    ) -> SwapOutcome {
        let way = match self.way(ident, from).await {
            Ok(way) => way,
            Err(error) => return refused(error),
        };
        if let Some(lock) = held {
            return self.swap_under(lock, ident, from, to, way).await;
        }
        // Dropping the future gives the lock back too.
        match self.lock_for(ident, way).await {
            Ok(None) => self.swap_now(ident, from, to, way).await,
            Ok(Some(lock)) => self.swap_under(lock, ident, from, to, way).await,
            Err(error) => refused(error),
        }
    }

    /// The lock on a table, if its way needs one.
    pub(super) async fn lock_for(&self, ident: &TableIdent, way: Way) -> Result<Option<HeldLock>> {
        match way {
            Way::Expected => Ok(None),
            Way::Locked(_) => HeldLock::acquire(self.metastore(), &ident.namespace.to_url_string(), ident.name()).await.map(Some),
        }
    }

    /// What precedes an attempt when another commit was faster than the last one. A table with a lock has it on return, so that this
    /// attempt is the last; for others there was a pause. None if the tries are used up.
    pub(crate) async fn next_turn(&self, ident: &TableIdent, from: &Version, backoff: &mut Backoff) -> Option<Turn> {
        let pause = backoff.pause()?;
        let lock = match self.way(ident, from).await {
            Ok(way) => self.lock_for(ident, way).await,
            Err(error) => Err(error),
        };
        match lock {
            Ok(Some(lock)) => return Some(Turn(Some(lock))),
            Ok(None) => {}
            // The attempt asks once more, and tells of it.
            Err(error) => debug!(table = %ident, error = error.chain(), "the lock was not to be had before an attempt"),
        }
        retry::sleep(pause).await;
        Some(Turn(None))
    }

    async fn swap_under(&self, lock: HeldLock, ident: &TableIdent, from: &Version, to: &Version, way: Way) -> SwapOutcome {
        if !self.protocol().locks_the_swap {
            return match lock.release().await {
                Ok(()) => self.swap_now(ident, from, to, way).await,
                Err(error) => refused(error),
            };
        }
        let outcome = match lock.ensure_held().await {
            Ok(()) => self.swap_now(ident, from, to, way).await,
            Err(error) => refused(error),
        };
        if let Err(error) = lock.ensure_held().await
            && matches!(outcome, SwapOutcome::Committed)
        {
            // It is in the table. What another writer may have done in between is told by its own offsets, or is its own to find out.
            warn!(table = %ident, error = error.chain(), "the lock was lost during a commit: another writer's commit may have been undone");
        }
        if let Err(error) = lock.release().await {
            warn!(table = %ident, error = error.chain(), "a commit's lock stays until the metastore's timeout");
        }
        outcome
    }

    async fn swap_now(&self, ident: &TableIdent, from: &Version, to: &Version, way: Way) -> SwapOutcome {
        let mut entry = match self.entry(ident).await {
            Ok(Some(entry)) => entry,
            Ok(None) => return SwapOutcome::Rejected(Rejection::Moved { found: None }),
            Err(error) => return refused(error),
        };
        match entry::metadata_location(ident, &entry) {
            // A repeated call whose first try had landed.
            Ok(found) if found == to.location => return SwapOutcome::Committed,
            Ok(found) if found != from.location => return SwapOutcome::Rejected(Rejection::Moved { found: Some(found) }),
            Ok(_) => {}
            Err(error) => return refused(error),
        }
        let columns = entry.columns();
        entry::describe(&mut entry, Some(from), to);
        let mut altered = self.alter(ident, &entry, from, way).await;
        if altered.as_ref().is_err_and(MetastoreError::is_of_column_types) {
            debug!(table = %ident, "the metastore refuses the changed columns, which the next commit completes");
            entry::leave_out_changed_columns(&mut entry, &columns);
            altered = self.alter(ident, &entry, from, way).await;
        }
        match altered {
            Ok(()) => SwapOutcome::Committed,
            Err(error) if self.protocol().looks_up => self.look_up_swap(ident, from, to, way, error).await,
            Err(_) => SwapOutcome::Rejected(Rejection::Moved { found: Some(from.location.clone()) }),
        }
    }

    pub(super) async fn alter(
        &self,
        ident: &TableIdent,
        entry: &HiveTable,
        from: &Version,
        way: Way,
    ) -> Result<(), MetastoreError> {
        // Statistics follow from the metadata; the server would list the table's directory to count files.
        let mut context = EnvironmentContext::new().without_statistics();
        if way.is_fenced() {
            context = context.expecting(METADATA_LOCATION, &from.location);
        }
        self.metastore().alter_table(&ident.namespace.to_url_string(), ident.name(), entry, &context).await
    }

    /// Even a clear refusal is looked up: a server that lost its own answer to its database tries again and then reports a conflict
    /// with itself.
    async fn look_up_swap(
        &self,
        ident: &TableIdent,
        from: &Version,
        to: &Version,
        way: Way,
        error: MetastoreError,
    ) -> SwapOutcome {
        debug!(table = %ident, %error, "a swap was not confirmed, looking it up");
        let conflict = error.is_modified_conflict();
        match self.standing(ident, from, to).await {
            Ok(Standing::Current | Standing::Below) => SwapOutcome::Committed,
            // A conflict too can be one with itself.
            Ok(Standing::Elsewhere(found)) if !remembers(&found, from) => SwapOutcome::Unknown(error.into()),
            Ok(Standing::Elsewhere(found))
                if found.location != from.location && (way.is_fenced() || error.certainly_not_applied()) =>
            {
                SwapOutcome::Rejected(Rejection::Moved { found: Some(found.location) })
            }
            Ok(Standing::Gone) => SwapOutcome::Rejected(Rejection::Moved { found: None }),
            Ok(Standing::Elsewhere(_)) if conflict => {
                SwapOutcome::Rejected(Rejection::Moved { found: Some(from.location.clone()) })
            }
            Ok(Standing::Elsewhere(_)) if error.certainly_not_applied() => refused(error),
            Ok(Standing::Elsewhere(_)) => SwapOutcome::Unknown(error.into()),
            Err(look_up) if error.certainly_not_applied() && !conflict => {
                debug!(table = %ident, error = %look_up.chain(), "a refused swap could not be looked up");
                refused(error)
            }
            Err(look_up) => SwapOutcome::Unknown(look_up.caused_by(error)),
        }
    }

    /// Whether the table stands on `to`, or on something built on it; `from` is what `to` itself was built on.
    pub(crate) async fn standing(&self, ident: &TableIdent, from: &Version, to: &Version) -> Result<Standing> {
        let Some(entry) = self.entry(ident).await? else { return Ok(Standing::Gone) };
        let location = entry::metadata_location(ident, &entry)?;
        if location == to.location {
            return Ok(Standing::Current);
        }
        let current = self.read_version(location).await?;
        let logged = current.metadata.metadata_log().iter().any(|entry| entry.metadata_file == to.location);
        // The log is short; the snapshot that `to` added, if it added one, is kept for longer. Its manifest list tells it from the
        // same batch's snapshot in another attempt.
        let added =
            to.metadata.current_snapshot().filter(|snapshot| from.metadata.snapshot_by_id(snapshot.snapshot_id()).is_none());
        let kept = added.is_some_and(|added| {
            let found = current.metadata.snapshot_by_id(added.snapshot_id());
            found.is_some_and(|found| found.manifest_list() == added.manifest_list())
        });
        Ok(if logged || kept { Standing::Below } else { Standing::Elsewhere(current) })
    }
}

/// Whether a version's log still reaches back to an earlier one: then it also names what followed that one.
fn remembers(version: &Version, earlier: &Version) -> bool {
    let mut log = version.metadata.metadata_log().iter();
    version.location == earlier.location || log.any(|entry| entry.metadata_file == earlier.location)
}

fn refused(error: impl Into<Error>) -> SwapOutcome {
    SwapOutcome::Rejected(Rejection::Refused(error.into()))
}
