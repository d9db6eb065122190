//! A lock that is held: taken, kept alive, looked after, given back.
//!
//! *Invariants*: [`HeldLock::acquire`] returns only with the lock. A lock of another is waited for, then explained, never
//! taken away; only what a process of ours left that was killed on this machine is given back for it.
//!
//! *Failure*: when the reply to `lock` is lost, the lock may exist: it is found again by its agent id. A lock whose heartbeats do not
//! arrive ends on the server after `metastore.txn.timeout`; [`HeldLock::ensure_held`] asks the server, so it says so.
//!
//! *What may leak*: the lock, until the server's timeout, if the process dies before it is given back.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::agent::Agent;
use super::{Metastore, MetastoreError, MetastoreResult};
use crate::clock;
use crate::error::{Context, Error, Result};
use crate::metastore::types::{LockComponent, LockRequest, LockState, ShownLock};
use crate::retry::{Backoff, RetrySettings, sleep};
use crate::window::Window;

/// How often a wait for a lock is told of.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Tries at a call about a lock when connections fail.
const RETRIES: RetrySettings =
    RetrySettings { attempts: 4, initial_delay: Duration::from_millis(100), max_delay: Duration::from_secs(2) };

/// The same for a lock that nobody waits to see released: for about as long as a server keeps it by default.
const FAREWELL_RETRIES: RetrySettings =
    RetrySettings { attempts: 100, initial_delay: Duration::from_millis(100), max_delay: Duration::from_secs(3) };

/// How often those who stand by ask whether it is their turn.
const STAND_BY_PAUSE: Duration = Duration::from_millis(500);

/// How often those who stand by look whether the holder's process is dead.
const LOOK_FOR_THE_DEAD_EVERY: Duration = Duration::from_secs(2);

/// How a lock is waited for that another holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// For as long as `metastore.lock_timeout`, and telling of it: nobody should hold it for long.
    ForTheHolder,
    /// As long as it takes: the holder does the work of all who wait, until it dies.
    StandingBy,
}

/// An exclusive lock on a name in a database, kept alive until it is released.
#[derive(Debug)]
pub struct HeldLock {
    metastore: Metastore,
    id: i64,
    what: String,
    heartbeat: JoinHandle<()>,
    lost: Arc<OnceLock<String>>,
    released: bool,
}

impl HeldLock {
    /// Waits for the lock for as long as `metastore.lock_timeout`.
    pub async fn acquire(metastore: &Metastore, database: &str, table: &str) -> Result<Self> {
        Self::acquire_with(metastore, database, table, Wait::ForTheHolder).await
    }

    /// Waits for the lock in either way.
    pub async fn acquire_with(metastore: &Metastore, database: &str, table: &str, wait: Wait) -> Result<Self> {
        let what = format!("{database}.{table}");
        let agent = Agent::this().to_string();
        let id = request(metastore, database, table, &agent).await.with_context(|| format!("failed to lock {what}"))?;
        let held = Self::keep(metastore.clone(), id, what);
        // From here on dropping `held` gives the lock, or the place in its queue, back.
        match wait {
            Wait::ForTheHolder => held.wait(database, table).await?,
            Wait::StandingBy => held.stand_by(database, table).await?,
        }
        Window::Locked.pass();
        Ok(held)
    }

    fn keep(metastore: Metastore, id: i64, what: String) -> Self {
        let lost = Arc::new(OnceLock::new());
        let heartbeat = tokio::spawn(beat(metastore.clone(), id, lost.clone()));
        Self { metastore, id, what, heartbeat, lost, released: false }
    }

    /// The server's number of the lock.
    pub fn id(&self) -> i64 {
        self.id
    }

