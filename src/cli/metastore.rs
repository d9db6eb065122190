//! `lakesmith metastore`: the embedded metastore for others.

use std::net::SocketAddr;
use std::path::Path;

use super::run::stop_on_signal;
use super::{Outcome, page};
use crate::catalog::EMBEDDED_FILE;
use crate::error::{Error, Result};
use crate::metastore::embedded;
use crate::storage::{StorageSettings, Storages};

/// Serve the embedded metastore, for Spark, Trino or several lakesmiths
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakesmith metastore                                        the tables of ./lakehouse, on 127.0.0.1:9083
  lakesmith metastore --warehouse /data/lake --listen 0.0.0.0:9083
  spark-sql --conf spark.hadoop.hive.metastore.uris=thrift://127.0.0.1:9083

It speaks the Thrift interface of a Hive Metastore and keeps its data in SQLite under the warehouse.")]
pub struct Arguments {
    /// Directory of the tables and of the metastore's own data
    #[arg(long, default_value = "./lakehouse")]
    warehouse: String,
    /// Address to listen on; there is no authentication, so leave it local unless the network is trusted
    #[arg(long, default_value = "127.0.0.1:9083")]
    listen: SocketAddr,
}

pub async fn run(arguments: Arguments) -> Result<Outcome> {
    let storages = Storages::new(&StorageSettings { warehouse: arguments.warehouse, ..StorageSettings::default() })?;
    let warehouse = storages.warehouse();
    let Some(directory) = warehouse.strip_prefix("file://") else {
        return Err(Error::config(format!("{warehouse} is not a local directory, which the embedded metastore needs")));
    };
    storages.create_dir(&warehouse).await?;
    let shutdown = stop_on_signal("stopping: calls under way are finished")?;
    let server = embedded::serve(&Path::new(directory).join(EMBEDDED_FILE), arguments.listen).await?;
    page::print(&format!("serving {warehouse} at {}", server.uri()))?;
    shutdown.cancelled().await;
    server.shutdown().await;
    Ok(Outcome::Done)
}
