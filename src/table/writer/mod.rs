//! Writing data files: a batch is brought into the table's schema, split by table partition, and encoded into one open file each.
//!
//! *Invariants*: at most `open_files_max` files have an encoder; the one least recently written is finished first. Partitions with few
//! rows only collect them until the end of the batch, so that a batch with a thousand partitions makes a thousand files and not many times
//! more. All together hold at most about `buffer_size_max` bytes. A file holds rows of one partition, in the order they came.
//!
//! *Failure*: after an error the writer can only be aborted.
//!
//! *What may leak*: files that were finished before an error or a kill; nothing refers to them.

mod align;
mod encoding;
mod file;
mod split;
mod statistics;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef as ArrowSchemaRef;
use futures::{StreamExt, TryStreamExt};
use iceberg::spec::{DataFile, PartitionSpecRef, SchemaRef, Struct, TableMetadata};
use parquet::file::properties::WriterProperties;
use tracing::debug;
use uuid::Uuid;

use self::align::Aligner;
pub use self::encoding::{IntegerEncoding, WriterSettings};
use self::file::OpenFile;
use self::split::Splitter;
pub(super) use self::split::partition_path;
use crate::error::Result;
use crate::storage::{CloseBarrier, Storages};
use crate::table::Begun;

/// The property with the directory of a table's data files, if that is not below the table itself.
pub(super) const DATA_PATH: &str = "write.data.path";

/// The directory of a table's data files.
pub(super) fn data_location(metadata: &TableMetadata) -> String {
    match metadata.properties().get(DATA_PATH) {
        Some(path) => path.trim_end_matches('/').to_owned(),
        None => format!("{}/data", metadata.location()),
    }
}

/// Files that are finished at the same time: enough to hide a NameNode's answers, few enough for its handlers.
const FILES_FINISHED_AT_ONCE: usize = 8;

/// The files of a batch, finished but not yet in the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataFiles {
    pub(super) files: Vec<DataFile>,
    /// The partition spec that the files were written for; the table's may have changed since.
    pub(super) spec_id: i32,
}

impl DataFiles {
    /// Files that were written by other means than a [`DataWriter`].
    #[doc(hidden)]
    pub fn of(files: Vec<DataFile>, spec_id: i32) -> Self {
        Self { files, spec_id }
    }

    /// Adds the files of another writer for the same partition spec; false, with nothing changed, if it was another spec.
    #[must_use]
    pub fn merge(&mut self, other: Self) -> bool {
        if self.files.is_empty() {
            *self = other;
            return true;
        }
        let same = other.files.is_empty() || self.spec_id == other.spec_id;
        if same {
            self.files.extend(other.files);
        }
        same
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    pub fn len(&self) -> usize {
        self.files.len()
    }

    pub fn rows(&self) -> u64 {
        self.files.iter().map(DataFile::record_count).sum()
    }

    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(DataFile::file_size_in_bytes).sum()
    }
}

/// Writes batches into data files of one table.
pub struct DataWriter {
    storages: Storages,
    barrier: CloseBarrier,
    settings: WriterSettings,
    schema: SchemaRef,
    arrow_schema: ArrowSchemaRef,
    spec: PartitionSpecRef,
    /// Below this directory, in one directory per partition.
    data_location: String,
    /// Part of every file name, so that no two writers ever choose the same one.
    id: Uuid,
    aligner: Aligner,
    splitter: Splitter,
    /// Decided by the first batch.
    properties: Option<Arc<WriterProperties>>,
    open: Vec<(Struct, OpenFile)>,
    finished: Vec<DataFile>,
    files_begun: u32,
    writes: u64,
}

impl DataWriter {
    pub(super) fn new(
        metadata: &TableMetadata,
        storages: &Storages,
        settings: &WriterSettings,
        barrier: &CloseBarrier,
    ) -> Result<Self> {
        let schema = metadata.current_schema().clone();
        let arrow_schema = super::arrow_types::arrow_schema(&schema)?;
        let spec = metadata.default_partition_spec().clone();
        Ok(Self {
            storages: storages.clone(),
            barrier: barrier.clone(),
            settings: settings.clone(),
            aligner: Aligner::new(&schema, arrow_schema.clone()),
            splitter: Splitter::new(&spec, &schema)?,
            schema,
            arrow_schema,
            spec,
            data_location: data_location(metadata),
            id: Uuid::now_v7(),
            properties: None,
            open: Vec::new(),
            finished: Vec::new(),
            files_begun: 0,
            writes: 0,
        })
    }

