//! Iceberg's `FileIO` over [`Storages`].
//!
//! With a barrier, every close that iceberg asks for is handed to it: `close` and a whole-file `write` return when the content is on its way, and
//! nothing written may be referred to before the barrier's wait. Files are written with [`Create::Overwrite`], because a retried append writes the same
//! manifest path again.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use iceberg::io::{
    FileIO, FileIOBuilder, FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage, StorageConfig, StorageFactory,
};
use iceberg::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

use super::barrier::CloseBarrier;
use super::error::StorageError;
use super::storages::{Create, FileReader, Storages};
use super::writer::FileWriter;

impl Storages {
    /// A `FileIO` whose files are durable when they are closed.
    pub fn file_io(&self) -> FileIO {
        self.file_io_with(None)
    }

    /// A `FileIO` whose files are durable after the barrier's wait.
    pub fn file_io_deferred(&self, barrier: &CloseBarrier) -> FileIO {
        self.file_io_with(Some(barrier.clone()))
    }

    fn file_io_with(&self, barrier: Option<CloseBarrier>) -> FileIO {
        let storage = LakesmithStorage { live: Some(Live { storages: self.clone(), barrier }) };
        FileIOBuilder::new(Arc::new(LakesmithStorageFactory { storage })).build()
    }
}

/// Iceberg wants its storages serializable; clients are not, so that a copy that travelled is dead and says so.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct LakesmithStorage {
    #[serde(skip)]
    live: Option<Live>,
}

#[derive(Debug, Clone)]
struct Live {
    storages: Storages,
    barrier: Option<CloseBarrier>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct LakesmithStorageFactory {
    storage: LakesmithStorage,
}

impl LakesmithStorage {
    fn live(&self) -> iceberg::Result<&Live> {
        self.live.as_ref().ok_or_else(|| Error::new(ErrorKind::FeatureUnsupported, "a deserialized storage has no connections"))
    }

    fn storages(&self) -> iceberg::Result<&Storages> {
        Ok(&self.live()?.storages)
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        let kind = match error {
            StorageError::NotFound { .. } => ErrorKind::DataInvalid,
            _ => ErrorKind::Unexpected,
        };
        // Not retryable for iceberg's own loops: who called decides, with its limits.
        Error::new(kind, error.to_string()).with_source(error)
    }
}

#[typetag::serde]
impl StorageFactory for LakesmithStorageFactory {
    fn build(&self, _: &StorageConfig) -> iceberg::Result<Arc<dyn Storage>> {
        Ok(Arc::new(self.storage.clone()))
    }
}

#[async_trait]
#[typetag::serde]
impl Storage for LakesmithStorage {
    async fn exists(&self, path: &str) -> iceberg::Result<bool> {
        Ok(self.storages()?.status(path).await?.is_some())
    }

    async fn metadata(&self, path: &str) -> iceberg::Result<FileMetadata> {
        match self.storages()?.status(path).await? {
            Some(status) => Ok(FileMetadata { size: status.size_bytes }),
            None => Err(StorageError::NotFound { location: path.to_owned() }.into()),
        }
    }

    async fn read(&self, path: &str) -> iceberg::Result<Bytes> {
        Ok(self.storages()?.read(path).await?)
    }

    async fn reader(&self, path: &str) -> iceberg::Result<Box<dyn FileRead>> {
        Ok(Box::new(IcebergReader(self.storages()?.open(path).await?)))
    }

    async fn write(&self, path: &str, content: Bytes) -> iceberg::Result<()> {
        let mut writer = self.writer(path).await?;
        writer.write(content).await?;
        writer.close().await
    }

    async fn writer(&self, path: &str) -> iceberg::Result<Box<dyn FileWrite>> {
        let Live { storages, barrier } = self.live()?;
        let writer = storages.create(path, Create::Overwrite).await?;
        Ok(Box::new(IcebergWriter { writer: Some(writer), location: path.to_owned(), barrier: barrier.clone() }))
    }

    async fn delete(&self, path: &str) -> iceberg::Result<()> {
        self.storages()?.delete_file(path).await?;
        Ok(())
    }

