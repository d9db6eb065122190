//! The ids of rows, which tables of format version 3 keep: each row has one from the snapshot that brought it, and keeps it for as long as it
//! stays in its file.
//!
//! A manifest list gives every manifest of data files the id of its first row; files and rows count on from there. Nothing of it is
//! written where files are new. Where an entry moves into another manifest (a merge, a replacement), the id of its file's first row is
//! written out, because it would be counted anew there.
//!
//! *Invariants*: no id is given twice: a snapshot gives ids from the table's `next-row-id` on, and moves that on by as many as it gave.
//! Tables of version 2 have none of this. Rows that are written into another file get new ids, as the format allows.

use iceberg::spec::{
    DataFile, DataFileBuilder, FormatVersion, Manifest, ManifestContentType, ManifestEntry, ManifestFile, TableMetadata,
};

use crate::error::{Error, Result};

/// The ids that a snapshot gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowIds {
    pub first: u64,
    pub count: u64,
}

/// Gives ids to the manifests of a table's next snapshot that have none yet; none for a table without.
pub(super) fn assign(metadata: &TableMetadata, manifests: &mut [ManifestFile]) -> Result<Option<RowIds>> {
    if metadata.format_version() < FormatVersion::V3 {
        return Ok(None);
    }
    let first = metadata.next_row_id();
    let mut next = first;
    for manifest in manifests.iter_mut().filter(|manifest| manifest.content == ManifestContentType::Data) {
        if manifest.first_row_id.is_none() {
            let rows = manifest.existing_rows_count.zip(manifest.added_rows_count).map(|(existing, added)| existing + added);
            let rows = rows.ok_or_else(|| {
                Error::stop(format!(
                    "manifest {} does not say how many rows it has, so none can get an id",
                    manifest.manifest_path
                ))
                .hint("another engine wrote it; its `rewrite_manifests` writes it anew")
            })?;
            manifest.first_row_id = Some(next);
            next += rows;
        }
    }
    Ok(Some(RowIds { first, count: next - first }))
}

/// The live entries of a manifest, each with its file, in which the id of the first row is written out if the table has ids.
pub(super) fn live<'a>(manifest: &ManifestFile, loaded: &'a Manifest) -> Result<Vec<(&'a ManifestEntry, DataFile)>> {
    let mut next = manifest.first_row_id;
    let live = loaded.entries().iter().filter(|entry| entry.is_alive()).map(|entry| {
        let file = entry.data_file();
        let Some(first) = next.filter(|_| file.first_row_id().is_none()) else { return Ok((entry.as_ref(), file.clone())) };
        next = Some(first + file.record_count());
        let first =
            i64::try_from(first).map_err(|_| Error::failed(format!("the ids of rows are used up at {}", file.file_path())))?;
        Ok((entry.as_ref(), with_first(file, manifest.partition_spec_id, Some(first))?))
    });
    live.collect()
}

/// A file as one that is new: its rows get their ids from the snapshot that adds it.
pub(super) fn fresh(file: &DataFile, spec_id: i32) -> Result<DataFile> {
    if file.first_row_id().is_none() { Ok(file.clone()) } else { with_first(file, spec_id, None) }
}

