//! One statement, from text to a stream of rows: its tables are found in the metastore, its names brought into one spelling, then planned.
//!
//! *Invariants*: within a statement, views included, a table is read once: two references to it see the same snapshot.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::datasource::provider_as_source;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, col};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::resolve::resolve_table_references;
use futures::FutureExt;
use futures::future::BoxFuture;
use iceberg::TableIdent;
use tokio::sync::Mutex;

use super::answer::Answer;
use super::hive_table::{HiveTableProvider, partitions_of};
use super::iceberg_table::IcebergTableProvider;
use super::identifiers::Spellings;
use super::metadata_table::MetadataTable;
use super::overview::TableKind;
use super::settings::QuerySettings;
use super::statement::{Reading, headings, parse, parse_view, query_error};
use crate::catalog::HiveCatalog;
use crate::error::{Context, Error, Result};
use crate::metastore::HiveTable;
use crate::table::LakeTable;

const CATALOG: &str = "lakesmith";

/// Views may be built on views, within reason: a view that names itself must end somewhere.
const VIEW_DEPTH_MAX: usize = 16;

/// Queries over all layers of a pipeline.
#[derive(Clone)]
pub struct QuerySession {
    catalog: HiveCatalog,
    /// The database of tables that are named without one.
    database: String,
    config: SessionConfig,
    runtime: Arc<RuntimeEnv>,
}

/// The tables that a statement has read so far, by database and name.
#[derive(Default)]
struct Tables {
    providers: Mutex<HashMap<(String, String), Arc<dyn TableProvider>>>,
    /// The versions of Iceberg tables: a table and its `$files` belong together.
    iceberg: Mutex<HashMap<(String, String), LakeTable>>,
}

