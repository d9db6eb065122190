//! How silver stands to bronze, and how it gets level again.
//!
//! Silver's input is always [silver.next, bronze.next). While both are level, it takes batches from memory in bronze's own cycle
//! (*live*). Otherwise a task of its own reads what is missing from the bronze table (*catching up*), while bronze goes on. The last step,
//! when little is missing, runs between two cycles, so that both are level at a cycle's boundary and silver is live again.
//!
//! *Failure*: an error of silver never stops bronze, because Kafka's retention won't wait. What may pass is tried again with pauses;
//! anything else leaves silver stopped until its table has another schema (a column that was renamed is back) or a restart, and is the run's
//! result when it ends.

use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::redefine::{APPLY, misfit};
use super::share::Share;
use super::silver_stage::{CommittedRows, SilverParts, SilverStage};
use super::watch::LOOK_EVERY;
use crate::bronze::BronzeTable;
use crate::error::{Error, Kind, Result};
use crate::retry::Backoff;
use crate::silver::SilverTable;

/// Silver's relation to bronze.
pub(super) enum SilverState {
    /// Level with bronze, or ahead of it (then it ignores what it has), or short of what bronze does not have yet either.
    Live(Box<SilverStage>),
    /// Reading what it lacks from bronze.
    CatchingUp(JoinHandle<(Box<SilverStage>, Result<()>)>),
    /// Failed in a way that may pass; opened again at the given time.
    Waiting { until: Instant },
    /// Stopped by this error, for good unless the table's schema changes.
    Stopped(Error),
    /// Between two states; only seen if a task panicked.
    Moving,
}

/// Silver with what is needed to open it again.
pub(super) struct Silver {
    pub state: SilverState,
    pub(super) parts: SilverParts,
    /// Ends the catch-up after the step under way.
    rest: CancellationToken,
    backoff: Backoff,
    retry: crate::retry::RetrySettings,
    gold: Vec<mpsc::Sender<CommittedRows>>,
    /// While it is stopped: when its table was looked at last, and the schema that it had.
    looked: Option<(Instant, i32)>,
}

impl Silver {
    /// Completes what a crash between silver's and rejected's commit left out, and brings silver level with bronze or on its way there.
    pub async fn open(
        mut stage: SilverStage,
        bronze: &BronzeTable,
        retry: &crate::retry::RetrySettings,
        gold: Vec<mpsc::Sender<CommittedRows>>,
    ) -> Result<Self> {
        let parts = stage.parts().clone();
        stage.complete_rejected(bronze).await?;
        let state = SilverState::Live(Box::new(stage));
        let rest = parts.shutdown.child_token();
        let mut silver = Self { state, parts, rest, backoff: Backoff::new(retry), retry: retry.clone(), gold, looked: None };
        silver.settle(bronze, Patience::Cycle).await;
        Ok(silver)
    }

    /// The stage when it takes batches from memory. Not while rejected is not in step with it: then it takes them from bronze.
    pub fn live(&mut self) -> Option<&mut SilverStage> {
        self.stage().filter(|stage| stage.in_step().unwrap_or(false))
    }

    /// The stage while no task of its own has it.
    pub fn stage(&mut self) -> Option<&mut SilverStage> {
        match &mut self.state {
            SilverState::Live(stage) => Some(stage),
            _ => None,
        }
    }

    /// After a commit: earlier failures count no more, and gold is handed the rows. A maintainer that is busy reads them from the table
    /// later.
    pub fn committed(&mut self, rows: CommittedRows) {
        self.backoff = Backoff::new(&self.retry);
        tell(&self.gold, rows);
    }

    /// Waits until no catch-up is under way.
    pub async fn rest(&mut self) {
        if !matches!(self.state, SilverState::CatchingUp(_)) {
            return;
        }
        self.rest.cancel();
        if let SilverState::CatchingUp(task) = std::mem::replace(&mut self.state, SilverState::Moving) {
            match task.await {
                Ok((stage, Ok(()))) => self.state = SilverState::Live(stage),
                Ok((_, Err(failure))) => self.fail(failure),
                Err(panic) => self.state = stopped(Error::failed("silver's catch-up panicked").caused_by(panic)),
            }
        }
        self.rest = self.parts.shutdown.child_token();
    }