    async fn wait(&self, database: &str, table: &str) -> Result<()> {
        let begun = clock::now();
        let patience = self.metastore.settings().lock_timeout;
        let mut pause = Duration::from_millis(20);
        let mut told = begun;
        let mut looked_for_the_dead = false;
        loop {
            match self.check().await? {
                LockState::Acquired => return Ok(()),
                LockState::Waiting if !looked_for_the_dead => {
                    looked_for_the_dead = true;
                    self.release_of_the_dead(database, table).await;
                }
                LockState::Waiting if clock::since(begun) < patience && clock::since(told) >= TELL_EVERY => {
                    told = clock::now();
                    let holder = self.holder(database, table).await;
                    warn!(
                        lock = self.what,
                        holder,
                        waiting_s = clock::since(begun).as_secs(),
                        "waiting for a lock that another holds"
                    );
                }
                LockState::Waiting if clock::since(begun) < patience => {}
                LockState::Waiting => return Err(self.explain(database, table, patience).await),
                LockState::Abort | LockState::NotAcquired => {
                    return Err(Error::transient(format!("the metastore gave up lock {} on {}", self.id, self.what)));
                }
            }
            sleep(pause.min(patience.saturating_sub(clock::since(begun)))).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    async fn stand_by(&self, database: &str, table: &str) -> Result<()> {
        let mut looked = None;
        loop {
            match self.check().await? {
                LockState::Acquired => return Ok(()),
                LockState::Waiting => {}
                LockState::Abort | LockState::NotAcquired => {
                    return Err(Error::transient(format!("the metastore gave up lock {} on {}", self.id, self.what)));
                }
            }
            if looked.is_none_or(|looked| clock::since(looked) >= LOOK_FOR_THE_DEAD_EVERY) {
                if looked.is_none() {
                    let holder = self.holder(database, table).await;
                    info!(lock = self.what, holder, "standing by for a lock");
                }
                looked = Some(clock::now());
                self.release_of_the_dead(database, table).await;
            }
            sleep(STAND_BY_PAUSE).await;
        }
    }

    async fn check(&self) -> Result<LockState> {
        match repeated(|| self.metastore.check_lock(self.id)).await {
            Ok(response) => Ok(response.state),
            // Its timeout passed while this process, or the way to the server, stood still.
            Err(error @ MetastoreError::Lock { .. }) => {
                Err(self.gone("the metastore does not know it any more").caused_by(error))
            }
            Err(error) => Err(Error::from(error).context(format!("lock {} on {} cannot be checked", self.id, self.what))),
        }
    }

    fn gone(&self, why: &str) -> Error {
        Error::transient(format!("lock {} on {} was lost: {why}", self.id, self.what))
            .hint("lower metastore.lock_heartbeat, or raise metastore.txn.timeout on the metastore")
    }

    /// Gives back for a process of ours that was killed on this machine what it still holds here. Nothing else is ever taken away.
    async fn release_of_the_dead(&self, database: &str, table: &str) {
        let locks = self.metastore.show_locks(database, table).await.unwrap_or_default();
        let dead = |lock: &&ShownLock| {
            let agent = lock.agent.as_deref().and_then(|agent| agent.parse::<Agent>().ok());
            lock.lock_id != self.id && agent.is_some_and(|agent| agent.is_certainly_dead())
        };
        for lock in locks.iter().filter(dead) {
            match self.metastore.unlock(lock.lock_id).await {
                Ok(()) => info!(lock = self.what, "its holder was killed; given back: {}", describe(lock)),
                // It was given back already, or time will.
                Err(error) => {
                    debug!(lock = self.what, lock_id = lock.lock_id, %error, "the lock of a dead process was not given back")
                }
            }
        }
    }

    async fn explain(&self, database: &str, table: &str, patience: Duration) -> Error {
        let waited = humantime::format_duration(patience);
        let holder = self.holder(database, table).await;
        Error::transient(format!("{} was still locked after {waited}: {holder}", self.what)).hint(
            "wait for that process to finish; if it is dead, the metastore drops its lock after metastore.txn.timeout (300s by default); \
             `lakesmith locks` shows all locks on the pipeline's tables",
        )
    }

    /// Who has the lock that is waited for, for a person.
    async fn holder(&self, database: &str, table: &str) -> String {
        let locks = self.metastore.show_locks(database, table).await.unwrap_or_default();
        let holder = locks.iter().find(|lock| lock.state == LockState::Acquired && lock.lock_id != self.id);
        holder.map_or_else(|| "another that is gone by now".to_owned(), describe)
    }

    /// Asks the server whether the lock is still held. Call it on both sides of what the lock protects.
    pub async fn ensure_held(&self) -> Result<()> {
        if let Some(why) = self.lost.get() {
            return Err(self.gone(why));
        }
        match self.check().await? {
            LockState::Acquired => Ok(()),
            LockState::Waiting | LockState::Abort | LockState::NotAcquired => Err(self.gone("the metastore no longer grants it")),
        }
    }

    /// Gives the lock back. An error means that it lasts until the server's timeout. That it was lost before is not always told: 4.x takes
    /// any number, so call [`HeldLock::ensure_held`] first where it matters.
    pub async fn release(mut self) -> Result<()> {
        self.released = true;
        self.heartbeat.abort();
        let released = unlock(&self.metastore, self.id, &RETRIES).await;
        if released.is_err() {
            self.give_back_later();
        }
        released.with_context(|| format!("lock {} on {} was not released", self.id, self.what))
    }

    /// Goes on trying while the process lives: until then, or until the server's timeout, everybody else waits.
    fn give_back_later(&self) {
        let (metastore, id) = (self.metastore.clone(), self.id);
        self.metastore.bid_farewell(async move {
            match unlock(&metastore, id, &FAREWELL_RETRIES).await {
                Ok(()) | Err(MetastoreError::Lock { .. }) => {}
                Err(error) => warn!(lock_id = id, %error, "a lock that was let go could not be released"),
            }
        });
    }
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        self.heartbeat.abort();
        if self.released {
            return;
        }
        self.give_back_later();
    }
}

/// Asks for the lock, once; if the reply is lost, finds out by the agent id whether there is one.
async fn request(metastore: &Metastore, database: &str, table: &str, agent: &str) -> Result<i64> {
    let request = LockRequest {
        components: vec![LockComponent::exclusive(database, table)],
        user: metastore.user().to_owned(),
        hostname: whoami::hostname().unwrap_or_else(|_| "unknown".into()),
        agent: agent.to_owned(),
    };
    let lost = match metastore.lock(&request).await {
        Ok(response) => return Ok(response.lock_id),
        Err(error) if error.certainly_not_applied() => return Err(error.into()),
        Err(error) => error,
    };
    let locks = repeated(|| metastore.show_locks(database, table)).await?;
    match locks.iter().find(|lock| lock.agent.as_deref() == Some(agent)) {
        Some(lock) => Ok(lock.lock_id),
        None => Err(lost.into()),
    }
}

async fn beat(metastore: Metastore, id: i64, lost: Arc<OnceLock<String>>) {
    loop {
        sleep(metastore.settings().lock_heartbeat).await;
        match metastore.heartbeat(id).await {
            Ok(()) => {}
            Err(error @ MetastoreError::Lock { .. }) => {
                let _ = lost.set(error.to_string());
                return;
            }
            // The next beat may get through; `ensure_held` asks the server in any case.
            Err(error) => warn!(lock_id = id, %error, "a heartbeat of a lock failed"),
        }
    }
}

async fn unlock(metastore: &Metastore, id: i64, retries: &RetrySettings) -> MetastoreResult<()> {
    let mut backoff = Backoff::new(retries);
    loop {
        match metastore.unlock(id).await {
            // An earlier try whose reply was lost has done it.
            Err(MetastoreError::Lock { .. }) if backoff.tries() > 1 => return Ok(()),
            Err(error) if is_of_the_network(&error) && backoff.wait().await => {}
            result => return result,
        }
    }
}

/// A call that changes nothing the second time, tried again while connections fail.
async fn repeated<T, F: Future<Output = MetastoreResult<T>>>(call: impl Fn() -> F) -> MetastoreResult<T> {
    let mut backoff = Backoff::new(&RETRIES);
    loop {
        match call().await {
            Err(error) if is_of_the_network(&error) && backoff.wait().await => {}
            result => return result,
        }
    }
}

fn is_of_the_network(error: &MetastoreError) -> bool {
    matches!(error, MetastoreError::Transport { .. } | MetastoreError::Timeout { .. })
}

fn describe(lock: &ShownLock) -> String {
    let time = |ms: i64| chrono::DateTime::from_timestamp_millis(ms).map(|at| at.format("%Y-%m-%d %H:%M:%S UTC").to_string());
    let since = lock.acquired_at_ms.and_then(time).unwrap_or_else(|| "an unknown time".into());
    let seen = time(lock.last_heartbeat_ms).unwrap_or_else(|| "never".into());
    let agent = lock.agent.as_deref().unwrap_or("unknown");
    format!("lock {} of {}@{} ({agent}), held since {since}, last heartbeat {seen}", lock.lock_id, lock.user, lock.hostname)
}
