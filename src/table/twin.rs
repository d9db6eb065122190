//! A twin of a table: empty, with its columns, field ids, partitioning and order, whose data files lie among those of the table itself.
//!
//! Rows are gathered in it with offsets of their own, batch by batch, and its files then become the table's by
//! [`LakeTable::replace`]. Nothing is copied: the files are the same.
//!
//! *Invariants*: a twin never deletes anything of the table: it has none of its history. Nor does dropping it delete data files.

use std::collections::BTreeMap;

use iceberg::TableIdent;
use iceberg::spec::TableMetadata;
use serde_json::{Value, json};
use uuid::Uuid;

use super::LakeTable;
use super::progress::PREFIX;
use super::writer::{DATA_PATH, DataFiles, data_location};
use crate::error::{Error, Result};

impl LakeTable {
    /// The directory of the table's data files.
    pub fn data_location(&self) -> String {
        data_location(self.metadata())
    }

    /// Creates an empty twin with notes of its own. Fails if the name is taken.
    pub async fn create_twin(
        &self,
        ident: &TableIdent,
        location: &str,
        comment: &str,
        notes: &BTreeMap<String, String>,
    ) -> Result<LakeTable> {
        let metadata = without_history(self.metadata(), location, &self.data_location(), notes)?;
        let loaded = self.catalog().create_from(ident, metadata, comment).await?;
        Ok(Self::new(self.catalog(), ident, loaded.version))
    }

    /// A twin's data files, for a commit to the table that it is a twin of.
    pub async fn handed_over(&mut self) -> Result<DataFiles> {
        let files = self.data_files().await?;
        let spec_id = self.metadata().default_partition_spec_id();
        if let Some(other) = files.iter().find(|file| file.spec_id != spec_id) {
            return Err(Error::failed(format!("data file {} was written for another partitioning than {spec_id}", other.path())));
        }
        Ok(DataFiles { files: files.into_iter().map(|file| file.file).collect(), spec_id })
    }

    /// Drops a twin, and deletes its metadata. Its data files stay.
    pub async fn drop_twin(self) -> Result<()> {
        self.catalog().drop_entry(self.ident()).await?;
        // Nobody refers to it any more, and nobody is the worse for what stays.
        if let Err(error) = self.catalog().storages().delete_dir(self.metadata().location()).await {
            tracing::debug!(table = %self.ident(), %error, "the metadata of a twin could not be deleted");
        }
        Ok(())
    }
}

/// A table's metadata as that of a new table, elsewhere.
fn without_history(
    metadata: &TableMetadata,
    location: &str,
    data_location: &str,
    notes: &BTreeMap<String, String>,
) -> Result<TableMetadata> {
    let failed = |error| Error::failed("the table's metadata cannot be written anew").caused_by(error);
    let mut whole = serde_json::to_value(metadata).map_err(failed)?;
    let fields = whole.as_object_mut().ok_or_else(|| Error::failed("the table's metadata is no object"))?;
    for history in ["snapshots", "snapshot-log", "metadata-log", "statistics", "partition-statistics"] {
        fields.remove(history);
    }
    fields.remove("current-snapshot-id");
    fields.remove("refs");
    fields.insert("table-uuid".to_owned(), json!(Uuid::new_v4()));
    fields.insert("location".to_owned(), json!(location));
    fields.insert("last-sequence-number".to_owned(), json!(0));
    if let Some(next) = fields.get_mut("next-row-id") {
        *next = json!(0);
    }
    fields.insert("last-updated-ms".to_owned(), json!(chrono::Utc::now().timestamp_millis()));
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        properties.retain(|key, _| !key.starts_with(PREFIX));
        properties.insert(DATA_PATH.to_owned(), json!(data_location));
        // Whoever drops the twin with its files must not take them from the table.
        properties.insert("gc.enabled".to_owned(), json!("false"));
        properties.extend(notes.iter().map(|(key, value)| (key.clone(), json!(value))));
    }
    serde_json::from_value(whole).map_err(failed)
}
