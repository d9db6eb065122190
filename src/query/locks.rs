//! The metastore's locks on a pipeline's tables, for an operator who wants to know who holds up what.
//!
//! Nothing is taken away here: whether a holder is dead cannot be told from outside, and a lock that is taken from a live writer lets two
//! of them swap the same pointer. A dead one's lock ends by itself when its heartbeats stay out.

use serde::Serialize;

use crate::error::{Context, Result};
use crate::metastore::{LockState, Metastore, ShownLock};

/// One lock, or a place in the queue for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableLock {
    pub database: String,
    /// The table, or the name that stands for the right to maintain it.
    pub table: String,
    pub lock_id: i64,
    /// `acquired`, `waiting`, `abort` or `not acquired`.
    pub state: &'static str,
    pub user: String,
    pub host: String,
    /// The text by which the holder finds its lock again; none if the server did not keep one.
    pub agent: Option<String>,
    /// Milliseconds since 1970, by the server's clock; none while it waits.
    pub since_ms: Option<i64>,
    /// By the server's clock; none if it never had one.
    pub last_heartbeat_ms: Option<i64>,
}

/// All locks on these names, held and waited for, in the order of the names and of their numbers.
pub async fn locks(metastore: &Metastore, database: &str, names: &[String]) -> Result<Vec<TableLock>> {
    // Servers keep names in lower case, and not all of them lower those that are asked for.
    let database = database.to_lowercase();
    let mut found = Vec::new();
    for name in names {
        let name = name.to_lowercase();
        let shown = metastore.show_locks(&database, &name).await;
        let mut shown = shown.with_context(|| format!("the locks on {database}.{name} cannot be listed"))?;
        shown.sort_by_key(|lock| lock.lock_id);
        found.extend(shown.into_iter().map(|lock| table_lock(&database, &name, lock)));
    }
    Ok(found)
}

fn table_lock(database: &str, name: &str, lock: ShownLock) -> TableLock {
    let state = match lock.state {
        LockState::Acquired => "acquired",
        LockState::Waiting => "waiting",
        LockState::Abort => "abort",
        LockState::NotAcquired => "not acquired",
    };
    TableLock {
        database: database.to_owned(),
        table: lock.table.unwrap_or_else(|| name.to_owned()),
        lock_id: lock.lock_id,
        state,
        user: lock.user,
        host: lock.hostname,
        agent: lock.agent,
        since_ms: lock.acquired_at_ms,
        last_heartbeat_ms: Some(lock.last_heartbeat_ms).filter(|at| *at > 0),
    }
}
