//! [`Storages`]: every operation, on whichever file system its location names.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::error::{Result, StorageError};
use super::hadoop_conf::HadoopConf;
use super::hdfs::{Hdfs, HdfsFile, HdfsOptions, HdfsSink};
use super::local::{self, LocalFile, LocalSink};
use super::location::{Defaults, Location, absolute_warehouse};
use super::memory::{MemoryFile, MemoryFiles, MemorySink};
use super::settings::StorageSettings;
use super::writer::FileWriter;
use crate::error::Context;

/// What a new file does to one that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    /// The file must not exist: created exclusively under its name, at once.
    New,
    /// The file is replaced, if there is one, when the new one is complete: written beside it and renamed.
    Overwrite,
}

/// How far a listing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    Direct,
    Recursive,
}

/// A file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStatus {
    /// In the spelling of the location that was asked for.
    pub location: String,
    pub size_bytes: u64,
    /// Milliseconds since 1970 UTC.
    pub modified_ms: u64,
    pub is_dir: bool,
}

/// HDFS and local files behind one API; a clone shares the clients.
#[derive(Debug, Clone)]
pub struct Storages {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: HdfsOptions,
    defaults: Defaults,
    warehouse: Location,
    /// One client per authority, made on first use. As many as the configuration and the metastore's locations name.
    hdfs: Mutex<HashMap<String, Arc<Hdfs>>>,
    /// A simulation's.
    memory: MemoryFiles,
}

enum Place {
    Hdfs(Arc<Hdfs>, String),
    Local(PathBuf),
    Memory(MemoryFiles, String),
}

/// An open file. HDFS looks its blocks up once, at the opening.
pub struct FileReader(Opened);

enum Opened {
    Hdfs(Box<HdfsFile>),
    Local(LocalFile),
    Memory(MemoryFile),
}

impl FileReader {
    /// Size when it was opened.
    pub fn size_bytes(&self) -> u64 {
        match &self.0 {
            Opened::Hdfs(file) => file.size_bytes(),
            Opened::Local(file) => file.size_bytes(),
            Opened::Memory(file) => file.size_bytes(),
        }
    }

    /// Exactly the bytes of the range, which must be within the file.
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes, StorageError> {
        match &self.0 {
            Opened::Hdfs(file) => file.read(range).await,
            Opened::Local(file) => file.read(range).await,
            Opened::Memory(file) => file.read(range),
        }
    }
}

impl Storages {
    /// Reads the Hadoop configuration and resolves the warehouse. No server is asked: HDFS clients are made on first use.
    pub fn new(settings: &StorageSettings) -> crate::Result<Self> {
        Self::with_defaults(settings, Defaults::default(), MemoryFiles::default())
    }

    /// Over files in memory, which are also the warehouse.
    #[doc(hidden)]
    pub fn in_memory(memory: MemoryFiles) -> crate::Result<Self> {
        let settings = StorageSettings { warehouse: "memory:///lake".to_owned(), ..StorageSettings::default() };
        Self::with_defaults(&settings, Defaults { memory: true, ..Defaults::default() }, memory)
    }

    fn with_defaults(settings: &StorageSettings, defaults: Defaults, memory: MemoryFiles) -> crate::Result<Self> {
        let conf = Arc::new(HadoopConf::locate(settings.hadoop_conf_dir.as_deref())?);
        let default_fs = conf.get("fs.defaultFS").or_else(|| conf.get("fs.default.name"));
        let default_fs_authority = default_fs.and_then(|uri| match Location::parse(&uri, &Defaults::default()) {
            Ok(Location::Hdfs { authority, .. }) => Some(authority),
            _ => None,
        });
        let text = absolute_warehouse(&settings.warehouse).context("storage.warehouse")?;
        let mut defaults = Defaults { hdfs_authority: default_fs_authority, ..defaults };
        let warehouse = Location::parse(&text, &defaults).context("storage.warehouse")?;
        if let Location::Hdfs { authority, .. } = &warehouse {
            defaults.hdfs_authority.get_or_insert_with(|| authority.clone());
            defaults.bare_authority = Some(authority.clone());
        }
        let options = HdfsOptions {
            user: settings.user.clone(),
            call_timeout: settings.call_timeout,
            // A buffer of at least a packet: HDFS sends 64 KiB at a time.
            write_buffer_bytes: usize::try_from(settings.write_buffer.as_u64()).unwrap_or(usize::MAX).max(1 << 16),
            replication: settings.replication,
            block_size_bytes: settings.block_size.map(|size| size.as_u64()),
            conf,
        };
        Ok(Self { shared: Arc::new(Shared { options, defaults, warehouse, hdfs: Mutex::default(), memory }) })
    }

