//! NameNodes that are silent or absent, and a nameservice of which one is.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lakesmith::storage::{CloseBarrier, Create, Depth, StorageError, StorageSettings, Storages};
use lakesmith::{Error, Kind};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Area, environment};

fn write_site(directory: &Path, file: &str, properties: &[(&str, &str)]) {
    let properties: String = properties
        .iter()
        .map(|(name, value)| format!("<property><name>{name}</name><value>{value}</value></property>"))
        .collect();
    std::fs::write(directory.join(file), format!("<configuration>{properties}</configuration>")).unwrap();
}

/// An address at which nothing listens.
async fn closed_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test]
async fn a_silent_namenode_ends_in_a_timeout_that_names_its_setting() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let silent = tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            connections.push(connection);
        }
    });
    let settings = StorageSettings {
        warehouse: format!("hdfs://{address}/w"),
        call_timeout: Duration::from_millis(300),
        ..StorageSettings::default()
    };
    let storages = Storages::new(&settings).unwrap();
    let location = storages.warehouse();
    assert!(matches!(storages.status(&location).await, Err(StorageError::Timeout { .. })));
    assert!(matches!(storages.list(&location, Depth::Direct).await, Err(StorageError::Timeout { .. })));
    let error = storages.create(&format!("{location}/f"), Create::New).await.err().unwrap();
    assert!(matches!(error, StorageError::Timeout { .. }));
    let error = Error::from(error);
    assert_eq!(error.kind(), Kind::Transient);
    assert_eq!(error.to_string(), format!("no answer within 300ms (storage.call_timeout) to: create {location}/f"));
    assert!(error.hint_text().unwrap().contains("is the NameNode up"));
    silent.abort();
}

#[tokio::test]
async fn an_absent_namenode_is_told_within_seconds() {
    let settings = StorageSettings { warehouse: format!("hdfs://{}/w", closed_address().await), ..StorageSettings::default() };
    let storages = Storages::new(&settings).unwrap();
    let start = Instant::now();
    let error = storages.status("/w").await.unwrap_err();
    println!("no NameNode: {error}, after {} ms", start.elapsed().as_millis());
    assert!(matches!(&error, StorageError::Unavailable { reason, .. } if reason.contains("refused")), "{error}");
    assert!(Error::from(error).hint_text().unwrap().contains("is the NameNode up"));
}

#[tokio::test]
async fn a_nameservice_is_found_through_the_hadoop_configuration() {
    let area = Area::new();
    let directory = tempfile::tempdir().unwrap();
    let absent = closed_address().await;
    let active = environment("HDFS_URL").replace("hdfs://", "");
    write_site(directory.path(), "core-site.xml", &[("fs.defaultFS", "hdfs://${service}"), ("service", "lake")]);
    write_site(
        directory.path(),
        "hdfs-site.xml",
        &[
            ("dfs.nameservices", "lake"),
            ("dfs.ha.namenodes.lake", "nn1,nn2"),
            ("dfs.namenode.rpc-address.lake.nn1", &absent),
            ("dfs.namenode.rpc-address.lake.nn2", active.trim_end_matches('/')),
        ],
    );
    let path = area.storages.qualify(&area.at("f")).unwrap().splitn(4, '/').nth(3).unwrap().to_owned();
    let settings = StorageSettings {
        warehouse: "hdfs:///lakesmith-tests".to_owned(),
        hadoop_conf_dir: Some(directory.path().to_owned()),
        ..StorageSettings::default()
    };
    let storages = Storages::new(&settings).unwrap();
    assert_eq!(storages.warehouse(), "hdfs://lake/lakesmith-tests");
    storages.write_file(&format!("/{path}"), Bytes::from_static(b"through the nameservice"), Create::New).await.unwrap();
    assert_eq!(area.storages.read(&area.at("f")).await.unwrap(), "through the nameservice");
    area.remove().await;

    let error = storages.status("hdfs://unknown-service:99999/f").await.unwrap_err();
    assert_eq!(Error::from(error).kind(), Kind::Config);
}

/// Forwards to a server. When it is told to freeze, what is open stays open and silent; later connections are forwarded again.
async fn freezing_proxy(server: String, freeze: watch::Sender<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut frozen = freeze.subscribe();
            let mut server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(async move {
                tokio::select! {
                    _ = copy_bidirectional(&mut client, &mut server) => {}
                    _ = frozen.changed() => std::future::pending::<()>().await,
                }
            });
        }
    });
    address
}

/// The window: after the last byte went to the DataNode, before the NameNode has confirmed the end of the file.
#[tokio::test]
async fn a_namenode_that_freezes_during_a_close_costs_that_file_and_nothing_else() {
    let area = Area::new();
    let (freeze, _) = watch::channel(());
    let server = environment("HDFS_URL").replace("hdfs://", "").trim_end_matches('/').to_owned();
    let address = freezing_proxy(server, freeze.clone()).await;
    let settings = StorageSettings {
        warehouse: area.root.replace(&environment("HDFS_URL"), &format!("hdfs://{address}")),
        call_timeout: Duration::from_secs(3),
        ..StorageSettings::default()
    };
    let storages = Storages::new(&settings).unwrap();
    let at = |name: &str| format!("{}/{name}", storages.warehouse());
    let barrier = CloseBarrier::new();
    area.storages.write_file(&area.at("overwritten"), Bytes::from_static(b"old"), Create::New).await.unwrap();
    let mut files = Vec::new();
    for (name, create) in [("new", Create::New), ("overwritten", Create::Overwrite)] {
        let mut file = storages.create(&at(name), create).await.unwrap();
        file.write(Bytes::from_static(b"lost in the close")).await.unwrap();
        files.push(file);
    }
    freeze.send_replace(());
    for file in files {
        file.defer_close(&barrier);
    }
    let error = barrier.wait().await.unwrap_err();
    assert!(matches!(error, StorageError::Timeout { action: "close", .. }), "{error}");

    storages.write_file(&at("next"), Bytes::from_static(b"through a new client"), Create::New).await.unwrap();
    assert_eq!(area.storages.read(&area.at("next")).await.unwrap(), "through a new client");
    assert_eq!(area.storages.read(&area.at("overwritten")).await.unwrap(), "old");
    area.remove().await;
}
