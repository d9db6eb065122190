//! A file of CSV or JSON lines as a source: one partition, record number = offset.
//!
//! The bronze value of a CSV record is the JSON message that `produce` would send; a row that can't be one keeps its bytes as they stand
//! in the file, so that the silver layer rejects it with a reason and nothing is lost. Keys are null unless a column is named for them,
//! timestamps always.
//!
//! *Invariants*: the record behind an offset never changes. The topic id is a hash of the header and the first record, which a growing
//! file keeps; while the process runs, the bytes before its position are checked again whenever the file has changed.
//!
//! *Failure*: a file that is shorter than the position, or whose part before the position was changed, stops the pipeline.
//!
//! *What may leak*: a change after the first record that happens while no process is running and keeps the number of records is not seen.

mod reader;
mod records;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::worker::Worker;
use super::{PollLimits, Source, SourceIdentity, Start, blocking};
use crate::checkpoint::{OffsetRange, PartitionId};
use crate::error::{Error, Result};
use crate::record::RawBatch;
use crate::retry;

use reader::FileReader;
pub use records::{FileRecord, Records};

/// How a file is divided into records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileFormat {
    /// Comma-separated values with a header line (RFC 4180).
    #[serde(rename = "csv")]
    Csv,
    /// One message per line, taken as it is.
    #[serde(rename = "jsonl")]
    JsonLines,
}

impl FileFormat {
    /// The format that a file name's ending stands for.
    pub fn from_path(path: &Path) -> Result<Self> {
        match path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("csv") => Ok(Self::Csv),
            Some("jsonl" | "ndjson" | "json") => Ok(Self::JsonLines),
            _ => Err(Error::config(format!("the format of {} can't be told from its name", path.display()))
                .hint("give the format: csv or jsonl")),
        }
    }
}

/// `[source.file]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileSettings {
    /// File to read.
    pub path: PathBuf,
    /// `csv` or `jsonl`. Default: by the file's ending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<FileFormat>,
    /// CSV column whose cells become the records' keys. Default: none, keys are null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_column: Option<String>,
    /// CSV columns that become JSON numbers, with the digits of the file. Default: the fields of silver's number columns.
    pub numeric_columns: Vec<String>,
    /// A longer record stops the pipeline. Default: 64MiB.
    pub record_bytes_max: ByteSize,
}

impl Default for FileSettings {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            format: None,
            key_column: None,
            numeric_columns: Vec::new(),
            record_bytes_max: ByteSize::mib(64),
        }
    }
}

impl FileSettings {
    pub fn validate(&self) -> Result<()> {
        if self.path.as_os_str().is_empty() {
            return Err(Error::config("source.file.path is not set").hint("set source.file.path to the file to read"));
        }
        if self.record_bytes_max > ByteSize::gib(1) {
            return Err(Error::config("source.file.record_bytes_max is above 1GiB, the most that a batch can hold"));
        }
        self.format().map(|_| ())
    }

    fn format(&self) -> Result<FileFormat> {
        self.format.map_or_else(|| FileFormat::from_path(&self.path), Ok)
    }
}

/// The only partition of a file.
pub(crate) const PARTITION: PartitionId = 0;

pub struct FileSource {
    settings: FileSettings,
    start: Start,
    identity: SourceIdentity,
    worker: Worker<FileReader>,
}

impl FileSource {
    /// Opens the file; without a topic, its path as configured is the topic.
    pub async fn open(settings: &FileSettings, topic: &str, start: &Start) -> Result<Self> {
        let topic = if topic.is_empty() { settings.path.display().to_string() } else { topic.to_owned() };
        let (format, for_reader) = (settings.format()?, (settings.clone(), topic.clone()));
        let reader = blocking(move || FileReader::open(for_reader.0, format, for_reader.1)).await?;
        let identity = SourceIdentity { topic, topic_id: reader.content_id(), cluster_id: None };
        Ok(Self { settings: settings.clone(), start: start.clone(), identity, worker: Worker::new(reader) })
    }

    async fn count(&self) -> Result<u64> {
        let (settings, format) = (self.settings.clone(), self.settings.format()?);
        blocking(move || reader::count_records(&settings, format)).await
    }
}

#[async_trait]
impl Source for FileSource {
    fn identity(&self) -> &SourceIdentity {
        &self.identity
    }

    async fn watermarks(&self) -> Result<BTreeMap<PartitionId, OffsetRange>> {
        Ok(BTreeMap::from([(PARTITION, OffsetRange::new(0, self.count().await? as i64))]))
    }

