//! Rows by table partition.
//!
//! The usual specs (nothing, or identity on small integers such as year and month) take a fast path: one pass over the keys, one `take`
//! per partition. Any other transform is computed by the iceberg crate and grouped by its encoded value.

use ahash::HashMap;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Int32Type};
use arrow::row::{RowConverter, SortField};
use iceberg::arrow::{arrow_primitive_to_literal, type_to_arrow_type};
use iceberg::spec::{
    Literal, NestedFieldRef, PartitionField, PartitionSpec, PartitionSpecRef, Schema, SchemaRef, Struct, StructType, Transform,
};
use iceberg::transform::{BoxedTransformFunction, create_transform_function};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::error::{Error, Result};

/// Splits batches in a table's schema by its partition spec.
pub(super) struct Splitter {
    fields: Vec<PartitionColumn>,
    partition_type: StructType,
}

struct PartitionColumn {
    /// Position of the source column in the table's schema.
    source: usize,
    /// None for identity.
    transform: Option<BoxedTransformFunction>,
}

impl Splitter {
    pub fn new(spec: &PartitionSpecRef, schema: &SchemaRef) -> Result<Self> {
        let columns = schema.as_struct().fields();
        let column = |field: &PartitionField| {
            let source = columns.iter().position(|column| column.id == field.source_id).ok_or_else(|| {
                Error::stop(format!("the partition field {} refers to a nested or dropped column", field.name))
                    .hint("lakesmith writes tables that are partitioned by top-level columns")
            })?;
            let transform = match field.transform {
                Transform::Identity => None,
                transform => Some(create_transform_function(&transform)?),
            };
            Ok(PartitionColumn { source, transform })
        };
        let fields = spec.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
        Ok(Self { fields, partition_type: spec.partition_type(schema)? })
    }

    /// The rows of each partition, in their order, with the partition's values.
    pub fn split(&self, batch: &RecordBatch) -> Result<Vec<(Struct, RecordBatch)>> {
        if self.fields.is_empty() {
            return Ok(vec![(Struct::empty(), batch.clone())]);
        }
        let values = self.fields.iter().map(|field| field.values(batch)).collect::<Result<Vec<_>>>()?;
        let groups = match small_integers(&values) {
            Some(keys) => group(batch.num_rows(), keys),
            None => {
                let sort_fields = values.iter().map(|values| SortField::new(values.data_type().clone())).collect();
                let rows = RowConverter::new(sort_fields)?.convert_columns(&values)?;
                group(batch.num_rows(), |row| rows.row(row).owned())
            }
        };
        let whole = groups.len() == 1;
        let part = |rows: Vec<u32>| {
            let partition = self.partition(&values, rows[0] as usize)?;
            let rows = if whole { batch.clone() } else { take_record_batch(batch, &UInt32Array::from(rows))? };
            Ok((partition, rows))
        };
        groups.into_iter().map(part).collect()
    }

    /// The partition values of one row.
    fn partition(&self, values: &[ArrayRef], row: usize) -> Result<Struct> {
        let fields = values.iter().zip(self.partition_type.fields()).map(|(values, field)| {
            // A transform's array may be of another Arrow type than its result type has elsewhere (day is Date32, an int in Iceberg).
            let one = arrow::compute::cast(&values.slice(row, 1), &type_to_arrow_type(&field.field_type)?)?;
            let literal = arrow_primitive_to_literal(&one, &field.field_type)?;
            Ok(literal.into_iter().next().flatten())
        });
        Ok(Struct::from_iter(fields.collect::<Result<Vec<Option<Literal>>>>()?))
    }
}

impl PartitionColumn {
    fn values(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let source = batch.column(self.source).clone();
        match &self.transform {
            None => Ok(source),
            Some(transform) => Ok(transform.transform(source)?),
        }
    }
}

/// The directory of a partition, `name=value/…`, escaped as Java's writers escape it: HDFS takes no colon in a name, and a slash or `..` in
/// a value must not lead elsewhere.
pub(in crate::table) fn partition_path(spec: &PartitionSpec, schema: &Schema, partition: &Struct) -> Result<String> {
    const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*');
    let partition_type = spec.partition_type(schema)?;
    let fields = spec.fields().iter().zip(partition_type.fields()).zip(partition.iter());
    let escaped = |text: &str| match text {
        "." | ".." => text.replace('.', "%2E"),
        _ => utf8_percent_encode(text, PLAIN).to_string(),
    };
    let part = |((field, typed), value): ((&PartitionField, &NestedFieldRef), Option<&Literal>)| {
        let value = field.transform.to_human_string(&typed.field_type, value);
        format!("{}={}", escaped(&field.name), escaped(&value))
    };
    Ok(fields.map(part).collect::<Vec<_>>().join("/"))
}

/// The combined key of a row where all partition values are 32-bit integers without nulls, two at most.
fn small_integers(values: &[ArrayRef]) -> Option<impl Fn(usize) -> u64 + '_> {
    let fits =
        values.len() <= 2 && values.iter().all(|values| *values.data_type() == DataType::Int32 && values.null_count() == 0);
    let columns: Vec<_> =
        if fits { values.iter().map(|values| values.as_primitive::<Int32Type>().values()).collect() } else { return None };
    Some(move |row: usize| columns.iter().fold(0u64, |key, column| key << 32 | u64::from(column[row] as u32)))
}

