//! Connections that fail: what the client does, and what it must not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lakesmith::metastore::contract::Exception;
use lakesmith::metastore::thrift::{Channel, Limits, Message, MessageKind, Plain, Struct};
use lakesmith::metastore::{CompareAndSwap, EnvironmentContext, HiveTable, Metastore, MetastoreError, MetastoreSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::behaviour;
use super::embedded::start;

/// What a relay does with the calls of one method. It passes all others on.
#[derive(Clone, Copy)]
enum Fault {
    /// Takes the call and hangs up without passing it on.
    HangUp,
    /// Passes the call on, and hangs up instead of answering.
    LoseReply,
    /// Takes the call and says nothing.
    Silence,
    /// Answers with something else.
    Noise,
    /// Answers with a `MetaException`, as a server does whose database fails.
    Refuse,
}

/// Stands between the client and a real server, and fails the first `times` calls of `method`.
struct Relay {
    uri: String,
    calls: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

async fn relay(server: String, method: &'static str, fault: Fault, times: usize) -> Relay {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("thrift://{}", listener.local_addr().unwrap());
    let (calls, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let relay = Relay { uri, calls: calls.clone(), connections: connections.clone() };
    let server = server.trim_start_matches("thrift://").to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(pass(client, server.clone(), method, fault, times, calls.clone()));
        }
    });
    relay
}

async fn pass(client: TcpStream, server: String, method: &str, fault: Fault, times: usize, calls: Arc<AtomicUsize>) {
    let channel = |stream| Channel::new(stream, Box::new(Plain), Limits::default());
    let mut client = channel(client);
    let mut server = channel(TcpStream::connect(server).await.unwrap());
    while let Ok(Some(call)) = client.receive().await {
        let failing = call.name == method && calls.fetch_add(1, Ordering::SeqCst) < times;
        if failing && matches!(fault, Fault::HangUp) {
            return;
        }
        if failing && matches!(fault, Fault::Silence) {
            std::future::pending::<()>().await;
        }
        if failing && matches!(fault, Fault::Refuse) {
            let mut body = Struct::new();
            body.push(2, Struct::new().with(Exception::MESSAGE, "no connection to the database").into());
            let refusal = Message { kind: MessageKind::Reply, name: call.name, sequence_id: call.sequence_id, body };
            client.send(&refusal, &mut 0).await.unwrap();
            continue;
        }
        server.send(&call, &mut 0).await.unwrap();
        let mut reply = server.receive().await.unwrap().unwrap();
        if failing && matches!(fault, Fault::LoseReply) {
            return;
        }
        if failing && matches!(fault, Fault::Noise) {
            reply.sequence_id += 1;
        }
        if client.send(&reply, &mut 0).await.is_err() {
            return;
        }
    }
}

const SWAP: &str = "alter_table_with_environment_context";

async fn swap(metastore: &Metastore) -> Result<(), MetastoreError> {
    let mut table = HiveTable::new("default", "t");
    table.set_parameter("n", "1");
    metastore.alter_table("default", "t", &table, &EnvironmentContext::new().expecting("n", "0")).await
}

async fn create(metastore: &Metastore) {
    let mut table = HiveTable::new("default", "t");
    table.set_parameter("n", "0");
    metastore.create_table(&table).await.unwrap();
}

async fn parameter(metastore: &Metastore) -> String {
    metastore.table("default", "t").await.unwrap().unwrap().parameter("n").unwrap().to_owned()
}

#[tokio::test]
async fn a_write_whose_reply_is_lost_is_in_doubt_and_not_repeated() {
    for (fault, applied) in [(Fault::HangUp, "0"), (Fault::LoseReply, "1")] {
        let (server, _dir) = start().await;
        let relay = relay(server.uri(), SWAP, fault, 1).await;
        let metastore = Metastore::connect(&behaviour::settings(&relay.uri)).await.unwrap();
        create(&metastore).await;
        let error = swap(&metastore).await.unwrap_err();
        assert!(matches!(error, MetastoreError::Transport { request_sent: true, .. }), "{error:?}");
        assert!(!error.certainly_not_applied());
        assert_eq!((parameter(&metastore).await.as_str(), relay.calls.load(Ordering::SeqCst)), (applied, 1));
    }
}

/// What is failing is not broken: the verdict of a probe holds until the process ends.
#[tokio::test]
async fn a_server_that_fails_while_it_is_probed_is_not_called_broken() {
    let (server, _dir) = start().await;
    let relay = relay(server.uri(), SWAP, Fault::Refuse, 2).await;
    let metastore = Metastore::connect(&behaviour::settings(&relay.uri)).await.unwrap();
    let error = metastore.compare_and_swap("default").await.unwrap_err();
    assert!(matches!(error, MetastoreError::Meta { .. }), "{error:?}");
    assert_eq!(metastore.compare_and_swap("default").await.unwrap(), CompareAndSwap::Honoured);
}

