//! A gate before a real server: it lets connections through, cuts them off, keeps them out, or holds them without a word.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// It reaches the server.
    Open,
    /// It is closed at once, as are those that were through: the server was killed.
    Shut,
    /// It is accepted, and then nothing is heard any more: the machine is gone, or the process stopped.
    Silent,
}

/// A gate with an address of its own; it ends when it is dropped.
pub struct Gatekeeper {
    address: SocketAddr,
    state: watch::Sender<Gate>,
    arrivals: Arc<AtomicUsize>,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
    accepting: JoinHandle<()>,
}

impl Gatekeeper {
    /// Before the server at `thrift://host:port`.
    pub async fn before(uri: &str) -> Self {
        let server = uri.trim_start_matches("thrift://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = watch::Sender::new(Gate::Open);
        let (arrivals, connections) = (Arc::new(AtomicUsize::new(0)), Arc::<Mutex<Vec<_>>>::default());
        let accepting = tokio::spawn({
            let (state, arrivals, connections) = (state.subscribe(), arrivals.clone(), connections.clone());
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    arrivals.fetch_add(1, Ordering::SeqCst);
                    let passing = tokio::spawn(pass(client, server.clone(), state.clone()));
                    connections.lock().unwrap().push(passing);
                }
            }
        });
        Self { address, state, arrivals, connections, accepting }
    }

    pub fn uri(&self) -> String {
        format!("thrift://{}", self.address)
    }

    pub fn turn(&self, gate: Gate) {
        self.state.send_replace(gate);
    }

    /// Closes the connections that are there; new ones go on as before.
    pub fn cut(&self) {
        self.connections.lock().unwrap().drain(..).for_each(|connection| connection.abort());
    }

    /// Connections that have arrived so far, whatever became of them.
    pub fn arrivals(&self) -> usize {
        self.arrivals.load(Ordering::SeqCst)
    }
}

impl Drop for Gatekeeper {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn pass(mut client: TcpStream, server: String, mut state: watch::Receiver<Gate>) {
    let here = *state.borrow_and_update();
    match here {
        Gate::Shut => return,
        Gate::Silent => {
            let _ = state.wait_for(|gate| *gate != Gate::Silent).await;
            return;
        }
        Gate::Open => {}
    }
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let closed = state.wait_for(|gate| *gate != Gate::Open);
    let gate = tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
        Ok(gate) = closed => *gate,
        else => return,
    };
    if gate == Gate::Silent {
        let _ = state.wait_for(|gate| *gate != Gate::Silent).await;
    }
}
