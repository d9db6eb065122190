//! SQL over all layers of a pipeline: bronze, silver and rejected (Iceberg), gold (Hive) and its view, by their `database.table` names.
//!
//! DataFusion plans and runs; what is here finds the tables. A statement is parsed and refused unless it reads ([`statement`]); the tables
//! that it names are looked up in the metastore: Iceberg tables at their current snapshot ([`iceberg_table`]), Hive tables at their
//! partitions' current locations ([`hive_table`]), views by planning their text, and what a table consists of ([`metadata_table`]); column
//! names are matched without regard to case ([`identifiers`]).
//!
//! *Invariants*: nothing is written. A statement sees one snapshot of each Iceberg table and one location of each Hive partition.

mod answer;
pub mod complete;
mod hive_table;
mod iceberg_table;
mod identifiers;
pub mod locks;
mod metadata_table;
pub mod output;
pub mod overview;
mod session;
mod settings;
mod statement;
#[cfg(test)]
mod tests;

pub use answer::Answer;
pub(crate) use hive_table::HiveTableProvider;
pub(crate) use iceberg_table::IcebergTableProvider;
pub use session::QuerySession;
pub use settings::QuerySettings;
