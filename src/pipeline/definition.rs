//! Everything that a pipeline file defines, as the stages take it.

use serde::{Deserialize, Serialize};

use super::settings::PipelineSettings;
use crate::bronze::BronzeSettings;
use crate::catalog::CatalogSettings;
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
}

impl Default for TablesSettings {
    fn default() -> Self {
        Self { database: "datalake".into() }
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
