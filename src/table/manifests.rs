//! Manifests and manifest lists of a snapshot, and the merging that keeps the list short.
//!
//! Each append adds one manifest. Left alone, the list, which every commit writes anew, would grow for ever. So manifests are merged in
//! tiers: as soon as `fan_in` manifests of about the same size have come together, they become one of the next tier. Each entry is
//! rewritten once per tier, and a list never holds more than `fan_in` manifests of a tier.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use chrono::Utc;
use futures::{StreamExt, TryStreamExt};
use iceberg::io::FileIO;
use iceberg::spec::{
    DataFile, FormatVersion, Manifest, ManifestContentType, ManifestFile, ManifestList, ManifestListWriter, ManifestWriter,
    ManifestWriterBuilder, PartitionSpec, Snapshot, Summary, TableMetadata,
};

use super::row_ids;
use super::upkeep::{UpkeepSettings, unreadable};
use crate::error::{Context, Error, Result};

/// Manifests that are read at the same time for a merge.
const READ_CONCURRENCY: usize = 4;

/// The manifests of one snapshot.
pub(super) type Manifests = Arc<Vec<ManifestFile>>;

pub(super) async fn read_list(file_io: &FileIO, metadata: &TableMetadata, snapshot: &Snapshot) -> Result<Manifests> {
    let location = snapshot.manifest_list();
    let read = async {
        let content = file_io.new_input(location)?.read().await?;
        ManifestList::parse_with_version(&content, metadata.format_version())
    };
    let list = read.await.map_err(unreadable).with_context(|| format!("failed to read manifest list {location}"))?;
    Ok(Arc::new(list.entries().to_vec()))
}

/// Writes the list of the table's next snapshot and describes the snapshot. Manifests that were written for it get its sequence number, and
/// ids for their rows where the table has these. What is returned is the base of the commit after it.
pub(super) async fn write_list(
    file_io: &FileIO,
    metadata: &TableMetadata,
    snapshot_id: i64,
    location: String,
    summary: Summary,
    mut manifests: Vec<ManifestFile>,
) -> Result<(Snapshot, Manifests)> {
    let (parent, sequence_number) = (metadata.current_snapshot_id(), metadata.next_sequence_number());
    for manifest in manifests.iter_mut().filter(|manifest| manifest.added_snapshot_id == snapshot_id) {
        for number in [&mut manifest.sequence_number, &mut manifest.min_sequence_number] {
            *number = if *number < 0 { sequence_number } else { *number };
        }
    }
    let row_ids = row_ids::assign(metadata, &mut manifests)?;
    let write = async {
        let file = file_io.new_output(&location)?.writer().await?;
        let mut writer = match row_ids {
            None => ManifestListWriter::v2(file, snapshot_id, parent, sequence_number),
            Some(ids) => ManifestListWriter::v3(file, snapshot_id, parent, sequence_number, Some(ids.first)),
        };
        writer.add_manifests(manifests.iter().cloned())?;
        writer.close().await
    };
    write.await.with_context(|| format!("failed to write manifest list {location}"))?;
    let snapshot = Snapshot::builder()
        .with_snapshot_id(snapshot_id)
        .with_parent_snapshot_id(parent)
        .with_sequence_number(sequence_number)
        // A clock that went back must not make history go back.
        .with_timestamp_ms(Utc::now().timestamp_millis().max(metadata.last_updated_ms()))
        .with_manifest_list(location)
        .with_summary(summary)
        .with_schema_id(metadata.current_schema_id());
    let snapshot = match row_ids {
        None => snapshot.build(),
        Some(ids) => snapshot.with_row_range(ids.first, ids.count).build(),
    };
    Ok((snapshot, Arc::new(manifests)))
}

/// Writes a manifest of new files.
pub(super) async fn write_added(
    file_io: &FileIO,
    location: &str,
    metadata: &TableMetadata,
    snapshot_id: i64,
    spec_id: i32,
    files: &[DataFile],
) -> Result<ManifestFile> {
    let mut writer = writer(file_io, location, metadata, snapshot_id, spec_id)?;
    for file in files {
        // The sequence number is inherited from the snapshot that the manifest ends up in.
        writer.add_file(row_ids::fresh(file, spec_id)?, -1)?;
    }
    writer.write_manifest_file().await.with_context(|| format!("failed to write manifest {location}"))
}

