//! `lakesmith locks`: who holds, or waits for, the metastore's locks on the pipeline's tables.

use std::time::Duration;

use super::Outcome;
use super::global::GlobalArguments;
use super::page::{self, Page, instant};
use crate::catalog::Lakehouse;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::gold::maintainer_lock;
use crate::query::locks::{self, TableLock};

/// List the metastore's locks on the pipeline's tables
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakesmith locks
  lakesmith locks --output json

A commit holds its table's lock for a moment where the metastore does not compare and swap; the
maintainer of a gold table holds the lock TABLE__lakesmith_maintainer for as long as it runs.

A lock whose holder is dead has no heartbeats. The metastore drops it after metastore.txn.timeout
(300s by default) since the last one; writers wait for that. Nothing here takes a lock away.")]
pub struct Arguments {
    /// Form of the list: a table for people, or one JSON object per line
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum OutputFormat {
    #[default]
    Table,
    Json,
}

/// Without a heartbeat for so long, a holder is worth a look: ours beat far more often.
const SILENT_MS: i64 = 60_000;

pub async fn run(global: &GlobalArguments, arguments: Arguments) -> Result<Outcome> {
    let config = global.pipeline()?.config;
    let lakehouse = Lakehouse::open(&config.metastore, &config.storage, &config.catalog).await?;
    let found = locks::locks(lakehouse.metastore(), &config.tables.database, &names(&config)).await;
    lakehouse.close().await;
    let found = found?;
    match arguments.output {
        OutputFormat::Json => {
            let lines = found.iter().map(serde_json::to_string).collect::<std::result::Result<Vec<_>, _>>();
            let lines = lines.map_err(|error| Error::failed("the list is not JSON").caused_by(error))?;
            if !lines.is_empty() {
                page::print(&lines.join("\n"))?;
            }
        }
        OutputFormat::Table if found.is_empty() => {
            page::print(&format!("no locks on the pipeline's tables in {}", config.tables.database))?;
        }
        OutputFormat::Table => {
            let now_ms = chrono::Utc::now().timestamp_millis();
            page::print(&list(&found, now_ms).to_string())?;
            if found.iter().any(|lock| is_silent(lock, now_ms)) {
                page::note(
                    "a lock without heartbeats may be a dead process's: the metastore drops it after metastore.txn.timeout \
                     (300s by default); nothing needs to be done, and nothing here takes it away",
                );
            }
        }
    }
    Ok(Outcome::Done)
}

/// Everything of the pipeline that may be locked.
fn names(config: &Config) -> Vec<String> {
    let mut names = vec![config.bronze.table.clone(), config.silver.table.clone(), config.silver.rejected_table()];
    names.extend(config.gold.iter().flat_map(|gold| [gold.table.clone(), maintainer_lock(&gold.table)]));
    names
}

fn is_silent(lock: &TableLock, now_ms: i64) -> bool {
    now_ms.saturating_sub(lock.last_heartbeat_ms.or(lock.since_ms).unwrap_or(now_ms)) > SILENT_MS
}

fn list(locks: &[TableLock], now_ms: i64) -> Page {
    let mut page =
        Page::new(["table", "lock", "state", "owner", "agent", "since (UTC)", "age", "last heartbeat (UTC)"]).right([1, 6]);
    for lock in locks {
        page.row([
            lock.table.clone(),
            lock.lock_id.to_string(),
            lock.state.to_string(),
            format!("{}@{}", lock.user, lock.host),
            lock.agent.clone().unwrap_or_else(|| "-".to_string()),
            lock.since_ms.map_or_else(|| "-".to_string(), instant),
            lock.since_ms.map_or_else(|| "-".to_string(), |since| age(now_ms.saturating_sub(since))),
            lock.last_heartbeat_ms.map_or_else(|| "-".to_string(), instant),
        ]);
    }
    page
}

/// Whole seconds as a person says them; the server's clock may be ahead of ours.
fn age(milliseconds: i64) -> String {
    humantime::format_duration(Duration::from_secs(u64::try_from(milliseconds / 1000).unwrap_or(0))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(since_ms: Option<i64>, last_heartbeat_ms: Option<i64>) -> TableLock {
        TableLock {
            database: "db".into(),
            table: "t".into(),
            lock_id: 42,
            state: if since_ms.is_some() { "acquired" } else { "waiting" },
            user: "ann".into(),
            host: "here".into(),
            agent: Some("lakesmith-1".into()),
            since_ms,
            last_heartbeat_ms,
        }
    }

    #[test]
    fn a_row_says_who_since_when_and_whether_it_lives() {
        let now_ms = 1_735_732_900_000;
        let text = list(&[lock(Some(now_ms - 125_900), Some(now_ms - 2_000)), lock(None, None)], now_ms).to_string();
        for part in ["ann@here", "lakesmith-1", "2m 5s", "2025-01-01 12:01:38", "waiting"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!is_silent(&lock(Some(0), Some(now_ms - 2_000)), now_ms));
        assert!(is_silent(&lock(Some(now_ms - 100_000), None), now_ms) && !is_silent(&lock(None, None), now_ms));
        assert_eq!(age(-5), "0s");
    }
}
