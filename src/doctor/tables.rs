//! Where the tables stand, and who holds them up.

use chrono::Utc;
use iceberg::TableIdent;
use iceberg::spec::FormatVersion;

use super::Check;
use crate::bronze::TextTable;
use crate::catalog::Lakehouse;
use crate::error::{Context, Result};
use crate::gold::maintainer_lock;
use crate::pipeline::Definition;
use crate::query::locks::{self, TableLock};
use crate::table::logged::{LoggedForm, ParquetTable};
use crate::table::{Origin, RecordTable, TableFormat};

const AREA: &str = "tables";
const NOT_THERE: &str = "not there yet: the first run creates it";

/// Hive refuses such tables, and Trino 476 reads defaults as null.
const VERSION_3: &str = "a column with a default made it so; if Spark alone reads the tables, say so: tables.compatibility = [\"spark\"], \
                         else let the pipeline file name another table, which is filled anew";

/// Without a heartbeat for so long, a holder is worth a look: ours beat far more often.
const SILENT_MS: i64 = 60_000;

pub(super) async fn check(definition: &Definition, lakehouse: &Lakehouse, origin: Option<&Origin>) -> Vec<Check> {
    let database = &definition.tables.database;
    let mut checks = Vec::new();
    let rejected = definition.silver.rejected_table();
    let (bronze, silver) = (&definition.bronze, &definition.silver);
    let found = [
        (&bronze.table, of_records::<TextTable>(lakehouse, database, &bronze.table, bronze.format, origin).await),
        (&silver.table, of_records::<ParquetTable>(lakehouse, database, &silver.table, silver.format, origin).await),
        (&rejected, of_records::<ParquetTable>(lakehouse, database, &rejected, TableFormat::Iceberg, origin).await),
    ];
    for (name, found) in found {
        let what = format!("{database}.{name}");
        checks.push(match found {
            Ok(found) if found.has_version_3 && !definition.tables.compatibility.reads_defaults() => {
                Check::warning(AREA, what, format!("{}; of Iceberg's format version 3, which not all engines read", found.text))
                    .hint(VERSION_3)
            }
            Ok(found) => Check::ok(AREA, what, found.text),
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

/// A table that a run can work with.
struct Found {
    text: String,
    has_version_3: bool,
}

impl Found {
    fn of(text: impl Into<String>) -> Self {
        Self { text: text.into(), has_version_3: false }
    }
}

/// What a start asks of a table: readable, ours, from this topic, and protected.
async fn of_records<L: LoggedForm>(
    lakehouse: &Lakehouse,
    database: &str,
    name: &str,
    format: TableFormat,
    origin: Option<&Origin>,
) -> Result<Found> {
    let ident = TableIdent::from_strs([database, name])?;
    let catalog = lakehouse.catalog();
    let Some(table) = RecordTable::<L>::open(catalog, &ident, format).await? else { return Ok(Found::of(NOT_THERE)) };
    if let Some(origin) = origin {
        table.ensure_same_source(origin)?;
    }
    let records = table.checkpoint()?.unwrap_or_default().records();
    match &table {
        RecordTable::Lake(table) => {
            let snapshots = table.metadata().snapshots().len();
            let protection = catalog.protection(&ident).await.context("commits would not be protected")?;
            let text = format!("{records} records, {snapshots} snapshots, commits are protected by {protection}");
            Ok(Found { text, has_version_3: table.metadata().format_version() >= FormatVersion::V3 })
        }
        RecordTable::Logged(_) => {
            Ok(Found::of(format!("{records} records, commits are protected by a rename that does not replace")))
        }
    }
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
