//! Committing a batch: its files and the checkpoint after it, in one swap of the table's pointer.
//!
//! | found | what happens |
//! |---|---|
//! | the batch begins where the table ends | prepared and swapped |
//! | its commit id is in the table | it is committed: an earlier attempt had landed |
//! | the table ends elsewhere | mismatch; nothing is written |
//! | others moved the pointer before the swap | read again, all of the above again, then the same files are put on top |
//! | the swap's answer was lost | the table is asked, see [`crate::catalog`] |
//!
//! *Invariants*: the snapshot id follows from the commit id, so that two attempts can never both be in one table's history. Data files
//! and their manifest are written once, whatever the number of attempts; each attempt has a manifest list and a metadata file of its own.

use std::collections::BTreeMap;

use iceberg::TableIdent;
use iceberg::io::FileIO;
use iceberg::spec::{FormatVersion, MAIN_BRANCH, ManifestFile};
use tracing::{debug, info};
use uuid::Uuid;

use super::manifests::{self, Manifests};
use super::progress::{self, Ancestry, COMMIT_ID, ensure_same_input, ensure_same_source};
use super::upkeep::Dropped;
use super::writer::{DataFiles, delete_files};
use super::{InputRef, LakeTable, Origin, summary};
use crate::catalog::{CommitOutcome, Rejection, SwapOutcome, Turn, Version};
use crate::checkpoint::{Checkpoint, Delta, Mismatch};
use crate::error::{Error, Result};
use crate::retry::Backoff;
use crate::storage::CloseBarrier;

/// One batch to be appended.
#[derive(Debug, Clone)]
pub struct Append<F = DataFiles> {
    /// From [`DataWriter::finish`](super::DataWriter::finish); empty where a batch only moves the offsets on.
    pub files: F,
    pub delta: Delta,
    /// The topic; refused if the table holds another one.
    pub origin: Origin,
    /// One id per batch, over all its attempts.
    pub commit_id: Uuid,
    /// For a derived table: what it is computed from. Refused if the table was computed from another table so far.
    pub input: Option<InputRef>,
    /// Further entries of the snapshot's summary. Those that begin with `lakesmith.` are also set as table properties, so that they
    /// survive snapshots of other engines; an empty value removes the property. See [`LakeTable::note`].
    pub summary: BTreeMap<String, String>,
}

/// What [`LakeTable::prepare`] found.
#[derive(Debug)]
pub enum Preparation {
    /// All files are written; await the barrier, then swap.
    Ready(Box<Prepared>),
    /// The commit id is in the table already: an earlier attempt had landed.
    AlreadyCommitted(Appended),
    /// The batch doesn't begin where the table ends; nothing was written. The caller seeks to where the table is.
    Mismatch(Mismatch),
}

/// A batch that is in the table.
#[derive(Debug, Clone)]
pub struct Appended {
    pub snapshot_id: i64,
    /// The metadata file of the version that brought it, or of a later one.
    pub metadata_location: String,
    /// The table's checkpoint after the batch, or, if others went on from there, of now.
    pub checkpoint: Checkpoint,
    /// Versions of the table that it was prepared for until one was swapped; 0 if it was there already.
    pub attempts: u32,
}

/// A batch whose files are written and whose pointer swap is due. The caller awaits the barrier in between.
#[derive(Debug)]
pub struct Prepared {
    batch: Append,
    /// The unique part of the names of its metadata files.
    name: Uuid,
    /// Of the batch's data files; the same in every attempt.
    manifest: Option<ManifestFile>,
    attempt: Attempt,
    attempts: u32,
    /// An attempt was undecided for a time: it could still arrive at the server, so that no file may be deleted any more.
    doubtful: bool,
}

/// One version of the table with the batch in it.
#[derive(Debug)]
struct Attempt {
    from: Version,
    to: Version,
    manifests: Manifests,
    checkpoint: Checkpoint,
    dropped: Dropped,
    /// Files of this attempt alone.
    files: Vec<String>,
}

/// Where an attempt writes its files.
struct AttemptFiles {
    name: Uuid,
    number: u32,
    output: FileIO,
}

/// Where a batch stands in relation to the table.
enum Place {
    Next(Checkpoint),
    Committed(Appended),
    Mismatch(Mismatch),
}

