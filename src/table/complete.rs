//! Up to which time a table is complete, as it says itself; and the change of metadata alone that says so while no records come.
//!
//! *Invariants*: the change is applied only to a version that stands at the offsets that the time was worked out for. It makes no snapshot.

use std::collections::BTreeMap;

use super::LakeTable;
use super::progress::{self, Ancestry, Progress};
use crate::catalog::{CommitOutcome, Rejection, Version};
use crate::checkpoint::PartitionId;
use crate::completeness::{Completeness, covers, keep_later};
use crate::error::Result;

/// Whether a time was written into a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stated {
    Yes,
    /// The table stands at other offsets by now; a batch, or a pointer that went back, has been faster.
    Moved,
}

impl LakeTable {
    /// What the table states about its time.
    pub fn completeness(&self) -> Completeness {
        Completeness::of(self.metadata().properties())
    }

    /// The latest time that the table states for offsets which a reader of it with these next offsets has reached; none if it states
    /// none, or is no longer known to have stated one. The property tells of now, the snapshots of before.
    pub fn complete_at(&self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<Option<i64>> {
        let metadata = self.metadata();
        let stated = |properties: &std::collections::HashMap<String, String>| -> Result<Option<i64>> {
            let Some(until_ms) = Completeness::of(properties).until_ms else { return Ok(None) };
            let reached =
                progress::checkpoint(properties)?.is_some_and(|checkpoint| covers(next_offsets, &checkpoint.partitions));
            Ok(reached.then_some(until_ms))
        };
        if let Some(until_ms) = stated(metadata.properties())? {
            return Ok(Some(until_ms));
        }
        for snapshot in Ancestry::of(metadata).snapshots {
            if let Some(until_ms) = stated(&snapshot.summary().additional_properties)? {
                return Ok(Some(until_ms));
            }
        }
        Ok(None)
    }

    /// Writes a time into the table's properties. A later one that stands there stays.
    pub async fn state(&mut self, completeness: &Completeness) -> Result<Stated> {
        let expected = self.checkpoint()?;
        let ident = self.ident().clone();
        let derived = completeness.partitions.is_empty();
        let change = |version: &Version| {
            let found =
                Progress::read(&version.metadata).and_then(|found| found.checkpoint(&ident)).map_err(Rejection::Refused)?;
            if found != expected {
                return Err(Rejection::Moved { found: Some(version.location.clone()) });
            }
            let mut notes: std::collections::HashMap<_, _> = completeness.notes().into_iter().collect();
            if derived {
                notes.remove(crate::completeness::PARTITION_TIMES);
            }
            keep_later(&mut notes, version.metadata.properties());
            Ok(version.metadata.as_ref().clone().into_builder(Some(version.location.clone())).set_properties(notes)?)
        };
        match self.commit_change(change).await? {
            CommitOutcome::Rejected(Rejection::Moved { found: Some(_) }) => return Ok(Stated::Moved),
            outcome => outcome.into_result(&ident)?,
        }
        Ok(Stated::Yes)
    }
}
