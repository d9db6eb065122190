//! A pipeline's settings: pipeline file, environment and flags laid over the defaults, into a [`Config`] that has been checked.
//!
//! Each module owns the struct of its settings; here they are composed, read and checked against each other. Where a value came from is
//! kept beside it, for `config show` and for error messages. Everything that is wrong is reported at once, with the line it stands on.
//! Apart from the pipeline file and the Hadoop configuration nothing is read, and no server is asked.
//!
//! Relative paths: `storage.warehouse`, `storage.hadoop_conf_dir` and `source.file.path` start at the directory of the pipeline file when they
//! stand in it (or nobody set them), at the working directory when they come from the environment or a flag. Locations of tables that
//! are neither URIs nor absolute paths stand below the warehouse.

mod decode;
mod misfit;
pub mod preset;
mod problem;
mod show;
mod sources;
#[cfg(test)]
mod tests;
mod tree;
mod validate;

use std::path::Path as FilePath;

use serde::{Deserialize, Serialize};

use crate::bronze::BronzeSettings;
use crate::catalog::CatalogSettings;
use crate::error::Result;
use crate::gold::GoldSettings;
use crate::metastore::MetastoreSettings;
use crate::pipeline::{Definition, PipelineSettings, TablesSettings};
use crate::query::QuerySettings;
use crate::silver::SilverSettings;
use crate::source::{SourceKind, SourceSettings};
use crate::storage::{HadoopConf, StorageSettings};
use crate::telemetry::LogSettings;
use crate::verify::VerifySettings;

pub use sources::{FlagSetting, PipelineFile, Sources};

use problem::{Problem, error_of};
use sources::path_of;
use tree::{Node, Origin, Value};

/// All settings of one pipeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub pipeline: PipelineSettings,
    pub source: SourceSettings,
    pub storage: StorageSettings,
    pub metastore: MetastoreSettings,
    pub catalog: CatalogSettings,
    pub tables: TablesSettings,
    pub bronze: BronzeSettings,
    pub silver: SilverSettings,
    pub gold: Vec<GoldSettings>,
    pub query: QuerySettings,
    pub verify: VerifySettings,
    pub log: LogSettings,
}

/// A configuration and where its values came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    origins: Node,
}

impl Config {
    /// Reads and checks a configuration; the error names everything that is wrong.
    pub fn load(sources: &Sources) -> Result<Loaded> {
        let loaded = Self::load_unchecked(sources)?;
        match validate::validate(&loaded.config, &loaded.origins) {
            problems if problems.is_empty() => Ok(loaded),
            problems => Err(error_of(&problems)),
        }
    }

    /// Reads a configuration whose layers nobody is going to run: keys and types are right, but silver may have no columns yet. For
    /// commands that need an address and no pipeline.
    pub fn load_unchecked(sources: &Sources) -> Result<Loaded> {
        let (mut root, mut problems) = sources.merge();
        problems.extend(from_hadoop(&mut root).err());
        let (config, more) = decode::decode::<Config>(&root);
        problems.extend(more);
        match config {
            Some(mut config) if problems.is_empty() => {
                resolve_paths(&mut config, &root, sources.file.as_ref());
                fill_numeric_columns(&mut config, &root);
                Ok(Loaded { config, origins: root })
            }
            config => {
                // What is known so far may be wrong in other ways: say so now, not after the next attempt.
                let more = config.map(|config| validate::validate(&config, &root)).unwrap_or_default();
                problems.extend(more.into_iter().filter(|_| sources.file.is_some()));
                Err(error_of(&problems))
            }
        }
    }

    /// What the pipeline's stages take.
    pub fn definition(&self) -> Definition {
        Definition {
            pipeline: self.pipeline.clone(),
            source: self.source.clone(),
            storage: self.storage.clone(),
            metastore: self.metastore.clone(),
            tables: self.tables.clone(),
            catalog: self.catalog.clone(),
            bronze: self.bronze.clone(),
            silver: self.silver.clone(),
            gold: self.gold.clone(),
        }
    }

    /// Where a table lies, from its `location` setting: URIs and absolute paths stay, others stand below the warehouse.
    pub fn location(&self, configured: &str) -> String {
        let configured = configured.trim_end_matches('/');
        if configured.is_empty() || configured.starts_with('/') || configured.contains(':') {
            return configured.to_string();
        }
        let below = configured.trim_start_matches("./").trim_matches('/');
        format!("{}/{below}", self.storage.warehouse.trim_end_matches('/'))
    }
}

