//! Where the tables stand, and who holds them up.

use chrono::Utc;
use iceberg::TableIdent;

use super::Check;
use crate::bronze::{BronzeFormat, TextTable};
use crate::catalog::Lakehouse;
use crate::error::{Context, Result};
use crate::gold::maintainer_lock;
use crate::pipeline::Definition;
use crate::query::locks::{self, TableLock};
use crate::table::{LakeTable, Origin};

const AREA: &str = "tables";
const NOT_THERE: &str = "not there yet: the first run creates it";

/// Without a heartbeat for so long, a holder is worth a look: ours beat far more often.
const SILENT_MS: i64 = 60_000;

pub(super) async fn check(definition: &Definition, lakehouse: &Lakehouse, origin: Option<&Origin>) -> Vec<Check> {
    let database = &definition.tables.database;
    let mut checks = Vec::new();
    let rejected = definition.silver.rejected_table();
    for name in [&definition.bronze.table, &definition.silver.table, &rejected] {
        let what = format!("{database}.{name}");
        let is_text = *name == definition.bronze.table && definition.bronze.format == BronzeFormat::Hive;
        let found = match is_text {
            true => text_table(lakehouse, database, name, origin).await,
            false => iceberg_table(lakehouse, database, name, origin).await,
        };
        checks.push(match found {
            Ok(found) => Check::ok(AREA, what, found),
            Err(error) => Check::failed(AREA, what, &error),
        });
    }
    for gold in &definition.gold {
        let what = format!("{database}.{}", gold.table);
        checks.push(match lakehouse.metastore().table(database, &gold.table).await {
            Ok(Some(entry)) => Check::ok(AREA, what, format!("at {}", entry.location().unwrap_or("no location"))),
            Ok(None) => Check::ok(AREA, what, NOT_THERE),
            Err(error) => Check::failed(AREA, what, &error.into()),
        });
    }
    let mut names = vec![definition.bronze.table.clone(), definition.silver.table.clone(), rejected];
    names.extend(definition.gold.iter().flat_map(|gold| [gold.table.clone(), maintainer_lock(&gold.table)]));
    match locks::locks(lakehouse.metastore(), database, &names).await {
        Ok(found) => checks.extend(found.iter().map(held)),
        Err(error) => checks.push(Check::failed(AREA, "locks", &error)),
    }
    checks
}

/// What a start asks of a table: readable, ours, from this topic, and protected.
async fn iceberg_table(lakehouse: &Lakehouse, database: &str, name: &str, origin: Option<&Origin>) -> Result<String> {
    let ident = TableIdent::from_strs([database, name])?;
    let catalog = lakehouse.catalog();
    let Some(table) = LakeTable::open(catalog, &ident).await? else { return Ok(NOT_THERE.to_owned()) };
    if let Some(origin) = origin {
        table.ensure_same_source(origin)?;
    }
    let records = table.checkpoint()?.unwrap_or_default().records();
    let snapshots = table.metadata().snapshots().len();
    let protection = catalog.protection(&ident).await.context("commits would not be protected")?;
    Ok(format!("{records} records, {snapshots} snapshots, commits are protected by {protection}"))
}

/// The same of bronze in plain Hive form.
async fn text_table(lakehouse: &Lakehouse, database: &str, name: &str, origin: Option<&Origin>) -> Result<String> {
    let ident = TableIdent::from_strs([database, name])?;
    let Some(table) = TextTable::open(lakehouse.catalog(), &ident).await? else { return Ok(NOT_THERE.to_owned()) };
    if let Some(origin) = origin {
        table.ensure_same_source(origin)?;
    }
    let records = table.checkpoint()?.unwrap_or_default().records();
    Ok(format!("{records} records, commits are protected by a rename that does not replace"))
}

fn held(lock: &TableLock) -> Check {
    let what = format!("{}.{} lock {}", lock.database, lock.table, lock.lock_id);
    let found = format!("{} by {}@{}", lock.state, lock.user, lock.host);
    let seen = lock.last_heartbeat_ms.or(lock.since_ms).unwrap_or(0);
    let silent_ms = Utc::now().timestamp_millis().saturating_sub(seen);
    if silent_ms <= SILENT_MS {
        return Check::ok(AREA, what, found);
    }
    Check::warning(AREA, what, format!("{found}, without a heartbeat for {} s", silent_ms / 1_000))
        .hint("if its holder is dead, the metastore drops it after metastore.txn.timeout; `lakesmith locks` says more")
}
