//! Files in memory, for the simulation of the tests: the same promises, with every step of an operation open to disturbance.
//!
//! The seam is below everything that decides: hidden names, the close that nothing cancels and the barrier are the same code over any
//! file system. A location is `memory:///path`; no setting leads here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::runtime::Handle;

use super::error::{Result, StorageError};
use super::location::join;
use super::storages::{Create, Depth, FileStatus};
use super::writer::{Published, Sink, hidden_name};

/// An operation that can be disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    Create,
    Write,
    Close,
    Rename,
    Delete,
    Read,
}

/// Before an operation takes place, or when it has taken place and is about to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    Before,
    After,
}

/// What happens on the way to the files.
#[async_trait]
pub trait Disturb: Send + Sync {
    /// Returns when the operation may go on; an error is the operation's.
    async fn meet(&self, site: Site, moment: Moment, location: &str) -> io::Result<()>;
}

/// Files by path; a clone is the same files, as another process sees them.
#[derive(Clone, Default)]
pub struct MemoryFiles {
    files: Arc<Mutex<BTreeMap<String, Bytes>>>,
    disturb: Option<Arc<dyn Disturb>>,
}

impl fmt::Debug for MemoryFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFiles").field("files", &self.lock().len()).finish()
    }
}

impl MemoryFiles {
    /// The same files on another way.
    #[must_use]
    pub fn through(&self, disturb: Arc<dyn Disturb>) -> Self {
        Self { files: Arc::clone(&self.files), disturb: Some(disturb) }
    }

    /// The content of a file, past all disturbance; `path` is what follows `memory://`.
    pub fn content(&self, path: &str) -> Option<Bytes> {
        self.lock().get(path).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one operation between its two moments.
    async fn step<T>(
        &self,
        site: Site,
        location: &str,
        run: impl FnOnce(&mut BTreeMap<String, Bytes>) -> Result<T>,
    ) -> Result<T> {
        self.meet(site, Moment::Before, location).await?;
        let done = run(&mut self.lock())?;
        self.meet(site, Moment::After, location).await?;
        Ok(done)
    }

    async fn meet(&self, site: Site, moment: Moment, location: &str) -> Result<()> {
        let Some(disturb) = &self.disturb else { return Ok(()) };
        disturb.meet(site, moment, location).await.map_err(|error| StorageError::Unavailable {
            action: site.action(),
            location: location.to_owned(),
            reason: error.to_string(),
            hint: "",
        })
    }

    pub(super) async fn open(&self, location: &str, path: &str) -> Result<MemoryFile> {
        let missing = || StorageError::NotFound { location: location.to_owned() };
        let content = self.step(Site::Read, location, |files| files.get(path).cloned().ok_or_else(missing)).await?;
        Ok(MemoryFile { location: location.to_owned(), content })
    }

    pub(super) fn status(&self, location: &str, path: &str) -> Option<FileStatus> {
        let files = self.lock();
        let status = |size_bytes, is_dir| FileStatus { location: location.to_owned(), size_bytes, modified_ms: 0, is_dir };
        match files.get(path) {
            Some(content) => Some(status(content.len() as u64, false)),
            None => below(&files, path).next().map(|_| status(0, true)),
        }
    }

    pub(super) fn list(&self, location: &str, path: &str, depth: Depth) -> Vec<FileStatus> {
        let files = self.lock();
        let mut directories = BTreeSet::new();
        let mut entries = Vec::new();
        for (name, content) in below(&files, path) {
            let parts: Vec<&str> = name.split('/').collect();
            directories.extend((1..parts.len()).map(|length| parts[..length].join("/")));
            if depth == Depth::Recursive || parts.len() == 1 {
                let location = join(location, name);
                entries.push(FileStatus { location, size_bytes: content.len() as u64, modified_ms: 0, is_dir: false });
            }
        }
        let shown = directories.into_iter().filter(|name| depth == Depth::Recursive || !name.contains('/'));
        entries.extend(shown.map(|name| FileStatus {
            location: join(location, &name),
            size_bytes: 0,
            modified_ms: 0,
            is_dir: true,
        }));
        entries
    }

    pub(super) async fn delete(&self, location: &str, path: &str, depth: Depth) -> Result<bool> {
        let delete = |files: &mut BTreeMap<String, Bytes>| {
            let before = files.len();
            let inside = format!("{}/", path.trim_end_matches('/'));
            files.retain(|name, _| name != path && !(depth == Depth::Recursive && name.starts_with(&inside)));
            Ok(files.len() < before)
        };
        self.step(Site::Delete, location, delete).await
    }

    pub(super) async fn rename(&self, from: &str, from_path: &str, to_path: &str, create: Create) -> Result<()> {
        let rename = |files: &mut BTreeMap<String, Bytes>| {
            if create == Create::New && files.contains_key(to_path) {
                return Err(StorageError::AlreadyExists { location: from.to_owned() });
            }
            let content = files.remove(from_path).ok_or_else(|| StorageError::NotFound { location: from.to_owned() })?;
            files.insert(to_path.to_owned(), content);
            Ok(())
        };
        self.step(Site::Rename, from, rename).await
    }
}

impl Site {
    fn action(self) -> &'static str {
        match self {
            Site::Create => "create",
            Site::Write => "write",
            Site::Close => "close",
            Site::Rename => "rename",
            Site::Delete => "delete",
            Site::Read => "read",
        }
    }
}

