//! Hive's nouns as views over the value tree: what lakesmith knows by name, without losing what it doesn't.

mod database;
mod environment;
mod lock;
mod partition;
mod storage;
mod table;

pub use database::HiveDatabase;
pub use environment::EnvironmentContext;
pub use lock::{LockComponent, LockLevel, LockRequest, LockResponse, LockState, LockType, ShownLock};
pub use partition::HivePartition;
pub use storage::FieldSchema;
pub use table::HiveTable;

/// The one catalog there is.
pub const CATALOG: &str = "hive";
