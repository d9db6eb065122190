//! Reads a table as anybody could: the pointer, its JSON, the Avro files below it, the data files. None of the code under test takes part.
//!
//! Each snapshot names the manifests of those before it. A manifest is parsed once as long as its bytes stay what they were.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use lakesmith::checkpoint::{OffsetRange, parse_positions};
use lakesmith::storage::MemoryFiles;
use serde_json::Value;

use super::avro;
use super::world::{Plan, World};

/// A data file's location and its records.
type Listed = (String, u64);

/// A manifest's bytes, and the files that it lists.
type Parsed = (Bytes, Arc<Vec<Listed>>);

/// The files, and what was parsed of them.
#[derive(Default)]
pub struct Reader {
    pub files: MemoryFiles,
    manifests: Mutex<HashMap<String, Parsed>>,
}

impl Reader {
    fn content(&self, location: &str) -> Result<Bytes, String> {
        let path = location.strip_prefix("memory://").ok_or_else(|| format!("{location} is elsewhere"))?;
        self.files.content(path).ok_or_else(|| format!("{location} is gone"))
    }

    fn metadata(&self, location: &str) -> Result<Value, String> {
        serde_json::from_slice(&self.content(location)?).map_err(|error| format!("{location}: {error}"))
    }

    /// The data files of a manifest.
    fn manifest(&self, location: &str) -> Result<Arc<Vec<Listed>>, String> {
        let bytes = self.content(location)?;
        let mut known = self.manifests.lock().unwrap();
        if let Some((_, listed)) = known.get(location).filter(|(parsed, _)| *parsed == bytes) {
            return Ok(listed.clone());
        }
        let mut listed = Vec::new();
        for entry in avro::records(&bytes).map_err(|error| format!("{location}: {error}"))? {
            let file = &entry["data_file"];
            // 2: deleted.
            if entry["status"] != 2 {
                let path = file["file_path"].as_str().ok_or_else(|| format!("{location}: a file without a path"))?;
                let records = file["record_count"].as_u64().ok_or_else(|| format!("{location}: a file without a count"))?;
                listed.push((path.to_owned(), records));
            }
        }
        let listed = Arc::new(listed);
        known.insert(location.to_owned(), (bytes, Arc::clone(&listed)));
        Ok(listed)
    }

    /// The data files of a snapshot.
    fn data_files(&self, snapshot: &Value) -> Result<Vec<Listed>, String> {
        let list = snapshot["manifest-list"].as_str().ok_or("a snapshot without a list")?;
        let mut found = Vec::new();
        for manifest in avro::records(&self.content(list)?).map_err(|error| format!("{list}: {error}"))? {
            let path = manifest["manifest_path"].as_str().ok_or_else(|| format!("{list}: a manifest without a path"))?;
            found.extend(self.manifest(path)?.iter().cloned());
        }
        Ok(found)
    }

    /// The records of the current snapshot, by partition and offset, in order.
    pub fn rows(&self, location: &str) -> Result<Vec<(i32, i64)>, String> {
        self.rows_of(&self.metadata(location)?)
    }

    fn rows_of(&self, metadata: &Value) -> Result<Vec<(i32, i64)>, String> {
        let mut rows = Vec::new();
        for (file, records) in current(metadata).map_or_else(|| Ok(Vec::new()), |snapshot| self.data_files(snapshot))? {
            let text = self.content(&file)?;
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
}

fn current(metadata: &Value) -> Option<&Value> {
    let id = metadata["current-snapshot-id"].as_i64()?;
    metadata["snapshots"].as_array()?.iter().find(|snapshot| snapshot["snapshot-id"].as_i64() == Some(id))
}

/// Whether a table holds every record of the source once, says so, and has all its files.
pub fn complete(world: &World, table: &str) -> Result<(), String> {
    let location = world.metastore.parameter(table, "metadata_location").ok_or("no pointer")?;
    let metadata = world.reader.metadata(&location)?;
    let found = world.reader.rows_of(&metadata)?;
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
        for (file, _) in world.reader.data_files(snapshot)? {
            world.reader.content(&file)?;
        }
    }
    Ok(())
}
