//! What a snapshot's summary counts.

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::spec::{DataFile, Operation, PartitionSpec, SchemaRef, Snapshot, SnapshotSummaryCollector, Summary};

/// Totals and what an append adds to them.
const TOTALS: [(&str, &str); 3] =
    [("total-data-files", "added-data-files"), ("total-records", "added-records"), ("total-files-size", "added-files-size")];
/// Totals that an append of data files leaves as they are.
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
    let mut counted = collector.build();
    let before = |total: &str| match previous {
        None => Some(0),
        Some(snapshot) => snapshot.summary().additional_properties.get(total)?.parse::<u64>().ok(),
    };
    for (total, added) in TOTALS {
        let added = counted.get(added).and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
        counted.extend(before(total).map(|before| (total.to_owned(), (before + added).to_string())));
    }
    for total in DELETE_TOTALS {
        counted.extend(before(total).map(|before| (total.to_owned(), before.to_string())));
    }
    counted.insert("engine-name".to_owned(), "lakesmith".to_owned());
    counted.insert("engine-version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    counted.extend(marks);
    Summary { operation: Operation::Append, additional_properties: counted }
}
