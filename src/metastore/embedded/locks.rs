//! Locks, first come, first served.
//!
//! *Invariants*: a lock is granted when no earlier one, held or waiting, is in its way. A lock that was not heard of for longer than
//! [`TIMEOUT_MS`] is gone.

use rusqlite::{Transaction, params};

use super::super::types::{LockComponent, LockRequest, LockResponse, LockState, LockType, ShownLock};
use super::fault::{Answer, Fault};
use super::names::normal;
use super::store::now_ms;

/// As long as a real server's `metastore.txn.timeout` is by default.
const TIMEOUT_MS: i64 = 300_000;

fn expire(transaction: &Transaction<'_>) -> Answer<()> {
    transaction.execute("DELETE FROM locks WHERE last_heartbeat_ms < ?", [now_ms() - TIMEOUT_MS])?;
    Ok(())
}

/// Takes a lock or a place in its queue.
pub(super) fn lock(transaction: &Transaction<'_>, request: &LockRequest) -> Answer<LockResponse> {
    expire(transaction)?;
    transaction.execute(
        "INSERT INTO locks (user, hostname, agent, last_heartbeat_ms) VALUES (?, ?, ?, ?)",
        params![request.user, request.hostname, request.agent, now_ms()],
    )?;
    let lock_id = transaction.last_insert_rowid();
    for LockComponent { kind, database, table, partition, .. } in &request.components {
        transaction.execute(
            "INSERT INTO lock_components (lock_id, kind, database, table_name, partition_name) VALUES (?, ?, ?, ?, ?)",
            params![lock_id, *kind as i32, normal(database), table.as_deref().map(normal), partition],
        )?;
    }
    grant(transaction, lock_id)
}

/// Grants a lock if nothing is in its way.
fn grant(transaction: &Transaction<'_>, lock_id: i64) -> Answer<LockResponse> {
    let acquired: Option<i64> =
        transaction.query_row("SELECT acquired_at_ms FROM locks WHERE id = ?", [lock_id], |row| row.get(0))?;
    let mut state = LockState::Acquired;
    if acquired.is_none() {
        let mine = components(transaction, "lock_id = ?", lock_id)?;
        let earlier = components(transaction, "lock_id < ?", lock_id)?;
        if mine.iter().any(|mine| earlier.iter().any(|other| conflict(mine, other))) {
            state = LockState::Waiting;
        } else {
            transaction.execute("UPDATE locks SET acquired_at_ms = ? WHERE id = ?", [now_ms(), lock_id])?;
        }
    }
    Ok(LockResponse { lock_id, state })
}

struct Component {
    kind: Option<LockType>,
    database: String,
    table: Option<String>,
    partition: Option<String>,
}

