//! Gold runs beside the cycles: one task per gold table takes committed silver rows and refreshes the table.
//!
//! In a group every process has such a task for each table, and one of them is the maintainer; the others stand by until it is gone. It
//! counts what the others commit to silver from silver's table, before each refresh.
//!
//! *Invariants*: a maintainer is given committed silver only. Rows in its queue are a cache: when some were dropped (the queue was full, or
//! silver caught up while gold was away), it sees the gap in the offsets and reads silver's table instead.
//!
//! *Failure*: an error of gold stops neither bronze nor silver. What may pass is tried again with pauses. A table that has, or is to have,
//! another definition is waited for, and the pipeline file is read again (see [`super::redefine`]). Anything else stops this gold table until
//! a restart, and is the run's result when it ends.

use std::time::{Duration, Instant, SystemTime};

use iceberg::TableIdent;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::redefine::Reload;
use super::settings::PipelineSettings;
use super::silver_stage::CommittedRows;
use super::tally::{CommitStats, Tally};
use super::watch::LOOK_EVERY;
use crate::catalog::{HiveCatalog, Lakehouse};
use crate::error::{Context, Error, Kind, Result};
use crate::gold::window::display_instant;
use crate::gold::{CatchUp, GoldMaintainer, GoldPlan, OtherDefinition, RefreshReport, Update, WorkGranted};
use crate::retry::{Backoff, RetrySettings};
use crate::silver::SilverTable;
use crate::table::TableFormat;

/// Commits of silver that may wait for gold; each holds the columns that gold reads of one cycle.
const QUEUE_COMMITS: usize = 2;

/// How long a daemon that leaves still waits to become a table's maintainer.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Between two refreshes that compute partitions again by another definition; rows that come are counted meanwhile.
const REDEFINITION_PAUSE: Duration = Duration::from_millis(100);

/// Who else may want to maintain the gold tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seat {
    /// Nobody should: another maintainer is a mistake, or an earlier process that ends.
    Own,
    /// The other processes of the group.
    Shared,
}

/// Gold tasks of a session before they run.
pub(super) struct GoldSeats {
    plans: Vec<(GoldPlan, mpsc::Receiver<CommittedRows>)>,
    retry: RetrySettings,
    completeness_interval: Duration,
    database: String,
    seat: Seat,
    reload: Option<Reload>,
}

/// The running gold tasks of a session.
pub(super) struct GoldTasks {
    tasks: Vec<JoinHandle<Result<()>>>,
    /// Ends the tasks without a last refresh.
    abandon: CancellationToken,
}

/// Makes the queues through which silver reaches gold.
pub(super) fn prepare(
    plans: Vec<GoldPlan>,
    database: &str,
    settings: &PipelineSettings,
    seat: Seat,
    reload: Option<Reload>,
) -> (GoldSeats, Vec<mpsc::Sender<CommittedRows>>) {
    let mut senders = Vec::new();
    let mut seats = Vec::new();
    for plan in plans {
        let (sender, receiver) = mpsc::channel(QUEUE_COMMITS);
        senders.push(sender);
        seats.push((plan, receiver));
    }
    let (retry, completeness_interval) = (settings.retry.clone(), settings.completeness_interval);
    (GoldSeats { plans: seats, retry, completeness_interval, database: database.to_owned(), seat, reload }, senders)
}

impl GoldSeats {
    /// Starts a task for each gold table. Silver's table must exist.
    pub fn start(
        self,
        lakehouse: &Lakehouse,
        (silver, silver_format): (&TableIdent, TableFormat),
        shutdown: &CancellationToken,
        tally: &Tally,
    ) -> GoldTasks {
        let abandon = CancellationToken::new();
        let tasks = self.plans.into_iter().map(|(plan, queue)| {
            let table = format!("{}.{}", self.database, plan.settings().table);
            tally.layer("gold", &table);
            let task = GoldTask {
                catalog: lakehouse.catalog().clone(),
                database: self.database.clone(),
                silver: silver.clone(),
                silver_format,
                table,
                plan,
                completeness_interval: self.completeness_interval,
                seat: self.seat,
                reload: self.reload.clone(),
                tally: tally.clone(),
                abandon: abandon.clone(),
                shutdown: shutdown.clone(),
            };
            // On a thread of its own: counting would hold up the runtime's.
            let (runtime, retry) = (tokio::runtime::Handle::current(), self.retry.clone());
            tokio::task::spawn_blocking(move || runtime.block_on(task.supervise(queue, retry)))
        });
        GoldTasks { tasks: tasks.collect(), abandon }
    }
}

