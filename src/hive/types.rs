//! How Arrow types are named in Hive and laid out in Parquet so that Hive 3, Hive 4, Trino and Spark read the same values.
//!
//! Measured with all four: instants must be INT96 (Hive 3 cannot read INT64 timestamps at all, and shifts others by its own zone), and
//! decimals FIXED_LEN_BYTE_ARRAY (Hive 3 refuses INT32 and INT64 decimals). Hive names columns in lower case and finds `TotalOrders`
//! in the file under `totalorders`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use parquet::basic::{ConvertedType, LogicalType, Repetition, TimeUnit as TimeUnitOfParquet, Type as PhysicalType};
use parquet::schema::types::{Type, TypePtr};

use crate::compatibility::Instants;
use crate::error::{Error, Result};
use crate::metastore::FieldSchema;

/// The Hive type of a column, as a table entry writes it.
pub fn hive_type(data_type: &DataType) -> Result<String> {
    Ok(match data_type {
        DataType::Boolean => "boolean".into(),
        DataType::Int32 => "int".into(),
        DataType::Int64 => "bigint".into(),
        DataType::Float32 => "float".into(),
        DataType::Float64 => "double".into(),
        DataType::Utf8 => "string".into(),
        DataType::Binary => "binary".into(),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp".into(),
        DataType::Decimal128(precision, scale) if *scale >= 0 => format!("decimal({precision},{scale})"),
        other => {
            return Err(
                Error::config(format!("a Hive table cannot hold the type {other}")).hint("cast the expression to another type")
            );
        }
    })
}

/// The columns of a table entry for a schema.
pub fn hive_columns(schema: &Schema) -> Result<Vec<FieldSchema>> {
    schema
        .fields()
        .iter()
        .map(|field| {
            let hive_type = hive_type(field.data_type()).map_err(|error| error.context(format!("column {}", field.name())))?;
            Ok(FieldSchema::new(field.name().to_lowercase(), hive_type))
        })
        .collect()
}

/// The Parquet schema of a schema's files. Every column is optional, as Hive expects.
pub(super) fn parquet_schema(schema: &Schema, instants: Instants) -> Result<TypePtr> {
    let fields = schema.fields().iter().map(|field| parquet_field(field, instants).map(Arc::new)).collect::<Result<Vec<_>>>()?;
    Type::group_type_builder("hive_schema").with_fields(fields).build().map(Arc::new).map_err(bad_schema)
}

fn parquet_field(field: &Field, instants: Instants) -> Result<Type> {
    let physical = match field.data_type() {
        DataType::Boolean => PhysicalType::BOOLEAN,
        DataType::Int32 | DataType::Date32 => PhysicalType::INT32,
        DataType::Int64 => PhysicalType::INT64,
        DataType::Float32 => PhysicalType::FLOAT,
        DataType::Float64 => PhysicalType::DOUBLE,
        DataType::Utf8 | DataType::Binary => PhysicalType::BYTE_ARRAY,
        DataType::Timestamp(TimeUnit::Microsecond, None) => match instants {
            Instants::Int96 => PhysicalType::INT96,
            Instants::Micros => PhysicalType::INT64,
        },
        DataType::Decimal128(_, _) => PhysicalType::FIXED_LEN_BYTE_ARRAY,
        other => return Err(Error::failed(format!("column {} has the type {other}, which no Hive file holds", field.name()))),
    };
    let builder = Type::primitive_type_builder(field.name(), physical).with_repetition(Repetition::OPTIONAL);
    let builder = match field.data_type() {
        DataType::Utf8 => builder.with_logical_type(Some(LogicalType::String)).with_converted_type(ConvertedType::UTF8),
        DataType::Date32 => builder.with_logical_type(Some(LogicalType::Date)).with_converted_type(ConvertedType::DATE),
        DataType::Timestamp(..) if instants == Instants::Micros => builder
            .with_logical_type(Some(LogicalType::Timestamp { is_adjusted_to_u_t_c: false, unit: TimeUnitOfParquet::MICROS })),
        DataType::Decimal128(precision, scale) => builder
            .with_logical_type(Some(LogicalType::Decimal { scale: i32::from(*scale), precision: i32::from(*precision) }))
            .with_converted_type(ConvertedType::DECIMAL)
            .with_precision(i32::from(*precision))
            .with_scale(i32::from(*scale))
            .with_length(decimal_bytes(*precision) as i32),
        _ => builder,
    };
    builder.build().map_err(bad_schema)
}

fn bad_schema(error: parquet::errors::ParquetError) -> Error {
    Error::failed("the schema has no Parquet form").caused_by(error)
}

/// The least number of bytes whose two's complement holds every number of `precision` digits: what Hive itself writes.
pub(super) fn decimal_bytes(precision: u8) -> usize {
    let largest = 10i128.checked_pow(u32::from(precision)).map_or(i128::MAX, |power| power - 1);
    (128 - largest.leading_zeros() as usize) / 8 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_takes_as_many_bytes_as_hive_gives_it() {
        let bytes: Vec<_> = [1, 2, 3, 4, 5, 7, 9, 10, 18, 19, 28, 38].map(decimal_bytes).into();
        assert_eq!(bytes, [1, 1, 2, 2, 3, 4, 4, 5, 8, 9, 12, 16]);
    }

    #[test]
    fn columns_are_named_in_lower_case_with_hive_types() {
        let schema = Schema::new(vec![
            Field::new("TotalOrders", DataType::Int64, false),
            Field::new("Revenue", DataType::Decimal128(38, 2), true),
            Field::new("window_start", crate::record::INSTANT, false),
        ]);
        let columns: Vec<_> = hive_columns(&schema).unwrap().into_iter().map(|column| (column.name, column.hive_type)).collect();
        let expected = [("totalorders", "bigint"), ("revenue", "decimal(38,2)"), ("window_start", "timestamp")];
        assert_eq!(columns, expected.map(|(name, hive_type)| (name.to_string(), hive_type.to_string())));
        assert!(hive_type(&DataType::Decimal128(5, -2)).is_err());
        assert!(hive_type(&DataType::UInt64).is_err());
    }
}
