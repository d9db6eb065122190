//! Defaults of columns, which tables of format version 3 can have: the value of rows whose file was written before the column was there (its
//! initial default), and of rows whose writer has no value for it (its write default).

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, Float32Array, Float64Array, Int32Array,
    Int64Array, StringArray, UInt32Array, new_null_array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field};
use iceberg::spec::{Literal, PrimitiveLiteral};

use crate::error::{Error, Result};

/// A column of this value; of nulls where there is none.
pub(super) fn column(value: Option<&Literal>, field: &Field, rows: usize) -> Result<ArrayRef> {
    let Some(value) = value else { return Ok(new_null_array(field.data_type(), rows)) };
    let one = one(value, field.data_type());
    let one = one.ok_or_else(|| Error::failed(format!("the default of column {} is no {}", field.name(), field.data_type())))?;
    Ok(take(&one, &UInt32Array::from(vec![0; rows]), None)?)
}

/// The value alone, in a column's type; none if it is of another.
fn one(value: &Literal, data_type: &DataType) -> Option<ArrayRef> {
    let Literal::Primitive(value) = value else { return None };
    let one: ArrayRef = match value {
        PrimitiveLiteral::Boolean(value) => Arc::new(BooleanArray::from(vec![*value])),
        PrimitiveLiteral::Int(value) => Arc::new(Int32Array::from(vec![*value])),
        PrimitiveLiteral::Long(value) => Arc::new(Int64Array::from(vec![*value])),
        PrimitiveLiteral::Float(value) => Arc::new(Float32Array::from(vec![value.0])),
        PrimitiveLiteral::Double(value) => Arc::new(Float64Array::from(vec![value.0])),
        PrimitiveLiteral::String(value) => Arc::new(StringArray::from(vec![value.as_str()])),
        PrimitiveLiteral::Binary(value) => Arc::new(BinaryArray::from(vec![value.as_slice()])),
        PrimitiveLiteral::UInt128(value) => {
            Arc::new(FixedSizeBinaryArray::try_from_iter([value.to_be_bytes()].into_iter()).ok()?)
        }
        PrimitiveLiteral::Int128(value) => {
            let DataType::Decimal128(precision, scale) = data_type else { return None };
            Arc::new(Decimal128Array::from(vec![*value]).with_precision_and_scale(*precision, *scale).ok()?)
        }
        PrimitiveLiteral::AboveMax | PrimitiveLiteral::BelowMin => return None,
    };
    // Dates and times are the numbers that they are counted by.
    cast(&one, data_type).ok().filter(|one| one.null_count() == 0)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;
    use arrow::util::display::array_value_to_string;

    use super::*;

    #[test]
    fn a_default_is_the_value_of_each_row() {
        for (value, data_type, shown) in [
            (Literal::int(7), DataType::Int32, "7"),
            (Literal::long(-7), DataType::Int64, "-7"),
            (Literal::float(0.5), DataType::Float32, "0.5"),
            (Literal::double(0.25), DataType::Float64, "0.25"),
            (Literal::bool(true), DataType::Boolean, "true"),
            (Literal::string("web"), DataType::Utf8, "web"),
            (Literal::decimal(1050), DataType::Decimal128(6, 2), "10.50"),
            (Literal::date(1), DataType::Date32, "1970-01-02"),
            (Literal::timestamp(1_500_000), DataType::Timestamp(TimeUnit::Microsecond, None), "1970-01-01T00:00:01.500"),
            (Literal::binary(vec![1, 255]), DataType::Binary, "01ff"),
            (Literal::uuid(uuid::Uuid::nil()), DataType::FixedSizeBinary(16), "00000000000000000000000000000000"),
        ] {
            let field = Field::new("c", data_type.clone(), false);
            let column = column(Some(&value), &field, 3).unwrap();
            assert_eq!((column.len(), column.null_count(), column.data_type()), (3, 0, &data_type));
            assert_eq!(array_value_to_string(&column, 2).unwrap(), shown);
        }
    }

    #[test]
    fn without_one_rows_are_null_and_one_of_another_type_is_an_error() {
        let field = Field::new("c", DataType::Int32, true);
        assert_eq!(column(None, &field, 2).unwrap().null_count(), 2);
        let error = column(Some(&Literal::string("seven")), &field, 2).unwrap_err();
        assert!(error.to_string().contains("default of column c"), "{error}");
    }
}
