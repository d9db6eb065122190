//! Connections: who is let in, how long they may be silent, and how all of it ends.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, error, warn};

use super::super::thrift::{Application, Channel, Limits, Message, MessageKind, Plain};
use super::dispatch::dispatch;
use super::store::Store;
use crate::error::{Context, Error, Result};

/// More connections than this wait to be accepted. Engines hold a few each; Trino opens one per call.
const CONNECTIONS_MAX: usize = 512;
/// A connection that says nothing for longer is closed; clients open another.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// The time that a client may take to read its answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// Requests are smaller than replies: 32 MiB and a million values hold some 10,000 partitions.
const LIMITS: Limits = Limits { message_bytes: 32 << 20, depth: 64, values: 1 << 20 };

/// A running metastore. Dropping it lets connections go without waiting for them.
#[derive(Debug)]
pub struct EmbeddedMetastore {
    address: SocketAddr,
    stop: DropGuard,
    accepting: tokio::task::JoinHandle<()>,
}

/// Serves the metastore in a SQLite file, which is made if it is missing, with the file's directory as warehouse.
///
/// There is no authentication: bind to a loopback address unless everybody on the network may write. Port 0 takes a free one.
pub async fn serve(sqlite: &Path, bind: SocketAddr) -> Result<EmbeddedMetastore> {
    let path = sqlite.to_owned();
    let store = tokio::task::spawn_blocking(move || Store::open(&path));
    let store = Arc::new(store.await.map_err(|error| Error::failed("the metastore did not start").caused_by(error))??);
    let listener = TcpListener::bind(bind)
        .await
        .with_context(|| format!("the embedded metastore cannot listen on {bind}"))
        .map_err(|error| error.hint("set metastore.embedded_port to a free port, or to 0"))?;
    let address = listener.local_addr().context("the embedded metastore has no address")?;
    let stop = CancellationToken::new();
    let accepting = tokio::spawn(accept(listener, store, stop.clone()));
    Ok(EmbeddedMetastore { address, stop: stop.drop_guard(), accepting })
}

impl EmbeddedMetastore {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What goes into `metastore.uris`.
    pub fn uri(&self) -> String {
        format!("thrift://{}", self.address)
    }

    /// Takes no more calls, finishes those under way, and closes the connections.
    pub async fn shutdown(self) {
        drop(self.stop);
        if let Err(error) = self.accepting.await {
            error!(%error, "the embedded metastore ended in a panic");
        }
    }
}

async fn accept(listener: TcpListener, store: Arc<Store>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let arrival = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            arrival = arrival => arrival,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (store, stop) = (store.clone(), stop.clone());
                connections.spawn(async move {
                    let _place = place;
                    debug!(%peer, "metastore connection opened");
                    converse(stream, store, stop).await;
                    debug!(%peer, "metastore connection closed");
                });
            }
            // Out of file descriptors, most likely: pass, and let others end.
            Err(error) => {
                warn!(%error, "the embedded metastore could not accept a connection");
                crate::retry::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

/// Answers one client until it leaves, is silent for too long or makes no sense.
async fn converse(stream: TcpStream, store: Arc<Store>, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "a connection is slower than it could be");
    }
    let mut channel = Channel::new(stream, Box::new(Plain), LIMITS);
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            received = timeout(IDLE_TIMEOUT, channel.receive()) => received,
        };
        let call = match received {
            Ok(Ok(Some(call))) => call,
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(error)) => {
                debug!(%error, "a client was not understood");
                return;
            }
        };
        let oneway = call.kind == MessageKind::Oneway;
        let reply = answer(&store, call).await;
        let mut sent = 0;
        if !oneway && !matches!(timeout(SEND_TIMEOUT, channel.send(&reply, &mut sent)).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// Runs a call where it may block.
async fn answer(store: &Arc<Store>, call: Message) -> Message {
    let (name, sequence_id) = (call.name.clone(), call.sequence_id);
    let store = store.clone();
    let run = tokio::task::spawn_blocking(move || dispatch(&store, &call));
    run.await.unwrap_or_else(|error| {
        error!(method = %name, %error, "a metastore call panicked");
        let failed = Application { code: Application::INTERNAL_ERROR, message: format!("Internal error processing {name}") };
        Message { kind: MessageKind::Exception, name, sequence_id, body: failed.to_struct() }
    })
}
