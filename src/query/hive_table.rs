//! A plain Hive table of Parquet files or JSON lines as DataFusion reads it: the partitions at their current locations, as the metastore has
//! them.
//!
//! Partitions that a filter on partition columns excludes are neither listed nor opened. Column names are matched without regard to case
//! (the metastore knows `totalorders`, the file `TotalOrders`); INT96 timestamps become microseconds.
//!
//! *Invariants*: locations are read once per query, so that a query sees one version of each partition.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, FileSource, JsonSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr_adapter::{DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use object_store::ObjectMeta;

use super::statement::external;
use crate::catalog::HiveCatalog;
use crate::error::Error;
use crate::hive::{FileFormat, arrow_type};
use crate::metastore::{FieldSchema, HivePartition, HiveTable};
use crate::storage::{Depth, Storages};

/// One partition: its values, typed, and where its files lie.
#[derive(Debug, Clone)]
struct Partition {
    values: Vec<ScalarValue>,
    location: String,
}

/// See the module head.
#[derive(Debug)]
pub struct HiveTableProvider {
    name: String,
    storages: Storages,
    format: FileFormat,
    /// Columns of the files, then the partition columns.
    schema: SchemaRef,
    partition_columns: Vec<FieldRef>,
    partitions: Vec<Partition>,
}

/// The partitions of a table; none for one without partition columns.
pub(super) async fn partitions_of(catalog: &HiveCatalog, entry: &HiveTable) -> Result<Vec<HivePartition>, Error> {
    match entry.partition_keys().is_empty() {
        true => Ok(Vec::new()),
        false => Ok(catalog.metastore().partitions(entry.database(), entry.name()).await?),
    }
}

impl HiveTableProvider {
    /// The table with its partitions of now, its stores known to `runtime`.
    pub async fn open(catalog: &HiveCatalog, entry: &HiveTable, runtime: &RuntimeEnv) -> Result<Self, Error> {
        let (partitions, storages) = (partitions_of(catalog, entry).await?, catalog.storages());
        let locations = partitions.iter().map(|partition| partition.location()).chain([entry.location()]);
        for location in locations.flatten().filter(|location| !location.is_empty()) {
            storages.register_object_stores(runtime, location)?;
        }
        Self::new(entry, &partitions, storages.clone())
    }

    /// `partitions` are ignored for a table without partition columns, whose files lie at its own location.
    pub fn new(table: &HiveTable, partitions: &[HivePartition], storages: Storages) -> Result<Self, Error> {
        let name = format!("{}.{}", table.database(), table.name());
        let fields = |columns: &[FieldSchema]| -> Result<Vec<FieldRef>, Error> {
            let field = |column: &FieldSchema| Ok(Arc::new(Field::new(&column.name, arrow_type(&column.hive_type)?, true)));
            columns
                .iter()
                .map(field)
                .collect::<Result<_, Error>>()
                .map_err(|error| error.context(format!("table {name} cannot be read")))
        };
        let partition_columns = fields(&table.partition_keys())?;
        let all = fields(&table.columns())?.into_iter().chain(partition_columns.iter().cloned());
        let schema = Arc::new(Schema::new(all.collect::<Vec<_>>()));
        let whole = Partition { values: Vec::new(), location: table.location().unwrap_or_default().to_string() };
        let partitions = match partition_columns.is_empty() {
            true => vec![whole],
            false => partitions.iter().map(|partition| typed(&name, partition, &partition_columns)).collect::<Result<_, _>>()?,
        };
        let format = FileFormat::of(table).ok_or_else(|| {
            let serde = table.serde_library().unwrap_or("nothing");
            Error::failed(format!("table {name} cannot be read: it is stored as {serde}"))
                .hint("Parquet and JSON lines can be read")
        })?;
        Ok(Self { name, storages, format, schema, partition_columns, partitions })
    }

