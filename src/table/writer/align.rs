//! A batch as the table wants it: its columns by name (whose case another engine may have changed), in its order and types, with its
//! field ids. Columns that the batch doesn't have are null, or have their default.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use iceberg::spec::{Literal, Schema};

use crate::error::{Error, Result};
use crate::record::position;
use crate::table::arrow_types::retype;
use crate::table::defaults;

/// Brings batches into a table's Arrow schema. Values that don't fit their column's type are an error, never a null.
#[derive(Debug, Clone)]
pub(super) struct Aligner {
    target: SchemaRef,
    /// For each column the value of rows that come without.
    defaults: Vec<Option<Literal>>,
}

impl Aligner {
    /// For a table's schema, which `target` is in Arrow's form.
    pub fn new(schema: &Schema, target: SchemaRef) -> Self {
        Self { target, defaults: schema.as_struct().fields().iter().map(|field| field.write_default.clone()).collect() }
    }

    pub fn align(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut found = vec![None; self.target.fields().len()];
        for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            let at = position(self.target.fields(), field.name()).ok_or_else(|| {
                Error::stop(format!("the table has no column {}", field.name())).hint(
                    "`lakesmith schema history` says whether it was renamed or dropped, `lakesmith schema plan` what brings it back",
                )
            })?;
            if found[at].replace(column).is_some() {
                let name = self.target.field(at).name();
                return Err(Error::stop(format!("two columns are to be written into the table's column {name}"))
                    .hint("their names differ in case only, and the table has one of them; add the other to it"));
            }
        }
        let columns = self.target.fields().iter().zip(found).zip(&self.defaults).map(|((field, column), default)| match column {
            Some(column) => retype(column, field),
            None => defaults::column(default.as_ref(), field, batch.num_rows()),
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

    fn target() -> (Schema, SchemaRef) {
        let pair = Type::Struct(StructType::new(vec![
            Arc::new(NestedField::required(11, "key", Type::Primitive(PrimitiveType::String))),
            Arc::new(NestedField::optional(12, "value", Type::Primitive(PrimitiveType::Binary))),
        ]));
        let schema = Schema::builder()
            .with_fields([
                Arc::new(NestedField::required(1, "offset", Type::Primitive(PrimitiveType::Long))),
                Arc::new(NestedField::optional(
                    2,
                    "headers",
                    Type::List(ListType::new(NestedField::list_element(10, pair, true).into())),
                )),
                Arc::new(NestedField::optional(3, "added_by_trino", Type::Primitive(PrimitiveType::Date))),
                Arc::new(
                    NestedField::required(4, "origin", Type::Primitive(PrimitiveType::String))
                        .with_initial_default(Literal::string("web"))
                        .with_write_default(Literal::string("shop")),
                ),
            ])
            .build()
            .unwrap();
        let target = arrow_schema(&schema).unwrap();
        (schema, target)
    }

    fn aligner() -> Aligner {
        let (schema, target) = target();
        Aligner::new(&schema, target)
    }

    #[test]
    fn columns_find_their_place_by_name_and_missing_ones_have_their_default_or_are_null() {
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
        let aligned = aligner().align(&batch).unwrap();
        assert_eq!(aligned.schema(), target().1);
        assert_eq!(aligned.column(0).as_ref(), &Int64Array::from(vec![7, 8]) as &dyn Array);
        assert_eq!(aligned.column(1).as_list::<i32>().value(0).len(), 2);
        assert_eq!(aligned.column(2).null_count(), 2);
        assert_eq!(aligned.column(3).as_ref(), &StringArray::from(vec!["shop", "shop"]) as &dyn Array);
    }

    fn named(columns: &[(&str, i64)]) -> RecordBatch {
        let columns = columns.iter().map(|(name, value)| (*name, Arc::new(Int64Array::from(vec![*value])) as ArrayRef));
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn names_may_differ_in_case_and_the_exact_one_wins() {
        let fields = |names: &[&str]| {
            let long =
                |(id, name): (i32, &&str)| Arc::new(NestedField::optional(id, *name, Type::Primitive(PrimitiveType::Long)));
            let schema = Schema::builder().with_fields((1..).zip(names).map(long)).build().unwrap();
            let target = arrow_schema(&schema).unwrap();
            Aligner::new(&schema, target)
        };
        let values = |batch: RecordBatch| -> Vec<Option<i64>> {
            let first = |column: &ArrayRef| column.as_primitive::<arrow::datatypes::Int64Type>().iter().next().unwrap();
            batch.columns().iter().map(first).collect()
        };
        let lower = fields(&["sellerid", "größe"]);
        assert_eq!(values(lower.align(&named(&[("GRÖßE", 2), ("SellerID", 1)])).unwrap()), [Some(1), Some(2)]);
        let both = fields(&["ID", "id"]);
        assert_eq!(values(both.align(&named(&[("id", 1)])).unwrap()), [None, Some(1)]);
        assert_eq!(values(both.align(&named(&[("id", 1), ("ID", 2)])).unwrap()), [Some(2), Some(1)]);
        let ambiguous = both.align(&named(&[("Id", 1)])).unwrap_err();
        assert!(ambiguous.to_string().contains("no column Id"), "{ambiguous}");
        let twice = fields(&["id"]).align(&named(&[("ID", 1), ("id", 2)])).unwrap_err();
        assert!(twice.to_string().contains("two columns"), "{twice}");
    }

    #[test]
    fn a_column_that_the_table_lost_and_a_null_in_a_required_one_are_errors() {
        let unknown = RecordBatch::try_from_iter([("gone", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
        assert!(aligner().align(&unknown).unwrap_err().to_string().contains("no column gone"));
        let null = RecordBatch::try_from_iter([("offset", Arc::new(Int64Array::from(vec![None])) as ArrayRef)]).unwrap();
        assert!(aligner().align(&null).unwrap_err().chain().contains("offset"));
    }
}
