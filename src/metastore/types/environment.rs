//! What goes beside a write: instructions to the server.

use std::collections::BTreeMap;

use super::super::contract::fields::environment;
use super::super::thrift::{Map, Struct};

/// Properties for one write call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvironmentContext(BTreeMap<String, String>);

impl EnvironmentContext {
    pub const EXPECTED_KEY: &'static str = "expected_parameter_key";
    pub const EXPECTED_VALUE: &'static str = "expected_parameter_value";
    pub const DO_NOT_UPDATE_STATS: &'static str = "DO_NOT_UPDATE_STATS";
    pub const STATS_GENERATED: &'static str = "STATS_GENERATED";

    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.0.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The write takes effect only if the table's parameter still has this value (HIVE-26882). Servers that don't know this ignore it:
    /// send it only where [`super::super::CompareAndSwap::Honoured`] was found.
    #[must_use]
    pub fn expecting(self, key: &str, value: &str) -> Self {
        self.with(Self::EXPECTED_KEY, key).with(Self::EXPECTED_VALUE, value)
    }

    /// The columns of a table's partitions become those of its new entry, in the same transaction.
    #[must_use]
    pub fn cascading(self) -> Self {
        self.with("CASCADE", "true")
    }

    /// The server neither lists the directory nor touches the statistics parameters.
    #[must_use]
    pub fn without_statistics(self) -> Self {
        self.with(Self::DO_NOT_UPDATE_STATS, "true")
    }

    /// The statistics parameters sent were computed by the sender: the server keeps `COLUMN_STATS_ACCURATE`.
    #[must_use]
    pub fn with_own_statistics(self) -> Self {
        self.with(Self::STATS_GENERATED, "TASK")
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub fn to_struct(&self) -> Struct {
        Struct::new().with(environment::PROPERTIES, Map::texts(&self.0))
    }

    pub fn from_struct(entry: &Struct) -> Self {
        let properties = entry.map(environment::PROPERTIES).map(Map::to_texts).unwrap_or_default();
        Self(properties.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }
}
