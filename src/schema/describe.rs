//! What a table's columns are, were, and how they came to be so.

use std::collections::BTreeMap;

use iceberg::spec::{NestedField, NestedFieldRef, Schema, TableMetadata, Type};

use super::defaults;
use super::types::type_name;

/// A column, or a field in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldLine {
    pub id: i32,
    /// With the names of what it lies in: `address.city`.
    pub path: String,
    pub field_type: String,
    pub required: bool,
    /// Its value in rows that came before it.
    pub default: Option<String>,
    pub doc: Option<String>,
    /// The first schema of the table that has it.
    pub since: i32,
}

/// One schema that a table has, or had.
#[derive(Debug, Clone)]
pub struct Entry {
    pub schema_id: i32,
    pub current: bool,
    /// Snapshots that were written with it and are still there.
    pub snapshots: usize,
    /// When the first of these was written; milliseconds since 1970.
    pub first_ms: Option<i64>,
    /// What it changed of the one before.
    pub differences: Vec<Difference>,
}

/// One thing that two schemas differ in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    Added {
        path: String,
        field_type: String,
        /// The value of rows so far.
        default: Option<String>,
    },
    Dropped {
        path: String,
        field_type: String,
    },
    Renamed {
        from: String,
        to: String,
    },
    Retyped {
        path: String,
        from: String,
        to: String,
    },
    Required {
        path: String,
        required: bool,
    },
    Documented {
        path: String,
        doc: Option<String>,
    },
    /// The value of rows that come without one.
    Defaulted {
        path: String,
        default: Option<String>,
    },
    /// The order of the fields of a struct; the table's own has no name.
    Reordered {
        path: String,
    },
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Added { path, field_type, default: None } => write!(f, "added {path} {field_type}"),
            Self::Added { path, field_type, default: Some(default) } => {
                write!(f, "added {path} {field_type} default '{default}'")
            }
            Self::Dropped { path, field_type } => write!(f, "dropped {path} {field_type}"),
            Self::Renamed { from, to } => write!(f, "renamed {from} to {to}"),
            Self::Retyped { path, from, to } => write!(f, "changed {path} from {from} to {to}"),
            Self::Required { path, required: true } => write!(f, "made {path} required"),
            Self::Required { path, required: false } => write!(f, "made {path} optional"),
            Self::Documented { path, doc: Some(doc) } => write!(f, "documented {path}: {doc}"),
            Self::Documented { path, doc: None } => write!(f, "took the text of {path} away"),
            Self::Defaulted { path, default: Some(default) } => write!(f, "{path} is '{default}' in new rows without a value"),
            Self::Defaulted { path, default: None } => write!(f, "{path} is null in new rows without a value"),
            Self::Reordered { path } if path.is_empty() => write!(f, "ordered the columns anew"),
            Self::Reordered { path } => write!(f, "ordered the fields of {path} anew"),
        }
    }
}

/// All fields of a schema of the table, each before those that lie in it.
pub fn fields(metadata: &TableMetadata, schema: &Schema) -> Vec<FieldLine> {
    let since = first_schemas(metadata);
    let line = |(path, field): (String, &NestedFieldRef)| FieldLine {
        id: field.id,
        path,
        field_type: type_name(&field.field_type),
        required: field.required,
        default: field.initial_default.as_ref().map(|value| defaults::text(value, &field.field_type)),
        doc: field.doc.clone(),
        since: since.get(&field.id).copied().unwrap_or(schema.schema_id()),
    };
    walk(schema).into_iter().map(line).collect()
}

/// The table's schemas, oldest first.
pub fn history(metadata: &TableMetadata) -> Vec<Entry> {
    let mut before: Option<&Schema> = None;
    let mut entries = Vec::new();
    for schema in in_order(metadata) {
        let written = || metadata.snapshots().filter(|snapshot| snapshot.schema_id() == Some(schema.schema_id()));
        entries.push(Entry {
            schema_id: schema.schema_id(),
            current: schema.schema_id() == metadata.current_schema_id(),
            snapshots: written().count(),
            first_ms: written().map(|snapshot| snapshot.timestamp_ms()).min(),
            differences: before.map(|before| difference(before, schema)).unwrap_or_default(),
        });
        before = Some(schema);
    }
    entries
}

