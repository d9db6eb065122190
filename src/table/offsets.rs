//! The ways out of a stop: what `lakesmith offsets show`, `accept`, `rebuild` and `set` do to a table.
//!
//! Each writes the table's offsets into its properties, with a mark that says over which snapshot of ours a person decided so; the
//! records stay as they are. The change is refused if a batch was committed since the person looked.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use iceberg::TableIdent;

use super::progress::{self, Ancestry, COMMIT_ID};
use super::{LakeTable, Origin, Progress};
use crate::catalog::{Rejection, Version};
use crate::checkpoint::{Checkpoint, Coverage, OffsetRange, PartitionId};
use crate::completeness::{COMPLETE_UNTIL, PARTITION_TIMES};
use crate::error::{Error, Result};
use crate::record::{OFFSET, PARTITION, coordinates};

/// What a table says about its offsets.
#[derive(Debug)]
pub struct OffsetsReport {
    pub table: TableIdent,
    /// What the properties and the newest snapshot say.
    pub progress: Progress,
    /// What the daemon would go on with, or why it would stop.
    pub verdict: Result<Option<Checkpoint>>,
    /// Snapshots after the newest one of ours, newest first, with their operation: what other engines did since.
    pub later_snapshots: Vec<(i64, String)>,
}

/// Which of two contradicting sides is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The table's properties: the last thing that lakesmith committed, whatever was done to the snapshots since.
    Property,
    /// The newest snapshot's summary: right after a rollback, when the records after it are to be read again.
    Summary,
}

/// Reads a table's offsets from both places.
pub fn inspect(table: &LakeTable) -> Result<OffsetsReport> {
    let progress = Progress::read(table.metadata())?;
    let newest = progress.summary.as_ref().map(|(id, _)| *id);
    let ancestry = Ancestry::of(table.metadata());
    let later = ancestry.snapshots.iter().take_while(|snapshot| Some(snapshot.snapshot_id()) != newest);
    let later_snapshots =
        later.map(|snapshot| (snapshot.snapshot_id(), snapshot.summary().operation.as_str().to_owned())).collect();
    let verdict = progress.checkpoint(table.ident());
    Ok(OffsetsReport { table: table.ident().clone(), progress, verdict, later_snapshots })
}

/// Declares one side of a contradiction to be right.
pub async fn accept(table: &mut LakeTable, side: Side) -> Result<Checkpoint> {
    let progress = Progress::read(table.metadata())?;
    let (found, place) = match side {
        Side::Property => (progress.property.clone(), "properties"),
        Side::Summary => (progress.summary.clone().map(|(_, checkpoint)| checkpoint), "snapshots"),
    };
    let missing = || {
        Error::failed(format!("table {} has no offsets in its {place}", table.ident()))
            .hint("use the other side, `lakesmith offsets rebuild` or `lakesmith offsets set`")
    };
    let checkpoint = found.ok_or_else(missing)?;
    write(table, &progress, checkpoint).await
}

/// Recomputes the offsets from the records: for each partition the first offset, the one after the last, and their number. What was
/// read after the last record in the table, but isn't in it, will be read again.
pub async fn rebuild(table: &mut LakeTable, origin: &Origin) -> Result<Checkpoint> {
    let progress = Progress::read(table.metadata())?;
    let mut records = table.scan(None, Some(&[PARTITION, OFFSET])).await?;
    let mut checkpoint = origin.start();
    while let Some(batch) = records.try_next().await? {
        let (partitions, offsets) = coordinates(&batch)?;
        for (partition, offset) in partitions.iter().zip(offsets) {
            // Rows that other engines wrote need not have coordinates.
            let (Some(partition), Some(offset)) = (partition, offset) else { continue };
            let first = Coverage { range: OffsetRange::new(offset, offset + 1), records: 0 };
            let coverage = checkpoint.partitions.entry(partition).or_insert(first);
            let OffsetRange { start, end } = coverage.range;
            coverage.range = OffsetRange::new(start.min(offset), end.max(offset + 1));
            coverage.records += 1;
        }
    }
    if let Some((partition, coverage)) =
        checkpoint.partitions.iter().find(|(_, coverage)| coverage.records > coverage.range.len() as u64)
    {
        let (records, range, table) = (coverage.records, coverage.range, table.ident());
        return Err(Error::stop(format!(
            "table {table} holds {records} records of partition {partition} in offsets {range}: some twice"
        ))
        .hint("find and delete the duplicates with SQL, then rebuild again"));
    }
    write(table, &progress, checkpoint).await
}

/// Sets the next offset of partitions; the others keep theirs. With an origin, the table follows that topic from here on.
pub async fn set(table: &mut LakeTable, origin: Option<&Origin>, next: &BTreeMap<PartitionId, i64>) -> Result<Checkpoint> {
    let progress = Progress::read(table.metadata())?;
    let known = progress.property.clone().or_else(|| progress.summary.clone().map(|(_, checkpoint)| checkpoint));
    let unnamed =
        || Error::config(format!("table {} does not say which topic it holds", table.ident())).hint("name the topic too");
    let mut checkpoint = match (known, origin) {
        (Some(known), None) => known,
        (Some(known), Some(origin)) => Checkpoint { partitions: known.partitions, ..origin.start() },
        (None, Some(origin)) => origin.start(),
        (None, None) => return Err(unnamed()),
    };
    for (&partition, &next) in next {
        if partition < 0 || next < 0 {
            return Err(Error::config(format!("partition {partition} at offset {next} does not exist")));
        }
        checkpoint
            .partitions
            .entry(partition)
            .and_modify(|coverage| *coverage = moved(*coverage, next))
            .or_insert(Coverage { range: OffsetRange::new(next, next), records: 0 });
    }
    write(table, &progress, checkpoint).await
}

/// A coverage that ends at `next`. How many of its records remain below a lower end is not known: as many as fit at most.
fn moved(known: Coverage, next: i64) -> Coverage {
    let range = OffsetRange::new(known.range.start.min(next), next);
    Coverage { range, records: known.records.min(range.len() as u64) }
}

async fn write(table: &mut LakeTable, seen: &Progress, checkpoint: Checkpoint) -> Result<Checkpoint> {
    let properties = progress::set_by_person(seen, &checkpoint);
    let ident = table.ident().clone();
    let change = |version: &Version| {
        let found = Progress::read(&version.metadata).map_err(Rejection::Refused)?;
        if found.property != seen.property || found.summary != seen.summary {
            let changed = Error::stop(format!("table {ident} was committed to in the meantime"))
                .hint("stop the daemon, then look again with `lakesmith offsets show`");
            return Err(Rejection::Refused(changed));
        }
        let builder = version.metadata.as_ref().clone().into_builder(Some(version.location.clone()));
        // The last batch may have been rolled back: its id must not make it count as committed, nor its time as reached.
        let stale = [COMMIT_ID, COMPLETE_UNTIL, PARTITION_TIMES].map(str::to_owned);
        let builder = builder.set_properties(properties.clone())?.remove_properties(&stale)?;
        Ok(builder.build()?)
    };
    table.catalog().commit_with(&ident, change).await.into_result(&ident)?;
    table.refresh().await?;
    Ok(checkpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_end_keeps_what_can_still_be_true() {
        let known = Coverage { range: OffsetRange::new(10, 20), records: 8 };
        assert_eq!(moved(known, 25), Coverage { range: OffsetRange::new(10, 25), records: 8 });
        assert_eq!(moved(known, 14), Coverage { range: OffsetRange::new(10, 14), records: 4 });
        assert_eq!(moved(known, 3), Coverage { range: OffsetRange::new(3, 3), records: 0 });
    }
}
