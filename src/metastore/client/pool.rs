//! A few connections to any of the servers, and the rules for repeating a call.
//!
//! A connection is made to a server drawn by lot among those that didn't fail lately, then to the others. An idle connection on which the
//! server has closed its end, or that was idle for too long, is replaced before it is used.
//!
//! *Invariants*: one call at a time on a connection. A write is never sent twice: once a byte of it has left, its outcome is the caller's to
//! look up. A connection on which a call failed or was given up never carries another, nor do idle ones to the same server.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tracing::debug;

use super::super::contract::{GET_VERSION, Method, SET_META_CONF, SET_UGI};
use super::super::error::{MetastoreError, MetastoreResult};
use super::super::settings::MetastoreSettings;
use super::super::thrift::{Struct, Value};
use super::connection::{Answer, Connection};
use super::servers::{Among, Servers, none_fits};
use super::wire::Dial;
use crate::clock::{self, Instant, timeout_at};
use crate::error::{Error, Result};

/// Whether a call may be made again after its connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It changes nothing, or nothing more the second time: once, on a fresh connection.
    Safe,
    /// Only if not a byte of it was sent.
    OnlyUnsent,
}

pub(super) struct Pool {
    settings: MetastoreSettings,
    servers: Servers,
    user: String,
    /// None: over the network.
    dial: Option<Arc<dyn Dial>>,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

impl Pool {
    pub(super) fn new(settings: &MetastoreSettings, dial: Option<Arc<dyn Dial>>) -> Result<Self> {
        let servers = Servers::new(settings.servers()?);
        if servers.is_empty() {
            return Err(
                Error::config("metastore.uris names no metastore").hint("set it, or HIVE_METASTORE_URIS, to thrift://host:9083")
            );
        }
        Ok(Self {
            servers,
            user: settings.user_name(),
            dial,
            idle: Mutex::new(Vec::new()),
            permits: Semaphore::new(settings.connections_max.max(1)),
            settings: settings.clone(),
        })
    }

