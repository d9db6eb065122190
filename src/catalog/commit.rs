//! Commits of metadata alone: requirements are checked and updates applied to the version just read, as often as others are faster.

use std::str::FromStr;
use std::sync::Arc;

use iceberg::io::FileIO;
use iceberg::spec::{TableMetadata, TableMetadataBuildResult};
use iceberg::{ErrorKind, MetadataLocation, TableIdent, TableRequirement, TableUpdate};
use tracing::debug;

use super::swap::{Standing, Turn};
use super::{CommitOutcome, HiveCatalog, Loaded, Rejection, SwapOutcome, Version};
use crate::error::{Context, Error, Kind, Result};
use crate::retry::Backoff;
use crate::window::Window;

/// How an attempt ended, and what that may still mean for its files.
pub(crate) struct Settled {
    pub outcome: SwapOutcome,
    /// One of its tries was undecided: a request may still be under way, so that no file of it may be deleted.
    pub doubtful: bool,
}

/// One try of an attempt.
enum Try {
    Decided(SwapOutcome),
    /// It may have been applied, or may yet be.
    Undecided(Error),
    /// It did nothing.
    Refused(Error),
}

impl HiveCatalog {
    /// Applies changes of the table's metadata that need no files of their own. `requirements` are checked against each version that
    /// the changes are applied to; where one isn't met, the commit is rejected as [`Rejection::Moved`].
    pub async fn commit(
        &self,
        ident: &TableIdent,
        requirements: Vec<TableRequirement>,
        updates: Vec<TableUpdate>,
    ) -> CommitOutcome<Loaded> {
        self.commit_with(ident, |version| {
            if let Some(error) = requirements.iter().find_map(|requirement| requirement.check(Some(&version.metadata)).err()) {
                return Err(match error.kind() {
                    // What the caller saw of the table is out of date: it may look again and try anew.
                    ErrorKind::CatalogCommitConflicts => Rejection::Moved { found: Some(version.location.clone()) },
                    _ => error.into(),
                });
            }
            apply(version, updates.clone())
        })
        .await
    }

    /// As [`Self::commit`], with changes that are worked out anew for each version they are applied to.
    pub(crate) async fn commit_with(
        &self,
        ident: &TableIdent,
        change: impl Fn(&Version) -> Result<TableMetadataBuildResult, Rejection>,
    ) -> CommitOutcome<Loaded> {
        let mut backoff = Backoff::new(&self.settings().commit_retry);
        let mut turn = Turn::default();
        loop {
            let (from, to) = match self.build_next(ident, &change).await {
                Ok(versions) => versions,
                Err(rejection) => {
                    turn.pass().await;
                    return CommitOutcome::Rejected(rejection);
                }
            };
            Window::ChangeWritten.pass();
            let settled = self.settle(ident, &from, &to, turn, &mut backoff).await;
            match settled.outcome {
                SwapOutcome::Committed => {
                    return match self.load(ident).await {
                        Ok(Some(loaded)) => CommitOutcome::Committed(loaded),
                        // It is in the table; that the table can't be read now is another matter.
                        Ok(None) => CommitOutcome::Rejected(Rejection::Moved { found: None }),
                        Err(error) => CommitOutcome::Unknown(error),
                    };
                }
                SwapOutcome::Rejected(rejection) => {
                    if !settled.doubtful {
                        self.forget(&to).await;
                    }
                    match rejection {
                        Rejection::Moved { found: Some(found) } => {
                            debug!(table = %ident, found, "another commit was faster, trying again on top of it");
                            turn = match self.next_turn(ident, &from, &mut backoff).await {
                                Some(turn) => turn,
                                None => return CommitOutcome::Rejected(Rejection::Moved { found: Some(found) }),
                            };
                        }
                        rejection => return CommitOutcome::Rejected(rejection),
                    }
                }
                SwapOutcome::Unknown(error) => return CommitOutcome::Unknown(error),
            }
        }
    }

    /// The table's version of now and the changed one, whose file is durable on return.
    async fn build_next(
        &self,
        ident: &TableIdent,
        change: impl Fn(&Version) -> Result<TableMetadataBuildResult, Rejection>,
    ) -> Result<(Version, Version), Rejection> {
        let loaded = self.load(ident).await.map_err(Rejection::Refused)?;
        let from = loaded.ok_or(Rejection::Moved { found: None })?.version;
        let to = self.next_version(&from, change(&from)?.metadata);
        self.write_version(&to).await.map_err(Rejection::Refused)?;
        Ok((from, to))
    }

