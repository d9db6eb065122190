//! Windows: which one an instant belongs to, and which partition a window belongs to.
//!
//! *Invariants*: a window is known by its start, in microseconds since 1970 UTC, a multiple of the length; `[start, start + length)`
//! holds an instant exactly once, before 1970 too.

use std::ops::Range;
use std::time::Duration;

use chrono::{DateTime, NaiveDate};

use super::settings::PartitionBy;
use crate::error::{Error, Result};
use crate::hive::PartitionKey;

pub const WINDOW_START: &str = "window_start";
pub const WINDOW_END: &str = "window_end";
pub const WINDOW_DATE: &str = "window_date";
pub const WINDOW_HOUR: &str = "window_hour";

const MICROS_PER_HOUR: i64 = 3_600_000_000;
const MICROS_PER_DAY: i64 = 24 * MICROS_PER_HOUR;

/// Instants that a window can hold: Hive names no day outside the years 1 to 9999.
pub const NAMEABLE_US: Range<i64> = -62_135_596_800_000_000..253_402_300_800_000_000;

/// The grid of windows and of their partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    length_us: i64,
    partition_by: PartitionBy,
}

impl Windows {
    /// `length` is positive, as settings have been validated.
    pub fn new(length: Duration, partition_by: PartitionBy) -> Self {
        Self { length_us: micros(length).max(1), partition_by }
    }

    pub fn length_us(&self) -> i64 {
        self.length_us
    }

    /// The start of the window that holds an instant.
    pub fn start_of(&self, instant_us: i64) -> i64 {
        instant_us.saturating_sub(instant_us.rem_euclid(self.length_us))
    }

    pub fn end_of(&self, start_us: i64) -> i64 {
        start_us.saturating_add(self.length_us)
    }

    /// The start of the partition that a window belongs to.
    pub fn partition_of(&self, start_us: i64) -> i64 {
        start_us.saturating_sub(start_us.rem_euclid(self.partition_us()))
    }

    /// All windows of a partition start in `[partition, this)`.
    pub fn partition_end(&self, partition_us: i64) -> i64 {
        partition_us.saturating_add(self.partition_us())
    }

    fn partition_us(&self) -> i64 {
        match self.partition_by {
            PartitionBy::Day => MICROS_PER_DAY,
            PartitionBy::Hour => MICROS_PER_HOUR,
        }
    }

    /// Names of the partition keys.
    pub fn partition_columns(&self) -> &'static [&'static str] {
        match self.partition_by {
            PartitionBy::Day => &[WINDOW_DATE],
            PartitionBy::Hour => &[WINDOW_DATE, WINDOW_HOUR],
        }
    }

    /// The key of the partition that begins at `partition_us`.
    pub fn partition_key(&self, partition_us: i64) -> Result<PartitionKey> {
        let start = DateTime::from_timestamp_micros(partition_us)
            .filter(|_| is_nameable(partition_us))
            .ok_or_else(|| Error::failed(format!("the instant {partition_us} µs lies outside the years 1 to 9999")))?;
        let values = [start.format("%Y-%m-%d").to_string(), start.format("%H").to_string()];
        Ok(PartitionKey::new(self.partition_columns().iter().copied().zip(values)))
    }

    /// The start of the partition that a key of ours names; none for other keys.
    pub fn partition_start(&self, key: &PartitionKey) -> Option<i64> {
        let values = key.values();
        let date = NaiveDate::parse_from_str(values.first()?, "%Y-%m-%d").ok()?;
        let hour = match self.partition_by {
            PartitionBy::Day => 0,
            PartitionBy::Hour => values.get(1)?.parse().ok()?,
        };
        Some(date.and_hms_opt(hour, 0, 0)?.and_utc().timestamp_micros())
    }
}

/// Whether a window can hold the instant.
pub fn is_nameable(instant_us: i64) -> bool {
    NAMEABLE_US.contains(&instant_us)
}

/// An instant as people read it.
pub fn display_instant(instant_us: i64) -> String {
    DateTime::from_timestamp_micros(instant_us)
        .map_or_else(|| format!("{instant_us} µs"), |instant| instant.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string())
}

pub fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn partitions_are_named_by_their_start_in_utc() {
        let by_day = Windows::new(Duration::from_secs(60), PartitionBy::Day);
        assert_eq!(by_day.partition_key(by_day.partition_of(-1)).unwrap().to_string(), "window_date=1969-12-31");
        let by_hour = Windows::new(Duration::from_secs(60), PartitionBy::Hour);
        let key = by_hour.partition_key(by_hour.partition_of(1_719_838_859_999_999)).unwrap();
        assert_eq!(key.to_string(), "window_date=2024-07-01/window_hour=13");
        assert!(by_day.partition_key(i64::MAX).is_err());
        assert!(by_day.partition_key(NAMEABLE_US.end).is_err());
    }

    proptest! {
        #[test]
        fn each_instant_has_one_window_on_the_grid(instant in NAMEABLE_US, seconds in 1u64..=86_400) {
            let windows = Windows::new(Duration::from_secs(seconds), PartitionBy::Day);
            let start = windows.start_of(instant);
            prop_assert!(start <= instant && instant < windows.end_of(start));
            prop_assert_eq!(start.rem_euclid(windows.length_us()), 0);
            prop_assert_eq!(windows.start_of(start), start);
            prop_assert_eq!(windows.start_of(start - 1), start - windows.length_us());
        }

        #[test]
        fn each_window_has_one_partition(start in NAMEABLE_US.start + MICROS_PER_DAY..NAMEABLE_US.end) {
            for partition_by in [PartitionBy::Day, PartitionBy::Hour] {
                let windows = Windows::new(Duration::from_secs(60), partition_by);
                let partition = windows.partition_of(start);
                prop_assert!(partition <= start && start < windows.partition_end(partition));
                let key = windows.partition_key(partition).unwrap();
                prop_assert_eq!(windows.partition_start(&key), Some(partition));
            }
        }
    }
}
