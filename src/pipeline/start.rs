//! The start of a session: every question is asked before anything is changed.
//!
//! The order matters. First what needs no server (the plans), then the source (is the topic there, is it the one the tables were filled
//! from, has it the next offset), then the tables that exist. Only then are missing databases and tables created.

use std::collections::BTreeMap;
use std::sync::Arc;

use iceberg::{NamespaceIdent, TableIdent};
use tracing::info;

use super::definition::Definition;
use super::gold_task::{self, GoldTasks};
use super::positions::{distance, ensure_partitions_exist};
use super::session::Session;
use super::silver_stage::SilverParts;
use super::silver_state::Silver;
use super::tally::Tally;
use super::{RunOptions, Until};
use crate::bronze;
use crate::catalog::Lakehouse;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::gold::{GoldPlan, GoldSettings};
use crate::silver::{SilverPlan, rejected};
use crate::source;
use crate::storage::Storages;
use crate::table::{LakeTable, Origin, TableSpec, WriterSettings};

/// Offsets that one step of silver's catch-up reads: about a cycle's worth.
const CATCH_UP_RECORDS: i64 = 500_000;

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
fn bronze_spec(definition: &Definition, storages: &Storages) -> Result<TableSpec> {
    let settings = &definition.bronze;
    Ok(TableSpec {
        ident: table_ident(definition, &settings.table),
        location: Some(table_location(storages, settings.location.as_deref(), &definition.tables.database, &settings.table)?),
        schema: bronze::schema(),
        partition_by: Vec::new(),
        properties: BTreeMap::new(),
        comment: Some("records as read from Kafka: exact bytes and coordinates".into()),
    })
}

/// Silver as the definition has it.
fn silver_spec(definition: &Definition, plan: &SilverPlan, storages: &Storages) -> Result<TableSpec> {
    let settings = &definition.silver;
    Ok(TableSpec {
        ident: table_ident(definition, &settings.table),
        location: Some(table_location(storages, settings.location.as_deref(), &definition.tables.database, &settings.table)?),
        schema: plan.schema().clone(),
        partition_by: plan.partition_by().to_vec(),
        properties: BTreeMap::new(),
        comment: Some("records decoded, typed, enriched and checked".into()),
    })
}

/// The table of rejected records as the definition has it.
fn rejected_spec(definition: &Definition, storages: &Storages) -> Result<TableSpec> {
    let table = definition.silver.rejected_table();
    let location = definition.silver.rejected.location.as_deref();
    Ok(TableSpec {
        ident: table_ident(definition, &table),
        location: Some(table_location(storages, location, &definition.tables.database, &table)?),
        schema: rejected::schema(),
        partition_by: Vec::new(),
        properties: BTreeMap::new(),
        comment: Some("records that could not be decoded or broke an expectation, with the reason".into()),
    })
}

/// The gold tables as the definition has them, over silver's columns.
fn gold_plans(definition: &Definition, silver: &SilverPlan, storages: &Storages) -> Result<Vec<GoldPlan>> {
    let plan = |settings: &GoldSettings| {
        let configured = Some(settings.location.as_str()).filter(|location| !location.is_empty());
        let location = table_location(storages, configured, &definition.tables.database, &settings.table)?;
        GoldPlan::new(&GoldSettings { location, ..settings.clone() }, silver.arrow_schema())
    };
    definition.gold.iter().map(plan).collect()
}

/// Opens source and tables and stands where the tables end.
pub(super) async fn open<'a>(
    definition: &'a Definition,
    lakehouse: &Lakehouse,
    options: &RunOptions,
    tally: &Tally,
) -> Result<(Session<'a>, GoldTasks)> {
    let plan = Arc::new(SilverPlan::new(&definition.silver)?);
    let gold_plans = gold_plans(definition, &plan, lakehouse.storages())?;

    let mut source = source::open(&definition.source).await?;
    let identity = source.identity().clone();
    let origin = Origin { topic: identity.topic, topic_id: identity.topic_id, cluster_id: identity.cluster_id };
    let watermarks = source.watermarks().await?;

    let catalog = lakehouse.catalog();
    let spec = bronze_spec(definition, lakehouse.storages())?;
    let checkpoint = match LakeTable::open(catalog, &spec.ident).await? {
        None => None,
        Some(table) => {
            table.ensure_same_source(&origin)?;
            table.checkpoint()?
        }
    };
    let checkpoint =
        checkpoint.unwrap_or_else(|| Checkpoint::start(&origin.topic, origin.topic_id.clone(), origin.cluster_id.clone()));
    ensure_partitions_exist(&checkpoint, &watermarks)?;
    source.assign(&checkpoint.next_offsets()).await?;

    let bronze = LakeTable::open_or_create(catalog, &spec).await?;
    tally.layer("bronze", &bronze.ident().to_string());
    let parts = SilverParts {
        catalog: catalog.clone(),
        silver: silver_spec(definition, &plan, lakehouse.storages())?,
        rejected: rejected_spec(definition, lakehouse.storages())?,
        silver_writer: writer(plan.no_dictionary(), &[]),
        rejected_writer: writer(&rejected::NO_DICTIONARY, &rejected::NO_STATISTICS),
        origin: origin.clone(),
        bronze_uuid: bronze.uuid(),
        gold_columns: gold_columns(&gold_plans),
        catch_up_records: CATCH_UP_RECORDS,
        shutdown: options.shutdown.clone(),
        tally: tally.clone(),
        plan,
    };
    let silver_ident = parts.silver.ident.clone();
    let (gold, senders) = gold_task::prepare(gold_plans, &definition.tables.database, &definition.pipeline.retry);
    let silver = Silver::open(parts, &bronze, &definition.pipeline.retry, senders).await?;
    let gold = gold.start(lakehouse, &silver_ident, tally);

    let positions = source.positions();
    let ends: BTreeMap<_, _> = watermarks.into_iter().map(|(partition, range)| (partition, range.end)).collect();
    let waiting = distance(&positions, &ends);
    tally.expect(waiting);
    info!(topic = %origin.topic, partitions = ends.len(), records_waiting = waiting, "reading continues where bronze ends");
    let session = Session {
        settings: &definition.pipeline,
        origin,
        bronze_writer: writer(&bronze::NO_DICTIONARY, &bronze::NO_STATISTICS),
        bronze,
        silver,
        tally: tally.clone(),
        shutdown: options.shutdown.clone(),
        ends: (options.until == Until::CaughtUp).then_some(ends),
        source,
    };
    Ok((session, gold))
}

/// How a layer's files are written.
fn writer(no_dictionary: &[impl AsRef<str>], no_statistics: &[&str]) -> WriterSettings {
    let names = |columns: &[&str]| columns.iter().map(|name| (*name).to_owned()).collect();
    let plain: Vec<&str> = no_dictionary.iter().map(AsRef::as_ref).collect();
    WriterSettings { plain_columns: names(&plain), columns_without_statistics: names(no_statistics), ..WriterSettings::default() }
}

/// The silver columns that any gold table reads, in silver's order; none without gold.
fn gold_columns(plans: &[GoldPlan]) -> Option<Vec<String>> {
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
