//! What is known about tables without reading their rows: sizes, snapshots, offsets, from the metastore and from Iceberg's metadata.

use std::collections::BTreeMap;

use iceberg::TableIdent;
use iceberg::spec::{Snapshot, TableMetadata};

use crate::catalog::HiveCatalog;
use crate::checkpoint::{Coverage, PartitionId, parse_positions};
use crate::error::{Context, Error, Result};
use crate::hive::CommitLog;
use crate::metastore::{HivePartition, HiveTable};
use crate::table::logged::is_logged;

/// Where every layer keeps its offsets: table properties, snapshot summaries, table parameters.
const POSITIONS: &str = "lakesmith.positions";
/// When Hive's metastore changed a table or partition last, in seconds.
const ALTERED: &str = "transient_lastDdlTime";
/// The offsets that one snapshot added.
const BATCH: &str = "lakesmith.batch";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    Iceberg,
    Hive,
    View,
}

impl TableKind {
    pub fn of(entry: &HiveTable) -> Self {
        match entry.table_type() {
            HiveTable::VIEW => Self::View,
            _ if entry.parameter("metadata_location").is_some() => Self::Iceberg,
            _ => Self::Hive,
        }
    }
}

impl std::fmt::Display for TableKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Iceberg => "iceberg",
            Self::Hive => "hive",
            Self::View => "view",
        })
    }
}

/// One table at a glance. What its format does not count is absent.
#[derive(Debug, Clone)]
pub struct TableOverview {
    pub database: String,
    pub name: String,
    pub kind: TableKind,
    pub rows: Option<u64>,
    pub files: Option<u64>,
    pub size_bytes: Option<u64>,
    pub committed_ms: Option<i64>,
}

/// One column, as its format describes it.
#[derive(Debug, Clone)]
pub struct ColumnDetails {
    /// Iceberg's field id; Hive has none.
    pub id: Option<i32>,
    pub name: String,
    pub data_type: String,
    pub required: bool,
    pub doc: Option<String>,
}

/// One snapshot of an Iceberg table.
#[derive(Debug, Clone)]
pub struct SnapshotDetails {
    pub id: i64,
    pub committed_ms: i64,
    pub operation: String,
    pub added_rows: Option<u64>,
    pub total_rows: Option<u64>,
    /// The offsets that it added, if it is one of ours.
    pub offsets: Option<String>,
}

/// One partition of a Hive table.
#[derive(Debug, Clone)]
pub struct PartitionDetails {
    pub values: Vec<String>,
    pub location: String,
    pub rows: Option<u64>,
    pub files: Option<u64>,
    pub size_bytes: Option<u64>,
}

/// All about one table.
#[derive(Debug, Clone)]
pub struct TableDetails {
    pub overview: TableOverview,
    pub location: Option<String>,
    /// The current metadata file of an Iceberg table: what readers without a metastore are given.
    pub metadata_location: Option<String>,
    pub columns: Vec<ColumnDetails>,
    /// How rows are partitioned: `Year`, `month(OrderDate)`, or Hive's partition columns.
    pub partitioned_by: Vec<String>,
    /// Newest first.
    pub snapshots: Vec<SnapshotDetails>,
    /// By value.
    pub partitions: Vec<PartitionDetails>,
    /// The topic that its records come from.
    pub topic: Option<String>,
    pub positions: BTreeMap<PartitionId, Coverage>,
    /// Table properties (Iceberg) or parameters (Hive).
    pub properties: BTreeMap<String, String>,
    pub view_text: Option<String>,
}

/// Every table of a database, by name.
pub async fn overview(catalog: &HiveCatalog, database: &str) -> Result<Vec<TableOverview>> {
    let mut tables = Vec::new();
    let mut names =
        catalog.metastore().tables(database).await.with_context(|| format!("tables of {database} cannot be listed"))?;
    names.sort();
    for name in names {
        // Dropped since it was listed: not there.
        if let Some(details) = details(catalog, database, &name).await? {
            tables.push(details.overview);
        }
    }
    Ok(tables)
}

/// One table; none if it does not exist.
pub async fn details(catalog: &HiveCatalog, database: &str, name: &str) -> Result<Option<TableDetails>> {
    let about = || format!("table {database}.{name} cannot be looked up");
    let Some(entry) = catalog.metastore().table(database, name).await.with_context(about)? else { return Ok(None) };
    Ok(Some(match TableKind::of(&entry) {
        TableKind::Iceberg => {
            let ident = TableIdent::from_strs([database, name]).with_context(about)?;
            let Some(loaded) = catalog.load(&ident).await? else { return Ok(None) };
            let details = iceberg_details(&entry, &loaded.version.metadata)?;
            TableDetails { metadata_location: Some(loaded.version.location.to_string()), ..details }
        }
        TableKind::Hive => {
            let partitions = match entry.partition_keys().is_empty() {
                true => Vec::new(),
                false => catalog.metastore().partitions(database, name).await.with_context(about)?,
            };
            let details = hive_details(&entry, &partitions)?;
            match is_logged(&entry) {
                true => with_commits(catalog, &entry, details).await?,
                false => details,
            }
        }
        TableKind::View => {
            let mut details = hive_details(&entry, &[])?;
            details.overview = TableOverview { rows: None, files: None, size_bytes: None, ..details.overview };
            details
        }
    }))
}