    /// Takes over partitions of which nothing is read yet: what their earlier owner left undone comes first. Call it at rest.
    pub async fn take_over(&mut self, share: Share, bronze: &BronzeTable) {
        self.give_up(share);
        // Also one whose rejected is behind: it was opened while the earlier owner stood between its two commits.
        if let Some(stage) = self.stage() {
            let completed = async {
                stage.refresh().await?;
                stage.complete_rejected(bronze).await
            };
            if let Err(failure) = completed.await {
                self.fail(failure);
            }
        }
        self.settle(bronze, Patience::Cycle).await;
    }

    /// From here on only the partitions of this share are looked after. Call it at rest.
    pub fn give_up(&mut self, share: Share) {
        self.parts.share = share.clone();
        if let Some(stage) = self.stage() {
            stage.take_share(share);
        }
    }

    /// Puts silver aside after an error; bronze goes on.
    pub fn fail(&mut self, failure: Error) {
        self.looked = None;
        let stage = self.stage().filter(|_| failure.kind() != Kind::Transient);
        let failure = match stage.map(|stage| misfit(&stage.silver, &stage.parts.plan)) {
            Some(Ok(Some(steps))) => failure.hint(format!("the table fits the pipeline file after: {steps}; {APPLY}")),
            _ => failure,
        };
        self.state = match failure.kind() {
            Kind::Transient => match self.backoff.pause() {
                Some(pause) => {
                    warn!(error = %failure.chain(), retry_in_ms = pause.as_millis() as u64, "silver failed, bronze goes on");
                    SilverState::Waiting { until: Instant::now() + pause }
                }
                None => stopped(failure.context("silver failed too often")),
            },
            _ => stopped(failure),
        };
    }

    /// At a cycle's boundary: moves on from whatever state silver is in. With [`Patience::UntilLevel`] it returns only when silver is
    /// level with bronze or stopped.
    pub async fn settle(&mut self, bronze: &BronzeTable, patience: Patience) {
        loop {
            if self.parts.shutdown.is_cancelled() {
                return;
            }
            let state = std::mem::replace(&mut self.state, SilverState::Moving);
            self.state = match state {
                SilverState::Live(stage) => match self.level(stage, bronze, patience).await {
                    Ok(state) => state,
                    Err(failure) => {
                        self.fail(failure);
                        continue;
                    }
                },
                SilverState::CatchingUp(task) if patience == Patience::UntilLevel || task.is_finished() => match task.await {
                    Ok((stage, Ok(()))) => {
                        self.backoff = Backoff::new(&self.retry);
                        SilverState::Live(stage)
                    }
                    Ok((_, Err(failure))) => {
                        self.fail(failure);
                        continue;
                    }
                    Err(panic) => stopped(Error::failed("silver's catch-up panicked").caused_by(panic)),
                },
                SilverState::Waiting { until } if patience == Patience::UntilLevel || Instant::now() >= until => {
                    crate::retry::sleep(until.saturating_duration_since(Instant::now())).await;
                    match self.reopen(bronze).await {
                        Ok(stage) => SilverState::Live(stage),
                        Err(failure) => {
                            self.fail(failure);
                            continue;
                        }
                    }
                }
                SilverState::Moving => stopped(Error::failed("silver was lost in a failed task")),
                SilverState::Stopped(_) if patience == Patience::Cycle && self.has_another_schema().await => {
                    info!("silver's table has another schema than when silver stopped; trying again");
                    SilverState::Waiting { until: Instant::now() }
                }
                settled => {
                    self.state = settled;
                    return;
                }
            };
            match &self.state {
                SilverState::Live(stage) if !lacks_input(stage, bronze) => return,
                SilverState::CatchingUp(_) if patience == Patience::Cycle => return,
                SilverState::Stopped(_) => return,
                _ => {}
            }
        }
    }

