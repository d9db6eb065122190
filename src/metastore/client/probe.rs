//! Does this server honour an expected value? A version number does not tell, so it is tried.
//!
//! *What may leak*: a view `lakesmith_probe_…` in the database, if the process is killed during the probe. It holds nothing.

use std::time::Duration;

use tokio::join;
use tracing::{debug, warn};
use uuid::Uuid;

use super::servers::Among;
use super::{DeleteData, Metastore, MetastoreError, MetastoreResult};
use crate::metastore::types::{EnvironmentContext, FieldSchema, HiveTable};
use crate::retry::{Backoff, RetrySettings};

/// What a server makes of `expected_parameter_key` and `expected_parameter_value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompareAndSwap {
    /// A wrong value is refused, and of racing writers with the same right value one wins (4.x on a proven database, 2.3.10).
    Honoured,
    /// The call is accepted and the value not looked at (2.3.9, 3.1.3).
    Ignored,
    /// Right values are refused too (a stock Derby schema), or two racing writers both win.
    Broken { reason: String },
}

const KEY: &str = "lakesmith_probe";
const RACES: usize = 4;

/// Probes that must agree before a server is called broken.
const CONFIRMATIONS: RetrySettings =
    RetrySettings { attempts: 3, initial_delay: Duration::from_millis(500), max_delay: Duration::from_millis(500) };

/// The outcome of one swap, as far as the probe cares.
#[derive(Debug)]
enum Swap {
    Done,
    Conflict,
    Refused(String),
}

impl Metastore {
    /// What can be relied on with every server that can be reached: each is tried once (several times if it seems broken) in a database
    /// that exists. A server that comes back later, or as another version, is tried then.
    pub async fn compare_and_swap(&self, database: &str) -> MetastoreResult<CompareAndSwap> {
        if let Among::One(server) = self.among {
            let _turn = self.inner.proving.lock().await;
            return self.proven(server, database).await;
        }
        let servers = self.inner.pool.servers();
        if let Some(weakest) = servers.weakest() {
            self.prove_others(database);
            return Ok(weakest);
        }
        let _turn = self.inner.proving.lock().await;
        let mut failure = None;
        for server in servers.order(Among::Any) {
            if servers.weakest().is_some() && !servers.unproven().contains(&server) {
                continue;
            }
            match self.proven(server, database).await {
                Ok(_) => {}
                Err(error @ (MetastoreError::Transport { .. } | MetastoreError::Timeout { .. })) => failure = Some(error),
                Err(error) => return Err(error),
            }
        }
        match (servers.weakest(), failure) {
            (Some(weakest), _) => Ok(weakest),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(CompareAndSwap::Ignored),
        }
    }

    /// Tries those servers that could not be asked before; nobody waits for it.
    fn prove_others(&self, database: &str) {
        let unproven = self.inner.pool.servers().unproven();
        if unproven.is_empty() {
            return;
        }
        let Ok(turn) = self.inner.proving.clone().try_lock_owned() else { return };
        let (metastore, database) = (self.clone(), database.to_owned());
        tokio::spawn(async move {
            let _turn = turn;
            for server in unproven {
                if let Err(error) = metastore.proven(server, &database).await {
                    debug!(%error, "a server could not be probed yet");
                }
            }
        });
    }

    async fn proven(&self, server: usize, database: &str) -> MetastoreResult<CompareAndSwap> {
        let servers = self.inner.pool.servers();
        if let Some(verdict) = servers.verdict(server) {
            return Ok(verdict);
        }
        let verdict = self.on(server).prove(database).await?;
        servers.found(server, verdict.clone());
        Ok(verdict)
    }

    /// A server that fails now and then, or repeats a call by itself, looks broken as well: only what is found each time is believed.
    async fn prove(&self, database: &str) -> MetastoreResult<CompareAndSwap> {
        let mut backoff = Backoff::new(&CONFIRMATIONS);
        loop {
            match self.probe_compare_and_swap(database).await? {
                CompareAndSwap::Broken { reason } if backoff.wait().await => {
                    debug!(reason, "compare-and-swap seems broken, trying it again");
                }
                verdict => return Ok(verdict),
            }
        }
    }

    /// Takes for proven what a test knows of its server.
    #[doc(hidden)]
    pub fn assume(&self, known: CompareAndSwap) {
        let servers = self.inner.pool.servers();
        servers.unproven().into_iter().for_each(|server| servers.found(server, known.clone()));
    }