fn with_first(file: &DataFile, spec_id: i32, first_row_id: Option<i64>) -> Result<DataFile> {
    let mut builder = DataFileBuilder::default();
    builder
        .content(file.content_type())
        .file_path(file.file_path().to_owned())
        .file_format(file.file_format())
        .partition(file.partition().clone())
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes())
        .column_sizes(file.column_sizes().clone())
        .value_counts(file.value_counts().clone())
        .null_value_counts(file.null_value_counts().clone())
        .nan_value_counts(file.nan_value_counts().clone())
        .lower_bounds(file.lower_bounds().clone())
        .upper_bounds(file.upper_bounds().clone())
        .key_metadata(file.key_metadata().map(<[u8]>::to_vec))
        .split_offsets(file.split_offsets().map(<[i64]>::to_vec))
        .equality_ids(file.equality_ids())
        .partition_spec_id(spec_id)
        .first_row_id(first_row_id)
        .referenced_data_file(file.referenced_data_file())
        .content_offset(file.content_offset())
        .content_size_in_bytes(file.content_size_in_bytes());
    if let Some(id) = file.sort_order_id() {
        builder.sort_order_id(id);
    }
    let failed = |error| Error::failed(format!("data file {} cannot be described anew", file.file_path())).caused_by(error);
    builder.build().map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use iceberg::spec::{PartitionSpec, Schema, SortOrder, TableMetadataBuilder};

    use super::*;

    fn metadata(version: FormatVersion) -> TableMetadata {
        let schema = Schema::builder().build().unwrap();
        let (spec, order) = (PartitionSpec::unpartition_spec(), SortOrder::unsorted_order());
        let builder = TableMetadataBuilder::new(schema, spec, order, "/t".into(), version, HashMap::new()).unwrap();
        builder.build().unwrap().metadata
    }

    fn manifest(content: ManifestContentType, first_row_id: Option<u64>, existing: Option<u64>, added: u64) -> ManifestFile {
        ManifestFile {
            manifest_path: "m".into(),
            manifest_length: 1,
            partition_spec_id: 0,
            content,
            sequence_number: 1,
            min_sequence_number: 1,
            added_snapshot_id: 1,
            added_files_count: Some(1),
            existing_files_count: Some(0),
            deleted_files_count: Some(0),
            added_rows_count: Some(added),
            existing_rows_count: existing,
            deleted_rows_count: Some(100),
            partitions: None,
            key_metadata: None,
            first_row_id,
        }
    }

    #[test]
    fn each_manifest_of_data_gets_ids_once() {
        use ManifestContentType::{Data, Deletes};
        let mut list = vec![
            manifest(Data, None, Some(0), 10),
            manifest(Deletes, None, Some(0), 5),
            manifest(Data, Some(3), Some(0), 7),
            manifest(Data, None, Some(20), 1),
        ];
        let ids = assign(&metadata(FormatVersion::V3), &mut list).unwrap();
        assert_eq!(ids, Some(RowIds { first: 0, count: 31 }));
        assert_eq!(list.iter().map(|manifest| manifest.first_row_id).collect::<Vec<_>>(), [Some(0), None, Some(3), Some(10)]);
        // All have theirs by now.
        assert_eq!(assign(&metadata(FormatVersion::V3), &mut list).unwrap(), Some(RowIds { first: 0, count: 0 }));
    }

    #[test]
    fn tables_of_version_2_have_none_and_manifests_without_counts_can_get_none() {
        let mut list = vec![manifest(ManifestContentType::Data, None, None, 10)];
        assert_eq!(assign(&metadata(FormatVersion::V2), &mut list).unwrap(), None);
        assert_eq!(list[0].first_row_id, None);
        let error = assign(&metadata(FormatVersion::V3), &mut list).unwrap_err();
        assert!(error.to_string().contains("does not say how many rows"), "{error}");
    }

    #[test]
    fn a_file_keeps_all_but_the_id() {
        let mut builder = DataFileBuilder::default();
        builder
            .content(iceberg::spec::DataContentType::Data)
            .file_path("f".into())
            .file_format(iceberg::spec::DataFileFormat::Parquet)
            .record_count(3)
            .file_size_in_bytes(9)
            .column_sizes(HashMap::from([(1, 2)]))
            .null_value_counts(HashMap::from([(1, 1)]))
            .split_offsets(Some(vec![4]))
            .sort_order_id(1)
            .partition_spec_id(7);
        let file = builder.build().unwrap();
        let moved = with_first(&file, 7, Some(5)).unwrap();
        assert_eq!(moved.first_row_id(), Some(5));
        assert_eq!(fresh(&moved, 7).unwrap(), file);
    }
}
