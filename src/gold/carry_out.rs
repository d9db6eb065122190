//! Doing what a gold table was told to do, where no daemon does it: a maintainer for as long as that takes.

use std::time::SystemTime;

use super::maintainer::{CatchUp, GoldMaintainer};
use super::plan::GoldPlan;
use crate::error::{Error, Result};
use crate::metastore::Metastore;
use crate::storage::Storages;
use crate::table::RecordTable;
use crate::table::logged::ParquetTable;

/// Becomes the table's maintainer, which may take until another one is gone, and does the work. `left` is told how many partitions are still
/// to be computed, whenever that changes.
pub async fn carry_out(
    plan: GoldPlan,
    database: &str,
    metastore: &Metastore,
    storages: &Storages,
    silver: &mut RecordTable<ParquetTable>,
    left: impl Fn(usize),
) -> Result<()> {
    let mut maintainer = GoldMaintainer::stand_by(plan, database, metastore, storages, &*silver).await?;
    let mut before = maintainer.partitions_left();
    while maintainer.is_redefining() {
        silver.refresh().await?;
        if let CatchUp::Waiting(partitions) = maintainer.catch_up(&*silver, SystemTime::now()).await? {
            let (partition, (gold, silver)) = partitions.into_iter().next().unwrap_or_default();
            return Err(Error::stop(format!(
                "silver is behind gold in partition {partition}, at offset {silver} and not {gold}"
            ))
            .hint("let the daemon run until silver has passed it, and give the command again: it goes on"));
        }
        maintainer.refresh(&*silver, SystemTime::now()).await?;
        let now = maintainer.partitions_left();
        if now != before && now > 0 {
            left(now);
        }
        before = now;
    }
    maintainer.close().await
}
