//! Doing what a gold table was told to do: by the daemon that maintains it, or else by a maintainer for as long as that takes.

use std::time::{Duration, SystemTime};

use super::maintainer::{CatchUp, GoldMaintainer};
use super::plan::GoldPlan;
use crate::error::{Error, Result};
use crate::metastore::Metastore;
use crate::storage::Storages;
use crate::table::RecordTable;
use crate::table::logged::ParquetTable;

/// How often the table is looked at while another process may do the work.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Where the work is to be done.
pub struct Workplace<'a> {
    pub database: &'a str,
    pub metastore: &'a Metastore,
    pub storages: &'a Storages,
}

/// Does the work, or waits until another process has done it, whichever is first. `left` is told how many partitions are still to be computed,
/// whenever that changes; `is_done` looks at the table, and tells it again what to do if that was written over.
pub async fn carry_out(
    plan: GoldPlan,
    place: Workplace<'_>,
    silver: &mut RecordTable<ParquetTable>,
    left: impl Fn(usize),
    is_done: impl AsyncFn() -> Result<bool>,
) -> Result<()> {
    let watch = async {
        loop {
            crate::retry::sleep(LOOK_EVERY).await;
            if is_done().await? {
                return Ok(());
            }
        }
    };
    tokio::select! {
        done = maintain(plan, place, silver, left) => done,
        done = watch => done,
    }
}

/// Becomes the table's maintainer, which may take until another one is gone, and does the work.
async fn maintain(
    plan: GoldPlan,
    Workplace { database, metastore, storages }: Workplace<'_>,
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
