//! Iceberg types as the Hive types that engines show for a table's columns.

use iceberg::spec::{PrimitiveType, Schema, Type};

use crate::metastore::FieldSchema;

/// The columns of an entry's storage descriptor.
pub(super) fn hive_columns(schema: &Schema) -> Vec<FieldSchema> {
    let column = |field: &iceberg::spec::NestedFieldRef| FieldSchema {
        name: field.name.clone(),
        hive_type: hive_type(&field.field_type),
        comment: field.doc.clone(),
    };
    schema.as_struct().fields().iter().map(column).collect()
}

/// The Hive type of an Iceberg type, as Java's HiveSchemaUtil chooses it. Hive's own `timestamp with local time zone` is not used for
/// instants: no other engine reads it from an entry.
fn hive_type(field_type: &Type) -> String {
    match field_type {
        Type::Primitive(primitive) => primitive_type(primitive),
        Type::Struct(fields) => {
            let fields: Vec<_> =
                fields.fields().iter().map(|field| format!("{}:{}", field.name, hive_type(&field.field_type))).collect();
            format!("struct<{}>", fields.join(","))
        }
        Type::List(list) => format!("array<{}>", hive_type(&list.element_field.field_type)),
        Type::Map(map) => format!("map<{},{}>", hive_type(&map.key_field.field_type), hive_type(&map.value_field.field_type)),
    }
}

fn primitive_type(primitive: &PrimitiveType) -> String {
    match primitive {
        PrimitiveType::Boolean => "boolean",
        PrimitiveType::Int => "int",
        PrimitiveType::Long => "bigint",
        PrimitiveType::Float => "float",
        PrimitiveType::Double => "double",
        PrimitiveType::Date => "date",
        PrimitiveType::Time | PrimitiveType::String | PrimitiveType::Uuid => "string",
        PrimitiveType::Timestamp | PrimitiveType::Timestamptz | PrimitiveType::TimestampNs | PrimitiveType::TimestamptzNs => {
            "timestamp"
        }
        PrimitiveType::Fixed(_) | PrimitiveType::Binary => "binary",
        PrimitiveType::Decimal { precision, scale } => return format!("decimal({precision},{scale})"),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use iceberg::spec::{ListType, MapType, NestedField, StructType};

    use super::*;

    #[test]
    fn nested_types_are_spelled_as_hive_spells_them() {
        let pair = Type::Struct(StructType::new(vec![
            Arc::new(NestedField::required(1, "key", Type::Primitive(PrimitiveType::String))),
            Arc::new(NestedField::optional(2, "value", Type::Primitive(PrimitiveType::Binary))),
        ]));
        let list = Type::List(ListType { element_field: Arc::new(NestedField::list_element(3, pair, true)) });
        assert_eq!(hive_type(&list), "array<struct<key:string,value:binary>>");
        let map = Type::Map(MapType {
            key_field: Arc::new(NestedField::map_key_element(4, Type::Primitive(PrimitiveType::Long))),
            value_field: Arc::new(NestedField::map_value_element(5, Type::Primitive(PrimitiveType::Timestamptz), false)),
        });
        assert_eq!(hive_type(&map), "map<bigint,timestamp>");
    }
}
