//! Who maintains a gold table: one process at a time, and a number that tells it from all before.
//!
//! The exclusive lock on a name of its own keeps a second maintainer out. It cannot stop one that was paused and believes that it still
//! holds it, so each maintainer raises the table's *epoch* when it begins. The epoch is part of the revision, which every write of the
//! table's parameters changes, by compare-and-swap where the metastore honours it.
//!
//! A lock is never taken from a process that may live; one of a process that certainly does not is given back for it.
//!
//! An entry that somebody put back as it was (Hive's get-then-alter, a maintainer from before that was paused) shows an earlier revision
//! than our last: it is written again. A later epoch is that of a successor, and ends this maintainer.
//!
//! *Failure*: a write whose answer was lost is looked up. It may still arrive later; then the revision that is found is one of our own
//! epoch, and the next write goes on from it.

use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{info, warn};

use super::progress::{EPOCH, REVISION, Revision};
use crate::error::{Context, Error, Result};
use crate::metastore::{CompareAndSwap, EnvironmentContext, FieldSchema, HeldLock, HiveTable, Metastore, Wait};

/// The name whose exclusive lock is the right to maintain a table.
pub fn maintainer_lock(table: &str) -> String {
    format!("{table}__lakesmith_maintainer")
}

/// The right to maintain a table, and its latest entry.
#[derive(Debug)]
pub struct Lease {
    metastore: Metastore,
    lock: HeldLock,
    entry: HiveTable,
    revision: Revision,
    /// The entry was found as it was before our last write.
    behind: bool,
    /// Expected values are sent only where they are honoured.
    honoured: bool,
    /// Signs of another maintainer were found.
    fenced: AtomicBool,
}

impl Lease {
    /// Waits for the lock and raises the epoch.
    pub async fn take_over(metastore: &Metastore, database: &str, table: &str, wait: Wait) -> Result<Self> {
        let about = || format!("gold table {database}.{table} cannot be taken over");
        let lock = HeldLock::acquire_with(metastore, database, &maintainer_lock(table), wait).await.with_context(about)?;
        let honoured = metastore.compare_and_swap(database).await.with_context(about)? == CompareAndSwap::Honoured;
        let entry = load(metastore, database, table).await?;
        let found = revision_of(&entry)?;
        let (metastore, fenced) = (metastore.clone(), AtomicBool::new(false));
        let mut lease = Self { metastore, lock, entry, revision: found, behind: false, honoured, fenced };
        let next = Revision { epoch: found.epoch + 1, number: 0 };
        lease.swap(next, None, &[(EPOCH, Some(next.epoch.to_string()))]).await.with_context(about)?;
        info!(table = %lease.name(), epoch = next.epoch, "maintaining a gold table");
        Ok(lease)
    }

    pub fn epoch(&self) -> u64 {
        self.revision.epoch
    }

    pub fn entry(&self) -> &HiveTable {
        &self.entry
    }

    pub fn name(&self) -> String {
        format!("{}.{}", self.entry.database(), self.entry.name())
    }

    /// Whether somebody has put the table's entry back, so that progress must be written again.
    pub fn is_behind(&self) -> bool {
        self.behind
    }

    /// Raises the epoch above one that a partition names. The lock is ours, so it is not another maintainer's: the table's entry went back.
    pub async fn raise_above(&mut self, epoch: u64) -> Result<()> {
        self.ensure_held().await?;
        warn!(table = %self.name(), ours = self.epoch(), found = epoch, "the epoch of the gold table went back and is raised");
        let next = Revision { epoch: epoch + 1, number: 0 };
        self.swap(next, None, &[(EPOCH, Some(next.epoch.to_string()))]).await
    }

