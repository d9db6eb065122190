//! Under which name a table is known: new ones are entered, existing metadata files registered, tables renamed.
//!
//! *Failure*: an answer that doesn't tell is looked up. An entry is ours if it points to our metadata file.

use iceberg::TableIdent;
use tracing::{debug, info};

use super::{HiveCatalog, Loaded, Version, entry};
use crate::error::{Context, Error, Result};
use crate::metastore::{HiveTable, MetastoreError};
use crate::retry::Backoff;

impl HiveCatalog {
    /// Puts an existing metadata file under a name. Nothing is written. Fails if the name is taken.
    pub(crate) async fn register(&self, ident: &TableIdent, metadata_location: String) -> Result<Loaded> {
        self.ensure_database(ident.namespace()).await?;
        let version = self.read_version(metadata_location).await?;
        let entry = entry::new_entry(ident, self.metastore().user(), &version, None);
        self.enter(ident, entry, version).await
    }

    /// Creates the entry.
    pub(super) async fn enter(&self, ident: &TableIdent, entry: HiveTable, version: Version) -> Result<Loaded> {
        if let Err(error) = self.metastore().create_table(&entry).await {
            // A name that was taken before stays another's, even if that one points to the same file.
            let taken = matches!(error, MetastoreError::AlreadyExists { .. });
            let found = self.entry(ident).await.context(format!("failed to create table {ident}"))?;
            let found = found.as_ref().and_then(|entry| entry.parameter(entry::METADATA_LOCATION));
            if taken || found != Some(version.location.as_str()) {
                return Err(Error::from(error).context(format!("failed to create table {ident}")));
            }
            debug!(table = %ident, %error, "a create without an answer was found");
        }
        info!(table = %ident, location = version.metadata.location(), "table created");
        // Read again: the server adds fields and parameters of its own.
        let entry = self.entry(ident).await?.unwrap_or(entry);
        Ok(Loaded { ident: ident.clone(), version, entry, file_io: self.file_io().clone() })
    }

    /// Gives a table another name in the metastore, in the same or in another database; its files stay where they are. A commit that
    /// comes in between is renamed with it.
    pub(crate) async fn rename(&self, source: &TableIdent, target: &TableIdent) -> Result<()> {
        let failed = || format!("failed to rename table {source} to {target}");
        let mut backoff = Backoff::new(&self.settings().commit_retry);
        loop {
            let (renamed, version) = self.try_rename(source, target).await.with_context(failed)?;
            match renamed {
                Ok(()) => return Ok(()),
                Err(error) if error.is_modified_conflict() => {
                    if !backoff.wait().await {
                        return Err(Error::from(error).context(failed()));
                    }
                }
                Err(error) if error.certainly_not_applied() => return Err(Error::from(error).context(failed())),
                Err(error) => {
                    let found = self.entry(target).await?;
                    let found = found.as_ref().and_then(|entry| entry.parameter(entry::METADATA_LOCATION));
                    if found == Some(version.location.as_str()) && self.entry(source).await?.is_none() {
                        debug!(table = %source, %error, "a rename without an answer was found");
                        return Ok(());
                    }
                    return Err(Error::from(error).context(failed()));
                }
            }
        }
    }

    /// One try, and the version that it was about. As a swap it is protected from commits that come in between.
    async fn try_rename(&self, source: &TableIdent, target: &TableIdent) -> Result<(Result<(), MetastoreError>, Version)> {
        let missing = || Error::failed(format!("table {source} does not exist"));
        let before = self.load(source).await?.ok_or_else(missing)?;
        let way = self.way(source, &before.version).await?;
        let lock = self.lock_for(source, way).await?;
        // Under the lock nobody else moves it.
        let mut loaded = if lock.is_some() { self.load(source).await?.ok_or_else(missing)? } else { before };
        loaded.entry.set_name(&target.namespace.to_url_string(), target.name());
        let renamed = self.alter(source, &loaded.entry, &loaded.version, way).await;
        if let Some(lock) = lock {
            lock.release().await?;
        }
        Ok((renamed, loaded.version))
    }
}