    /// Whether the table's schema changed since silver stopped. Not asked at every call; where there is no answer, it did not.
    async fn has_another_schema(&mut self) -> bool {
        if self.looked.is_some_and(|(at, _)| at.elapsed() < LOOK_EVERY) {
            return false;
        }
        let opened = SilverTable::open_spec(&self.parts.catalog, &self.parts.silver).await;
        let Some(found) = opened.ok().flatten().and_then(|table| Some(table.lake()?.metadata().current_schema_id())) else {
            return false;
        };
        self.looked.replace((Instant::now(), found)).is_some_and(|(_, before)| before != found)
    }

    async fn reopen(&self, bronze: &BronzeTable) -> Result<Box<SilverStage>> {
        let mut stage = SilverStage::open(self.parts.clone()).await?;
        stage.complete_rejected(bronze).await?;
        Ok(Box::new(stage))
    }

    /// Keeps a stage live, brings it level by a last short step, or sends it to catch up in a task of its own.
    async fn level(&mut self, mut stage: Box<SilverStage>, bronze: &BronzeTable, patience: Patience) -> Result<SilverState> {
        stage.complete_rejected(bronze).await?;
        let lacking: i64 = stage.lacking(bronze)?.values().map(|range| range.len()).sum();
        if lacking == 0 {
            return Ok(SilverState::Live(stage));
        }
        if lacking <= self.parts.catch_up_records || patience == Patience::UntilLevel {
            if let Some(rows) = stage.catch_up(bronze).await? {
                self.committed(rows);
            }
            return Ok(SilverState::Live(stage));
        }
        info!(records = lacking, "silver is behind bronze and catches up from it");
        let (bronze, gold, shutdown) = (bronze.clone(), self.gold.clone(), self.rest.clone());
        // On a thread of its own: decoding and encoding would hold up the runtime's.
        let runtime = tokio::runtime::Handle::current();
        Ok(SilverState::CatchingUp(tokio::task::spawn_blocking(move || {
            runtime.block_on(catch_up_all(stage, bronze, gold, shutdown))
        })))
    }

    /// The error that stopped silver, if one did.
    pub fn into_result(self) -> Result<()> {
        match self.state {
            SilverState::Stopped(failure) => Err(failure),
            _ => Ok(()),
        }
    }
}

/// How long [`Silver::settle`] may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Not longer than a short step: bronze's next cycle waits.
    Cycle,
    /// As long as it takes.
    UntilLevel,
}

/// Steps of catching up until nothing is missing.
async fn catch_up_all(
    mut stage: Box<SilverStage>,
    bronze: BronzeTable,
    gold: Vec<mpsc::Sender<CommittedRows>>,
    shutdown: CancellationToken,
) -> (Box<SilverStage>, Result<()>) {
    loop {
        if shutdown.is_cancelled() {
            return (stage, Ok(()));
        }
        match stage.catch_up(&bronze).await {
            Ok(Some(rows)) => tell(&gold, rows),
            Ok(None) => return (stage, Ok(())),
            Err(failure) => return (stage, Err(failure)),
        }
    }
}

/// Whether another step would bring the stage nearer to bronze.
fn lacks_input(stage: &SilverStage, bronze: &BronzeTable) -> bool {
    match (stage.lacking(bronze), stage.lacks_rejected()) {
        (Ok(lacking), Ok(false)) => !lacking.is_empty(),
        _ => false,
    }
}

fn stopped(failure: Error) -> SilverState {
    error!(error = %failure.chain(), hint = failure.hint_text(), "silver is stopped, bronze goes on");
    SilverState::Stopped(failure)
}

fn tell(gold: &[mpsc::Sender<CommittedRows>], rows: CommittedRows) {
    for maintainer in gold {
        // A full queue is no error: the maintainer sees the gap in the offsets and reads silver's table.
        let _ = maintainer.try_send(rows.clone());
    }
}
