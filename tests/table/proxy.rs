//! A proxy before a metastore that loses, delays or cuts off chosen calls. The server behind it is a real one.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lakesmith::metastore::thrift::{Limits, Scanner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks before the request gets anywhere.
    LoseRequest,
    /// The server carries the request out; its reply is lost.
    LoseReply,
    /// The server carries the request out, then gets it a second time; the second reply is what arrives. So does a metastore that tries
    /// again by itself after its database lost an answer.
    Repeat,
    /// The connection breaks; the request reaches the server when the test says so.
    HoldRequest,
    /// As `LoseRequest`, and from then on nobody can connect.
    LoseRequestAndGoDown,
    /// As `HoldRequest`, and from then on nobody can connect.
    HoldRequestAndGoDown,
}

/// The proxy; it ends when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    server: String,
    state: Mutex<State>,
    held: Notify,
}

#[derive(Default)]
struct State {
    /// For the next calls of methods that change a table.
    faults: VecDeque<Fault>,
    held: Vec<Vec<u8>>,
    down: bool,
    alters: u32,
    /// How late each request reaches the server.
    delay: Duration,
}

impl Proxy {
    /// Before the metastore at `thrift://host:port`.
    pub async fn before(uri: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = uri.trim_start_matches("thrift://").to_owned();
        let shared = Arc::new(Shared { server, state: Mutex::default(), held: Notify::new() });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Self { address, shared, task }
    }

    pub fn uri(&self) -> String {
        format!("thrift://{}", self.address)
    }

    /// The next alter_table calls meet these faults, one each.
    pub fn arm(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.state.lock().unwrap().faults.extend(faults);
    }

    /// From now on every call takes so much longer.
    pub fn delay(&self, delay: Duration) {
        self.shared.state.lock().unwrap().delay = delay;
    }

    pub fn faults_left(&self) -> usize {
        self.shared.state.lock().unwrap().faults.len()
    }

    pub fn held(&self) -> usize {
        self.shared.state.lock().unwrap().held.len()
    }

    /// alter_table calls that reached the server.
    pub fn alters(&self) -> u32 {
        self.shared.state.lock().unwrap().alters
    }

    pub fn come_back(&self) {
        self.shared.state.lock().unwrap().down = false;
    }

    /// Resolves when a request has been held.
    pub async fn holding(&self) {
        self.shared.held.notified().await;
    }

    /// Sends a held request to the server and waits until it was answered.
    pub async fn deliver_held(&self) {
        let request = self.shared.state.lock().unwrap().held.pop().expect("a held request");
        let mut server = TcpStream::connect(&self.shared.server).await.expect("the server");
        server.write_all(&request).await.expect("a request sent");
        message(&mut server).await.expect("a reply").expect("a reply");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        if !shared.state.lock().unwrap().down {
            tokio::spawn(serve(client, shared.clone()));
        }
    }
}

async fn serve(mut client: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let mut server = TcpStream::connect(&shared.server).await?;
    while let Some(request) = message(&mut client).await? {
        let delay = shared.state.lock().unwrap().delay;
        tokio::time::sleep(delay).await;
        let fault = fault_of(&request, &shared);
        if shared.state.lock().unwrap().down && fault.is_none() {
            return Ok(());
        }
        match fault {
            None => {}
            Some(Fault::LoseRequest | Fault::LoseRequestAndGoDown) => return Ok(()),
            Some(Fault::HoldRequest | Fault::HoldRequestAndGoDown) => {
                shared.state.lock().unwrap().held.push(request);
                shared.held.notify_one();
                return Ok(());
            }
            Some(Fault::LoseReply) => {
                server.write_all(&request).await?;
                message(&mut server).await?;
                return Ok(());
            }
            Some(Fault::Repeat) => {
                server.write_all(&request).await?;
                message(&mut server).await?;
            }
        }
        server.write_all(&request).await?;
        let Some(reply) = message(&mut server).await? else { return Ok(()) };
        client.write_all(&reply).await?;
    }
    Ok(())
}

fn fault_of(request: &[u8], shared: &Shared) -> Option<Fault> {
    // Version and length of the name come first: eight bytes.
    if !request.get(8..).is_some_and(|rest| rest.starts_with(b"alter_table")) {
        return None;
    }
    let mut state = shared.state.lock().unwrap();
    let fault = state.faults.pop_front();
    state.down |= matches!(fault, Some(Fault::LoseRequestAndGoDown | Fault::HoldRequestAndGoDown));
    state.alters += u32::from(matches!(fault, None | Some(Fault::LoseReply | Fault::Repeat)));
    fault
}

/// The next whole message; none at the end of the stream.
async fn message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut scanner = Scanner::new(Limits::default());
    let mut bytes = Vec::new();
    loop {
        match scanner.advance(&bytes).map_err(io::Error::other)? {
            Some(length) if length == bytes.len() => return Ok(Some(bytes)),
            Some(length) => panic!("{} bytes after a message", bytes.len() - length),
            None => {}
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
}
