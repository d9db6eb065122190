//! A table's entry in the metastore: what Hive, Spark, Trino and Impala expect to find there.
//!
//! *Invariants*: only what follows from the table's metadata is set or removed; every other field and parameter stays as it was read.

use iceberg::TableIdent;
use iceberg::spec::{Snapshot, TableMetadata};

use super::Version;
use super::hive_type::hive_columns;
use crate::error::{Error, Result};
use crate::metastore::{FieldSchema, HiveTable};

pub(super) const METADATA_LOCATION: &str = "metadata_location";
const PREVIOUS_METADATA_LOCATION: &str = "previous_metadata_location";
const TABLE_TYPE: &str = "table_type";
const ICEBERG: &str = "ICEBERG";
/// Hive drops an external table's data with the table if this is true: Iceberg's `gc.enabled` under Hive's name.
const EXTERNAL_TABLE_PURGE: &str = "external.table.purge";
const GC_ENABLED: &str = "gc.enabled";

/// The property by which writers agree whether a commit takes the metastore's lock; absent means that it does.
pub(super) const LOCK_ENABLED: &str = "engine.hive.lock-enabled";
pub(super) const HIVE_ENABLED: &str = "engine.hive.enabled";

const STORAGE_HANDLER: &str = "org.apache.iceberg.mr.hive.HiveIcebergStorageHandler";
const SERDE: &str = "org.apache.iceberg.mr.hive.HiveIcebergSerDe";
const INPUT_FORMAT: &str = "org.apache.iceberg.mr.hive.HiveIcebergInputFormat";
const OUTPUT_FORMAT: &str = "org.apache.iceberg.mr.hive.HiveIcebergOutputFormat";
/// Hive knows columns in lower case, and Iceberg's reader for it looks for exactly these unless the table says otherwise: a query that
/// names a column of another case then fails with an `ArrayIndexOutOfBoundsException` (Iceberg 1.4.3 in Hive 3.1.3).
const CASE_SENSITIVE: &str = "iceberg.mr.case.sensitive";

/// The classes of an entry that Hive is not meant to read: something must stand there, and this is what Java's writers put.
const NO_HIVE_SERDE: &str = "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe";
const NO_HIVE_INPUT_FORMAT: &str = "org.apache.hadoop.mapred.FileInputFormat";
const NO_HIVE_OUTPUT_FORMAT: &str = "org.apache.hadoop.mapred.FileOutputFormat";

/// What a metastore's database keeps of one parameter at least (the width of PARAM_VALUE on the narrowest schema); Java's limit too.
const PARAMETER_BYTES_MAX: usize = 32_672;

/// Whether an entry is an Iceberg table; the value is `iceberg` in entries of some engines.
pub(super) fn is_iceberg(entry: &HiveTable) -> bool {
    entry.parameter(TABLE_TYPE).is_some_and(|kind| kind.eq_ignore_ascii_case(ICEBERG))
}

/// The metadata file that an entry points to; an error for an entry that is no Iceberg table.
pub(super) fn metadata_location(ident: &TableIdent, entry: &HiveTable) -> Result<String> {
    if !is_iceberg(entry) {
        return Err(Error::stop(format!("{ident} is not an Iceberg table"))
            .hint("choose another table name, or drop what is there; a plain Hive table needs bronze.format or silver.format = \"hive\""));
    }
    match entry.parameter(METADATA_LOCATION) {
        Some(location) => Ok(location.to_owned()),
        None => Err(Error::stop(format!("the entry of Iceberg table {ident} has no metadata_location"))
            .hint("register the table's newest metadata file again, for example with Spark's register_table")),
    }
}

/// The entry of a table that is about to be created.
pub(super) fn new_entry(ident: &TableIdent, owner: &str, version: &Version, comment: Option<&str>) -> HiveTable {
    let mut entry = HiveTable::new(&ident.namespace.to_url_string(), ident.name());
    entry.set_owner(owner);
    entry.set_parameter(TABLE_TYPE, ICEBERG);
    if let Some(comment) = comment {
        entry.set_parameter("comment", comment);
    }
    describe(&mut entry, None, version);
    entry
}

/// Makes an entry say what `to` says; `from` is the version it described so far.
pub(super) fn describe(entry: &mut HiveTable, from: Option<&Version>, to: &Version) {
    let metadata = &to.metadata;
    // Properties first: what follows from the metadata itself wins over a property of the same name.
    if let Some(from) = from {
        for key in from.metadata.properties().keys().filter(|key| !metadata.properties().contains_key(*key)) {
            entry.remove_parameter(parameter_name(key));
        }
    }
    for (key, value) in metadata.properties() {
        set_bounded(entry, parameter_name(key), escape(value));
    }
    entry.set_parameter(METADATA_LOCATION, &to.location);
    match from {
        Some(from) => entry.set_parameter(PREVIOUS_METADATA_LOCATION, &from.location),
        None => {
            entry.remove_parameter(PREVIOUS_METADATA_LOCATION);
        }
    }
    entry.set_parameter("uuid", metadata.uuid().to_string());
    describe_schema(entry, metadata);
    describe_snapshot(entry, metadata);
    describe_storage(entry, metadata);
}

