//! When and with what the tables of records state up to which time they are complete ([`crate::completeness`] says what that means).
//!
//! Every commit of bronze states it, from the records in it and from a look at the source when its cycle ended; silver's states what
//! bronze states for silver's offsets. While no records come nothing would be committed and the time would stand still, though it does
//! not: so an idle session writes it into the tables' properties, a change of metadata without a snapshot. An empty snapshot instead
//! would push a real one out of the table's history each time. Once a minute costs one small file and one swap per table; more often
//! would gain nothing for those who wait, because the time is behind the clock by the allowed disorder anyway.
//!
//! *Failure*: a look at the source that fails or takes too long leaves the time where it is. So does a statement that fails; the records
//! are not touched by it, and the next one makes up for it.

use std::collections::BTreeMap;
use std::time::Instant;

use iceberg::TableIdent;
use tracing::{debug, warn};

use super::session::{LAG_WAIT, Session};
use crate::checkpoint::{Delta, OffsetRange, PartitionId};
use crate::completeness::{Completeness, Evidence, Sighting, covers, gain};
use crate::error::Result;
use crate::retry::with_deadline;
use crate::source::now_us;

impl Session<'_> {
    /// Where the source ends now; none if it doesn't say so soon.
    pub(super) async fn sighting(&self) -> Option<Sighting> {
        match with_deadline("the source", LAG_WAIT, self.source.sighting()).await {
            Ok(Ok(sighting)) => Some(sighting),
            Ok(Err(error)) | Err(error) => {
                debug!(error = %error.chain(), "the source could not be looked at; the tables' time stays");
                None
            }
        }
    }

    /// What bronze can state once a batch is in it.
    pub(super) fn completeness_after(
        &self,
        delta: &Delta,
        highest_ms: &BTreeMap<PartitionId, i64>,
        sighting: Option<&Sighting>,
    ) -> Result<Completeness> {
        let known = self.bronze.completeness();
        // A batch that doesn't continue the table is refused later, with its reason.
        let Ok(after) = self.bronze.checkpoint()?.unwrap_or_default().advance(delta) else { return Ok(known) };
        Ok(known.after(&after, &self.evidence(highest_ms, sighting)))
    }

    /// What silver can state once it has `ranges`, of which bronze's batch is `delta`.
    pub(super) fn silver_until_ms(
        &mut self,
        ranges: &BTreeMap<PartitionId, OffsetRange>,
        delta: &Delta,
        bronze_after: &Completeness,
    ) -> Result<Option<i64>> {
        let Some(stage) = self.silver.live() else { return Ok(None) };
        let silver_next = stage.next_after(ranges)?;
        match self.bronze.checkpoint()?.unwrap_or_default().advance(delta) {
            Ok(after) if covers(&silver_next, &after.partitions) => Ok(bronze_after.until_ms),
            _ => self.bronze.complete_at(&silver_next),
        }
    }

    /// Between two cycles, when nothing came: moves the tables' time on if it can be moved by an interval.
    pub(super) async fn state_when_idle(&mut self) {
        let interval = self.settings.completeness_interval;
        if interval.is_zero() {
            return;
        }
        if let Err(error) = self.state_bronze().await {
            tell(self.bronze.ident(), &error);
        }
        let (bronze, shared) = (&self.bronze, self.share.is_shared());
        let Some(stage) = self.silver.live() else { return };
        let stated = async {
            let until_ms = bronze.complete_at(&stage.checkpoint()?.next_offsets())?;
            if shared && gain(stage.silver.completeness().until_ms, until_ms) >= interval {
                stage.refresh().await?;
            }
            let known = stage.silver.completeness();
            let until_ms = bronze.complete_at(&stage.checkpoint()?.next_offsets())?;
            if gain(known.until_ms, until_ms) >= interval {
                stage.silver.state(&Completeness { until_ms, ..known }).await?;
            }
            Ok(())
        };
        let stated: Result<()> = stated.await;
        if let Err(error) = stated {
            tell(stage.silver.ident(), &error);
        }
    }

    async fn state_bronze(&mut self) -> Result<()> {
        let interval = self.settings.completeness_interval;
        let mut known = self.bronze.completeness();
        let (none, now_ms) = (BTreeMap::new(), now_us() / 1_000);
        let possible_ms = now_ms.saturating_sub(i64::try_from(self.settings.allowed_disorder.as_millis()).unwrap_or(i64::MAX));
        let looked_lately = self.looked.is_some_and(|looked| looked.elapsed() < interval);
        if looked_lately || gain(known.until_ms, Some(possible_ms)) < interval {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        if self.share.is_shared() {
            // Others move the table on, and its time.
            self.bronze.refresh().await?;
            known = self.bronze.completeness();
        }
        let Some(checkpoint) = self.bronze.checkpoint()? else { return Ok(()) };
        let Some(sighting) = self.sighting().await else { return Ok(()) };
        let next = known.after(&checkpoint, &self.evidence(&none, Some(&sighting)));
        if gain(known.until_ms, next.until_ms) >= interval {
            let stated = self.bronze.state(&next).await?;
            debug!(table = %self.bronze.ident(), ?stated, "stated the time up to which the table is complete");
        }
        Ok(())
    }

    fn evidence<'e>(&self, highest_ms: &'e BTreeMap<PartitionId, i64>, sighting: Option<&'e Sighting>) -> Evidence<'e> {
        Evidence { highest_ms, sighting, allowed_disorder: self.settings.allowed_disorder, now_ms: now_us() / 1_000 }
    }
}

fn tell(table: &TableIdent, error: &crate::error::Error) {
    warn!(%table, error = %error.chain(), "the time up to which the table is complete could not be stated; it will be tried again");
}
