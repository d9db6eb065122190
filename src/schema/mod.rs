//! Changes of an Iceberg table's columns, partitioning and properties: what `lakesmith schema` does. And the plans for gold tables, which
//! their maintainers carry out.
//!
//! A change is worked out on the schema that the table has, checked, and committed as one version of the table's metadata; the columns of
//! its entry in the metastore change in the same call. No data file is read or written, so it costs the same however large the table is.
//!
//! *Invariants*: a column keeps its field id whatever else changes, and no id is used again, so that every file, old or new, is read by
//! the ids that it was written with. A change takes nothing away that lakesmith itself needs (the coordinates of records), that the table
//! is partitioned by, or that an engine could not read.
//!
//! *Failure*: a change is committed only on the schema that it was worked out on. Batches that others commit meanwhile don't disturb it;
//! another change of the schema does, and it is told. What is refused has changed nothing.

mod adopt;
mod change;
mod defaults;
mod describe;
mod gold;
mod names;
mod partitions;
mod plan;
mod sorting;
mod types;

pub use adopt::{Adopted, adopt, with_added};
pub use change::{Change, FieldPath, NewDefault, Position};
pub use describe::{Difference, Entry, FieldLine, difference, fields, history};
pub use gold::{GoldStep, Redefinition};
pub use names::remark;
pub use partitions::{PartitionChange, partition_fields};
pub use plan::{Plan, Step, Verdict, Wanted};
pub use sorting::sort_keys;

use std::collections::HashMap;

use iceberg::spec::{FormatVersion, NestedFieldRef, Schema};
use iceberg::{TableIdent, TableRequirement, TableUpdate};

use crate::catalog::{CommitOutcome, HiveCatalog, Loaded, Rejection};
use crate::error::{Error, Result};
use crate::table::{LakeTable, SortKey, sort_order};

/// Opens the Iceberg table whose schema is to be shown or changed.
pub async fn open(catalog: &HiveCatalog, ident: &TableIdent) -> Result<LakeTable> {
    LakeTable::open(catalog, ident)
        .await?
        .ok_or_else(|| Error::config(format!("table {ident} does not exist")).hint("see what there is with `lakesmith tables`"))
}

/// Makes changes of columns, all in one version of the table; with a default, the table becomes one of format version 3. Returns the schema as
/// it is then; none if there was nothing to change. The columns `kept` stay what they are.
pub async fn apply(table: &LakeTable, kept: &[&str], changes: &[Change]) -> Result<Option<Schema>> {
    let metadata = table.metadata();
    let schema = change::apply(metadata, kept, changes).map_err(|error| error.context(unchanged(table)))?;
    if schema.as_struct() == metadata.current_schema().as_struct() {
        return Ok(None);
    }
    let mut updates = Vec::new();
    if defaults::has_any(&schema) && metadata.format_version() < FormatVersion::V3 {
        updates.push(TableUpdate::UpgradeFormatVersion { format_version: FormatVersion::V3 });
    }
    updates.extend([TableUpdate::AddSchema { schema }, TableUpdate::SetCurrentSchema { schema_id: -1 }]);
    let loaded = commit(table, adopt::requirements(metadata), updates).await?;
    Ok(Some(loaded.version.metadata.current_schema().as_ref().clone()))
}

/// Changes how rows that come from now on are partitioned; files that are there stay as they are. Returns the table's partition fields then;
/// none if there was nothing to change.
pub async fn repartition(table: &LakeTable, change: &PartitionChange) -> Result<Option<Vec<String>>> {
    let metadata = table.metadata();
    let spec = partitions::changed(metadata, change).map_err(|error| error.context(unchanged(table)))?;
    let Some(spec) = spec else { return Ok(None) };
    let requirements = vec![
        TableRequirement::UuidMatch { uuid: metadata.uuid() },
        TableRequirement::CurrentSchemaIdMatch { current_schema_id: metadata.current_schema_id() },
        TableRequirement::DefaultSpecIdMatch { default_spec_id: metadata.default_partition_spec_id() },
        TableRequirement::LastAssignedPartitionIdMatch { last_assigned_partition_id: metadata.last_partition_id() },
    ];
    let updates = vec![TableUpdate::AddSpec { spec }, TableUpdate::SetDefaultSpec { spec_id: -1 }];
    let loaded = commit(table, requirements, updates).await?;
    Ok(Some(partition_fields(&loaded.version.metadata)))
}

/// Changes the order in which engines are asked to sort rows that they write from now on; no keys for none.
async fn resort(table: &LakeTable, keys: &[SortKey]) -> Result<()> {
    let metadata = table.metadata();
    let sort_order = sort_order(metadata.current_schema(), keys).map_err(|error| error.context(unchanged(table)))?;
    let requirements = vec![
        TableRequirement::UuidMatch { uuid: metadata.uuid() },
        TableRequirement::CurrentSchemaIdMatch { current_schema_id: metadata.current_schema_id() },
        TableRequirement::DefaultSortOrderIdMatch { default_sort_order_id: metadata.default_sort_order_id() },
    ];
    let updates = vec![TableUpdate::AddSortOrder { sort_order }, TableUpdate::SetDefaultSortOrder { sort_order_id: -1 }];
    commit(table, requirements, updates).await.map(|_| ())
}

/// Sets a property of the table, or removes it where there is no value.
pub async fn set_property(table: &LakeTable, key: &str, value: Option<&str>) -> Result<bool> {
    names::ensure_free_property(key).map_err(|error| error.context(unchanged(table)))?;
    let known = table.metadata().properties().get(key).map(String::as_str);
    if known == value {
        return Ok(false);
    }
    let requirements = vec![TableRequirement::UuidMatch { uuid: table.uuid() }];
    let update = match value {
        Some(value) => TableUpdate::SetProperties { updates: HashMap::from([(key.to_owned(), value.to_owned())]) },
        None => TableUpdate::RemoveProperties { removals: vec![key.to_owned()] },
    };
    commit(table, requirements, vec![update]).await?;
    Ok(true)
}

/// A column by its name as it is spelled, else in another case: engines know no difference.
fn column<'a>(schema: &'a Schema, name: &str) -> Option<&'a NestedFieldRef> {
    schema.field_by_name(name).or_else(|| schema.field_by_name_case_insensitive(name))
}

async fn commit(table: &LakeTable, requirements: Vec<TableRequirement>, updates: Vec<TableUpdate>) -> Result<Loaded> {
    match table.catalog().commit(table.ident(), requirements, updates).await {
        CommitOutcome::Rejected(Rejection::Moved { found: Some(_) }) => {
            Err(Error::failed(format!("table {} was changed by someone else in the meantime, and stays as it is", table.ident()))
                .hint("look at it with `lakesmith schema history`, then repeat the command if the change is still wanted"))
        }
        outcome => outcome.into_result(table.ident()),
    }
}

fn unchanged(table: &LakeTable) -> String {
    format!("table {} stays as it is", table.ident())
}