fn describe_schema(entry: &mut HiveTable, metadata: &TableMetadata) {
    set_json(entry, "current-schema", Some(serde_json::to_string(metadata.current_schema().as_ref())));
    let spec = metadata.default_partition_spec();
    let spec = (!spec.is_unpartitioned()).then(|| serde_json::to_string(spec.as_ref()));
    set_json(entry, "default-partition-spec", spec);
    let order = metadata.default_sort_order();
    let order = (!order.is_unsorted()).then(|| serde_json::to_string(order.as_ref()));
    set_json(entry, "default-sort-order", order);
}

fn describe_snapshot(entry: &mut HiveTable, metadata: &TableMetadata) {
    entry.set_parameter("snapshot-count", metadata.snapshots().len().to_string());
    let snapshot = metadata.current_snapshot();
    let counter = |name: &str| snapshot.and_then(|snapshot| snapshot.summary().additional_properties.get(name).cloned());
    set_or_remove(entry, "current-snapshot-id", snapshot.map(|snapshot| snapshot.snapshot_id().to_string()));
    set_or_remove(entry, "current-snapshot-timestamp-ms", snapshot.map(|snapshot| snapshot.timestamp_ms().to_string()));
    set_json(entry, "current-snapshot-summary", snapshot.map(|snapshot| summary_json(snapshot)));
    // Hive's names for what the snapshot counts; engines plan with them (no engine answers a query from them: external table).
    for (parameter, total) in [("numFiles", "total-data-files"), ("numRows", "total-records"), ("totalSize", "total-files-size")]
    {
        set_or_remove(entry, parameter, counter(total).or_else(|| snapshot.is_none().then(|| "0".to_owned())));
    }
}

fn summary_json(snapshot: &Snapshot) -> serde_json::Result<String> {
    serde_json::to_string(&snapshot.summary().additional_properties)
}

fn describe_storage(entry: &mut HiveTable, metadata: &TableMetadata) {
    entry.set_location(metadata.location());
    entry.set_columns(&hive_columns(metadata.current_schema()));
    if metadata.properties().get(HIVE_ENABLED).is_some_and(|enabled| enabled == "true") {
        entry.set_parameter("storage_handler", STORAGE_HANDLER);
        entry.set_parameter(CASE_SENSITIVE, "false");
        entry.set_formats(INPUT_FORMAT, OUTPUT_FORMAT, SERDE);
    } else if entry.serde_library().is_none() {
        entry.set_formats(NO_HIVE_INPUT_FORMAT, NO_HIVE_OUTPUT_FORMAT, NO_HIVE_SERDE);
    }
}

/// Leaves out the columns from the first one on whose type is not that of the column that stood in its place.
///
/// Servers compare types by position and refuse what isn't compatible, as after a column was moved or put first. Those of 3.1 and later set
/// that aside when asked to, but 2.3 doesn't. It compares no further than the shorter list is long, so the entry says less for one commit, and
/// the next one completes it. Nobody reads an Iceberg table by these columns but Hive 4, whose metastore exempts its entries.
pub(super) fn leave_out_changed_columns(entry: &mut HiveTable, before: &[FieldSchema]) {
    let mut columns = entry.columns();
    let kept = columns.iter().zip(before).take_while(|(new, old)| new.hive_type.eq_ignore_ascii_case(&old.hive_type)).count();
    columns.truncate(kept);
    entry.set_columns(&columns);
}

fn parameter_name(property: &str) -> &str {
    if property == GC_ENABLED { EXTERNAL_TABLE_PURGE } else { property }
}

fn set_or_remove(entry: &mut HiveTable, key: &str, value: Option<String>) {
    match value {
        Some(value) => entry.set_parameter(key, value),
        None => {
            entry.remove_parameter(key);
        }
    }
}

fn set_json(entry: &mut HiveTable, key: &str, json: Option<serde_json::Result<String>>) {
    match json {
        Some(Ok(json)) => set_bounded(entry, key, escape(&json)),
        Some(Err(error)) => {
            tracing::debug!(parameter = key, %error, "a table parameter could not be written as JSON and is left out");
            entry.remove_parameter(key);
        }
        None => {
            entry.remove_parameter(key);
        }
    }
}

/// A parameter that the database could cut or refuse is left out: the metadata file has it anyway.
fn set_bounded(entry: &mut HiveTable, key: &str, value: String) {
    if value.len() < PARAMETER_BYTES_MAX {
        entry.set_parameter(key, value);
    } else {
        tracing::debug!(parameter = key, bytes = value.len(), "a table parameter is too long for the metastore and is left out");
        entry.remove_parameter(key);
    }
}

