//! How far a gold table has come, as it stands in the parameters of the table and of its partitions.
//!
//! A partition says at which silver positions it equals the `GROUP BY`. The table, written last, says from where to go on. Both are
//! plain text that a person can read in `describe formatted`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::checkpoint::{Coverage, OffsetRange, PartitionId, format_positions, parse_positions};
use crate::completeness::{COMPLETE_UNTIL, format_instant, parse_instant};
use crate::error::{Error, Result};

pub const POSITIONS: &str = "lakesmith.positions";
pub const EPOCH: &str = "lakesmith.epoch";
pub const SILVER_UUID: &str = "lakesmith.silver-uuid";
pub const SILVER_SNAPSHOT: &str = "lakesmith.silver-snapshot";
pub const REVISION: &str = "lakesmith.revision";
/// Fingerprint of the definition by which a table, or a partition's version, was computed.
pub const DEFINITION: &str = "lakesmith.definition";
/// That definition, as JSON.
pub const DEFINITION_TEXT: &str = "lakesmith.definition-text";
/// What the table is to become: a fingerprint, and what becomes of the rows that it has.
pub const NEXT_DEFINITION: &str = "lakesmith.next-definition";
/// Of a partition, and of a table: the reprocessing of silver after which it was computed again.
pub const COMPUTED_AGAIN: &str = "lakesmith.computed-again";
/// Of a partition: measures that are null in rows from before the table had them, in the order in which they were added.
pub const NULL_COLUMNS: &str = "lakesmith.null-columns";
const FLOOR: &str = "lakesmith.floor";
const CLOSED_BEFORE: &str = "lakesmith.closed-before";
const WATERMARK: &str = "lakesmith.watermark";
const COLD_WINDOWS: &str = "lakesmith.cold-windows";

/// Silver's ranges that gold covers, by topic partition. `records` counts silver's rows in them.
pub type Positions = BTreeMap<PartitionId, Coverage>;

/// How many cold windows are remembered in the parameters: a list below the 32,672 bytes of one parameter.
pub const COLD_WINDOWS_MAX: usize = 1_500;

/// Which change of the table's parameters this is: the maintainer's epoch, and a number that grows with each of its writes.
///
/// It is what a compare-and-swap compares: a take-over and a refresh change the same parameter, so neither can miss the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Revision {
    pub epoch: u64,
    pub number: u64,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.number)
    }
}

impl FromStr for Revision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('.').and_then(|(epoch, number)| Some((epoch.parse().ok()?, number.parse().ok()?)));
        let (epoch, number) = parts.ok_or_else(|| bad(REVISION, text))?;
        Ok(Self { epoch, number })
    }
}

/// What a restart needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    pub positions: Positions,
    /// The least offset that an open window needs, by topic partition; at most the next offset.
    pub floor: BTreeMap<PartitionId, i64>,
    /// Windows that end here or earlier are not in memory.
    pub closed_before_us: i64,
    pub watermark_us: i64,
    /// Windows that end later but are not in memory either.
    pub cold: BTreeSet<i64>,
    pub silver_uuid: Option<Uuid>,
    pub silver_snapshot: Option<i64>,
    /// What silver states for the positions, in milliseconds.
    pub complete_until_ms: Option<i64>,
}

impl Progress {
    /// The progress of a table that has covered nothing.
    pub fn start() -> Self {
        Self { closed_before_us: i64::MIN, watermark_us: i64::MIN, ..Self::default() }
    }

    /// The ranges of silver that a restart reads to have its open windows again.
    pub fn replay(&self) -> BTreeMap<PartitionId, OffsetRange> {
        let ranges = self.positions.iter().map(|(&partition, coverage)| {
            let floor = self.floor.get(&partition).copied().unwrap_or(coverage.range.start);
            (partition, OffsetRange { start: floor.clamp(coverage.range.start, coverage.range.end), end: coverage.range.end })
        });
        ranges.filter(|(_, range)| !range.is_empty()).collect()
    }

    /// Has a restart read silver from these offsets on, at least: rows behind them were replaced.
    pub fn lower_floor(&mut self, offsets: &BTreeMap<PartitionId, i64>) {
        for (partition, floor) in &mut self.floor {
            if let Some(offset) = offsets.get(partition) {
                *floor = *offset.min(floor);
            }
        }
    }

    pub fn to_parameters(&self) -> Vec<(&'static str, Option<String>)> {
        let replay =
            self.replay().into_iter().map(|(partition, range)| (partition, Coverage { range, records: range.len() as u64 }));
        let instant = |instant: i64| (instant != i64::MIN).then(|| instant.to_string());
        let cold = self.cold.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
        vec![
            (POSITIONS, Some(format_positions(&self.positions))),
            (FLOOR, Some(format_positions(&replay.collect()))),
            (CLOSED_BEFORE, instant(self.closed_before_us)),
            (WATERMARK, instant(self.watermark_us)),
            (COLD_WINDOWS, (!cold.is_empty()).then_some(cold)),
            (SILVER_UUID, self.silver_uuid.map(|uuid| uuid.to_string())),
            (SILVER_SNAPSHOT, self.silver_snapshot.map(|snapshot| snapshot.to_string())),
            (COMPLETE_UNTIL, self.complete_until_ms.map(format_instant)),
        ]
    }

