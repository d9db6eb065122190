//! Can the warehouse be read and written?

use bytes::Bytes;
use uuid::Uuid;

use super::Check;
use crate::error::{Context, Result};
use crate::pipeline::Definition;
use crate::storage::{Create, Storages};

const AREA: &str = "storage";

/// Writes a small file and deletes it: in the warehouse, or where that is still to be made, in the nearest directory above it.
pub(super) async fn check(definition: &Definition) -> (Vec<Check>, Option<Storages>) {
    let storages = match Storages::new(&definition.storage) {
        Ok(storages) => storages,
        Err(error) => return (vec![Check::failed(AREA, "storage.warehouse", &error)], None),
    };
    let warehouse = storages.warehouse();
    match write_and_delete(&storages, warehouse.trim_end_matches('/')).await {
        Ok(found) => (vec![Check::ok(AREA, warehouse, found)], Some(storages)),
        Err(error) => (vec![Check::failed(AREA, warehouse, &error)], Some(storages)),
    }
}

async fn write_and_delete(storages: &Storages, warehouse: &str) -> Result<&'static str> {
    let mut directory = warehouse;
    while storages.status(directory).await.context("it cannot be read")?.is_none() {
        match directory.rsplit_once('/') {
            // The two slashes before the authority.
            Some((above, _)) if !above.ends_with('/') && above.contains("://") => directory = above,
            _ => break,
        }
    }
    let file = format!("{directory}/.lakesmith-doctor-{}", Uuid::new_v4().simple());
    let content = Bytes::from_static(b"written by lakesmith doctor");
    storages.write_file(&file, content.clone(), Create::New).await.context("it cannot be written")?;
    let read = storages.read(&file).await;
    storages.delete_file(&file).await.context("files in it cannot be deleted")?;
    if read.context("what was written cannot be read")? != content {
        return Err(crate::error::Error::failed("what was written is not what was read"));
    }
    Ok(if directory == warehouse { "readable and writable" } else { "still to be made; the directory above it is writable" })
}
