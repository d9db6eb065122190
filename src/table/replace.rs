//! Replacing the rows of offset ranges by others, as one version of the table (copy on write).
//!
//! | a data file has | what happens to it |
//! |---|---|
//! | no row of the ranges | it stays |
//! | only such rows | it leaves the table |
//! | both | it leaves the table; its other rows are written anew |
//!
//! Most files are told apart by the statistics of partition and offset; of the rest those two columns are read. The new version drops the
//! files that leave and has the new ones. Earlier snapshots still have the old ones.
//!
//! *Invariants*: the table's offsets stay what they are; the counts of its records follow. Rows without coordinates, which other engines may
//! have written, stay. A replacement whose commit id the table bears is done, and not done again.
//!
//! *Failure*: others may commit meanwhile. Batches only have it worked out on top of them, and of what was written all but the manifest list and
//! the metadata file serves again, so that it gets in between two batches; where a file is gone that was to be rewritten (a compaction), its
//! rows are written again from where they are now.
//!
//! *What may leak*: manifests, and rewritten files, of attempts that others were faster than.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use futures::{StreamExt, TryStreamExt};
use iceberg::spec::{DataContentType, DataFile, MAIN_BRANCH, Manifest, ManifestContentType, ManifestFile, PrimitiveLiteral};
use tracing::{debug, info};
use uuid::Uuid;

use super::append::snapshot_id;
use super::manifests::{self, Gone};
use super::progress::{self, Ancestry};
use super::scan::{FileReader, OffsetRanges};
use super::upkeep::{Dropped, unreadable};
use super::writer::{DataFiles, WriterSettings};
use super::{LakeTable, summary};
use crate::catalog::{Rejection, SwapOutcome, Turn, Version};
use crate::checkpoint::PartitionId;
use crate::error::{Context, Error, Result};
use crate::record::{OFFSET, PARTITION, coordinates, position};
use crate::retry::Backoff;
use crate::storage::CloseBarrier;

/// Manifests, and data files, that are read at the same time.
const READ_CONCURRENCY: usize = 4;

/// Rows by topic partition.
pub type RowCounts = BTreeMap<PartitionId, u64>;

/// A data file and the partition spec that it was written for.
#[derive(Debug, Clone)]
pub struct TableFile {
    pub(super) spec_id: i32,
    pub(super) file: DataFile,
}

impl TableFile {
    pub fn path(&self) -> &str {
        self.file.file_path()
    }
}

/// Rows that are to take the place of others.
#[derive(Debug, Clone)]
pub struct Replacement {
    /// One id over all tries, and over restarts.
    pub commit_id: Uuid,
    /// Rows with these offsets go.
    pub ranges: OffsetRanges,
    /// Files that come. They have rows of these ranges only.
    pub files: Vec<TableFile>,
    pub rows: RowCounts,
    /// Further entries of the snapshot's summary.
    pub summary: BTreeMap<String, String>,
    /// A note and its value that the table must bear: without it, the replacement was taken back, and its files may be gone.
    pub while_noted: Option<(String, String)>,
}

/// What a replacement did to the table's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replaced {
    /// Files that left the table, rewritten ones among them.
    pub files_removed: usize,
    pub files_rewritten: usize,
    pub rows_removed: u64,
    pub rows_added: u64,
}

/// What becomes of a data file, with the rows that go.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Stays,
    Goes(RowCounts),
    Rewritten(RowCounts),
}

/// The data files of a version, and what becomes of them.
struct Survey {
    manifests: Vec<(ManifestFile, Option<Arc<Manifest>>)>,
    fates: HashMap<String, Fate>,
    /// Files with deletes of other engines: with them, a file's count of rows is not what a reader sees.
    deletes: HashSet<String>,
}

/// What was found out, and written, in earlier tries.
#[derive(Default)]
struct Known {
    fates: HashMap<String, Fate>,
    deletes: HashSet<String>,
    /// The other rows of these files, written anew.
    rewritten: Option<(HashSet<String>, DataFiles)>,
    /// Manifests without the files that leave, by the path of each one's source, with these files.
    manifests: HashMap<String, (ManifestFile, Vec<(i32, DataFile)>)>,
    /// Manifests of the files that come.
    added: Vec<ManifestFile>,
}

