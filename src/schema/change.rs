//! One change of a table's columns, and the schema that several of them lead to.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use iceberg::spec::{
    ListType, Literal, MapType, NestedField, NestedFieldRef, PrimitiveType, Schema, StructType, TableMetadata, Type,
};
use serde::{Deserialize, Serialize};

use super::types::{parse_type, type_name};
use super::{defaults, names};
use crate::error::{Error, Result};
use crate::silver;

/// A column, or a field in one: `address.city`, `items.element.price`, `labels.value`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct FieldPath {
    /// What it lies in, outermost first; nothing for a column of the table itself.
    parent: Vec<String>,
    name: String,
}

impl FieldPath {
    /// A column of the table itself.
    pub(super) fn column(name: &str) -> Self {
        Self { parent: Vec::new(), name: name.to_owned() }
    }

    /// The field's own name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn parent(&self) -> &[String] {
        &self.parent
    }

    /// The table's column that the field is, or lies in.
    fn outermost(&self) -> &str {
        self.parent.first().unwrap_or(&self.name)
    }
}

impl FromStr for FieldPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parent: Vec<String> = text.split('.').map(|name| name.trim().to_owned()).collect();
        match parent.pop().filter(|name| !name.is_empty() && !parent.iter().any(String::is_empty)) {
            Some(name) => Ok(Self { parent, name }),
            None => {
                Err(Error::config(format!("`{text}` names no column")).hint("write a column, or a field in one: address.city"))
            }
        }
    }
}

impl TryFrom<String> for FieldPath {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<FieldPath> for String {
    fn from(path: FieldPath) -> Self {
        path.to_string()
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parent.iter().try_for_each(|name| write!(f, "{name}."))?;
        f.write_str(&self.name)
    }
}

/// Where a field stands among those beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    First,
    /// Behind the field of this name.
    After(String),
}

/// The default of a column that is added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewDefault {
    /// As a person writes it.
    pub value: String,
    /// No row may be null in it.
    pub required: bool,
}

/// What is to be done to a schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A new field. Without a position it comes last.
    Add {
        path: FieldPath,
        field_type: String,
        doc: Option<String>,
        position: Option<Position>,
        /// Its value in all rows so far, and in rows that come without; null if there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        default: Option<NewDefault>,
    },
    /// The field keeps its values.
    Rename {
        path: FieldPath,
        to: String,
    },
    /// The field's values are no more to be seen, but in older snapshots.
    Drop {
        path: FieldPath,
    },
    /// To a type that holds all values of the present one.
    Widen {
        path: FieldPath,
        to: String,
    },
    /// Nulls are allowed from now on.
    MakeOptional {
        path: FieldPath,
    },
    Move {
        path: FieldPath,
        position: Position,
    },
    /// None takes the text away.
    Document {
        path: FieldPath,
        doc: Option<String>,
    },
}

impl Change {
    fn ensure_keeps(&self, kept: &[&str]) -> Result<()> {
        let (path, what) = match self {
            Self::Rename { path, .. } => (path, "renamed"),
            Self::Drop { path } => (path, "dropped"),
            Self::Widen { path, .. } => (path, "widened"),
            _ => return Ok(()),
        };
        match kept.iter().any(|name| name.eq_ignore_ascii_case(path.outermost())) {
            true => Err(Error::config(format!("{path} cannot be {what}: lakesmith itself writes and reads it"))),
            false => Ok(()),
        }
    }
}

/// The fields of a struct, and what becomes of them.
type Fields = Vec<NestedFieldRef>;

/// The schema after these changes, in this order. The columns `kept` may neither be renamed nor dropped, nor get another type.
pub(super) fn apply(metadata: &TableMetadata, kept: &[&str], changes: &[Change]) -> Result<Schema> {
    let schema = metadata.current_schema();
    let mut fields = schema.as_struct().fields().to_vec();
    let mut next_id = metadata.last_column_id() + 1;
    for change in changes {
        change.ensure_keeps(kept)?;
        fields = one(metadata, fields, change, &mut next_id)?;
    }
    let built = Schema::builder().with_fields(fields).with_identifier_field_ids(schema.identifier_field_ids()).build();
    built.map_err(|error| Error::config("the changes lead to no valid schema").caused_by(error))
}

