//! What one server is and can do, asked rather than assumed: nobody sets a version by hand, and none is concluded from another.
//!
//! `getVersion` answers "3.0" on all of 2.x and 3.x. Settings tell those apart: 2.x doesn't give out those whose names begin with `metastore.`.
//! Which database is behind it no server tells.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::{debug, info};

use super::super::contract::GET_META_CONF;
use super::{COLUMN_CHECK, CompareAndSwap, Metastore, MetastoreError, MetastoreResult};

/// The line of servers that one belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// lakesmith's own.
    Embedded,
    Two,
    Three,
    /// 4.x, or newer.
    Four,
}

/// What a server does to an entry whose columns differ from those before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnCheck {
    /// Nothing.
    Off,
    /// It refuses incompatible types at the same position (`metastore.disallow.incompatible.col.type.changes`), but for these SerDes.
    ByPosition {
        exempt: Vec<String>,
        /// A caller may set that aside.
        can_be_lifted: bool,
    },
}

/// What one server is and can do, but for comparing and swapping, which has to be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abilities {
    /// As the server says it.
    pub version: String,
    pub generation: Generation,
    /// Whether it has `get_table_req`, which is how entries are read.
    pub table_request: bool,
    /// Why its locks can't be used; none if they can.
    pub locks_broken: Option<String>,
    /// A lock without a heartbeat for so long ends, if anything looks for it; none if the server doesn't say.
    pub lock_timeout: Option<Duration>,
    /// Whether something looks for such locks; none if the server doesn't say.
    pub ends_dead_locks: Option<bool>,
    pub column_check: ColumnCheck,
}

/// A name that nobody gives to a table.
const NO_TABLE: &str = "lakesmith_no_such_table";
/// The default asked for: it comes back where a server has no such setting.
const NOT_SET: &str = "?";

impl Metastore {
    /// Asks a server what it is and can do. Nothing is changed by it.
    pub async fn abilities(&self) -> MetastoreResult<Abilities> {
        let version = self.server_version().await?;
        let generation = self.generation(&version).await?;
        let table_request = match self.table("default", NO_TABLE).await {
            Ok(_) => true,
            Err(MetastoreError::UnknownMethod { .. }) => false,
            Err(error) => return Err(error),
        };
        let locks_broken = match self.show_locks("default", NO_TABLE).await {
            Ok(_) => None,
            Err(error @ (MetastoreError::Transport { .. } | MetastoreError::Timeout { .. })) => return Err(error),
            Err(error) => Some(error.to_string()),
        };
        let lock_timeout = self.setting("hive.txn.timeout").await?.and_then(|text| duration(&text));
        let ends_dead_locks = self.ends_dead_locks(generation).await?;
        let column_check = self.column_check(generation).await?;
        Ok(Abilities { version, generation, table_request, locks_broken, lock_timeout, ends_dead_locks, column_check })
    }

