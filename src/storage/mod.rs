//! HDFS and local files behind one API, [`Storages`]: whole reads and ranges, streaming writes, listings, deletes, all with deadlines.
//!
//! A location is a URI or an absolute path; its scheme picks the file system ([`location`]). Iceberg reaches the same files through
//! [`Storages::file_io`], DataFusion through [`Storages::register_object_stores`]. Closing is the slow part of writing (an HDFS close waits
//! 500 ms for the NameNode, a local one for fsync), so the files of a commit are closed together: [`FileWriter::defer_close`] hands each close
//! to a [`CloseBarrier`], and one [`CloseBarrier::wait`] before the pointer swap covers them all.
//!
//! *Invariants*: a close that has begun is never cancelled. What `close` or `wait` reported as done is durable: on HDFS complete and
//! acknowledged by the NameNode, locally fsynced with its directory. A path written with [`Create::Overwrite`] holds the old bytes or all of the
//! new ones. A writer whose write failed or was cancelled half-way refuses to close.
//!
//! *Failure*: every call ends within `storage.call_timeout` per step (a step is one request, one packet, one chunk). After a deadline or a panic
//! inside the HDFS client the client is thrown away and the next call builds a new one: hdfs-native has no timeout of its own towards the NameNode.
//!
//! *What may leak*: the file of a writer that was killed before its close, hidden as `.NAME.UUID.tmp` when it was an overwrite; an open HDFS
//! lease until the NameNode expires it (20 minutes), when the delete of an aborted file could not be sent.

mod barrier;
mod error;
pub mod hadoop_conf;
mod hdfs;
mod iceberg_io;
mod local;
mod location;
mod memory;
mod objects;
mod settings;
mod storages;
mod writer;

pub use barrier::CloseBarrier;
pub use error::StorageError;
pub use hadoop_conf::HadoopConf;
#[doc(hidden)]
pub use memory::{Disturb, MemoryFiles, Moment, Site};
pub use objects::ObjectLocation;
pub use settings::{StorageSettings, user_name};
pub use storages::{Create, Depth, FileReader, FileStatus, Storages};
pub use writer::FileWriter;
