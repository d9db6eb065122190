//! Deleting old versions of partitions.
//!
//! *Invariants*: only directories that carry a version's name are looked at; one that any partition's location names, or that is
//! younger than the bound, stays. Partitions are read after the directories were listed.

use std::collections::BTreeSet;

use tracing::{debug, warn};

use super::partition::{is_version_name, version_of};
use crate::error::{Context, Result};
use crate::metastore::{HiveTable, Metastore};
use crate::storage::{Depth, FileStatus, Storages};

/// What a sweep found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SweepReport {
    pub versions_deleted: u64,
    pub versions_kept: u64,
}

/// Deletes versions of the table's partitions that were last changed before `before_ms` (milliseconds since 1970) and that no partition
/// refers to.
pub async fn sweep(metastore: &Metastore, storages: &Storages, table: &HiveTable, before_ms: u64) -> Result<SweepReport> {
    let name = format!("{}.{}", table.database(), table.name());
    let Some(location) = table.location() else { return Ok(SweepReport::default()) };
    let mut directories = vec![location.to_string()];
    for _ in table.partition_keys() {
        let mut below = Vec::new();
        for directory in &directories {
            let children = storages.list(directory, Depth::Direct).await.with_context(|| format!("sweep of {name}"))?;
            below.extend(
                children
                    .into_iter()
                    .filter(|child| child.is_dir && version_of(&child.location).contains('='))
                    .map(|child| child.location),
            );
        }
        directories = below;
    }
    let mut versions: Vec<FileStatus> = Vec::new();
    for directory in &directories {
        let children = storages.list(directory, Depth::Direct).await.with_context(|| format!("sweep of {name}"))?;
        versions.extend(children.into_iter().filter(|child| child.is_dir && is_version_name(version_of(&child.location))));
    }
    if versions.is_empty() {
        return Ok(SweepReport::default());
    }
    let partitions = metastore.partitions(table.database(), table.name()).await.with_context(|| format!("sweep of {name}"))?;
    let current: BTreeSet<&str> = partitions.iter().filter_map(|partition| partition.location().map(version_of)).collect();
    let mut report = SweepReport::default();
    for version in &versions {
        if version.modified_ms >= before_ms || current.contains(version_of(&version.location)) {
            report.versions_kept += 1;
            continue;
        }
        match storages.delete_dir(&version.location).await {
            Ok(_) => {
                debug!(table = name, version = version.location, "swept an old version");
                report.versions_deleted += 1;
            }
            // It is still there for the next sweep.
            Err(error) => warn!(table = name, version = version.location, %error, "an old version could not be deleted"),
        }
    }
    Ok(report)
}
