//! What a gold table is told to do by others than its maintainer: to get another definition, or to compute partitions again because rows of
//! silver were replaced. Both stand in one parameter; the maintainer, whichever process that is, does the work under its lease (see
//! [`super::redefine`]), and takes the parameter away with its last step.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::plan::GoldPlan;
use super::progress::{NEXT_DEFINITION, REVISION, Revision};
use super::silver::TimeRange;
use super::window::Windows;
use crate::checkpoint::{Coverage, OffsetRange, PartitionId, format_positions, parse_positions};
use crate::error::{Context, Error, Result};
use crate::hive::PartitionKey;
use crate::metastore::{CompareAndSwap, EnvironmentContext, HiveTable, Metastore};

/// What becomes of the rows that a table has when it gets another definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OldRows {
    /// They stay; new measures are null in them.
    Kept,
    /// Every partition is computed again from silver.
    Recomputed,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// The table gets another definition.
    Redefine(OldRows),
    /// Partitions are computed again by the definition that it has.
    Again(Again),
}

/// The definition that a table is to have, and what has to be done for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub fingerprint: String,
    pub work: Work,
}

impl Grant {
    /// What a table's entry says; none if it is to stay as it is.
    pub fn of_entry(entry: &HiveTable) -> Result<Option<Self>> {
        entry.parameter(NEXT_DEFINITION).map(str::parse).transpose()
    }

    /// Writes it into the table's entry, which was read before. False if the table's maintainer wrote at the same time: ask again.
    pub async fn write(&self, metastore: &Metastore, mut entry: HiveTable) -> Result<bool> {
        let (database, table) = (entry.database().to_owned(), entry.name().to_owned());
        let about = || format!("gold table {database}.{table} could not be told what to do");
        entry.set_parameter(NEXT_DEFINITION, self.to_string());
        let mut environment = EnvironmentContext::new().without_statistics();
        // With compare-and-swap the maintainer sees that somebody was at the table. Without it, it must not take this for a write of its own:
        // it writes its progress again, if that was lost to this.
        let honoured = metastore.compare_and_swap(&database).await.with_context(about)? == CompareAndSwap::Honoured;
        if let Some(revision) = entry.parameter(REVISION).map(str::to_owned).filter(|_| honoured) {
            let found: Revision = revision.parse()?;
            entry.set_parameter(REVISION, Revision { number: found.number + 1, ..found }.to_string());
            environment = environment.expecting(REVISION, &revision);
        }
        match metastore.alter_table(&database, &table, &entry, &environment).await {
            Err(error) if error.is_modified_conflict() => Ok(false),
            answer => answer.with_context(about).map(|()| true),
        }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.work {
            Work::Redefine(OldRows::Kept) => write!(f, "{} kept", self.fingerprint),
            Work::Redefine(OldRows::Recomputed) => write!(f, "{} recomputed", self.fingerprint),
            Work::Again(again) => write!(f, "{} again {again}", self.fingerprint),
        }
    }
}

impl FromStr for Grant {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let work = match text.split_once(' ') {
            Some((_, "kept")) => Some(Work::Redefine(OldRows::Kept)),
            Some((_, "recomputed")) => Some(Work::Redefine(OldRows::Recomputed)),
            Some((_, again)) => again.strip_prefix("again ").and_then(|again| again.parse().ok()).map(Work::Again),
            None => None,
        };
        let work = work.ok_or_else(|| {
            Error::stop(format!("parameter {NEXT_DEFINITION} is `{text}`, which lakesmith did not write"))
                .hint("take it away, and apply a new plan of `lakesmith schema plan`, or reprocess again")
        })?;
        let fingerprint = text.split(' ').next().unwrap_or_default().to_owned();
        Ok(Self { fingerprint, work })
    }
}

/// More stretches than this become one that holds them all: the text has to fit a parameter.
const SPANS_MAX: usize = 100;

/// Partitions that are to be computed again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Again {
    /// A partition, and at the end the table, says by this id that it is done.
    pub id: Uuid,
    /// Partitions that begin in one of these stretches of time.
    pub spans: Vec<TimeRange>,
    /// The first offsets of rows that were replaced: from there on silver is read anew for the windows that are open.
    pub floor: BTreeMap<PartitionId, i64>,
}

impl Again {
    /// Whether a partition that begins at that instant is concerned.
    pub fn covers(&self, partition_us: i64) -> bool {
        self.spans.iter().any(|span| span.from_us <= partition_us && partition_us < span.to_us)
    }

    /// Whether a partition, or at the end the table, is done, by its parameter `lakesmith.computed-again`.
    pub fn is_done(&self, computed_again: Option<&str>) -> bool {
        computed_again == Some(self.id.to_string().as_str())
    }

