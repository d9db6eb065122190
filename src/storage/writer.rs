//! Writing one file: chunks, then a close that nothing cancels.

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::barrier::CloseBarrier;
use super::error::{Result, StorageError};
use super::local;
use crate::retry::with_deadline;

/// What a file system does for an open file. The order is writes, `finish`, `publish`; `discard` at any point instead.
#[async_trait]
pub(super) trait Sink: Send + 'static {
    async fn write(&mut self, content: Bytes) -> Result<()>;
    /// Makes the content durable. Has no deadline: it is run to its end.
    async fn finish(&mut self) -> Result<()>;
    /// Gives the file its name, if it does not have it yet.
    async fn publish(&mut self) -> Result<Published>;
    /// Removes the file, as well as it can.
    async fn discard(&mut self);
    /// What to do when `finish` passes its deadline: whatever served it is not to be used again.
    fn distrust(&self) -> Box<dyn FnOnce() + Send>;
    /// Where the close runs.
    fn runtime(&self) -> Handle;
}

/// What is left to do for a closed file to be durable.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Local directories whose entries have changed.
    pub directories: Vec<PathBuf>,
}

/// Takes the outcome of a close.
pub(super) type Tell = Box<dyn FnOnce(Result<Published>) + Send>;

/// A file being written. Dropped without a close it is removed.
pub struct FileWriter {
    location: String,
    call_timeout: Duration,
    sink: Option<Box<dyn Sink>>,
    bytes_written: u64,
    /// Set while a write is under way, so that a failed or cancelled write leaves it set.
    incomplete: bool,
}

impl FileWriter {
    pub(super) fn new(location: &str, call_timeout: Duration, sink: impl Sink) -> Self {
        Self { location: location.to_owned(), call_timeout, sink: Some(Box::new(sink)), bytes_written: 0, incomplete: false }
    }

    pub fn location(&self) -> &str {
        &self.location
    }

    pub fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// Appends. After an error, or when this call is cancelled, the file can only be aborted.
    pub async fn write(&mut self, content: Bytes) -> Result<(), StorageError> {
        let incomplete = StorageError::Incomplete { location: self.location.clone() };
        let Some(sink) = self.sink.as_mut().filter(|_| !self.incomplete) else { return Err(incomplete) };
        let size = content.len() as u64;
        self.incomplete = true;
        sink.write(content).await?;
        self.incomplete = false;
        self.bytes_written += size;
        Ok(())
    }

    /// Makes the file durable and visible; returns its size in bytes. Cancelling the call does not cancel the close. After an error the file
    /// is removed; after a timeout its fate is unknown, and an overwrite will not happen late.
    pub async fn close(mut self) -> Result<u64, StorageError> {
        let (tell, told) = oneshot::channel();
        self.start_close(Box::new(move |outcome| {
            // Nobody listens when the caller was cancelled; the close has happened all the same.
            let _ = tell.send(outcome);
        }));
        let published = told.await.unwrap_or_else(|_| Err(interrupted(&self.location)))?;
        local::sync_directories(published.directories, self.call_timeout).await?;
        Ok(self.bytes_written)
    }

    /// Hands the close to a barrier and returns at once; the file is durable when the barrier's wait succeeds.
    pub fn defer_close(mut self, barrier: &CloseBarrier) {
        let tell = barrier.expect_close(&self.location, self.call_timeout);
        self.start_close(tell);
    }

    /// Removes the file.
    pub async fn abort(mut self) {
        if let Some(sink) = self.sink.take() {
            // In a task, so that a cancelled abort still removes the file.
            let _ = discard_in_task(sink).await;
        }
    }

    fn start_close(&mut self, tell: Tell) {
        let Some(sink) = self.sink.take() else { return };
        let location = self.location.clone();
        if self.incomplete {
            drop(discard_in_task(sink));
            return tell(Err(StorageError::Incomplete { location }));
        }
        sink.runtime().spawn(close_to_the_end(sink, location, self.call_timeout, tell));
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            tracing::debug!(location = self.location, "a file was given up before its close; it is removed");
            drop(discard_in_task(sink));
        }
    }
}

fn discard_in_task(mut sink: Box<dyn Sink>) -> tokio::task::JoinHandle<()> {
    sink.runtime().spawn(async move { sink.discard().await })
}

/// Finishes and publishes a file. When finishing passes its deadline the caller is told, finishing goes on, publishing is left out: by then
/// another writer may have put its file there.
async fn close_to_the_end(mut sink: Box<dyn Sink>, location: String, deadline: Duration, tell: Tell) {
    const ACTION: &str = "close";
    let distrust = sink.distrust();
    let finished = {
        let mut finishing = pin!(sink.finish());
        match with_deadline(ACTION, deadline, &mut finishing).await {
            Ok(finished) => finished,
            Err(_) => {
                distrust();
                tell(Err(StorageError::Timeout { action: ACTION, location: location.clone(), deadline }));
                let late = finishing.await;
                tracing::info!(location, succeeded = late.is_ok(), "a close ended after its deadline");
                return;
            }
        }
    };
    let outcome = match finished {
        Ok(()) => sink.publish().await,
        Err(error) => Err(error),
    };
    if outcome.as_ref().is_err_and(|error| !matches!(error, StorageError::Timeout { .. })) {
        sink.discard().await;
    }
    tell(outcome);
}

