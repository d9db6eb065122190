//! A table stays small and fast, however many batches it has seen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytesize::ByteSize;
use lakesmith::checkpoint::OffsetRange;
use lakesmith::storage::{Depth, Storages};
use lakesmith::table::{LakeTable, UpkeepSettings};

use super::lake::{Lake, append, assert_no_orphans, offsets};

super::on_every_lake!(old_snapshots_leave_with_their_files);

async fn old_snapshots_leave_with_their_files(lake: &Lake) {
    let upkeep = UpkeepSettings { snapshots_max: 5, manifests_to_merge: 4, ..UpkeepSettings::default() };
    let mut table = lake.table("t", &["Year"]).await.with_upkeep(upkeep);
    for commit in 0..30 {
        append(&mut table, 0, OffsetRange::new(commit * 4, commit * 4 + 4)).await;
    }
    assert_eq!(table.snapshots().len(), 5);
    assert_eq!(table.metadata().metadata_log().len(), 5);
    let snapshot = table.metadata().current_snapshot().unwrap();
    let list = table.to_iceberg().unwrap().manifest_list_reader(snapshot).load().await.unwrap();
    assert!(list.entries().len() < 12, "{} manifests", list.entries().len());
    assert_no_orphans(lake, &table).await;
    // Nothing was lost, in the current snapshot and in the oldest one that is left.
    let table = lake.open(&lake.catalog, "t").await;
    assert_eq!(offsets(&table, None).await, (0..120).collect::<Vec<_>>());
    assert_eq!(table.checkpoint().unwrap().unwrap().positions(), "d;0:0+120");
    let oldest = table.snapshots().pop().unwrap();
    let scan = table.to_iceberg().unwrap().scan().snapshot_id(oldest.snapshot_id).build().unwrap();
    let rows: usize = super::lake::collect(scan).await.iter().map(|batch| batch.num_rows()).sum();
    assert_eq!(rows as u64, oldest.total_records.unwrap());
}

const COMMITS: i64 = 2_000;
/// What one commit may add at most: metadata file, manifest list, manifest, and a merge now and then.
const FILES_PER_COMMIT_MAX: usize = 4;
const LISTED_MANIFESTS_MAX: usize = 3 * 32;

/// The bar: 2,000 commits to one table with the default settings. A commit's work does not grow with the commits before it: it writes the
/// same number of files, a manifest list of bounded length, and, from the 720th on, a metadata file of the same size; and the metadata
/// directory stays below 20 MB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_commits_cost_the_same() {
    let lake = Lake::embedded().await;
    let mut table = lake.table("t", &[]).await;
    let (mut hundreds, mut known, mut plateau) = (Vec::new(), BTreeSet::new(), 0);
    for hundred in 0..COMMITS / 100 {
        let started = Instant::now();
        for commit in hundred * 100..hundred * 100 + 100 {
            append(&mut table, 0, OffsetRange::new(commit * 2, commit * 2 + 2)).await;
        }
        let elapsed = started.elapsed();
        hundreds.push(elapsed);
        let files = metadata_files(&lake.storages, &table).await;
        let total: u64 = files.values().sum();
        assert!(total < 20_000_000, "{}", ByteSize(total));
        let added = files.keys().filter(|file| !known.contains(*file)).count();
        known.extend(files.keys().cloned());
        assert!(added <= 100 * FILES_PER_COMMIT_MAX, "{added} files for a hundred commits");
        let newest = files[table.metadata_location()];
        match hundred {
            ..8 => plateau = newest,
            _ => assert!(newest < plateau + plateau / 50, "the metadata file grows on: {newest} bytes after {plateau}"),
        }
        let snapshot = table.metadata().current_snapshot().unwrap();
        let list = table.to_iceberg().unwrap().manifest_list_reader(snapshot).load().await.unwrap();
        assert!(list.entries().len() <= LISTED_MANIFESTS_MAX, "{} manifests", list.entries().len());
        println!("commits up to {}: {elapsed:?}, metadata {} in {} files", (hundred + 1) * 100, ByteSize(total), files.len());
    }
    let ratio = hundreds[hundreds.len() - 1].as_secs_f64() / hundreds[0].as_secs_f64();
    println!("last hundred commits : first hundred commits = {ratio:.2}");
    assert_eq!(table.checkpoint().unwrap().unwrap().records(), 2 * COMMITS as u64);
    assert_no_orphans(&lake, &table).await;
    lake.remove().await;
}

/// A table's metadata files and their sizes.
async fn metadata_files(storages: &Storages, table: &LakeTable) -> BTreeMap<String, u64> {
    let files = storages.list(&format!("{}/metadata", table.metadata().location()), Depth::Direct).await.unwrap();
    files.into_iter().map(|file| (file.location, file.size_bytes)).collect()
}
