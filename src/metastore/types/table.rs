//! A table or view as the metastore keeps it.

use std::collections::BTreeMap;

use super::super::contract::fields::{serde, storage, table};
use super::super::thrift::{Map, Struct};
use super::storage::{FieldSchema, columns_of, columns_to, new_storage, stored};

/// The entry of a table or view.
#[derive(Debug, Clone, PartialEq)]
pub struct HiveTable(Struct);

stored!(HiveTable, table::PARAMETERS, table::STORAGE);

impl HiveTable {
    pub const EXTERNAL: &'static str = "EXTERNAL_TABLE";
    pub const VIEW: &'static str = "VIRTUAL_VIEW";

    /// An external table without columns. (A 4.x server rewrites the entries of managed tables that clients without capabilities send.)
    pub fn new(database: &str, name: &str) -> Self {
        let mut table = Self::of_type(database, name, Self::EXTERNAL);
        table.set_parameter("EXTERNAL", "TRUE");
        table
    }

    /// A view. Engines run `expanded`; `original` is shown.
    pub fn view(database: &str, name: &str, original: &str, expanded: &str) -> Self {
        let mut view = Self::of_type(database, name, Self::VIEW);
        view.set_view_text(original, expanded);
        view
    }

    fn of_type(database: &str, name: &str, table_type: &str) -> Self {
        let entry = Struct::new()
            .with(table::NAME, name)
            .with(table::DATABASE, database)
            .with(table::CREATE_TIME, 0)
            .with(table::LAST_ACCESS_TIME, 0)
            .with(table::RETENTION, 0)
            .with(table::STORAGE, new_storage(name))
            .with(table::PARTITION_KEYS, columns_to(&[]))
            .with(table::PARAMETERS, Map::texts::<&str, &str>([]))
            .with(table::TABLE_TYPE, table_type);
        Self(entry)
    }

    pub fn database(&self) -> &str {
        self.0.text(table::DATABASE).unwrap_or_default()
    }

    pub fn name(&self) -> &str {
        self.0.text(table::NAME).unwrap_or_default()
    }

    /// Names the table anew; `alter_table` under the old name then renames it.
    pub fn set_name(&mut self, database: &str, name: &str) {
        self.0.set(table::DATABASE, database);
        self.0.set(table::NAME, name);
    }

    pub fn owner(&self) -> Option<&str> {
        self.0.text(table::OWNER)
    }

    pub fn set_owner(&mut self, owner: &str) {
        self.0.set(table::OWNER, owner);
    }

    pub fn table_type(&self) -> &str {
        self.0.text(table::TABLE_TYPE).unwrap_or_default()
    }

    pub fn set_table_type(&mut self, table_type: &str) {
        self.0.set(table::TABLE_TYPE, table_type);
    }

    pub fn is_view(&self) -> bool {
        self.table_type() == Self::VIEW
    }

    /// Seconds since 1970.
    pub fn create_time_s(&self) -> i32 {
        self.0.i32(table::CREATE_TIME).unwrap_or_default()
    }

    /// The server's number of the table (4.x).
    pub fn id(&self) -> Option<i64> {
        self.0.i64(table::ID)
    }

    pub fn partition_keys(&self) -> Vec<FieldSchema> {
        columns_of(self.0.list(table::PARTITION_KEYS))
    }

    pub fn set_partition_keys(&mut self, keys: &[FieldSchema]) {
        self.0.set(table::PARTITION_KEYS, columns_to(keys));
    }

    pub fn view_original_text(&self) -> Option<&str> {
        self.0.text(table::VIEW_ORIGINAL_TEXT)
    }

    pub fn view_expanded_text(&self) -> Option<&str> {
        self.0.text(table::VIEW_EXPANDED_TEXT)
    }

    pub fn set_view_text(&mut self, original: &str, expanded: &str) {
        self.0.set(table::VIEW_ORIGINAL_TEXT, original);
        self.0.set(table::VIEW_EXPANDED_TEXT, expanded);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::thrift::{Limits, Value, decode_struct, encode_struct};
    use super::*;

    /// The entry of an Iceberg table as a metastore 4.0.1 sent it.
    const RECORDED: &[u8] = include_bytes!("../../../tests/fixtures/metastore-4.0.1-table.bin");

    #[test]
    fn a_recorded_entry_encodes_to_the_same_bytes() {
        let entry = decode_struct(RECORDED, &Limits::default()).unwrap();
        assert_eq!(encode_struct(&entry), RECORDED);
        let table = HiveTable::from_entry(entry);
        assert_eq!((table.name(), table.table_type()), ("recorded", HiveTable::EXTERNAL));
        assert_eq!(table.parameter("table_type"), Some("ICEBERG"));
        assert_eq!(
            table.columns()[1],
            FieldSchema { comment: Some("what it cost".into()), ..FieldSchema::new("price", "decimal(18,2)") }
        );
        assert_eq!(table.serde_library(), Some("org.apache.iceberg.mr.hive.HiveIcebergSerDe"));
    }

    #[test]
    fn a_changed_entry_keeps_what_has_no_name_here() {
        let mut entry = decode_struct(RECORDED, &Limits::default()).unwrap();
        entry.push(1234, Value::I64(5));
        let before: Vec<_> = entry.fields().iter().map(|(id, _)| *id).collect();
        let mut table = HiveTable::from_entry(entry);
        table.set_parameter("metadata_location", "file:/new");
        table.set_location("file:/elsewhere");
        table.remove_parameter("uuid");
        let after: Vec<_> = table.entry().fields().iter().map(|(id, _)| *id).collect();
        assert_eq!(after, before);
        assert_eq!((table.location(), table.parameter("uuid")), (Some("file:/elsewhere"), None));
    }

    #[test]
    fn a_new_table_says_what_was_set() {
        let mut table = HiveTable::new("lake", "silver");
        table.set_columns(&[FieldSchema::new("id", "bigint")]);
        table.set_partition_keys(&[FieldSchema::new("year", "int")]);
        table.set_formats("in", "out", "lib");
        table.set_serde_parameter("serialization.format", "1");
        assert_eq!((table.database(), table.name(), table.is_view()), ("lake", "silver", false));
        assert_eq!((table.columns()[0].hive_type.as_str(), table.partition_keys()[0].name.as_str()), ("bigint", "year"));
        assert_eq!((table.input_format(), table.output_format(), table.serde_library()), (Some("in"), Some("out"), Some("lib")));
        assert_eq!(table.parameters().into_iter().collect::<Vec<_>>(), [("EXTERNAL", "TRUE")]);
    }
}
