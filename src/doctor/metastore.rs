//! What each configured metastore is, and whether commits are safe on it.

use uuid::Uuid;

use super::Check;
use crate::catalog::Lakehouse;
use crate::error::{Error, Result};
use crate::metastore::{Abilities, ColumnCheck, CompareAndSwap, HeldLock, Metastore, MetastoreSettings};
use crate::pipeline::Definition;

pub(super) const AREA: &str = "metastore";

/// A database that every metastore has: the probe's view goes there where the pipeline's own is still to be made.
const ANY_DATABASE: &str = "default";

/// Asks every server by itself; one of several may be down.
pub(super) async fn check(definition: &Definition, lakehouse: &Lakehouse) -> Vec<Check> {
    let uris = match lakehouse.embedded_uri() {
        Some(uri) => vec![uri],
        None => definition.metastore.uris.clone(),
    };
    let mut checks = Vec::new();
    for uri in &uris {
        let settings = MetastoreSettings { uris: vec![uri.clone()], ..definition.metastore.clone() };
        match Metastore::connect(&settings).await {
            Ok(metastore) => checks.extend(one_server(uri, &metastore, &definition.tables.database).await),
            Err(error) => {
                let down = Check::warning(AREA, uri, error.chain());
                checks.push(down.hint("a run uses the other servers; start it again, or take it out of metastore.uris"));
            }
        }
    }
    checks
}

async fn one_server(uri: &str, metastore: &Metastore, database: &str) -> Vec<Check> {
    let abilities = match metastore.abilities().await {
        Ok(abilities) => abilities,
        Err(error) => return vec![Check::failed(AREA, uri, &error.into())],
    };
    let mut checks = vec![reading(uri, &abilities)];
    checks.push(match compare_and_swap(metastore, database).await {
        Ok(verdict) => swapping(uri, &verdict),
        Err(error) => Check::failed(AREA, format!("{uri} compare-and-swap"), &error),
    });
    checks.push(locks(uri, metastore, &abilities).await);
    let changed = match &abilities.column_check {
        ColumnCheck::Off => "",
        ColumnCheck::ByPosition { can_be_lifted: true, .. } => ": that is set aside where a column of ours was moved or dropped",
        ColumnCheck::ByPosition { can_be_lifted: false, .. } => {
            ": where it refuses a moved column, the entry lists columns up to that one for one commit"
        }
    };
    checks.push(Check::ok(AREA, format!("{uri} columns"), abilities.columns_text() + changed));
    checks
}

fn reading(uri: &str, abilities: &Abilities) -> Check {
    if abilities.table_request {
        return Check::ok(AREA, uri, abilities.version_text());
    }
    let missing = Error::stop(format!("{} has no get_table_req", abilities.version_text()));
    Check::failed(AREA, uri, &missing.hint("use Hive Metastore 2.3 or newer"))
}

async fn compare_and_swap(metastore: &Metastore, database: &str) -> Result<CompareAndSwap> {
    let there = metastore.database(database).await?.is_some();
    Ok(metastore.compare_and_swap(if there { database } else { ANY_DATABASE }).await?)
}

fn swapping(uri: &str, verdict: &CompareAndSwap) -> Check {
    let what = format!("{uri} compare-and-swap");
    match verdict {
        CompareAndSwap::Honoured => Check::ok(AREA, what, "honoured: new tables are committed without locks"),
        CompareAndSwap::Ignored => Check::ok(AREA, what, "ignored: every commit takes the table's lock"),
        CompareAndSwap::Broken { .. } => Check::warning(AREA, what, format!("{verdict}: every commit takes the table's lock"))
            .hint("keep the metastore's data in PostgreSQL or MySQL"),
    }
}

/// Takes a lock on a name of its own and gives it back.
async fn locks(uri: &str, metastore: &Metastore, abilities: &Abilities) -> Check {
    let what = format!("{uri} locks");
    if let Some(reason) = &abilities.locks_broken {
        let broken = Error::failed(format!("locks cannot be used: {reason}"));
        return Check::failed(AREA, what, &broken.hint("create the metastore's transaction tables with Hive's schematool"));
    }
    let name = format!("lakesmith_probe_{}", Uuid::new_v4().simple());
    let tried = match HeldLock::acquire(metastore, ANY_DATABASE, &name).await {
        Ok(lock) => lock.release().await,
        Err(error) => Err(error),
    };
    if let Err(error) = tried {
        return Check::failed(AREA, what, &error);
    }
    if abilities.ends_dead_locks == Some(false) {
        return Check::warning(AREA, what, abilities.locks_text()).hint(
            "set hive.compactor.initiator.on (2.x, 3.x) or metastore.housekeeping.threads.on (4.x) on one metastore; else the lock of a \
             machine that died stays for ever",
        );
    }
    let heartbeat = metastore.settings().lock_heartbeat;
    match abilities.lock_timeout {
        Some(timeout) if heartbeat.saturating_mul(2) > timeout => Check::warning(
            AREA,
            what,
            format!("{}, but metastore.lock_heartbeat is {}", abilities.locks_text(), humantime::format_duration(heartbeat)),
        )
        .hint("set metastore.lock_heartbeat to less than half of it"),
        _ => Check::ok(AREA, what, abilities.locks_text()),
    }
}
