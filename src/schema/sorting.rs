//! The order in which engines are asked to sort a table's rows.

use iceberg::spec::{SortField, TableMetadata};

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
