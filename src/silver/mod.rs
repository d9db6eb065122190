//! Silver: records decoded, typed, enriched by SQL expressions and held to expectations.
//!
//! A record passes four stages, and each may reject it with a reason:
//!
//! | stage | question | where |
//! |---|---|---|
//! | decode | is the message well formed? | [`decoder`], `json` |
//! | type | does each value fit its column? | `columns`, with `number` and `time` |
//! | derive | can the derived columns be computed? | `expression` |
//! | expect | do the expectations hold? | `expression` |
//!
//! What is configured ([`SilverSettings`]) is checked and planned once ([`SilverPlan`]); [`SilverPlan::transform`] is then a pure function of
//! a batch and the time that is written into its rows.
//!
//! *Invariants*: each record of a batch ends in exactly one of silver's rows and the [`rejected`] records, whatever its bytes are; no
//! record has an effect on another.
//!
//! *Failure*: a wrong definition is refused when the plan is made. Data never makes `transform` fail, panic, recurse or allocate more than
//! a few times the batch.

mod columns;
pub mod decoder;
mod expression;
mod flat_json;
pub mod infer;
mod json;
mod keys;
mod map_column;
mod names;
mod number;
mod partitioning;
mod plan;
pub mod rejected;
mod reprocess;
mod settings;
mod sorting;
mod strangers;
#[cfg(test)]
mod tests;
mod time;
mod trino;
mod types;

pub use names::{PROCESSING_TIMESTAMP, RESERVED as OWN_COLUMNS, is_column_name, nearest as nearest_name};
pub use number::exact_decimal;
pub use partitioning::field as partition_field;
pub use plan::SilverPlan;
pub use reprocess::{REPROCESSING, Reprocessing};
pub use settings::{
    ColumnSettings, DeriveSettings, ExpectSettings, OnError, RejectedSettings, ScaleExcess, SilverSettings, UnknownFields,
};
pub use strangers::{Stranger, Strangers};
pub use trino::{TrinoInsert, TrinoRows, identifier as trino_identifier};
pub use types::{ColumnType, UnknownType};

use crate::table::RecordTable;
use crate::table::logged::ParquetTable;

/// The table in either of its forms: an Iceberg table, or a plain Hive table of Parquet files in partition directories. Rejected records are
/// always in the first one.
pub type SilverTable = RecordTable<ParquetTable>;
