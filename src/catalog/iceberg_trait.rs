//! The catalog as the iceberg crate and its DataFusion integration see it.

use std::collections::HashMap;
use std::error::Error as StdError;

use async_trait::async_trait;
use iceberg::table::Table;
use iceberg::{
    Catalog, Error as IcebergError, ErrorKind, Namespace, NamespaceIdent, Result as IcebergResult, TableCommit, TableCreation,
    TableIdent,
};

use super::{CommitOutcome, HiveCatalog, Rejection, entry};
use crate::error::{Error, Kind};
use crate::metastore::{Cascade, DeleteData, HiveDatabase, MetastoreError};
use crate::storage::StorageError;

#[async_trait]
impl Catalog for HiveCatalog {
    /// The metastore's databases; a metastore knows no namespaces below them.
    async fn list_namespaces(&self, parent: Option<&NamespaceIdent>) -> IcebergResult<Vec<NamespaceIdent>> {
        if parent.is_some() {
            return Ok(Vec::new());
        }
        Ok(self.metastore().databases().await.map_err(foreign)?.into_iter().map(NamespaceIdent::new).collect())
    }

    async fn create_namespace(
        &self,
        namespace: &NamespaceIdent,
        properties: HashMap<String, String>,
    ) -> IcebergResult<Namespace> {
        let name = database_name(namespace)?;
        if self.namespace_exists(namespace).await? {
            return Err(IcebergError::new(ErrorKind::NamespaceAlreadyExists, format!("database {namespace} exists already")));
        }
        self.create_database(name, &properties).await.map_err(foreign)?;
        self.get_namespace(namespace).await
    }

    async fn get_namespace(&self, namespace: &NamespaceIdent) -> IcebergResult<Namespace> {
        let database = self.database_or_error(namespace).await?;
        let mut properties = HashMap::from([("comment".to_owned(), database.description().to_owned())]);
        properties.extend(database.location().map(|location| ("location".to_owned(), location.to_owned())));
        Ok(Namespace::with_properties(namespace.clone(), properties))
    }

    async fn namespace_exists(&self, namespace: &NamespaceIdent) -> IcebergResult<bool> {
        Ok(self.metastore().database(database_name(namespace)?).await.map_err(foreign)?.is_some())
    }

    async fn update_namespace(&self, namespace: &NamespaceIdent, _properties: HashMap<String, String>) -> IcebergResult<()> {
        Err(IcebergError::new(ErrorKind::FeatureUnsupported, format!("properties of database {namespace} cannot be changed")))
    }

    async fn drop_namespace(&self, namespace: &NamespaceIdent) -> IcebergResult<()> {
        self.database_or_error(namespace).await?;
        self.metastore().drop_database(database_name(namespace)?, DeleteData::No, Cascade::No).await.map_err(foreign)
    }

    /// The Iceberg tables of a database; its Hive tables and views are not listed.
    async fn list_tables(&self, namespace: &NamespaceIdent) -> IcebergResult<Vec<TableIdent>> {
        self.iceberg_tables(database_name(namespace)?).await.map_err(foreign)
    }

    async fn create_table(&self, namespace: &NamespaceIdent, creation: TableCreation) -> IcebergResult<Table> {
        let ident = TableIdent::new(namespace.clone(), creation.name.clone());
        self.create(&ident, creation, None).await.map_err(foreign)?.table().map_err(foreign)
    }

    async fn load_table(&self, table: &TableIdent) -> IcebergResult<Table> {
        self.load_or_error(table).await
    }

    /// Removes the entry; the files stay.
    async fn drop_table(&self, table: &TableIdent) -> IcebergResult<()> {
        let (database, name) = names(table)?;
        self.metastore().drop_table(database, name, DeleteData::No).await.map_err(foreign)
    }

    /// Removes the entry, then the files that the table's metadata names. What fails to be deleted stays: the table is gone by then.
    async fn purge_table(&self, table: &TableIdent) -> IcebergResult<()> {
        let loaded = self.load_or_error(table).await?;
        self.drop_table(table).await?;
        iceberg::drop_table_data(&loaded).await
    }

    async fn table_exists(&self, table: &TableIdent) -> IcebergResult<bool> {
        Ok(self.entry(table).await.map_err(foreign)?.is_some_and(|entry| entry::is_iceberg(&entry)))
    }