    async fn delete_prefix(&self, path: &str) -> iceberg::Result<()> {
        match self.storages()?.delete_dir(path).await {
            // Iceberg's contract: on a file it does nothing.
            Ok(_) | Err(StorageError::Refused { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn delete_stream(&self, mut paths: BoxStream<'static, String>) -> iceberg::Result<()> {
        while let Some(path) = paths.next().await {
            self.delete(&path).await?;
        }
        Ok(())
    }

    fn new_input(&self, path: &str) -> iceberg::Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), path.to_owned()))
    }

    fn new_output(&self, path: &str) -> iceberg::Result<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), path.to_owned()))
    }
}

struct IcebergReader(FileReader);

#[async_trait]
impl FileRead for IcebergReader {
    async fn read(&self, range: Range<u64>) -> iceberg::Result<Bytes> {
        Ok(self.0.read(range).await?)
    }
}

struct IcebergWriter {
    writer: Option<FileWriter>,
    location: String,
    barrier: Option<CloseBarrier>,
}

#[async_trait]
impl FileWrite for IcebergWriter {
    async fn write(&mut self, content: Bytes) -> iceberg::Result<()> {
        match &mut self.writer {
            Some(writer) => Ok(writer.write(content).await?),
            None => Err(closed(&self.location)),
        }
    }

    async fn close(&mut self) -> iceberg::Result<()> {
        let writer = self.writer.take().ok_or_else(|| closed(&self.location))?;
        match &self.barrier {
            Some(barrier) => writer.defer_close(barrier),
            None => {
                writer.close().await?;
            }
        }
        Ok(())
    }
}

fn closed(location: &str) -> Error {
    Error::new(ErrorKind::Unexpected, format!("{location} is closed already"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::StorageSettings;

    #[tokio::test]
    async fn a_deferred_file_io_writes_when_the_barrier_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let settings = StorageSettings { warehouse: directory.path().to_string_lossy().into_owned(), ..Default::default() };
        let storages = Storages::new(&settings).unwrap();
        let barrier = CloseBarrier::new();
        let deferred = storages.file_io_deferred(&barrier);
        let at = |name: &str| format!("{}/metadata/{name}", storages.warehouse());
        deferred.new_output(at("whole")).unwrap().write(Bytes::from_static(b"whole")).await.unwrap();
        let mut writer = deferred.new_output(at("stream")).unwrap().writer().await.unwrap();
        writer.write(Bytes::from_static(b"str")).await.unwrap();
        writer.write(Bytes::from_static(b"eam")).await.unwrap();
        writer.close().await.unwrap();
        assert!(writer.close().await.is_err());
        barrier.wait().await.unwrap();

        let io = storages.file_io();
        let input = io.new_input(at("stream")).unwrap();
        assert_eq!(input.metadata().await.unwrap().size, 6);
        assert_eq!(input.reader().await.unwrap().read(3..6).await.unwrap(), "eam");
        assert_eq!(io.new_input(at("whole")).unwrap().read().await.unwrap(), "whole");
        assert!(!io.exists(at("absent")).await.unwrap());
        assert!(io.new_input(at("absent")).unwrap().metadata().await.is_err());
        io.delete(at("whole")).await.unwrap();
        io.delete(at("whole")).await.unwrap();
        io.delete_prefix(at("stream")).await.unwrap();
        assert!(io.exists(at("stream")).await.unwrap(), "a file is no prefix");
        io.delete_prefix(at("")).await.unwrap();
        assert!(!io.exists(at("stream")).await.unwrap());
    }

    #[test]
    fn a_copy_that_travelled_says_that_it_has_no_connections() {
        let directory = tempfile::tempdir().unwrap();
        let settings = StorageSettings { warehouse: directory.path().to_string_lossy().into_owned(), ..Default::default() };
        let storages = Storages::new(&settings).unwrap();
        let storage = LakesmithStorage { live: Some(Live { storages, barrier: None }) };
        let travelled: LakesmithStorage = serde_json::from_str(&serde_json::to_string(&storage).unwrap()).unwrap();
        assert!(travelled.storages().is_err());
    }
}
