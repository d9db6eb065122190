//! What `metadata_location` means: the Iceberg catalog over a Hive Metastore.
//!
//! A table is an entry in the metastore whose parameter `metadata_location` names one immutable metadata file. A commit writes the next
//! metadata file and moves the pointer there in one `alter_table`. The server carries it out only if the parameter still has the value
//! that the commit was based on (compare-and-swap: `expected_parameter_key`, HIVE-26882), or the metastore's lock is held; `way` says
//! which.
//!
//! *Invariants*: a pointer is moved by [`HiveCatalog::swap`] only; the call carries an expected value that the server looks at, or the
//! lock is held, or there is no call; an entry is read, changed and written back with everything else that stands in it.
//!
//! *Failure*: three outcomes ([`CommitOutcome`]). An error is taken for a refusal only where [`MetastoreError::certainly_not_applied`]
//! says so; anything else is looked up, and is unknown as long as it can't be.
//!
//! *What may leak*: the metadata file of an attempt that was unknown.
//!
//! [`MetastoreError::certainly_not_applied`]: crate::metastore::MetastoreError::certainly_not_applied

mod commit;
mod entry;
mod forward;
mod hive_type;
mod iceberg_trait;
mod lakehouse;
mod names;
mod outcome;
mod protocol;
mod swap;
mod way;

pub use lakehouse::{EMBEDDED_FILE, Lakehouse};
pub use outcome::{CommitOutcome, Rejection, SwapOutcome};
#[doc(hidden)]
pub use protocol::Protocol;
pub(crate) use swap::Turn;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use iceberg::io::FileIO;
use iceberg::spec::{TableMetadata, TableMetadataBuilder, TableMetadataRef};
use iceberg::table::Table;
use iceberg::{MetadataLocation, NamespaceIdent, Runtime, TableCreation, TableIdent};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::metastore::{CompareAndSwap, DeleteData, HiveDatabase, HiveTable, Metastore, MetastoreError};
use crate::retry::RetrySettings;
use crate::storage::{StorageError, Storages};

/// How tables are committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CatalogSettings {
    /// How often and how patiently a commit is tried again when others were faster or its outcome has to be looked up. Default: 10
    /// attempts, 50ms to 5s apart.
    pub commit_retry: RetrySettings,
}

impl Default for CatalogSettings {
    fn default() -> Self {
        let commit_retry =
            RetrySettings { attempts: 10, initial_delay: Duration::from_millis(50), max_delay: Duration::from_secs(5) };
        Self { commit_retry }
    }
}

/// The Iceberg catalog over a Hive Metastore. Clones share their connections.
#[derive(Debug, Clone)]
pub struct HiveCatalog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    metastore: Metastore,
    storages: Storages,
    settings: CatalogSettings,
    file_io: FileIO,
    protocol: Protocol,
}

/// One version of a table: a metadata file and what it says.
#[derive(Debug, Clone)]
pub struct Version {
    pub location: String,
    pub metadata: TableMetadataRef,
}

/// An Iceberg table as it stood when it was read.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub ident: TableIdent,
    /// Where the entry points, and what stands there.
    pub version: Version,
    /// The metastore's entry.
    pub entry: HiveTable,
    file_io: FileIO,
}

impl Loaded {
    /// The table in the iceberg crate's form, for scans and DataFusion.
    pub fn table(&self) -> Result<Table> {
        iceberg_table(&self.ident, &self.version, self.file_io.clone())
    }
}

/// A table's version in the iceberg crate's form.
pub(crate) fn iceberg_table(ident: &TableIdent, version: &Version, file_io: FileIO) -> Result<Table> {
    let builder = Table::builder().file_io(file_io).metadata_location(&version.location).metadata(version.metadata.clone());
    Ok(builder.identifier(ident.clone()).runtime(Runtime::try_current()?).build()?)
}

impl HiveCatalog {
    pub fn new(metastore: Metastore, storages: Storages, settings: CatalogSettings) -> Self {
        Self::with_protocol(metastore, storages, settings, Protocol::SHIPPED)
    }

    /// With decisions of the commit protocol that a test takes wrongly.
    #[doc(hidden)]
    pub fn with_protocol(metastore: Metastore, storages: Storages, settings: CatalogSettings, protocol: Protocol) -> Self {
        let file_io = storages.file_io();
        Self { inner: Arc::new(Inner { metastore, storages, settings, file_io, protocol }) }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.inner.protocol
    }

    pub fn metastore(&self) -> &Metastore {
        &self.inner.metastore
    }

    pub fn storages(&self) -> &Storages {
        &self.inner.storages
    }

    pub fn settings(&self) -> &CatalogSettings {
        &self.inner.settings
    }

    pub fn file_io(&self) -> &FileIO {
        &self.inner.file_io
    }

    /// The table as it stands now; none if there is no entry of that name. An entry that is no Iceberg table is an error.
    pub async fn load(&self, ident: &TableIdent) -> Result<Option<Loaded>> {
        let Some(entry) = self.entry(ident).await? else { return Ok(None) };
        let location = entry::metadata_location(ident, &entry)?;
        let version = self.read_version(location).await?;
        Ok(Some(Loaded { ident: ident.clone(), version, entry, file_io: self.file_io().clone() }))
    }

    /// As [`Self::load`], without reading the metadata file if the entry still points to `known`.
    pub(crate) async fn load_if_moved(&self, ident: &TableIdent, known: &Version) -> Result<Option<Version>> {
        let Some(entry) = self.entry(ident).await? else { return Ok(None) };
        let location = entry::metadata_location(ident, &entry)?;
        if location == known.location {
            return Ok(Some(known.clone()));
        }
        Ok(Some(self.read_version(location).await?))
    }

