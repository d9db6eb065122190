//! What a run tells while it goes on ([`Observer`]) and when it has ended ([`RunReport`]).

use std::time::Duration;

/// The position of a run, told after each batch and commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Records read from the source in this run.
    pub records_read: u64,
    /// Records committed to bronze in this run.
    pub records_committed: u64,
    /// Records that the source had when the run started, beyond the tables' checkpoint: what `--until-caught-up` will read.
    pub records_expected: u64,
    /// Records rejected in this run.
    pub records_rejected: u64,
    /// Commits of all layers in this run.
    pub commits: u64,
    /// Fields of messages that have become columns in this run.
    pub columns_added: u64,
}

/// Is told of progress; called often, must return at once.
pub trait Observer: Send + Sync {
    fn progress(&self, progress: &Progress);
}

/// For runs that nobody watches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn progress(&self, _: &Progress) {}
}

/// What a run wrote to one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerReport {
    /// `bronze`, `silver`, `rejected` or `gold`.
    pub layer: &'static str,
    /// `database.table`.
    pub table: String,
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
    pub commits: u64,
    /// Time spent transforming, writing and committing.
    pub busy: Duration,
}

impl LayerReport {
    pub fn new(layer: &'static str, table: impl Into<String>) -> Self {
        Self { layer, table: table.into(), ..Self::default() }
    }
}

impl RunReport {
    /// Records committed to bronze per second, and per second of processor time; none if there were none.
    pub fn records_per_second(&self) -> Option<(f64, f64)> {
        let records = self.progress.records_committed as f64;
        let per = |time: Duration| records / time.as_secs_f64().max(0.001);
        (records > 0.0).then(|| (per(self.elapsed), per(self.processor)))
    }
}

/// What a run did.
#[derive(Debug, Clone, Default)]
pub struct RunReport {
    pub layers: Vec<LayerReport>,
    pub progress: Progress,
    pub elapsed: Duration,
    /// Processor time of the whole process, user and system, since the run began.
    pub processor: Duration,
    /// The first time anything was committed, from the start of the run.
    pub first_commit: Option<Duration>,
}

/// Processor time that this process has used so far, user and system.
pub(super) fn processor_time() -> Duration {
    // SAFETY: getrusage writes the whole of a struct of plain numbers that is ours, and fails only for another `who`.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let time = |value: libc::timeval| Duration::from_secs(value.tv_sec as u64) + Duration::from_micros(value.tv_usec as u64);
    time(usage.ru_utime) + time(usage.ru_stime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_count_what_bronze_has() {
        let mut report = RunReport { elapsed: Duration::from_secs(2), processor: Duration::from_secs(4), ..RunReport::default() };
        assert_eq!(report.records_per_second(), None);
        report.progress.records_committed = 100;
        assert_eq!(report.records_per_second(), Some((50.0, 25.0)));
    }

    #[test]
    fn processor_time_grows() {
        let before = processor_time();
        let mut sum = 0u64;
        while processor_time() == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(processor_time() > before);
    }
}
