//! An Iceberg table as DataFusion reads it: one version of it, with the columns that it has now.
//!
//! Columns are found by their field ids, through [`LakeTable::scan_where`]: a file that was written before a column was renamed, moved or
//! widened gives the values of that column, and one that was written before it was added gives null. (The iceberg crate's own provider maps
//! them by position, and knows only the columns that the snapshot had.)
//!
//! Filters prune files and row groups; DataFusion evaluates them once more.
//!
//! *Failure*: a file that cannot be read fails the query, with the file's name.

use std::any::Any;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::datasource::TableType;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::{TryFutureExt, TryStreamExt};
use iceberg::expr::Predicate;
use iceberg_datafusion::physical_plan::convert_filters_to_predicate;

use super::statement::external;
use crate::error::Error;
use crate::table::LakeTable;

/// See the module head.
#[derive(Debug)]
pub(crate) struct IcebergTableProvider {
    table: LakeTable,
    schema: SchemaRef,
}

impl IcebergTableProvider {
    pub fn new(table: LakeTable) -> Result<Self, Error> {
        Ok(Self { schema: table.arrow_schema()?, table })
    }

    /// What of the filters can be asked of the current snapshot, in the names that it has. A filter on a column that the snapshot
    /// doesn't have, or has in another type, or that is cast, is left to DataFusion.
    fn predicate(&self, filters: &[Expr]) -> Result<Option<Predicate>> {
        let mut asked = Vec::with_capacity(filters.len());
        for filter in filters {
            let mut known = true;
            let renamed = filter.clone().transform(|part| match part {
                Expr::Column(column) => match self.table.scanned_column(&column.name).map_err(external)? {
                    Some(name) => Ok(Transformed::yes(Expr::Column(Column::from_name(name)))),
                    None => {
                        known = false;
                        Ok(Transformed::no(Expr::Column(column)))
                    }
                },
                // The predicate would compare the column without it, in a type that it doesn't have.
                part @ (Expr::Cast(_) | Expr::TryCast(_)) => {
                    known = false;
                    Ok(Transformed::no(part))
                }
                part => Ok(Transformed::no(part)),
            });
            let predicate = convert_filters_to_predicate(&[renamed.data()?]).filter(|_| known);
            if let Some(predicate) = predicate
                && self.table.can_ask(&predicate).map_err(external)?
            {
                asked.push(predicate);
            }
        }
        Ok(asked.into_iter().reduce(Predicate::and))
    }
}

#[async_trait]
impl TableProvider for IcebergTableProvider {
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
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(projection) => Arc::new(self.schema.project(projection)?),
            None => self.schema.clone(),
        };
        let predicate = self.predicate(filters)?;
        let rows = Rows { table: self.table.clone(), schema: schema.clone(), predicate };
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![Arc::new(rows)], None, [], false, limit)?))
    }
}

/// The rows of one scan.
#[derive(Debug)]
struct Rows {
    table: LakeTable,
    schema: SchemaRef,
    predicate: Option<Predicate>,
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (table, schema, predicate) = (self.table.clone(), self.schema.clone(), self.predicate.clone());
        let rows = async move {
            let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            table.scan_where(None, Some(&columns), predicate).await
        };
        let rows = rows.map_ok(|rows| rows.map_err(external)).map_err(external).try_flatten_stream();
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows))
    }
}