fn writer(file_io: &FileIO, location: &str, metadata: &TableMetadata, snapshot_id: i64, spec_id: i32) -> Result<ManifestWriter> {
    let spec = partition_spec(metadata, spec_id)?.clone();
    let output = file_io.new_output(location)?;
    let builder = ManifestWriterBuilder::new(output, Some(snapshot_id), metadata.current_schema().clone(), spec);
    Ok(if metadata.format_version() < FormatVersion::V3 { builder.build_v2_data() } else { builder.build_v3_data() })
}

pub(super) fn partition_spec(metadata: &TableMetadata, spec_id: i32) -> Result<&PartitionSpec> {
    let spec = metadata.partition_spec_by_id(spec_id).map(Arc::as_ref);
    spec.ok_or_else(|| Error::failed(format!("partition spec {spec_id}, for which files were written, is gone from the table")))
}

/// The manifests that are due to be merged: the smallest tier that is full, of the table's current spec.
pub(super) fn due(manifests: &[ManifestFile], spec_id: i32, settings: &UpkeepSettings) -> Vec<ManifestFile> {
    let fan_in = settings.manifests_to_merge.max(2);
    let length_max = settings.manifest_size_max.as_u64() as i64;
    let mut tiers: BTreeMap<u32, Vec<&ManifestFile>> = BTreeMap::new();
    // Files of another spec, and delete files, stay where they are: what wrote them may want them there.
    for manifest in manifests.iter().filter(|manifest| {
        manifest.content == ManifestContentType::Data
            && manifest.partition_spec_id == spec_id
            && manifest.key_metadata.is_none()
            && manifest.manifest_length < length_max
    }) {
        tiers.entry(tier(manifest, fan_in)).or_default().push(manifest);
    }
    let full = tiers.into_values().find(|manifests| manifests.len() >= fan_in);
    full.unwrap_or_default().into_iter().cloned().collect()
}

fn tier(manifest: &ManifestFile, fan_in: usize) -> u32 {
    let count = |files: Option<u32>| files.unwrap_or(1);
    let entries = count(manifest.added_files_count) + count(manifest.existing_files_count) + count(manifest.deleted_files_count);
    entries.max(1).ilog(fan_in as u32)
}

/// Writes the live entries of `sources` into one manifest. None if they have none.
pub(super) async fn merge(
    file_io: &FileIO,
    output: &FileIO,
    location: &str,
    metadata: &TableMetadata,
    snapshot_id: i64,
    sources: &[ManifestFile],
) -> Result<Option<ManifestFile>> {
    let Some(first) = sources.first() else { return Ok(None) };
    let loaded = futures::stream::iter(sources).map(|manifest| async move {
        let loaded = manifest.load_manifest(file_io).await;
        loaded.map_err(unreadable).with_context(|| format!("failed to read manifest {}", manifest.manifest_path))
    });
    let loaded: Vec<_> = loaded.buffered(READ_CONCURRENCY).try_collect().await?;
    let mut writer = writer(output, location, metadata, snapshot_id, first.partition_spec_id)?;
    let mut entries = 0usize;
    for (source, loaded) in sources.iter().zip(&loaded) {
        for (entry, file) in row_ids::live(source, loaded)? {
            let missing = || Error::failed(format!("an entry of {} has no snapshot or sequence number", source.manifest_path));
            let (added_by, sequence_number) = entry.snapshot_id().zip(entry.sequence_number()).ok_or_else(missing)?;
            writer.add_existing_file(file, added_by, sequence_number, entry.file_sequence_number)?;
            entries += 1;
        }
    }
    if entries == 0 {
        return Ok(None);
    }
    let written = writer.write_manifest_file().await;
    Ok(Some(written.with_context(|| format!("failed to write manifest {location}"))?))
}

/// The files that left a table, each with the partition spec that it was written for.
#[derive(Default)]
pub(super) struct Gone {
    pub files: Vec<(i32, DataFile)>,
}

