//! A database: a name, a location, parameters.

use super::super::contract::fields::database;
use super::super::thrift::{Map, Struct};

/// The entry of a database.
#[derive(Debug, Clone, PartialEq)]
pub struct HiveDatabase(Struct);

impl HiveDatabase {
    /// A database at the server's default location.
    pub fn new(name: &str) -> Self {
        let parameters = Map::texts::<&str, &str>([]);
        Self(Struct::new().with(database::NAME, name).with(database::DESCRIPTION, "").with(database::PARAMETERS, parameters))
    }

    pub fn from_entry(entry: Struct) -> Self {
        Self(entry)
    }

    pub fn entry(&self) -> &Struct {
        &self.0
    }

    pub fn into_entry(self) -> Struct {
        self.0
    }

    pub fn name(&self) -> &str {
        self.0.text(database::NAME).unwrap_or_default()
    }

    pub fn location(&self) -> Option<&str> {
        self.0.text(database::LOCATION)
    }

    pub fn set_location(&mut self, location: &str) {
        self.0.set(database::LOCATION, location);
    }

    pub fn description(&self) -> &str {
        self.0.text(database::DESCRIPTION).unwrap_or_default()
    }

    pub fn set_description(&mut self, description: &str) {
        self.0.set(database::DESCRIPTION, description);
    }

    pub fn owner(&self) -> Option<&str> {
        self.0.text(database::OWNER_NAME)
    }

    pub fn set_owner(&mut self, owner: &str) {
        self.0.set(database::OWNER_NAME, owner);
        self.0.set(database::OWNER_TYPE, 1);
    }

    pub fn parameter(&self, key: &str) -> Option<&str> {
        self.0.map(database::PARAMETERS).and_then(|map| map.text(key))
    }

    pub fn set_parameter(&mut self, key: &str, value: &str) {
        self.0.map_mut(database::PARAMETERS).put_text(key, value);
    }
}
