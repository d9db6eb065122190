//! What a 4.0 server does to the statistics parameters of what it is sent (measured on 4.0.1).

use super::super::thrift::{Field, Map, Struct};
use super::super::types::EnvironmentContext;
use super::files;
use super::store::now_s;

const DDL_TIME: &str = "transient_lastDdlTime";
const ACCURATE: &str = "COLUMN_STATS_ACCURATE";

/// Stamps the time of the change, unless the sender did.
pub(super) fn stamp(entry: &mut Struct, parameters: Field) {
    let map = entry.map_mut(parameters);
    if map.text(DDL_TIME).is_none() {
        map.put_text(DDL_TIME, &now_s().to_string());
    }
}

/// Takes the claim of accuracy away, which the sender cannot make, and counts the files. With `DO_NOT_UPDATE_STATS` all stays as sent,
/// with `STATS_GENERATED` the claim stays.
pub(super) fn update(entry: &mut Struct, parameters: Field, location: Option<&str>, environment: &EnvironmentContext) {
    if is_true(environment.get(EnvironmentContext::DO_NOT_UPDATE_STATS)) {
        return;
    }
    let map = entry.map_mut(parameters);
    if environment.get(EnvironmentContext::STATS_GENERATED) != Some("TASK") {
        map.take(ACCURATE);
    }
    // A storage handler's table is no directory of files to Hive.
    if map.text("storage_handler").is_some() {
        return;
    }
    if let Some((files, bytes)) = location.and_then(files::count) {
        map.put_text("numFiles", &files.to_string());
        map.put_text("totalSize", &bytes.to_string());
        map.put_text("numFilesErasureCoded", "0");
    }
}

/// A table may carry the wish not to be counted among its parameters, where it does not stay.
pub(super) fn take_wish(entry: &mut Struct, parameters: Field, environment: EnvironmentContext) -> EnvironmentContext {
    let key = EnvironmentContext::DO_NOT_UPDATE_STATS;
    let wished = is_true(entry.map(parameters).and_then(|map: &Map| map.text(key)));
    if entry.map_mut(parameters).take(key) && wished { environment.without_statistics() } else { environment }
}

fn is_true(text: Option<&str>) -> bool {
    text.is_some_and(|text| text.eq_ignore_ascii_case("true"))
}
