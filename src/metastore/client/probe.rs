//! Does this server honour an expected value? A version number does not tell, so it is tried.
//!
//! *What may leak*: a view `lakesmith_probe_…` in the database, if the process is killed during the probe. It holds nothing.

use std::time::Duration;

use tokio::join;
use tracing::{debug, warn};
use uuid::Uuid;

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
    RetrySettings { attempts: 2, initial_delay: Duration::from_millis(500), max_delay: Duration::from_millis(500) };

/// The outcome of one swap, as far as the probe cares.
#[derive(Debug)]
enum Swap {
    Done,
    Conflict,
    Refused(String),
}

impl Metastore {
    /// What the server makes of expected values, tried once per client (several times if it seems broken) in a database that exists.
    pub async fn compare_and_swap(&self, database: &str) -> MetastoreResult<CompareAndSwap> {
        self.inner.compare_and_swap.get_or_try_init(|| self.prove(database)).await.cloned()
    }

    /// A server that fails for a moment, or repeats a call by itself, looks broken as well: only what is found each time is believed.
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
        let _ = self.inner.compare_and_swap.set(known);
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
        if let Err(error) = self.drop_table(database, &name, DeleteData::No).await {
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
            Swap::Refused(reason) => return broken(reason),
        }
        match self.probe_swap(&view, "0", "wrong").await? {
            Swap::Done => return Ok(CompareAndSwap::Ignored),
            Swap::Conflict => {}
            Swap::Refused(reason) => return broken(reason),
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
                (Swap::Refused(reason), _) | (_, Swap::Refused(reason)) => return broken(reason),
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
