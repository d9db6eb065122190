//! What a snapshot's summary counts.

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::spec::{
    DataFile, Operation, PartitionSpec, PartitionSpecRef, SchemaRef, Snapshot, SnapshotSummaryCollector, Summary,
};

/// Totals, what is added to them and what is taken away.
const TOTALS: [(&str, &str, &str); 3] = [
    ("total-data-files", "added-data-files", "deleted-data-files"),
    ("total-records", "added-records", "deleted-records"),
    ("total-files-size", "added-files-size", "removed-files-size"),
];
/// Totals that data files leave as they are.
const DELETE_TOTALS: [&str; 3] = ["total-delete-files", "total-position-deletes", "total-equality-deletes"];

/// The summary of an append to `previous`. A total that `previous` doesn't have is left out, because nobody knows it.
pub(super) fn append(
    files: &[DataFile],
    schema: &SchemaRef,
    spec: &PartitionSpec,
    previous: Option<&Snapshot>,
    marks: HashMap<String, String>,
) -> Summary {
    let mut collector = SnapshotSummaryCollector::default();
    let spec = Arc::new(spec.clone());
    for file in files {
        collector.add_file(file, schema.clone(), spec.clone());
    }
    summary(Operation::Append, collector.build(), previous, marks)
}

/// The summary of a version in which some files of `previous` are replaced by others.
pub(super) fn overwrite(
    added: &[(PartitionSpecRef, DataFile)],
    removed: &[(PartitionSpecRef, DataFile)],
    schema: &SchemaRef,
    previous: Option<&Snapshot>,
    marks: HashMap<String, String>,
) -> Summary {
    let mut collector = SnapshotSummaryCollector::default();
    for (spec, file) in added {
        collector.add_file(file, schema.clone(), spec.clone());
    }
    for (spec, file) in removed {
        collector.remove_file(file, schema.clone(), spec.clone());
    }
    summary(Operation::Overwrite, collector.build(), previous, marks)
}

fn summary(
    operation: Operation,
    mut counted: HashMap<String, String>,
    previous: Option<&Snapshot>,
    marks: HashMap<String, String>,
) -> Summary {
    let before = |total: &str| match previous {
        None => Some(0),
        Some(snapshot) => snapshot.summary().additional_properties.get(total)?.parse::<u64>().ok(),
    };
    for (total, added, removed) in TOTALS {
        let count = |key: &str| counted.get(key).and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
        let after = before(total).map(|before| (before + count(added)).saturating_sub(count(removed)));
        counted.extend(after.map(|after| (total.to_owned(), after.to_string())));
    }
    for total in DELETE_TOTALS {
        counted.extend(before(total).map(|before| (total.to_owned(), before.to_string())));
    }
    counted.insert("engine-name".to_owned(), "lakesmith".to_owned());
    counted.insert("engine-version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    counted.extend(marks);
    Summary { operation, additional_properties: counted }
}