    /// The warehouse as a URI.
    pub fn warehouse(&self) -> String {
        self.shared.warehouse.uri()
    }

    /// The Hadoop configuration in force.
    pub fn hadoop_conf(&self) -> &HadoopConf {
        &self.shared.options.conf
    }

    /// A location as a full URI (`hdfs://authority/path` or `file:///path`), the form to give to other engines.
    pub fn qualify(&self, location: &str) -> Result<String, StorageError> {
        Ok(self.locate(location)?.uri())
    }

    pub(super) fn locate(&self, location: &str) -> Result<Location> {
        Location::parse(location, &self.shared.defaults)
    }

    pub(super) fn call_timeout(&self) -> Duration {
        self.shared.options.call_timeout
    }

    fn place(&self, location: &str) -> Result<Place> {
        Ok(match self.locate(location)? {
            Location::Local { path } => Place::Local(path),
            Location::Memory { path } => Place::Memory(self.shared.memory.clone(), path),
            Location::Hdfs { authority, path } => {
                let mut clients = self.shared.hdfs.lock().unwrap_or_else(PoisonError::into_inner);
                let hdfs = clients
                    .entry(authority)
                    .or_insert_with_key(|authority| Arc::new(Hdfs::new(authority.clone(), self.shared.options.clone())));
                Place::Hdfs(Arc::clone(hdfs), path)
            }
        })
    }

    /// Opens a file for reading ranges of it.
    pub async fn open(&self, location: &str) -> Result<FileReader, StorageError> {
        Ok(FileReader(match self.place(location)? {
            Place::Hdfs(hdfs, path) => Opened::Hdfs(Box::new(hdfs.open(location, &path).await?)),
            Place::Local(path) => Opened::Local(LocalFile::open(location, path, self.call_timeout()).await?),
            Place::Memory(files, path) => Opened::Memory(files.open(location, &path).await?),
        }))
    }

    /// A whole file.
    pub async fn read(&self, location: &str) -> Result<Bytes, StorageError> {
        let file = self.open(location).await?;
        file.read(0..file.size_bytes()).await
    }

    /// Exactly the bytes of the range, which must be within the file.
    pub async fn read_range(&self, location: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.open(location).await?.read(range).await
    }

    /// What is at a location; None when nothing is.
    pub async fn status(&self, location: &str) -> Result<Option<FileStatus>, StorageError> {
        match self.place(location)? {
            Place::Hdfs(hdfs, path) => hdfs.status(location, &path).await,
            Place::Local(path) => local::status(location, path, self.call_timeout()).await,
            Place::Memory(files, path) => Ok(files.status(location, &path)),
        }
    }

    /// The files and directories below a directory, by location. A missing directory has none.
    pub async fn list(&self, directory: &str, depth: Depth) -> Result<Vec<FileStatus>, StorageError> {
        let mut entries = match self.place(directory)? {
            Place::Hdfs(hdfs, path) => hdfs.list(directory, &path, depth).await,
            Place::Local(path) => local::list(directory, path, depth, self.call_timeout()).await,
            Place::Memory(files, path) => Ok(files.list(directory, &path, depth)),
        }?;
        entries.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        Ok(entries)
    }

    /// Deletes a file; false when there was none.
    pub async fn delete_file(&self, location: &str) -> Result<bool, StorageError> {
        self.delete(location, Depth::Direct).await
    }

    /// Deletes a directory with everything in it; false when there was none. A file is refused.
    pub async fn delete_dir(&self, location: &str) -> Result<bool, StorageError> {
        let refused = |reason: &str| {
            Err(StorageError::Refused { action: "delete", location: location.to_owned(), reason: reason.to_owned() })
        };
        if self.locate(location)?.path() == "/" {
            return refused("it is the root");
        }
        match self.status(location).await? {
            None => Ok(false),
            Some(status) if !status.is_dir => refused("it is not a directory"),
            Some(_) => self.delete(location, Depth::Recursive).await,
        }
    }

    async fn delete(&self, location: &str, depth: Depth) -> Result<bool> {
        match self.place(location)? {
            Place::Hdfs(hdfs, path) => hdfs.delete(location, &path, depth).await,
            Place::Local(path) => local::delete(location, path, depth, self.call_timeout()).await,
            Place::Memory(files, path) => files.delete(location, &path, depth).await,
        }
    }

    /// Creates a directory and its parents; one that is there already is fine.
    pub async fn create_dir(&self, location: &str) -> Result<(), StorageError> {
        match self.place(location)? {
            Place::Hdfs(hdfs, path) => hdfs.create_dir(location, &path).await,
            Place::Local(path) => local::create_dir(location, path, self.call_timeout()).await,
            Place::Memory(..) => Ok(()),
        }
    }