    /// Adds rows. Columns are matched by name; a column of the table that the batch lacks is null. Encodes on the calling thread.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.writes += 1;
        let parts = off_the_reactor(|| {
            let batch = self.aligner.align(batch)?;
            if self.properties.is_none() {
                self.properties = Some(Arc::new(encoding::properties(&self.settings, &batch)?));
            }
            self.splitter.split(&batch)
        })?;
        for (partition, rows) in parts {
            let at = self.open_file(partition)?;
            let (rows_per_encode, row_group_bytes) =
                (self.settings.rows_per_encode, self.settings.row_group_size.as_u64() as usize);
            let file = &mut self.open[at].1;
            file.last_written = self.writes;
            off_the_reactor(|| file.write(rows, rows_per_encode, row_group_bytes))?;
            file.send(&self.storages).await?;
            if file.size_bytes() >= self.settings.target_file_size.as_u64() {
                self.finish_file(at).await?;
            }
            self.bound_encoders().await?;
        }
        self.bound_memory().await
    }

    /// Finishes all files; their closing is handed to the barrier. No files if there were no rows.
    ///
    /// A few at a time: one after the other, a batch of many partitions would wait for the storage's answers most of the time.
    pub async fn finish(mut self) -> Result<DataFiles> {
        // Made before the stream: closures over borrowed items make a future that the compiler takes for one that cannot change threads.
        let mut finishing = Vec::with_capacity(self.open.len());
        for (_, file) in self.open.drain(..) {
            debug!(file = file.location(), rows = file.rows, "data file finished");
            finishing.push(file.finish(&self.storages, &self.barrier, &self.schema));
        }
        let mut described = futures::stream::iter(finishing).buffered(FILES_FINISHED_AT_ONCE);
        while let Some(file) = described.try_next().await? {
            self.finished.push(file);
        }
        drop(described);
        Ok(DataFiles { files: std::mem::take(&mut self.finished), spec_id: self.spec.spec_id() })
    }

    /// Gives up and deletes what was written. Files whose close is still under way are left: nothing refers to them.
    pub async fn abort(self) {
        for (_, file) in self.open {
            file.abort().await;
        }
        if let Err(error) = self.barrier.wait().await {
            debug!(%error, "a close failed for a writer that was given up");
        }
        delete_files(&self.storages, &self.finished).await;
    }

    pub fn begun(&self) -> Begun {
        Begun { files: self.open.len() + self.finished.len(), bytes: self.bytes_written() }
    }

    /// Bytes of the files, as far as they can be told before the files are finished.
    pub fn bytes_written(&self) -> u64 {
        let open: u64 = self.open.iter().map(|(_, file)| file.size_bytes()).sum();
        open + self.finished.iter().map(DataFile::file_size_in_bytes).sum::<u64>()
    }

    pub fn rows_written(&self) -> u64 {
        let open: u64 = self.open.iter().map(|(_, file)| file.rows).sum();
        open + self.finished.iter().map(DataFile::record_count).sum::<u64>()
    }

    /// The position of the open file of a partition, opened if there is none.
    fn open_file(&mut self, partition: Struct) -> Result<usize> {
        if let Some(at) = self.open.iter().position(|(known, _)| *known == partition) {
            return Ok(at);
        }
        let location = self.file_location(&partition)?;
        let properties = self.properties.clone().unwrap_or_default();
        let file = OpenFile::new(location, partition.clone(), self.spec.spec_id(), &self.arrow_schema, &properties);
        self.open.push((partition, file));
        Ok(self.open.len() - 1)
    }

    fn file_location(&mut self, partition: &Struct) -> Result<String> {
        self.files_begun += 1;
        let name = format!("{:05}-{}.parquet", self.files_begun, self.id);
        if self.spec.is_unpartitioned() {
            return Ok(format!("{}/{name}", self.data_location));
        }
        let directory = partition_path(&self.spec, &self.schema, partition)?;
        Ok(format!("{}/{directory}/{name}", self.data_location))
    }

    async fn finish_file(&mut self, at: usize) -> Result<()> {
        let (_, file) = self.open.swap_remove(at);
        debug!(file = file.location(), rows = file.rows, "data file finished");
        let described = file.finish(&self.storages, &self.barrier, &self.schema).await?;
        self.finished.push(described);
        Ok(())
    }

    async fn bound_encoders(&mut self) -> Result<()> {
        match self.surplus() {
            Some(oldest) => self.finish_file(oldest).await,
            None => Ok(()),
        }
    }

    /// The file to be finished when there is one encoder more than allowed.
    fn surplus(&self) -> Option<usize> {
        let encoding = || self.open.iter().enumerate().filter(|(_, (_, file))| file.is_encoding());
        let allowed = encoding().count() <= self.settings.open_files_max.max(1);
        let oldest = || encoding().min_by_key(|(_, (_, file))| file.last_written).map(|(at, _)| at);
        if allowed { None } else { oldest() }
    }

    /// Finishes files that only collect rows, and ends row groups of others, the largest first, until all hold less than allowed.
    async fn bound_memory(&mut self) -> Result<()> {
        let limit = self.settings.buffer_size_max.as_u64() as usize;
        while self.open.iter().map(|(_, file)| file.memory_bytes()).sum::<usize>() > limit {
            let largest = self.open.iter().enumerate().max_by_key(|(_, (_, file))| file.memory_bytes()).map(|(at, _)| at);
            let Some(largest) = largest else { break };
            if !self.open[largest].1.is_encoding() {
                self.finish_file(largest).await?;
                continue;
            }
            let file = &mut self.open[largest].1;
            let before = file.memory_bytes();
            off_the_reactor(|| file.end_row_group())?;
            file.send(&self.storages).await?;
            if file.memory_bytes() >= before {
                break;
            }
        }
        Ok(())
    }
}

/// Deletes files that nothing refers to; what can't be deleted stays for the orphan sweep.
pub(super) async fn delete_files(storages: &Storages, files: &[DataFile]) {
    for file in files {
        if let Err(error) = storages.delete_file(file.file_path()).await {
            debug!(file = file.file_path(), %error, "a data file that is not needed could not be deleted");
        }
    }
}

/// Runs encoding on this thread, telling a multi-threaded runtime that it is busy.
pub(super) fn off_the_reactor<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
