//! A reprocessing whose rows a computing engine has computed, by a script that a command of the user's runs.
//!
//! | engine | computes | who decides a record |
//! |---|---|---|
//! | [`spark`] | every record | lakesmith itself, which Spark starts on its machines (`worker`) |
//! | [`trino`] | records that its SQL reads exactly as silver does ([`SilverPlan::trino_rows`]) | lakesmith, which checks the rows |
//!
//! *Failure*: the tables are as they were, and the same command asks for what they still lack.

mod command;
mod part;
mod sample;
mod script;
mod spark;
mod staging;
mod trino;
mod worker;

use tokio_util::sync::CancellationToken;

use super::ground::Ground;
use super::{Definition, SilverStage, Tally};
use crate::compatibility::Codec;
use crate::error::{Error, Result};
use crate::silver::SilverPlan;
use crate::table::{LakeTable, TableFormat};

pub(super) use staging::{clear, delete};
pub use worker::reprocess_parts;

const ALONE: &str = "leave --engine out; a range that is too large is done in parts, by --offsets or --since and --until";

const SPARK: &str = "use --engine spark, which takes every pipeline";

/// A computing engine that runs SQL scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Spark {
        /// Most offsets that one task computes.
        part_records: u64,
    },
    Trino,
}

impl Engine {
    /// A command that runs its script, where nothing more needs to be said.
    pub fn command(self) -> &'static str {
        match self {
            Self::Spark { .. } => "spark-sql -f {script}",
            Self::Trino => "trino --catalog iceberg -f {script}",
        }
    }
}

/// An engine and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    pub engine: Engine,
    /// A command of the shell that runs the script at `{script}`, and for Spark prints the rows of its query.
    pub command: String,
}

impl EngineOptions {
    /// Refuses pipelines whose tables an engine's machines cannot reach, or whose rows it cannot compute, and commands that run no script.
    pub fn ensure_fits(&self, definition: &Definition) -> Result<()> {
        if !self.command.contains(command::SCRIPT) {
            return Err(Error::config(format!("--engine-command does not say where the script goes: {}", self.command))
                .hint(format!("write {{script}} in its place, for example \"{}\"", self.engine.command())));
        }
        if definition.metastore.uris.is_empty() {
            return Err(
                Error::config("the embedded metastore serves this process alone: an engine's workers cannot ask it").hint(ALONE)
            );
        }
        let warehouse = &definition.storage.warehouse;
        if !warehouse.starts_with("hdfs://") {
            return Err(Error::config(format!("{warehouse} is on this machine alone: an engine's workers cannot write there"))
                .hint(ALONE));
        }
        if definition.silver.format == TableFormat::Hive {
            return Err(Error::config("silver is a plain Hive table, whose files are named in the order of its commits")
                .hint("leave --engine out"));
        }
        match self.engine {
            Engine::Spark { .. } => Ok(()),
            Engine::Trino => ensure_trino(definition),
        }
    }

    /// Refuses a silver into which an engine would write other rows than lakesmith.
    pub fn ensure_takes(&self, silver: &LakeTable) -> Result<()> {
        let fields = silver.metadata().current_schema().as_struct().fields();
        match (self.engine, fields.iter().find(|field| field.write_default.is_some())) {
            (Engine::Trino, Some(field)) => Err(Error::config(format!(
                "column {} of table {} has a default, which Trino does not fill",
                field.name,
                silver.ident()
            ))
            .hint(SPARK)),
            _ => Ok(()),
        }
    }
}

fn ensure_trino(definition: &Definition) -> Result<()> {
    if definition.bronze.format == TableFormat::Hive {
        return Err(Error::config("bronze is a plain Hive table, which Trino reads by another catalog than silver").hint(SPARK));
    }
    if definition.tables.compatibility.lake_codec() != Codec::Zstd {
        return Err(
            Error::config("tables.compatibility has hive-3.1, which needs files in snappy, and Trino writes zstd").hint(SPARK)
        );
    }
    let rows = SilverPlan::new(&definition.silver)?.trino_rows();
    rows.map(|_| ()).map_err(|error| if error.hint_text().is_some() { error } else { error.hint(SPARK) })
}

/// Has an engine compute what a stage lacks, and commits it. False if it was told to stop.
pub(super) async fn fill(
    stage: &mut SilverStage,
    ground: &Ground<'_>,
    options: &EngineOptions,
    tally: &Tally,
    shutdown: &CancellationToken,
) -> Result<bool> {
    if !stage.in_step()? {
        return Err(Error::stop(format!("table {} is ahead of {}", stage.rejected.ident(), stage.silver.ident()))
            .hint("its pointer went back; the same command without --engine goes on"));
    }
    let ranges = stage.lacking(&ground.bronze)?;
    if ranges.is_empty() {
        return Ok(true);
    }
    match options.engine {
        Engine::Spark { part_records } => {
            spark::fill(stage, ground, &ranges, (&options.command, part_records), tally, shutdown).await
        }
        Engine::Trino => trino::fill(stage, ground, &ranges, &options.command, tally, shutdown).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_cannot_do_is_refused() {
        let mut definition = Definition::default();
        let options = |engine: Engine, command: &str| EngineOptions { engine, command: command.to_owned() };
        let spark = Engine::Spark { part_records: 1 };
        let refused = |engine: Engine, definition: &Definition| {
            options(engine, "x {script}").ensure_fits(definition).unwrap_err().to_string()
        };
        assert!(options(spark, "spark-sql -f").ensure_fits(&definition).unwrap_err().to_string().contains("--engine-command"));
        assert!(refused(spark, &definition).contains("the embedded metastore serves this process alone"));
        definition.metastore.uris = vec!["thrift://m:9083".to_owned()];
        assert!(refused(Engine::Trino, &definition).contains("./lakehouse is on this machine alone"));
        definition.storage.warehouse = "hdfs://n:8020/w".to_owned();
        assert!(options(spark, "x {script}").ensure_fits(&definition).is_ok());

        let preset: toml::Table = include_str!("../../../config/amazon-sales.toml").parse().unwrap();
        definition.silver = preset["silver"].clone().try_into().unwrap();
        assert!(options(Engine::Trino, "x {script}").ensure_fits(&definition).is_ok());
        let plain = definition.clone();
        definition.silver.derive[0].sql = "length(regexp_replace(City, 'a', 'b'))".to_owned();
        let error = options(Engine::Trino, "x {script}").ensure_fits(&definition).unwrap_err();
        assert!(error.to_string().contains("derived column Year is not for Trino"), "{error}");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("--engine spark")), "{error}");
        definition = plain.clone();
        definition.bronze.format = TableFormat::Hive;
        assert!(refused(Engine::Trino, &definition).contains("bronze is a plain Hive table"));
        definition = plain.clone();
        definition.tables.compatibility = serde_json::from_str(r#"["hive-3.1", "trino"]"#).unwrap();
        assert!(refused(Engine::Trino, &definition).contains("snappy"));
        definition = plain;
        definition.silver.format = TableFormat::Hive;
        assert!(refused(spark, &definition).contains("a plain Hive table"));
    }
}
