//! How a table's pointer is protected while it moves: by the value that the commit expects, by the metastore's lock, or by both.
//!
//! Two questions decide. Do the table's other writers lock? Iceberg's Java writers do, unless the table says `engine.hive.lock-enabled=false`;
//! then they send an expected value instead. And does this server look at expected values? No version number tells; it is tried
//! ([`CompareAndSwap`]).
//!
//! | the table's writers | expected values are | the swap |
//! |---|---|---|
//! | don't lock (`false`) | honoured | sends the expected value |
//! | lock (`true`, or not said) | honoured | takes the lock and sends the expected value, for those who don't lock after all |
//! | lock | ignored, or broken | takes the lock; the value is not sent |
//! | don't lock | ignored, or broken | none: nothing would hold two writers apart |
//!
//! A table that lakesmith creates says `false` where the value is honoured, and `true` where it isn't.

use iceberg::TableIdent;

use super::entry::LOCK_ENABLED;
use super::{HiveCatalog, Version};
use crate::error::{Error, Result};
use crate::metastore::CompareAndSwap;

/// What protects a swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The server refuses the swap if the pointer has moved.
    Expected,
    /// The lock is held around the swap.
    Locked(ExpectedValue),
}

/// Whether a swap under the lock also says which pointer it expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExpectedValue {
    Sent,
    /// The server would ignore it, or refuse the call because of it.
    NotSent,
}

impl Way {
    /// Whether the server refuses the call if the pointer has moved, however late it arrives.
    pub fn is_fenced(self) -> bool {
        matches!(self, Self::Expected | Self::Locked(ExpectedValue::Sent))
    }
}

impl HiveCatalog {
    /// What protects commits to a table that exists, for a person; an error if nothing does.
    pub async fn protection(&self, ident: &TableIdent) -> Result<&'static str> {
        let loaded = self.load(ident).await?.ok_or_else(|| Error::stop(format!("table {ident} was dropped")))?;
        Ok(match self.way(ident, &loaded.version).await? {
            Way::Expected => "the expected value",
            Way::Locked(ExpectedValue::Sent) => "the lock and the expected value",
            Way::Locked(ExpectedValue::NotSent) => "the lock",
        })
    }

    /// The way in which this version of a table is replaced.
    pub(super) async fn way(&self, ident: &TableIdent, version: &Version) -> Result<Way> {
        let lock = version.metadata.properties().get(LOCK_ENABLED).is_none_or(|enabled| enabled.trim() != "false");
        let found = self.metastore().compare_and_swap(&ident.namespace.to_url_string()).await?;
        Ok(match (lock, found) {
            (false, CompareAndSwap::Honoured) => Way::Expected,
            (true, CompareAndSwap::Honoured) => Way::Locked(ExpectedValue::Sent),
            (true, CompareAndSwap::Ignored | CompareAndSwap::Broken { .. }) => Way::Locked(ExpectedValue::NotSent),
            (false, CompareAndSwap::Ignored) => {
                return Err(unprotected(ident, "does not look at the value that a commit expects"));
            }
            (false, CompareAndSwap::Broken { reason }) => {
                return Err(unprotected(ident, &format!("cannot compare the value that a commit expects ({reason})")));
            }
        })
    }
}

fn unprotected(ident: &TableIdent, found: &str) -> Error {
    Error::stop(format!(
        "table {ident} says that its writers don't lock ({LOCK_ENABLED}=false), but the metastore {found}: commits could be lost"
    ))
    .hint(format!(
        "set {LOCK_ENABLED}=true on the table (ALTER TABLE … SET TBLPROPERTIES in Spark) when no other writer is at work, so that all of \
         them lock; or use Hive Metastore 4.x or 2.3.10 on PostgreSQL or MySQL"
    ))
}
