//! The client of one HDFS, which is thrown away after a deadline or a panic.
//!
//! hdfs-native keeps one connection to the NameNode and has no timeout on it: a stopped NameNode hangs every later call, and a stale
//! encryption key panics in every later task. So each client is a *generation* with an I/O runtime of its own; when it is replaced and the last file
//! that it opened is gone, its runtime ends, and with it the tasks that hdfs-native never ends itself (lease renewal, heartbeats of dropped
//! writers). A runtime of its own also keeps heartbeats going while the caller's threads are busy computing.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use hdfs_native::{Client, ClientBuilder};
use tokio::runtime::{Handle, Runtime};

use super::explain::explain;
use crate::retry::with_deadline;
use crate::storage::error::{Result, StorageError};
use crate::storage::hadoop_conf::HadoopConf;

/// The port of a NameNode that is named without one (`HdfsClientConfigKeys.DFS_NAMENODE_RPC_PORT_DEFAULT`).
const NAMENODE_PORT: u16 = 8020;
/// Hadoop's fs.permissions.umask-mode.
const UMASK: u32 = 0o022;
/// Threads of a client's I/O runtime; reading or writing 300 MB/s keeps one of them busy.
const IO_THREADS: usize = 2;
const MAX_ATTEMPTS: &str = "dfs.client.failover.max.attempts";
/// Tries on a NameNode without a standby: its refusal is told within seconds; whoever called tries again within its own limits.
const MAX_ATTEMPTS_SINGLE: &str = "2";

/// What every client is built from.
#[derive(Debug, Clone)]
pub(in crate::storage) struct HdfsOptions {
    pub user: Option<String>,
    pub call_timeout: Duration,
    pub write_buffer_bytes: usize,
    pub replication: Option<u32>,
    pub block_size_bytes: Option<u64>,
    pub conf: Arc<HadoopConf>,
}

/// One HDFS, by its authority (`host:port` or a nameservice).
#[derive(Debug)]
pub(in crate::storage) struct Hdfs {
    authority: String,
    options: HdfsOptions,
    current: Mutex<Option<Arc<Generation>>>,
}

/// A client and the runtime that its tasks live in.
#[derive(Debug)]
pub(in crate::storage) struct Generation {
    client: Client,
    io: IoRuntime,
}

/// A runtime that may be dropped anywhere, also in one of its own tasks. An ordinary one waits for its threads then, and panics.
#[derive(Debug)]
struct IoRuntime(Option<Runtime>, Handle);

impl IoRuntime {
    fn start() -> std::io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(IO_THREADS).thread_name("hdfs-io").enable_all().build()?;
        let handle = runtime.handle().clone();
        Ok(Self(Some(runtime), handle))
    }
}

impl Drop for IoRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Generation {
    /// Where work that must outlive its caller runs.
    pub(super) fn io(&self) -> &Handle {
        &self.io.1
    }
}

impl Deref for Generation {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Hdfs {
    pub(in crate::storage) fn new(authority: String, options: HdfsOptions) -> Self {
        Self { authority, options, current: Mutex::new(None) }
    }

    pub(super) fn options(&self) -> &HdfsOptions {
        &self.options
    }

    /// The current client; the first call builds it. Nothing is sent yet.
    pub(super) fn client(&self, location: &str) -> Result<Arc<Generation>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(generation) = &*current {
            return Ok(Arc::clone(generation));
        }
        let generation = Arc::new(self.build(location)?);
        *current = Some(Arc::clone(&generation));
        Ok(generation)
    }

    fn build(&self, location: &str) -> Result<Generation> {
        let io = IoRuntime::start().map_err(|source| StorageError::from_io("start the HDFS client for", location, source))?;
        let conf = &self.options.conf;
        let mut properties: BTreeMap<String, String> = conf.iter().collect();
        let is_nameservice = properties.contains_key(&format!("dfs.ha.namenodes.{}", self.authority));
        let has_port = self.authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address =
            if is_nameservice || has_port { self.authority.clone() } else { format!("{}:{NAMENODE_PORT}", self.authority) };
        if !is_nameservice {
            properties.entry(MAX_ATTEMPTS.to_owned()).or_insert_with(|| MAX_ATTEMPTS_SINGLE.to_owned());
        }
        let mut builder =
            ClientBuilder::new().with_url(format!("hdfs://{address}")).with_config(properties).with_io_runtime(io.1.clone());
        if let Some(directory) = conf.directory() {
            builder = builder.with_config_dir(directory.to_string_lossy());
        }
        if let Some(user) = &self.options.user {
            builder = builder.with_user(user);
        }
        let client = builder.build().map_err(|error| explain("connect to", location, error))?;
        tracing::debug!(authority = self.authority, "new HDFS client");
        Ok(Generation { client, io })
    }

