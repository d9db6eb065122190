//! The order in which engines are asked to sort a table's rows.

use iceberg::spec::{Schema, SortField, SortOrder, TableMetadata};

use crate::error::{Error, Result};
use crate::table::SortKey;

/// The keys of the table's sort order, as they are written; nothing for none.
pub fn sort_keys(metadata: &TableMetadata) -> Vec<String> {
    let schema = metadata.current_schema();
    let key = |field: &SortField| SortKey {
        column: schema.name_by_field_id(field.source_id).unwrap_or("?").to_owned(),
        transform: field.transform,
        direction: field.direction,
        nulls: field.null_order,
    };
    metadata.default_sort_order().fields.iter().map(|field| key(field).to_string()).collect()
}

/// The order that these keys are in a table of this schema.
pub(super) fn order(schema: &Schema, keys: &[SortKey]) -> Result<SortOrder> {
    let field = |key: &SortKey| {
        let source = super::column(schema, &key.column);
        let source = source.ok_or_else(|| Error::config(format!("the table has no column {}", key.column)))?;
        Ok(key.field(source.id))
    };
    let fields = keys.iter().map(field).collect::<Result<Vec<_>>>()?;
    let built = SortOrder::builder().with_fields(fields).build_unbound();
    built.map_err(|error| Error::config("the table cannot be sorted so").caused_by(error))
}
