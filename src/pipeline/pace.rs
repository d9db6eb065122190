//! Keeping the partitions of a topic together while they are read: see [`super::lead`] for who waits for whom.
//!
//! *Failure*: where the ends of the partitions cannot be asked for, nobody waits; it is memory that is at stake, not the result.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use tracing::{debug, info};

use super::session::{LAG_WAIT, Session};
use crate::error::Result;
use crate::retry::with_deadline;

impl Session<'_> {
    /// Lets partitions wait that have run too far ahead of others, and goes on with them when those have come up.
    pub(super) async fn keep_together(&mut self) -> Result<()> {
        let positions = self.source.positions();
        if !self.lead.is_apart(&positions) {
            return Ok(());
        }
        if self.lead.should_look(Instant::now()) {
            let looked = with_deadline("the source", LAG_WAIT, self.source.watermarks()).await.and_then(|looked| looked);
            let ends = match looked {
                Ok(watermarks) => watermarks.into_iter().map(|(partition, range)| (partition, range.end)).collect(),
                Err(error) => {
                    debug!(error = error.chain(), "no partition waits for others: where they end could not be asked");
                    BTreeMap::new()
                }
            };
            self.lead.look(ends, Instant::now());
        }
        let Some(paused) = self.lead.decide(&positions).cloned() else { return Ok(()) };
        info!(?paused, "partitions that are too far ahead of others wait (pipeline.max_lead)");
        self.source.pause(&paused).await
    }

    /// Lets nobody wait any more: the partitions are about to be others.
    pub(super) async fn forget_lead(&mut self) -> Result<()> {
        if !self.lead.paused().is_empty() {
            self.source.pause(&BTreeSet::new()).await?;
        }
        self.lead.restart();
        Ok(())
    }
}
