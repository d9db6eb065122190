//! Partitions come and go: what a session of a group does before it answers.
//!
//! The tables are all that the members know of each other. A partition that comes continues where bronze says, read again at that moment;
//! what its earlier owner left undone (silver behind bronze, rejected behind silver) is done first. A partition that goes has been
//! committed when the answer is given, bronze and whatever of silver its cycle had. What was read of a lost one is dropped.
//!
//! *Invariants*: nothing of a partition is committed after the answer that gives it away, and silver's catch-up is at rest while a
//! change is answered.
//!
//! *Failure*: an owner that doesn't know yet that it lost a partition is refused by the tables' offsets, like any second writer. If it was
//! faster than the new owner, that one is refused, and goes on where the table is.

use std::collections::BTreeMap;

use tracing::{debug, info, warn};

use super::positions::distance;
use super::session::Session;
use super::share::Share;
use crate::bronze::BronzeTable;
use crate::catalog::{CommitOutcome, Rejection};
use crate::checkpoint::{Coverage, Delta, OffsetRange, PartitionId};
use crate::error::{Error, Kind, Result};
use crate::source::{Change, Source};
use crate::storage::CloseBarrier;
use crate::table::{Append, Origin, RecordPreparation};

impl Session<'_> {
    /// Answers a change. What was read before has been committed, or, of lost partitions, dropped.
    pub(super) async fn hand_over(&mut self, change: Change) -> Result<()> {
        self.silver.rest().await;
        match change {
            Change::Assigned(partitions) => {
                self.bronze.refresh().await?;
                let next = self.bronze.checkpoint()?.unwrap_or_default().next_offsets();
                self.source.answer(&next).await?;
                self.share = share(&*self.source);
                self.joined = true;
                if partitions.is_empty() {
                    debug!(owned = %self.owned(), "the group was rebalanced and gives this daemon no more partitions");
                } else {
                    info!(?partitions, owned = %self.owned(), "the group gives partitions to this daemon, which go on where bronze ends");
                }
                if let Some(ends) = &self.ends {
                    let positions = self.source.positions();
                    let come = |all: &BTreeMap<PartitionId, i64>| {
                        all.iter()
                            .filter(|(partition, _)| partitions.contains(partition))
                            .map(|(p, offset)| (*p, *offset))
                            .collect()
                    };
                    self.tally.expect(distance(&come(&positions), &come(ends)));
                }
                self.silver.take_over(self.share.clone(), &self.bronze).await;
            }
            Change::Revoked(partitions) => {
                self.source.answer(&BTreeMap::new()).await?;
                self.share = share(&*self.source);
                info!(?partitions, owned = %self.owned(), "partitions go to another daemon of the group");
                self.silver.give_up(self.share.clone());
            }
            Change::Lost(partitions) => {
                self.source.answer(&BTreeMap::new()).await?;
                self.share = share(&*self.source);
                warn!(
                    ?partitions,
                    "the group took partitions from this daemon, which had not answered in time; what it had read of them is dropped, and it \
                     joins the group again"
                );
                self.silver.give_up(self.share.clone());
            }
        }
        Ok(())
    }

    /// After a commit that failed. Another writer may have been faster: one that lost a partition to this daemon and does not know yet. Then
    /// reading goes on where the table is; leaving the group for it would move everybody's partitions. Else the failure is returned.
    pub(super) async fn resume(&mut self, delta: &Delta, failure: Error) -> Result<()> {
        if !self.share.is_shared() || failure.kind() != Kind::Transient {
            return Err(failure);
        }
        self.bronze.refresh().await?;
        let table = self.bronze.checkpoint()?.unwrap_or_default();
        if table.advance(delta).is_ok() {
            return Err(failure);
        }
        warn!(error = %failure.chain(), hint = failure.hint_text(), "another writer was faster; reading goes on where the table is");
        self.source.resume(&table.next_offsets()).await?;
        self.tally.reload();
        self.silver.rest().await;
        self.silver.take_over(self.share.clone(), &self.bronze).await;
        Ok(())
    }

    fn owned(&self) -> String {
        match &self.share {
            Share::All => "all".to_owned(),
            Share::These(partitions) => partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        }
    }
}

/// What a source gives this process to read.
pub(super) fn share(source: &dyn Source) -> Share {
    source.owned().map_or(Share::All, Share::These)
}

/// Writes into a table without progress where each partition begins, so that all members begin at the same offsets whenever they come:
/// who finds a partition that the table doesn't know then knows that it was added later. Another member may be faster.
pub(super) async fn begin(bronze: &mut BronzeTable, source: &dyn Source, origin: &Origin) -> Result<()> {
    if bronze.checkpoint()?.is_some() {
        return Ok(());
    }
    let nothing = |offset| Coverage { range: OffsetRange::new(offset, offset), records: 0 };
    let partitions = source.beginnings().await?.into_iter().map(|(partition, offset)| (partition, nothing(offset))).collect();
    let batch = Append {
        files: bronze.no_files(),
        delta: Delta { partitions },
        origin: origin.clone(),
        commit_id: uuid::Uuid::now_v7(),
        input: None,
        summary: BTreeMap::new(),
    };
    let barrier = CloseBarrier::new();
    if let RecordPreparation::Ready(prepared) = bronze.prepare(batch, &barrier).await? {
        barrier.wait().await?;
        let outcome = prepared.swap(bronze).await;
        if let CommitOutcome::Rejected(Rejection::Offsets(_)) = outcome {
            return Ok(());
        }
        outcome.into_result(bronze.ident())?;
    }
    Ok(())
}
