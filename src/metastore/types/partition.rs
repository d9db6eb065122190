//! A partition of a plain Hive table.

use std::collections::BTreeMap;

use super::super::contract::fields::{partition, serde, storage, table};
use super::super::thrift::{List, Map, Struct};
use super::storage::{FieldSchema, columns_of, columns_to, new_storage, stored};
use super::table::HiveTable;

/// The entry of a partition.
#[derive(Debug, Clone, PartialEq)]
pub struct HivePartition(Struct);

stored!(HivePartition, partition::PARAMETERS, partition::STORAGE);

impl HivePartition {
    /// A partition of a table, with the table's columns, formats and SerDe, at a location of its own. Values are raw, not escaped.
    pub fn new<T: AsRef<str>>(of: &HiveTable, values: &[T], location: &str) -> Self {
        let descriptor = of.entry().inner(table::STORAGE).cloned().unwrap_or_else(|| new_storage(of.name()));
        let entry = Struct::new()
            .with(partition::VALUES, List::texts(values))
            .with(partition::DATABASE, of.database())
            .with(partition::TABLE, of.name())
            .with(partition::CREATE_TIME, 0)
            .with(partition::LAST_ACCESS_TIME, 0)
            .with(partition::STORAGE, descriptor.with(storage::LOCATION, location))
            .with(partition::PARAMETERS, Map::texts::<&str, &str>([]));
        Self(entry)
    }

    /// The values of the partition keys, in their order, not escaped.
    pub fn values(&self) -> Vec<String> {
        self.0.list(partition::VALUES).map(List::to_texts).unwrap_or_default()
    }

    pub fn database(&self) -> &str {
        self.0.text(partition::DATABASE).unwrap_or_default()
    }

    pub fn table(&self) -> &str {
        self.0.text(partition::TABLE).unwrap_or_default()
    }
}