/// The files below a directory, by what their names have beyond it.
fn below<'a>(files: &'a BTreeMap<String, Bytes>, path: &str) -> impl Iterator<Item = (&'a str, &'a Bytes)> {
    let inside = format!("{}/", path.trim_end_matches('/'));
    let found = files.range(inside.clone()..);
    found.map_while(move |(name, content)| Some((name.strip_prefix(&inside)?, content)))
}

/// An open file: what it held when it was opened.
pub(super) struct MemoryFile {
    location: String,
    content: Bytes,
}

impl MemoryFile {
    pub fn size_bytes(&self) -> u64 {
        self.content.len() as u64
    }

    pub fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end || range.end > self.size_bytes() {
            return Err(StorageError::outside(&self.location, &range, self.size_bytes()));
        }
        Ok(self.content.slice(range.start as usize..range.end as usize))
    }
}

/// A file being written: its content is there when it is finished.
pub(super) struct MemorySink {
    files: MemoryFiles,
    location: String,
    path: String,
    rename_to: Option<String>,
    content: Vec<u8>,
    runtime: Handle,
}

impl MemorySink {
    pub(super) async fn create(files: MemoryFiles, location: &str, path: String, create: Create) -> Result<Self> {
        let (path, rename_to) = match create {
            Create::New => (path, None),
            Create::Overwrite => (hidden_name(&path), Some(path)),
        };
        let begin = |files: &mut BTreeMap<String, Bytes>| match files.contains_key(&path) {
            true => Err(StorageError::AlreadyExists { location: location.to_owned() }),
            false => {
                files.insert(path.clone(), Bytes::new());
                Ok(())
            }
        };
        files.step(Site::Create, location, begin).await?;
        let (location, runtime) = (location.to_owned(), Handle::current());
        Ok(Self { files, location, path, rename_to, content: Vec::new(), runtime })
    }
}

#[async_trait]
impl Sink for MemorySink {
    async fn write(&mut self, content: Bytes) -> Result<()> {
        self.files.meet(Site::Write, Moment::Before, &self.location).await?;
        self.content.extend_from_slice(&content);
        self.files.meet(Site::Write, Moment::After, &self.location).await
    }

    async fn finish(&mut self) -> Result<()> {
        let content = Bytes::from(std::mem::take(&mut self.content));
        let store = |files: &mut BTreeMap<String, Bytes>| {
            files.insert(self.path.clone(), content);
            Ok(())
        };
        self.files.step(Site::Close, &self.location, store).await
    }

    async fn publish(&mut self) -> Result<Published> {
        if let Some(name) = &self.rename_to {
            self.files.rename(&self.location, &self.path, name, Create::Overwrite).await?;
        }
        Ok(Published::default())
    }

    async fn discard(&mut self) {
        if let Err(error) = self.files.delete(&self.location, &self.path, Depth::Direct).await {
            tracing::debug!(location = self.location, %error, "an abandoned file could not be deleted");
        }
    }

    fn distrust(&self) -> Box<dyn FnOnce() + Send> {
        Box::new(|| {})
    }

    fn runtime(&self) -> Handle {
        self.runtime.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CloseBarrier, Storages};
    use super::*;

    #[tokio::test]
    async fn files_in_memory_are_files() {
        let files = MemoryFiles::default();
        let storages = Storages::in_memory(files.clone()).unwrap();
        let at = |name: &str| format!("{}/{name}", storages.warehouse());
        storages.write_file(&at("a/one"), Bytes::from_static(b"0123"), Create::New).await.unwrap();
        assert_eq!(storages.read_range(&at("a/one"), 1..3).await.unwrap(), "12");
        assert!(matches!(storages.create(&at("a/one"), Create::New).await, Err(StorageError::AlreadyExists { .. })));
        let barrier = CloseBarrier::new();
        let mut file = storages.create(&at("a/b/two"), Create::Overwrite).await.unwrap();
        file.write(Bytes::from_static(b"two")).await.unwrap();
        assert_eq!(storages.status(&at("a/b/two")).await.unwrap(), None);
        file.defer_close(&barrier);
        barrier.wait().await.unwrap();
        let names =
            |entries: Vec<FileStatus>| entries.into_iter().map(|entry| (entry.location, entry.is_dir)).collect::<Vec<_>>();
        assert_eq!(names(storages.list(&at("a"), Depth::Direct).await.unwrap()), [(at("a/b"), true), (at("a/one"), false)]);
        assert_eq!(storages.list(&at("a"), Depth::Recursive).await.unwrap().len(), 3);
        storages.rename(&at("a/one"), &at("c/one")).await.unwrap();
        assert_eq!(files.content("/lake/c/one").unwrap(), "0123");
        assert!(storages.delete_dir(&at("a")).await.unwrap());
        assert!(!storages.delete_file(&at("a/b/two")).await.unwrap());
        drop(storages.create(&at("d"), Create::Overwrite).await.unwrap());
        tokio::task::yield_now().await;
        assert_eq!(storages.list(&at(""), Depth::Recursive).await.unwrap().len(), 2);
    }
}
