//! Writing bronze's JSON lines: the file of a cycle.
//!
//! *Invariants*: a cycle makes one file for up to [`PARTITIONS_PER_FILE`] topic partitions; with more, several files, which get their names
//! one after the other behind the same entry. Offsets without a record are in a file's name too.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use super::json_lines;
use super::text_table::TextTable;
use crate::checkpoint::Delta;
use crate::error::{Error, Result};
use crate::hive::CommitLog;
use crate::hive::file_name::PARTITIONS_PER_FILE;
use crate::record::coordinates;
use crate::storage::{CloseBarrier, Create, FileWriter, Storages};
use crate::table::Begun;
use crate::table::logged::{Held, LoggedFiles, LoggedWriter, PendingFile};

/// Writes batches of records into files that nobody sees yet.
pub struct TextWriter {
    storages: Storages,
    log: CommitLog,
    barrier: CloseBarrier,
    open: Vec<(PendingFile, FileWriter)>,
}

impl TextWriter {
    pub(super) fn new(table: &TextTable, barrier: &CloseBarrier) -> Self {
        let storages = table.catalog().storages().clone();
        Self { storages, log: table.log().clone(), barrier: barrier.clone(), open: Vec::new() }
    }

    /// A file that takes another topic partition.
    async fn file_with_room(&mut self) -> Result<usize> {
        let roomy = self.open.iter().position(|(file, _)| file.held.len() < PARTITIONS_PER_FILE);
        if let Some(file) = roomy {
            return Ok(file);
        }
        let pending = format!("pending-{}.json", Uuid::now_v7().simple());
        let writer = self.storages.create(&self.log.pending_location(&pending), Create::New).await?;
        self.open.push((PendingFile { pending, ..PendingFile::default() }, writer));
        Ok(self.open.len() - 1)
    }
}

#[async_trait]
impl LoggedWriter for TextWriter {
    fn begun(&self) -> Begun {
        Begun { files: self.open.len(), bytes: self.open.iter().map(|(_, writer)| writer.bytes_written()).sum() }
    }

    async fn write(&mut self, records: &RecordBatch) -> Result<()> {
        let mut rows: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let (partitions, _) = coordinates(records)?;
        for (row, partition) in partitions.values().iter().enumerate() {
            let known = self.open.iter().position(|(file, _)| file.held.contains_key(partition));
            let file = match known {
                Some(file) => file,
                None => self.file_with_room().await?,
            };
            self.open[file].0.held.entry(*partition).or_default().rows += 1;
            rows.entry(file).or_default().push(row);
        }
        for (file, rows) in rows {
            let records = records.clone();
            let encoding = tokio::task::spawn_blocking(move || {
                let mut lines = Vec::new();
                json_lines::encode(&records, rows, &mut lines).map(|()| lines)
            });
            let lines = encoding.await.map_err(|panic| Error::failed("a worker thread panicked").caused_by(panic))??;
            self.open[file].1.write(Bytes::from(lines)).await?;
        }
        Ok(())
    }

    async fn finish(self) -> Result<LoggedFiles> {
        let mut files = Vec::new();
        for (mut file, writer) in self.open {
            file.size_bytes = writer.bytes_written();
            writer.defer_close(&self.barrier);
            files.push(file);
        }
        Ok(LoggedFiles { files })
    }
}

/// Names the topic partitions of a batch that no file has a record of: in a file with room, or in an empty one, closed at the barrier.
pub(super) async fn cover(table: &TextTable, files: &mut LoggedFiles, delta: &Delta, barrier: &CloseBarrier) -> Result<()> {
    let covered = delta.partitions.iter().filter(|(_, coverage)| !coverage.range.is_empty()).map(|(partition, _)| *partition);
    let mut unnamed = Vec::new();
    for partition in covered {
        if files.files.iter().any(|file| file.held.contains_key(&partition)) {
            continue;
        }
        match files.files.iter_mut().find(|file| file.held.len() < PARTITIONS_PER_FILE) {
            Some(file) => _ = file.held.insert(partition, Held::default()),
            None => unnamed.push(partition),
        }
    }
    for partitions in unnamed.chunks(PARTITIONS_PER_FILE) {
        let pending = format!("pending-{}.json", Uuid::now_v7().simple());
        let storages = table.catalog().storages();
        storages.create(&table.log().pending_location(&pending), Create::New).await?.defer_close(barrier);
        let held = partitions.iter().map(|partition| (*partition, Held::default())).collect();
        files.files.push(PendingFile { pending, held, ..PendingFile::default() });
    }
    Ok(())
}
