//! Leads a gold table to another definition, under the lease of its maintainer; and computes partitions again whose rows in silver were
//! replaced, by the second of these steps alone.
//!
//! | step | a reader finds |
//! |---|---|
//! | new columns stand behind those of before, in the table and all its partitions | new columns, null |
//! | each refresh computes some partitions again, whole (where old rows are kept: they are marked instead) | each partition by the one or the other definition |
//! | the view is replaced | the new columns in the view |
//! | the table's columns and its definition are the new ones | columns that are no more wanted are gone |
//!
//! Each step is one call of the metastore that readers see whole or not at all, and none refers to what is not there. (One exception: where
//! a column goes whose type no other has, metastores of Hive 2.3 take the columns behind it in two calls.) A partition's version
//! says by which definition it was computed, so that whoever goes on after a kill does what is left.
//!
//! *Failure*: a partition of which silver has lost rows stays as it is, and stops the maintainer. (Not where rows were replaced: there may be
//! fewer of them.)

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use tracing::{debug, info};

use super::definition::{GoldDefinition, Standing, WorkGranted};
use super::grant::{Again, OldRows};
use super::lease::Lease;
use super::maintainer::GoldMaintainer;
use super::progress::{COMPUTED_AGAIN, DEFINITION, NEXT_DEFINITION, NULL_COLUMNS};
use super::silver::SilverRows;
use super::versions::{Known, null_columns};
use crate::checkpoint::PartitionId;
use crate::error::{Context, Error, Result};
use crate::hive::{HiveTableSpec, PartitionKey, ensure_view, key_of};
use crate::metastore::{EnvironmentContext, FieldSchema, HivePartition, MetastoreError};
use crate::record::{OFFSET, PARTITION, coordinates};
use crate::window::Window;

/// Partitions that one refresh computes again: enough to be quick, few enough to lose little when killed.
const AT_ONCE: usize = 16;
/// Partitions in one call.
const PER_CALL: usize = 500;

/// Puts the columns that a table is to have, and has not, behind the others.
pub(super) async fn add_columns(lease: &mut Lease, spec: &HiveTableSpec) -> Result<()> {
    let mut columns = lease.entry().columns();
    let known = columns.len();
    for column in &spec.columns {
        if !columns.iter().any(|known| known.name.eq_ignore_ascii_case(&column.name)) {
            columns.push(column.clone());
        }
    }
    if columns.len() > known {
        lease.write_columns(&columns, &[]).await.context("the new columns could not be added")?;
        Window::GoldColumnsAdded.pass();
    }
    Ok(())
}

impl GoldMaintainer {
    /// Whether the table is still becoming what the plan says: refreshes go on with it.
    pub fn is_redefining(&self) -> bool {
        self.outdated.is_some()
    }

    /// How many partitions are still to be computed again.
    pub fn partitions_left(&self) -> usize {
        self.outdated.as_ref().map_or(0, BTreeMap::len)
    }

    /// Finds out what is left to do. Where old rows are kept, that is nothing but to mark them.
    pub(super) async fn begin_redefinition(&mut self, old_rows: OldRows, partitions: &[HivePartition]) -> Result<()> {
        let (keys, own) = (self.lease.entry().partition_keys(), self.plan.definition().fingerprint());
        let ours = partitions.iter().filter(|partition| Known::of(partition, self.silver_uuid).is_some());
        let has_nulls = |partition: &HivePartition| old_rows == OldRows::Recomputed && !null_columns(partition).is_empty();
        let outdated = ours.filter(|partition| partition.parameter(DEFINITION) != Some(&own) || has_nulls(partition));
        let outdated = outdated.collect::<Vec<_>>();
        info!(table = %self.lease.name(), ?old_rows, partitions = outdated.len(), "giving a gold table another definition");
        match old_rows {
            OldRows::Recomputed => {
                let key = |partition: &&HivePartition| {
                    let key = key_of(&keys, partition);
                    let start = self.plan.windows().partition_start(&key)?;
                    Some((key, start))
                };
                self.outdated = Some(outdated.iter().filter_map(key).collect());
            }
            OldRows::Kept => {
                self.mark_null(&outdated).await?;
                self.outdated = Some(BTreeMap::new());
            }
        }
        if self.outdated.as_ref().is_some_and(BTreeMap::is_empty) {
            self.end_redefinition().await?;
        }
        Ok(())
    }

