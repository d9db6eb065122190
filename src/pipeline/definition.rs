//! Everything that a pipeline file defines, as the stages take it.

use serde::{Deserialize, Serialize};

use super::settings::PipelineSettings;
use crate::bronze::BronzeSettings;
use crate::catalog::CatalogSettings;
use crate::compatibility::Compatibility;
use crate::gold::GoldSettings;
use crate::metastore::MetastoreSettings;
use crate::silver::SilverSettings;
use crate::source::SourceSettings;
use crate::storage::StorageSettings;

/// `[tables]`: where the tables are registered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TablesSettings {
    /// Database of the metastore that holds all tables and views of the pipeline; created if missing.
    pub database: String,
    /// The engines that must read every table: "hive-3.1", "hive-4", "trino", "spark", "iceberg-1.9".
    pub compatibility: Compatibility,
}

impl Default for TablesSettings {
    fn default() -> Self {
        Self { database: "datalake".into(), compatibility: Compatibility::default() }
    }
}

/// One pipeline: the settings of every stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Definition {
    pub pipeline: PipelineSettings,
    pub source: SourceSettings,
    pub storage: StorageSettings,
    pub metastore: MetastoreSettings,
    pub tables: TablesSettings,
    pub catalog: CatalogSettings,
    pub bronze: BronzeSettings,
    pub silver: SilverSettings,
    pub gold: Vec<GoldSettings>,
}