/// A version of the table with the replacement in it, written but not its current one.
struct Attempt {
    from: Version,
    to: Version,
    dropped: Dropped,
    report: Replaced,
}

impl LakeTable {
    /// The data files of the current snapshot.
    pub async fn data_files(&mut self) -> Result<Vec<TableFile>> {
        let survey = self.loaded_manifests().await?;
        let files = survey.iter().filter_map(|(manifest, loaded)| Some((manifest.partition_spec_id, loaded.as_ref()?)));
        let alive = files.flat_map(|(spec_id, loaded)| {
            let entries = loaded.entries().iter().filter(|entry| entry.is_alive());
            entries.map(move |entry| TableFile { spec_id, file: entry.data_file().clone() })
        });
        Ok(alive.collect())
    }

    /// Whether a replacement is in the table.
    pub fn has_replacement(&self, commit_id: Uuid) -> bool {
        let by_property = self.note(progress::REPLACEMENT) == Some(commit_id.to_string().as_str());
        by_property || Ancestry::of(self.metadata()).committed(commit_id).is_some()
    }

    /// Makes a replacement; none if it was in the table. The table then stands as it was read last.
    pub async fn replace(&mut self, replacement: &Replacement, settings: &WriterSettings) -> Result<Option<Replaced>> {
        let (catalog, ident) = (self.catalog().clone(), self.ident().clone());
        let mut backoff = Backoff::new(&catalog.settings().commit_retry);
        let (mut known, mut turn) = (Known::default(), Turn::default());
        loop {
            let attempt = match self.attempt_replacement(replacement, settings, &mut known).await {
                Ok(Some(attempt)) => attempt,
                ended => {
                    turn.pass().await;
                    return ended.map(|_| None);
                }
            };
            let Attempt { from, to, dropped, report } = attempt;
            match catalog.settle(&ident, &from, &to, turn, &mut backoff).await.outcome {
                SwapOutcome::Committed => {
                    self.refresh().await?;
                    dropped.delete(catalog.storages(), catalog.file_io(), self.metadata()).await;
                    return Ok(Some(report));
                }
                SwapOutcome::Rejected(Rejection::Moved { found: Some(found) }) => {
                    debug!(table = %ident, found, "another commit was faster, replacing rows on top of it");
                    turn = match catalog.next_turn(&ident, &from, &mut backoff).await {
                        Some(turn) => turn,
                        None => return Err(Rejection::Moved { found: Some(found) }.into_error(&ident)),
                    };
                }
                SwapOutcome::Rejected(rejection) => return Err(rejection.into_error(&ident)),
                // Whoever looks at the table again finds out by the commit id.
                SwapOutcome::Unknown(error) => {
                    return Err(error.context(format!("the outcome of a replacement in table {ident} is unknown")));
                }
            }
        }
    }

    /// Writes a version of the table as it is now with the replacement in it; none if it is in the table.
    async fn attempt_replacement(
        &mut self,
        replacement: &Replacement,
        settings: &WriterSettings,
        known: &mut Known,
    ) -> Result<Option<Attempt>> {
        self.refresh().await?;
        if self.has_replacement(replacement.commit_id) {
            return Ok(None);
        }
        if let Some((key, value)) = replacement.while_noted.as_ref().filter(|(key, value)| self.note(key) != Some(value.as_str()))
        {
            debug!(table = %self.ident(), key, value, "the note of a replacement is gone");
            return Err(Error::stop(format!("the replacement of rows of table {} was taken back meanwhile", self.ident()))
                .hint("nothing was changed; give the command again to begin anew"));
        }
        let survey = self.survey(&replacement.ranges, known).await?;
        if known.deletes != survey.deletes {
            known.manifests.clear();
        }
        let kept = self.rewrite(&survey, &replacement.ranges, settings, known).await?;
        let attempt = self.write_replacement(replacement, &survey, &kept, known).await?;
        (known.fates, known.deletes) = (survey.fates, survey.deletes);
        Ok(Some(attempt))
    }