    pub(super) fn settings(&self) -> &MetastoreSettings {
        &self.settings
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn servers(&self) -> &Servers {
        &self.servers
    }

    pub(super) async fn call(&self, method: &'static Method, body: Struct, repeat: Repeat, among: Among) -> Answer {
        let no_turn = || MetastoreError::Timeout {
            method: method.name,
            server: "a connection of the pool".into(),
            after: self.settings.call_timeout,
            request_sent: false,
        };
        let Ok(Ok(_permit)) = timeout_at(self.deadline(), self.permits.acquire()).await else { return Err(no_turn()) };
        let mut connection = match self.take_idle(among) {
            Some(connection) => connection,
            None => self.connect(method, among).await?,
        };
        let mut outcome = connection.call(method, &body, self.deadline()).await;
        if let Err(error) = &outcome
            && may_repeat(error, repeat)
        {
            debug!(method = method.name, %error, "call repeated on a new connection");
            self.failed(connection.server);
            connection = self.connect(method, among).await?;
            outcome = connection.call(method, &body, self.deadline()).await;
        }
        match outcome {
            Ok(answer) => {
                self.servers.answered(connection.server);
                self.idle().push(connection);
                answer
            }
            Err(error) => {
                self.failed(connection.server);
                Err(error)
            }
        }
    }

    /// A call on a connection of its own, for which alone the server is asked to take another value of a setting. None if it does not do that,
    /// and then nothing was called. A write: it is not repeated.
    pub(super) async fn call_with(
        &self,
        (key, value): (&str, &str),
        method: &'static Method,
        body: Struct,
        among: Among,
    ) -> Option<Answer> {
        let Ok(Ok(_permit)) = timeout_at(self.deadline(), self.permits.acquire()).await else { return None };
        let mut connection = self.connect(method, among).await.ok()?;
        let setting = SET_META_CONF.call([key.into(), value.into()]);
        connection.call(&SET_META_CONF, &setting, self.deadline()).await.ok()?.ok()?;
        // The setting goes with the connection, which nobody gets afterwards.
        let outcome = connection.call(method, &body, self.deadline()).await;
        Some(outcome.unwrap_or_else(|error| {
            self.failed(connection.server);
            Err(error)
        }))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_idle(&self, among: Among) -> Option<Connection> {
        let mut idle = self.idle();
        idle.retain(|connection| connection.is_usable(self.settings.idle_timeout));
        let fitting = idle.iter().rposition(|connection| self.servers.fits(connection.server, among))?;
        Some(idle.swap_remove(fitting))
    }

    /// A server failed: its other connections are not to be trusted either.
    fn failed(&self, server: usize) {
        self.servers.failed(server);
        self.idle().retain(|connection| connection.server != server);
    }

    /// A connection to the first server that takes it.
    async fn connect(&self, method: &'static Method, among: Among) -> MetastoreResult<Connection> {
        let mut failure = None;
        let order = self.servers.order(among);
        for (place, server) in order.iter().enumerate() {
            // A server that takes connections and says nothing keeps nobody from asking the next one.
            let last = place + 1 == order.len();
            let patience = if last { self.settings.call_timeout } else { self.settings.connect_timeout };
            match self.open(*server, method, patience).await {
                Ok(connection) if self.servers.fits(*server, among) => return Ok(connection),
                // It has come back as another version.
                Ok(connection) => self.idle().push(connection),
                Err(error) => {
                    debug!(server = self.servers.address(*server), %error, "a metastore cannot be reached");
                    self.failed(*server);
                    failure = Some(error);
                }
            }
        }
        let nobody = || MetastoreError::Transport {
            method: method.name,
            server: self.servers.addresses().collect::<Vec<_>>().join(", "),
            request_sent: false,
            source: none_fits(),
        };
        Err(failure.unwrap_or_else(nobody))
    }

    /// Until when a message that is sent now is answered. Each has that long: what came before it, a turn, a connection, an introduction, took
    /// its own time.
    fn deadline(&self) -> Instant {
        clock::now() + self.settings.call_timeout
    }

    /// `patience`: for each message of the introduction.
    async fn open(&self, server: usize, method: &'static Method, patience: Duration) -> MetastoreResult<Connection> {
        let address = self.servers.address(server);
        let within = self.settings.connect_timeout.min(self.settings.call_timeout);
        let opened = Connection::open(address, server, within, self.dial.as_deref()).await;
        let unreached =
            |source| MetastoreError::Transport { method: method.name, server: address.to_owned(), request_sent: false, source };
        let mut connection = opened.map_err(unreached)?;
        self.introduce(&mut connection, patience).await.map_err(|error| unsent(error, method))?;
        Ok(connection)
    }

    /// Tells the server who calls (those that have no use for it may not know the method), and asks what it is.
    async fn introduce(&self, connection: &mut Connection, patience: Duration) -> MetastoreResult<()> {
        let groups: &[String] = std::slice::from_ref(&self.user);
        let body = SET_UGI.call([Value::from(&self.user), Value::from(groups)]);
        match connection.call(&SET_UGI, &body, clock::now() + patience).await? {
            Ok(_) | Err(MetastoreError::UnknownMethod { .. }) => {}
            Err(refused) => return Err(refused),
        }
        let version = connection.call(&GET_VERSION, &GET_VERSION.call([]), clock::now() + patience).await?;
        if let Some(version) = version.ok().flatten().as_ref().and_then(Value::as_text) {
            self.servers.is_of_version(connection.server, version);
        }
        Ok(())
    }
}

/// An introduction that failed means that the call itself never left.
fn unsent(error: MetastoreError, call: &'static Method) -> MetastoreError {
    let method = call.name;
    match error {
        MetastoreError::Timeout { server, after, .. } => MetastoreError::Timeout { method, server, after, request_sent: false },
        MetastoreError::Transport { server, source, .. } => {
            MetastoreError::Transport { method, server, source, request_sent: false }
        }
        other => other,
    }
}

fn may_repeat(error: &MetastoreError, repeat: Repeat) -> bool {
    match error {
        MetastoreError::Transport { request_sent, .. } => !request_sent || repeat == Repeat::Safe,
        _ => false,
    }
}
