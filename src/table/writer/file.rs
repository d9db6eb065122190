//! One data file being written: rows are encoded in memory, finished row groups go to storage.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef as ArrowSchemaRef;
use bytes::Bytes;
use iceberg::spec::{DataFile, Schema, Struct};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::file::properties::WriterProperties;

use super::off_the_reactor;
use super::statistics::{Place, data_file};
use crate::error::{Context, Error, Result};
use crate::storage::{CloseBarrier, Create, FileWriter, Storages};

/// An open data file of one table partition. Until there are enough rows to be encoded it is nothing but those rows.
pub(super) struct OpenFile {
    location: String,
    partition: Struct,
    spec_id: i32,
    schema: ArrowSchemaRef,
    properties: Arc<WriterProperties>,
    encoder: Option<ArrowWriter<Vec<u8>>>,
    /// Rows waiting until there are enough of them to be encoded together.
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    waiting_bytes: usize,
    /// Created when the first bytes are due, so that a small file is one write.
    file: Option<FileWriter>,
    sent_bytes: u64,
    pub rows: u64,
    /// The writer's count of writes when this file last got rows.
    pub last_written: u64,
}

impl OpenFile {
    pub fn new(
        location: String,
        partition: Struct,
        spec_id: i32,
        schema: &ArrowSchemaRef,
        properties: &Arc<WriterProperties>,
    ) -> Self {
        Self {
            location,
            partition,
            spec_id,
            schema: schema.clone(),
            properties: properties.clone(),
            encoder: None,
            waiting: Vec::new(),
            waiting_rows: 0,
            waiting_bytes: 0,
            file: None,
            sent_bytes: 0,
            rows: 0,
            last_written: 0,
        }
    }

    /// Whether it has an encoder, which costs memory however few rows it has got.
    pub fn is_encoding(&self) -> bool {
        self.encoder.is_some()
    }

    pub fn location(&self) -> &str {
        &self.location
    }

    /// Memory held: rows waiting, pages of the open row group, bytes on their way.
    pub fn memory_bytes(&self) -> usize {
        self.waiting_bytes + self.encoder.as_ref().map_or(0, |encoder| encoder.memory_size() + encoder.inner().len())
    }

    /// The file's size as far as it can be told before it is finished.
    pub fn size_bytes(&self) -> u64 {
        let encoded = self.encoder.as_ref().map_or(0, |encoder| encoder.bytes_written() + encoder.in_progress_size());
        (encoded + self.waiting_bytes / 4) as u64
    }

    /// Takes rows; encodes when `rows_per_encode` of them have come together, and ends the row group at `row_group_bytes`.
    pub fn write(&mut self, batch: RecordBatch, rows_per_encode: usize, row_group_bytes: usize) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        self.waiting_rows += batch.num_rows();
        // A slice reports the memory of the whole it was cut from.
        self.waiting_bytes += batch.get_array_memory_size();
        self.waiting.push(batch);
        if self.waiting_rows >= rows_per_encode {
            self.encode()?;
            if self.encoder.as_ref().is_some_and(|encoder| encoder.in_progress_size() >= row_group_bytes) {
                self.end_row_group()?;
            }
        }
        Ok(())
    }

    fn encode(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        (self.waiting_rows, self.waiting_bytes) = (0, 0);
        let Some(first) = waiting.first() else { return Ok(()) };
        let rows = if waiting.len() == 1 { first.clone() } else { concat_batches(&first.schema(), &waiting)? };
        let location = self.location.clone();
        self.encoder()?.write(&rows).map_err(|error| encoding(&location, error))
    }

    fn encoder(&mut self) -> Result<&mut ArrowWriter<Vec<u8>>> {
        let encoder = match self.encoder.take() {
            Some(encoder) => encoder,
            None => {
                // Arrow's own schema in the footer would be of use to Arrow alone.
                let options =
                    ArrowWriterOptions::new().with_properties(self.properties.as_ref().clone()).with_skip_arrow_metadata(true);
                ArrowWriter::try_new_with_options(Vec::new(), self.schema.clone(), options)
                    .map_err(|error| encoding(&self.location, error))?
            }
        };
        Ok(self.encoder.insert(encoder))
    }

    /// Encodes everything held into finished row groups, which [`Self::send`] then takes out of memory.
    pub fn end_row_group(&mut self) -> Result<()> {
        self.encode()?;
        let location = self.location.clone();
        self.encoder()?.flush().map_err(|error| encoding(&location, error))
    }

    /// Sends finished row groups to storage.
    pub async fn send(&mut self, storages: &Storages) -> Result<()> {
        let Some(encoder) = &mut self.encoder else { return Ok(()) };
        if encoder.inner().is_empty() || encoder.flushed_row_groups().is_empty() {
            return Ok(());
        }
        // Taking the bytes out is what parquet's own async writer does: the writer counts positions itself.
        let bytes = std::mem::take(encoder.inner_mut());
        self.store(storages, bytes.into()).await
    }

    async fn store(&mut self, storages: &Storages, bytes: Bytes) -> Result<()> {
        let failed = || format!("failed to write data file {}", self.location);
        if self.file.is_none() {
            self.file = Some(storages.create(&self.location, Create::New).await.with_context(failed)?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        self.sent_bytes += bytes.len() as u64;
        file.write(bytes).await.with_context(failed)
    }

    /// Writes the footer, hands the close to the barrier, and describes the file.
    pub async fn finish(mut self, storages: &Storages, barrier: &CloseBarrier, schema: &Schema) -> Result<DataFile> {
        let (footer, bytes) = off_the_reactor(|| {
            self.encode()?;
            let location = self.location.clone();
            let encoder = self.encoder()?;
            let footer = encoder.finish().map_err(|error| encoding(&location, error))?;
            Ok::<_, Error>((footer, std::mem::take(encoder.inner_mut())))
        })?;
        // Files that are finished together need not keep their encoders together.
        self.encoder = None;
        self.store(storages, bytes.into()).await?;
        if let Some(file) = self.file {
            file.defer_close(barrier);
        }
        let place =
            Place { location: self.location, size_bytes: self.sent_bytes, partition: self.partition, spec_id: self.spec_id };
        data_file(place, schema, &footer)
    }

    pub async fn abort(self) {
        if let Some(file) = self.file {
            file.abort().await;
        }
    }
}

fn encoding(location: &str, error: parquet::errors::ParquetError) -> Error {
    Error::failed(format!("failed to encode data file {location}")).caused_by(error)
}
