//! A metastore of our own, for when there is none: Hive's Thrift interface over one SQLite file.
//!
//! It serves what lakesmith, Spark (with its 2.3 and 4.0 Hive clients), Trino, pyiceberg and HiveServer2 call, under the old names and the
//! `_req` names alike, with the defaults that a 4.0 server fills in, and with compare-and-swap. Entries are kept as the bytes of their
//! Thrift structs, so a field that is unknown here survives. What is left unknown on purpose (`get_partitions_by_expr` and its kind, whose
//! argument only a JVM can read) makes those clients fall back to what is served.
//!
//! *Invariants*: a call is one SQLite transaction, so several processes may serve and use the same file. A reply to a write is sent after
//! the commit is on disk. There is one catalog, `hive`; names are lower case.
//!
//! *Failure*: a request that makes no sense gets Hive's exception for it; nothing that a client sends ends the server.
//!
//! *What may leak*: the empty directory of a table or partition whose creation failed afterwards, and the directory of a dropped one if the
//! process ends before it is deleted. A dropped table's directory that lies outside the warehouse is left on purpose.

mod databases;
mod dispatch;
mod fault;
mod files;
mod filter;
mod fixed;
mod locks;
mod names;
mod partitions;
mod server;
mod statistics;
mod store;
mod tables;

pub use server::{EmbeddedMetastore, serve};