/// What `to` has otherwise than `from`. Fields are told apart by their ids, so a renamed one is the same.
pub fn difference(from: &Schema, to: &Schema) -> Vec<Difference> {
    let (before, after) = (walk(from), walk(to));
    let by_id = |fields: &[(String, &NestedFieldRef)]| -> BTreeMap<i32, (String, NestedFieldRef)> {
        fields.iter().map(|(path, field)| (field.id, (path.clone(), (*field).clone()))).collect()
    };
    let (old, new) = (by_id(&before), by_id(&after));
    let mut found = Vec::new();
    for (path, field) in &before {
        if !new.contains_key(&field.id) {
            found.push(Difference::Dropped { path: path.clone(), field_type: type_name(&field.field_type) });
        }
    }
    for (path, field) in &after {
        match old.get(&field.id) {
            None => {
                let default = field.initial_default.as_ref().map(|value| defaults::text(value, &field.field_type));
                found.push(Difference::Added { path: path.clone(), field_type: type_name(&field.field_type), default });
            }
            Some((old_path, old)) => found.extend(changes_of(old_path, old, path, field)),
        }
    }
    let (old_orders, new_orders) = (orders_in(from), orders_in(to));
    for (path, order) in &new_orders {
        let kept = |order: &Vec<i32>, of: &Vec<i32>| order.iter().copied().filter(|id| of.contains(id)).collect::<Vec<_>>();
        if old_orders.get(path).is_some_and(|old| kept(old, order) != kept(order, old)) {
            found.push(Difference::Reordered { path: path.clone() });
        }
    }
    found
}

fn changes_of(old_path: &str, old: &NestedField, path: &str, field: &NestedField) -> Vec<Difference> {
    let mut found = Vec::new();
    if old.name != field.name {
        found.push(Difference::Renamed { from: old_path.to_owned(), to: path.to_owned() });
    }
    // What lies in it speaks for itself.
    if old.field_type.is_primitive() && old.field_type != field.field_type {
        let (from, to) = (type_name(&old.field_type), type_name(&field.field_type));
        found.push(Difference::Retyped { path: path.to_owned(), from, to });
    }
    if old.required != field.required {
        found.push(Difference::Required { path: path.to_owned(), required: field.required });
    }
    if old.doc != field.doc {
        found.push(Difference::Documented { path: path.to_owned(), doc: field.doc.clone() });
    }
    let default = |of: &NestedField| of.write_default.as_ref().map(|value| defaults::text(value, &of.field_type));
    if default(old) != default(field) {
        found.push(Difference::Defaulted { path: path.to_owned(), default: default(field) });
    }
    found
}

/// The ids of the fields of each struct, in their order, by its path.
fn orders_in(schema: &Schema) -> BTreeMap<String, Vec<i32>> {
    let ids = |fields: &[NestedFieldRef]| fields.iter().map(|field| field.id).collect();
    let mut orders = BTreeMap::from([(String::new(), ids(schema.as_struct().fields()))]);
    for (path, field) in walk(schema) {
        if let Type::Struct(fields) = field.field_type.as_ref() {
            orders.insert(path, ids(fields.fields()));
        }
    }
    orders
}

fn walk(schema: &Schema) -> Vec<(String, &NestedFieldRef)> {
    fn into<'a>(field: &'a NestedFieldRef, path: String, found: &mut Vec<(String, &'a NestedFieldRef)>) {
        found.push((path.clone(), field));
        let inner: Vec<&NestedFieldRef> = match field.field_type.as_ref() {
            Type::Primitive(_) => Vec::new(),
            Type::Struct(fields) => fields.fields().iter().collect(),
            Type::List(list) => vec![&list.element_field],
            Type::Map(map) => vec![&map.key_field, &map.value_field],
        };
        for field in inner {
            into(field, format!("{path}.{}", field.name), found);
        }
    }
    let mut found = Vec::new();
    for field in schema.as_struct().fields() {
        into(field, field.name.clone(), &mut found);
    }
    found
}

/// By their ids, which grow.
fn in_order(metadata: &TableMetadata) -> Vec<&Schema> {
    let mut schemas: Vec<&Schema> = metadata.schemas_iter().map(|schema| schema.as_ref()).collect();
    schemas.sort_by_key(|schema| schema.schema_id());
    schemas
}

fn first_schemas(metadata: &TableMetadata) -> BTreeMap<i32, i32> {
    let mut since = BTreeMap::new();
    for schema in in_order(metadata) {
        for (_, field) in walk(schema) {
            since.entry(field.id).or_insert(schema.schema_id());
        }
    }
    since
}