impl Loaded {
    /// The settings in force as a pipeline file, each with its origin; secrets are masked.
    pub fn show(&self) -> String {
        show::render(&self.config, &self.origins)
    }
}

/// Unless somebody says otherwise, those cells of a CSV file are numbers that silver reads as numbers. Where there is no silver (`produce`
/// without a pipeline file) it is the shipped preset's.
fn fill_numeric_columns(config: &mut Config, root: &Node) {
    if root.find(&path_of("source.file.numeric_columns")).is_some() {
        return;
    }
    config.source.file.numeric_columns = match config.silver.columns.is_empty() {
        false => config.silver.number_fields(),
        true => preset::PRESETS.first().and_then(|preset| preset.silver().ok()).unwrap_or_default().number_fields(),
    };
}

/// What the Hadoop configuration says where nothing else does: the metastore's addresses, and the warehouse's HDFS.
fn from_hadoop(root: &mut Node) -> std::result::Result<(), Problem> {
    let setting = |root: &Node, path: &str| match root.find(&path_of(path)).map(|node| &node.value) {
        Some(Value::Text(text) | Value::Untyped(text)) => Some(text.clone()),
        _ => None,
    };
    // Only when it was asked for: a Hadoop installed on the machine must not move an embedded pipeline onto a cluster.
    let Some(directory) = setting(root, "storage.hadoop_conf_dir") else { return Ok(()) };
    let problem = |root: &Node, message: String| Problem {
        origin: root.find(&path_of("storage.hadoop_conf_dir")).map_or(Origin::Default, |node| node.origin.clone()),
        path: path_of("storage.hadoop_conf_dir"),
        message,
        hint: None,
    };
    let conf = HadoopConf::load(FilePath::new(&directory)).map_err(|error| problem(root, error.chain()))?;
    let uris = path_of("metastore.uris");
    if let Some(addresses) = conf.get("hive.metastore.uris").filter(|addresses| !addresses.is_empty())
        && root.find(&uris).is_none()
    {
        let node = Node::untyped(addresses, Origin::Hadoop("hive-site.xml".into()));
        root.set(&uris, node).map_err(|missing| problem(root, format!("there is no {missing}")))?;
    }
    let warehouse = path_of("storage.warehouse");
    if let Some(default_fs) = conf.get("fs.defaultFS").filter(|fs| fs.starts_with("hdfs://"))
        && root.find(&warehouse).is_none()
    {
        let node = Node::untyped(format!("{}/", default_fs.trim_end_matches('/')), Origin::Hadoop("core-site.xml".into()));
        root.set(&warehouse, node).map_err(|missing| problem(root, format!("there is no {missing}")))?;
    }
    Ok(())
}

/// Makes relative paths start where the module head says.
fn resolve_paths(config: &mut Config, root: &Node, file: Option<&PipelineFile>) {
    let Some(file) = file else { return };
    let from_file = |path: &str| {
        let origin = root.find(&path_of(path)).map_or(&Origin::Default, |node| &node.origin);
        matches!(origin, Origin::File { .. } | Origin::Default)
    };
    let join = |path: &FilePath| match path.strip_prefix(".") {
        Ok(path) => file.directory.join(path),
        Err(_) => file.directory.join(path),
    };
    let here = file.directory == FilePath::new(".");
    let warehouse = &mut config.storage.warehouse;
    let is_relative = !warehouse.starts_with('/') && !warehouse.contains("://") && !warehouse.starts_with("file:");
    if is_relative && !here && from_file("storage.warehouse") {
        *warehouse = join(FilePath::new(warehouse.as_str())).display().to_string();
    }
    if let Some(directory) = config.storage.hadoop_conf_dir.as_mut().filter(|path| path.is_relative() && !here)
        && from_file("storage.hadoop_conf_dir")
    {
        *directory = join(directory);
    }
    let source = &mut config.source;
    if source.kind == SourceKind::File && source.topic.is_empty() {
        // The file's name in the tables is the one that was configured, wherever the command was started.
        source.topic = source.file.path.display().to_string();
    }
    if source.file.path.is_relative() && !source.file.path.as_os_str().is_empty() && !here && from_file("source.file.path") {
        source.file.path = join(&source.file.path);
    }
}