fn one(metadata: &TableMetadata, fields: Fields, change: &Change, next_id: &mut i32) -> Result<Fields> {
    let on = |fields: Fields, path: &FieldPath, change: &dyn Fn(&NestedField) -> Result<NestedField>| {
        within(fields, path.parent(), path, &mut |mut fields: Fields| {
            let at = find(&fields, path)?;
            fields[at] = Arc::new(change(&fields[at])?);
            Ok(fields)
        })
    };
    match change {
        Change::Add { path, field_type, doc, position, default } => {
            within(fields, path.parent(), path, &mut |mut fields: Fields| {
                names::ensure_usable(path.name())?;
                names::ensure_free(path.name(), fields.iter().map(|field| field.name.as_str()))?;
                let id = *next_id;
                *next_id += 1;
                let mut field = NestedField::optional(id, path.name(), parse_type(field_type, next_id)?);
                field.doc = doc.clone();
                if let Some(default) = default {
                    ensure_no_field_in_one(path)?;
                    let value = defaults::parse(&default.value, &field.field_type)?;
                    field = field.with_initial_default(value.clone()).with_write_default(value);
                    field.required = default.required;
                }
                fields.push(Arc::new(field));
                match position {
                    Some(position) => moved(fields, path, position),
                    None => Ok(fields),
                }
            })
        }
        Change::Rename { path, to } => within(fields, path.parent(), path, &mut |mut fields: Fields| {
            names::ensure_usable(to)?;
            let at = find(&fields, path)?;
            let others = fields.iter().enumerate().filter(|(other, _)| *other != at);
            names::ensure_free(to, others.map(|(_, field)| field.name.as_str()))?;
            fields[at] = Arc::new(NestedField { name: to.clone(), ..fields[at].as_ref().clone() });
            Ok(fields)
        }),
        Change::Drop { path } => within(fields, path.parent(), path, &mut |mut fields: Fields| {
            let at = find(&fields, path)?;
            if fields.len() == 1 {
                return Err(Error::config(format!("{path} is the last one there, and cannot be dropped")));
            }
            ensure_nothing_depends(metadata, path, &fields[at], "dropped")?;
            fields.remove(at);
            Ok(fields)
        }),
        Change::Widen { path, to } => on(fields, path, &|field| {
            let to = parse_type(to, &mut 0)?;
            if *field.field_type == to {
                return Ok(field.clone());
            }
            if !is_wider(&field.field_type, &to) {
                let (from, to) = (type_name(&field.field_type), type_name(&to));
                return Err(Error::config(format!(
                    "{path} is {from}, which cannot become {to}: not every value would fit, or be read back"
                ))
                .hint("int can become long, float double, and a decimal one of more digits and the same scale"));
            }
            ensure_nothing_depends(metadata, path, field, "widened")?;
            let widened = |value: &Option<Literal>| value.clone().map(|value| defaults::widened(value, &to));
            let (initial_default, write_default) = (widened(&field.initial_default), widened(&field.write_default));
            Ok(NestedField { field_type: Box::new(to), initial_default, write_default, ..field.clone() })
        }),
        Change::MakeOptional { path } => on(fields, path, &|field| {
            if metadata.current_schema().identifier_field_ids().any(|id| id == field.id) {
                return Err(Error::config(format!("{path} identifies the table's rows, and so has a value in each")));
            }
            Ok(NestedField { required: false, ..field.clone() })
        }),
        Change::Move { path, position } => {
            within(fields, path.parent(), path, &mut |fields: Fields| moved(fields, path, position))
        }
        Change::Document { path, doc } => on(fields, path, &|field| Ok(NestedField { doc: doc.clone(), ..field.clone() })),
    }
}

/// Changes the fields of the struct that lies at `parent` within `fields`.
fn within(
    fields: Fields,
    parent: &[String],
    path: &FieldPath,
    change: &mut dyn FnMut(Fields) -> Result<Fields>,
) -> Result<Fields> {
    let Some((name, rest)) = parent.split_first() else { return change(fields) };
    let mut fields = fields;
    let at = position_of(&fields, name).ok_or_else(|| unknown(&fields, name, path))?;
    let field_type = within_type(&fields[at].field_type, rest, path, change)?;
    fields[at] = Arc::new(NestedField { field_type: Box::new(field_type), ..fields[at].as_ref().clone() });
    Ok(fields)
}