fn iceberg_details(entry: &HiveTable, metadata: &TableMetadata) -> Result<TableDetails> {
    let current = metadata.current_snapshot();
    let total = |key| current.map_or(Some(0), |snapshot| count(snapshot, key));
    let schema = metadata.current_schema();
    let columns = schema.as_struct().fields().iter().map(|field| ColumnDetails {
        id: Some(field.id),
        name: field.name.clone(),
        data_type: field.field_type.to_string(),
        required: field.required,
        doc: field.doc.clone(),
    });
    let partitioned_by = metadata.default_partition_spec().fields().iter().map(|field| {
        let column = schema.name_by_field_id(field.source_id).unwrap_or("?");
        match field.transform {
            iceberg::spec::Transform::Identity => column.to_string(),
            other => format!("{other}({column})"),
        }
    });
    let mut snapshots: Vec<_> = metadata.snapshots().collect();
    snapshots.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.sequence_number()));
    let properties: BTreeMap<String, String> =
        metadata.properties().iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    Ok(TableDetails {
        overview: TableOverview {
            database: entry.database().to_string(),
            name: entry.name().to_string(),
            kind: TableKind::Iceberg,
            rows: total("total-records"),
            files: total("total-data-files"),
            size_bytes: total("total-files-size"),
            committed_ms: current.map(|snapshot| snapshot.timestamp_ms()),
        },
        location: Some(metadata.location().to_string()),
        metadata_location: None,
        columns: columns.collect(),
        partitioned_by: partitioned_by.collect(),
        snapshots: snapshots.into_iter().map(|snapshot| snapshot_details(snapshot)).collect(),
        partitions: Vec::new(),
        topic: properties.get("lakesmith.topic").cloned(),
        positions: positions(properties.get(POSITIONS).map(String::as_str))?,
        properties,
        view_text: None,
    })
}

fn snapshot_details(snapshot: &Snapshot) -> SnapshotDetails {
    let summary = &snapshot.summary().additional_properties;
    SnapshotDetails {
        id: snapshot.snapshot_id(),
        committed_ms: snapshot.timestamp_ms(),
        operation: snapshot.summary().operation.as_str().to_string(),
        added_rows: count(snapshot, "added-records"),
        total_rows: count(snapshot, "total-records"),
        offsets: summary.get(BATCH).cloned(),
    }
}

fn count(snapshot: &Snapshot, key: &str) -> Option<u64> {
    snapshot.summary().additional_properties.get(key)?.parse().ok()
}

fn hive_details(entry: &HiveTable, partitions: &[HivePartition]) -> Result<TableDetails> {
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok());
    let times = partitions.iter().map(|partition| partition.parameter(ALTERED)).chain([entry.parameter(ALTERED)]);
    let altered = times.flatten().filter_map(|seconds| seconds.parse::<i64>().ok()).max();
    let mut partitions: Vec<_> = partitions
        .iter()
        .map(|partition| PartitionDetails {
            values: partition.values(),
            location: partition.location().unwrap_or_default().to_string(),
            rows: number(partition.parameter("numRows")),
            files: number(partition.parameter("numFiles")),
            size_bytes: number(partition.parameter("totalSize")),
        })
        .collect();
    partitions.sort_by(|a, b| a.values.cmp(&b.values));
    // A sum is known only if every part of it is.
    let sum = |part: fn(&PartitionDetails) -> Option<u64>, whole: &str| match entry.partition_keys().is_empty() {
        true => number(entry.parameter(whole)),
        false => partitions.iter().map(part).sum(),
    };
    let keys = entry.partition_keys();
    let columns = entry.columns().into_iter().chain(keys.iter().cloned()).map(|column| ColumnDetails {
        id: None,
        name: column.name,
        data_type: column.hive_type,
        required: false,
        doc: column.comment.filter(|comment| !comment.is_empty()),
    });
    let properties: BTreeMap<String, String> =
        entry.parameters().into_iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    Ok(TableDetails {
        overview: TableOverview {
            database: entry.database().to_string(),
            name: entry.name().to_string(),
            kind: TableKind::of(entry),
            rows: sum(|partition| partition.rows, "numRows"),
            files: sum(|partition| partition.files, "numFiles"),
            size_bytes: sum(|partition| partition.size_bytes, "totalSize"),
            committed_ms: altered.map(|seconds| seconds * 1000),
        },
        location: entry.location().map(str::to_string).filter(|location| !location.is_empty()),
        metadata_location: None,
        columns: columns.collect(),
        partitioned_by: keys.into_iter().map(|key| key.name).collect(),
        snapshots: Vec::new(),
        topic: None,
        positions: positions(properties.get(POSITIONS).map(String::as_str))?,
        partitions,
        properties,
        view_text: entry.view_expanded_text().map(str::to_string).filter(|text| !text.is_empty()),
    })
}

/// What the newest commit of a table with a log says of it.
async fn with_commits(catalog: &HiveCatalog, entry: &HiveTable, details: TableDetails) -> Result<TableDetails> {
    let log = CommitLog::new(catalog.storages(), entry.location().unwrap_or_default());
    let Some(newest) = log.newest().await? else { return Ok(details) };
    let mut properties = details.properties;
    properties.extend(newest.properties);
    let overview = TableOverview {
        rows: Some(newest.total.rows),
        files: Some(newest.total.files),
        size_bytes: Some(newest.total.size_bytes),
        committed_ms: Some(newest.committed_ms),
        ..details.overview
    };
    let positions = positions(properties.get(POSITIONS).map(String::as_str))?;
    // What the metastore counted when a partition was added is out of date with the next commit.
    let uncounted = |partition| PartitionDetails { rows: None, files: None, size_bytes: None, ..partition };
    let partitions = details.partitions.into_iter().map(uncounted).collect();
    let topic = properties.get("lakesmith.topic").cloned();
    Ok(TableDetails { overview, topic, positions, properties, partitions, ..details })
}

fn positions(text: Option<&str>) -> Result<BTreeMap<PartitionId, Coverage>> {
    match text {
        None => Ok(BTreeMap::new()),
        Some(text) => parse_positions(text).map_err(|error| Error::stop("a table's offsets cannot be read").caused_by(error)),
    }
}