    /// A setting of the server; none if it has none of that name, or keeps it to itself.
    async fn setting(&self, name: &str) -> MetastoreResult<Option<String>> {
        match self.config_value(name, NOT_SET).await {
            Ok(value) => Ok(Some(value).filter(|value| value != NOT_SET)),
            Err(MetastoreError::InvalidObject { .. } | MetastoreError::UnknownMethod { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn generation(&self, version: &str) -> MetastoreResult<Generation> {
        if version.contains("lakesmith") {
            return Ok(Generation::Embedded);
        }
        let major: Option<u32> = version.split('.').next().and_then(|major| major.parse().ok());
        if major.is_some_and(|major| major >= 4) {
            return Ok(Generation::Four);
        }
        match self.config_value("metastore.txn.timeout", NOT_SET).await {
            Ok(_) => Ok(Generation::Three),
            Err(MetastoreError::InvalidObject { .. }) => Ok(Generation::Two),
            Err(error) => Err(error),
        }
    }

    /// Locks of killed clients are ended by a thread that older servers start beside the compactor only.
    async fn ends_dead_locks(&self, generation: Generation) -> MetastoreResult<Option<bool>> {
        const TASK: &str = "AcidHouseKeeperService";
        let is_on = |value: Option<String>| value.map(|value| value.trim().eq_ignore_ascii_case("true"));
        let names_it = |value: &Option<String>| value.as_ref().is_some_and(|tasks| tasks.contains(TASK));
        Ok(match generation {
            Generation::Embedded => Some(true),
            Generation::Two => is_on(self.setting("hive.compactor.initiator.on").await?),
            Generation::Three => match names_it(&self.setting("metastore.task.threads.always").await?) {
                true => Some(true),
                false => is_on(self.setting("metastore.compactor.initiator.on").await?),
            },
            Generation::Four => {
                let on = is_on(self.setting("metastore.housekeeping.threads.on").await?);
                let (remote, always) = ("metastore.task.threads.remote", "metastore.task.threads.always");
                let listed = names_it(&self.setting(remote).await?) || names_it(&self.setting(always).await?);
                on.map(|on| on && listed)
            }
        })
    }

    async fn column_check(&self, generation: Generation) -> MetastoreResult<ColumnCheck> {
        let on = self.setting(COLUMN_CHECK).await?;
        if generation == Generation::Embedded || on.is_none_or(|on| on.trim().eq_ignore_ascii_case("false")) {
            return Ok(ColumnCheck::Off);
        }
        let exempt = self.setting("hive.metastore.allow.incompatible.col.type.changes.serdes").await?.unwrap_or_default();
        let exempt = exempt.split(',').map(str::trim).filter(|serde| !serde.is_empty()).map(str::to_owned).collect();
        let can_be_lifted = match self.read(&GET_META_CONF, [COLUMN_CHECK.into()]).await {
            Ok(_) => true,
            Err(error @ (MetastoreError::Transport { .. } | MetastoreError::Timeout { .. })) => return Err(error),
            Err(_) => false,
        };
        Ok(ColumnCheck::ByPosition { exempt, can_be_lifted })
    }

    /// Says in one line of the log what each server can do, once in the life of a client. `database` must exist.
    pub async fn tell(&self, database: &str) {
        if self.inner.told.swap(true, Ordering::Relaxed) {
            return;
        }
        // Tries all of them, so that each has its verdict below.
        if let Err(error) = self.compare_and_swap(database).await {
            debug!(%error, "the metastore was not probed ahead of time");
            self.inner.told.store(false, Ordering::Relaxed);
            return;
        }
        for (server, (address, metastore)) in self.each_server().into_iter().enumerate() {
            let Some(verdict) = self.inner.pool.servers().verdict(server) else { continue };
            match metastore.abilities().await {
                Ok(abilities) => info!(server = address, "{abilities}; expected values are {verdict}"),
                Err(error) => debug!(server = address, %error, "a metastore did not say what it can do"),
            }
        }
    }
}

/// A time as Hive writes it: `300s`, `5m`, `300000ms`, or seconds.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    text.parse().ok().map(Duration::from_secs).or_else(|| humantime::parse_duration(text).ok())
}

impl Abilities {
    /// The version for a person: where the server's own word for it says little, with its line.
    pub fn version_text(&self) -> String {
        match self.generation {
            Generation::Embedded => format!("embedded metastore {}", self.version),
            Generation::Two => format!("Hive Metastore 2.x (says {})", self.version),
            Generation::Three => format!("Hive Metastore 3.x (says {})", self.version),
            Generation::Four => format!("Hive Metastore {}", self.version),
        }
    }

    /// What becomes of the locks of a process that died, for a person.
    pub fn locks_text(&self) -> String {
        match (&self.locks_broken, self.lock_timeout, self.ends_dead_locks) {
            (Some(reason), ..) => format!("no locks: {reason}"),
            (None, _, Some(false)) => "locks, but nothing ends those of dead clients".to_owned(),
            (None, Some(timeout), _) => {
                format!("locks, which end {} after the last heartbeat", humantime::format_duration(timeout))
            }
            (None, None, _) => "locks".to_owned(),
        }
    }

    /// What the server does to changed columns, for a person.
    pub fn columns_text(&self) -> String {
        match &self.column_check {
            ColumnCheck::Off => "column types are not compared".to_owned(),
            ColumnCheck::ByPosition { exempt, .. } if exempt.is_empty() => "column types are compared by position".to_owned(),
            ColumnCheck::ByPosition { exempt, .. } => {
                let short: Vec<_> = exempt.iter().map(|serde| serde.rsplit('.').next().unwrap_or(serde)).collect();
                format!("column types are compared by position, but not for {}", short.join(" and "))
            }
        }
    }
}

impl fmt::Display for Abilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}; {}", self.version_text(), self.locks_text(), self.columns_text())?;
        if !self.table_request {
            write!(f, "; it has no get_table_req")?;
        }
        Ok(())
    }
}

impl fmt::Display for CompareAndSwap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Honoured => f.write_str("honoured"),
            Self::Ignored => f.write_str("ignored"),
            Self::Broken { reason } => write!(f, "broken ({})", reason.lines().next().unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_hive_writes_them() {
        for (text, seconds) in [("300s", 300), ("5m", 300), ("300000ms", 300), (" 20 ", 20), ("1h", 3600), ("5min", 300)] {
            assert_eq!(duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration("soon"), None);
    }

    #[test]
    fn one_line_says_it_all() {
        let abilities = Abilities {
            version: "4.0.1".into(),
            generation: Generation::Four,
            table_request: true,
            locks_broken: None,
            lock_timeout: Some(Duration::from_secs(300)),
            ends_dead_locks: Some(true),
            column_check: ColumnCheck::ByPosition {
                exempt: vec!["org.apache.iceberg.mr.hive.HiveIcebergSerDe".into()],
                can_be_lifted: true,
            },
        };
        assert_eq!(
            abilities.to_string(),
            "Hive Metastore 4.0.1; locks, which end 5m after the last heartbeat; column types are compared by position, but not for \
             HiveIcebergSerDe"
        );
        let old = Abilities { version: "3.0".into(), generation: Generation::Two, ends_dead_locks: Some(false), ..abilities };
        assert!(old.to_string().starts_with("Hive Metastore 2.x (says 3.0); locks, but nothing ends"), "{old}");
    }
}
