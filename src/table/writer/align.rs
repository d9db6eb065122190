//! A batch as the table wants it: its columns by name, in its order and types, with its field ids.

use std::sync::Arc;

use arrow::array::{RecordBatch, new_null_array};
use arrow::datatypes::SchemaRef;

use crate::error::{Error, Result};
use crate::table::arrow_types::retype;

/// Brings batches into a table's Arrow schema. Values that don't fit their column's type are an error, never a null.
#[derive(Debug, Clone)]
pub(super) struct Aligner {
    target: SchemaRef,
}

impl Aligner {
    pub fn new(target: SchemaRef) -> Self {
        Self { target }
    }

    pub fn align(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let source = batch.schema();
        if let Some(unknown) = source.fields().iter().find(|field| self.target.field_with_name(field.name()).is_err()) {
            return Err(Error::stop(format!("the table has no column {}", unknown.name()))
                .hint("was it renamed or dropped? add it to the table, or choose another table name"));
        }
        let columns = self.target.fields().iter().map(|field| match batch.column_by_name(field.name()) {
            Some(column) => retype(column, field),
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(Arc::clone(&self.target), columns)
            .map_err(|error| Error::failed("rows do not fit the table's schema").caused_by(error))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int32Array, Int64Array, ListArray, StringArray, StructArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{DataType, Field};
    use iceberg::spec::{ListType, NestedField, PrimitiveType, StructType, Type};

    use super::*;
    use crate::record::header_fields;
    use crate::table::arrow_types::arrow_schema;

    fn target() -> SchemaRef {
        let pair = Type::Struct(StructType::new(vec![
            Arc::new(NestedField::required(11, "key", Type::Primitive(PrimitiveType::String))),
            Arc::new(NestedField::optional(12, "value", Type::Primitive(PrimitiveType::Binary))),
        ]));
        let schema = iceberg::spec::Schema::builder()
            .with_fields([
                Arc::new(NestedField::required(1, "offset", Type::Primitive(PrimitiveType::Long))),
                Arc::new(NestedField::optional(
                    2,
                    "headers",
                    Type::List(ListType::new(NestedField::list_element(10, pair, true).into())),
                )),
                Arc::new(NestedField::optional(3, "added_by_trino", Type::Primitive(PrimitiveType::Date))),
            ])
            .build()
            .unwrap();
        arrow_schema(&schema).unwrap()
    }

    #[test]
    fn columns_find_their_place_by_name_and_missing_ones_are_null() {
        let keys = Arc::new(StringArray::from(vec!["a", "b"]));
        let values = Arc::new(BinaryArray::from_opt_vec(vec![Some(b"1"), None]));
        let pairs = StructArray::new(header_fields(), vec![keys, values], None);
        let element = Arc::new(Field::new("element", DataType::Struct(header_fields()), false));
        let headers = ListArray::new(element, OffsetBuffer::from_lengths([2, 0]), Arc::new(pairs), None);
        let batch = RecordBatch::try_from_iter([
            ("headers", Arc::new(headers) as ArrayRef),
            ("offset", Arc::new(Int32Array::from(vec![7, 8])) as ArrayRef),
        ])
        .unwrap();
        let aligned = Aligner::new(target()).align(&batch).unwrap();
        assert_eq!(aligned.schema(), target());
        assert_eq!(aligned.column(0).as_ref(), &Int64Array::from(vec![7, 8]) as &dyn Array);
        assert_eq!(aligned.column(1).as_list::<i32>().value(0).len(), 2);
        assert_eq!(aligned.column(2).null_count(), 2);
    }

    #[test]
    fn a_column_that_the_table_lost_and_a_null_in_a_required_one_are_errors() {
        let unknown = RecordBatch::try_from_iter([("gone", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
        assert!(Aligner::new(target()).align(&unknown).unwrap_err().to_string().contains("no column gone"));
        let null = RecordBatch::try_from_iter([("offset", Arc::new(Int64Array::from(vec![None])) as ArrayRef)]).unwrap();
        assert!(Aligner::new(target()).align(&null).unwrap_err().chain().contains("offset"));
    }
}
