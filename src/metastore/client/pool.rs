//! A few connections to any of the servers, and the rules for repeating a call.
//!
//! *Invariants*: one call at a time on a connection. A write is never sent twice: once a byte of it has left, its outcome is the caller's to
//! look up. A connection on which a call failed or was given up never carries another.

use std::sync::{Arc, Mutex};

use rand::seq::SliceRandom;
use tokio::sync::Semaphore;
use tracing::debug;

use super::super::contract::{Method, SET_UGI};
use super::super::error::{MetastoreError, MetastoreResult};
use super::super::settings::MetastoreSettings;
use super::super::thrift::{Struct, Value};
use super::connection::{Answer, Connection};
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
    servers: Vec<String>,
    user: String,
    /// None: over the network.
    dial: Option<Arc<dyn Dial>>,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

impl Pool {
    pub(super) fn new(settings: &MetastoreSettings, dial: Option<Arc<dyn Dial>>) -> Result<Self> {
        let servers = settings.servers()?;
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

    pub(super) async fn call(&self, method: &'static Method, body: Struct, repeat: Repeat) -> Answer {
        let deadline = clock::now() + self.settings.call_timeout;
        let no_turn = || MetastoreError::Timeout {
            method: method.name,
            server: "a connection of the pool".into(),
            after: self.settings.call_timeout,
            request_sent: false,
        };
        let Ok(Ok(_permit)) = timeout_at(deadline, self.permits.acquire()).await else { return Err(no_turn()) };
        let mut connection = match self.take_idle() {
            Some(connection) => connection,
            None => self.connect(method, deadline).await?,
        };
        let mut outcome = connection.call(method, &body, deadline).await;
        if let Err(error) = &outcome
            && may_repeat(error, repeat)
        {
            debug!(method = method.name, %error, "call repeated on a new connection");
            connection = self.connect(method, deadline).await?;
            outcome = connection.call(method, &body, deadline).await;
        }
        let answer = outcome?;
        self.put_back(connection);
        answer
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        while let Some(connection) = idle.pop() {
            if connection.is_usable(self.settings.idle_timeout) {
                return Some(connection);
            }
        }
        None
    }

    fn put_back(&self, connection: Connection) {
        self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(connection);
    }

    /// A connection to the first server, in random order, that takes it.
    async fn connect(&self, method: &'static Method, deadline: Instant) -> MetastoreResult<Connection> {
        let mut order: Vec<&String> = self.servers.iter().collect();
        order.shuffle(&mut rand::rng());
        let mut failure = None;
        for server in order {
            let within = self.settings.connect_timeout.min(deadline.saturating_duration_since(clock::now()));
            match Connection::open(server, within, self.dial.as_deref()).await {
                Ok(mut connection) => match self.introduce(&mut connection, deadline).await {
                    Ok(()) => return Ok(connection),
                    Err(error) => failure = Some(unsent(error, method)),
                },
                Err(source) => {
                    let (method, server) = (method.name, server.clone());
                    failure = Some(MetastoreError::Transport { method, server, request_sent: false, source });
                }
            }
        }
        Err(failure.unwrap_or(MetastoreError::UnknownMethod { method: method.name }))
    }

    /// Tells the server who calls. Those that have no use for it may not know the method.
    async fn introduce(&self, connection: &mut Connection, deadline: Instant) -> MetastoreResult<()> {
        let groups: &[String] = std::slice::from_ref(&self.user);
        let body = SET_UGI.call([Value::from(&self.user), Value::from(groups)]);
        match connection.call(&SET_UGI, &body, deadline).await? {
            Ok(_) | Err(MetastoreError::UnknownMethod { .. }) => Ok(()),
            Err(refused) => Err(refused),
        }
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