    /// Finds out which partitions are still to be computed again because rows of silver were replaced.
    pub(super) fn begin_again(&mut self, again: Again, partitions: &[HivePartition]) -> Result<()> {
        let keys = self.lease.entry().partition_keys();
        let mut outdated = again.partitions(&self.plan.windows())?;
        for done in partitions.iter().filter(|partition| again.is_done(partition.parameter(COMPUTED_AGAIN))) {
            outdated.remove(&key_of(&keys, done));
        }
        info!(table = %self.lease.name(), partitions = outdated.len(), "rows of silver were replaced: computing gold again");
        // Also with none left it ends with a refresh: windows that are open were read anew, and the table's floor does not say so yet.
        (self.outdated, self.again) = (Some(outdated), Some(again));
        Ok(())
    }

    /// Counts the rows of the positions anew, by what silver counts up to where it is.
    pub(super) async fn recount(&mut self, silver: &dyn SilverRows) -> Result<()> {
        let Some(ahead) = silver.positions()? else { return Ok(()) };
        let missing = self.checkpoint(&ahead).missing_from(&ahead);
        let mut counts: BTreeMap<PartitionId, u64> =
            ahead.partitions.iter().map(|(partition, coverage)| (*partition, coverage.records)).collect();
        let mut batches = silver.read(&missing, &[PARTITION, OFFSET], None).await?;
        while let Some(batch) = batches.try_next().await? {
            for partition in coordinates(&batch)?.0.values() {
                if let Some(count) = counts.get_mut(partition) {
                    *count = count.saturating_sub(1);
                }
            }
        }
        self.open.recount(&counts);
        Ok(())
    }

    /// Says of partitions that measures which are new are null in their rows.
    async fn mark_null(&self, partitions: &[&HivePartition]) -> Result<()> {
        let before = GoldDefinition::of_entry(self.lease.entry());
        let is_new = |name: &str| before.as_ref().is_none_or(|before| before.measure(name).is_none());
        let measures = self.plan.measures().iter().map(|measure| measure.name.as_str());
        let new: Vec<&str> = measures.filter(|name| is_new(name)).collect();
        let own = self.plan.definition().fingerprint();
        let mut marked = Vec::new();
        for partition in partitions {
            let mut names = null_columns(partition);
            let more: Vec<&str> = new.iter().copied().filter(|name| !names.contains(name)).collect();
            names.extend(more);
            let mut partition = HivePartition::clone(partition);
            let names = names.join(",");
            partition.set_parameter(NULL_COLUMNS, &names);
            partition.set_parameter(DEFINITION, &own);
            marked.push(partition);
        }
        let (database, name) = (self.lease.entry().database(), self.lease.entry().name());
        let environment = EnvironmentContext::new().without_statistics();
        for marked in marked.chunks(PER_CALL) {
            self.metastore
                .alter_partitions(database, name, marked, &environment)
                .await
                .with_context(|| format!("failed to mark {} partitions of {database}.{name}", marked.len()))?;
        }
        Ok(())
    }

    /// Ends this maintainer if something was granted meanwhile: the next one begins with that.
    pub(super) fn ensure_same_definition(&self) -> Result<()> {
        match self.plan.standing(self.lease.entry())? {
            Standing::Granted(_) if self.outdated.is_none() => {
                Err(Error::transient(format!("gold table {} is to be computed again", self.lease.name())).caused_by(WorkGranted))
            }
            _ => Ok(()),
        }
    }

    /// Whether a partition is still to be computed again.
    pub(super) fn is_outdated(&self, key: &PartitionKey) -> bool {
        self.outdated.as_ref().is_some_and(|outdated| outdated.contains_key(key))
    }

    /// The partitions that the refresh under way computes again.
    pub(super) fn next_outdated(&self) -> BTreeMap<PartitionKey, i64> {
        self.outdated.iter().flatten().take(AT_ONCE).map(|(key, start)| (key.clone(), *start)).collect()
    }

    /// These partitions were computed again. With the last of them the table is what the plan says.
    pub(super) async fn redefined(&mut self, done: &BTreeSet<PartitionKey>) -> Result<()> {
        let Some(outdated) = &mut self.outdated else { return Ok(()) };
        outdated.retain(|key, _| !done.contains(key));
        if outdated.is_empty() { self.end_redefinition().await } else { Ok(()) }
    }