    async fn loaded_manifests(&mut self) -> Result<Vec<(ManifestFile, Option<Arc<Manifest>>)>> {
        let list = self.manifests().await?;
        let file_io = self.catalog().file_io();
        let loading: Vec<_> = list
            .iter()
            .cloned()
            .map(|manifest| async move {
                if manifest.content != ManifestContentType::Data {
                    return Ok((manifest, None));
                }
                let loaded = manifest.load_manifest(file_io).await.map_err(unreadable);
                let loaded = loaded.with_context(|| format!("failed to read manifest {}", manifest.manifest_path))?;
                Ok::<_, Error>((manifest, Some(Arc::new(loaded))))
            })
            .collect();
        futures::stream::iter(loading).buffered(READ_CONCURRENCY).try_collect().await
    }

    /// What becomes of each data file of the current snapshot.
    async fn survey(&mut self, ranges: &OffsetRanges, known: &Known) -> Result<Survey> {
        let manifests = self.loaded_manifests().await?;
        let deletes: HashSet<String> =
            manifests.iter().filter(|(_, loaded)| loaded.is_none()).map(|(manifest, _)| manifest.manifest_path.clone()).collect();
        let (mut fates, mut unclear) = (HashMap::new(), Vec::new());
        let ids = Coordinates::of(self)?;
        for file in manifests.iter().filter_map(|(_, loaded)| loaded.as_ref()).flat_map(|loaded| loaded.entries()) {
            let Some(file) = Some(file).filter(|entry| entry.is_alive()).map(|entry| entry.data_file()) else { continue };
            let path = file.file_path();
            let earlier = known.fates.get(path).filter(|_| known.deletes == deletes);
            match earlier.cloned().or_else(|| ids.fate(file, ranges, deletes.is_empty())) {
                Some(fate) => drop(fates.insert(path.to_owned(), fate)),
                None => unclear.push(path.to_owned()),
            }
        }
        if !unclear.is_empty() {
            let reader = self.file_reader(Some(&[PARTITION, OFFSET])).await?;
            let looking: Vec<_> = unclear.into_iter().map(|path| look(&reader, path, ranges)).collect();
            let mut found = futures::stream::iter(looking).buffer_unordered(READ_CONCURRENCY);
            while let Some((path, fate)) = found.try_next().await? {
                fates.insert(path, fate);
            }
        }
        Ok(Survey { manifests, fates, deletes })
    }

    /// The other rows of files that are to be rewritten, in new files; those of an earlier try if it was the same files.
    async fn rewrite(
        &self,
        survey: &Survey,
        ranges: &OffsetRanges,
        settings: &WriterSettings,
        known: &mut Known,
    ) -> Result<DataFiles> {
        let mixed = survey.fates.iter().filter(|(_, fate)| matches!(fate, Fate::Rewritten(_)));
        let mixed: HashSet<String> = mixed.map(|(path, _)| path.clone()).collect();
        if let Some((_, files)) = known.rewritten.as_ref().filter(|(paths, _)| *paths == mixed && known.deletes == survey.deletes)
        {
            return Ok(files.clone());
        }
        known.added.clear();
        if let Some((_, files)) = known.rewritten.take() {
            self.discard(&files).await;
        }
        if mixed.is_empty() {
            known.rewritten = Some((mixed, DataFiles::default()));
            return Ok(DataFiles::default());
        }
        info!(table = %self.ident(), files = mixed.len(), "writing files anew that hold rows to be replaced and others");
        let reader = self.file_reader(None).await?;
        let barrier = CloseBarrier::new();
        let mut writer = self.writer(settings, &barrier)?;
        for path in &mixed {
            let mut batches = reader.read(path).await?;
            while let Some(batch) = batches.try_next().await? {
                let (partitions, offsets) = coordinates(&batch)?;
                let stays = |(partition, offset): (Option<i32>, Option<i64>)| !is_within(ranges, partition, offset);
                let stays: BooleanArray = partitions.iter().zip(offsets).map(|row| Some(stays(row))).collect();
                writer.write(&filter_record_batch(&batch, &stays)?).await?;
            }
        }
        let files = writer.finish().await?;
        barrier.wait().await.with_context(|| format!("rewritten files of table {} could not be closed", self.ident()))?;
        known.rewritten = Some((mixed, files.clone()));
        Ok(files)
    }

