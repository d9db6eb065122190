//! How long a cycle stays open: `commit_interval`, and longer where it would leave silver many small files.
//!
//! A commit adds a file to each table partition that its records belong to. Live records belong to one or two, and are committed at every
//! interval. Records of five years belong to sixty: committed every ten seconds, they would be half a million files a day, of some kilobytes
//! each, and each costs every query of the table. So such a cycle goes on, interval by interval, until its files are worth their number, it
//! has reached `commit_bytes`, or it is `commit_interval_max` old.
//!
//! *Invariants*: bronze and silver stay in one cycle, so nothing else depends on how long that is; and no record waits longer than
//! `commit_interval_max`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::table::Begun;

/// So many files are no matter, however small they are.
const FEW_FILES: u64 = 8;
/// Files of this size on average are worth their number, in bytes.
const WORTHY_BYTES: u64 = 1 << 20;

/// What one of silver's lanes would leave if it ended now; told by the lane after each batch, read by the session.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Gauge {
    pub fn tell(&self, begun: Begun) {
        self.files.store(begun.files as u64, Ordering::Relaxed);
        self.bytes.store(begun.bytes, Ordering::Relaxed);
    }

    fn read(&self) -> (u64, u64) {
        (self.files.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// Whether lanes would leave more than a few files, and small ones.
pub(super) fn many_and_small<'a>(lanes: impl Iterator<Item = &'a Gauge>) -> bool {
    let (files, bytes) = lanes.map(Gauge::read).fold((0, 0), |all, lane| (all.0 + lane.0, all.1 + lane.1));
    files > FEW_FILES && bytes < files * WORTHY_BYTES
}

/// When a cycle is due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rhythm {
    pub interval: Duration,
    /// At least the interval.
    pub longest: Duration,
}

/// The end of a cycle that has begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    rhythm: Rhythm,
    next: Instant,
    last: Instant,
}

impl Due {
    pub fn of_cycle(rhythm: Rhythm, begun: Instant) -> Self {
        Self { rhythm, next: begun + rhythm.interval, last: begun + rhythm.longest }
    }

    /// Counts from another moment.
    pub fn count_from(&mut self, begun: Instant) {
        *self = Self::of_cycle(self.rhythm, begun);
    }

    /// How long the cycle may still wait for records; nothing when it is due.
    pub fn wait(&self, now: Instant) -> Duration {
        self.next.saturating_duration_since(now)
    }

    /// Gives a cycle that is due another interval; false if it has had what it may have.
    pub fn put_off(&mut self, now: Instant) -> bool {
        let may = now < self.last;
        if may {
            self.next = (now + self.rhythm.interval).min(self.last);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scattered(lanes: &[(usize, u64)]) -> bool {
        let gauges: Vec<Gauge> = lanes.iter().map(|_| Gauge::default()).collect();
        for (gauge, (files, bytes)) in gauges.iter().zip(lanes) {
            gauge.tell(Begun { files: *files, bytes: *bytes });
        }
        many_and_small(gauges.iter())
    }

    #[test]
    fn live_records_wait_for_nobody() {
        assert!(!scattered(&[]), "silver may take no part");
        assert!(!scattered(&[(0, 0)]));
        assert!(!scattered(&[(2, 10_000)]));
        assert!(!scattered(&[(8, 10_000)]));
    }

    #[test]
    fn many_files_wait_until_they_are_worth_their_number() {
        assert!(scattered(&[(60, 4_000_000)]));
        assert!(!scattered(&[(60, 60 << 20)]));
        assert!(scattered(&[(5, 0), (4, 0)]), "each lane has files of its own");
    }

    #[test]
    fn a_cycle_is_put_off_by_intervals_and_not_beyond_its_last_moment() {
        let (interval, begun) = (Duration::from_secs(10), Instant::now());
        let mut due = Due::of_cycle(Rhythm { interval, longest: Duration::from_secs(25) }, begun);
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(due.wait(at(4)), Duration::from_secs(6));
        assert!(due.wait(at(10)).is_zero() && due.put_off(at(10)));
        assert_eq!(due.wait(at(10)), interval);
        assert!(due.put_off(at(20)));
        assert_eq!(due.wait(at(20)), Duration::from_secs(5), "the last interval is what is left");
        assert!(!due.put_off(at(25)));
        due.count_from(at(30));
        assert_eq!(due.wait(at(30)), interval);
    }
}