    /// Makes the next call build a new client, unless that has happened already.
    pub(super) fn discard(&self, generation: &Arc<Generation>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|held| Arc::ptr_eq(held, generation)) {
            *current = None;
        }
    }

    /// Runs one request on the current client, with a deadline.
    pub(super) async fn call<T>(
        &self,
        action: &'static str,
        location: &str,
        run: impl AsyncFnOnce(&Client) -> hdfs_native::Result<T>,
    ) -> Result<T> {
        let generation = self.client(location)?;
        self.guarded(action, location, &generation, run(&generation)).await
    }

    /// Gives a step of the client a deadline, contains its panic, explains its error.
    pub(super) async fn guarded<T>(
        &self,
        action: &'static str,
        location: &str,
        generation: &Arc<Generation>,
        step: impl Future<Output = hdfs_native::Result<T>>,
    ) -> Result<T> {
        let deadline = self.options.call_timeout;
        match with_deadline(action, deadline, self.contained(action, location, generation, step)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.discard(generation);
                Err(StorageError::Timeout { action, location: location.to_owned(), deadline })
            }
        }
    }

    /// Contains a panic and explains an error; no deadline.
    pub(super) async fn contained<T>(
        &self,
        action: &'static str,
        location: &str,
        generation: &Arc<Generation>,
        step: impl Future<Output = hdfs_native::Result<T>>,
    ) -> Result<T> {
        // What a panic leaves behind is not used again: the client is replaced, a writer refuses to go on.
        match AssertUnwindSafe(step).catch_unwind().await {
            Ok(outcome) => outcome.map_err(|error| explain(action, location, error)),
            Err(panic) => {
                self.discard(generation);
                let reason = panic_text(&*panic);
                Err(StorageError::Panicked { action, location: location.to_owned(), reason })
            }
        }
    }

    pub(super) fn umask(&self) -> u32 {
        let configured = self.options.conf.get("fs.permissions.umask-mode");
        configured.and_then(|octal| u32::from_str_radix(&octal, 8).ok()).filter(|umask| *umask <= 0o777).unwrap_or(UMASK)
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hdfs(authority: &str) -> Hdfs {
        let options = HdfsOptions {
            user: Some("tester".to_owned()),
            call_timeout: Duration::from_millis(50),
            write_buffer_bytes: 1 << 16,
            replication: None,
            block_size_bytes: None,
            conf: Arc::default(),
        };
        Hdfs::new(authority.to_owned(), options)
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error_and_the_next_call_gets_a_new_client() {
        let hdfs = hdfs("127.0.0.1:1");
        let first = hdfs.client("hdfs://x/a").unwrap();
        assert!(Arc::ptr_eq(&first, &hdfs.client("hdfs://x/a").unwrap()));
        let outcome = hdfs.call("read", "hdfs://x/a", async |_| -> hdfs_native::Result<()> { panic!("stale key") }).await;
        assert!(matches!(outcome, Err(StorageError::Panicked { reason, .. }) if reason == "stale key"));
        assert!(!Arc::ptr_eq(&first, &hdfs.client("hdfs://x/a").unwrap()));
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_an_error() {
        let outcome = hdfs("lake:99999").client("hdfs://lake:99999/a");
        assert!(matches!(outcome, Err(StorageError::InvalidLocation { .. })), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_passed_deadline_replaces_the_client_once() {
        let hdfs = hdfs("127.0.0.1:1");
        let first = hdfs.client("hdfs://x/a").unwrap();
        let outcome = hdfs.call("read", "hdfs://x/a", async |_| std::future::pending::<hdfs_native::Result<()>>().await).await;
        assert!(matches!(outcome, Err(StorageError::Timeout { .. })));
        let second = hdfs.client("hdfs://x/a").unwrap();
        hdfs.discard(&first);
        assert!(Arc::ptr_eq(&second, &hdfs.client("hdfs://x/a").unwrap()));
    }

    #[tokio::test]
    async fn the_last_owner_of_a_client_may_be_a_task_of_its_own() {
        let hdfs = hdfs("127.0.0.1:1");
        let generation = hdfs.client("hdfs://x/a").unwrap();
        hdfs.discard(&generation);
        let task = {
            let io = generation.io().clone();
            io.spawn(async move { drop(generation) })
        };
        // The task is either finished or cancelled by the end of its own runtime; neither may panic.
        assert!(task.await.map_or_else(|error| error.is_cancelled(), |()| true));
    }

    #[test]
    fn the_umask_of_the_cluster_is_honoured() {
        let directory = tempfile::tempdir().unwrap();
        let xml = "<configuration><property><name>fs.permissions.umask-mode</name><value>027</value></property></configuration>";
        std::fs::write(directory.path().join("core-site.xml"), xml).unwrap();
        let mut hdfs = hdfs("127.0.0.1:1");
        assert_eq!(hdfs.umask(), 0o022);
        hdfs.options.conf = Arc::new(HadoopConf::load(directory.path()).unwrap());
        assert_eq!(hdfs.umask(), 0o027);
    }
}