    /// Writes manifests, manifest list and metadata file of the version that is read, with the replacement in it; durable on return.
    async fn write_replacement(
        &self,
        replacement: &Replacement,
        survey: &Survey,
        kept: &DataFiles,
        known: &mut Known,
    ) -> Result<Attempt> {
        let (from, id, name) = (self.version().clone(), snapshot_id(replacement.commit_id), Uuid::now_v7());
        let barrier = CloseBarrier::new();
        let (metadata, output) = (&from.metadata, self.catalog().storages().file_io_deferred(&barrier));
        let directory = format!("{}/metadata", metadata.location());
        let mut report = Replaced { rows_added: replacement.rows.values().sum(), ..Replaced::default() };
        let mut removed = RowCounts::new();
        for fate in survey.fates.values() {
            let (rows, rewritten) = match fate {
                Fate::Stays => continue,
                Fate::Goes(rows) => (rows, 0),
                Fate::Rewritten(rows) => (rows, 1),
            };
            report.files_removed += 1;
            report.files_rewritten += rewritten;
            for (partition, rows) in rows {
                *removed.entry(*partition).or_default() += rows;
            }
        }
        report.rows_removed = removed.values().sum();

        let goes = |path: &str| !matches!(survey.fates.get(path), None | Some(Fate::Stays));
        let (mut list, mut gone) = (Vec::new(), Vec::new());
        for (number, (manifest, loaded)) in survey.manifests.iter().enumerate() {
            let source = &manifest.manifest_path;
            if let (Some(loaded), false) = (loaded, known.manifests.contains_key(source)) {
                let (location, mut files) = (format!("{directory}/{name}-r{number}.avro"), Gone::default());
                let written = manifests::without(&output, &location, metadata, id, manifest, loaded, &goes, &mut files).await?;
                known.manifests.extend(written.map(|written| (source.clone(), (written, files.files))));
            }
            match known.manifests.get(source) {
                Some((written, files)) => {
                    list.push(written.clone());
                    gone.extend(files.iter().cloned());
                }
                None => list.push(manifest.clone()),
            }
        }
        let mut added: BTreeMap<i32, Vec<DataFile>> = BTreeMap::new();
        for TableFile { spec_id, file } in &replacement.files {
            added.entry(*spec_id).or_default().push(file.clone());
        }
        if !kept.is_empty() {
            added.entry(kept.spec_id).or_default().extend(kept.files.iter().cloned());
        }
        if known.added.is_empty() {
            for (spec_id, files) in &added {
                let location = format!("{directory}/{name}-a{spec_id}.avro");
                known.added.push(manifests::write_added(&output, &location, metadata, id, *spec_id, files).await?);
            }
        }
        list.splice(0..0, known.added.iter().cloned());

        let mut after = self.checkpoint()?.unwrap_or_default();
        for (partition, coverage) in &mut after.partitions {
            let count = |rows: &RowCounts| rows.get(partition).copied().unwrap_or(0);
            let records = (coverage.records + count(&replacement.rows)).saturating_sub(count(&removed));
            coverage.records = records.min(coverage.range.len() as u64);
        }
        let marks = progress::replacement_marks(&after, replacement.commit_id, &replacement.summary, metadata.properties());
        let previous = metadata.current_snapshot().map(AsRef::as_ref);
        let spec = |spec_id: i32| manifests::partition_spec(metadata, spec_id).cloned();
        let with_specs = |files: Vec<(i32, DataFile)>| -> Result<Vec<_>> {
            files.into_iter().map(|(spec_id, file)| Ok((Arc::new(spec(spec_id)?), file))).collect()
        };
        let added = added.into_iter().flat_map(|(spec_id, files)| files.into_iter().map(move |file| (spec_id, file)));
        let (added, gone) = (with_specs(added.collect())?, with_specs(gone)?);
        let summary = summary::overwrite(&added, &gone, metadata.current_schema(), previous, marks.summary.clone());
        let list_location = format!("{directory}/snap-{id}-1-{name}.avro");
        let (snapshot, _) = manifests::write_list(&output, metadata, id, list_location, summary, list).await?;
        let builder = metadata.as_ref().clone().into_builder(Some(from.location.clone()));
        let builder = builder.set_branch_snapshot(snapshot, MAIN_BRANCH)?.set_properties(marks.properties)?;
        let built = builder.remove_properties(&marks.removed)?.build()?;
        let mut dropped = Dropped::default();
        dropped.log(&built.metadata, built.expired_metadata_logs);
        let to = self.catalog().next_version(&from, built.metadata);
        self.catalog().write_version_with(&to, &output).await?;
        barrier.wait().await.with_context(|| format!("metadata of table {} could not be closed", self.ident()))?;
        Ok(Attempt { from, to, dropped, report })
    }
}

