//! One session: from open tables to the end of the run, or to an error after which the tables must be read again.
//!
//! The session owns the source and bronze; silver has a state of its own, gold a task of its own. Cycle after cycle it fills files while
//! records arrive, closes them all at one barrier, and swaps the pointers in order: bronze, silver, rejected.
//!
//! *Failure*: whatever fails before bronze's swap leaves the tables as they were; the supervisor opens a new session, which reads the
//! same offsets again. After bronze's swap an error belongs to silver (see [`super::silver_state`]).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::commit::{Ready, signature};
use super::cycle::{BronzeFiles, FilledCycle, OpenCycle};
use super::lead::Lead;
use super::positions::{distance, reached};
use super::redefine::{DefinitionWatch, SessionEnd};
use super::settings::PipelineSettings;
use super::share::Share;
use super::silver_stage::{CommittedRows, SilverReady};
use super::silver_state::{Patience, Silver};
use super::tally::Tally;
use super::watch::Idle;
use crate::bronze::BronzeTable;
use crate::checkpoint::{Delta, PartitionId};
use crate::completeness::Sighting;
use crate::error::{Context, Result};
use crate::retry::with_deadline;
use crate::source::{Change, PollLimits, Source, now_us};
use crate::storage::CloseBarrier;
use crate::table::{Append, Origin, WRITER, WriterSettings};
use crate::window::Window;

/// The wait for a first record; short, so that new partitions and the end of a bounded run are noticed.
const IDLE_WAIT: Duration = Duration::from_millis(500);
/// Not shorter, however often a pipeline commits: an idle daemon has nothing to do.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);

/// The lag stands in the log line of a commit; it is not worth a longer wait.
pub(super) const LAG_WAIT: Duration = Duration::from_secs(1);

/// Why a cycle ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CycleEnd {
    /// Interval or size: the next cycle follows.
    Due,
    /// All that was asked for has been read, or shutdown was requested: the last cycle.
    Last,
    /// Partitions change hands: what was read is committed first.
    Change,
    /// Partitions were lost: what was read is dropped.
    Lost,
}

pub(super) struct Session<'a> {
    pub settings: &'a PipelineSettings,
    pub source: Box<dyn Source>,
    pub origin: Origin,
    pub bronze: BronzeTable,
    pub bronze_writer: WriterSettings,
    pub silver: Silver,
    pub tally: Tally,
    pub shutdown: CancellationToken,
    /// Where reading ends; none for a daemon.
    pub ends: Option<BTreeMap<PartitionId, i64>>,
    /// When the source was last looked at for the time alone.
    pub looked: Option<Instant>,
    /// The partitions that are this process's.
    pub share: Share,
    /// The group has given this process a share, be it empty; always true without a group.
    pub joined: bool,
    /// Which of them wait for others.
    pub lead: Lead,
    /// What may give it another definition.
    pub definition: DefinitionWatch,
    /// When the tables were last looked at for their places alone.
    pub watched: Instant,
}

