//! Runs the blocking half of a source beside the asynchronous runtime, one poll at a time.
//!
//! *Invariants*: a poll that was started is always finished and its batch handed out (or discarded by an assignment), also when the
//! future that started it was dropped: a batch can't fall between two calls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::task::JoinHandle;

use super::{Change, PollLimits, blocking};
use crate::checkpoint::PartitionId;
use crate::error::{Error, Result};
use crate::record::RawBatch;

/// Asks blocking work to come to its end soon.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Requests the stop when dropped: blocking work must not outlive the future that waits for it by much.
    pub fn on_drop(&self) -> StopOnDrop {
        StopOnDrop(self.clone())
    }
}

pub struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.request();
    }
}

/// Runs blocking work that watches a [`Stop`]; dropping the future requests it.
pub(crate) async fn stoppable<T: Send + 'static>(work: impl FnOnce(&Stop) -> Result<T> + Send + 'static) -> Result<T> {
    let stop = Stop::default();
    let _guard = stop.on_drop();
    blocking(move || work(&stop)).await
}

/// The blocking half of a source.
pub(crate) trait BatchReader: Send + 'static {
    /// Continues at these offsets and returns where each partition stands.
    fn assign(&mut self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<BTreeMap<PartitionId, i64>>;

    fn poll(&mut self, limits: &PollLimits, stop: &Stop) -> Result<Option<RawBatch>>;

    /// Brings nothing of these partitions, and of all others again.
    fn pause(&mut self, _partitions: &BTreeSet<PartitionId>) -> Result<()> {
        Ok(())
    }

    /// The change of partitions that waits for its answer.
    fn change(&self) -> Option<Change> {
        None
    }

    /// Answers it, and returns where each partition stands.
    fn answer(&mut self, _next_offsets: &BTreeMap<PartitionId, i64>) -> Result<BTreeMap<PartitionId, i64>> {
        Err(Error::failed("the source shares its partitions with nobody"))
    }

    /// Continues what is owned at these offsets, and returns where each partition stands.
    fn resume(&mut self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<BTreeMap<PartitionId, i64>> {
        self.assign(next_offsets)
    }

    /// Gives everything up.
    fn leave(&mut self) {}
}

/// The asynchronous half: owns the reader, the poll under way and the positions handed out.
pub(crate) struct Worker<R> {
    reader: Arc<Mutex<R>>,
    running: Option<(Stop, JoinHandle<Result<Option<RawBatch>>>)>,
    positions: BTreeMap<PartitionId, i64>,
}

impl<R: BatchReader> Worker<R> {
    pub fn new(reader: R) -> Self {
        Self { reader: Arc::new(Mutex::new(reader)), running: None, positions: BTreeMap::new() }
    }

    pub fn positions(&self) -> &BTreeMap<PartitionId, i64> {
        &self.positions
    }

    pub async fn assign(&mut self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<()> {
        if let Some((stop, running)) = &mut self.running {
            stop.request();
            // Its batch belongs to the assignment that ends here; its error would come again.
            let _ = running.await;
            self.running = None;
        }
        let (reader, next_offsets) = (self.reader.clone(), next_offsets.clone());
        self.positions = blocking(move || lock(&reader)?.assign(&next_offsets)).await?;
        Ok(())
    }

    /// A poll under way is waited for, and may still bring some of these partitions.
    pub async fn pause(&mut self, partitions: &BTreeSet<PartitionId>) -> Result<()> {
        let (reader, partitions) = (self.reader.clone(), partitions.clone());
        blocking(move || lock(&reader)?.pause(&partitions)).await
    }

    /// None while a poll is under way: what it brings comes first.
    pub fn change(&self) -> Option<Change> {
        if self.running.is_some() {
            return None;
        }
        lock(&self.reader).ok()?.change()
    }

    pub async fn answer(&mut self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<()> {
        if self.running.is_some() {
            return Err(Error::failed("partitions changed hands while the source was being read"));
        }
        let (reader, next_offsets) = (self.reader.clone(), next_offsets.clone());
        self.positions = blocking(move || lock(&reader)?.answer(&next_offsets)).await?;
        Ok(())
    }

    pub async fn resume(&mut self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<()> {
        if self.running.is_some() {
            return Err(Error::failed("offsets were changed while the source was being read"));
        }
        let (reader, next_offsets) = (self.reader.clone(), next_offsets.clone());
        self.positions = blocking(move || lock(&reader)?.resume(&next_offsets)).await?;
        Ok(())
    }

    /// Ends reading for good.
    pub async fn leave(&mut self) -> Result<()> {
        if let Some((stop, running)) = &mut self.running {
            stop.request();
            let _ = running.await;
            self.running = None;
        }
        let reader = self.reader.clone();
        blocking(move || {
            lock(&reader)?.leave();
            Ok(())
        })
        .await
    }

    /// Asks the blocking half something that needs no poll to end first; it waits for one that is under way.
    pub async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&R) -> Result<T> + Send + 'static) -> Result<T> {
        let reader = self.reader.clone();
        blocking(move || question(&*lock(&reader)?)).await
    }

    pub async fn poll(&mut self, limits: &PollLimits) -> Result<Option<RawBatch>> {
        let (_, running) = self.running.get_or_insert_with(|| {
            let (reader, limits, stop) = (self.reader.clone(), *limits, Stop::default());
            let work_stop = stop.clone();
            (stop, tokio::task::spawn_blocking(move || lock(&reader)?.poll(&limits, &work_stop)))
        });
        let outcome = running.await;
        self.running = None;
        let batch =
            outcome.map_err(|error| Error::failed("the task that reads the source ended unexpectedly").caused_by(error))??;
        for (partition, coverage) in batch.iter().flat_map(|batch| &batch.delta.partitions) {
            self.positions.insert(*partition, coverage.range.end);
        }
        Ok(batch)
    }
}

impl<R> Drop for Worker<R> {
    fn drop(&mut self) {
        if let Some((stop, _)) = &self.running {
            stop.request();
        }
    }
}

fn lock<R>(reader: &Mutex<R>) -> Result<MutexGuard<'_, R>> {
    reader.lock().map_err(|_| Error::failed("the source is not usable after an earlier panic"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::source::RawBatchBuilder;

    /// Hands out one record per poll, when the test lets it.
    struct OnSignal {
        builder: RawBatchBuilder,
        signal: mpsc::Receiver<()>,
    }

    impl BatchReader for OnSignal {
        fn assign(&mut self, next_offsets: &BTreeMap<PartitionId, i64>) -> Result<BTreeMap<PartitionId, i64>> {
            self.builder.reset(next_offsets, |_| false);
            Ok(self.builder.positions())
        }

        fn poll(&mut self, _: &PollLimits, stop: &Stop) -> Result<Option<RawBatch>> {
            while !stop.requested() {
                if self.signal.recv_timeout(Duration::from_millis(10)).is_ok() {
                    let next = self.builder.position(0).unwrap();
                    self.builder.append(0, next, None, None, None, &[]);
                    return Ok(Some(self.builder.finish(0)?));
                }
            }
            Ok(None)
        }
    }

    #[tokio::test]
    async fn a_dropped_poll_loses_nothing_and_an_assignment_discards_it() {
        let (send, signal) = mpsc::channel();
        let mut worker = Worker::new(OnSignal { builder: RawBatchBuilder::new("t"), signal });
        worker.assign(&BTreeMap::from([(0, 5)])).await.unwrap();
        {
            let limits = PollLimits::default();
            let mut poll = std::pin::pin!(worker.poll(&limits));
            assert!(futures::poll!(&mut poll).is_pending());
        }
        assert_eq!(worker.positions()[&0], 5);
        send.send(()).unwrap();
        let batch = worker.poll(&PollLimits::default()).await.unwrap().unwrap();
        assert_eq!(batch.delta.partitions[&0].range.start, 5);
        assert_eq!(worker.positions()[&0], 6);
        {
            let limits = PollLimits::default();
            let mut poll = std::pin::pin!(worker.poll(&limits));
            assert!(futures::poll!(&mut poll).is_pending());
        }
        worker.assign(&BTreeMap::from([(0, 2)])).await.unwrap();
        send.send(()).unwrap();
        let batch = worker.poll(&PollLimits::default()).await.unwrap().unwrap();
        assert_eq!(batch.delta.partitions[&0].range.start, 2);
    }
}