/// Counts a file's rows inside and outside of the ranges.
async fn look(reader: &FileReader, path: String, ranges: &OffsetRanges) -> Result<(String, Fate)> {
    let mut batches = reader.read(&path).await?;
    let (mut inside, mut others) = (RowCounts::new(), 0u64);
    while let Some(batch) = batches.try_next().await? {
        let (partitions, offsets) = coordinates(&batch)?;
        for (partition, offset) in partitions.iter().zip(offsets) {
            match partition.filter(|_| is_within(ranges, partition, offset)) {
                Some(partition) => *inside.entry(partition).or_default() += 1,
                None => others += 1,
            }
        }
    }
    let fate = match (inside.is_empty(), others) {
        (true, _) => Fate::Stays,
        (false, 0) => Fate::Goes(inside),
        (false, _) => Fate::Rewritten(inside),
    };
    Ok((path, fate))
}

fn is_within(ranges: &OffsetRanges, partition: Option<PartitionId>, offset: Option<i64>) -> bool {
    let Some((partition, offset)) = partition.zip(offset) else { return false };
    ranges.get(&partition).is_some_and(|range| range.contains(offset))
}

/// The field ids of a record's coordinates.
struct Coordinates {
    partition: i32,
    offset: i32,
}

impl Coordinates {
    fn of(table: &LakeTable) -> Result<Self> {
        let (arrow, schema) = (table.arrow_schema()?, table.metadata().current_schema());
        let id = |name: &str| {
            let missing = || Error::failed(format!("table {} has no column {name}", table.ident()));
            let at = position(arrow.fields(), name).ok_or_else(missing)?;
            schema.field_by_name(arrow.field(at).name()).map(|field| field.id).ok_or_else(missing)
        };
        Ok(Self { partition: id(PARTITION)?, offset: id(OFFSET)? })
    }

    /// What the statistics decide; `counts` says that they count what a reader sees.
    fn fate(&self, file: &DataFile, ranges: &OffsetRanges, counts: bool) -> Option<Fate> {
        if file.content_type() != DataContentType::Data {
            return Some(Fate::Stays);
        }
        let (partitions, offsets) = (self.partitions(file)?, span(file, self.offset)?);
        let met: Vec<_> = ranges.range(partitions.clone()).filter(|(_, range)| meets(&offsets, range.start, range.end)).collect();
        if met.is_empty() {
            return Some(Fate::Stays);
        }
        let nulls = |id| file.null_value_counts().get(&id) != Some(&0);
        let (Some((&partition, range)), true, false) =
            (met.first().copied(), partitions.start() == partitions.end() && counts, nulls(self.partition) || nulls(self.offset))
        else {
            return None;
        };
        let whole = range.start <= *offsets.start() && *offsets.end() < range.end;
        whole.then(|| Fate::Goes(RowCounts::from([(partition, file.record_count())])))
    }

    fn partitions(&self, file: &DataFile) -> Option<RangeInclusive<PartitionId>> {
        let span = span(file, self.partition)?;
        Some(i32::try_from(*span.start()).ok()?..=i32::try_from(*span.end()).ok()?)
    }
}

fn meets(span: &RangeInclusive<i64>, start: i64, end: i64) -> bool {
    *span.start() < end && start <= *span.end()
}

/// The least and greatest value of a column in a file, as far as its statistics tell.
fn span(file: &DataFile, id: i32) -> Option<RangeInclusive<i64>> {
    let value = |bounds: &HashMap<i32, iceberg::spec::Datum>| match bounds.get(&id)?.literal() {
        PrimitiveLiteral::Int(value) => Some(i64::from(*value)),
        PrimitiveLiteral::Long(value) => Some(*value),
        _ => None,
    };
    let (least, greatest) = (value(file.lower_bounds())?, value(file.upper_bounds())?);
    (least <= greatest).then_some(least..=greatest)
}
