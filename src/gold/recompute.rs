//! Computing windows again from silver.
//!
//! *Invariants*: exactly the rows below the given positions count, so the result fits beside live windows. Memory is bounded: when a
//! stretch of windows takes more than the limit, it is halved, down to a single window.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use futures::TryStreamExt;

use super::plan::GoldPlan;
use super::progress::Positions;
use super::silver::{SilverRows, TimeFilter, TimeRange};
use super::state::{State, rows_by_window};
use crate::error::Result;

/// Windows of a stretch of time.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    These(&'a BTreeSet<i64>),
    AllBut(&'a BTreeSet<i64>),
}

impl Wanted<'_> {
    fn contains(&self, start_us: i64) -> bool {
        match self {
            Self::These(windows) => windows.contains(&start_us),
            Self::AllBut(windows) => !windows.contains(&start_us),
        }
    }
}

/// A window computed from silver.
#[derive(Debug, Clone)]
pub struct Recomputed {
    pub rows: RecordBatch,
    /// Silver rows in it.
    pub input_rows: u64,
}

/// Computes the wanted windows that start in `stretch`, from the rows below `positions`. Windows without rows are not in the result.
pub async fn recompute(
    plan: &GoldPlan,
    silver: &dyn SilverRows,
    positions: &Positions,
    stretch: TimeRange,
    wanted: Wanted<'_>,
) -> Result<BTreeMap<i64, Recomputed>> {
    let limit = usize::try_from(plan.settings().memory_limit.as_u64()).unwrap_or(usize::MAX);
    let windows = plan.windows();
    let mut results = BTreeMap::new();
    let mut todo = vec![narrowed(stretch, wanted, windows.length_us())];
    while let Some(part) = todo.pop() {
        if part.from_us >= part.to_us {
            continue;
        }
        let halves = halve(part, windows.length_us());
        let limit = if halves.is_some() { limit } else { usize::MAX };
        match compute(plan, silver, positions, part, wanted, limit).await? {
            Some(state) => {
                for (start, window) in &state.windows {
                    results.insert(*start, Recomputed { rows: window.finish(plan, *start)?, input_rows: window.rows });
                }
            }
            None => todo.extend(halves.into_iter().flatten()),
        }
    }
    Ok(results)
}

/// The least stretch that holds all wanted windows.
fn narrowed(stretch: TimeRange, wanted: Wanted<'_>, length_us: i64) -> TimeRange {
    match wanted {
        Wanted::AllBut(_) => stretch,
        Wanted::These(windows) => {
            let mut inside = windows.range(stretch.from_us..stretch.to_us);
            let first = inside.next().copied();
            let last = inside.next_back().copied().or(first);
            match (first, last) {
                (Some(first), Some(last)) => TimeRange { from_us: first, to_us: last.saturating_add(length_us) },
                _ => TimeRange { from_us: stretch.from_us, to_us: stretch.from_us },
            }
        }
    }
}

/// Two stretches of whole windows; none for a single window.
fn halve(stretch: TimeRange, length_us: i64) -> Option<[TimeRange; 2]> {
    let length = stretch.to_us.saturating_sub(stretch.from_us);
    // Windows stand on a grid from 1970, which a partition's start need not be on.
    let middle = stretch.from_us.saturating_add(length / 2);
    let middle = middle.saturating_sub(middle.rem_euclid(length_us));
    (middle > stretch.from_us && length > length_us)
        .then_some([TimeRange { from_us: stretch.from_us, to_us: middle }, TimeRange { from_us: middle, to_us: stretch.to_us }])
}

/// None if it took more memory than the limit.
async fn compute(
    plan: &GoldPlan,
    silver: &dyn SilverRows,
    positions: &Positions,
    stretch: TimeRange,
    wanted: Wanted<'_>,
    limit_bytes: usize,
) -> Result<Option<State>> {
    let ranges = positions.iter().map(|(partition, coverage)| (*partition, coverage.range)).collect();
    // A window that starts before the end may end after it.
    let instants = TimeRange { from_us: stretch.from_us, to_us: stretch.to_us.saturating_add(plan.windows().length_us()) };
    let filter = TimeFilter { column: &plan.settings().time_column, range: instants };
    let mut batches = silver.read(&ranges, &plan.columns(), Some(filter)).await?;
    let mut state = State::default();
    while let Some(batch) = batches.try_next().await? {
        let evaluated = plan.evaluate(&batch)?;
        for (start, rows) in rows_by_window(&evaluated.starts) {
            if stretch.from_us <= start && start < stretch.to_us && wanted.contains(start) {
                state.add(plan, start, &rows, &evaluated)?;
            }
        }
        if state.memory_bytes() > limit_bytes {
            return Ok(None);
        }
    }
    Ok(Some(state))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn halves_meet_on_the_grid_until_one_window_is_left(from in -1000i64..1000, windows in 1i64..200, length in 1i64..50) {
            let mut stretch = TimeRange { from_us: from * length, to_us: (from + windows) * length };
            while let Some([first, second]) = halve(stretch, length) {
                prop_assert_eq!((first.from_us, first.to_us, second.to_us), (stretch.from_us, second.from_us, stretch.to_us));
                prop_assert!(first.from_us < first.to_us && second.from_us < second.to_us);
                prop_assert_eq!(first.to_us.rem_euclid(length), 0);
                stretch = if windows % 2 == 0 { first } else { second };
            }
            prop_assert_eq!(stretch.to_us - stretch.from_us, length);
        }
    }

    #[test]
    fn a_stretch_is_no_wider_than_what_is_wanted() {
        let windows = BTreeSet::from([10, 30, 90]);
        let stretch = TimeRange { from_us: 0, to_us: 50 };
        assert_eq!(narrowed(stretch, Wanted::These(&windows), 10), TimeRange { from_us: 10, to_us: 40 });
        assert_eq!(narrowed(stretch, Wanted::AllBut(&windows), 10), stretch);
        let none = narrowed(TimeRange { from_us: 40, to_us: 50 }, Wanted::These(&windows), 10);
        assert_eq!(none.from_us, none.to_us);
    }
}
