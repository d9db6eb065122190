//! The rows of an answer, as they come.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use super::statement::{Heading, query_error};
use crate::error::Result;

/// A stream of rows with their columns' headings.
pub struct Answer {
    pub schema: SchemaRef,
    rows: SendableRecordBatchStream,
}

impl Answer {
    /// `headings` replace the names of the columns where there are as many; see [`super::statement::headings`].
    pub(super) fn new(rows: SendableRecordBatchStream, headings: Option<Vec<Heading>>) -> Self {
        let schema = rows.schema();
        let schema = match headings {
            Some(headings) if headings.len() == schema.fields().len() => {
                let fields = schema.fields().iter().zip(&headings);
                let fields = fields.map(|(field, heading)| field.as_ref().clone().with_name(heading.over(field.name())));
                Arc::new(Schema::new(fields.collect::<Vec<Field>>()))
            }
            _ => schema,
        };
        Self { schema, rows }
    }

    /// The next rows; none at the end.
    pub async fn next(&mut self) -> Option<Result<RecordBatch>> {
        let batch = self.rows.next().await?;
        Some(batch.map_err(query_error).and_then(|batch| {
            let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            // An empty projection has no columns to disagree about; nullability is the plan's guess and not checked here.
            let fields = self.schema.fields().iter().zip(batch.columns());
            let fields = fields
                .map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone()).with_nullable(true));
            let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
            Ok(RecordBatch::try_new_with_options(schema, batch.columns().to_vec(), &options)?)
        }))
    }
}