impl LakeTable {
    /// Writes manifest, manifest list and metadata file of a batch; their closing is handed to the barrier. Reads nothing but the entry's
    /// current manifest list, and that only if somebody else wrote it. Data files stay whatever the result is.
    pub async fn prepare(&mut self, append: Append, barrier: &CloseBarrier) -> Result<Preparation> {
        let mut place = self.place(&append);
        if !matches!(place, Ok(Place::Next(_))) {
            // What was read last may be old: others may have committed, or mended what is contradictory.
            self.refresh().await?;
            place = self.place(&append);
        }
        let checkpoint = match place? {
            Place::Next(checkpoint) => checkpoint,
            Place::Committed(appended) => return Ok(Preparation::AlreadyCommitted(appended)),
            Place::Mismatch(mismatch) => return Ok(Preparation::Mismatch(mismatch)),
        };
        let output = self.catalog().storages().file_io_deferred(barrier);
        // Not the commit id: a restarted daemon may prepare a batch again whose first attempt is still on its way to the server.
        let name = Uuid::now_v7();
        let manifest = if append.files.is_empty() {
            None
        } else {
            let location = format!("{}/metadata/{name}-m0.avro", self.metadata().location());
            let (snapshot_id, files) = (snapshot_id(append.commit_id), &append.files);
            Some(manifests::write_added(&output, &location, self.metadata(), snapshot_id, files.spec_id, &files.files).await?)
        };
        let files = AttemptFiles { name, number: 1, output };
        let attempt = self.attempt(&append, manifest.as_ref(), checkpoint, files, Merging::Due).await?;
        Ok(Preparation::Ready(Box::new(Prepared { batch: append, name, manifest, attempt, attempts: 1, doubtful: false })))
    }

    fn place(&self, append: &Append) -> Result<Place> {
        if self.metadata().format_version() < FormatVersion::V2 {
            return Err(Error::stop(format!("table {} is of Iceberg's format version 1", self.ident()))
                .hint("lakesmith writes versions 2 and 3; another engine can upgrade the table, or use another one"));
        }
        if let Some(appended) = self.committed(append.commit_id)? {
            return Ok(Place::Committed(appended));
        }
        let known = self.checkpoint()?;
        if let Some(known) = &known {
            ensure_same_source(self.ident(), known, &append.origin)?;
        }
        ensure_same_input(self.ident(), self.input()?.as_ref(), append.input.as_ref())?;
        let mut base = append.origin.base(known);
        Ok(match self.advance(&base, &append.delta) {
            Ok(after) => Place::Next(after),
            Err(mismatch) if self.catalog().protocol().checks_offsets => Place::Mismatch(mismatch),
            Err(_) => {
                base.partitions.extend(append.delta.partitions.clone());
                Place::Next(base)
            }
        })
    }

    /// The checkpoint after a batch. A partition that the table doesn't know begins anywhere, unless it has begun before, and the pointer
    /// went back since: then a batch that continues it would leave out what came before.
    fn advance(&self, base: &Checkpoint, delta: &Delta) -> Result<Checkpoint, Mismatch> {
        let lost = delta.partitions.iter().filter(|(partition, _)| !base.partitions.contains_key(partition)).find_map(
            |(&partition, coverage)| {
                let table_next = *self.begun.get(&partition)?;
                (table_next < coverage.range.start).then_some(Mismatch { partition, table_next, batch: coverage.range })
            },
        );
        lost.map_or_else(|| base.advance(delta), Err)
    }

    /// The batch with that commit id, if it is in the table. Its snapshot may have been expired by now; the property outlives it until
    /// the next batch.
    fn committed(&self, commit_id: Uuid) -> Result<Option<Appended>> {
        let by_snapshot = Ancestry::of(self.metadata()).committed(commit_id).map(|snapshot| snapshot.snapshot_id());
        let by_property = || {
            let last = self.metadata().properties().get(COMMIT_ID);
            last.filter(|last| **last == commit_id.to_string()).map(|_| snapshot_id(commit_id))
        };
        let Some(snapshot_id) = by_snapshot.or_else(by_property) else { return Ok(None) };
        let checkpoint = self.checkpoint()?.unwrap_or_default();
        let metadata_location = self.version().location.clone();
        Ok(Some(Appended { snapshot_id, metadata_location, checkpoint, attempts: 0 }))
    }

