//! Data files as text, on their way from the process that wrote them to the one that commits them.
//!
//! *Invariants*: what comes out is what went in, statistics included: it is read back before it is handed on, so that nobody commits files
//! whose description has suffered.

use iceberg::spec::{DataFile, FormatVersion, StructType, deserialize_data_file_from_json, serialize_data_file_to_json};
use serde::{Deserialize, Serialize};

use super::LakeTable;
use super::manifests::partition_spec;
use super::writer::DataFiles;
use crate::error::{Context, Error, Result};

/// Data files of one table, for one of its partition specs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedFiles {
    spec_id: i32,
    /// Each as JSON, as Iceberg's manifests describe it.
    files: Vec<String>,
}

impl LakeTable {
    /// Files that a writer of this table has finished, as text.
    pub fn carry(&self, files: &DataFiles) -> Result<CarriedFiles> {
        let partition = self.partition_type(files.spec_id)?;
        let carried = |file: &DataFile| -> Result<String> {
            let text = serialize_data_file_to_json(file.clone(), &partition, FormatVersion::V2)?;
            let back = self.described(&text, files.spec_id, &partition)?;
            if back == *file { Ok(text) } else { Err(Error::failed("its description would not be the same when it is read")) }
        };
        let carried = |file: &DataFile| {
            carried(file).with_context(|| format!("data file {} cannot be handed on to another process", file.file_path()))
        };
        Ok(CarriedFiles { spec_id: files.spec_id, files: files.files.iter().map(carried).collect::<Result<_>>()? })
    }

    /// The files again, in a process that has this table with the same schema.
    pub fn carried(&self, carried: &CarriedFiles) -> Result<DataFiles> {
        let spec_id = carried.spec_id;
        let partition = self.partition_type(spec_id)?;
        let files = carried.files.iter().map(|text| self.described(text, spec_id, &partition)).collect::<Result<_>>();
        Ok(DataFiles { files: files.with_context(|| format!("data files for table {} cannot be read", self.ident()))?, spec_id })
    }

    fn described(&self, text: &str, spec_id: i32, partition: &StructType) -> Result<DataFile> {
        Ok(deserialize_data_file_from_json(text, spec_id, partition, self.metadata().current_schema())?)
    }

    fn partition_type(&self, spec_id: i32) -> Result<StructType> {
        Ok(partition_spec(self.metadata(), spec_id)?.partition_type(self.metadata().current_schema())?)
    }
}