    async fn rename_table(&self, source: &TableIdent, target: &TableIdent) -> IcebergResult<()> {
        if self.entry(source).await.map_err(foreign)?.is_none() {
            return Err(missing(source));
        }
        // Servers call it an invalid operation.
        if self.entry(target).await.map_err(foreign)?.is_some() {
            return Err(IcebergError::new(ErrorKind::TableAlreadyExists, format!("there is a table {target} already")));
        }
        self.rename(source, target).await.map_err(foreign)
    }

    async fn register_table(&self, table: &TableIdent, metadata_location: String) -> IcebergResult<Table> {
        self.register(table, metadata_location).await.map_err(foreign)?.table().map_err(foreign)
    }

    async fn update_table(&self, mut commit: TableCommit) -> IcebergResult<Table> {
        let ident = commit.identifier().clone();
        match self.commit(&ident, commit.take_requirements(), commit.take_updates()).await {
            CommitOutcome::Committed(loaded) => loaded.table().map_err(foreign),
            CommitOutcome::Rejected(rejection @ (Rejection::Moved { found: Some(_) } | Rejection::Offsets(_))) => {
                let error = rejection.into_error(&ident);
                Err(IcebergError::new(ErrorKind::CatalogCommitConflicts, error.to_string())
                    .with_retryable(true)
                    .with_source(error))
            }
            CommitOutcome::Rejected(rejection) => Err(foreign(rejection.into_error(&ident))),
            // Never retryable: trying again could apply it twice.
            CommitOutcome::Unknown(error) => {
                let text = format!("the outcome of a commit to {ident} is unknown");
                Err(IcebergError::new(ErrorKind::Unexpected, text).with_source(error))
            }
        }
    }
}

impl HiveCatalog {
    async fn load_or_error(&self, ident: &TableIdent) -> IcebergResult<Table> {
        self.load(ident).await.map_err(foreign)?.ok_or_else(|| missing(ident))?.table().map_err(foreign)
    }

    async fn database_or_error(&self, namespace: &NamespaceIdent) -> IcebergResult<HiveDatabase> {
        let missing = || IcebergError::new(ErrorKind::NamespaceNotFound, format!("database {namespace} does not exist"));
        self.metastore().database(database_name(namespace)?).await.map_err(foreign)?.ok_or_else(missing)
    }
}

fn missing(table: &TableIdent) -> IcebergError {
    IcebergError::new(ErrorKind::TableNotFound, format!("table {table} does not exist"))
}

/// The database of a one-level namespace.
fn database_name(namespace: &NamespaceIdent) -> IcebergResult<&str> {
    match namespace.as_ref().as_slice() {
        [name] => Ok(name),
        _ => Err(IcebergError::new(ErrorKind::DataInvalid, format!("{namespace} is not a database: it has more than one level"))),
    }
}

fn names(ident: &TableIdent) -> IcebergResult<(&str, &str)> {
    Ok((database_name(ident.namespace())?, ident.name()))
}

/// An error of ours as one of the iceberg crate's, which knows whether an operation may be repeated.
fn foreign(error: impl Into<Error>) -> IcebergError {
    let error = error.into();
    let kind = match (said_by_the_metastore(&error), error.kind()) {
        (Some(MetastoreError::AlreadyExists { .. }), _) => ErrorKind::TableAlreadyExists,
        (Some(MetastoreError::NoSuchObject { .. }), _) => ErrorKind::TableNotFound,
        (_, Kind::Config | Kind::Stop) => ErrorKind::PreconditionFailed,
        (_, Kind::Transient | Kind::Failed) => ErrorKind::Unexpected,
    };
    // A transaction repeats whatever is retryable; only conflicts of ours are.
    IcebergError::new(kind, error.to_string()).with_source(error)
}

fn said_by_the_metastore(error: &Error) -> Option<&MetastoreError> {
    let mut source = StdError::source(error);
    while let Some(cause) = source {
        if let Some(said) = cause.downcast_ref::<MetastoreError>() {
            return Some(said);
        }
        source = cause.source();
    }
    None
}

impl From<iceberg::Error> for Error {
    fn from(error: iceberg::Error) -> Self {
        // A failure of storage comes back from the iceberg crate wrapped; whether it may pass is what a caller needs to know.
        let mut source = StdError::source(&error);
        while let Some(cause) = source {
            if cause.downcast_ref::<StorageError>().is_some_and(StorageError::is_transient) {
                return Error::transient(error.message().to_owned()).caused_by(error);
            }
            source = cause.source();
        }
        Error::failed(error.message().to_owned()).caused_by(error)
    }
}