fn components(transaction: &Transaction<'_>, which: &'static str, lock_id: i64) -> Answer<Vec<Component>> {
    let query = format!("SELECT kind, database, table_name, partition_name FROM lock_components WHERE {which}");
    let mut statement = transaction.prepare_cached(&query)?;
    let rows = statement.query_map([lock_id], |row| {
        Ok(Component {
            kind: LockType::from_wire(row.get(0)?),
            database: row.get(1)?,
            table: row.get(2)?,
            partition: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Whether two locks cannot be held together: they cover a common thing, and their kinds exclude each other.
fn conflict(one: &Component, other: &Component) -> bool {
    let meet = |one: &Option<String>, other: &Option<String>| one.is_none() || other.is_none() || one == other;
    if one.database != other.database || !meet(&one.table, &other.table) || !meet(&one.partition, &other.partition) {
        return false;
    }
    use LockType::{Exclusive, ExclusiveWrite, SharedRead, SharedWrite};
    match (one.kind, other.kind) {
        (Some(SharedRead), Some(SharedRead | SharedWrite | ExclusiveWrite))
        | (Some(SharedWrite | ExclusiveWrite), Some(SharedRead))
        | (Some(SharedWrite), Some(SharedWrite)) => false,
        (Some(SharedWrite | ExclusiveWrite), Some(SharedWrite | ExclusiveWrite))
        | (Some(Exclusive), _)
        | (_, Some(Exclusive))
        | (None, _)
        | (_, None) => true,
    }
}

/// Keeps a lock alive.
pub(super) fn heartbeat(transaction: &Transaction<'_>, lock_id: i64) -> Answer<()> {
    expire(transaction)?;
    let found = transaction.execute("UPDATE locks SET last_heartbeat_ms = ? WHERE id = ?", [now_ms(), lock_id])?;
    if found == 0 { Err(Fault::no_such_lock(lock_id)) } else { Ok(()) }
}

pub(super) fn check(transaction: &Transaction<'_>, lock_id: i64) -> Answer<LockResponse> {
    heartbeat(transaction, lock_id)?;
    grant(transaction, lock_id)
}

/// Gives a lock back. One that is not there is back already (a 4.0 server takes it the same way).
pub(super) fn unlock(transaction: &Transaction<'_>, lock_id: i64) -> Answer<()> {
    expire(transaction)?;
    transaction.execute("DELETE FROM locks WHERE id = ?", [lock_id])?;
    Ok(())
}

/// All locks, or those on a database or table. Nothing is expired here: whoever asks may want to know about a dead holder.
pub(super) fn show(transaction: &Transaction<'_>, database: Option<&str>, table: Option<&str>) -> Answer<Vec<ShownLock>> {
    let mut statement = transaction.prepare_cached(
        "SELECT id, database, table_name, acquired_at_ms, kind, last_heartbeat_ms, user, hostname, agent
         FROM locks JOIN lock_components ON lock_id = id
         WHERE (?1 IS NULL OR database = ?1) AND (?2 IS NULL OR table_name = ?2) ORDER BY id",
    )?;
    let rows = statement.query_map(params![database.map(normal), table.map(normal)], |row| {
        let acquired_at_ms: Option<i64> = row.get(3)?;
        Ok(ShownLock {
            lock_id: row.get(0)?,
            database: row.get(1)?,
            table: row.get(2)?,
            state: if acquired_at_ms.is_some() { LockState::Acquired } else { LockState::Waiting },
            kind: LockType::from_wire(row.get(4)?).unwrap_or(LockType::Exclusive),
            last_heartbeat_ms: row.get(5)?,
            acquired_at_ms,
            user: row.get(6)?,
            hostname: row.get(7)?,
            agent: Some(row.get(8)?),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

#[cfg(test)]
mod tests {
    use super::super::store::Store;
    use super::*;

    fn request(kind: LockType, table: &str) -> LockRequest {
        let component = LockComponent { kind, ..LockComponent::exclusive("Sales", table) };
        LockRequest { components: vec![component], user: "ann".into(), hostname: "here".into(), agent: table.into() }
    }

    #[test]
    fn locks_are_granted_in_order_and_end_when_nobody_keeps_them_alive() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("metastore.sqlite")).unwrap();
        let take = |kind, table: &str| store.write(|transaction| lock(transaction, &request(kind, table))).unwrap();
        let look = |id| store.write(|transaction| check(transaction, id));
        let first = take(LockType::Exclusive, "t");
        let second = take(LockType::SharedRead, "T");
        let third = take(LockType::SharedRead, "t");
        let elsewhere = take(LockType::Exclusive, "u");
        let states = [first, second, third, elsewhere].map(|response| response.state);
        assert_eq!(states, [LockState::Acquired, LockState::Waiting, LockState::Waiting, LockState::Acquired]);
        let old = now_ms() - TIMEOUT_MS - 1;
        store
            .write(|transaction| {
                Ok(transaction.execute("UPDATE locks SET last_heartbeat_ms = ? WHERE id = ?", [old, first.lock_id])?)
            })
            .unwrap();
        assert_eq!(look(second.lock_id).unwrap().state, LockState::Acquired);
        assert_eq!(look(third.lock_id).unwrap().state, LockState::Acquired);
        assert!(look(first.lock_id).is_err());
        assert_eq!(take(LockType::ExclusiveWrite, "t").state, LockState::Acquired);
        assert_eq!(take(LockType::ExclusiveWrite, "t").state, LockState::Waiting);
    }
}