    /// All partitions that are concerned, whether they exist or not.
    pub fn partitions(&self, windows: &Windows) -> Result<BTreeMap<PartitionKey, i64>> {
        let mut partitions = BTreeMap::new();
        for span in &self.spans {
            let mut start = windows.partition_of(span.from_us);
            while start < span.to_us {
                partitions.insert(windows.partition_key(start)?, start);
                start = windows.partition_end(start);
            }
        }
        Ok(partitions)
    }
}

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spans: Vec<String> = self.spans.iter().map(|span| format!("{}..{}", span.from_us, span.to_us)).collect();
        let at = |(partition, offset): (&PartitionId, &i64)| {
            (*partition, Coverage { range: OffsetRange::new(*offset, *offset), records: 0 })
        };
        write!(f, "{} {} {}", self.id, spans.join(","), format_positions(&self.floor.iter().map(at).collect()))
    }
}

impl From<Again> for String {
    fn from(again: Again) -> Self {
        again.to_string()
    }
}

impl TryFrom<String> for Again {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Again {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::stop(format!("`{text}` does not say which partitions to compute again"));
        let mut parts = text.split(' ');
        let (Some(id), Some(spans), Some(floor), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(bad());
        };
        let span = |text: &str| {
            let (from, to) = text.split_once("..")?;
            Some(TimeRange { from_us: from.parse().ok()?, to_us: to.parse().ok()? })
        };
        let spans = spans.split(',').filter(|span| !span.is_empty()).map(span).collect::<Option<_>>().ok_or_else(bad)?;
        let floor = parse_positions(floor).map_err(|error| bad().caused_by(error))?;
        let floor = floor.into_iter().map(|(partition, coverage)| (partition, coverage.range.start)).collect();
        Ok(Self { id: id.parse().map_err(|_| bad())?, spans, floor })
    }
}

/// Collects the partitions of a gold table that rows of silver fall into.
pub struct Touched<'a> {
    plan: &'a GoldPlan,
    partitions: BTreeSet<i64>,
}

impl<'a> Touched<'a> {
    pub fn by(plan: &'a GoldPlan) -> Self {
        Self { plan, partitions: BTreeSet::new() }
    }

    /// Adds the partitions of rows with the plan's columns.
    pub fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        let windows = self.plan.windows();
        self.partitions.extend(self.plan.evaluate(rows)?.starts.iter().map(|start| windows.partition_of(*start)));
        Ok(())
    }

    /// The stretches that they make.
    pub fn spans(&self) -> Vec<TimeRange> {
        let mut spans: Vec<TimeRange> = Vec::new();
        for &start in &self.partitions {
            let end = self.plan.windows().partition_end(start);
            match spans.last_mut().filter(|last| last.to_us == start) {
                Some(last) => last.to_us = end,
                None => spans.push(TimeRange { from_us: start, to_us: end }),
            }
        }
        match (spans.first(), spans.last()) {
            (Some(first), Some(last)) if spans.len() > SPANS_MAX => {
                vec![TimeRange { from_us: first.from_us, to_us: last.to_us }]
            }
            _ => spans,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::settings::PartitionBy;
    use super::*;

    fn again() -> Again {
        let spans = vec![TimeRange { from_us: -86_400_000_000, to_us: 0 }, TimeRange { from_us: 1, to_us: 2 }];
        Again { id: Uuid::nil(), spans, floor: BTreeMap::from([(0, 17), (3, 0)]) }
    }

    #[test]
    fn grants_round_trip_and_nonsense_is_refused() {
        let none = Again { spans: Vec::new(), floor: BTreeMap::new(), ..again() };
        for work in [Work::Redefine(OldRows::Kept), Work::Redefine(OldRows::Recomputed), Work::Again(again()), Work::Again(none)]
        {
            let grant = Grant { fingerprint: "0123456789abcdef".into(), work };
            assert_eq!(grant.to_string().parse::<Grant>().unwrap(), grant);
        }
        for text in ["", "x", "x soon", "kept", "x again", "x again 1 2 3", "x again now 1..2 d"] {
            assert!(text.parse::<Grant>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_partitions_of_a_stretch_are_named_whether_they_exist_or_not() {
        let windows = Windows::new(Duration::from_secs(60), PartitionBy::Day);
        let partitions: Vec<String> = again().partitions(&windows).unwrap().keys().map(ToString::to_string).collect();
        assert_eq!(partitions, ["window_date=1969-12-31", "window_date=1970-01-01"]);
        assert!(again().covers(-1) && !again().covers(0) && again().covers(1));
    }
}