impl GoldTasks {
    /// Waits for the tasks to end. With [`Ending::Refresh`] each first counts everything that silver has and refreshes; silver's side of the
    /// queues must be closed by then.
    pub async fn finish(self, ending: Ending) -> Result<()> {
        if ending == Ending::Abandon {
            self.abandon.cancel();
        }
        let mut first = Ok(());
        for task in self.tasks {
            let ended =
                task.await.map_err(|error| Error::failed("a gold task panicked").caused_by(error)).and_then(|ended| ended);
            if first.is_ok() {
                first = ended;
            }
        }
        first
    }
}

/// How gold ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Refresh,
    Abandon,
}

struct GoldTask {
    catalog: HiveCatalog,
    database: String,
    silver: TableIdent,
    silver_format: TableFormat,
    table: String,
    plan: GoldPlan,
    completeness_interval: Duration,
    seat: Seat,
    reload: Option<Reload>,
    tally: Tally,
    abandon: CancellationToken,
    shutdown: CancellationToken,
}

impl GoldTask {
    /// Maintains the table until the queue ends, opening it again after what may pass.
    async fn supervise(self, mut queue: mpsc::Receiver<CommittedRows>, retry: RetrySettings) -> Result<()> {
        let mut backoff = Backoff::new(&retry);
        let mut waits = false;
        loop {
            let began = Instant::now();
            let failure = match self.maintain(&mut queue).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            if self.abandon.is_cancelled() {
                return Err(failure);
            }
            if let Some(reload) = self.reload.as_ref().filter(|_| failure.has_cause::<OtherDefinition>()) {
                if !waits {
                    warn!(table = %self.table, error = %failure.chain(), hint = failure.hint_text(), "gold waits, silver goes on");
                }
                waits = true;
                reload.ask_for_gold();
                tokio::select! {
                    () = crate::retry::sleep(LOOK_EVERY) => continue,
                    () = self.abandon.cancelled() => return Err(failure),
                    // Nothing comes any more. Rows that came are read from the table later.
                    () = async { while queue.recv().await.is_some() {} } => return Err(failure),
                }
            }
            waits = false;
            if failure.kind() != Kind::Transient {
                error!(table = %self.table, error = %failure.chain(), hint = failure.hint_text(), "gold is stopped, silver goes on");
                return Err(failure);
            }
            if began.elapsed() > retry.max_delay {
                backoff = Backoff::new(&retry);
            }
            let Some(pause) = backoff.pause() else {
                let failure = failure.context(format!("gold table {} failed too often", self.table));
                error!(table = %self.table, error = %failure.chain(), "gold is stopped, silver goes on");
                return Err(failure);
            };
            if failure.has_cause::<WorkGranted>() {
                info!(table = %self.table, "gold is opened again, to compute what it was told to");
            } else {
                warn!(table = %self.table, error = %failure.chain(), retry_in_ms = pause.as_millis() as u64, "gold failed and is opened again");
            }
            tokio::select! {
                () = crate::retry::sleep(pause) => {}
                () = self.abandon.cancelled() => return Err(failure),
            }
        }
    }

    async fn maintain(&self, queue: &mut mpsc::Receiver<CommittedRows>) -> Result<()> {
        let Some(mut silver) = SilverTable::open(&self.catalog, &self.silver, self.silver_format).await? else {
            return Err(Error::transient(format!("table {} does not exist yet", self.silver)));
        };
        let (metastore, storages) = (self.catalog.metastore(), self.catalog.storages());
        let open = async {
            match self.seat {
                Seat::Own => GoldMaintainer::open(self.plan.clone(), &self.database, metastore, storages, &silver).await,
                Seat::Shared => GoldMaintainer::stand_by(self.plan.clone(), &self.database, metastore, storages, &silver).await,
            }
        };
        let overdue = async {
            match self.seat {
                Seat::Own => self.shutdown.cancelled().await,
                // Who stands by has no use for rows: they will be read from the table.
                Seat::Shared => while queue.recv().await.is_some() {},
            }
            crate::retry::sleep(LAST_WAIT).await;
        };
        let mut maintainer = tokio::select! {
            opened = open => opened?.with_completeness_interval(self.completeness_interval),
            () = self.abandon.cancelled() => return Ok(()),
            // Another process maintains the table: it counts what silver has got.
            () = overdue => return Ok(()),
        };
        let ran = self.take_rows(&mut maintainer, &mut silver, queue).await;
        let ran = match (ran, self.seat) {
            (Err(fenced), Seat::Shared) if maintainer.is_fenced() => {
                Err(Error::transient("another daemon of the group has become the maintainer").caused_by(fenced))
            }
            (ran, _) => ran,
        };
        let closed = maintainer.close().await.with_context(|| format!("the lock of gold table {} was not released", self.table));
        ran.and(closed)
    }

