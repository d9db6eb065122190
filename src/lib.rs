//! lakesmith streams a Kafka topic into bronze, silver and gold tables on HDFS and a Hive Metastore, exactly once.
//!
//! The modules stand in the order in which a record meets them; imports point down this list only (`tests/layering.rs` holds it to that).
//! `ARCHITECTURE.md` tells a record's way, the commit protocol and what happens when something is killed.

pub mod cli;
pub mod config;
pub mod doctor;
pub mod pipeline;
pub mod verify;
pub mod query;
pub mod schema;
pub mod source;
pub mod bronze;
pub mod silver;
pub mod gold;
pub mod table;
pub mod hive;
pub mod catalog;
pub mod metastore;
pub mod storage;
pub mod record;
pub mod compatibility;
pub mod completeness;
pub mod checkpoint;
pub mod retry;
pub mod clock;
pub mod window;
pub mod telemetry;
pub mod error;

pub use error::{Context, Error, Kind, Result};

/// The clone that is tested, which need not be the one that was compiled in: build results may come from another one.
#[cfg(test)]
fn repository() -> std::path::PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), Into::into)
}