/// Writes a manifest anew, with the files marked as deleted that `goes` names by their paths. None, with nothing written, if it has none.
#[expect(clippy::too_many_arguments, reason = "where to write, what, and what was found")]
pub(super) async fn without(
    output: &FileIO,
    location: &str,
    metadata: &TableMetadata,
    snapshot_id: i64,
    manifest: &ManifestFile,
    loaded: &Manifest,
    goes: &impl Fn(&str) -> bool,
    gone: &mut Gone,
) -> Result<Option<ManifestFile>> {
    if !loaded.entries().iter().any(|entry| entry.is_alive() && goes(entry.data_file().file_path())) {
        return Ok(None);
    }
    let spec_id = manifest.partition_spec_id;
    let mut writer = writer(output, location, metadata, snapshot_id, spec_id)?;
    for (entry, file) in row_ids::live(manifest, loaded)? {
        let missing = || Error::failed(format!("an entry of {} has no snapshot or sequence number", manifest.manifest_path));
        let (added_by, sequence_number) = entry.snapshot_id().zip(entry.sequence_number()).ok_or_else(missing)?;
        if goes(file.file_path()) {
            gone.files.push((spec_id, file.clone()));
            writer.add_delete_file(file, sequence_number, entry.file_sequence_number)?;
        } else {
            writer.add_existing_file(file, added_by, sequence_number, entry.file_sequence_number)?;
        }
    }
    let written = writer.write_manifest_file().await;
    Ok(Some(written.with_context(|| format!("failed to write manifest {location}"))?))
}

/// The paths in `old` that `new` doesn't have.
pub(super) fn dropped(old: &[ManifestFile], new: &[ManifestFile]) -> Vec<String> {
    let kept: HashSet<&str> = new.iter().map(|manifest| manifest.manifest_path.as_str()).collect();
    old.iter().map(|manifest| &manifest.manifest_path).filter(|path| !kept.contains(path.as_str())).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: usize, files: u32) -> ManifestFile {
        ManifestFile {
            manifest_path: format!("m{name}"),
            manifest_length: 1,
            partition_spec_id: 0,
            content: ManifestContentType::Data,
            sequence_number: 1,
            min_sequence_number: 1,
            added_snapshot_id: 1,
            added_files_count: Some(files),
            existing_files_count: Some(0),
            deleted_files_count: Some(0),
            added_rows_count: None,
            existing_rows_count: None,
            deleted_rows_count: None,
            partitions: None,
            key_metadata: None,
            first_row_id: None,
        }
    }

    /// Ten thousand appends, merged as they go.
    #[test]
    fn the_list_stays_short_and_entries_are_rewritten_once_per_tier() {
        let (settings, appends) = (UpkeepSettings::default(), 10_000);
        let (mut list, mut rewritten, mut longest) = (Vec::new(), 0, 0);
        for append in 0..appends {
            let merged = due(&list, 0, &settings);
            if !merged.is_empty() {
                let files = merged.iter().map(|manifest| manifest.added_files_count.unwrap()).sum();
                list.retain(|manifest| !merged.contains(manifest));
                list.push(manifest(append + appends, files));
                rewritten += files;
            }
            list.push(manifest(append, 1));
            longest = longest.max(list.len());
        }
        assert!(longest <= 3 * settings.manifests_to_merge, "{longest}");
        assert!(rewritten <= 3 * appends as u32, "{rewritten}");
        assert_eq!(list.iter().map(|manifest| manifest.added_files_count.unwrap()).sum::<u32>(), appends as u32);
    }

    #[test]
    fn other_specs_and_delete_files_are_left_alone() {
        let mut list: Vec<_> = (0..40).map(|name| manifest(name, 1)).collect();
        list.iter_mut().take(20).for_each(|manifest| manifest.partition_spec_id = 1);
        list.iter_mut().skip(20).take(5).for_each(|manifest| manifest.content = ManifestContentType::Deletes);
        let settings = UpkeepSettings { manifests_to_merge: 16, ..UpkeepSettings::default() };
        assert!(due(&list, 0, &settings).is_empty());
        assert_eq!(due(&list, 1, &settings).len(), 20);
    }
}