    /// Renames a file or directory within its file system; the new name must be free, its parents are created.
    pub async fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        match (self.place(from)?, self.place(to)?) {
            (Place::Hdfs(hdfs, from_path), Place::Hdfs(other, to_path)) if Arc::ptr_eq(&hdfs, &other) => {
                if let Some((parent, _)) = to_path.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
                    hdfs.create_dir(to, parent).await?;
                }
                match hdfs.rename(from, &from_path, &to_path).await {
                    Err(StorageError::AlreadyExists { .. }) => Err(StorageError::AlreadyExists { location: to.to_owned() }),
                    outcome => outcome,
                }
            }
            (Place::Local(from_path), Place::Local(to_path)) => {
                match local::rename(from, from_path, to_path, self.call_timeout()).await {
                    Err(StorageError::AlreadyExists { .. }) => Err(StorageError::AlreadyExists { location: to.to_owned() }),
                    outcome => outcome,
                }
            }
            (Place::Memory(files, from_path), Place::Memory(_, to_path)) => {
                files.rename(from, &from_path, &to_path, Create::New).await
            }
            _ => {
                let reason = format!("{to} is on another file system");
                Err(StorageError::Refused { action: "rename", location: from.to_owned(), reason })
            }
        }
    }

    /// Opens a file for writing; its parents are created.
    pub async fn create(&self, location: &str, create: Create) -> Result<FileWriter, StorageError> {
        let (call_timeout, write_buffer_bytes) = (self.call_timeout(), self.shared.options.write_buffer_bytes);
        Ok(match self.place(location)? {
            Place::Hdfs(hdfs, path) => {
                FileWriter::new(location, call_timeout, HdfsSink::create(hdfs, location, &path, create).await?)
            }
            Place::Local(path) => {
                let sink = LocalSink::create(location, path, create, write_buffer_bytes, call_timeout).await?;
                FileWriter::new(location, call_timeout, sink)
            }
            Place::Memory(files, path) => {
                FileWriter::new(location, call_timeout, MemorySink::create(files, location, path, create).await?)
            }
        })
    }

    /// Writes a whole file; it is durable when this returns.
    pub async fn write_file(&self, location: &str, content: Bytes, create: Create) -> Result<(), StorageError> {
        let mut file = self.create(location, create).await?;
        file.write(content).await?;
        file.close().await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::CloseBarrier;

    fn local() -> (tempfile::TempDir, Storages) {
        let directory = tempfile::tempdir().unwrap();
        let settings =
            StorageSettings { warehouse: directory.path().to_string_lossy().into_owned(), ..StorageSettings::default() };
        (directory, Storages::new(&settings).unwrap())
    }

    fn names(entries: &[FileStatus]) -> Vec<&str> {
        entries.iter().filter_map(|entry| entry.location.rsplit('/').next()).collect()
    }

    #[test]
    fn a_warehouse_on_hdfs_takes_the_bare_paths_with_it() {
        let settings = StorageSettings { warehouse: "hdfs://nn:8020/lake".to_owned(), ..StorageSettings::default() };
        let storages = Storages::new(&settings).unwrap();
        assert_eq!(storages.warehouse(), "hdfs://nn:8020/lake");
        assert_eq!(storages.qualify("/datalake/t").unwrap(), "hdfs://nn:8020/datalake/t");
        assert_eq!(storages.qualify("file:/t").unwrap(), "file:///t");
        let error =
            Storages::new(&StorageSettings { warehouse: "s3://b/w".to_owned(), ..StorageSettings::default() }).unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Config);
    }

    #[tokio::test]
    async fn files_are_written_read_listed_renamed_and_deleted() {
        let (_directory, storages) = local();
        let at = |name: &str| format!("{}/{name}", storages.warehouse());
        storages.write_file(&at("a/b/one"), Bytes::from_static(b"0123456789"), Create::New).await.unwrap();
        assert_eq!(storages.read(&at("a/b/one")).await.unwrap(), "0123456789");
        assert_eq!(storages.read_range(&at("a/b/one"), 2..5).await.unwrap(), "234");
        assert!(matches!(storages.read_range(&at("a/b/one"), 8..11).await, Err(StorageError::Refused { .. })));
        let status = storages.status(&at("a/b/one")).await.unwrap().unwrap();
        assert_eq!((status.size_bytes, status.is_dir, status.location == at("a/b/one")), (10, false, true));
        assert!(status.modified_ms > 1_600_000_000_000);
        assert_eq!(storages.status(&at("a/b/one/below")).await.unwrap(), None);

        storages.rename(&at("a/b/one"), &at("a/c/two")).await.unwrap();
        assert_eq!(names(&storages.list(&at("a"), Depth::Direct).await.unwrap()), ["b", "c"]);
        let all = storages.list(&at("a"), Depth::Recursive).await.unwrap();
        assert_eq!(names(&all), ["b", "c", "two"]);
        assert_eq!(all[2].location, at("a/c/two"));
        assert!(storages.list(&at("absent"), Depth::Recursive).await.unwrap().is_empty());

        storages.create_dir(&at("a/c")).await.unwrap();
        assert!(storages.delete_file(&at("a/c/two")).await.unwrap());
        assert!(!storages.delete_file(&at("a/c/two")).await.unwrap());
        assert!(storages.delete_dir(&at("a")).await.unwrap());
        assert!(!storages.delete_dir(&at("a")).await.unwrap());
        assert!(matches!(storages.delete_dir("/").await, Err(StorageError::Refused { .. })));
    }

    #[tokio::test]
    async fn new_files_are_exclusive_and_overwrites_are_whole() {
        let (_directory, storages) = local();
        let location = format!("{}/t/file", storages.warehouse());
        storages.write_file(&location, Bytes::from_static(b"old"), Create::New).await.unwrap();
        let again = storages.create(&location, Create::New).await;
        assert!(matches!(again, Err(StorageError::AlreadyExists { location: named }) if named == location));

        let mut file = storages.create(&location, Create::Overwrite).await.unwrap();
        file.write(Bytes::from_static(b"new")).await.unwrap();
        assert_eq!(storages.read(&location).await.unwrap(), "old");
        assert_eq!(file.close().await.unwrap(), 3);
        assert_eq!(storages.read(&location).await.unwrap(), "new");
        let directory = format!("{}/t", storages.warehouse());
        assert_eq!(names(&storages.list(&directory, Depth::Direct).await.unwrap()), ["file"]);
        let other = format!("{}/t/other", storages.warehouse());
        storages.write_file(&other, Bytes::new(), Create::New).await.unwrap();
        assert!(
            matches!(storages.rename(&other, &location).await, Err(StorageError::AlreadyExists { location: to }) if to == location)
        );
    }

    #[tokio::test]
    async fn an_aborted_file_is_gone() {
        let (_directory, storages) = local();
        for create in [Create::New, Create::Overwrite] {
            let mut file = storages.create(&format!("{}/t/half", storages.warehouse()), create).await.unwrap();
            file.write(Bytes::from(vec![7; 3 << 20])).await.unwrap();
            file.abort().await;
            assert!(storages.list(&format!("{}/t", storages.warehouse()), Depth::Direct).await.unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn deferred_files_are_there_after_the_wait_and_failures_are_told_by_it() {
        let (directory, storages) = local();
        let barrier = CloseBarrier::new();
        let at = |number: usize| format!("{}/t/{number}", storages.warehouse());
        for number in 0..10 {
            let mut file = storages.create(&at(number), Create::Overwrite).await.unwrap();
            file.write(Bytes::from(number.to_string())).await.unwrap();
            file.defer_close(&barrier);
        }
        barrier.wait().await.unwrap();
        for number in 0..10 {
            assert_eq!(storages.read(&at(number)).await.unwrap(), number.to_string());
        }

        // The second of three cannot get its name, because a directory has it.
        for number in 10..13 {
            let mut file = storages.create(&at(number), Create::Overwrite).await.unwrap();
            file.write(Bytes::from_static(b"x")).await.unwrap();
            if number == 11 {
                std::fs::create_dir(directory.path().join("t/11")).unwrap();
            }
            file.defer_close(&barrier);
        }
        assert!(matches!(barrier.wait().await, Err(StorageError::Refused { location, .. }) if location == at(11)));
        assert_eq!(barrier.pending(), 0);
        assert_eq!(storages.read(&at(12)).await.unwrap(), "x");
        let left = storages.list(&format!("{}/t", storages.warehouse()), Depth::Direct).await.unwrap();
        assert!(!left.iter().any(|entry| entry.location.ends_with(".tmp")), "{left:?}");
    }

    #[tokio::test]
    async fn a_large_file_arrives_in_steps() {
        let (_directory, storages) = local();
        let location = format!("{}/large", storages.warehouse());
        let mut file = storages.create(&location, Create::New).await.unwrap();
        let chunk = Bytes::from((0..=255).collect::<Vec<u8>>());
        for _ in 0..20_000 {
            file.write(chunk.clone()).await.unwrap();
        }
        assert_eq!(file.close().await.unwrap(), 20_000 * 256);
        assert_eq!(storages.read_range(&location, 19_999 * 256..20_000 * 256).await.unwrap(), chunk);
    }
}