    async fn assign(&mut self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<()> {
        let next = match (next_offsets.get(&PARTITION), &self.start) {
            (Some(&next), _) => next,
            (None, Start::Earliest) => 0,
            (None, Start::Offsets(offsets)) => offsets.get(&PARTITION).copied().unwrap_or(0),
            (None, Start::Latest) => self.count().await? as i64,
            (None, Start::At(_)) => {
                return Err(Error::config("source.start is an instant, but records of a file have no time")
                    .hint("set source.start to earliest or 0:N"));
            }
        };
        if let Some(other) = next_offsets.keys().find(|partition| **partition != PARTITION) {
            return Err(Error::stop(format!(
                "the table knows partition {other} of {}, but a file has only partition 0",
                self.identity.topic
            ))
            .hint("run `lakesmith offsets show`: the table may have been filled from another source"));
        }
        self.worker.assign(&BTreeMap::from([(PARTITION, next)])).await
    }

    async fn poll(&mut self, limits: &PollLimits) -> Result<Option<RawBatch>> {
        let batch = self.worker.poll(limits).await?;
        if batch.is_none() {
            retry::sleep(limits.max_wait).await;
        }
        Ok(batch)
    }

    fn positions(&self) -> BTreeMap<PartitionId, i64> {
        self.worker.positions().clone()
    }

    fn mark_committed(&self, _: &BTreeMap<PartitionId, i64>) {}

    fn bounded(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;
    use std::time::Duration;

    use arrow::array::{Array, BinaryArray};

    use super::*;
    use crate::record::{KEY, VALUE, column};

    const LIMITS: PollLimits = PollLimits { max_rows: 2, max_bytes: 1 << 20, max_wait: Duration::ZERO };

    struct Fixture {
        dir: tempfile::TempDir,
        settings: FileSettings,
    }

    fn fixture(name: &str, text: &[u8]) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        Fixture {
            dir,
            settings: FileSettings {
                path,
                key_column: name.ends_with("csv").then(|| "id".to_owned()),
                numeric_columns: vec!["Quantity".to_owned()],
                ..FileSettings::default()
            },
        }
    }

    impl Fixture {
        async fn open_at(&self, next: i64) -> Result<FileSource> {
            let mut source = FileSource::open(&self.settings, "", &Start::Earliest).await?;
            source.assign(&BTreeMap::from([(0, next)])).await?;
            Ok(source)
        }

        fn append(&self, text: &[u8]) {
            OpenOptions::new().append(true).open(&self.settings.path).unwrap().write_all(text).unwrap();
        }
    }

    async fn values(source: &mut FileSource) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while let Some(batch) = source.poll(&LIMITS).await.unwrap() {
            let values: &BinaryArray = column(&batch.records, VALUE).unwrap();
            found.extend(values.iter().map(|value| value.unwrap().to_vec()));
        }
        found
    }

    #[tokio::test]
    async fn csv_rows_become_messages_and_bad_rows_keep_their_bytes() {
        let file = fixture("sales.csv", b"\xef\xbb\xbfid,Quantity\n1,2\nbad,row,here\r\n3,many\n4,5");
        let mut source = file.open_at(0).await.unwrap();
        assert_eq!(source.watermarks().await.unwrap(), BTreeMap::from([(0, OffsetRange::new(0, 4))]));
        let batch = source.poll(&LIMITS).await.unwrap().unwrap();
        let keys: &BinaryArray = column(&batch.records, KEY).unwrap();
        assert_eq!((keys.value(0), keys.is_null(1)), (&b"1"[..], true));
        assert_eq!(source.positions(), BTreeMap::from([(0, 2)]));
        assert_eq!(values(&mut source).await, [b"3,many".to_vec(), br#"{"id":"4","Quantity":5}"#.to_vec()]);
        assert_eq!(
            values(&mut file.open_at(0).await.unwrap()).await[..2],
            [br#"{"id":"1","Quantity":2}"#.to_vec(), b"bad,row,here".to_vec()]
        );
        assert_eq!(values(&mut file.open_at(3).await.unwrap()).await, [br#"{"id":"4","Quantity":5}"#.to_vec()]);
    }

    #[tokio::test]
    async fn a_file_that_grew_continues_under_the_same_id() {
        let file = fixture("sales.jsonl", b"a\nb\n");
        let mut source = file.open_at(0).await.unwrap();
        assert_eq!(values(&mut source).await.len(), 2);
        file.append(b"c\n");
        assert_eq!(values(&mut source).await, [b"c"]);
        let again = file.open_at(3).await.unwrap();
        assert_eq!(again.identity(), source.identity());
        assert_eq!(again.watermarks().await.unwrap()[&0].end, 3);
    }

    #[tokio::test]
    async fn a_shorter_a_changed_and_a_replaced_file_stop() {
        let file = fixture("sales.jsonl", b"a\nb\n");
        let error = file.open_at(3).await.err().unwrap();
        assert_eq!(error.kind(), crate::Kind::Stop);
        assert!(error.to_string().contains("holds 2 records"), "{error}");
        let mut source = file.open_at(0).await.unwrap();
        values(&mut source).await;
        fs::write(&file.settings.path, b"a\nX\nc\n").unwrap();
        assert_eq!(source.poll(&LIMITS).await.unwrap_err().kind(), crate::Kind::Stop);
        let replacement = file.dir.path().join("other");
        fs::write(&replacement, b"z\nb\n").unwrap();
        fs::rename(replacement, &file.settings.path).unwrap();
        assert_ne!(file.open_at(0).await.unwrap().identity(), source.identity());
    }

    #[tokio::test]
    async fn an_empty_file_has_no_records_and_no_id_yet() {
        let file = fixture("sales.csv", b"");
        let settings = FileSettings { key_column: None, ..file.settings.clone() };
        let mut source = FileSource::open(&settings, "named", &Start::Earliest).await.unwrap();
        source.assign(&BTreeMap::new()).await.unwrap();
        assert_eq!(source.identity(), &SourceIdentity { topic: "named".into(), topic_id: None, cluster_id: None });
        assert!(source.poll(&LIMITS).await.unwrap().is_none());
        file.append(b"id,Quantity\n1,2\n");
        assert_eq!(values(&mut source).await, [br#"{"id":"1","Quantity":2}"#.to_vec()]);
    }
}
