//! The blocking half of the file source: reads records from a position and notices changes of what lies before it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use super::{FileFormat, FileSettings, PARTITION, Records};
use crate::checkpoint::PartitionId;
use crate::error::{Context, Error, Result};
use crate::record::RawBatch;
use crate::source::batch::BATCH_BYTES_MAX;
use crate::source::messages::RowToJson;
use crate::source::worker::{BatchReader, Stop};
use crate::source::{PollLimits, RawBatchBuilder, now_us};

/// How much of the file before the position is compared when the file has changed.
const TAIL_BYTES: u64 = 64 << 10;

/// What tells that a file was not touched.
type Stamp = (u64, u64, i64, i64, u64);

pub(super) struct FileReader {
    settings: FileSettings,
    format: FileFormat,
    content_id: Option<String>,
    records: Records<File>,
    /// Known once the header has been read; JSON lines have none.
    rows: Option<RowToJson>,
    builder: RawBatchBuilder,
    next: i64,
    /// The file's stamp and the hash of the bytes before the position when its end was reached.
    at_end: Option<(Stamp, blake3::Hash)>,
}

impl FileReader {
    pub fn open(settings: FileSettings, format: FileFormat, topic: String) -> Result<Self> {
        let (records, rows) = begin(&settings, format)?;
        let content_id = content_id(&settings, format)?;
        Ok(Self { settings, format, content_id, records, rows, builder: RawBatchBuilder::new(topic), next: 0, at_end: None })
    }

    /// A hash of the header and the first record; none as long as there is no record.
    pub fn content_id(&self) -> Option<String> {
        self.content_id.clone()
    }

    fn changed(&self, what: &str) -> Error {
        Error::stop(format!("file {} {what}", self.settings.path.display()))
            .hint("restore the file, or run `lakesmith offsets show` for how to begin anew")
    }

    /// Whether there is more to read at the end reached before, after making sure that what was read is still there.
    fn continue_after_end(&mut self) -> Result<bool> {
        let Some((stamp, tail)) = self.at_end else { return Ok(true) };
        let mut file = open_file(&self.settings)?;
        let now = stamp_of(&file)?;
        if now == stamp {
            return Ok(false);
        }
        let position = self.records.bytes_read();
        if now.0 < position {
            return Err(self.changed(&format!("was cut to {} bytes, {position} had been read", now.0)));
        }
        let first = content_id(&self.settings, self.format)?;
        if tail_hash(&mut file, position)? != tail || (self.content_id.is_some() && first != self.content_id) {
            return Err(self.changed("was changed before the position read"));
        }
        self.content_id = first;
        file.seek(SeekFrom::Start(position))?;
        self.records.replace_input(file);
        self.at_end = None;
        Ok(true)
    }

    fn remember_end(&mut self) -> Result<()> {
        let mut file = open_file(&self.settings)?;
        let tail = tail_hash(&mut file, self.records.bytes_read())?;
        self.at_end = Some((stamp_of(&file)?, tail));
        Ok(())
    }
}