/// The close was dropped with its runtime.
pub(super) fn interrupted(location: &str) -> StorageError {
    let reason = "the close was interrupted".to_owned();
    StorageError::Panicked { action: "close", location: location.to_owned(), reason }
}

/// Where an overwrite is written before it replaces the file: beside it, under a name that Hive, Spark and Trino skip.
pub(super) fn hidden_name(path: &str) -> String {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    format!("{directory}/.{name}.{}.tmp", Uuid::new_v4().simple())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// A file system that writes down what is asked of it.
    struct Recorder {
        calls: Arc<Mutex<Vec<&'static str>>>,
        write: fn() -> Result<()>,
        finish: Option<oneshot::Receiver<Result<()>>>,
    }

    #[async_trait]
    impl Sink for Recorder {
        async fn write(&mut self, _: Bytes) -> Result<()> {
            self.calls.lock().unwrap().push("write");
            (self.write)()
        }
        async fn finish(&mut self) -> Result<()> {
            let outcome = self.finish.take().unwrap().await.unwrap();
            self.calls.lock().unwrap().push("finish");
            outcome
        }
        async fn publish(&mut self) -> Result<Published> {
            self.calls.lock().unwrap().push("publish");
            Ok(Published::default())
        }
        async fn discard(&mut self) {
            self.calls.lock().unwrap().push("discard");
        }
        fn distrust(&self) -> Box<dyn FnOnce() + Send> {
            let calls = Arc::clone(&self.calls);
            Box::new(move || calls.lock().unwrap().push("distrust"))
        }
        fn runtime(&self) -> Handle {
            Handle::current()
        }
    }

    type Finish = oneshot::Sender<Result<()>>;

    fn writer(timeout: Duration, write: fn() -> Result<()>) -> (FileWriter, Finish, Arc<Mutex<Vec<&'static str>>>) {
        let (send, finish) = oneshot::channel();
        let calls = Arc::default();
        let sink = Recorder { calls: Arc::clone(&calls), write, finish: Some(finish) };
        (FileWriter::new("/t/file", timeout, sink), send, calls)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_cancelled_close_goes_on_to_its_end() {
        let (file, finish, calls) = writer(LONG, || Ok(()));
        let close = tokio::spawn(file.close());
        tokio::task::yield_now().await;
        close.abort();
        assert!(close.await.unwrap_err().is_cancelled());
        finish.send(Ok(())).unwrap();
        while calls.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*calls.lock().unwrap(), ["finish", "publish"]);
    }

    #[tokio::test]
    async fn a_close_after_its_deadline_is_told_and_ends_without_being_published() {
        let (file, finish, calls) = writer(Duration::from_millis(1), || Ok(()));
        assert!(matches!(file.close().await, Err(StorageError::Timeout { .. })));
        finish.send(Ok(())).unwrap();
        while calls.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*calls.lock().unwrap(), ["distrust", "finish"]);
    }

    #[tokio::test]
    async fn after_a_failed_write_a_close_is_refused_and_the_file_removed() {
        let (mut file, _finish, calls) = writer(LONG, || Err(interrupted("x")));
        file.write(Bytes::from_static(b"a")).await.unwrap_err();
        assert!(matches!(file.write(Bytes::from_static(b"b")).await, Err(StorageError::Incomplete { .. })));
        assert!(matches!(file.close().await, Err(StorageError::Incomplete { .. })));
        tokio::task::yield_now().await;
        assert_eq!(*calls.lock().unwrap(), ["write", "discard"]);
    }

    #[tokio::test]
    async fn a_failed_finish_removes_the_file_before_the_error_is_told() {
        let (mut file, finish, calls) = writer(LONG, || Ok(()));
        file.write(Bytes::from_static(b"abc")).await.unwrap();
        assert_eq!(file.bytes_written(), 3);
        finish.send(Err(interrupted("x"))).unwrap();
        file.close().await.unwrap_err();
        assert_eq!(*calls.lock().unwrap(), ["write", "finish", "discard"]);
    }

    #[test]
    fn overwrites_are_prepared_under_a_hidden_name_beside_the_file() {
        let name = hidden_name("/t/metadata/v1.json");
        assert!(name.starts_with("/t/metadata/.v1.json.") && name.ends_with(".tmp"), "{name}");
        assert!(hidden_name("/v1").starts_with("/.v1."));
    }
}