    /// Writes manifest list and metadata file of the table's current version plus the batch.
    async fn attempt(
        &mut self,
        batch: &Append,
        manifest: Option<&ManifestFile>,
        checkpoint: Checkpoint,
        AttemptFiles { name, number, output }: AttemptFiles,
        merging: Merging,
    ) -> Result<Attempt> {
        let from = self.version().clone();
        let (metadata, snapshot_id) = (&from.metadata, snapshot_id(batch.commit_id));
        let directory = format!("{}/metadata", metadata.location());
        let mut files = Vec::new();
        let mut list = self.manifests().await?.as_ref().clone();
        if matches!(merging, Merging::Due) {
            let location = format!("{directory}/{name}-merged.avro");
            if self.merge_due(&mut list, &location, snapshot_id, &output).await? {
                files.push(location);
            }
        }
        if let Some(manifest) = manifest {
            list.insert(0, manifest.clone());
        }
        let marks = progress::marks(
            &checkpoint,
            &batch.delta,
            batch.commit_id,
            batch.input.as_ref(),
            &batch.summary,
            metadata.properties(),
        )?;
        let offsets_bytes = marks.summary.values().map(String::len).max().unwrap_or(0);
        let spec = manifests::partition_spec(metadata, batch.files.spec_id)?;
        // A column that the files are partitioned by may have been dropped since.
        spec.partition_type(metadata.current_schema())?;
        let previous = metadata.current_snapshot().map(AsRef::as_ref);
        let summary = summary::append(&batch.files.files, metadata.current_schema(), spec, previous, marks.summary);
        let list_location = format!("{directory}/snap-{snapshot_id}-{number}-{name}.avro");
        let (snapshot, manifests) =
            manifests::write_list(&output, metadata, snapshot_id, list_location.clone(), summary, list).await?;
        files.push(list_location);

        let kept = self.upkeep().snapshots(offsets_bytes) - 1;
        let mut dropped = Dropped::due(metadata, kept, || self.pinned())?;
        let expired = dropped.snapshot_ids();
        let builder = metadata.as_ref().clone().into_builder(Some(from.location.clone()));
        let builder = builder.set_branch_snapshot(snapshot, MAIN_BRANCH)?.set_properties(marks.properties)?;
        let builder = builder.remove_properties(&marks.removed)?.remove_snapshots(&expired);
        let builder = expired.iter().fold(builder, |builder, id| builder.remove_statistics(*id).remove_partition_statistics(*id));
        let built = builder.build()?;
        dropped.log(&built.metadata, built.expired_metadata_logs);
        let to = self.catalog().next_version(&from, built.metadata);
        self.catalog().write_version_with(&to, &output).await?;
        files.push(to.location.clone());
        Ok(Attempt { from, to, manifests, checkpoint, dropped, files })
    }

    /// Replaces manifests that are due by one; false if none are, or their columns are gone from the schema.
    async fn merge_due(&self, list: &mut Vec<ManifestFile>, location: &str, snapshot_id: i64, output: &FileIO) -> Result<bool> {
        let due = manifests::due(list, self.metadata().default_partition_spec_id(), self.upkeep());
        let input = self.catalog().file_io();
        let Some(merged) = manifests::merge(input, output, location, self.metadata(), snapshot_id, &due).await? else {
            return Ok(false);
        };
        debug!(table = %self.ident(), manifests = due.len(), "manifests merged");
        list.retain(|manifest| !due.iter().any(|due| due.manifest_path == manifest.manifest_path));
        list.push(merged);
        Ok(true)
    }
}

enum Merging {
    Due,
    Never,
}

/// The snapshot id of a batch: the same for every attempt, from its commit id.
pub(super) fn snapshot_id(commit_id: Uuid) -> i64 {
    let (high, low) = commit_id.as_u64_pair();
    ((high ^ low) & i64::MAX as u64) as i64
}

impl Prepared {
    /// Moves the pointer. Call it after the barrier was awaited. Where others were faster, the batch is put on top of what they wrote;
    /// where the answer doesn't tell, the table is asked. `table` is the one that prepared it. On a rejection the batch's files, data
    /// files too, are deleted, unless an attempt of it could still arrive at the server.
    pub async fn swap(mut self, table: &mut LakeTable) -> CommitOutcome<Appended> {
        let catalog = table.catalog().clone();
        let ident = table.ident().clone();
        let mut backoff = Backoff::new(&catalog.settings().commit_retry);
        let mut turn = Turn::default();
        loop {
            let settled = catalog.settle(&ident, &self.attempt.from, &self.attempt.to, turn, &mut backoff).await;
            self.doubtful |= settled.doubtful && catalog.protocol().keeps_files_in_doubt;
            let found = match settled.outcome {
                SwapOutcome::Committed => return CommitOutcome::Committed(self.committed(table).await),
                SwapOutcome::Unknown(error) => {
                    if !catalog.protocol().keeps_files_in_doubt {
                        self.delete_files(table).await;
                    }
                    return CommitOutcome::Unknown(error);
                }
                SwapOutcome::Rejected(Rejection::Moved { found: Some(found) }) => found,
                SwapOutcome::Rejected(rejection) => return self.rejected(table, rejection).await,
            };
            debug!(table = %ident, found, attempts = self.attempts, "another commit was faster, putting the batch on top of it");
            turn = match catalog.next_turn(&ident, &self.attempt.from, &mut backoff).await {
                Some(turn) => turn,
                None => return self.rejected(table, Rejection::Moved { found: Some(found) }).await,
            };
            if let Err(outcome) = self.rebase(table, &ident).await {
                turn.pass().await;
                return match outcome {
                    CommitOutcome::Rejected(rejection) => self.rejected(table, rejection).await,
                    outcome => outcome,
                };
            }
        }
    }

