//! The expectations against the embedded metastore, and what only it can be asked.

use std::net::{Ipv4Addr, SocketAddr};

use lakesmith::metastore::embedded::{EmbeddedMetastore, serve};
use lakesmith::metastore::thrift::{Application, Channel, Limits, Message, MessageKind, Plain, Struct, Value};
use lakesmith::metastore::{
    CompareAndSwap, EnvironmentContext, Generation, HeldLock, HivePartition, HiveTable, IfNotExists, Metastore, MetastoreSettings,
};
use tempfile::TempDir;

use super::behaviour::{self, Place};

pub const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub async fn start() -> (EmbeddedMetastore, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(&dir.path().join("metastore.sqlite"), ANY_PORT).await.unwrap();
    (server, dir)
}

macro_rules! embedded {
    ($($name:ident $(($uri:ident))?),* $(,)?) => {
        $(#[tokio::test]
        async fn $name() {
            let (server, _dir) = start().await;
            let place = Place::new(Metastore::connect(&behaviour::settings(&server.uri())).await.unwrap()).await;
            behaviour::$name(&place $(, &server.$uri())?).await;
            place.end().await;
            server.shutdown().await;
        })*
    };
}

embedded!(databases, tables, views, compare_and_swap, race(uri), partitions, partition_statistics, locks(uri),);

#[tokio::test]
async fn abilities() {
    let (server, _dir) = start().await;
    let place = Place::new(Metastore::connect(&behaviour::settings(&server.uri())).await.unwrap()).await;
    behaviour::abilities(&place, "4.0.1", Generation::Embedded, CompareAndSwap::Honoured).await;
    place.end().await;
}

#[tokio::test]
async fn fields_that_nobody_here_knows_survive() {
    let (server, _dir) = start().await;
    let metastore = Metastore::connect(&behaviour::settings(&server.uri())).await.unwrap();
    let mut entry = HiveTable::new("default", "t").into_entry();
    entry.push(1000, Value::I64(42));
    metastore.create_table(&HiveTable::from_entry(entry)).await.unwrap();
    let table = metastore.table("default", "t").await.unwrap().unwrap();
    assert_eq!(table.entry().at(1000), Some(&Value::I64(42)));
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let (server, dir) = start().await;
    let metastore = Metastore::connect(&behaviour::settings(&server.uri())).await.unwrap();
    metastore.create_table(&HiveTable::new("default", "kept")).await.unwrap();
    let before = metastore.table("default", "kept").await.unwrap();
    server.shutdown().await;
    let server = serve(&dir.path().join("metastore.sqlite"), ANY_PORT).await.unwrap();
    let metastore = Metastore::connect(&behaviour::settings(&server.uri())).await.unwrap();
    assert_eq!(metastore.table("default", "kept").await.unwrap(), before);
}

/// Two servers on one file stand for two processes: nothing is shared but the file.
#[tokio::test]
async fn two_servers_on_one_file_lose_no_update() {
    let (one, dir) = start().await;
    let other = serve(&dir.path().join("metastore.sqlite"), ANY_PORT).await.unwrap();
    let first = Metastore::connect(&behaviour::settings(&one.uri())).await.unwrap();
    let mut table = HiveTable::new("default", "t");
    table.set_parameter("n", "0");
    first.create_table(&table).await.unwrap();
    let count = async |uri: String| {
        let metastore = Metastore::connect(&behaviour::settings(&uri)).await.unwrap();
        let mut done = 0;
        while done < 20 {
            let mut table = metastore.table("default", "t").await.unwrap().unwrap();
            let old: u32 = table.parameter("n").unwrap().parse().unwrap();
            table.set_parameter("n", (old + 1).to_string());
            let expecting = EnvironmentContext::new().expecting("n", &old.to_string());
            match metastore.alter_table("default", "t", &table, &expecting).await {
                Ok(()) => done += 1,
                Err(error) => assert!(error.is_modified_conflict(), "{error}"),
            }
        }
    };
    tokio::join!(count(one.uri()), count(other.uri()));
    assert_eq!(first.table("default", "t").await.unwrap().unwrap().parameter("n"), Some("40"));
    let held = HeldLock::acquire(&first, "default", "t").await.unwrap();
    let impatient = MetastoreSettings { lock_timeout: std::time::Duration::from_millis(50), ..behaviour::settings(&other.uri()) };
    let second = Metastore::connect(&impatient).await.unwrap();
    assert!(HeldLock::acquire(&second, "default", "t").await.is_err());
    held.release().await.unwrap();
}

#[tokio::test]
async fn local_directories_come_and_go_with_what_they_belong_to() {
    let (server, dir) = start().await;
    let metastore = Metastore::connect(&behaviour::settings(&server.uri())).await.unwrap();
    let mut table = HiveTable::new("default", "owned");
    table.set_parameter("external.table.purge", "true");
    table.set_partition_keys(&[lakesmith::metastore::FieldSchema::new("day", "string")]);
    metastore.create_table(&table).await.unwrap();
    let table = metastore.table("default", "owned").await.unwrap().unwrap();
    let home = dir.path().canonicalize().unwrap();
    assert_eq!(table.location(), Some(format!("file://{}/owned", home.display()).as_str()));
    let partition = HivePartition::new(&table, &["a"], "");
    metastore.add_partitions(&[partition], IfNotExists::No).await.unwrap();
    assert!(home.join("owned/day=a").is_dir());
    metastore.drop_table("default", "owned", lakesmith::metastore::DeleteData::Yes).await.unwrap();
    assert!(!home.join("owned").exists());

    metastore.create_table(&HiveTable::new("default", "external")).await.unwrap();
    metastore.drop_table("default", "external", lakesmith::metastore::DeleteData::Yes).await.unwrap();
    assert!(home.join("external").is_dir());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metastore.sqlite");
    std::fs::write(&path, "this is not a database, but long enough to be mistaken for the header of one, if nobody looked")
        .unwrap();
    let error = serve(&path, ANY_PORT).await.unwrap_err().chain();
    assert!(error.contains("metastore.sqlite"), "{error}");
}

/// Clients of other versions call methods that are not served: they are told which, and the connection goes on.
#[tokio::test]
async fn what_is_not_served_is_named() {
    let (server, _dir) = start().await;
    let stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let mut channel = Channel::new(stream, Box::new(Plain), Limits::default());
    for (sequence_id, name) in (1..).zip(["get_partitions_by_expr", "scheduled_query_poll", "get_all_resource_plan", "open_txns"])
    {
        let call = Message { kind: MessageKind::Call, name: name.into(), sequence_id, body: Struct::new() };
        channel.send(&call, &mut 0).await.unwrap();
        let reply = channel.receive().await.unwrap().unwrap();
        assert_eq!((reply.kind, reply.name.as_str(), reply.sequence_id), (MessageKind::Exception, name, sequence_id));
        let told = Application::from_struct(&reply.body);
        assert_eq!((told.code, told.message), (Application::UNKNOWN_METHOD, format!("Invalid method name: '{name}'")));
    }
}
