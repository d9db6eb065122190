//! The tree: values, structs, lists and maps as they stand on the wire.

use std::collections::BTreeMap;

/// A wire type, by its number in the binary protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Type {
    Bool = 2,
    Byte = 3,
    Double = 4,
    I16 = 6,
    I32 = 8,
    I64 = 10,
    String = 11,
    Struct = 12,
    Map = 13,
    Set = 14,
    List = 15,
}

impl Type {
    pub(super) fn from_wire(byte: u8) -> Option<Self> {
        Some(match byte {
            2 => Type::Bool,
            3 => Type::Byte,
            4 => Type::Double,
            6 => Type::I16,
            8 => Type::I32,
            10 => Type::I64,
            11 => Type::String,
            12 => Type::Struct,
            13 => Type::Map,
            14 => Type::Set,
            15 => Type::List,
            _ => return None,
        })
    }

    /// The fewest bytes that a value of this type takes: how a claimed number of elements is checked against the bytes that are there.
    pub(super) fn min_size(self) -> usize {
        match self {
            Type::Bool | Type::Byte | Type::Struct => 1,
            Type::I16 => 2,
            Type::I32 | Type::String => 4,
            Type::Set | Type::List => 5,
            Type::Map => 6,
            Type::Double | Type::I64 => 8,
        }
    }
}

/// A field of a struct as Hive's interface names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    pub id: i16,
    pub name: &'static str,
    pub kind: Type,
}

/// One value. A string is bytes: Thrift has one wire type for text and binary.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Bool(bool),
    Byte(i8),
    Double(f64),
    I16(i16),
    I32(i32),
    I64(i64),
    String(Vec<u8>),
    Struct(Struct),
    Map(Map),
    Set(List),
    List(List),
}

impl Value {
    pub fn kind(&self) -> Type {
        match self {
            Value::Bool(_) => Type::Bool,
            Value::Byte(_) => Type::Byte,
            Value::Double(_) => Type::Double,
            Value::I16(_) => Type::I16,
            Value::I32(_) => Type::I32,
            Value::I64(_) => Type::I64,
            Value::String(_) => Type::String,
            Value::Struct(_) => Type::Struct,
            Value::Map(_) => Type::Map,
            Value::Set(_) => Type::Set,
            Value::List(_) => Type::List,
        }
    }

    /// The text of a string value; none for another type or bytes that are not UTF-8.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::String(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    pub fn as_struct(&self) -> Option<&Struct> {
        match self {
            Value::Struct(inner) => Some(inner),
            _ => None,
        }
    }
}

macro_rules! value_from {
    ($($from:ty => $variant:ident),* $(,)?) => {
        $(impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Value::$variant(value.into())
            }
        })*
    };
}

value_from!(bool => Bool, i8 => Byte, i16 => I16, i32 => I32, i64 => I64, &str => String, String => String, Struct => Struct, Map => Map, List => List);

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<&[String]> for Value {
    fn from(texts: &[String]) -> Self {
        Value::List(List::texts(texts))
    }
}

impl From<Vec<Struct>> for Value {
    fn from(structs: Vec<Struct>) -> Self {
        Value::List(List::structs(structs))
    }
}

/// A list or set. All items are of the type it was made for.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    element: Type,
    items: Vec<Value>,
}

impl List {
    pub fn new(element: Type, items: Vec<Value>) -> Self {
        debug_assert!(items.iter().all(|item| item.kind() == element));
        Self { element, items }
    }

    pub fn texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::new(Type::String, texts.into_iter().map(|text| text.as_ref().into()).collect())
    }

    pub fn structs(structs: impl IntoIterator<Item = Struct>) -> Self {
        Self::new(Type::Struct, structs.into_iter().map(Value::Struct).collect())
    }

    pub fn element(&self) -> Type {
        self.element
    }

    pub fn items(&self) -> &[Value] {
        &self.items
    }

    /// The items that are text.
    pub fn to_texts(&self) -> Vec<String> {
        self.items.iter().filter_map(|item| item.as_text().map(str::to_owned)).collect()
    }

    /// The items that are structs.
    pub fn into_structs(self) -> Vec<Struct> {
        let inner = |item| match item {
            Value::Struct(inner) => Some(inner),
            _ => None,
        };
        self.items.into_iter().filter_map(inner).collect()
    }
}

/// A map, in the order in which its entries came.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    key: Type,
    value: Type,
    entries: Vec<(Value, Value)>,
}

impl Map {
    pub fn new(key: Type, value: Type, entries: Vec<(Value, Value)>) -> Self {
        debug_assert!(entries.iter().all(|(k, v)| k.kind() == key && v.kind() == value));
        Self { key, value, entries }
    }

    pub fn texts<K: AsRef<str>, V: AsRef<str>>(entries: impl IntoIterator<Item = (K, V)>) -> Self {
        let entries = entries.into_iter().map(|(k, v)| (k.as_ref().into(), v.as_ref().into())).collect();
        Self::new(Type::String, Type::String, entries)
    }

    pub fn key(&self) -> Type {
        self.key
    }

    pub fn value(&self) -> Type {
        self.value
    }

    pub fn entries(&self) -> &[(Value, Value)] {
        &self.entries
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        self.entries.iter().find(|(k, _)| k.as_text() == Some(key)).and_then(|(_, v)| v.as_text())
    }

    /// Puts an entry, in the place of the one with the same key if there is one. A map that held other things than text begins anew.
    pub fn put_text(&mut self, key: &str, value: &str) {
        if (self.key, self.value) != (Type::String, Type::String) {
            *self = Self::new(Type::String, Type::String, Vec::new());
        }
        match self.entries.iter_mut().find(|(k, _)| k.as_text() == Some(key)) {
            Some((_, old)) => *old = value.into(),
            None => self.entries.push((key.into(), value.into())),
        }
    }