/// Row numbers by key, in the order in which the keys appear.
fn group<K: Eq + std::hash::Hash + Clone>(rows: usize, key: impl Fn(usize) -> K) -> Vec<Vec<u32>> {
    let mut groups: Vec<Vec<u32>> = Vec::new();
    let mut known: HashMap<K, usize> = HashMap::default();
    // Neighbours mostly share a partition.
    let mut last: Option<(K, usize)> = None;
    for row in 0..rows {
        let key = key(row);
        let at = match &last {
            Some((last, at)) if *last == key => *at,
            _ => *known.entry(key.clone()).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            }),
        };
        groups[at].push(row as u32);
        last = Some((key, at));
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, StringArray, TimestampMicrosecondArray};
    use iceberg::arrow::schema_to_arrow_schema;
    use iceberg::spec::{NestedField, PrimitiveType, Type};

    use super::*;

    fn splitter(partition_by: &[(&str, Transform)]) -> (Splitter, RecordBatch) {
        let schema = Schema::builder()
            .with_fields([
                Arc::new(NestedField::required(1, "Year", Type::Primitive(PrimitiveType::Int))),
                Arc::new(NestedField::required(2, "Month", Type::Primitive(PrimitiveType::Int))),
                Arc::new(NestedField::optional(3, "country", Type::Primitive(PrimitiveType::String))),
                Arc::new(NestedField::optional(4, "at", Type::Primitive(PrimitiveType::Timestamp))),
            ])
            .build()
            .unwrap();
        let arrow = Arc::new(schema_to_arrow_schema(&schema).unwrap());
        let schema: SchemaRef = Arc::new(schema);
        let mut spec = PartitionSpec::builder(schema.clone());
        for (column, transform) in partition_by {
            spec = spec.add_partition_field(column, format!("{column}_p"), *transform).unwrap();
        }
        let day = 86_400_000_000i64;
        let batch = RecordBatch::try_new(
            arrow,
            vec![
                Arc::new(Int32Array::from(vec![2024, 2023, 2024, 2024])),
                Arc::new(Int32Array::from(vec![1, 12, 1, 2])),
                Arc::new(StringArray::from(vec![Some("DE"), None, Some("FR"), Some("DE")])),
                Arc::new(TimestampMicrosecondArray::from(vec![Some(day), Some(2 * day), Some(day + 1), None])),
            ],
        )
        .unwrap();
        (Splitter::new(&Arc::new(spec.build().unwrap()), &schema).unwrap(), batch)
    }

    fn years(batch: &RecordBatch) -> Vec<i32> {
        batch.column(0).as_primitive::<Int32Type>().values().to_vec()
    }

    #[test]
    fn year_and_month_take_the_fast_path() {
        let (splitter, batch) = splitter(&[("Year", Transform::Identity), ("Month", Transform::Identity)]);
        let parts = splitter.split(&batch).unwrap();
        let keys: Vec<_> = parts.iter().map(|(key, _)| key.clone()).collect();
        let key = |year, month| Struct::from_iter([Some(Literal::int(year)), Some(Literal::int(month))]);
        assert_eq!(keys, [key(2024, 1), key(2023, 12), key(2024, 2)]);
        assert_eq!(parts.iter().map(|(_, rows)| years(rows)).collect::<Vec<_>>(), [vec![2024, 2024], vec![2023], vec![2024]]);
    }

    #[test]
    fn nulls_and_transforms_are_grouped_too() {
        let (by_country, batch) = splitter(&[("country", Transform::Identity)]);
        let parts = by_country.split(&batch).unwrap();
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[1].0, Struct::from_iter([None]));
        let (by_day, batch) = splitter(&[("at", Transform::Day)]);
        let parts = by_day.split(&batch).unwrap();
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[0].0, Struct::from_iter([Some(Literal::date(1))]));
        assert_eq!(parts[0].1.num_rows(), 2);
    }

    #[test]
    fn partition_directories_are_escaped() {
        let field = Arc::new(NestedField::optional(1, "country", Type::Primitive(PrimitiveType::String)));
        let schema: SchemaRef = Arc::new(Schema::builder().with_fields([field]).build().unwrap());
        let spec = PartitionSpec::builder(schema.clone()).add_partition_field("country", "country", Transform::Identity).unwrap();
        let spec = spec.build().unwrap();
        let path =
            |value: Option<&str>| partition_path(&spec, &schema, &Struct::from_iter([value.map(Literal::string)])).unwrap();
        assert_eq!(path(Some("a/b:c é")), "country=a%2Fb%3Ac%20%C3%A9");
        assert_eq!((path(Some("..")), path(None)), ("country=%2E%2E".to_owned(), "country=null".to_owned()));
    }

    #[test]
    fn an_unpartitioned_table_gets_the_batch_itself() {
        let (splitter, batch) = splitter(&[]);
        let parts = splitter.split(&batch).unwrap();
        assert_eq!((parts.len(), &parts[0].1), (1, &batch));
    }
}
