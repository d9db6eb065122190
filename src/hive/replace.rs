//! Replacing partitions: a complete version directory first, then one metastore call that moves the partitions there.
//!
//! *Invariants*: files are durable before the call. Up to 500 new partitions are added all or none, and up to 500 existing ones moved all
//! or none; but these are calls of their own, so readers may see the one before the other. No server honours an expected value for partitions: a late or foreign call can
//! win, and whoever cares reads the partitions again afterwards.
//!
//! *What may leak*: version directories whose switch did not happen, until the sweep.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use tracing::warn;

use super::file::encode;
use super::partition::{PartitionKey, version_of};
use crate::compatibility::HiveFiles;
use crate::error::{Context, Error, Result};
use crate::metastore::{EnvironmentContext, FieldSchema, HivePartition, HiveTable, IfNotExists, Metastore, MetastoreResult};
use crate::storage::{Create, Storages};

/// Partitions in one call: a bound on its size and on how long the server takes, some 10 ms for each new partition.
const PARTITIONS_PER_CALL: usize = 500;

/// What a version directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VersionStatistics {
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
}

/// A complete version of a partition, ready to be switched to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionVersion {
    pub key: PartitionKey,
    pub location: String,
    pub statistics: VersionStatistics,
    /// Parameters that the partition gets beside its statistics; none takes one away.
    pub parameters: BTreeMap<String, Option<String>>,
}

impl PartitionVersion {
    fn apply(&self, partition: &mut HivePartition) {
        partition.set_location(&self.location);
        let statistics = self.statistics;
        for (key, number) in [("numRows", statistics.rows), ("numFiles", statistics.files), ("totalSize", statistics.bytes)] {
            partition.set_parameter(key, number.to_string());
        }
        // What another engine computed for the old version would be wrong for this one.
        partition.remove_parameter("rawDataSize");
        partition.remove_parameter("COLUMN_STATS_ACCURATE");
        for (key, value) in &self.parameters {
            match value {
                Some(value) => partition.set_parameter(key, value),
                None => {
                    partition.remove_parameter(key);
                }
            }
        }
    }
}

/// Writes the rows of a partition as a new version directory; durable on return.
pub async fn write_version(
    storages: &Storages,
    location: &str,
    rows: &RecordBatch,
    footer: &BTreeMap<String, String>,
    files: HiveFiles,
) -> Result<VersionStatistics> {
    let (rows, footer, count) = (rows.clone(), footer.clone(), rows.num_rows() as u64);
    let content = tokio::task::spawn_blocking(move || encode(&rows, &footer, files))
        .await
        .map_err(|error| Error::failed("the encoding of a partition was interrupted").caused_by(error))??;
    let statistics = VersionStatistics { rows: count, files: 1, bytes: content.len() as u64 };
    let file = format!("{location}/part-00000-{}.{}.parquet", version_of(location), files.codec.name());
    storages.write_file(&file, content, Create::New).await.with_context(|| format!("failed to write {file}"))?;
    Ok(statistics)
}

/// Moves partitions to their new versions: those in `existing` are altered, others added.
pub async fn switch(
    metastore: &Metastore,
    table: &HiveTable,
    versions: &[PartitionVersion],
    existing: &BTreeMap<PartitionKey, HivePartition>,
) -> Result<()> {
    let columns = table.columns();
    let (mut moved, mut added) = (Vec::new(), Vec::new());
    for version in versions {
        match existing.get(&version.key) {
            Some(partition) => {
                let mut partition = partition.clone();
                partition.set_columns(&columns);
                version.apply(&mut partition);
                moved.push(partition);
            }
            None => {
                let mut partition = HivePartition::new(table, &version.key.values(), &version.location);
                version.apply(&mut partition);
                added.push(partition);
            }
        }
    }
    for added in added.chunks(PARTITIONS_PER_CALL) {
        let answer = metastore.add_partitions(added, IfNotExists::No).await;
        settle(metastore, table, added, "add", answer).await?;
    }
    // With this the statistics stay as sent, and the server need not list the directories.
    let environment = EnvironmentContext::new().without_statistics();
    for moved in moved.chunks(PARTITIONS_PER_CALL) {
        let answer = metastore.alter_partitions(table.database(), table.name(), moved, &environment).await;
        settle(metastore, table, moved, "move", answer).await?;
    }
    Ok(())
}

/// Turns the answer of a switch into its outcome: where the answer doesn't tell, the partitions are looked at.
async fn settle(
    metastore: &Metastore,
    table: &HiveTable,
    wanted: &[HivePartition],
    verb: &str,
    answer: MetastoreResult<()>,
) -> Result<()> {
    let Err(error) = answer else { return Ok(()) };
    let (database, name) = (table.database(), table.name());
    if !error.certainly_not_applied() {
        let keys = table.partition_keys();
        let names: Vec<String> = wanted.iter().map(|partition| key_of(&keys, partition).to_string()).collect();
        let found = metastore.partitions_by_names(database, name, &names).await;
        let found = found.with_context(|| format!("partitions of {database}.{name} cannot be looked up after: {error}"))?;
        let is_there = |wanted: &HivePartition| {
            found.iter().any(|found| {
                found.values() == wanted.values() && found.location().map(version_of) == wanted.location().map(version_of)
            })
        };
        if wanted.iter().all(is_there) {
            warn!(table = format!("{database}.{name}"), %error, "a switch of partitions was done although its answer was lost");
            return Ok(());
        }
    }
    Err(Error::from(error).context(format!("failed to {verb} {} partitions of {database}.{name}", wanted.len())))
}

/// The key of a partition's entry.
pub fn key_of(keys: &[FieldSchema], partition: &HivePartition) -> PartitionKey {
    PartitionKey::new(keys.iter().map(|key| key.name.clone()).zip(partition.values()))
}