impl Session<'_> {
    /// Runs until everything asked for is committed, or shutdown, or another definition.
    pub async fn run(&mut self) -> Result<SessionEnd> {
        loop {
            let (cycle, end) = self.fill().await?;
            match cycle {
                Some((cycle, _)) if end == CycleEnd::Lost => self.drop_cycle(cycle).await,
                Some((cycle, sighting)) => {
                    let delta = cycle.delta.clone();
                    if let Err(failure) = self.commit(cycle, sighting.as_ref()).await {
                        self.resume(&delta, failure).await?;
                    }
                }
                None => {}
            }
            if matches!(end, CycleEnd::Change | CycleEnd::Lost) {
                if let Some(change) = self.source.change() {
                    self.forget_lead().await?;
                    self.hand_over(change).await?;
                }
                continue;
            }
            let has_other_columns = self.adopt_fields().await;
            if end == CycleEnd::Last {
                if !self.shutdown.is_cancelled() {
                    self.silver.settle(&self.bronze, Patience::UntilLevel).await;
                    self.state_when_idle().await;
                }
                return Ok(SessionEnd::Done);
            }
            if has_other_columns {
                return Ok(SessionEnd::Redefined(Box::new(self.definition.file().clone())));
            }
            if let Some(next) = self.redefined().await {
                return Ok(SessionEnd::Redefined(Box::new(next)));
            }
            self.silver.settle(&self.bronze, Patience::Cycle).await;
        }
    }

    /// Takes batches until the cycle is due. No cycle is opened before the first batch has arrived.
    async fn fill(&mut self) -> Result<(Option<(FilledCycle, Option<Sighting>)>, CycleEnd)> {
        let mut cycle: Option<OpenCycle> = None;
        let end = loop {
            if self.shutdown.is_cancelled() || self.all_read() {
                break CycleEnd::Last;
            }
            let wait = match &mut cycle {
                Some(open) if open.bytes >= self.settings.commit_bytes.as_u64() => break CycleEnd::Due,
                Some(open) => match open.due.wait(Instant::now()) {
                    wait if wait.is_zero() && !self.definition.is_asked() && open.put_off() => open.due.wait(Instant::now()),
                    wait => wait,
                },
                // What comes meanwhile is in the first batch, and its wait counts: the cycle must not be longer for it.
                None => self.settings.commit_interval.clamp(SHORTEST_WAIT, IDLE_WAIT),
            };
            if wait.is_zero() {
                break CycleEnd::Due;
            }
            // Whoever waits goes on soon after the others have nothing more.
            let wait = if self.lead.paused().is_empty() { wait } else { wait.min(IDLE_WAIT) };
            let asked = Instant::now();
            let limits = PollLimits {
                max_rows: self.settings.batch_rows,
                max_bytes: self.settings.batch_bytes.as_u64() as usize,
                max_wait: wait,
            };
            let polled = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break CycleEnd::Last,
                polled = self.source.poll(&limits) => polled?,
            };
            self.lead.polled(asked.elapsed(), polled.as_ref(), now_us() / 1_000)?;
            let Some(batch) = polled else {
                match self.source.change() {
                    Some(Change::Lost(_)) => break CycleEnd::Lost,
                    Some(_) => break CycleEnd::Change,
                    None => self.keep_together().await?,
                }
                if cycle.is_none() {
                    if self.idle().await? == Idle::Over {
                        break CycleEnd::Due;
                    }
                } else if self.definition.is_asked() {
                    break CycleEnd::Due;
                }
                continue;
            };
            self.tally.read(batch.records.num_rows() as u64);
            let open = match &mut cycle {
                Some(open) => open,
                None => cycle.insert(self.open_cycle()?),
            };
            if open.records() == 0 && batch.records.num_rows() > 0 {
                // The first record came while it was asked for, and the time since then counts. A batch without records, which names
                // partitions that begin, waits for some as long as it may.
                open.due.count_from(asked);
            }
            if !open.push(batch).await? {
                break CycleEnd::Due;
            }
            self.keep_together().await?;
        };
        let filled = match cycle {
            Some(open) => {
                // Looked at now, so that a partition whose end was reached counts as of now.
                let (filled, sighting) = tokio::join!(open.finish(), self.sighting());
                Some((filled?, sighting))
            }
            None => None,
        };
        Ok((filled, end))
    }

    /// Whether everything was read that a bounded run is to read, of the partitions that are this process's.
    fn all_read(&self) -> bool {
        let Some(ends) = &self.ends else { return false };
        self.joined && reached(&self.source.positions(), &self.share.of(ends.clone()))
    }

    /// Deletes the files of a cycle that must not be committed.
    async fn drop_cycle(&mut self, cycle: FilledCycle) {
        // Half-closed files could not be deleted.
        let _ = cycle.barrier.wait().await;
        self.bronze.discard(&cycle.bronze.files).await;
        if let (Some(Ok(files)), Some(stage)) = (cycle.silver, self.silver.live()) {
            stage.silver.discard(&files.silver).await;
            stage.rejected.discard(&files.rejected).await;
        }
        self.tally.reload();
    }

    /// Others commit to the tables too: what they did since is looked at before rather than after a swap that would lose to it.
    async fn look_again(&mut self) -> Result<()> {
        let stage = async {
            match self.silver.live() {
                Some(stage) => stage.refresh().await,
                None => Ok(()),
            }
        };
        let (bronze, stage) = tokio::join!(self.bronze.refresh(), stage);
        if let Err(failure) = stage {
            self.silver.fail(failure);
        }
        bronze
    }

    fn open_cycle(&mut self) -> Result<OpenCycle> {
        let barrier = CloseBarrier::new();
        let workers = 0..self.settings.workers;
        let bronze = workers.clone().take(self.bronze.writers_max());
        let bronze = bronze.map(|_| self.bronze.writer(&self.bronze_writer, &barrier)).collect::<Result<_>>()?;
        let silver = match self.silver.live() {
            Some(stage) => {
                let encoders =
                    workers.take(stage.silver.writers_max()).map(|_| stage.encoder(&barrier)).collect::<Result<_>>()?;
                Some((encoders, stage.checkpoint()?.next_offsets()))
            }
            None => None,
        };
        Ok(OpenCycle::open(barrier, self.settings.rhythm(), bronze, silver))
    }

    /// Writes the metadata of all tables, closes all files at once, and swaps the pointers in order.
    async fn commit(&mut self, cycle: FilledCycle, sighting: Option<&Sighting>) -> Result<()> {
        let FilledCycle { barrier, delta, highest_ms, bronze, silver } = cycle;
        Window::BronzeFilesWritten.pass();
        let commit_id = Uuid::now_v7();
        if self.share.is_shared() {
            self.look_again().await?;
        }
        let silver_ranges = self.silver_ranges(&delta)?;
        let completeness = self.completeness_after(&delta, &highest_ms, sighting)?;
        let silver_until_ms = self.silver_until_ms(&silver_ranges, &delta, &completeness)?;
        let silver_files = match silver {
            None => None,
            Some(Ok(files)) => Some(files),
            Some(Err(failure)) => {
                self.silver.fail(failure);
                None
            }
        };
        let Self { bronze: table, silver: silver_layer, origin, .. } = self;
        let mut notes = completeness.notes();
        notes.insert(WRITER.to_owned(), signature(&self.settings.name));
        let BronzeFiles { files, busy } = bronze;
        let batch = Append { files, delta, origin: origin.clone(), commit_id, input: None, summary: notes };
        let bronze_ready = async {
            let started = Instant::now();
            Ok(Ready::prepare(table, batch, &barrier).await?.took(busy + started.elapsed()))
        };
        let silver_ready = async {
            match (silver_files, silver_layer.live()) {
                (Some(files), Some(stage)) if !silver_ranges.is_empty() => {
                    Some(stage.prepare(files, &silver_ranges, silver_until_ms, commit_id, &barrier).await)
                }
                _ => None,
            }
        };
        let (bronze_ready, silver_ready) = tokio::join!(bronze_ready, silver_ready);
        let closed = barrier.wait().await.context("files of a cycle could not be closed");
        let bronze_ready = match (bronze_ready, closed) {
            (Ok(ready), Ok(())) => ready,
            (ready, closed) => {
                // Nothing was swapped: the attempt's files belong to nobody.
                self.discard_silver(silver_ready).await;
                return match ready {
                    Ok(ready) => {
                        ready.discard(&self.bronze).await;
                        closed
                    }
                    Err(failure) => Err(failure),
                };
            }
        };
        Window::BronzeMetadataWritten.pass();
        match bronze_ready.swap(&mut self.bronze).await {
            Ok(line) => {
                Window::BronzeSwapped.pass();
                line.tell(&self.tally, self.lag().await);
            }
            Err(failure) => {
                self.discard_silver(silver_ready).await;
                return Err(failure);
            }
        }
        self.commit_silver(silver_ready).await;
        let committed = self.bronze.checkpoint()?.unwrap_or_default().next_offsets();
        self.source.mark_committed(&self.share.of(committed));
        Ok(())
    }

    async fn commit_silver(&mut self, ready: Option<Result<SilverReady>>) {
        let swapped = match (ready, self.silver.live()) {
            (Some(Ok(ready)), Some(stage)) => stage.swap(ready).await,
            (Some(Err(failure)), _) => Err(failure),
            _ => return,
        };
        match swapped {
            Ok(rows) => self.silver.committed(CommittedRows { paused: self.lead.paused().clone(), ..rows }),
            Err(failure) => self.silver.fail(failure),
        }
    }

    async fn discard_silver(&mut self, ready: Option<Result<SilverReady>>) {
        if let (Some(Ok(ready)), Some(stage)) = (ready, self.silver.live()) {
            stage.discard(ready).await;
        }
    }

    /// What silver takes of a delta: what lies beyond where it is.
    fn silver_ranges(&mut self, delta: &Delta) -> Result<BTreeMap<PartitionId, crate::checkpoint::OffsetRange>> {
        let Some(stage) = self.silver.live() else { return Ok(BTreeMap::new()) };
        let next = stage.checkpoint()?.next_offsets();
        Ok(delta
            .ranges()
            .into_iter()
            .map(|(partition, mut range)| {
                range.start = range.start.max(next.get(&partition).copied().unwrap_or(i64::MIN));
                (partition, range)
            })
            .filter(|(_, range)| !range.is_empty())
            .collect())
    }

    /// Records that wait in the source; none if it doesn't say so soon.
    async fn lag(&self) -> Option<u64> {
        let watermarks = with_deadline("the source", LAG_WAIT, self.source.watermarks()).await.ok()?.ok()?;
        let ends = watermarks.into_iter().map(|(partition, range)| (partition, range.end)).collect();
        Some(distance(&self.source.positions(), &self.share.of(ends)))
    }
}
