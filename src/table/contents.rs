//! What is in a table, for a person to read: snapshots, and files by partition.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use iceberg::spec::{DataContentType, Snapshot};

use super::LakeTable;
use super::manifests::read_list;
use super::progress::{Ancestry, PREFIX};
use super::writer::partition_path;
use crate::error::{Context, Result};

/// Manifests that are read at the same time.
const READ_CONCURRENCY: usize = 4;

/// A snapshot in the current one's ancestry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotLine {
    pub snapshot_id: i64,
    pub at: Option<DateTime<Utc>>,
    /// `append`, `replace`, `overwrite` or `delete`.
    pub operation: String,
    /// The engine that wrote it, as far as it says so.
    pub engine: Option<String>,
    pub added_records: u64,
    pub added_files: u64,
    pub total_records: Option<u64>,
    /// The offsets that a batch of ours added.
    pub batch: Option<String>,
}

/// A file of the current snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLine {
    pub content: DataContentType,
    pub path: String,
    pub format: String,
    /// The partition spec that it was written for.
    pub spec_id: i32,
    /// Its partition's directory; empty for an unpartitioned table.
    pub partition: String,
    pub records: u64,
    pub size_bytes: u64,
}

/// The data files of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionLine {
    pub files: u64,
    pub records: u64,
    pub size_bytes: u64,
    /// Files with deletes, which other engines may have written.
    pub delete_files: u64,
}

impl LakeTable {
    /// The current snapshot and its ancestors, newest first.
    pub fn snapshots(&self) -> Vec<SnapshotLine> {
        Ancestry::of(self.metadata()).snapshots.into_iter().map(|snapshot| line(snapshot)).collect()
    }

    /// All files of the current snapshot, data and deletes.
    pub async fn files(&self) -> Result<Vec<FileLine>> {
        let metadata = self.metadata();
        let Some(snapshot) = metadata.current_snapshot() else { return Ok(Vec::new()) };
        let file_io = self.catalog().file_io();
        let manifests = read_list(file_io, metadata, snapshot).await?;
        // Made before the stream: closures over borrowed items make a future that the compiler takes for one that cannot change threads.
        let loading: Vec<_> = manifests
            .iter()
            .map(|manifest| async move {
                let loaded = manifest.load_manifest(file_io).await;
                let loaded = loaded.with_context(|| format!("failed to read manifest {}", manifest.manifest_path))?;
                Ok::<_, crate::error::Error>((manifest.partition_spec_id, loaded))
            })
            .collect();
        let mut loaded = futures::stream::iter(loading).buffered(READ_CONCURRENCY);
        let mut files = Vec::new();
        while let Some((spec_id, manifest)) = loaded.try_next().await? {
            let spec = metadata.partition_spec_by_id(spec_id).filter(|spec| !spec.is_unpartitioned());
            for entry in manifest.entries().iter().filter(|entry| entry.is_alive()) {
                let file = entry.data_file();
                // A spec whose column is gone from the schema can't be spelled any more.
                let partition = spec.map(|spec| match partition_path(spec, metadata.current_schema(), file.partition()) {
                    Ok(path) => path,
                    Err(_) => format!("(spec {spec_id})"),
                });
                files.push(FileLine {
                    content: file.content_type(),
                    path: file.file_path().to_owned(),
                    format: file.file_format().to_string().to_uppercase(),
                    spec_id,
                    partition: partition.unwrap_or_default(),
                    records: file.record_count(),
                    size_bytes: file.file_size_in_bytes(),
                });
            }
        }
        Ok(files)
    }

    /// Files of the current snapshot by partition path; one entry without a name for an unpartitioned table.
    pub async fn partitions(&self) -> Result<BTreeMap<String, PartitionLine>> {
        let mut partitions: BTreeMap<String, PartitionLine> = BTreeMap::new();
        for file in self.files().await? {
            let partition = partitions.entry(file.partition).or_default();
            match file.content {
                DataContentType::Data => {
                    partition.files += 1;
                    partition.records += file.records;
                    partition.size_bytes += file.size_bytes;
                }
                DataContentType::PositionDeletes | DataContentType::EqualityDeletes => partition.delete_files += 1,
            }
        }
        Ok(partitions)
    }
}

fn line(snapshot: &Snapshot) -> SnapshotLine {
    let summary = &snapshot.summary().additional_properties;
    let count = |key: &str| summary.get(key).and_then(|count| count.parse::<u64>().ok());
    SnapshotLine {
        snapshot_id: snapshot.snapshot_id(),
        at: snapshot.timestamp().ok(),
        operation: snapshot.summary().operation.as_str().to_owned(),
        engine: summary.get("engine-name").cloned(),
        added_records: count("added-records").unwrap_or(0),
        added_files: count("added-data-files").unwrap_or(0),
        total_records: count("total-records"),
        batch: summary.get(&format!("{PREFIX}batch")).cloned(),
    }
}