    /// Takes an entry out; whether it was there.
    pub fn take(&mut self, key: &str) -> bool {
        let before = self.entries.len();
        self.entries.retain(|(k, _)| k.as_text() != Some(key));
        self.entries.len() < before
    }

    pub fn to_texts(&self) -> BTreeMap<&str, &str> {
        self.entries.iter().filter_map(|(k, v)| Some((k.as_text()?, v.as_text()?))).collect()
    }
}

/// A struct: numbered values in the order in which they came, known or not.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Struct {
    fields: Vec<(i16, Value)>,
}

impl Struct {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field behind all others, as a decoder or a builder with ascending ids does.
    pub fn push(&mut self, id: i16, value: Value) {
        self.fields.push((id, value));
    }

    pub fn fields(&self) -> &[(i16, Value)] {
        &self.fields
    }

    pub fn at(&self, id: i16) -> Option<&Value> {
        self.fields.iter().find(|(known, _)| *known == id).map(|(_, value)| value)
    }

    pub fn take_at(&mut self, id: i16) -> Option<Value> {
        let index = self.fields.iter().position(|(known, _)| *known == id)?;
        Some(self.fields.remove(index).1)
    }

    /// Sets a field: in its place if it is there, else before the first one with a higher id, as servers order them.
    pub fn set(&mut self, field: Field, value: impl Into<Value>) {
        let value = value.into();
        debug_assert_eq!(value.kind(), field.kind, "{}", field.name);
        match self.fields.iter_mut().find(|(known, _)| *known == field.id) {
            Some((_, old)) => *old = value,
            None => {
                let index = self.fields.iter().position(|(known, _)| *known > field.id).unwrap_or(self.fields.len());
                self.fields.insert(index, (field.id, value));
            }
        }
    }

    #[must_use]
    pub fn with(mut self, field: Field, value: impl Into<Value>) -> Self {
        self.set(field, value);
        self
    }

    pub fn remove(&mut self, field: Field) {
        self.fields.retain(|(known, _)| *known != field.id);
    }

    pub fn value(&self, field: Field) -> Option<&Value> {
        self.at(field.id).filter(|value| value.kind() == field.kind)
    }

    pub fn text(&self, field: Field) -> Option<&str> {
        self.value(field).and_then(Value::as_text)
    }

    pub fn i16(&self, field: Field) -> Option<i16> {
        match self.value(field) {
            Some(Value::I16(number)) => Some(*number),
            _ => None,
        }
    }

    pub fn i32(&self, field: Field) -> Option<i32> {
        match self.value(field) {
            Some(Value::I32(number)) => Some(*number),
            _ => None,
        }
    }

    pub fn i64(&self, field: Field) -> Option<i64> {
        match self.value(field) {
            Some(Value::I64(number)) => Some(*number),
            _ => None,
        }
    }

    pub fn flag(&self, field: Field) -> Option<bool> {
        match self.value(field) {
            Some(Value::Bool(flag)) => Some(*flag),
            _ => None,
        }
    }

    pub fn list(&self, field: Field) -> Option<&List> {
        match self.value(field) {
            Some(Value::List(list)) => Some(list),
            _ => None,
        }
    }

    pub fn structs(&self, field: Field) -> impl Iterator<Item = &Struct> {
        self.list(field).map(List::items).unwrap_or_default().iter().filter_map(Value::as_struct)
    }

    pub fn map(&self, field: Field) -> Option<&Map> {
        match self.value(field) {
            Some(Value::Map(map)) => Some(map),
            _ => None,
        }
    }

    /// A map field to change; an absent one is made, empty.
    pub fn map_mut(&mut self, field: Field) -> &mut Map {
        if self.map(field).is_none() {
            self.set(field, Map::new(Type::String, Type::String, Vec::new()));
        }
        match self.fields.iter_mut().find(|(known, _)| *known == field.id) {
            Some((_, Value::Map(map))) => map,
            _ => unreachable!("the field was set to a map above"),
        }
    }

    pub fn inner(&self, field: Field) -> Option<&Struct> {
        self.value(field).and_then(Value::as_struct)
    }

    /// A struct field to change; an absent one is made, empty.
    pub fn inner_mut(&mut self, field: Field) -> &mut Struct {
        if self.inner(field).is_none() {
            self.set(field, Struct::new());
        }
        match self.fields.iter_mut().find(|(known, _)| *known == field.id) {
            Some((_, Value::Struct(inner))) => inner,
            _ => unreachable!("the field was set to a struct above"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Field = Field { id: 2, name: "name", kind: Type::String };
    const PARAMETERS: Field = Field { id: 4, name: "parameters", kind: Type::Map };

    #[test]
    fn a_changed_field_keeps_its_place_and_a_new_one_goes_where_servers_put_it() {
        let mut table = Struct::new();
        table.push(1, 7i64.into());
        table.push(9, true.into());
        table.set(NAME, "a");
        table.set(NAME, "b");
        let ids: Vec<_> = table.fields().iter().map(|(id, _)| *id).collect();
        assert_eq!((ids, table.text(NAME)), (vec![1, 2, 9], Some("b")));
    }

    #[test]
    fn a_field_of_another_type_than_expected_counts_as_absent() {
        let mut table = Struct::new();
        table.push(4, 7i64.into());
        assert_eq!(table.map(PARAMETERS), None);
        table.map_mut(PARAMETERS).put_text("k", "v");
        assert_eq!(table.map(PARAMETERS).and_then(|map| map.text("k")), Some("v"));
    }
}
