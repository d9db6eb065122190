//! Moving a table's pointer by compare-and-swap, and finding out whether it moved when the answer doesn't tell.
//!
//! One attempt is two calls: the entry is read, changed and written back. The write carries the metadata location it was based on, and
//! the server applies it only where the entry still has that value; so of all writers that start from one version, one succeeds.
//!
//! After an error the pointer is looked at. What is found decides, and nothing else:
//!
//! | the pointer is at | the attempt |
//! |---|---|
//! | the new file | was applied |
//! | a file that was built on the new file | was applied, others went on from there |
//! | another file | was not applied and cannot be any more: it expects a value that has gone |
//! | the old file, and the error certainly means "not applied" | was not applied |
//! | the old file, any other error | unknown: the request may still be under way |
//!
//! The fourth row needs a pointer that never returns to a value it has left. Names of metadata files are never used twice, so only a
//! person who sets an old one again could break it; the batch's offsets, which every attempt checks, then still keep it from being
//! doubled.

use iceberg::TableIdent;
use tracing::debug;

use super::entry::{self, LOCK_ENABLED, METADATA_LOCATION};
use super::{HiveCatalog, Rejection, SwapOutcome, Version};
use crate::error::{Error, Result};
use crate::metastore::{CompareAndSwap, EnvironmentContext, HiveTable, MetastoreError};

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

impl HiveCatalog {
    /// Moves the table's pointer from `from` to `to`, whose metadata file must be durable. One attempt; an answer that doesn't tell is
    /// looked up once.
    pub async fn swap(&self, ident: &TableIdent, from: &Version, to: &Version) -> SwapOutcome {
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
        if let Err(error) = self.ensure_compare_and_swap(ident, from).await {
            return refused(error);
        }
        entry::describe(&mut entry, Some(from), to);
        match self.alter(ident, &entry, from).await {
            Ok(()) => SwapOutcome::Committed,
            Err(error) => self.look_up_swap(ident, from, to, error).await,
        }
    }

    async fn alter(&self, ident: &TableIdent, entry: &HiveTable, from: &Version) -> Result<(), MetastoreError> {
        // Statistics follow from the metadata; the server would list the table's directory to count files.
        let context = EnvironmentContext::new().without_statistics().expecting(METADATA_LOCATION, &from.location);
        self.metastore().alter_table(&ident.namespace.to_url_string(), ident.name(), entry, &context).await
    }

    /// Even a clear refusal is looked up: a server that lost its own answer to its database tries again and then reports a conflict
    /// with itself.
    async fn look_up_swap(&self, ident: &TableIdent, from: &Version, to: &Version, error: MetastoreError) -> SwapOutcome {
        debug!(table = %ident, %error, "a swap was not confirmed, looking it up");
        let conflict = error.is_modified_conflict();
        match self.standing(ident, from, to).await {
            Ok(Standing::Current | Standing::Below) => SwapOutcome::Committed,
            Ok(Standing::Elsewhere(found)) if found.location != from.location => {
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

    /// Stops unless every writer of the table is held off by the expected value alone.
    pub(super) async fn ensure_compare_and_swap(&self, ident: &TableIdent, version: &Version) -> Result<()> {
        // Java's writers take the metastore's lock unless this property is false, and then send no expected value: beside them only
        // the lock protects a commit.
        if version.metadata.properties().get(LOCK_ENABLED).is_none_or(|enabled| enabled != "false") {
            return Err(Error::stop(format!(
                "table {ident} is committed under the metastore's lock, which lakesmith cannot take yet"
            ))
            .hint(format!("set its property {LOCK_ENABLED}=false, if every other writer of it honours that")));
        }
        self.ensure_proven(&ident.namespace.to_url_string()).await
    }

    /// Stops unless the metastore is known to refuse a write whose expected value has gone.
    pub(super) async fn ensure_proven(&self, database: &str) -> Result<()> {
        let found = match self.metastore().compare_and_swap(database).await? {
            CompareAndSwap::Honoured => return Ok(()),
            CompareAndSwap::Ignored => "does not look at the value that a commit expects".to_owned(),
            CompareAndSwap::Broken { reason } => format!("cannot compare the value that a commit expects ({reason})"),
        };
        Err(Error::stop(format!("the metastore {found}: concurrent commits could be lost"))
            .hint("use Hive Metastore 4.x (or 2.3.10) on PostgreSQL or MySQL, or lakesmith's own metastore (leave metastore.uris empty)"))
    }
}

fn refused(error: impl Into<Error>) -> SwapOutcome {
    SwapOutcome::Rejected(Rejection::Refused(error.into()))
}
