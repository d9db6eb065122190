//! How rows are partitioned, and the spec that a change leads to.

use iceberg::spec::{PartitionField, TableMetadata, Transform, UnboundPartitionField, UnboundPartitionSpec};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::silver::partition_field;
use crate::table::{field_text, partition_name};

/// What is to be done to a table's partitioning. Fields are written as SQL writes them: `Year`, `month(OrderDate)`, `bucket(16, CustomerID)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartitionChange {
    Add(String),
    Drop(String),
    /// One by another, which takes its place.
    Replace {
        old: String,
        new: String,
    },
}

/// The fields that a table is partitioned by, as they are written.
pub fn partition_fields(metadata: &TableMetadata) -> Vec<String> {
    let schema = metadata.current_schema();
    let column = |id| schema.name_by_field_id(id).unwrap_or("?");
    let fields = metadata.default_partition_spec().fields().iter().filter(|field| field.transform != Transform::Void);
    fields.map(|field| field_text(column(field.source_id), field.transform)).collect()
}

/// Reads a partition field: its column and the transform of it.
fn parse_transform(text: &str) -> Result<(String, Transform)> {
    partition_field(text).ok_or_else(|| {
        Error::config(format!("`{text}` is no partition field")).hint(
            "write a column's name, or year, month, day or hour of it as in month(OrderDate), bucket(16, c) or truncate(10, c)",
        )
    })
}

/// The spec after a change; none if it is what the table has.
pub(super) fn changed(metadata: &TableMetadata, change: &PartitionChange) -> Result<Option<UnboundPartitionSpec>> {
    let mut fields: Vec<UnboundPartitionField> = metadata
        .default_partition_spec()
        .fields()
        .iter()
        .filter(|field| field.transform != Transform::Void)
        .map(unbound)
        .collect();
    match change {
        PartitionChange::Add(text) => {
            let field = new_field(metadata, text)?;
            ensure_new(&fields, &field, text)?;
            fields.push(field);
        }
        PartitionChange::Drop(text) => {
            let at = find(metadata, &fields, text)?;
            fields.remove(at);
        }
        PartitionChange::Replace { old, new } => {
            let (at, field) = (find(metadata, &fields, old)?, new_field(metadata, new)?);
            if same(&fields[at], &field) {
                return Ok(None);
            }
            fields.remove(at);
            ensure_new(&fields, &field, new)?;
            fields.insert(at, field);
        }
    }
    let bad = |error| Error::config("the table cannot be partitioned so").caused_by(error);
    Ok(Some(UnboundPartitionSpec::builder().add_partition_fields(fields).map_err(bad)?.build()))
}

fn unbound(field: &PartitionField) -> UnboundPartitionField {
    UnboundPartitionField {
        source_id: field.source_id,
        field_id: Some(field.field_id),
        name: field.name.clone(),
        transform: field.transform,
    }
}

fn new_field(metadata: &TableMetadata, text: &str) -> Result<UnboundPartitionField> {
    let (column, transform) = parse_transform(text)?;
    let source = super::column(metadata.current_schema(), &column);
    let source = source.ok_or_else(|| Error::config(format!("the table has no column {column}")))?;
    transform.result_type(&source.field_type).map_err(|_| {
        Error::config(format!("{text} does not fit a column of type {}", super::types::type_name(&source.field_type)))
    })?;
    Ok(UnboundPartitionField { source_id: source.id, field_id: None, name: partition_name(&source.name, transform), transform })
}

fn same(one: &UnboundPartitionField, other: &UnboundPartitionField) -> bool {
    one.source_id == other.source_id && one.transform == other.transform
}

fn ensure_new(fields: &[UnboundPartitionField], field: &UnboundPartitionField, text: &str) -> Result<()> {
    if fields.iter().any(|known| same(known, field)) {
        return Err(Error::config(format!("the table is partitioned by {text} already")));
    }
    // Two of one column's times would make a file's partition say the same twice.
    let is_time = |transform| matches!(transform, Transform::Year | Transform::Month | Transform::Day | Transform::Hour);
    match fields.iter().find(|known| known.source_id == field.source_id && is_time(known.transform) && is_time(field.transform)) {
        Some(known) => Err(Error::config(format!("the table is partitioned by the {} of that column already", known.transform))
            .hint("use `partition replace`")),
        None => Ok(()),
    }
}

/// A field by its name (`OrderDate_month`) or as it is written (`month(OrderDate)`).
fn find(metadata: &TableMetadata, fields: &[UnboundPartitionField], text: &str) -> Result<usize> {
    let schema = metadata.current_schema();
    let written = partition_field(text);
    let found = fields.iter().position(|field| {
        let column = schema.name_by_field_id(field.source_id).unwrap_or_default();
        let by_text =
            |(name, transform): &(String, Transform)| name.eq_ignore_ascii_case(column) && *transform == field.transform;
        field.name.eq_ignore_ascii_case(text) || written.as_ref().is_some_and(by_text)
    });
    found.ok_or_else(|| {
        let column = |field: &UnboundPartitionField| schema.name_by_field_id(field.source_id).unwrap_or("?").to_owned();
        let known: Vec<_> = fields.iter().map(|field| field_text(&column(field), field.transform)).collect();
        let error = Error::config(format!("the table is not partitioned by {text}"));
        match known.is_empty() {
            true => error.hint("it is not partitioned"),
            false => error.hint(format!("it is partitioned by {}", known.join(", "))),
        }
    })
}
