//! A file being written to HDFS.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hdfs_native::file::FileWriter;
use tokio::runtime::Handle;

use super::client::{Generation, Hdfs};
use crate::storage::error::Result;
use crate::storage::storages::Create;
use crate::storage::writer::{Published, Sink, hidden_name};

/// The writer stays with the client that created it: the NameNode knows the lease by the client's name.
pub(in crate::storage) struct HdfsSink {
    hdfs: Arc<Hdfs>,
    generation: Arc<Generation>,
    writer: FileWriter,
    location: String,
    path: String,
    rename_to: Option<String>,
}

impl HdfsSink {
    pub(in crate::storage) async fn create(hdfs: Arc<Hdfs>, location: &str, path: &str, create: Create) -> Result<Self> {
        let (path, rename_to) = match create {
            Create::New => (path.to_owned(), None),
            Create::Overwrite => (hidden_name(path), Some(path.to_owned())),
        };
        let generation = hdfs.client(location)?;
        let options = hdfs.write_options();
        let writer = hdfs.guarded("create", location, &generation, generation.create(&path, options)).await?;
        Ok(Self { hdfs, generation, writer, location: location.to_owned(), path, rename_to })
    }
}

#[async_trait]
impl Sink for HdfsSink {
    async fn write(&mut self, mut content: Bytes) -> Result<()> {
        let step = self.hdfs.options().write_buffer_bytes;
        while !content.is_empty() {
            let chunk = content.split_to(step.min(content.len()));
            self.hdfs.guarded("write", &self.location, &self.generation, self.writer.write_bytes(chunk)).await?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        self.hdfs.contained("close", &self.location, &self.generation, self.writer.close()).await
    }

    async fn publish(&mut self) -> Result<Published> {
        if let Some(name) = &self.rename_to {
            let renaming = self.generation.rename(&self.path, name, true);
            self.hdfs.guarded("rename", &self.location, &self.generation, renaming).await?;
        }
        Ok(Published::default())
    }

    /// Deletes first, so that half a file never looks complete, then ends the write pipeline, which would hold a DataNode thread for ever.
    async fn discard(&mut self) {
        let deleted = self.hdfs.call("delete", &self.location, async |client| client.delete(&self.path, false).await).await;
        if let Err(error) = deleted {
            tracing::warn!(location = self.location, path = self.path, %error, "an abandoned file could not be deleted");
        }
        // The error says that the file is gone, which was the purpose. Cancelling this close loses nothing.
        let _ = self.hdfs.guarded("close", &self.location, &self.generation, self.writer.close()).await;
    }

    fn distrust(&self) -> Box<dyn FnOnce() + Send> {
        let (hdfs, generation) = (Arc::clone(&self.hdfs), Arc::clone(&self.generation));
        Box::new(move || hdfs.discard(&generation))
    }

    fn runtime(&self) -> Handle {
        self.generation.io().clone()
    }
}
