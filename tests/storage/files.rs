//! Files on HDFS: what is written is read, nothing half-written is seen, closes overlap.

use std::time::Instant;

use bytes::Bytes;
use lakesmith::storage::{CloseBarrier, Create, Depth, StorageError, Storages};

use super::Area;

/// Long enough for a delete that was sent in the background; each turn is a request.
const STATUS_CALLS_MAX: usize = 5_000;

fn pattern(size: usize) -> Bytes {
    (0..size).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn files_are_written_read_listed_renamed_and_deleted() {
    let area = Area::new();
    let storages = &area.storages;
    // Longer than a packet and than the write buffer.
    let content = pattern((3 << 20) + 17);
    let mut file = storages.create(&area.at("a/b/one"), Create::New).await.unwrap();
    for chunk in content.chunks(100_000) {
        file.write(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    assert_eq!(file.close().await.unwrap(), content.len() as u64);
    assert_eq!(storages.read(&area.at("a/b/one")).await.unwrap(), content);
    let range = storages.read_range(&area.at("a/b/one"), (1 << 20) - 5..(2 << 20) + 5).await.unwrap();
    assert_eq!(range, content[(1 << 20) - 5..(2 << 20) + 5]);
    assert_eq!(storages.read_range(&area.at("a/b/one"), 7..7).await.unwrap(), "");
    let outside = storages.read_range(&area.at("a/b/one"), 0..content.len() as u64 + 1).await;
    assert!(matches!(outside, Err(StorageError::Refused { .. })));

    let status = storages.status(&area.at("a/b/one")).await.unwrap().unwrap();
    assert_eq!((status.size_bytes, status.is_dir), (content.len() as u64, false));
    assert_eq!(status.location, area.at("a/b/one"));
    assert!(status.modified_ms > 1_600_000_000_000);

    storages.write_file(&area.at("a/empty"), Bytes::new(), Create::New).await.unwrap();
    assert_eq!(storages.read(&area.at("a/empty")).await.unwrap(), "");
    // Hive writes such directory names; nothing is decoded on the way.
    storages.rename(&area.at("a/b/one"), &area.at("a/at=10%3A00 é/two")).await.unwrap();
    let listed = storages.list(&area.at("a"), Depth::Recursive).await.unwrap();
    let locations: Vec<_> = listed.iter().map(|entry| entry.location.strip_prefix(&area.root).unwrap()).collect();
    assert_eq!(locations, ["/a/at=10%3A00 é", "/a/at=10%3A00 é/two", "/a/b", "/a/empty"]);
    let direct = storages.list(&area.at("a/"), Depth::Direct).await.unwrap();
    assert_eq!(direct.iter().filter(|entry| entry.is_dir).count(), 2);

    let taken = storages.rename(&area.at("a/empty"), &area.at("a/at=10%3A00 é/two")).await;
    assert!(matches!(taken, Err(StorageError::AlreadyExists { location }) if location == area.at("a/at=10%3A00 é/two")));
    assert!(storages.delete_file(&area.at("a/empty")).await.unwrap());
    assert!(!storages.delete_file(&area.at("a/empty")).await.unwrap());
    assert!(matches!(storages.delete_dir(&area.at("a/at=10%3A00 é/two")).await, Err(StorageError::Refused { .. })));
    assert!(storages.delete_dir(&area.at("a")).await.unwrap());
    assert!(!storages.delete_dir(&area.at("a")).await.unwrap());
    area.remove().await;
}

#[tokio::test]
async fn what_is_missing_is_said_to_be_missing() {
    let area = Area::new();
    let missing = area.at("no/such/file");
    assert!(matches!(area.storages.read(&missing).await, Err(StorageError::NotFound { location }) if location == missing));
    assert!(
        matches!(area.storages.rename(&missing, &area.at("x")).await, Err(StorageError::NotFound { location }) if location == missing)
    );
    assert_eq!(area.storages.status(&missing).await.unwrap(), None);
    assert!(area.storages.list(&missing, Depth::Recursive).await.unwrap().is_empty());
    area.storages.create_dir(&area.root).await.unwrap();
    assert!(matches!(area.storages.read(&area.root).await, Err(StorageError::Refused { .. })), "a directory is not missing");
    area.remove().await;
}

#[tokio::test]
async fn new_files_are_exclusive_and_overwrites_are_whole() {
    let area = Area::new();
    let storages = &area.storages;
    let location = area.at("t/file");
    storages.write_file(&location, pattern(10), Create::New).await.unwrap();
    assert!(matches!(storages.create(&location, Create::New).await, Err(StorageError::AlreadyExists { .. })));
    let mut file = storages.create(&location, Create::Overwrite).await.unwrap();
    file.write(pattern(100_000)).await.unwrap();
    assert_eq!(storages.read(&location).await.unwrap(), pattern(10), "until the close it is the old file");
    file.close().await.unwrap();
    assert_eq!(storages.read(&location).await.unwrap(), pattern(100_000));
    assert_eq!(storages.list(&area.at("t"), Depth::Direct).await.unwrap().len(), 1, "nothing is left beside it");
    area.remove().await;
}

#[tokio::test]
async fn a_file_without_a_close_never_looks_complete() {
    let area = Area::new();
    let storages = &area.storages;
    let location = area.at("t/half");
    let mut file = storages.create(&location, Create::New).await.unwrap();
    file.write(pattern(1 << 20)).await.unwrap();
    drop(file);
    let mut calls = 0;
    while let Some(status) = storages.status(&location).await.unwrap() {
        assert!(status.size_bytes < 1 << 20);
        calls += 1;
        assert!(calls < STATUS_CALLS_MAX, "the file was not removed");
    }
    // Its lease went with it: the name is free.
    let mut file = storages.create(&location, Create::New).await.unwrap();
    file.write(pattern(5)).await.unwrap();
    file.abort().await;
    assert_eq!(storages.status(&location).await.unwrap(), None);
    area.remove().await;
}

async fn write_deferred(storages: &Storages, location: &str, barrier: &CloseBarrier) {
    let mut file = storages.create(location, Create::Overwrite).await.unwrap();
    file.write(pattern(20_000)).await.unwrap();
    file.defer_close(barrier);
}

#[tokio::test]
async fn forty_files_close_together() {
    const FILES: usize = 40;
    let area = Area::new();
    let barrier = CloseBarrier::new();
    storage_time("HDFS, first file, with the connection", async {
        write_deferred(&area.storages, &area.at("first"), &barrier).await;
        barrier.wait().await.unwrap()
    })
    .await;
    storage_time("HDFS, one file", async {
        write_deferred(&area.storages, &area.at("one"), &barrier).await;
        barrier.wait().await.unwrap()
    })
    .await;
    storage_time("HDFS, 40 files through one barrier", async {
        for number in 0..FILES {
            write_deferred(&area.storages, &area.at(&number.to_string()), &barrier).await;
        }
        barrier.wait().await.unwrap();
    })
    .await;
    for number in 0..FILES {
        assert_eq!(area.storages.read(&area.at(&number.to_string())).await.unwrap(), pattern(20_000));
    }
    area.remove().await;
}

async fn storage_time(what: &str, work: impl Future<Output = ()>) {
    let start = Instant::now();
    work.await;
    println!("{what}: {} ms", start.elapsed().as_millis());
}