    /// Swaps, and stays with an attempt until it is decided or the tries are used up.
    ///
    /// Repeating an undecided swap is safe: both tries name the same file and expect the same old value, so whichever comes first
    /// makes the other one fail. Where nothing makes it fail (no expected value, and a request that outlives its lock) it can only put
    /// the pointer back on a version whose files all stay; see `swap`.
    pub(crate) async fn settle(
        &self,
        ident: &TableIdent,
        from: &Version,
        to: &Version,
        mut turn: Turn,
        backoff: &mut Backoff,
    ) -> Settled {
        let mut undecided: Option<Error> = None;
        loop {
            let last = match self.swap_in_turn(ident, from, to, turn.take()).await {
                SwapOutcome::Unknown(error) => Try::Undecided(error),
                SwapOutcome::Committed => Try::Decided(SwapOutcome::Committed),
                // The pointer has left the value that every try expects: an earlier one is below it, or never was.
                SwapOutcome::Rejected(Rejection::Moved { found }) if undecided.is_some() => {
                    match self.standing(ident, from, to).await {
                        Ok(Standing::Current | Standing::Below) => Try::Decided(SwapOutcome::Committed),
                        Ok(Standing::Elsewhere(_) | Standing::Gone) => {
                            Try::Decided(SwapOutcome::Rejected(Rejection::Moved { found }))
                        }
                        Err(error) => Try::Undecided(error),
                    }
                }
                // This try did nothing; that says nothing about an earlier one.
                SwapOutcome::Rejected(Rejection::Refused(error)) if undecided.is_some() || error.kind() == Kind::Transient => {
                    Try::Refused(error)
                }
                outcome @ SwapOutcome::Rejected(_) => Try::Decided(outcome),
            };
            let refused = match last {
                Try::Decided(outcome) => return Settled { outcome, doubtful: undecided.is_some() },
                Try::Undecided(error) => {
                    undecided = Some(error);
                    None
                }
                Try::Refused(error) => Some(error),
            };
            if !backoff.wait().await {
                let doubtful = undecided.is_some();
                let outcome = match (undecided, refused) {
                    (None, Some(error)) => SwapOutcome::Rejected(Rejection::Refused(error)),
                    (Some(error), _) => SwapOutcome::Unknown(error),
                    (None, None) => SwapOutcome::Unknown(Error::transient("the metastore did not answer")),
                };
                return Settled { outcome, doubtful };
            }
        }
    }

    /// The version after `from`: the next metadata file's name, with a number one higher and a new unique part.
    pub(crate) fn next_version(&self, from: &Version, metadata: TableMetadata) -> Version {
        let location = match MetadataLocation::from_str(&from.location) {
            Ok(location) => location.with_next_version().with_new_metadata(&metadata),
            // A table registered from a file of another naming, as Hadoop catalogs have it, gets the usual names from here on.
            Err(_) => MetadataLocation::new_with_metadata(metadata.location(), &metadata),
        };
        Version { location: location.to_string(), metadata: Arc::new(metadata) }
    }

    /// Writes a version's metadata file, durable on return.
    pub(super) async fn write_version(&self, version: &Version) -> Result<()> {
        self.write_version_with(version, self.file_io()).await
    }

    /// As [`Self::write_version`], through an output whose files may become durable later.
    pub(crate) async fn write_version_with(&self, version: &Version, output: &FileIO) -> Result<()> {
        let location = MetadataLocation::from_str(&version.location)?;
        let written = version.metadata.write_to(output, &location).await;
        written.with_context(|| format!("failed to write {}", version.location))
    }

    /// Deletes the metadata file of a version that certainly never was the table's. It may stay if that fails: nobody refers to it.
    async fn forget(&self, version: &Version) {
        if let Err(error) = self.storages().delete_file(&version.location).await {
            debug!(file = version.location, %error, "a metadata file of a refused commit could not be deleted");
        }
    }
}

/// A version's metadata after `updates`.
fn apply(version: &Version, updates: Vec<TableUpdate>) -> Result<TableMetadataBuildResult, Rejection> {
    let mut builder = version.metadata.as_ref().clone().into_builder(Some(version.location.clone()));
    for update in updates {
        builder = update.apply(builder)?;
    }
    Ok(builder.build()?)
}
