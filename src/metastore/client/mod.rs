//! The client: Hive's metastore as async methods.
//!
//! Every exception that a method declares comes back as an error with the server's words. Reads are repeated once when a connection turns
//! out to be dead; writes are never repeated once a byte was sent (see [`MetastoreError::certainly_not_applied`]).
//!
//! Any of several servers will do for a call, but for those calls that only some of them understand as they are meant (`servers`).

mod abilities;
mod agent;
mod calls;
mod connection;
mod held_lock;
mod pool;
mod probe;
mod servers;
mod wire;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::JoinSet;

use super::contract::{self, Method};
use super::error::{MetastoreError, MetastoreResult};
use super::settings::MetastoreSettings;
use super::thrift::{List, Struct, Value};
use crate::error::{Context, Result};
use pool::{Pool, Repeat};
use servers::Among;

pub use abilities::{Abilities, ColumnCheck, Generation};
pub use held_lock::{HeldLock, Wait};
pub use probe::CompareAndSwap;
#[doc(hidden)]
pub use wire::{Dial, Wire};

/// The setting by which servers refuse incompatible types at the same place.
const COLUMN_CHECK: &str = "hive.metastore.disallow.incompatible.col.type.changes";

/// How long a process that ends waits for the answers to its last calls.
const FAREWELL: Duration = Duration::from_secs(5);

/// Whether dropping an entry takes the files with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteData {
    Yes,
    No,
}

/// Whether dropping a database takes its tables with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cascade {
    Yes,
    No,
}

/// Whether adding a partition that exists is fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfNotExists {
    Yes,
    No,
}

/// A metastore, over a few shared connections to any of its servers. Clones share them.
#[derive(Clone)]
pub struct Metastore {
    inner: Arc<Inner>,
    among: Among,
}

struct Inner {
    pool: Pool,
    /// Held by whoever finds out what a server makes of expected values: others wait for what is found.
    proving: Arc<tokio::sync::Mutex<()>>,
    told: AtomicBool,
    /// Locks that are being given back by nobody who waits for it.
    farewells: Mutex<JoinSet<()>>,
}

impl std::fmt::Debug for Metastore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metastore").field("uris", &self.inner.pool.settings().uris).finish_non_exhaustive()
    }
}

impl Metastore {
    /// Connects to one of the servers.
    pub async fn connect(settings: &MetastoreSettings) -> Result<Self> {
        Self::connect_through(settings, None).await
    }

    /// As [`Self::connect`], over connections of the test's making.
    #[doc(hidden)]
    pub async fn connect_through(settings: &MetastoreSettings, dial: Option<Arc<dyn Dial>>) -> Result<Self> {
        let pool = Pool::new(settings, dial)?;
        let (proving, told, farewells) = (Arc::default(), AtomicBool::new(false), Mutex::default());
        let metastore = Self { inner: Arc::new(Inner { pool, proving, told, farewells }), among: Among::Any };
        metastore.server_version().await.with_context(|| format!("no metastore answers at {}", settings.uris.join(", ")))?;
        Ok(metastore)
    }

    /// Runs what gives a lock back whose holder was dropped, so that [`Self::finish`] can wait for it. Outside a runtime nothing is done.
    fn bid_farewell(&self, farewell: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.inner.farewells.lock().unwrap_or_else(PoisonError::into_inner).spawn_on(farewell, &runtime);
        }
    }

    /// Waits until locks whose holders were dropped are given back, but not for ever: what isn't given back ends on the server.
    pub async fn finish(&self) {
        let farewells = std::mem::take(&mut *self.inner.farewells.lock().unwrap_or_else(PoisonError::into_inner));
        let _ = crate::clock::timeout(FAREWELL, farewells.join_all()).await;
    }

    /// This metastore through each of its servers alone, with the server's address, in the configured order.
    pub fn each_server(&self) -> Vec<(String, Metastore)> {
        let addresses = self.inner.pool.servers().addresses().enumerate();
        addresses.map(|(server, address)| (address.to_owned(), self.on(server))).collect()
    }

    fn on(&self, server: usize) -> Self {
        Self { inner: self.inner.clone(), among: Among::One(server) }
    }

    pub fn settings(&self) -> &MetastoreSettings {
        self.inner.pool.settings()
    }

    /// The name under which lakesmith is known to the server.
    pub fn user(&self) -> &str {
        self.inner.pool.user()
    }

    /// On the heap: calls are awaited in so many places that their state would make every caller's large.
    fn call(
        &self,
        method: &'static Method,
        body: Struct,
        repeat: Repeat,
        among: Among,
    ) -> BoxFuture<'_, MetastoreResult<Option<Value>>> {
        Box::pin(self.inner.pool.call(method, body, repeat, among))
    }

    async fn read<const N: usize>(&self, method: &'static Method, arguments: [Value; N]) -> MetastoreResult<Answered> {
        let value = self.call(method, method.call(arguments), Repeat::Safe, self.among).await?;
        Ok(Answered { method, value })
    }

    async fn write<const N: usize>(&self, method: &'static Method, arguments: [Value; N]) -> MetastoreResult<Answered> {
        self.write_among(method, arguments, self.among).await
    }

    async fn write_among<const N: usize>(
        &self,
        method: &'static Method,
        arguments: [Value; N],
        among: Among,
    ) -> MetastoreResult<Answered> {
        let value = self.call(method, method.call(arguments), Repeat::OnlyUnsent, among).await?;
        Ok(Answered { method, value })
    }
}

/// A result whose type is the one that the method declares (the connection has checked it).
struct Answered {
    method: &'static Method,
    value: Option<Value>,
}

impl Answered {
    fn wrong(&self) -> MetastoreError {
        MetastoreError::Application { method: self.method.name, message: "a result without the fields that it must have".into() }
    }

    fn text(self) -> MetastoreResult<String> {
        self.value.as_ref().and_then(Value::as_text).map(str::to_owned).ok_or_else(|| self.wrong())
    }

    fn list(self) -> MetastoreResult<List> {
        match self.value {
            Some(Value::List(list)) => Ok(list),
            _ => Err(self.wrong()),
        }
    }

    fn inner(self) -> MetastoreResult<Struct> {
        match self.value {
            Some(Value::Struct(inner)) => Ok(inner),
            _ => Err(self.wrong()),
        }
    }

    fn flag(self) -> MetastoreResult<bool> {
        match self.value {
            Some(Value::Bool(flag)) => Ok(flag),
            _ => Err(self.wrong()),
        }
    }

    /// Reads the result struct with a function that returns none where a field is missing.
    fn parse<T>(self, read: impl FnOnce(&Struct) -> Option<T>) -> MetastoreResult<T> {
        self.value.as_ref().and_then(Value::as_struct).and_then(read).ok_or_else(|| self.wrong())
    }
}

/// An absent object is none, any other error stays one.
fn found<T>(result: MetastoreResult<T>) -> MetastoreResult<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MetastoreError::NoSuchObject { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
