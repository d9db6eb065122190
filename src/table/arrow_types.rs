//! A table's schema in Arrow's form, and columns brought into it.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Fields, Schema as ArrowSchema, SchemaRef as ArrowSchemaRef};
use arrow::util::display::FormatOptions;
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::Schema;

use crate::error::{Error, Result};

/// The schema as the iceberg crate converts it, with `PARQUET:field_id` on every field, but with `Binary` for its `LargeBinary`: the rest
/// of lakesmith holds bytes in that form, and no batch comes near its 2 GiB.
pub(super) fn arrow_schema(schema: &Schema) -> Result<ArrowSchemaRef> {
    let converted = schema_to_arrow_schema(schema)?;
    Ok(Arc::new(ArrowSchema::new(plain_fields(converted.fields()))))
}

fn plain_fields(fields: &Fields) -> Fields {
    fields.iter().map(|field| plain(field)).collect()
}

fn plain(field: &Field) -> Field {
    let data_type = match field.data_type() {
        DataType::LargeBinary => DataType::Binary,
        DataType::Struct(fields) => DataType::Struct(plain_fields(fields)),
        DataType::List(element) => DataType::List(Arc::new(plain(element))),
        DataType::Map(entries, sorted) => DataType::Map(Arc::new(plain(entries)), *sorted),
        other => other.clone(),
    };
    field.clone().with_data_type(data_type)
}

/// A column in a field's type. Also where only the names and ids of nested fields differ, which are part of an Arrow type; values are not
/// copied then. A value that doesn't fit is an error, never a null.
pub(super) fn retype(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    if column.data_type() == field.data_type() {
        return Ok(Arc::clone(column));
    }
    let options = CastOptions { safe: false, format_options: FormatOptions::default() };
    cast_with_options(column, field.data_type(), &options).map_err(|error| {
        let (name, from, to) = (field.name(), column.data_type(), field.data_type());
        Error::failed(format!("column {name} of type {from} cannot be taken as {to}")).caused_by(error)
    })
}