#[tokio::test]
async fn a_read_on_a_dying_connection_is_repeated_once() {
    let (server, _dir) = start().await;
    let once = relay(server.uri(), "get_all_databases", Fault::HangUp, 1).await;
    let metastore = Metastore::connect(&behaviour::settings(&once.uri)).await.unwrap();
    assert_eq!(metastore.databases().await.unwrap(), ["default"]);
    assert_eq!(once.calls.load(Ordering::SeqCst), 2);

    let always = relay(server.uri(), "get_all_databases", Fault::HangUp, usize::MAX).await;
    let metastore = Metastore::connect(&behaviour::settings(&always.uri)).await.unwrap();
    assert!(matches!(metastore.databases().await, Err(MetastoreError::Transport { request_sent: true, .. })));
    assert_eq!(always.calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn after_a_timeout_the_connection_is_dropped() {
    let (server, _dir) = start().await;
    let relay = relay(server.uri(), SWAP, Fault::Silence, 1).await;
    let settings = MetastoreSettings { call_timeout: Duration::from_millis(300), ..behaviour::settings(&relay.uri) };
    let metastore = Metastore::connect(&settings).await.unwrap();
    create(&metastore).await;
    assert_eq!(relay.connections.load(Ordering::SeqCst), 1);
    let error = swap(&metastore).await.unwrap_err();
    assert!(matches!(error, MetastoreError::Timeout { request_sent: true, .. }), "{error:?}");
    assert_eq!(parameter(&metastore).await, "0");
    assert_eq!(relay.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_reply_to_another_call_is_not_taken() {
    let (server, _dir) = start().await;
    let relay = relay(server.uri(), SWAP, Fault::Noise, 1).await;
    let metastore = Metastore::connect(&behaviour::settings(&relay.uri)).await.unwrap();
    create(&metastore).await;
    let error = swap(&metastore).await.unwrap_err();
    assert!(matches!(error, MetastoreError::Protocol { .. }) && !error.certainly_not_applied(), "{error:?}");
    assert_eq!(parameter(&metastore).await, "1");
    assert_eq!(relay.connections.load(Ordering::SeqCst), 2);
}

/// A server that restarts closes its connections; the next call, a write too, goes through a new one.
#[tokio::test]
async fn a_connection_that_the_server_closed_while_idle_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = dir.path().join("metastore.sqlite");
    let server = lakesmith::metastore::embedded::serve(&sqlite, super::embedded::ANY_PORT).await.unwrap();
    let address = server.address();
    let metastore = Metastore::connect(&behaviour::settings(&server.uri())).await.unwrap();
    create(&metastore).await;
    server.shutdown().await;
    let _server = lakesmith::metastore::embedded::serve(&sqlite, address).await.unwrap();
    swap(&metastore).await.unwrap();
}

#[tokio::test]
async fn another_server_is_taken_when_one_cannot_be_reached() {
    let (server, _dir) = start().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let uris = vec![format!("thrift://{closed}"), server.uri()];
    for _ in 0..8 {
        let settings = MetastoreSettings { uris: uris.clone(), ..Default::default() };
        Metastore::connect(&settings).await.unwrap();
    }
    let nobody = MetastoreSettings { uris: uris[..1].to_vec(), ..Default::default() };
    let error = Metastore::connect(&nobody).await.unwrap_err();
    assert!(error.chain().contains(&uris[0]) && error.hint_text().unwrap().contains("metastore.uris"), "{}", error.chain());
}

#[tokio::test]
async fn a_server_of_another_protocol_is_an_error_with_a_hint() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("thrift://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _ = client.read(&mut [0; 64]).await;
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let error = Metastore::connect(&behaviour::settings(&uri)).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("9083"), "{}", error.chain());
}

#[tokio::test]
async fn nonsense_does_not_end_the_embedded_server() {
    let (server, _dir) = start().await;
    for bytes in
        [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &[0x80, 1, 0, 1, 0x7f, 0xff, 0xff, 0xff], &[0x80, 1, 0, 1, 0, 0, 0, 1, b'x']]
    {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
    }
    let mut channel = Channel::new(TcpStream::connect(server.address()).await.unwrap(), Box::new(Plain), Limits::default());
    for name in ["get_table", "no_such_method", "lock", "add_partitions_req"] {
        let call = Message { kind: MessageKind::Call, name: name.into(), sequence_id: 3, body: Struct::new() };
        channel.send(&call, &mut 0).await.unwrap();
        let reply = channel.receive().await.unwrap().unwrap();
        assert_eq!((reply.name.as_str(), reply.sequence_id), (name, 3));
    }
    Metastore::connect(&behaviour::settings(&server.uri())).await.unwrap();
}

#[tokio::test]
async fn an_introduction_that_is_unknown_is_no_obstacle() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("thrift://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let mut channel = Channel::new(client, Box::new(Plain), Limits::default());
        while let Ok(Some(mut message)) = channel.receive().await {
            message.body = Struct::new();
            if message.name == "set_ugi" {
                message.kind = MessageKind::Exception;
                let code = lakesmith::metastore::thrift::Application::UNKNOWN_METHOD;
                message.body = lakesmith::metastore::thrift::Application { code, message: "unknown".into() }.to_struct();
            } else {
                message.kind = MessageKind::Reply;
                message.body.push(0, "2.3".into());
            }
            channel.send(&message, &mut 0).await.unwrap();
        }
    });
    let metastore = Metastore::connect(&behaviour::settings(&uri)).await.unwrap();
    assert_eq!(metastore.server_version().await.unwrap(), "2.3");
}
