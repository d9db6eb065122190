//! What each table is to be, as the definition has it. Nothing here asks a server.

use std::collections::BTreeMap;

use iceberg::{NamespaceIdent, TableIdent};

use super::definition::Definition;
use crate::bronze::{self, text_spec};
use crate::compatibility::Codec;
use crate::error::Result;
use crate::gold::{GoldPlan, GoldSettings};
use crate::silver::{SilverPlan, rejected};
use crate::storage::Storages;
use crate::table::logged::PartitionedSpec;
use crate::table::{RecordSpec, TableFormat, TableSpec, WriterSettings};

/// What other engines that write to an Iceberg table are told.
fn properties(definition: &Definition) -> BTreeMap<String, String> {
    match definition.tables.compatibility.lake_codec() {
        // What every table has from the start.
        Codec::Zstd => BTreeMap::new(),
        codec => BTreeMap::from([("write.parquet.compression-codec".to_owned(), codec.name().to_owned())]),
    }
}

/// The identifier of one of the pipeline's tables.
fn table_ident(definition: &Definition, table: &str) -> TableIdent {
    TableIdent::new(NamespaceIdent::new(definition.tables.database.clone()), table.to_owned())
}

/// Where a table lies: as configured (below the warehouse if relative), else in a directory of its own below the database's.
fn table_location(storages: &Storages, configured: Option<&str>, database: &str, table: &str) -> Result<String> {
    let warehouse = storages.warehouse();
    let location = match configured {
        Some(location) if location.starts_with('/') || location.contains(':') => location.to_owned(),
        Some(relative) => format!("{}/{relative}", warehouse.trim_end_matches('/')),
        None => format!("{}/{database}.db/{table}", warehouse.trim_end_matches('/')),
    };
    Ok(storages.qualify(location.trim_end_matches('/'))?)
}

/// Bronze as the definition has it.
pub(super) fn bronze_spec(definition: &Definition, storages: &Storages) -> Result<RecordSpec> {
    let settings = &definition.bronze;
    let ident = table_ident(definition, &settings.table);
    let location = table_location(storages, settings.location.as_deref(), &definition.tables.database, &settings.table)?;
    let comment = "records as read from Kafka: exact bytes and coordinates";
    Ok(match settings.format {
        TableFormat::Hive => RecordSpec::Logged(Box::new(text_spec(ident, &location, comment))),
        TableFormat::Iceberg => RecordSpec::Lake(Box::new(TableSpec {
            ident,
            location: Some(location),
            schema: bronze::schema(),
            partition_by: Vec::new(),
            sort_by: Vec::new(),
            properties: properties(definition),
            comment: Some(comment.to_owned()),
        })),
    })
}

/// Silver as the definition has it.
pub(super) fn silver_spec(definition: &Definition, plan: &SilverPlan, storages: &Storages) -> Result<RecordSpec> {
    let settings = &definition.silver;
    let ident = table_ident(definition, &settings.table);
    let location = table_location(storages, settings.location.as_deref(), &definition.tables.database, &settings.table)?;
    let comment = "records decoded, typed, enriched and checked".to_owned();
    Ok(match settings.format {
        TableFormat::Hive => {
            let partition_by = plan.partition_by().iter().map(|(column, _)| column.clone()).collect();
            let spec = PartitionedSpec { ident, location, schema: plan.arrow_schema(), partition_by, comment };
            RecordSpec::Logged(Box::new(spec.logged()?))
        }
        TableFormat::Iceberg => RecordSpec::Lake(Box::new(TableSpec {
            ident,
            location: Some(location),
            schema: plan.schema().clone(),
            partition_by: plan.partition_by().to_vec(),
            sort_by: plan.sort_by().unwrap_or_default().to_vec(),
            properties: properties(definition),
            comment: Some(comment),
        })),
    })
}

/// The table of rejected records as the definition has it.
pub(super) fn rejected_spec(definition: &Definition, storages: &Storages) -> Result<RecordSpec> {
    let table = definition.silver.rejected_table();
    let location = definition.silver.rejected.location.as_deref();
    Ok(RecordSpec::Lake(Box::new(TableSpec {
        ident: table_ident(definition, &table),
        location: Some(table_location(storages, location, &definition.tables.database, &table)?),
        schema: rejected::schema(),
        partition_by: Vec::new(),
        sort_by: Vec::new(),
        properties: properties(definition),
        comment: Some("records that could not be decoded or broke an expectation, with the reason".into()),
    })))
}

impl Definition {
    /// The gold tables, each with the location that it has or would get.
    pub fn gold_plans(&self, storages: &Storages) -> Result<Vec<GoldPlan>> {
        gold_plans(self, &SilverPlan::new(&self.silver)?, storages)
    }
}

/// The gold tables as the definition has them, over silver's columns.
pub(super) fn gold_plans(definition: &Definition, silver: &SilverPlan, storages: &Storages) -> Result<Vec<GoldPlan>> {
    let plan = |settings: &GoldSettings| {
        let configured = Some(settings.location.as_str()).filter(|location| !location.is_empty());
        let location = table_location(storages, configured, &definition.tables.database, &settings.table)?;
        let plan = GoldPlan::new(&GoldSettings { location, ..settings.clone() }, silver.arrow_schema())?;
        Ok(plan.with_files(definition.tables.compatibility.hive_files()))
    };
    definition.gold.iter().map(plan).collect()
}

/// How a layer's files are written.
pub(super) fn writer(definition: &Definition, no_dictionary: &[impl AsRef<str>], no_statistics: &[&str]) -> WriterSettings {
    let names = |columns: &[&str]| columns.iter().map(|name| (*name).to_owned()).collect();
    let plain: Vec<&str> = no_dictionary.iter().map(AsRef::as_ref).collect();
    WriterSettings {
        plain_columns: names(&plain),
        columns_without_statistics: names(no_statistics),
        compatibility: definition.tables.compatibility.clone(),
        ..WriterSettings::default()
    }
}

/// The silver columns that any gold table reads, in silver's order; none without gold.
pub(super) fn gold_columns(plans: &[GoldPlan]) -> Option<Vec<String>> {
    if plans.is_empty() {
        return None;
    }
    let mut columns: Vec<String> = Vec::new();
    for column in plans.iter().flat_map(GoldPlan::columns) {
        if !columns.iter().any(|known| known == column) {
            columns.push(column.to_owned());
        }
    }
    Some(columns)
}