    /// Prepares the batch for the table's version of now, or ends with what was found there.
    async fn rebase(&mut self, table: &mut LakeTable, ident: &TableIdent) -> Result<(), CommitOutcome<Appended>> {
        let refused = |error| CommitOutcome::Rejected(Rejection::Refused(error));
        if !table.catalog().protocol().looks_up {
            self.batch.commit_id = Uuid::now_v7();
        }
        table.refresh().await.map_err(refused)?;
        let checkpoint = match table.place(&self.batch).map_err(refused)? {
            Place::Next(checkpoint) => checkpoint,
            Place::Committed(appended) => {
                info!(table = %ident, commit_id = %self.batch.commit_id, "a commit without an answer was found in the table");
                // Was it another preparation of the batch that landed, with files of its own? Its list bears another name.
                let landed = table.metadata().snapshot_by_id(appended.snapshot_id);
                if !self.doubtful && landed.is_some_and(|landed| !landed.manifest_list().contains(&self.name.to_string())) {
                    self.delete_files(table).await;
                }
                return Err(CommitOutcome::Committed(Appended { attempts: self.attempts, ..appended }));
            }
            Place::Mismatch(mismatch) => return Err(CommitOutcome::Rejected(Rejection::Offsets(mismatch))),
        };
        self.attempts += 1;
        let barrier = CloseBarrier::new();
        let output = table.catalog().storages().file_io_deferred(&barrier);
        let files = AttemptFiles { name: self.name, number: self.attempts, output };
        let manifest = self.manifest.as_ref();
        let attempt = table.attempt(&self.batch, manifest, checkpoint, files, Merging::Never).await.map_err(refused)?;
        let earlier = std::mem::replace(&mut self.attempt, attempt);
        barrier.wait().await.map_err(|error| refused(error.into()))?;
        if !self.doubtful {
            delete(table, &earlier.files).await;
        }
        Ok(())
    }

    async fn committed(self, table: &mut LakeTable) -> Appended {
        let Attempt { to, manifests, checkpoint, dropped, .. } = self.attempt;
        let snapshot_id = snapshot_id(self.batch.commit_id);
        let metadata_location = to.location.clone();
        table.adopt(to, snapshot_id, manifests);
        let catalog = table.catalog();
        dropped.delete(catalog.storages(), catalog.file_io(), table.metadata()).await;
        Appended { snapshot_id, metadata_location, checkpoint, attempts: self.attempts }
    }

    async fn rejected(self, table: &LakeTable, rejection: Rejection) -> CommitOutcome<Appended> {
        if self.doubtful {
            // An attempt that nobody has an answer to could still arrive, and would then own these files.
            info!(table = %table.ident(), "a batch was refused after an attempt without an answer: its files stay");
        } else {
            self.discard(table).await;
        }
        CommitOutcome::Rejected(rejection)
    }

    /// Deletes everything that was written for the batch: call it instead of [`Self::swap`] when the barrier failed.
    pub async fn discard(self, table: &LakeTable) {
        self.delete_files(table).await;
    }

    async fn delete_files(&self, table: &LakeTable) {
        delete(table, &self.attempt.files).await;
        delete(table, self.manifest.iter().map(|manifest| &manifest.manifest_path)).await;
        delete_files(table.catalog().storages(), &self.batch.files.files).await;
    }
}

async fn delete(table: &LakeTable, files: impl IntoIterator<Item = &String>) {
    for file in files {
        if let Err(error) = table.catalog().storages().delete_file(file).await {
            debug!(file, %error, "a file of a refused commit could not be deleted");
        }
    }
}
