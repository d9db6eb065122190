//! The part of Hive's interface that lakesmith speaks, as tables: `thrift/hive_metastore.thrift` is its written form.
//!
//! *Invariants*: every method, argument, exception and field here has the id and the type that the file names (a test compares them).

#[cfg(test)]
mod idl;
pub mod fields;
mod methods;

pub use methods::*;