impl BatchReader for FileReader {
    fn assign(&mut self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<BTreeMap<PartitionId, i64>> {
        let next = next_offsets.get(&PARTITION).copied().unwrap_or(0);
        (self.records, self.rows) = begin(&self.settings, self.format)?;
        let skipped = self.records.skip(next as u64)?;
        if (skipped as i64) < next {
            return Err(self.changed(&format!("holds {skipped} records, the table continues at record {next}")));
        }
        self.next = next;
        self.at_end = None;
        self.builder.reset(&BTreeMap::from([(PARTITION, next)]), |_| false);
        Ok(self.builder.positions())
    }

    fn poll(&mut self, limits: &PollLimits, stop: &Stop) -> Result<Option<RawBatch>> {
        if !self.continue_after_end()? {
            return Ok(None);
        }
        let began = Instant::now();
        let key_column = match (&self.settings.key_column, &self.rows) {
            (Some(name), Some(rows)) => Some(rows.column(name)?),
            _ => None,
        };
        let mut message = Vec::new();
        let bytes_max = limits.max_bytes.min(BATCH_BYTES_MAX);
        while self.builder.rows() < limits.max_rows.max(1) && self.builder.bytes() < bytes_max && !stop.requested() {
            let Some(record) = self.records.next_record()? else {
                self.remember_end()?;
                break;
            };
            let Some(rows) = &mut self.rows else {
                if self.format == FileFormat::Csv {
                    // The header of a file that was empty when it was opened.
                    self.rows = Some(header(record.bytes, &self.settings)?);
                } else {
                    self.builder.append(PARTITION, self.next, None, None, Some(record.bytes), &[]);
                    self.next += 1;
                }
                continue;
            };
            message.clear();
            match rows.convert(record.bytes, &mut message) {
                Ok(()) => {
                    let key = key_column.and_then(|column| rows.cell(column));
                    self.builder.append(PARTITION, self.next, None, key, Some(&message), &[])
                }
                Err(reason) => {
                    tracing::debug!(line = record.line, %reason, "a CSV row is no message, its bytes are kept");
                    self.builder.append(PARTITION, self.next, None, None, Some(record.bytes), &[])
                }
            };
            self.next += 1;
            if self.next % 1024 == 0 && began.elapsed() >= limits.max_wait.max(std::time::Duration::from_millis(10)) {
                break;
            }
        }
        if self.builder.has_progress() { self.builder.finish(now_us()).map(Some) } else { Ok(None) }
    }
}

/// Opens the file and reads its header, so that the next record is number 0.
fn begin(settings: &FileSettings, format: FileFormat) -> Result<(Records<File>, Option<RowToJson>)> {
    let mut records = Records::new(open_file(settings)?, format, settings.record_bytes_max.as_u64() as usize);
    let rows = match format {
        FileFormat::JsonLines => None,
        FileFormat::Csv => records.next_record()?.map(|record| header(record.bytes, settings)).transpose()?,
    };
    Ok((records, rows))
}

fn header(record: &[u8], settings: &FileSettings) -> Result<RowToJson> {
    let record = record.strip_prefix(b"\xef\xbb\xbf").unwrap_or(record);
    let rows = RowToJson::new(record, &settings.numeric_columns)
        .with_context(|| format!("file {} is not usable", settings.path.display()))?;
    if let Some(name) = &settings.key_column {
        rows.column(name)?;
    }
    Ok(rows)
}

/// The number of records in the file now.
pub(super) fn count_records(settings: &FileSettings, format: FileFormat) -> Result<u64> {
    begin(settings, format)?.0.skip(u64::MAX)
}

fn content_id(settings: &FileSettings, format: FileFormat) -> Result<Option<String>> {
    let mut records = Records::new(open_file(settings)?, format, settings.record_bytes_max.as_u64() as usize);
    let mut hash = blake3::Hasher::new();
    let wanted = if format == FileFormat::Csv { 2 } else { 1 };
    for _ in 0..wanted {
        let Some(record) = records.next_record()? else { return Ok(None) };
        hash.update(record.bytes).update(b"\n");
    }
    Ok(Some(format!("blake3:{}", &hash.finalize().to_hex()[..32])))
}

fn open_file(settings: &FileSettings) -> Result<File> {
    File::open(&settings.path)
        .map_err(|error| Error::failed(format!("file {} can't be opened", settings.path.display())).caused_by(error))
}

fn stamp_of(file: &File) -> Result<Stamp> {
    let metadata = file.metadata()?;
    Ok((metadata.len(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.dev()))
}

/// The hash of the last bytes before a position.
fn tail_hash(file: &mut File, position: u64) -> Result<blake3::Hash> {
    let begin = position.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(begin))?;
    let mut tail = Vec::new();
    file.take(position - begin).read_to_end(&mut tail)?;
    Ok(blake3::hash(&tail))
}
