//! DataFusion's `ObjectStore` over [`Storages`], for reading: gold's Parquet files, which no Iceberg scan covers.
//!
//! Object paths are the literal paths of the files, nothing is decoded: see [`Storages::object_location`].

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    OBJECT_STORE_COALESCE_DEFAULT, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    coalesce_ranges,
};

use super::error::StorageError;
use super::location::Location;
use super::storages::{Depth, FileReader, FileStatus, Storages};

/// Where DataFusion finds a file or directory: the store's URL, and the path in it.
#[derive(Debug, Clone)]
pub struct ObjectLocation {
    pub store: ObjectStoreUrl,
    pub path: Path,
}

impl Storages {
    /// A location in DataFusion's terms. Unlike a table URL, whose path DataFusion percent-decodes, the path is taken literally.
    pub fn object_location(&self, location: &str) -> crate::Result<ObjectLocation> {
        let place = self.locate(location)?;
        let store = match &place {
            Location::Hdfs { authority, .. } => format!("hdfs://{authority}"),
            Location::Local { .. } => "file://".to_owned(),
            Location::Memory { .. } => "memory://".to_owned(),
        };
        let invalid = |reason: String| StorageError::InvalidLocation { location: location.to_owned(), reason };
        Ok(ObjectLocation {
            store: ObjectStoreUrl::parse(store).map_err(|error| invalid(error.strip_backtrace()))?,
            path: Path::parse(place.path()).map_err(|error| invalid(error.to_string()))?,
        })
    }

    /// Registers the store that a location is in with DataFusion, once per authority and runtime.
    pub fn register_object_stores(&self, runtime: &RuntimeEnv, location: &str) -> crate::Result<()> {
        let ObjectLocation { store, .. } = self.object_location(location)?;
        let objects: Arc<dyn ObjectStore> = match self.locate(location)? {
            Location::Hdfs { authority, .. } => Arc::new(Objects { storages: self.clone(), root: format!("hdfs://{authority}") }),
            Location::Local { .. } => Arc::new(LocalFileSystem::new()),
            Location::Memory { .. } => Arc::new(Objects { storages: self.clone(), root: "memory://".to_owned() }),
        };
        runtime.register_object_store(store.as_ref(), objects);
        Ok(())
    }
}

/// One HDFS as a read-only object store.
#[derive(Debug)]
struct Objects {
    storages: Storages,
    root: String,
}

impl fmt::Display for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.root)
    }
}

impl Objects {
    fn location(&self, path: &Path) -> String {
        format!("{}/{path}", self.root)
    }

    fn meta(&self, status: &FileStatus) -> Result<ObjectMeta> {
        let path = status.location.strip_prefix(&self.root).unwrap_or(&status.location);
        let modified = i64::try_from(status.modified_ms).ok().and_then(DateTime::<Utc>::from_timestamp_millis);
        Ok(ObjectMeta {
            location: Path::parse(path)?,
            last_modified: modified.unwrap_or_default(),
            size: status.size_bytes,
            e_tag: None,
            version: None,
        })
    }

    async fn head(&self, path: &Path) -> Result<ObjectMeta> {
        let location = self.location(path);
        match self.storages.status(&location).await? {
            Some(status) if !status.is_dir => self.meta(&status),
            _ => Err(StorageError::NotFound { location }.into()),
        }
    }

    async fn list_files(&self, prefix: Option<&Path>, depth: Depth) -> Result<Vec<FileStatus>> {
        let root = Path::default();
        match self.storages.list(&self.location(prefix.unwrap_or(&root)), depth).await {
            Ok(entries) => Ok(entries),
            // A prefix names a directory; as a file it has nothing below it.
            Err(StorageError::Refused { .. }) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        match &error {
            StorageError::NotFound { location } => Error::NotFound { path: location.clone(), source: error.into() },
            StorageError::PermissionDenied { location, .. } => {
                Error::PermissionDenied { path: location.clone(), source: error.into() }
            }
            StorageError::Unauthenticated { location, .. } => {
                Error::Unauthenticated { path: location.clone(), source: error.into() }
            }
            _ => Error::Generic { store: "hdfs", source: error.into() },
        }
    }
}

fn read_only(operation: &str) -> Error {
    Error::NotSupported { source: format!("{operation}: tables are written through their writers, not as objects").into() }
}

/// The bytes of a range as a stream of bounded chunks.
fn content(file: FileReader, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
    const CHUNK_BYTES: u64 = 8 << 20;
    stream::try_unfold((file, range), |(file, rest)| async move {
        if rest.is_empty() {
            return Ok(None);
        }
        let end = rest.end.min(rest.start + CHUNK_BYTES);
        let chunk = file.read(rest.start..end).await?;
        Ok(Some((chunk, (file, end..rest.end))))
    })
    .boxed()
}

#[async_trait]
impl ObjectStore for Objects {
    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let meta = self.head(path).await?;
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            Some(range) => {
                range.as_range(meta.size).map_err(|error| Error::Generic { store: "hdfs", source: Box::new(error) })?
            }
            None => 0..meta.size,
        };
        let payload = if options.head {
            stream::empty().boxed()
        } else {
            content(self.storages.open(&self.location(path)).await?, range.clone())
        };
        Ok(GetResult { payload: GetResultPayload::Stream(payload), meta, range, attributes: Attributes::default() })
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let file = self.storages.open(&self.location(path)).await?;
        let size_bytes = file.size_bytes();
        if let Some(range) = ranges.iter().find(|range| range.start > range.end || range.end > size_bytes) {
            return Err(StorageError::outside(&self.location(path), range, size_bytes).into());
        }
        coalesce_ranges(ranges, |range| async { Ok(file.read(range).await?) }, OBJECT_STORE_COALESCE_DEFAULT).await
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let objects = Objects { storages: self.storages.clone(), root: self.root.clone() };
        let prefix = prefix.cloned();
        stream::once(async move {
            let entries = objects.list_files(prefix.as_ref(), Depth::Recursive).await?;
            let files: Vec<_> = entries.iter().filter(|entry| !entry.is_dir).map(|file| objects.meta(file)).collect();
            Result::<_, Error>::Ok(stream::iter(files))
        })
        .try_flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let entries = self.list_files(prefix, Depth::Direct).await?;
        let (directories, files): (Vec<_>, Vec<_>) =
            entries.iter().map(|entry| (entry.is_dir, self.meta(entry))).partition(|(is_dir, _)| *is_dir);
        Ok(ListResult {
            common_prefixes: directories.into_iter().map(|(_, meta)| meta.map(|meta| meta.location)).collect::<Result<_>>()?,
            objects: files.into_iter().map(|(_, meta)| meta).collect::<Result<_>>()?,
        })
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(read_only("put"))
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(read_only("put"))
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        paths.map(|path| path.and_then(|_| Err(read_only("delete")))).boxed()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(read_only("copy"))
    }
}
