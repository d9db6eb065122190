//! Plain Hive tables: Parquet files that every Hive reads, partitions replaced whole, views; and tables whose files are only added to.
//!
//! A partition's data lie in a *version directory*, `<table>/<key>=<value>/<version>`. A new version is written beside the old one,
//! complete and durable, and one metastore call moves the partition's location to it: a reader sees the old version or the new one,
//! never half of either. Old versions stay for readers that have already planned on them, and are swept later.
//!
//! A table that is added to has a log of its commits ([`CommitLog`]), because files alone can't keep two writers apart.
//!
//! Nothing here knows what the rows mean.

mod file;
pub mod file_name;
mod hive_type;
pub mod index;
mod log;
mod partition;
mod replace;
mod sweep;
mod table;
mod types;
mod view;

pub use file::{FileEncoder, PartitionFile, decode, encode, read_footers, read_version};
pub use hive_type::arrow_type;
pub use log::{Claim, CommitLog, FileSpan, LOG_DIRECTORY, LogEntry, LogFile, Size};
pub use partition::{DEFAULT_PARTITION, PartitionKey, version_name, version_of, written_us};
pub use replace::{PartitionVersion, VersionStatistics, key_of, switch, write_version};
pub use sweep::{SweepReport, sweep};
pub use table::{FileFormat, HiveTableSpec, ensure_database, ensure_table};
pub use types::{hive_columns, hive_type};
pub use view::{Cast, HiveViewSpec, ViewColumn, ensure_view};