    /// Tries it: a right value, a wrong one, and two connections racing, on a view that is dropped afterwards (a view needs no directory).
    pub async fn probe_compare_and_swap(&self, database: &str) -> MetastoreResult<CompareAndSwap> {
        let name = format!("lakesmith_probe_{}", Uuid::new_v4().simple());
        let mut view = HiveTable::view(database, &name, "SELECT 1 AS `one`", "SELECT 1 AS `one`");
        view.set_owner(self.user());
        view.set_columns(&[FieldSchema::new("one", "int")]);
        view.set_parameter(KEY, "0");
        self.create_table(&view).await?;
        let verdict = self.probe_on(database, &name).await;
        let mut dropped = self.drop_table(database, &name, DeleteData::No).await;
        if matches!(dropped, Err(MetastoreError::Transport { .. } | MetastoreError::Timeout { .. })) {
            // This server failed; any other has the view too, unless it is gone.
            let any = Self { inner: self.inner.clone(), among: Among::Any };
            dropped = super::found(any.drop_table(database, &name, DeleteData::No).await).map(drop);
        }
        if let Err(error) = dropped {
            warn!(view = %format!("{database}.{name}"), %error, "the view of a finished probe could not be dropped");
        }
        debug!(?verdict, "probed compare-and-swap");
        verdict
    }

    async fn probe_on(&self, database: &str, name: &str) -> MetastoreResult<CompareAndSwap> {
        let broken = |reason: String| Ok(CompareAndSwap::Broken { reason });
        let Some(view) = self.table(database, name).await? else { return broken("a new view was not found".into()) };
        match self.probe_swap(&view, "0", "1").await? {
            Swap::Done => {}
            Swap::Conflict => return broken("a right value was called a conflict".into()),
            Swap::Refused(reason) => return self.refused(&view, reason).await,
        }
        match self.probe_swap(&view, "0", "wrong").await? {
            Swap::Done => return Ok(CompareAndSwap::Ignored),
            Swap::Conflict => {}
            Swap::Refused(reason) => return self.refused(&view, reason).await,
        }
        let mut current = "1".to_owned();
        for race in 0..RACES {
            let (left, right) = (format!("{race} left"), format!("{race} right"));
            let (left_swap, right_swap) =
                join!(self.probe_swap(&view, &current, &left), self.probe_swap(&view, &current, &right));
            let expected = match (left_swap?, right_swap?) {
                (Swap::Done, Swap::Done) => return broken("two racing writers both won".into()),
                (Swap::Done, _) => left,
                (_, Swap::Done) => right,
                (Swap::Refused(reason), _) | (_, Swap::Refused(reason)) => return self.refused(&view, reason).await,
                (Swap::Conflict, Swap::Conflict) => return broken("two racing writers both lost".into()),
            };
            let now = self.table(database, name).await?;
            if now.as_ref().and_then(|view| view.parameter(KEY)) != Some(&expected) {
                return broken("the winner's value was not there afterwards".into());
            }
            current = expected;
        }
        Ok(CompareAndSwap::Honoured)
    }

    /// What a refusal means: the same call without an expected value passes where that value is the reason. Where it fails as well, the
    /// server is failing just now, and nothing is known of it.
    async fn refused(&self, view: &HiveTable, reason: String) -> MetastoreResult<CompareAndSwap> {
        let environment = EnvironmentContext::new().without_statistics();
        self.alter_table(view.database(), view.name(), view, &environment).await?;
        Ok(CompareAndSwap::Broken { reason })
    }

    async fn probe_swap(&self, view: &HiveTable, expected: &str, value: &str) -> MetastoreResult<Swap> {
        let mut changed = view.clone();
        changed.set_parameter(KEY, value);
        let environment = EnvironmentContext::new().without_statistics().expecting(KEY, expected);
        match self.alter_table(view.database(), view.name(), &changed, &environment).await {
            Ok(()) => Ok(Swap::Done),
            Err(error) if error.is_modified_conflict() => Ok(Swap::Conflict),
            Err(MetastoreError::Meta { message, .. } | MetastoreError::Application { message, .. }) => Ok(Swap::Refused(message)),
            Err(error) => Err(error),
        }
    }
}
