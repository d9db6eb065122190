//! A process of the simulation: what it sends and what it writes passes here, and so it can be killed, stopped and disturbed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lakesmith::clock;
use lakesmith::metastore::contract::Exception;
use lakesmith::metastore::thrift::{Limits, Message};
use lakesmith::metastore::{Dial, Wire};
use lakesmith::storage::{Disturb, Moment, Site};
use tokio::sync::{oneshot, watch};

use super::metastore::{Sender, SimMetastore, refusal};

/// What becomes of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Arrives,
    /// The connection cannot be written to: nothing was sent.
    Unsent,
    /// The connection breaks before the request gets anywhere.
    RequestLost,
    /// The server carries it out; the connection breaks before the answer.
    ReplyLost,
    /// As the two before, but nobody is told: the caller's deadline passes.
    RequestSilent,
    ReplySilent,
    /// The connection breaks, and the request arrives that much later.
    Late(Duration),
    /// Nobody is told anything, and the request arrives that much later.
    LateSilent(Duration),
    /// The server carries it out twice and answers the second time.
    Repeated,
    /// The server reports a failure and has done nothing.
    Failed,
    /// The server reports a failure and has carried it out.
    FailedAfter,
}

/// How a call passes the network.
#[derive(Debug, Clone, Copy)]
pub struct Passage {
    pub out: Duration,
    pub back: Duration,
    pub fate: Fate,
}

/// How an operation on a file goes.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub takes: Duration,
    pub end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Goes,
    Fails,
    /// The process is killed.
    Kills,
}

/// Decides what the network and the disks do.
pub trait Weather: Send + Sync {
    fn call(&self, method: &str) -> Passage;
    fn file(&self, site: Site, moment: Moment) -> Step;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Running,
    /// As by SIGSTOP.
    Stopped,
    Dead,
}

/// One process: its handle, and its end of the network and of the storage.
pub struct Process {
    pub id: usize,
    status: watch::Sender<Status>,
    /// The call at which it stops by itself.
    stops_at: std::sync::Mutex<Option<&'static str>>,
    metastore: Arc<SimMetastore>,
    weather: Arc<dyn Weather>,
    under_way: Arc<AtomicUsize>,
}

impl Process {
    pub fn new(id: usize, metastore: Arc<SimMetastore>, weather: Arc<dyn Weather>, under_way: Arc<AtomicUsize>) -> Arc<Self> {
        let status = watch::Sender::new(Status::Running);
        Arc::new(Self { id, status, stops_at: std::sync::Mutex::default(), metastore, weather, under_way })
    }

    /// From here on nothing of it has any effect; what it has sent is on its way.
    pub fn kill(&self) {
        self.status.send_replace(Status::Dead);
    }

    pub fn stop(&self) {
        self.status
            .send_if_modified(|status| *status == Status::Running && std::mem::replace(status, Status::Stopped) != *status);
    }

    pub fn stop_at(&self, method: &'static str) {
        *self.stops_at.lock().unwrap() = Some(method);
    }

    pub fn go_on(&self) {
        *self.stops_at.lock().unwrap() = None;
        self.status
            .send_if_modified(|status| *status == Status::Stopped && std::mem::replace(status, Status::Running) != *status);
    }

    /// Returns when the process runs.
    async fn pass(&self) {
        if *self.status.borrow() == Status::Running {
            return;
        }
        let mut status = self.status.subscribe();
        // The sender lives as long as the process.
        let _ = status.wait_for(|status| *status == Status::Running).await;
    }
}

/// A process's way to the metastore and to the files.
pub struct Ways(pub Arc<Process>);

#[async_trait]
impl Dial for Ways {
    async fn dial(&self, _: &str) -> io::Result<Box<dyn Wire>> {
        self.0.pass().await;
        Ok(Box::new(SimWire { process: self.0.clone(), reply: None, broken: false }))
    }
}

#[async_trait]
impl Disturb for Ways {
    async fn meet(&self, site: Site, moment: Moment, _: &str) -> io::Result<()> {
        self.0.pass().await;
        let step = self.0.weather.file(site, moment);
        if !step.takes.is_zero() {
            clock::sleep(step.takes).await;
            self.0.pass().await;
        }
        match step.end {
            End::Goes => Ok(()),
            End::Fails => Err(io::Error::other("a simulated failure")),
            End::Kills => {
                self.0.kill();
                self.0.pass().await;
                Ok(())
            }
        }
    }
}

struct SimWire {
    process: Arc<Process>,
    reply: Option<oneshot::Receiver<Vec<u8>>>,
    broken: bool,
}

#[async_trait]
impl Wire for SimWire {
    async fn send(&mut self, message: Vec<u8>) -> io::Result<()> {
        let process = &self.process;
        let call = Message::decode(&message, &Limits::default()).expect("a message of ours");
        if process.stops_at.lock().unwrap().take_if(|method| call.name.starts_with(*method)).is_some() {
            process.stop();
        }
        process.pass().await;
        let passage = process.weather.call(&call.name);
        if passage.fate == Fate::Unsent {
            self.broken = true;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let (tell, told) = oneshot::channel();
        self.reply = Some(told);
        process.under_way.fetch_add(1, Ordering::Relaxed);
        // A task of the network's: a request goes on its way whatever becomes of who sent it.
        tokio::spawn(carry(process.metastore.clone(), process.under_way.clone(), process.id, call, passage, tell));
        Ok(())
    }

    async fn receive(&mut self) -> io::Result<Vec<u8>> {
        let reply = self.reply.take().expect("a call was sent");
        let reply = reply.await;
        self.process.pass().await;
        self.broken |= reply.is_err();
        reply.map_err(|_| io::ErrorKind::ConnectionReset.into())
    }

    fn is_quiet(&self) -> bool {
        !self.broken
    }
}

async fn carry(
    metastore: Arc<SimMetastore>,
    under_way: Arc<AtomicUsize>,
    process: usize,
    call: Message,
    Passage { out, back, fate }: Passage,
    mut tell: oneshot::Sender<Vec<u8>>,
) {
    let handle = |waits: bool| metastore.handle(Sender { process, waits }, &call);
    clock::sleep(out).await;
    let reply = match fate {
        Fate::Arrives => Some(handle(!tell.is_closed())),
        Fate::Unsent | Fate::RequestLost | Fate::RequestSilent => None,
        Fate::ReplyLost | Fate::ReplySilent => {
            handle(!tell.is_closed());
            None
        }
        Fate::Late(delay) => {
            drop(tell);
            clock::sleep(delay).await;
            handle(false);
            under_way.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        Fate::LateSilent(delay) => {
            clock::sleep(delay).await;
            handle(!tell.is_closed());
            None
        }
        Fate::Repeated => {
            handle(!tell.is_closed());
            Some(handle(!tell.is_closed()))
        }
        Fate::Failed => Some(refusal(&call, Exception::Meta, "the database is away")),
        Fate::FailedAfter => {
            handle(!tell.is_closed());
            Some(refusal(&call, Exception::Meta, "the database is away"))
        }
    };
    under_way.fetch_sub(1, Ordering::Relaxed);
    clock::sleep(back).await;
    match reply {
        // Nobody listens when the caller was dropped.
        Some(reply) => drop(tell.send(reply.encode())),
        None if matches!(fate, Fate::RequestSilent | Fate::ReplySilent | Fate::LateSilent(_)) => tell.closed().await,
        None => {}
    }
}
