//! Counts what a run writes, layer by layer, and tells the observer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::report::{LayerReport, Observer, Progress, RunReport, processor_time};

/// One commit of one table, as counted and logged.
#[derive(Debug, Clone)]
pub(super) struct CommitStats {
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
    pub busy: Duration,
}

/// Shared by the stages of a run.
#[derive(Clone)]
pub(super) struct Tally {
    inner: Arc<Mutex<Inner>>,
    observer: Arc<dyn Observer>,
    started: Instant,
    processor_before: Duration,
}

#[derive(Default)]
struct Inner {
    layers: Vec<LayerReport>,
    progress: Progress,
    first_commit: Option<Duration>,
}

impl Tally {
    pub fn new(observer: Arc<dyn Observer>) -> Self {
        Self { inner: Arc::default(), observer, started: Instant::now(), processor_before: processor_time() }
    }

    // A panic while counting must not hide the panic that follows it: counts stay usable.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut Inner)) {
        let progress = {
            let mut inner = self.lock();
            change(&mut inner);
            inner.progress
        };
        self.observer.progress(&progress);
    }

    pub fn expect(&self, records: u64) {
        self.update(|inner| inner.progress.records_expected = inner.progress.records_read + records);
    }

    pub fn read(&self, records: u64) {
        self.update(|inner| inner.progress.records_read += records);
    }

    /// Records that were read from bronze, and whose rows are committed.
    pub fn decided(&self, records: u64) {
        self.update(|inner| {
            inner.progress.records_read += records;
            inner.progress.records_committed += records;
        });
    }

    /// Records that were read but not committed are read again after a reload.
    pub fn reload(&self) {
        self.update(|inner| inner.progress.records_read = inner.progress.records_committed);
    }

    pub fn added_column(&self) {
        self.update(|inner| inner.progress.columns_added += 1);
    }

    pub fn layer(&self, layer: &'static str, table: &str) {
        let mut inner = self.lock();
        if !inner.layers.iter().any(|known| known.table == table) {
            inner.layers.push(LayerReport::new(layer, table));
        }
    }

    /// Adds time that a layer took beside its commits.
    pub fn busy(&self, table: &str, busy: Duration) {
        if let Some(layer) = self.lock().layers.iter_mut().find(|layer| layer.table == table) {
            layer.busy += busy;
        }
    }

    pub fn committed(&self, table: &str, stats: &CommitStats) {
        let elapsed = self.started.elapsed();
        self.update(|inner| {
            inner.first_commit.get_or_insert(elapsed);
            inner.progress.commits += 1;
            let Some(layer) = inner.layers.iter_mut().find(|layer| layer.table == table) else { return };
            layer.rows += stats.rows;
            layer.files += stats.files;
            layer.bytes += stats.bytes;
            layer.commits += 1;
            layer.busy += stats.busy;
            match layer.layer {
                "bronze" => inner.progress.records_committed += stats.rows,
                "rejected" => inner.progress.records_rejected += stats.rows,
                _ => {}
            }
        });
    }

    pub fn commits(&self) -> u64 {
        self.lock().progress.commits
    }

    pub fn report(&self) -> RunReport {
        let inner = self.lock();
        RunReport {
            layers: inner.layers.clone(),
            progress: inner.progress,
            elapsed: self.started.elapsed(),
            processor: processor_time().saturating_sub(self.processor_before),
            first_commit: inner.first_commit,
        }
    }
}
