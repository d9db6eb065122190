//! The `[[gold]]` blocks of a pipeline file.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::record::KAFKA_TIMESTAMP;

/// One aggregate table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GoldSettings {
    /// Name of the Hive table, without its database.
    pub table: String,
    /// Directory of the table; empty: below the database's location.
    pub location: String,
    /// Name of a Hive view with snake_case columns and money as DOUBLE, for dashboards; empty: none.
    pub view: String,
    /// Names of view columns that shall not be the table column's name in snake_case: table column → view column.
    pub view_columns: BTreeMap<String, String>,
    /// Length of a window; windows are aligned to 1970-01-01 00:00 UTC. Whole seconds, at most 1 d. Default 1m.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// Silver column that says when a record happened. A record without a value counts at its `processing_timestamp`.
    /// Default `kafka_timestamp`: a replay gives the same result.
    pub time_column: String,
    /// Silver columns to group by beside the window; null is a group of its own.
    pub dimensions: Vec<String>,
    /// What is computed for each group.
    pub measures: Vec<MeasureSettings>,
    /// Partition of a window, by its start in UTC. Default `day`: `window_date`; `hour` adds `window_hour`.
    pub partition_by: PartitionBy,
    /// How often changed partitions are written at most. Default 30s.
    #[serde(with = "humantime_serde")]
    pub refresh_interval: Duration,
    /// How long after its end a window stays in memory; later records make it be computed again from silver. Default 10m.
    #[serde(with = "humantime_serde")]
    pub allowed_lateness: Duration,
    /// A topic partition without records for so long does not hold the watermark back while others advance. Default 1m.
    #[serde(with = "humantime_serde")]
    pub idle_after: Duration,
    /// Memory for open windows; beyond it the oldest are dropped and computed again from silver when they change. Default 128MiB.
    pub memory_limit: ByteSize,
    /// How long a replaced version of a partition is kept for readers. Default 1d.
    #[serde(with = "humantime_serde")]
    pub sweep_after: Duration,
}

/// How a gold table is partitioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartitionBy {
    #[default]
    Day,
    Hour,
}

/// One computed column.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasureSettings {
    /// Name of the column.
    pub name: String,
    /// One aggregate: `COUNT(*)`, `COUNT(x)`, `COUNT(DISTINCT x)`, `SUM(x)`, `AVG(x)`, `MIN(x)` or `MAX(x)`, where x is an SQL
    /// expression over silver columns.
    pub sql: String,
}

impl MeasureSettings {
    pub fn new(name: impl Into<String>, sql: impl Into<String>) -> Self {
        Self { name: name.into(), sql: sql.into() }
    }
}

impl Default for GoldSettings {
    fn default() -> Self {
        Self {
            table: String::new(),
            location: String::new(),
            view: String::new(),
            view_columns: BTreeMap::new(),
            window: Duration::from_secs(60),
            time_column: KAFKA_TIMESTAMP.into(),
            dimensions: Vec::new(),
            measures: Vec::new(),
            partition_by: PartitionBy::Day,
            refresh_interval: Duration::from_secs(30),
            allowed_lateness: Duration::from_secs(600),
            idle_after: Duration::from_secs(60),
            memory_limit: ByteSize::mib(128),
            sweep_after: Duration::from_secs(86_400),
        }
    }
}

impl GoldSettings {
    /// What can be checked without silver's schema.
    pub fn validate(&self) -> Result<()> {
        let bad = |what: String| Err(Error::config(format!("gold table {}: {what}", self.table)));
        if self.table.is_empty() {
            return Err(Error::config("a [[gold]] block has no table").hint("set gold.table"));
        }
        if self.measures.is_empty() {
            return bad("no measures are declared".into());
        }
        if self.window.is_zero() || self.window.subsec_nanos() != 0 || self.window > Duration::from_secs(86_400) {
            return bad(format!("window {} is not whole seconds up to 1d", humantime::format_duration(self.window)));
        }
        for (name, duration) in
            [("allowed_lateness", self.allowed_lateness), ("idle_after", self.idle_after), ("sweep_after", self.sweep_after)]
        {
            if duration > Duration::from_secs(366 * 86_400) {
                return bad(format!("{name} {} is longer than a year", humantime::format_duration(duration)));
            }
        }
        Ok(())
    }
}