fn within_type(
    field_type: &Type,
    parent: &[String],
    path: &FieldPath,
    change: &mut dyn FnMut(Fields) -> Result<Fields>,
) -> Result<Type> {
    let inner = |field: &NestedFieldRef, rest: &[String], change: &mut dyn FnMut(Fields) -> Result<Fields>| {
        let field_type = within_type(&field.field_type, rest, path, change)?;
        Ok::<_, Error>(Arc::new(NestedField { field_type: Box::new(field_type), ..field.as_ref().clone() }))
    };
    match (field_type, parent.split_first()) {
        (Type::Struct(fields), _) => Ok(Type::Struct(StructType::new(within(fields.fields().to_vec(), parent, path, change)?))),
        (Type::List(list), Some((name, rest))) if name == "element" => {
            Ok(Type::List(ListType::new(inner(&list.element_field, rest, change)?)))
        }
        (Type::Map(map), Some((name, rest))) if name == "value" => {
            Ok(Type::Map(MapType::new(map.key_field.clone(), inner(&map.value_field, rest, change)?)))
        }
        (other, _) => Err(Error::config(format!("{path}: there are no fields in a {}", type_name(other)))
            .hint("a list's fields are in its `element`, a map's in its `value`; the fields of a map's key stay as they are")),
    }
}

/// Engines differ in what they read of a default within a struct whose files don't have it.
fn ensure_no_field_in_one(path: &FieldPath) -> Result<()> {
    match path.parent.is_empty() {
        true => Ok(()),
        false => Err(Error::config(format!("{path} can have no default: only columns of the table itself can"))),
    }
}

/// Refuses what files or partitions would lose their meaning by.
fn ensure_nothing_depends(metadata: &TableMetadata, path: &FieldPath, field: &NestedField, what: &str) -> Result<()> {
    let ids = ids_in(field);
    let named = |id: i32| ids.contains(&id);
    if metadata.partition_specs_iter().any(|spec| spec.fields().iter().any(|field| named(field.source_id))) {
        return Err(Error::config(format!("{path} cannot be {what}: the table is partitioned by it, or was"))
            .hint("its files say which partition they belong to by this column; leave it, or write a new table"));
    }
    if metadata.sort_orders_iter().any(|order| order.fields.iter().any(|field| named(field.source_id))) {
        return Err(Error::config(format!("{path} cannot be {what}: the table is sorted by it, or was")));
    }
    if metadata.current_schema().identifier_field_ids().any(named) {
        return Err(Error::config(format!("{path} cannot be {what}: it identifies the table's rows")));
    }
    Ok(())
}

/// The ids of a field and of all that lie in it.
fn ids_in(field: &NestedField) -> Vec<i32> {
    let mut ids = vec![field.id];
    match field.field_type.as_ref() {
        Type::Primitive(_) => {}
        Type::Struct(fields) => ids.extend(fields.fields().iter().flat_map(|field| ids_in(field))),
        Type::List(list) => ids.extend(ids_in(&list.element_field)),
        Type::Map(map) => ids.extend(ids_in(&map.key_field).into_iter().chain(ids_in(&map.value_field))),
    }
    ids
}

/// Whether every value of one type is one of the other, and files written with the first are read as the second.
pub(super) fn is_wider(from: &Type, to: &Type) -> bool {
    match (from, to) {
        (Type::Primitive(from), Type::Primitive(to)) => match (from, to) {
            (PrimitiveType::Int, PrimitiveType::Long) | (PrimitiveType::Float, PrimitiveType::Double) => true,
            (
                PrimitiveType::Decimal { precision: from, scale: before },
                PrimitiveType::Decimal { precision: to, scale: after },
            ) => from < to && before == after,
            _ => false,
        },
        _ => false,
    }
}

fn moved(mut fields: Fields, path: &FieldPath, position: &Position) -> Result<Fields> {
    let field = fields.remove(find(&fields, path)?);
    let at = match position {
        Position::First => 0,
        Position::After(name) if name.eq_ignore_ascii_case(&field.name) => {
            return Err(Error::config(format!("{path} cannot stand behind itself")));
        }
        Position::After(name) => position_of(&fields, name).ok_or_else(|| unknown(&fields, name, path))? + 1,
    };
    fields.insert(at, field);
    Ok(fields)
}

fn find(fields: &[NestedFieldRef], path: &FieldPath) -> Result<usize> {
    position_of(fields, path.name()).ok_or_else(|| unknown(fields, path.name(), path))
}

/// A name as it is spelled, else in another case: engines know no difference.
fn position_of(fields: &[NestedFieldRef], name: &str) -> Option<usize> {
    let exact = fields.iter().position(|field| field.name == name);
    exact.or_else(|| fields.iter().position(|field| field.name.eq_ignore_ascii_case(name)))
}

fn unknown(fields: &[NestedFieldRef], name: &str, path: &FieldPath) -> Error {
    let error = match path.parent.is_empty() || name == path.outermost() {
        true => Error::config(format!("the table has no column {name}")),
        false => Error::config(format!("there is no field {name} for {path}")),
    };
    match silver::nearest_name(name, fields.iter().map(|field| field.name.as_str())) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => {
            error.hint(format!("there are {}", fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(", ")))
        }
    }
}