    async fn end_redefinition(&mut self) -> Result<()> {
        // Before columns go that the old view shows.
        if let Some(view) = self.plan.view_spec(self.lease.entry().database())? {
            ensure_view(&self.metastore, &view).await?;
            Window::GoldViewReplaced.pass();
        }
        let mut parameters = self.plan.definition().parameters();
        parameters.push((NEXT_DEFINITION, None));
        parameters.extend(self.again.as_ref().map(|again| (COMPUTED_AGAIN, Some(again.id.to_string()))));
        let wanted = self.plan.table_spec(self.lease.entry().database(), "")?.columns;
        let now = self.lease.entry().columns();
        let is_wanted = |column: &FieldSchema| wanted.iter().any(|wanted| wanted.name.eq_ignore_ascii_case(&column.name));
        if now.iter().all(is_wanted) {
            self.lease.write(&parameters).await?;
        } else {
            let kept = in_their_places(&now, now.iter().filter(|column| is_wanted(column)).cloned().collect());
            let written = self.lease.write_columns(&kept, &parameters).await;
            match written {
                // The places of the rest have other types: Hive 2.3's metastore takes them when those of before are gone.
                Err(error) if is_about_types(&error) => {
                    debug!(table = %self.lease.name(), error = error.chain(), "columns are taken away in two steps");
                    let fits = |(new, old): &(&FieldSchema, &FieldSchema)| new.hive_type.eq_ignore_ascii_case(&old.hive_type);
                    let fitting = kept.iter().zip(&now).take_while(fits).count();
                    self.lease.write_columns(&kept[..fitting], &[]).await?;
                    self.lease.write_columns(&kept, &parameters).await?;
                }
                written => written?,
            }
        }
        Window::GoldRedefined.pass();
        self.outdated = None;
        match self.again.take() {
            Some(_) => info!(table = %self.lease.name(), "gold was computed again"),
            None => info!(table = %self.lease.name(), "the gold table has its new definition"),
        }
        Ok(())
    }
}

fn is_about_types(error: &Error) -> bool {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| error.source())
        .filter_map(|error| error.downcast_ref::<MetastoreError>())
        .any(MetastoreError::is_of_column_types)
}

/// An order of the wanted columns in which, as far as possible, each place keeps the type that it has: servers compare types by position
/// (`metastore.disallow.incompatible.col.type.changes`), and files are read by name.
fn in_their_places(now: &[FieldSchema], mut wanted: Vec<FieldSchema>) -> Vec<FieldSchema> {
    let mut placed = Vec::with_capacity(wanted.len());
    for place in now {
        let itself = wanted.iter().position(|column| column.name == place.name);
        let like = || wanted.iter().rposition(|column| column.hive_type.eq_ignore_ascii_case(&place.hive_type));
        match itself.or_else(like) {
            Some(position) => placed.push(wanted.remove(position)),
            None => break,
        }
    }
    placed.extend(wanted);
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(text: &str) -> Vec<FieldSchema> {
        let column = |part: &str| {
            let (name, hive_type) = part.split_once(' ').unwrap();
            FieldSchema::new(name, hive_type)
        };
        text.split(", ").map(column).collect()
    }

    fn names(columns: &[FieldSchema]) -> Vec<&str> {
        columns.iter().map(|column| column.name.as_str()).collect()
    }

    #[test]
    fn a_place_is_taken_by_a_column_of_its_type() {
        let now = columns("start timestamp, end timestamp, category string, orders bigint, revenue decimal, average decimal");
        let without = |gone: &str| now.iter().filter(|column| column.name != gone).cloned().collect::<Vec<_>>();
        for (gone, expected) in [
            ("average", ["start", "end", "category", "orders", "revenue"]),
            ("revenue", ["start", "end", "category", "orders", "average"]),
            // Nothing has its type: the rest moves up, and the server has to be asked twice.
            ("orders", ["start", "end", "category", "revenue", "average"]),
        ] {
            assert_eq!(names(&in_their_places(&now, without(gone))), expected, "{gone}");
        }
        let more = columns("a string, b bigint, c bigint, d string");
        let wanted = more.iter().filter(|column| column.name != "a").cloned().collect();
        assert_eq!(names(&in_their_places(&more, wanted)), ["d", "b", "c"]);
    }
}
