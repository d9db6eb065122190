//! Reads a table as anybody could: the pointer, its JSON, the Avro files below it, the data files. None of the code under test takes part.

use std::collections::BTreeMap;

use iceberg::spec::{FormatVersion, Manifest, ManifestList};
use lakesmith::checkpoint::{OffsetRange, parse_positions};
use lakesmith::storage::MemoryFiles;
use serde_json::Value;

use super::world::{Plan, World};

fn content(files: &MemoryFiles, location: &str) -> Result<bytes::Bytes, String> {
    let path = location.strip_prefix("memory://").ok_or_else(|| format!("{location} is elsewhere"))?;
    files.content(path).ok_or_else(|| format!("{location} is gone"))
}

fn metadata(files: &MemoryFiles, location: &str) -> Result<Value, String> {
    serde_json::from_slice(&content(files, location)?).map_err(|error| format!("{location}: {error}"))
}

/// The data files of a snapshot.
fn data_files(files: &MemoryFiles, snapshot: &Value) -> Result<Vec<(String, u64)>, String> {
    let list = snapshot["manifest-list"].as_str().ok_or("a snapshot without a list")?;
    let list = ManifestList::parse_with_version(&content(files, list)?, FormatVersion::V2).map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    for manifest in list.entries() {
        let bytes = content(files, &manifest.manifest_path)?;
        let manifest = Manifest::parse_avro(&bytes).map_err(|error| error.to_string())?;
        let alive = manifest.entries().iter().filter(|entry| entry.is_alive());
        found.extend(alive.map(|entry| (entry.data_file().file_path().to_owned(), entry.data_file().record_count())));
    }
    Ok(found)
}

fn current(metadata: &Value) -> Option<&Value> {
    let id = metadata["current-snapshot-id"].as_i64()?;
    metadata["snapshots"].as_array()?.iter().find(|snapshot| snapshot["snapshot-id"].as_i64() == Some(id))
}

/// The records of the current snapshot, by partition and offset, in order.
pub fn rows(files: &MemoryFiles, location: &str) -> Result<Vec<(i32, i64)>, String> {
    let metadata = metadata(files, location)?;
    let mut rows = Vec::new();
    for (file, records) in current(&metadata).map_or_else(|| Ok(Vec::new()), |snapshot| data_files(files, snapshot))? {
        let text = content(files, &file)?;
        let text = std::str::from_utf8(&text).map_err(|error| error.to_string())?;
        if text.lines().count() as u64 != records {
            return Err(format!("{file} has not the {records} records that its manifest says"));
        }
        for line in text.lines() {
            let (partition, offset) = line.split_once(' ').ok_or("a line of two numbers")?;
            rows.push((partition.parse().map_err(|_| "a partition")?, offset.parse().map_err(|_| "an offset")?));
        }
    }
    rows.sort_unstable();
    Ok(rows)
}

/// Whether a table holds every record of the source once, says so, and has all its files.
pub fn complete(world: &World, table: &str) -> Result<(), String> {
    let location = world.metastore.parameter(table, "metadata_location").ok_or("no pointer")?;
    let found = rows(&world.files, &location)?;
    let ends = || world.plan.ends.iter().map(|(&partition, &end)| (partition, OffsetRange::new(0, end)));
    let expected: Vec<_> =
        ends().flat_map(|(partition, range)| Plan::records(partition, range).map(move |offset| (partition, offset))).collect();
    if found != expected {
        let mut counts: BTreeMap<(i32, i64), (u32, u32)> = BTreeMap::new();
        expected.iter().for_each(|row| counts.entry(*row).or_default().0 += 1);
        found.iter().for_each(|row| counts.entry(*row).or_default().1 += 1);
        let wrong: Vec<_> = counts.into_iter().filter(|(_, (expected, found))| expected != found).take(5).collect();
        return Err(format!("(partition, offset), expected and found: {wrong:?}"));
    }
    let metadata = metadata(&world.files, &location)?;
    let snapshot = current(&metadata).ok_or("no current snapshot")?;
    let counts = |partition| found.iter().filter(|(of, _)| *of == partition).count() as u64;
    let covered: Vec<_> = ends().map(|(partition, range)| (partition, range, counts(partition))).collect();
    for said in [&metadata["properties"]["lakesmith.positions"], &snapshot["summary"]["lakesmith.positions"]] {
        let said = parse_positions(said.as_str().ok_or("no positions")?).map_err(|error| error.to_string())?;
        let said: Vec<_> = said.into_iter().map(|(partition, coverage)| (partition, coverage.range, coverage.records)).collect();
        if said != covered {
            return Err(format!("it says {said:?} and holds {covered:?}"));
        }
    }
    for snapshot in metadata["snapshots"].as_array().ok_or("no snapshots")? {
        for (file, _) in data_files(&world.files, snapshot)? {
            content(&world.files, &file)?;
        }
    }
    Ok(())
}
