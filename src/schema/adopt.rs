//! Columns that fields of messages have become by themselves (`silver.unknown_fields = "add"`).
//!
//! A table remembers them in a property, by field id: the pipeline file does not name them, and whoever writes the table reads them from
//! there, under the names that they have by then. Column and property are one version of the table, so neither is there without the other.
//!
//! *Invariants*: such a column is optional, and new; a field that the pipeline file reads by now is the file's.

use std::collections::HashMap;
use std::time::Duration;

use iceberg::spec::TableMetadata;
use iceberg::{TableRequirement, TableUpdate};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::change::{self, Change, FieldPath};
use super::{commit, names};
use crate::error::{Error, Result};
use crate::silver::{ColumnSettings, OWN_COLUMNS, SilverSettings, is_column_name};
use crate::table::LakeTable;

/// The property that remembers them.
pub const ADDED_FIELDS: &str = "lakesmith.added-fields";

/// Within which so many fields may become columns.
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// The longest name, less some digits that tell it from another.
const NAME_BYTES: usize = 120;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Added {
    /// The column's field id.
    id: i32,
    at_ms: i64,
    column: ColumnSettings,
}

/// What became of fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Adopted {
    /// The new columns.
    pub added: Vec<ColumnSettings>,
    /// Fields for which there is no room today.
    pub postponed: Vec<String>,
}

/// The definition with the columns that the table has got by itself.
pub fn with_added(settings: &SilverSettings, table: &LakeTable) -> SilverSettings {
    let mut settings = settings.clone();
    for column in columns(table.metadata()) {
        let reads =
            |known: &ColumnSettings| known.field.as_ref().unwrap_or(&known.name) == column.field.as_ref().unwrap_or(&column.name);
        let has_name = |name: &str| name.eq_ignore_ascii_case(&column.name);
        let is_declared = settings.columns.iter().any(|known| reads(known) || has_name(&known.name))
            || settings.derive.iter().any(|known| has_name(&known.name));
        if !is_declared {
            settings.columns.push(column);
        }
    }
    settings
}

/// The columns that a table has got by itself and still has, under their names of now.
pub(super) fn columns(metadata: &TableMetadata) -> Vec<ColumnSettings> {
    let named = |added: Added| {
        let field = metadata.current_schema().field_by_id(added.id)?;
        Some(ColumnSettings { name: field.name.clone(), ..added.column })
    };
    remembered(metadata).into_iter().filter_map(named).collect()
}

fn remembered(metadata: &TableMetadata) -> Vec<Added> {
    let Some(text) = metadata.properties().get(ADDED_FIELDS) else { return Vec::new() };
    serde_json::from_str(text).unwrap_or_else(|error| {
        warn!(property = ADDED_FIELDS, %error, "the columns that were added by themselves are not known any more: nobody fills them");
        Vec::new()
    })
}

/// Makes columns of fields, at most `per_day` within 24 hours, all in one version of the table.
pub async fn adopt(table: &LakeTable, found: Vec<ColumnSettings>, per_day: usize, now_ms: i64) -> Result<Adopted> {
    let metadata = table.metadata();
    let mut remembered = remembered(metadata);
    let since_ms = now_ms.saturating_sub(i64::try_from(DAY.as_millis()).unwrap_or(i64::MAX));
    let recent = remembered.iter().filter(|added| added.at_ms > since_ms).count();
    let mut adopted = Adopted::default();
    let mut changes = Vec::new();
    let mut taken: Vec<String> = metadata.current_schema().as_struct().fields().iter().map(|field| field.name.clone()).collect();
    for column in found {
        if recent + adopted.added.len() >= per_day {
            adopted.postponed.push(column.field.unwrap_or(column.name));
            continue;
        }
        let name = free_name(&column.name, &taken);
        taken.push(name.clone());
        changes.push(Change::Add {
            path: FieldPath::column(&name),
            field_type: column.column_type.to_string(),
            doc: column.doc.clone(),
            position: None,
            default: None,
        });
        adopted.added.push(ColumnSettings { name, ..column });
    }
    if adopted.added.is_empty() {
        return Ok(adopted);
    }
    let schema = change::apply(metadata, &OWN_COLUMNS, &changes)?;
    for column in &adopted.added {
        let id = schema.field_id_by_name(&column.name);
        let id = id.ok_or_else(|| Error::failed(format!("column {} was not added", column.name)))?;
        remembered.push(Added { id, at_ms: now_ms, column: column.clone() });
    }
    let text =
        serde_json::to_string(&remembered).map_err(|error| Error::failed("the new columns are not JSON").caused_by(error))?;
    let updates = vec![
        TableUpdate::AddSchema { schema },
        TableUpdate::SetCurrentSchema { schema_id: -1 },
        TableUpdate::SetProperties { updates: HashMap::from([(ADDED_FIELDS.to_owned(), text)]) },
    ];
    commit(table, requirements(metadata), updates).await?;
    Ok(adopted)
}

/// That the schema is the one which the change was worked out on.
pub(super) fn requirements(metadata: &TableMetadata) -> Vec<TableRequirement> {
    vec![
        TableRequirement::UuidMatch { uuid: metadata.uuid() },
        TableRequirement::CurrentSchemaIdMatch { current_schema_id: metadata.current_schema_id() },
        TableRequirement::LastAssignedFieldIdMatch { last_assigned_field_id: metadata.last_column_id() },
        TableRequirement::DefaultSpecIdMatch { default_spec_id: metadata.default_partition_spec_id() },
    ]
}

/// A name that every engine takes and tells from the others.
fn free_name(field: &str, taken: &[String]) -> String {
    let mut name: String = field.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(NAME_BYTES).collect();
    if !is_column_name(&name) {
        name.insert(0, '_');
    }
    let is_free =
        |name: &str| names::ensure_usable(name).is_ok() && names::ensure_free(name, taken.iter().map(String::as_str)).is_ok();
    if is_free(&name) {
        return name;
    }
    (2..).map(|number| format!("{name}_{number}")).find(|name| is_free(name)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_so_that_every_engine_takes_them() {
        let taken = ["Coupon", "a_b", "a_b_2"].map(str::to_owned);
        for (field, name) in [
            ("Code", "Code"),
            ("coupon", "coupon_2"),
            ("a b", "a_b_3"),
            ("größe", "gr__e"),
            ("1st", "_1st"),
            ("", "_"),
            ("_pos", "_pos_2"),
            ("$price", "_price"),
        ] {
            assert_eq!(free_name(field, &taken), name, "{field}");
        }
        assert_eq!(free_name(&"x".repeat(300), &[]).len(), NAME_BYTES);
    }
}
