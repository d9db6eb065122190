//! The Hive Metastore: a client for real ones, and one of our own for when there is none.
//!
//! [`Metastore`] speaks Hive's Thrift interface to any server from 2.3 to 4.x. [`embedded`] serves the same interface from a SQLite file,
//! to lakesmith and to any Spark, Trino or Hive that is pointed at it. Both stand on [`thrift`], a codec of values without generated code,
//! and on [`contract`], the tables of methods and fields; `thrift/hive_metastore.thrift` is their written form.

mod client;
pub mod contract;
pub mod embedded;
mod error;
mod settings;
pub mod thrift;
mod types;

pub use client::{
    Abilities, Cascade, ColumnCheck, CompareAndSwap, DeleteData, Generation, HeldLock, IfNotExists, Metastore, Wait,
};
#[doc(hidden)]
pub use client::{Dial, Wire};
pub use error::{MetastoreError, MetastoreResult};
pub use settings::MetastoreSettings;
pub use types::*;