    /// Reads what [`Progress::to_parameters`] wrote.
    pub fn from_parameters<'a>(parameter: impl Fn(&str) -> Option<&'a str>) -> Result<Self> {
        let instant = |name: &str| match parameter(name) {
            None => Ok(i64::MIN),
            Some(text) => text.parse::<i64>().map_err(|_| bad(name, text)),
        };
        let positions = match parameter(POSITIONS) {
            None => return Ok(Self::start()),
            Some(text) => parse_positions(text).map_err(|error| bad(POSITIONS, text).caused_by(error))?,
        };
        let floor_text = parameter(FLOOR).unwrap_or("d");
        let replay = parse_positions(floor_text).map_err(|error| bad(FLOOR, floor_text).caused_by(error))?;
        let floor = positions
            .iter()
            .map(|(partition, coverage)| (*partition, replay.get(partition).map_or(coverage.range.end, |part| part.range.start)))
            .collect();
        let cold = match parameter(COLD_WINDOWS) {
            None => BTreeSet::new(),
            Some(text) => {
                text.split(',').map(|start| start.parse().map_err(|_| bad(COLD_WINDOWS, text))).collect::<Result<_>>()?
            }
        };
        Ok(Self {
            positions,
            floor,
            closed_before_us: instant(CLOSED_BEFORE)?,
            watermark_us: instant(WATERMARK)?,
            cold,
            silver_uuid: parse_optional(SILVER_UUID, parameter(SILVER_UUID))?,
            silver_snapshot: parse_optional(SILVER_SNAPSHOT, parameter(SILVER_SNAPSHOT))?,
            complete_until_ms: parameter(COMPLETE_UNTIL).and_then(parse_instant),
        })
    }
}

fn parse_optional<T: FromStr>(name: &str, text: Option<&str>) -> Result<Option<T>> {
    text.map(|text| text.parse().map_err(|_| bad(name, text))).transpose()
}

fn bad(name: &str, text: &str) -> Error {
    let text: String = text.chars().take(80).collect();
    Error::stop(format!("parameter {name} is `{text}`, which lakesmith did not write"))
        .hint("drop the gold table: it is computed again from silver")
}

/// How many silver rows each window of a partition has, as it stands in its file's footer: `start=rows;…`. A recompute that finds
/// fewer has lost its input.
pub fn format_window_rows(rows: &BTreeMap<i64, u64>) -> String {
    rows.iter().map(|(start, rows)| format!("{start}={rows}")).collect::<Vec<_>>().join(";")
}

/// Reads what [`format_window_rows`] wrote; what it did not write counts as unknown.
pub fn parse_window_rows(text: &str) -> BTreeMap<i64, u64> {
    let pair = |part: &str| {
        let (start, rows) = part.split_once('=')?;
        Some((start.parse().ok()?, rows.parse().ok()?))
    };
    text.split(';').filter_map(pair).collect()
}

/// Footer key of [`format_window_rows`].
pub const WINDOW_ROWS: &str = "lakesmith.window-rows";

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn read_back(progress: &Progress) -> Progress {
        let parameters: HashMap<&str, String> =
            progress.to_parameters().into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        Progress::from_parameters(|name| parameters.get(name).map(String::as_str)).unwrap()
    }

    #[test]
    fn a_fresh_table_has_no_progress() {
        assert_eq!(Progress::from_parameters(|_| None).unwrap(), Progress::start());
    }

    #[test]
    fn nonsense_is_refused() {
        for (name, text) in [(POSITIONS, "y"), (SILVER_UUID, "1"), (COLD_WINDOWS, "1,,2"), (CLOSED_BEFORE, "soon")] {
            let parameter = |wanted: &str| if wanted == name { Some(text) } else { (wanted == POSITIONS).then_some("d;0:0+1") };
            assert!(Progress::from_parameters(parameter).is_err(), "{name}");
        }
        assert!("1".parse::<Revision>().is_err());
        assert_eq!("3.14".parse::<Revision>().unwrap(), Revision { epoch: 3, number: 14 });
    }

    #[test]
    fn the_longest_cold_list_fits_one_parameter() {
        let cold = (0..COLD_WINDOWS_MAX as i64).map(|window| -62_135_596_800_000_000 + window).collect();
        let progress = Progress { cold, ..Progress::start() };
        assert!(progress.to_parameters().iter().all(|(_, value)| value.as_ref().is_none_or(|value| value.len() < 32_672)));
    }

    proptest! {
        #[test]
        fn progress_round_trips(
            ranges in prop::collection::btree_map(0..50i32, (0i64..1000, 0i64..1000, 0.0..=1.0f64), 0..20),
            closed in prop::option::of(any::<i64>()),
            cold in prop::collection::btree_set(any::<i64>(), 0..5),
        ) {
            let positions: Positions = ranges.iter().map(|(partition, (start, length, _))| {
                (*partition, Coverage { range: OffsetRange::new(*start, start + length), records: *length as u64 })
            }).collect();
            let floor = ranges.iter().map(|(partition, (start, length, share))| (*partition, start + (*length as f64 * share) as i64)).collect();
            let progress = Progress {
                positions,
                floor,
                closed_before_us: closed.unwrap_or(i64::MIN),
                watermark_us: i64::MIN,
                cold,
                silver_uuid: Some(Uuid::nil()),
                silver_snapshot: Some(-5),
                complete_until_ms: Some(1_735_732_800_123),
            };
            prop_assert_eq!(read_back(&progress), progress);
        }

        #[test]
        fn window_rows_round_trip(rows in prop::collection::btree_map(any::<i64>(), any::<u64>(), 0..50)) {
            prop_assert_eq!(parse_window_rows(&format_window_rows(&rows)), rows);
        }
    }
}
