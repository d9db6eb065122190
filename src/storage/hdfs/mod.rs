//! One HDFS: its client, made on first use, replaced when it can no longer be trusted, and the operations on it.

mod client;
mod explain;
mod sink;

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use hdfs_native::WriteOptions;

use super::error::{Result, StorageError};
use super::storages::{Depth, FileStatus};
pub(super) use client::{Hdfs, HdfsOptions};
pub(super) use sink::HdfsSink;

/// rwxrwxrwx before the umask.
const DIRECTORY_MODE: u32 = 0o777;
/// rw-rw-rw- before the umask.
const FILE_MODE: u32 = 0o666;

/// An open file: its blocks are looked up once, then any range is read.
pub(super) struct HdfsFile {
    hdfs: Arc<Hdfs>,
    location: String,
    reader: hdfs_native::file::FileReader,
}

impl Hdfs {
    pub(super) async fn open(self: &Arc<Self>, location: &str, path: &str) -> Result<HdfsFile> {
        let reader = self.call("open", location, async |client| client.read(path).await).await?;
        Ok(HdfsFile { hdfs: Arc::clone(self), location: location.to_owned(), reader })
    }

    pub(super) async fn status(&self, location: &str, path: &str) -> Result<Option<FileStatus>> {
        match self.call("look up", location, async |client| client.get_file_info(path).await).await {
            Ok(status) => Ok(Some(file_status(location.to_owned(), &status))),
            Err(StorageError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The entries of a directory; each page of the listing has its own deadline, so that a large directory is no reason to fail.
    pub(super) async fn list(&self, location: &str, path: &str, depth: Depth) -> Result<Vec<FileStatus>> {
        const ACTION: &str = "list";
        let client = self.client(location)?;
        let pages = client.list_status_iter(path, depth == Depth::Recursive);
        let mut entries = Vec::new();
        loop {
            let next = self.guarded(ACTION, location, &client, async { pages.next().await.transpose() }).await;
            match next {
                Ok(None) => return Ok(entries),
                Ok(Some(status)) if status.path == path && !status.isdir => {
                    let reason = "it is not a directory".to_owned();
                    return Err(StorageError::Refused { action: ACTION, location: location.to_owned(), reason });
                }
                Ok(Some(status)) => {
                    let below = status.path.strip_prefix(path).unwrap_or(&status.path).trim_start_matches('/');
                    entries.push(file_status(super::location::join(location, below), &status));
                }
                // The directory, or one below it that was deleted meanwhile.
                Err(StorageError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) async fn delete(&self, location: &str, path: &str, depth: Depth) -> Result<bool> {
        self.call("delete", location, async |client| client.delete(path, depth == Depth::Recursive).await).await
    }

    pub(super) async fn create_dir(&self, location: &str, path: &str) -> Result<()> {
        let mode = DIRECTORY_MODE & !self.umask();
        self.call("create directory", location, async |client| client.mkdirs(path, mode, true).await).await
    }

    pub(super) async fn rename(&self, location: &str, from: &str, to: &str) -> Result<()> {
        self.call("rename", location, async |client| client.rename(from, to, false).await).await
    }

    fn write_options(&self) -> WriteOptions {
        let options = self.options();
        WriteOptions {
            block_size: options.block_size_bytes,
            replication: options.replication,
            permission: FILE_MODE & !self.umask(),
            overwrite: false,
            create_parent: true,
        }
    }
}

impl HdfsFile {
    pub(super) fn size_bytes(&self) -> u64 {
        self.reader.file_length() as u64
    }

    /// Reads exactly the range; each packet has its own deadline.
    pub(super) async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end || range.end > self.size_bytes() {
            return Err(StorageError::outside(&self.location, &range, self.size_bytes()));
        }
        // Both ends are within the file, whose length is a usize already.
        let (offset, size) = (range.start as usize, (range.end - range.start) as usize);
        let client = self.hdfs.client(&self.location)?;
        let mut packets = self.reader.read_range_stream(offset, size).boxed();
        let mut content = BytesMut::new();
        while let Some(packet) =
            self.hdfs.guarded("read", &self.location, &client, async { packets.next().await.transpose() }).await?
        {
            if content.is_empty() && packet.len() == size {
                return Ok(packet);
            }
            if content.is_empty() {
                content.reserve(size);
            }
            content.extend_from_slice(&packet);
        }
        if content.len() == size {
            return Ok(content.freeze());
        }
        Err(StorageError::Unavailable {
            action: "read",
            location: self.location.clone(),
            reason: format!("{} of {size} bytes came", content.len()),
            hint: "is a block of the file missing? run `hdfs fsck` on it",
        })
    }
}

fn file_status(location: String, status: &hdfs_native::client::FileStatus) -> FileStatus {
    FileStatus { location, size_bytes: status.length as u64, modified_ms: status.modification_time, is_dir: status.isdir }
}
