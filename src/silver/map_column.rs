//! Fields of messages that no column reads, as a map from name to value for each row.
//!
//! A row without any has an empty map, because Hive 3 does not tell a map that is null from one that is empty.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::array::builder::{MapBuilder, MapFieldNames, StringBuilder};
use arrow::datatypes::{DataType, Field, Fields};
use arrow::error::ArrowError;

/// The column, and what the current row has for it so far.
pub struct MapColumn {
    maps: MapBuilder<StringBuilder, StringBuilder>,
    /// Of the current row.
    pending: Vec<(Box<str>, Option<Box<str>>)>,
}

impl MapColumn {
    pub fn new() -> Self {
        let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
        Self { maps: MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new()), pending: Vec::new() }
    }

    /// `map<string, string>`.
    pub fn data_type() -> DataType {
        let entries = [Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true)];
        DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(Fields::from_iter(entries)), false)), false)
    }

    /// A field of the current row.
    pub fn put(&mut self, name: &str, value: Option<&str>) {
        self.pending.push((name.into(), value.map(Into::into)));
    }

    /// Forgets the current row's fields.
    pub fn roll_back(&mut self) {
        self.pending.clear();
    }

    pub fn end_row(&mut self) -> Result<(), ArrowError> {
        for (name, value) in self.pending.drain(..) {
            self.maps.keys().append_value(name);
            self.maps.values().append_option(value);
        }
        self.maps.append(true)
    }

    pub fn finish(mut self) -> ArrayRef {
        Arc::new(self.maps.finish())
    }
}