    /// Err if another may be maintaining the table by now. Reads the table's entry again; one that went back is told by
    /// [`Self::is_behind`].
    pub async fn ensure_held(&mut self) -> Result<()> {
        self.lock.ensure_held().await.with_context(|| format!("gold table {} is not ours any more", self.name()))?;
        let entry = load(&self.metastore, self.entry.database(), self.entry.name()).await?;
        let found = revision_of(&entry)?;
        if found.epoch > self.revision.epoch {
            return Err(self.fenced(found.epoch));
        }
        if found < self.revision && !self.behind {
            warn!(table = %self.name(), %found, ours = %self.revision, "the progress of the gold table went back and is written again");
        }
        self.behind = found < self.revision;
        (self.entry, self.revision) = (entry, self.revision.max(found));
        Ok(())
    }

    /// Writes parameters of the table; none removes one.
    pub async fn write(&mut self, parameters: &[(&'static str, Option<String>)]) -> Result<()> {
        self.write_with(None, parameters).await
    }

    /// Writes columns of the table and of all its partitions, and parameters, in one call.
    pub async fn write_columns(&mut self, columns: &[FieldSchema], parameters: &[(&'static str, Option<String>)]) -> Result<()> {
        self.write_with(Some(columns), parameters).await
    }

    async fn write_with(&mut self, columns: Option<&[FieldSchema]>, parameters: &[(&'static str, Option<String>)]) -> Result<()> {
        self.ensure_held().await?;
        let mut parameters = parameters.to_vec();
        parameters.push((EPOCH, Some(self.epoch().to_string())));
        self.swap(Revision { number: self.revision.number + 1, ..self.revision }, columns, &parameters).await
    }

    /// The error for signs of another maintainer.
    pub fn fenced(&self, epoch: u64) -> Error {
        self.fenced.store(true, Ordering::Relaxed);
        let ours = self.revision.epoch;
        Error::stop(format!("gold table {} is maintained by another process (epoch {epoch}, ours is {ours})", self.name()))
            .hint("run one pipeline per gold table; restart this one if the other is gone")
    }

    /// Whether [`Lease::fenced`] was found: another process is the maintainer now.
    pub fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Relaxed)
    }

    async fn swap(
        &mut self,
        next: Revision,
        columns: Option<&[FieldSchema]>,
        parameters: &[(&'static str, Option<String>)],
    ) -> Result<()> {
        let mut entry = self.entry.clone();
        let mut environment = EnvironmentContext::new().without_statistics();
        if let Some(columns) = columns {
            entry.set_columns(columns);
            environment = environment.cascading();
        }
        for (name, value) in parameters {
            match value {
                Some(value) => entry.set_parameter(name, value),
                None => {
                    entry.remove_parameter(name);
                }
            }
        }
        let expected = entry.parameter(REVISION).map(str::to_owned);
        entry.set_parameter(REVISION, next.to_string());
        if let Some(expected) = expected.filter(|_| self.honoured) {
            environment = environment.expecting(REVISION, &expected);
        }
        let (database, table) = (self.entry.database().to_owned(), self.entry.name().to_owned());
        if let Err(error) = self.metastore.alter_table(&database, &table, &entry, &environment).await {
            let found = load(&self.metastore, &database, &table).await?;
            let revision = revision_of(&found)?;
            if revision != next {
                if revision.epoch > self.revision.epoch {
                    return Err(self.fenced(revision.epoch).caused_by(error));
                }
                return Err(Error::from(error).context(format!("failed to write the progress of gold table {}", self.name())));
            }
            warn!(table = %self.name(), %error, "progress was written although the answer was lost");
            self.entry = found;
        } else {
            self.entry = entry;
        }
        (self.revision, self.behind) = (next, false);
        Ok(())
    }

    /// Lets another maintainer begin.
    pub async fn release(self) -> Result<()> {
        self.lock.release().await
    }
}

async fn load(metastore: &Metastore, database: &str, table: &str) -> Result<HiveTable> {
    let entry = metastore.table(database, table).await.with_context(|| format!("failed to load table {database}.{table}"))?;
    entry.ok_or_else(|| {
        Error::stop(format!("gold table {database}.{table} was dropped"))
            .hint("restart the pipeline to have it computed again from silver")
    })
}

fn revision_of(entry: &HiveTable) -> Result<Revision> {
    entry.parameter(REVISION).map_or_else(|| Ok(Revision::default()), str::parse)
}