/// Metastores on MySQL with its old default character set refuse or mangle what is not ASCII. In JSON an escape means the same.
fn escape(text: &str) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if character.is_ascii() {
            escaped.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use iceberg::spec::{
        FormatVersion, NestedField, PartitionSpec, PrimitiveType, Schema, SortOrder, TableMetadataBuilder, Transform, Type,
    };

    use super::*;

    fn version(location: &str, properties: &[(&str, &str)]) -> Version {
        let schema = Schema::builder()
            .with_fields([
                Arc::new(NestedField::required(1, "Year", Type::Primitive(PrimitiveType::Int)).with_doc("Jahr – year")),
                Arc::new(NestedField::optional(2, "amount", Type::Primitive(PrimitiveType::Decimal { precision: 18, scale: 2 }))),
            ])
            .build()
            .unwrap();
        let spec = PartitionSpec::builder(schema.clone())
            .add_partition_field("Year", "Year", Transform::Identity)
            .unwrap()
            .build()
            .unwrap();
        let properties = properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let metadata = TableMetadataBuilder::new(
            schema,
            spec,
            SortOrder::unsorted_order(),
            "hdfs://nn/t".into(),
            FormatVersion::V2,
            properties,
        )
        .unwrap()
        .build()
        .unwrap()
        .metadata;
        Version { location: location.into(), metadata: Arc::new(metadata) }
    }

    fn ident() -> TableIdent {
        TableIdent::from_strs(["db", "t"]).unwrap()
    }

    #[test]
    fn a_new_entry_is_what_the_engines_expect() {
        let to = version("hdfs://nn/t/metadata/00000-a.metadata.json", &[(HIVE_ENABLED, "true"), ("gc.enabled", "true")]);
        let entry = new_entry(&ident(), "hive", &to, Some("sales"));
        for (key, value) in [
            ("EXTERNAL", "TRUE"),
            ("table_type", "ICEBERG"),
            ("metadata_location", "hdfs://nn/t/metadata/00000-a.metadata.json"),
            ("storage_handler", STORAGE_HANDLER),
            (CASE_SENSITIVE, "false"),
            ("snapshot-count", "0"),
            ("numRows", "0"),
            ("external.table.purge", "true"),
            ("comment", "sales"),
        ] {
            assert_eq!(entry.parameter(key), Some(value), "{key}");
        }
        assert_eq!(entry.parameter("previous_metadata_location"), None);
        assert_eq!(entry.parameter("current-snapshot-id"), None);
        assert!(entry.parameter("current-schema").unwrap().contains(r"Jahr \u2013 year"));
        assert!(entry.parameter("default-partition-spec").unwrap().contains("identity"));
        let columns: Vec<_> = entry.columns().into_iter().map(|column| (column.name, column.hive_type)).collect();
        assert_eq!(columns, [("Year".to_owned(), "int".to_owned()), ("amount".to_owned(), "decimal(18,2)".to_owned())]);
        assert_eq!(metadata_location(&ident(), &entry).unwrap(), to.location);
    }

    #[test]
    fn a_change_keeps_what_others_set_and_drops_what_the_table_no_longer_has() {
        let from = version("old", &[("kept", "1"), ("dropped", "2")]);
        let mut entry = new_entry(&ident(), "hive", &from, None);
        entry.set_parameter("theirs", "stays");
        entry.set_owner("another");
        let to = version("new", &[("kept", "3"), ("long", &"x".repeat(PARAMETER_BYTES_MAX))]);
        describe(&mut entry, Some(&from), &to);
        assert_eq!(entry.parameter("theirs"), Some("stays"));
        assert_eq!(entry.owner(), Some("another"));
        assert_eq!(entry.parameter("kept"), Some("3"));
        assert_eq!(entry.parameter("dropped"), None);
        assert_eq!(entry.parameter("long"), None);
        assert_eq!(entry.parameter("previous_metadata_location"), Some("old"));
    }

    #[test]
    fn columns_are_left_out_from_the_first_that_changed() {
        let column = |name: &str, kind: &str| FieldSchema::new(name, kind);
        let before = [column("a", "int"), column("b", "string"), column("c", "date")];
        let mut entry = HiveTable::new("db", "t");
        entry.set_columns(&[column("renamed", "INT"), column("c", "date"), column("b", "string"), column("d", "int")]);
        leave_out_changed_columns(&mut entry, &before);
        assert_eq!(entry.columns(), [column("renamed", "INT")]);
    }

    #[test]
    fn characters_beyond_the_basic_plane_become_two_escapes() {
        assert_eq!(escape("a–😀"), "a\\u2013\\ud83d\\ude00");
    }

    #[test]
    fn other_tables_are_refused_by_name() {
        let error = metadata_location(&ident(), &HiveTable::new("db", "t")).unwrap_err();
        assert_eq!(error.to_string(), "db.t is not an Iceberg table");
    }
}
