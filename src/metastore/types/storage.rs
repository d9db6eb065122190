//! What a table and a partition have in common: parameters, and a storage descriptor with location, columns, formats and SerDe.

use super::super::contract::fields::{column, serde, storage};
use super::super::thrift::{List, Map, Struct, Type};

/// A column or partition key, with its type in Hive's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldSchema {
    pub name: String,
    pub hive_type: String,
    pub comment: Option<String>,
}

impl FieldSchema {
    pub fn new(name: impl Into<String>, hive_type: impl Into<String>) -> Self {
        Self { name: name.into(), hive_type: hive_type.into(), comment: None }
    }

    pub(super) fn to_struct(&self) -> Struct {
        let plain = Struct::new().with(column::NAME, self.name.as_str()).with(column::KIND, self.hive_type.as_str());
        match &self.comment {
            Some(comment) => plain.with(column::COMMENT, comment.as_str()),
            None => plain,
        }
    }

    pub(super) fn from_struct(entry: &Struct) -> Self {
        Self {
            name: entry.text(column::NAME).unwrap_or_default().to_owned(),
            hive_type: entry.text(column::KIND).unwrap_or_default().to_owned(),
            comment: entry.text(column::COMMENT).map(str::to_owned),
        }
    }
}

/// A storage descriptor that every server accepts: no columns, not compressed, not bucketed, not sorted.
pub(super) fn new_storage(name: &str) -> Struct {
    let text_map = || Map::new(Type::String, Type::String, Vec::new());
    Struct::new()
        .with(storage::COLUMNS, List::structs([]))
        .with(storage::COMPRESSED, false)
        .with(storage::NUM_BUCKETS, 0)
        .with(storage::SERDE, Struct::new().with(serde::NAME, name).with(serde::PARAMETERS, text_map()))
        .with(storage::BUCKET_COLS, List::new(Type::String, Vec::new()))
        .with(storage::SORT_COLS, List::structs([]))
        .with(storage::PARAMETERS, text_map())
}

pub(super) fn columns_of(list: Option<&List>) -> Vec<FieldSchema> {
    let items = list.map(List::items).unwrap_or_default();
    items.iter().filter_map(|item| item.as_struct()).map(FieldSchema::from_struct).collect()
}

pub(super) fn columns_to(columns: &[FieldSchema]) -> List {
    List::structs(columns.iter().map(FieldSchema::to_struct))
}

/// The methods over a view's parameters and storage descriptor.
macro_rules! stored {
    ($view:ident, $parameters:expr, $storage:expr) => {
        impl $view {
            /// The whole entry, with the fields that have no name here.
            pub fn entry(&self) -> &Struct {
                &self.0
            }

            pub fn into_entry(self) -> Struct {
                self.0
            }

            pub fn from_entry(entry: Struct) -> Self {
                Self(entry)
            }

            pub fn parameters(&self) -> BTreeMap<&str, &str> {
                self.0.map($parameters).map(Map::to_texts).unwrap_or_default()
            }

            pub fn parameter(&self, key: &str) -> Option<&str> {
                self.0.map($parameters).and_then(|map| map.text(key))
            }

            pub fn set_parameter(&mut self, key: &str, value: impl AsRef<str>) {
                self.0.map_mut($parameters).put_text(key, value.as_ref());
            }

            /// Takes a parameter out; whether it was there.
            pub fn remove_parameter(&mut self, key: &str) -> bool {
                self.0.map($parameters).is_some() && self.0.map_mut($parameters).take(key)
            }

            fn storage(&self) -> Option<&Struct> {
                self.0.inner($storage)
            }

            pub fn location(&self) -> Option<&str> {
                self.storage()?.text(storage::LOCATION)
            }

            pub fn set_location(&mut self, location: &str) {
                self.0.inner_mut($storage).set(storage::LOCATION, location);
            }

            pub fn columns(&self) -> Vec<FieldSchema> {
                columns_of(self.storage().and_then(|storage| storage.list(storage::COLUMNS)))
            }

            pub fn set_columns(&mut self, columns: &[FieldSchema]) {
                self.0.inner_mut($storage).set(storage::COLUMNS, columns_to(columns));
            }

            pub fn input_format(&self) -> Option<&str> {
                self.storage()?.text(storage::INPUT_FORMAT)
            }

            pub fn output_format(&self) -> Option<&str> {
                self.storage()?.text(storage::OUTPUT_FORMAT)
            }

            /// The SerDe's class.
            pub fn serde_library(&self) -> Option<&str> {
                self.storage()?.inner(storage::SERDE)?.text(serde::LIBRARY)
            }

            /// Sets the classes that read and write the files.
            pub fn set_formats(&mut self, input_format: &str, output_format: &str, serde_library: &str) {
                let descriptor = self.0.inner_mut($storage);
                descriptor.set(storage::INPUT_FORMAT, input_format);
                descriptor.set(storage::OUTPUT_FORMAT, output_format);
                descriptor.inner_mut(storage::SERDE).set(serde::LIBRARY, serde_library);
            }

            /// Sets the classes of an entry that has no rows of its own. A SerDe called "" would be loaded by Hive 4.
            pub fn set_formats_without_serde(&mut self, input_format: &str, output_format: &str) {
                self.set_formats(input_format, output_format, "");
                self.0.inner_mut($storage).inner_mut(storage::SERDE).remove(serde::LIBRARY);
            }

            pub fn set_serde_parameter(&mut self, key: &str, value: &str) {
                self.0.inner_mut($storage).inner_mut(storage::SERDE).map_mut(serde::PARAMETERS).put_text(key, value);
            }
        }
    };
}

pub(super) use stored;