    fn is_about_partitions(&self, filter: &Expr) -> bool {
        let columns = filter.column_refs();
        !columns.is_empty()
            && columns.iter().all(|column| self.partition_columns.iter().any(|field| *field.name() == column.name))
    }

    /// The partitions for which the filters on partition columns hold.
    fn pruned(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<&Partition>> {
        let filters = filters.iter().filter(|filter| self.is_about_partitions(filter)).cloned();
        let Some(filter) = conjunction(filters).filter(|_| !self.partitions.is_empty()) else {
            return Ok(self.partitions.iter().collect());
        };
        let columns = (0..self.partition_columns.len())
            .map(|column| ScalarValue::iter_to_array(self.partitions.iter().map(|partition| partition.values[column].clone())))
            .collect::<Result<Vec<ArrayRef>>>()?;
        let schema = Arc::new(Schema::new(self.partition_columns.clone()));
        let predicate = state.create_physical_expr(filter, &DFSchema::try_from(schema.clone())?)?;
        // Row numbers tell which partitions are left.
        let numbers: ArrayRef = Arc::new(arrow::array::UInt32Array::from_iter_values(0..self.partitions.len() as u32));
        let keep = predicate.evaluate(&RecordBatch::try_new(schema, columns)?)?.into_array(self.partitions.len())?;
        let numbers = RecordBatch::try_from_iter([("number", numbers)])?;
        let kept = filter_record_batch(&numbers, keep.as_boolean())?;
        let kept = kept.column(0).as_primitive::<arrow::datatypes::UInt32Type>();
        Ok(kept.values().iter().map(|number| &self.partitions[*number as usize]).collect())
    }

    /// Files are read with the filters that their statistics may answer.
    fn parquet(&self, state: &dyn Session, filters: &[Expr], table_schema: TableSchema) -> Result<ParquetSource> {
        let mut options = TableParquetOptions { global: state.config_options().execution.parquet.clone(), ..Default::default() };
        options.global.coerce_int96 = Some("us".to_string());
        let source = ParquetSource::new(table_schema).with_table_parquet_options(options);
        let pushed = filters.iter().filter(|filter| !self.is_about_partitions(filter)).cloned();
        let Some(filter) = conjunction(pushed) else { return Ok(source) };
        let predicate = state.create_physical_expr(filter, &DFSchema::try_from(self.schema.clone())?)?;
        Ok(source.with_predicate(predicate))
    }

    /// The data files of a partition, by the store that they are in. Hive and Spark hide names that begin with `_` or a dot.
    async fn files(&self, partition: &Partition) -> Result<Vec<(ObjectStoreUrl, PartitionedFile)>> {
        let files = self.storages.list(&partition.location, Depth::Direct).await.map_err(|error| {
            external(
                Error::from(error).context(format!("files of table {} at {} cannot be listed", self.name, partition.location)),
            )
        })?;
        let mut found = Vec::new();
        for file in files.into_iter().filter(|file| !file.is_dir && file.size_bytes > 0) {
            let hidden = file.location.rsplit('/').next().is_none_or(|name| name.starts_with(['_', '.']));
            if !hidden {
                let object = self.storages.object_location(&file.location).map_err(external)?;
                let modified = chrono::DateTime::from_timestamp_millis(file.modified_ms as i64).unwrap_or_default();
                let meta = ObjectMeta {
                    location: object.path,
                    last_modified: modified,
                    size: file.size_bytes,
                    e_tag: None,
                    version: None,
                };
                let file = PartitionedFile::new_from_meta(meta).with_partition_values(partition.values.clone());
                found.push((object.store, file));
            }
        }
        Ok(found)
    }
}

fn typed(table: &str, partition: &HivePartition, columns: &[FieldRef]) -> Result<Partition, Error> {
    let values = partition.values();
    if values.len() != columns.len() {
        return Err(Error::failed(format!(
            "a partition of table {table} has {} values for {} columns",
            values.len(),
            columns.len()
        )));
    }
    let value = |(text, column): (&String, &FieldRef)| match text.as_str() {
        "__HIVE_DEFAULT_PARTITION__" => ScalarValue::try_from(column.data_type()),
        text => ScalarValue::try_from_string(text.to_string(), column.data_type()),
    };
    let typed = values.iter().zip(columns).map(value).collect::<Result<_>>();
    let values = typed.map_err(|error| {
        Error::failed(format!("partition {} of table {table} does not fit its columns", values.join("/"))).caused_by(error)
    })?;
    Ok(Partition { values, location: partition.location().unwrap_or_default().to_string() })
}

#[async_trait]
impl TableProvider for HiveTableProvider {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let pushdown = |filter: &&Expr| match self.is_about_partitions(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(pushdown).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut stores: HashMap<ObjectStoreUrl, Vec<PartitionedFile>> = HashMap::new();
        for partition in self.pruned(state, filters)? {
            for (store, file) in self.files(partition).await? {
                stores.entry(store).or_default().push(file);
            }
        }
        let columns = self.schema.fields().len() - self.partition_columns.len();
        let file_schema = Arc::new(Schema::new(self.schema.fields().iter().take(columns).cloned().collect::<Vec<_>>()));
        let table_schema = TableSchema::new(file_schema, self.partition_columns.clone());
        let mut scans: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        for (store, files) in stores {
            let source: Arc<dyn FileSource> = match self.format {
                FileFormat::Parquet => Arc::new(self.parquet(state, filters, table_schema.clone())?),
                FileFormat::JsonText => Arc::new(JsonSource::new(table_schema.clone())),
            };
            let groups = FileGroup::new(files).split_files(state.config().target_partitions());
            let scan = FileScanConfigBuilder::new(store, source)
                .with_file_groups(groups)
                .with_expr_adapter(Some(Arc::new(AnyCaseAdapterFactory)))
                .with_limit(limit)
                .with_projection_indices(projection.cloned())?;
            scans.push(DataSourceExec::from_data_source(scan.build()));
        }
        match scans.len() {
            0 => {
                let schema = match projection {
                    Some(projection) => Arc::new(self.schema.project(projection)?),
                    None => self.schema.clone(),
                };
                Ok(Arc::new(EmptyExec::new(schema)))
            }
            1 => Ok(scans.remove(0)),
            _ => UnionExec::try_new(scans),
        }
    }
}

/// Finds a table's columns in a file whatever the case of their names.
#[derive(Debug)]
struct AnyCaseAdapterFactory;

impl PhysicalExprAdapterFactory for AnyCaseAdapterFactory {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let renamed = file.fields().iter().map(|field| {
            let name = table.fields().iter().map(|field| field.name()).find(|name| name.eq_ignore_ascii_case(field.name()));
            Arc::new(field.as_ref().clone().with_name(name.unwrap_or(field.name())))
        });
        let renamed = Arc::new(Schema::new(renamed.collect::<Vec<_>>()));
        Ok(Arc::new(AnyCaseAdapter { inner: DefaultPhysicalExprAdapterFactory.create(table, renamed)?, file }))
    }
}

#[derive(Debug)]
struct AnyCaseAdapter {
    inner: Arc<dyn PhysicalExprAdapter>,
    file: SchemaRef,
}

impl PhysicalExprAdapter for AnyCaseAdapter {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        // Pruning by statistics goes by name: give the columns their names in the file back.
        let adapted = self.inner.rewrite(expr)?;
        let renamed = adapted.transform(|expr| {
            let column = expr.as_any().downcast_ref::<Column>();
            match column.filter(|column| column.index() < self.file.fields().len()) {
                Some(column) => {
                    let name = self.file.field(column.index()).name();
                    Ok(Transformed::yes(Arc::new(Column::new(name, column.index())) as Arc<dyn PhysicalExpr>))
                }
                None => Ok(Transformed::no(expr)),
            }
        });
        renamed.data()
    }
}
