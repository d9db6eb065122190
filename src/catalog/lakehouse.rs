//! The servers and directories behind all tables of a pipeline, opened together.
//!
//! With metastore addresses configured, those are used (`config` takes them from hive-site.xml too, where nothing else names any).
//! Without, lakesmith serves its own metastore out of the warehouse directory for as
//! long as the lakehouse is open; everything above speaks Thrift to either, so there is one code path.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use tracing::debug;

use super::{CatalogSettings, HiveCatalog};
use crate::error::{Context, Error, Result};
use crate::metastore::embedded::{self, EmbeddedMetastore};
use crate::metastore::{Metastore, MetastoreSettings};
use crate::storage::{StorageSettings, Storages};

/// The file of the embedded metastore, in the warehouse directory.
pub const EMBEDDED_FILE: &str = "metastore.sqlite";

/// Catalog, metastore and storage of a pipeline.
#[derive(Debug)]
pub struct Lakehouse {
    catalog: HiveCatalog,
    embedded: Option<EmbeddedMetastore>,
}

impl Lakehouse {
    /// Connects to the configured metastore, or starts the embedded one. Tables are neither read nor made.
    pub async fn open(metastore: &MetastoreSettings, storage: &StorageSettings, catalog: &CatalogSettings) -> Result<Self> {
        let storages = Storages::new(storage)?;
        let mut settings = metastore.clone();
        let embedded = if settings.uris.is_empty() { Some(serve_embedded(&storages, &settings).await?) } else { None };
        if let Some(server) = &embedded {
            debug!(uri = server.uri(), "serving the embedded metastore");
            settings.uris = vec![server.uri()];
        }
        let client = Metastore::connect(&settings).await?;
        Ok(Self { catalog: HiveCatalog::new(client, storages, catalog.clone()), embedded })
    }

    pub fn catalog(&self) -> &HiveCatalog {
        &self.catalog
    }

    pub fn metastore(&self) -> &Metastore {
        self.catalog.metastore()
    }

    pub fn storages(&self) -> &Storages {
        self.catalog.storages()
    }

    /// The embedded metastore's address, if there is one.
    pub fn embedded_uri(&self) -> Option<String> {
        self.embedded.as_ref().map(EmbeddedMetastore::uri)
    }

    /// Gives back what is held, and stops the embedded metastore, if there is one.
    pub async fn close(self) {
        self.metastore().finish().await;
        if let Some(server) = self.embedded {
            server.shutdown().await;
        }
    }
}

async fn serve_embedded(storages: &Storages, settings: &MetastoreSettings) -> Result<EmbeddedMetastore> {
    let warehouse = storages.warehouse();
    let Some(directory) = warehouse.strip_prefix("file://").map(PathBuf::from) else {
        return Err(Error::config(format!("no metastore is configured for the warehouse {warehouse}"))
            .hint("set metastore.uris or HIVE_METASTORE_URIS; the embedded metastore needs a local storage.warehouse"));
    };
    storages.create_dir(&warehouse).await?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, settings.embedded_port));
    embedded::serve(&directory.join(EMBEDDED_FILE), address)
        .await
        .with_context(|| format!("the embedded metastore of {} did not start", directory.display()))
}
