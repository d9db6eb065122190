//! Changes of a table's metadata alone.
//!
//! *Invariants*: a change is worked out on the version that it is applied to, as often as others are faster. The metadata files that it pushes
//! out of the table's log are deleted as those of a batch are.

use std::collections::HashMap;
use std::sync::Mutex;

use iceberg::spec::TableMetadataBuilder;

use super::LakeTable;
use super::upkeep::Dropped;
use crate::catalog::{CommitOutcome, Rejection, Version};
use crate::error::Result;

impl LakeTable {
    /// Commits a change. Where it is in the table, the table stands as it was read afterwards.
    pub(super) async fn commit_change(
        &mut self,
        change: impl Fn(&Version) -> Result<TableMetadataBuilder, Rejection>,
    ) -> Result<CommitOutcome<()>> {
        let ident = self.ident().clone();
        let dropped = Mutex::new(Dropped::default());
        let built = |version: &Version| {
            let mut built = change(version)?.build()?;
            let mut files = Dropped::default();
            files.log(&built.metadata, std::mem::take(&mut built.expired_metadata_logs));
            if let Ok(mut dropped) = dropped.lock() {
                *dropped = files;
            }
            Ok(built)
        };
        Ok(match self.catalog().commit_with(&ident, built).await {
            CommitOutcome::Committed(_) => {
                self.refresh().await?;
                let dropped = dropped.into_inner().unwrap_or_default();
                dropped.delete(self.catalog().storages(), self.catalog().file_io(), self.metadata()).await;
                CommitOutcome::Committed(())
            }
            CommitOutcome::Rejected(rejection) => CommitOutcome::Rejected(rejection),
            CommitOutcome::Unknown(error) => CommitOutcome::Unknown(error),
        })
    }

    /// Sets a note of the table, or removes it, if it is what was expected. False, with nothing changed, if it is not.
    pub async fn exchange_note(&mut self, key: &str, expected: Option<&str>, value: Option<&str>) -> Result<bool> {
        let change = |version: &Version| {
            let found = version.metadata.properties().get(key).map(String::as_str);
            if found != expected {
                return Err(Rejection::Moved { found: Some(version.location.clone()) });
            }
            let builder = version.metadata.as_ref().clone().into_builder(Some(version.location.clone()));
            Ok(match value {
                Some(value) => builder.set_properties(HashMap::from([(key.to_owned(), value.to_owned())]))?,
                None => builder.remove_properties(&[key.to_owned()])?,
            })
        };
        match self.commit_change(change).await? {
            // Another's note; or one's own, of a try whose answer was lost.
            CommitOutcome::Rejected(Rejection::Moved { found: Some(_) }) => {
                self.refresh().await?;
                Ok(self.note(key) == value)
            }
            outcome => outcome.into_result(self.ident()).map(|()| true),
        }
    }
}
