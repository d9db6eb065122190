//! The directories of tables, where they are on this machine. A location elsewhere is left to those who can reach it.

use std::fs;
use std::path::{Component, Path, PathBuf};

use tracing::warn;

use super::fault::{Answer, Fault};

/// Levels below a directory that are looked into for statistics.
const DEPTH_MAX: usize = 8;

/// The local path of a location, if it is one: `file:/x`, `file:///x` or `/x`.
pub(super) fn local_path(location: &str) -> Option<PathBuf> {
    let path = match location.strip_prefix("file:") {
        Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
        None => location,
    };
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// The location of a local path, as Hadoop writes it.
pub(super) fn location_of(path: &Path) -> String {
    format!("file://{}", path.display())
}

/// A location below another.
pub(super) fn join(location: &str, name: &str) -> String {
    format!("{}/{name}", location.trim_end_matches('/'))
}

/// Makes a directory. Whether it was missing.
pub(super) fn create(location: &str) -> Answer<bool> {
    let Some(path) = local_path(location) else { return Ok(false) };
    if path.is_dir() {
        return Ok(false);
    }
    fs::create_dir_all(&path).map_err(|error| Fault::meta(format!("Unable to create path {location}: {error}")))?;
    Ok(true)
}

/// Deletes a directory with all in it, if it lies below the warehouse. A location that somebody pointed elsewhere is not ours to delete.
pub(super) fn delete(location: &str, warehouse: &Path) {
    let Some(path) = local_path(location) else { return };
    let climbs = path.components().any(|part| part == Component::ParentDir);
    if climbs || !path.starts_with(warehouse) || path == warehouse {
        warn!(%location, "the directory of a dropped entry lies outside the warehouse and was left");
        return;
    }
    if let Err(error) = fs::remove_dir_all(&path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        warn!(%location, %error, "the directory of a dropped entry could not be deleted");
    }
}

/// Number and size of the files in a directory that are data; none if the directory is not on this machine.
pub(super) fn count(location: &str) -> Option<(u64, u64)> {
    let path = local_path(location)?;
    let (mut files, mut bytes) = (0, 0);
    count_in(&path, 0, &mut files, &mut bytes);
    Some((files, bytes))
}

fn count_in(path: &Path, depth: usize, files: &mut u64, bytes: &mut u64) {
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Ok(status) = entry.metadata() else { continue };
        if name.as_encoded_bytes().starts_with(b".") || name.as_encoded_bytes().starts_with(b"_") {
            continue;
        }
        if status.is_dir() {
            if depth < DEPTH_MAX {
                count_in(&entry.path(), depth + 1, files, bytes);
            }
        } else {
            *files += 1;
            *bytes += status.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_below_the_warehouse_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let warehouse = dir.path().join("warehouse");
        for name in ["warehouse/t", "other"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let location = |path: &Path| format!("file:{}", path.display());
        delete(&location(&dir.path().join("other")), &warehouse);
        delete(&location(&warehouse.join("t/../../other")), &warehouse);
        delete(&location(&warehouse), &warehouse);
        delete("hdfs://namenode/warehouse/t", &warehouse);
        assert!(dir.path().join("other").exists() && warehouse.join("t").exists());
        delete(&location(&warehouse.join("t")), &warehouse);
        assert!(!warehouse.join("t").exists());
    }

    #[test]
    fn hidden_files_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("part-0", "12345"), ("_SUCCESS", "x"), (".part-0.crc", "x")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        assert_eq!(count(&location_of(dir.path())), Some((1, 5)));
        assert_eq!(count("hdfs://namenode/t"), None);
    }
}