impl QuerySession {
    pub fn new(catalog: HiveCatalog, database: &str, settings: &QuerySettings) -> Result<Self> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_limit(settings.memory_limit.as_u64() as usize, 1.0)
            .build_arc()
            .map_err(query_error)?;
        let mut config =
            SessionConfig::new().with_default_catalog_and_schema(CATALOG, database).with_create_default_catalog_and_schema(false);
        if settings.threads > 0 {
            config = config.with_target_partitions(settings.threads);
        }
        // Money: a literal such as 0.15 is a decimal, and stays exact.
        config.options_mut().sql_parser.parse_float_as_decimal = true;
        Ok(Self { catalog, database: database.to_lowercase(), config, runtime })
    }

    /// Runs a statement that reads.
    pub async fn query(&self, sql: &str) -> Result<Answer> {
        let statement = match parse(sql)? {
            Reading::Rows(statement) => *statement,
            Reading::Tables(database) => return self.list(database).await,
        };
        let headings = headings(&statement);
        let context = self.context();
        let plan = self.plan(&context, statement, &self.database, &Tables::default(), 0).await?;
        let readonly = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        readonly.verify_plan(&plan).map_err(query_error)?;
        let rows = context.execute_logical_plan(plan).await.map_err(query_error)?.execute_stream().await.map_err(query_error)?;
        Ok(Answer::new(rows, headings))
    }

    fn context(&self) -> SessionContext {
        SessionContext::new_with_config_rt(self.config.clone(), self.runtime.clone())
    }

    /// Plans a statement in a name space of its own, which holds the tables it names.
    fn plan<'a>(
        &'a self,
        context: &'a SessionContext,
        mut statement: Statement,
        database: &'a str,
        tables: &'a Tables,
        depth: usize,
    ) -> BoxFuture<'a, Result<LogicalPlan>> {
        async move {
            let (references, _) = resolve_table_references(&statement, true).map_err(query_error)?;
            let functions = context.state().table_functions().clone();
            let is_function =
                |reference: &TableReference| reference.schema().is_none() && functions.contains_key(reference.table());
            let mut named = Vec::with_capacity(references.len());
            for reference in references.iter().filter(|reference| !is_function(reference)) {
                let name = table_name(reference, database)?;
                let provider = self.table(name.clone(), tables, depth).await?;
                named.push((name, provider));
            }
            let schemas: Vec<_> = named.iter().map(|(_, provider)| provider.schema()).collect();
            let spellings = Spellings::of(schemas.iter().flat_map(|schema| schema.fields()).map(|field| field.name().as_str()));
            spellings.rewrite(&mut statement);

            let catalog = Arc::new(MemoryCatalogProvider::new());
            for ((database, table), provider) in named {
                let schema = match catalog.schema(&database) {
                    Some(schema) => schema,
                    None => {
                        catalog.register_schema(&database, Arc::new(MemorySchemaProvider::new())).map_err(query_error)?;
                        catalog.schema(&database).ok_or_else(|| Error::failed("a schema is gone"))?
                    }
                };
                schema.register_table(table, respelled(provider, &spellings)?).map_err(query_error)?;
            }
            context.register_catalog(CATALOG, catalog);
            context.state().statement_to_plan(statement).await.map_err(query_error)
        }
        .boxed()
    }

    async fn table(&self, name: (String, String), tables: &Tables, depth: usize) -> Result<Arc<dyn TableProvider>> {
        if let Some(known) = tables.providers.lock().await.get(&name) {
            return Ok(known.clone());
        }
        let provider = self.open(&name.0, &name.1, tables, depth).await?;
        tables.providers.lock().await.insert(name, provider.clone());
        Ok(provider)
    }

    async fn open(&self, database: &str, name: &str, tables: &Tables, depth: usize) -> Result<Arc<dyn TableProvider>> {
        let metastore = self.catalog.metastore();
        let asked = MetadataTable::named(name)?;
        let name = asked.map_or(name, |(table, _)| table);
        let entry = metastore.table(database, name).await;
        let Some(entry) = entry.with_context(|| format!("table {database}.{name} cannot be looked up"))? else {
            return Err(self.unknown(database, name).await);
        };
        match (TableKind::of(&entry), asked) {
            (TableKind::Iceberg, None) => self.open_iceberg(database, name, tables).await,
            (TableKind::Iceberg, Some((_, asked))) => asked.of_iceberg(&self.version(database, name, tables).await?).await,
            (TableKind::View, None) => self.open_view(&entry, tables, depth).await,
            (TableKind::View, Some(_)) => Err(Error::config(format!("{database}.{name} is a view, which consists of nothing"))),
            (TableKind::Hive, None) => self.open_hive(&entry).await,
            (TableKind::Hive, Some((_, asked))) => asked.of_hive(&entry, &partitions_of(&self.catalog, &entry).await?),
        }
    }

    /// The version of an Iceberg table that this statement reads.
    async fn version(&self, database: &str, name: &str, tables: &Tables) -> Result<LakeTable> {
        let mut known = tables.iceberg.lock().await;
        let key = (database.to_owned(), name.to_owned());
        if let Some(table) = known.get(&key) {
            return Ok(table.clone());
        }
        let ident = TableIdent::from_strs([database, name]).context("the table's name is not usable")?;
        let table = LakeTable::open(&self.catalog, &ident).await?;
        let table = table.ok_or_else(|| Error::failed(format!("table {ident} was dropped just now")))?;
        known.insert(key, table.clone());
        Ok(table)
    }

    async fn open_iceberg(&self, database: &str, name: &str, tables: &Tables) -> Result<Arc<dyn TableProvider>> {
        let provider = IcebergTableProvider::new(self.version(database, name, tables).await?);
        Ok(Arc::new(provider.with_context(|| format!("table {database}.{name} cannot be read"))?))
    }

    async fn open_hive(&self, entry: &HiveTable) -> Result<Arc<dyn TableProvider>> {
        Ok(Arc::new(HiveTableProvider::open(&self.catalog, entry, &self.runtime).await?))
    }

    /// A Hive view: its text, with the column names that the metastore has.
    async fn open_view(&self, entry: &HiveTable, tables: &Tables, depth: usize) -> Result<Arc<dyn TableProvider>> {
        let name = format!("{}.{}", entry.database(), entry.name());
        if depth >= VIEW_DEPTH_MAX {
            return Err(Error::failed(format!("view {name} is built on more than {VIEW_DEPTH_MAX} others, or on itself")));
        }
        let broken = || format!("view {name} cannot be read");
        let text = entry.view_expanded_text().filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| Error::failed(format!("view {name} has no text")))?;
        let statement = parse_view(text).with_context(broken)?;
        let plan = self.plan(&self.context(), statement, entry.database(), tables, depth + 1).await.with_context(broken)?;
        let columns = entry.columns();
        if columns.len() != plan.schema().fields().len() {
            return Err(Error::failed(format!(
                "view {name} declares {} columns and selects {}",
                columns.len(),
                plan.schema().fields().len()
            )));
        }
        let renamed = plan.schema().columns().into_iter().zip(&columns);
        let renamed: Vec<_> =
            renamed.map(|(column, declared)| datafusion::logical_expr::Expr::Column(column).alias(&declared.name)).collect();
        let plan = LogicalPlanBuilder::from(plan).project(renamed).and_then(LogicalPlanBuilder::build).map_err(query_error)?;
        Ok(Arc::new(ViewTable::new(plan, Some(text.to_string()))))
    }

    async fn unknown(&self, database: &str, name: &str) -> Error {
        let error = Error::config(format!("table {database}.{name} does not exist"));
        match self.catalog.metastore().tables(database).await {
            Ok(tables) if !tables.is_empty() => error.hint(format!("tables of {database}: {}", tables.join(", "))),
            _ => match self.catalog.metastore().databases().await {
                Ok(databases) => error.hint(format!("there is no table in {database}; databases: {}", databases.join(", "))),
                Err(_) => error,
            },
        }
    }

    /// Databases and tables, with what kind each is.
    async fn list(&self, database: Option<String>) -> Result<Answer> {
        let metastore = self.catalog.metastore();
        let databases = match database {
            Some(database) => vec![database],
            None => metastore.databases().await?,
        };
        let (mut of, mut names, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
        for database in databases {
            for name in metastore.tables(&database).await? {
                let Some(entry) = metastore.table(&database, &name).await? else { continue };
                let kind = TableKind::of(&entry).to_string();
                of.push(database.clone());
                names.push(name);
                kinds.push(kind);
            }
        }
        let columns: [(&str, ArrayRef); 3] = [
            ("database", Arc::new(StringArray::from(of))),
            ("table", Arc::new(StringArray::from(names))),
            ("kind", Arc::new(StringArray::from(kinds))),
        ];
        let batch = RecordBatch::try_from_iter(columns)?;
        let rows = self.context().read_batch(batch).map_err(query_error)?.execute_stream().await.map_err(query_error)?;
        Ok(Answer::new(rows, None))
    }
}

/// Database and table of a reference, in the metastore's lower case.
fn table_name(reference: &TableReference, database: &str) -> Result<(String, String)> {
    if let Some(catalog) = reference.catalog().filter(|catalog| *catalog != CATALOG) {
        return Err(Error::config(format!("catalog {catalog} does not exist")).hint("name tables as DATABASE.TABLE"));
    }
    Ok((reference.schema().unwrap_or(database).to_lowercase(), reference.table().to_lowercase()))
}

/// The same table with its columns in the statement's spelling.
fn respelled(provider: Arc<dyn TableProvider>, spellings: &Spellings) -> Result<Arc<dyn TableProvider>> {
    let schema = provider.schema();
    let spelling = |name: &str| spellings.spelling(name).unwrap_or(name).to_string();
    if schema.fields().iter().all(|field| spelling(field.name()) == *field.name()) {
        return Ok(provider);
    }
    let columns = schema.fields().iter().map(|field| col(format!("\"{}\"", field.name())).alias(spelling(field.name())));
    let plan = LogicalPlanBuilder::scan("t", provider_as_source(provider), None)
        .and_then(|scan| scan.project(columns.collect::<Vec<_>>()))
        .and_then(LogicalPlanBuilder::build)
        .map_err(query_error)?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}