    /// Creates a table, and its database if that is missing. Fails if the name is taken.
    pub async fn create(&self, ident: &TableIdent, creation: TableCreation, comment: Option<&str>) -> Result<Loaded> {
        let database = self.ensure_database(ident.namespace()).await?;
        let honoured = self.metastore().compare_and_swap(database.name()).await? == CompareAndSwap::Honoured;
        let location = match &creation.location {
            Some(location) => self.storages().qualify(location)?,
            None => format!("{}/{}", database.location().unwrap_or_default().trim_end_matches('/'), ident.name()),
        };
        let mut properties = HashMap::from([(entry::HIVE_ENABLED.to_owned(), "true".to_owned())]);
        properties.extend(creation.properties);
        // Java's writers learn from this whether they must lock; see `way`.
        properties.entry(entry::LOCK_ENABLED.to_owned()).or_insert_with(|| (!honoured).to_string());
        let creation = TableCreation { location: Some(location), properties, ..creation };
        let metadata = TableMetadataBuilder::from_table_creation(creation)?.build()?.metadata;
        let version = first_version(metadata);
        self.write_version(&version).await?;
        let entry = entry::new_entry(ident, self.metastore().user(), &version, comment);
        self.enter(ident, entry, version).await
    }

    /// Creates a table that begins with the metadata given; its database must exist. Fails if the name is taken.
    pub(crate) async fn create_from(&self, ident: &TableIdent, metadata: TableMetadata, comment: &str) -> Result<Loaded> {
        let version = first_version(metadata);
        self.write_version(&version).await?;
        let entry = entry::new_entry(ident, self.metastore().user(), &version, Some(comment));
        self.enter(ident, entry, version).await
    }

    /// Removes a table's entry; the files stay.
    pub(crate) async fn drop_entry(&self, ident: &TableIdent) -> Result<()> {
        let dropped = self.metastore().drop_table(&ident.namespace().to_url_string(), ident.name(), DeleteData::No).await;
        dropped.with_context(|| format!("failed to drop table {ident}"))
    }

    /// The Iceberg tables of a database, by name.
    pub async fn iceberg_tables(&self, database: &str) -> Result<Vec<TableIdent>> {
        let namespace = NamespaceIdent::new(database.to_owned());
        let entries = self.metastore().tables(database).await?.into_iter().map(|name| {
            let ident = TableIdent::new(namespace.clone(), name);
            async move {
                let entry = self.entry(&ident).await?;
                Ok::<_, Error>(entry.filter(entry::is_iceberg).map(|_| ident))
            }
        });
        let tables: Vec<_> = futures::stream::iter(entries).buffered(LIST_CONCURRENCY).try_collect().await?;
        Ok(tables.into_iter().flatten().collect())
    }

    /// The database of that name, created below the warehouse if it is missing.
    pub async fn ensure_database(&self, namespace: &NamespaceIdent) -> Result<HiveDatabase> {
        let name = namespace.to_url_string();
        if let Some(database) = self.metastore().database(&name).await? {
            return Ok(database);
        }
        self.create_database(&name, &HashMap::new()).await?;
        let missing = || Error::transient(format!("database {name} was dropped while it was being created"));
        self.metastore().database(&name).await?.ok_or_else(missing)
    }

    /// Creates a database at its `location` property, or below the warehouse. Another writer's database of that name is as good.
    async fn create_database(&self, name: &str, properties: &HashMap<String, String>) -> Result<()> {
        let mut database = HiveDatabase::new(name);
        let location = match properties.get("location") {
            Some(location) => self.storages().qualify(location)?,
            None => format!("{}/{name}.db", self.storages().warehouse().trim_end_matches('/')),
        };
        database.set_location(&location);
        database.set_owner(self.metastore().user());
        for (key, value) in properties.iter().filter(|(key, _)| *key != "location") {
            database.set_parameter(key, value);
        }
        match self.metastore().create_database(&database).await {
            Ok(()) | Err(MetastoreError::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(Error::from(error).context(format!("failed to create database {name} at {location}"))),
        }
    }

    pub(crate) async fn entry(&self, ident: &TableIdent) -> Result<Option<HiveTable>> {
        let entry = self.metastore().table(&ident.namespace.to_url_string(), ident.name()).await;
        entry.with_context(|| format!("failed to read the entry of table {ident}"))
    }

    pub(crate) async fn read_version(&self, location: String) -> Result<Version> {
        let metadata = TableMetadata::read_from(self.file_io(), &location).await;
        let metadata = metadata.map_err(|error| {
            let failed = format!("failed to read table metadata {location}");
            if !matches!(StorageError::within(&error), Some(StorageError::NotFound { .. })) {
                return Error::from(error).context(failed);
            }
            // Commits may have passed since the entry was read; or it was put back, which a writer mends: see `forward`.
            Error::transient(failed).caused_by(error).hint(
                "was the entry put back behind the versions that the table keeps (write.metadata.previous-versions-max)? `lakesmith run` \
                 puts it forward to the newest version that is there and was current",
            )
        })?;
        Ok(Version { location, metadata: Arc::new(metadata) })
    }
}

/// Entries that are read at the same time when tables are listed.
const LIST_CONCURRENCY: usize = 4;

/// The first version of a new table.
fn first_version(metadata: TableMetadata) -> Version {
    let location = MetadataLocation::new_with_metadata(metadata.location(), &metadata).to_string();
    Version { location, metadata: Arc::new(metadata) }
}
