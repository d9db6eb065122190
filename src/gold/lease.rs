//! Who maintains a gold table: one process at a time, and a number that tells it from all before.
//!
//! The exclusive lock on a name of its own keeps a second maintainer out. It cannot stop one that was paused and believes that it still
//! holds it, so each maintainer raises the table's *epoch* when it begins. The epoch is part of the revision, which every write of the
//! table's parameters changes, by compare-and-swap where the metastore honours it.
//!
//! A lock is never taken from a process that may live; one of a process that certainly does not is given back for it.
//!
//! *Failure*: a write whose answer was lost is looked up. It may still arrive later; then the revision that is found is one of our own
//! epoch, and the next write goes on from it.

use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{info, warn};

use super::progress::{EPOCH, REVISION, Revision};
use crate::error::{Context, Error, Result};
use crate::metastore::{CompareAndSwap, EnvironmentContext, HeldLock, HiveTable, Metastore, Wait};

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
        let mut lease =
            Self { metastore: metastore.clone(), lock, entry, revision: found, honoured, fenced: AtomicBool::new(false) };
        let next = Revision { epoch: found.epoch + 1, number: 0 };
        lease.swap(next, &[(EPOCH, Some(next.epoch.to_string()))]).await.with_context(about)?;
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

    /// Err if another may be maintaining the table by now. Reads the table's entry again.
    pub async fn ensure_held(&mut self) -> Result<()> {
        self.lock.ensure_held().await.with_context(|| format!("gold table {} is not ours any more", self.name()))?;
        let entry = load(&self.metastore, self.entry.database(), self.entry.name()).await?;
        let found = revision_of(&entry)?;
        if found.epoch != self.revision.epoch {
            return Err(self.fenced(found.epoch));
        }
        (self.entry, self.revision) = (entry, found);
        Ok(())
    }

    /// Writes parameters of the table; none removes one.
    pub async fn write(&mut self, parameters: &[(&'static str, Option<String>)]) -> Result<()> {
        self.ensure_held().await?;
        self.swap(Revision { number: self.revision.number + 1, ..self.revision }, parameters).await
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

    async fn swap(&mut self, next: Revision, parameters: &[(&'static str, Option<String>)]) -> Result<()> {
        let mut entry = self.entry.clone();
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
        let mut environment = EnvironmentContext::new().without_statistics();
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
        self.revision = next;
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