    /// Counts rows as they come, and refreshes at the interval; at the end of the queue once more.
    async fn take_rows(
        &self,
        maintainer: &mut GoldMaintainer,
        silver: &mut SilverTable,
        queue: &mut mpsc::Receiver<CommittedRows>,
    ) -> Result<()> {
        let mut waiting = false;
        self.catch_up(maintainer, silver, &mut waiting).await?;
        let mut due = tokio::time::interval(self.plan.settings().refresh_interval);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.abandon.cancelled() => return Ok(()),
                rows = queue.recv() => match rows {
                    None => break,
                    Some(rows) => {
                        self.count(maintainer, silver, rows, &mut waiting).await?;
                        if maintainer.is_full() {
                            self.refresh(maintainer, silver).await?;
                        }
                    }
                },
                _ = due.tick() => {
                    // Rows that the queue had no room for are only in the table.
                    self.catch_up(maintainer, silver, &mut waiting).await?;
                    self.refresh(maintainer, silver).await?;
                    if maintainer.is_redefining() {
                        due.reset_after(REDEFINITION_PAUSE);
                    }
                }
            }
        }
        self.catch_up(maintainer, silver, &mut waiting).await?;
        self.refresh(maintainer, silver).await
    }

    async fn count(
        &self,
        maintainer: &mut GoldMaintainer,
        silver: &mut SilverTable,
        committed: CommittedRows,
        waiting: &mut bool,
    ) -> Result<()> {
        if committed.delta.partitions.keys().any(|partition| !maintainer.positions().contains_key(partition)) {
            // Where a partition begins only silver's table says: another writer may have committed to it before.
            return self.catch_up(maintainer, silver, waiting).await;
        }
        let started = Instant::now();
        let rows = match committed.rows.first() {
            Some(first) => arrow::compute::concat_batches(&first.schema(), &committed.rows)?,
            None => maintainer.plan().no_rows(),
        };
        maintainer.hold(&committed.paused, SystemTime::now());
        let update = maintainer.update(&rows, &committed.delta, SystemTime::now())?;
        self.tally.busy(&self.table, started.elapsed());
        match update {
            Update::Applied => Ok(()),
            Update::Gap(_) => self.catch_up(maintainer, silver, waiting).await,
        }
    }

    async fn catch_up(&self, maintainer: &mut GoldMaintainer, silver: &mut SilverTable, waiting: &mut bool) -> Result<()> {
        let started = Instant::now();
        silver.refresh().await?;
        let caught_up = maintainer.catch_up(&*silver, SystemTime::now()).await?;
        self.tally.busy(&self.table, started.elapsed());
        match caught_up {
            CatchUp::Done { .. } => *waiting = false,
            CatchUp::Waiting(partitions) => {
                if !*waiting {
                    warn!(table = %self.table, ?partitions, "silver went back behind gold, which waits until silver has passed it");
                }
                *waiting = true;
            }
        }
        Ok(())
    }

    async fn refresh(&self, maintainer: &mut GoldMaintainer, silver: &mut SilverTable) -> Result<()> {
        let started = Instant::now();
        silver.refresh().await?;
        let report = maintainer.refresh(&*silver, SystemTime::now()).await?;
        self.tell(&report, started.elapsed());
        Ok(())
    }

    fn tell(&self, report: &RefreshReport, busy: Duration) {
        for partition in &report.put_right {
            warn!(table = %self.table, partition, "somebody else had changed this gold partition; it was computed again");
        }
        for window in &report.refused {
            error!(table = %self.table, %window, "silver has fewer rows of this window than gold counted; the window keeps its old rows");
        }
        if report.partitions_written == 0 {
            self.tally.busy(&self.table, busy);
            return;
        }
        info!(
            table = %self.table,
            partitions = report.partitions_written,
            rows = report.rows,
            files = report.files,
            bytes = report.bytes,
            watermark = report.watermark_us.map(display_instant),
            windows_open = report.windows_open,
            windows_recomputed = report.windows_recomputed,
            ms = busy.as_millis() as u64,
            "refreshed"
        );
        self.tally.committed(&self.table, &CommitStats { rows: report.rows, files: report.files, bytes: report.bytes, busy });
    }
}
