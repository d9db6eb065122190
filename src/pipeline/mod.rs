//! The one module that knows every stage: wiring, back-pressure, recovery at the start, the order of shutdown.
//!
//! A run is a series of *sessions*. A session opens the tables, asks each where it is, and continues there, cycle after cycle
//! (`session`). When a server or the network fails, or a table is not where the session left it, the session ends and the next one reads
//! the tables again: progress lives in the tables alone, so reading them again is always right. Only what a person must decide ends the
//! run.
//!
//! *Invariants*: within a cycle the pointers are swapped in the order bronze, silver, rejected; gold reads committed silver only.
//!
//! *Failure*: `ARCHITECTURE.md` has the table of what was killed when and what the next start does.

mod adopt;
mod commit;
mod completeness;
mod cycle;
mod definition;
mod fates;
mod gold_task;
mod lead;
mod pace;
mod positions;
mod rebalance;
mod redefine;
mod report;
mod reprocess;
mod session;
mod settings;
mod share;
mod silver_stage;
mod silver_state;
mod small_files;
mod specs;
mod start;
mod tally;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use definition::{Definition, TablesSettings};
pub use redefine::Reload;
pub use report::{LayerReport, Observer, Progress, RunReport, Silent};
pub use reprocess::{
    Abandoned, Engine, EngineOptions, ReprocessOptions, Reprocessed, Selection, abandon_reprocessing, reprocess, reprocess_into,
    reprocess_parts,
};
pub use settings::PipelineSettings;

use crate::catalog::Lakehouse;
use crate::error::{Error, Kind, Result};
use crate::retry::{Backoff, with_deadline};
use crate::silver::Strangers;
use gold_task::Ending;
use redefine::SessionEnd;
use tally::Tally;

/// How long the end of a session waits for its group to be left; after that the group finds out by itself.
const LEAVE_WAIT: Duration = Duration::from_secs(10);

/// How a run is started, watched and ended.
#[derive(Clone)]
pub struct RunOptions {
    pub until: Until,
    /// Cancelled by SIGTERM or Ctrl-C: the run commits what it has and ends.
    pub shutdown: CancellationToken,
    pub observer: Arc<dyn Observer>,
    /// Lets a daemon take up what the pipeline file says of silver while it runs; none keeps the definition.
    pub reload: Option<Reload>,
}

/// When a run ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When all layers hold what the source held at the start.
    CaughtUp,
    /// Never; also a file or generator that has ended is watched for more.
    Stopped,
}

/// Runs the pipeline until it has caught up, or is told to stop, or needs a person.
pub async fn run(definition: &Definition, options: RunOptions) -> Result<RunReport> {
    definition.pipeline.validate()?;
    let tally = Tally::new(options.observer.clone());
    let lakehouse = Lakehouse::open(&definition.metastore, &definition.storage, &definition.catalog).await?;
    let outcome = supervise(definition, &lakehouse, &options, &tally).await;
    lakehouse.close().await;
    outcome.map(|()| tally.report())
}

/// Opens session after session until one ends well or an error needs a person.
async fn supervise(definition: &Definition, lakehouse: &Lakehouse, options: &RunOptions, tally: &Tally) -> Result<()> {
    let mut definition = definition.clone();
    let mut backoff = Backoff::new(&definition.pipeline.retry);
    let strangers = Arc::<Strangers>::default();
    loop {
        let commits_before = tally.commits();
        let failure = match one_session(&definition, lakehouse, options, tally, &strangers).await {
            Ok(SessionEnd::Done) => return Ok(()),
            Ok(SessionEnd::Redefined(next)) => {
                definition = *next;
                tally.reload();
                continue;
            }
            Err(failure) if failure.kind() == Kind::Transient && !options.shutdown.is_cancelled() => failure,
            Err(failure) => return Err(failure),
        };
        if tally.commits() > commits_before {
            backoff = Backoff::new(&definition.pipeline.retry);
        }
        warn!(error = %failure.chain(), hint = failure.hint_text(), "reading the tables again after a failure");
        tally.reload();
        let waited = tokio::select! {
            waited = backoff.wait() => waited,
            // Nothing is under way here: what was read and is not in the tables is read again.
            () = options.shutdown.cancelled() => {
                warn!("stopped while waiting for that failure to end; the next start goes on where the tables are");
                return Ok(());
            }
        };
        if !waited {
            return Err(failure.context(format!("gave up after {} tries", backoff.tries())));
        }
    }
}

async fn one_session(
    definition: &Definition,
    lakehouse: &Lakehouse,
    options: &RunOptions,
    tally: &Tally,
    strangers: &Arc<Strangers>,
) -> Result<SessionEnd> {
    let (session, gold) = tokio::select! {
        opened = start::open(definition, lakehouse, options, tally, strangers) => opened?,
        () = options.shutdown.cancelled() => return Ok(SessionEnd::Done),
    };
    let grace = definition.pipeline.shutdown_grace;
    let overdue = async {
        options.shutdown.cancelled().await;
        crate::retry::sleep(grace).await;
    };
    tokio::select! {
        ended = drive(session, gold, grace) => ended,
        () = overdue => Err(Error::failed(format!(
            "the last commit did not end within pipeline.shutdown_grace ({})",
            humantime::format_duration(grace)
        ))
        .hint("nothing is lost: the next start reads the same offsets again; raise pipeline.shutdown_grace")),
    }
}

/// Runs a session to its end, then silver's and gold's tasks to theirs.
async fn drive(mut session: session::Session<'_>, gold: gold_task::GoldTasks, grace: Duration) -> Result<SessionEnd> {
    let ran = session.run().await;
    // Others may go on with what this process read; it reads no more.
    if with_deadline("the source", LEAVE_WAIT, session.source.leave()).await.is_err() {
        debug!("the source was not left in time");
    }
    // A catch-up under way comes to rest: beside the next session's silver it would be a second writer. Gold's queues end with silver.
    let session::Session { mut silver, .. } = session;
    silver.rest().await;
    let silver = silver.into_result();
    let gold = match &ran {
        Ok(_) => gold.finish(Ending::Refresh).await,
        // The next session's maintainer waits for the lock, if this one holds it for longer.
        Err(_) => with_deadline("gold", grace, gold.finish(Ending::Abandon)).await.unwrap_or(Ok(())),
    };
    let ended = ran?;
    // The next session tells of what still stops them.
    if let SessionEnd::Done = ended {
        silver?;
        gold?;
        info!("everything read is committed");
    }
    Ok(ended)
}
