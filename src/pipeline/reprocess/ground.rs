//! What a reprocessing stands on: the tables as they are, and the questions that are asked before anything is changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::TimestampMicrosecondArray;
use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use super::replace::Twins;
use super::{Definition, Extract, Selection, Tally, exchange};
use crate::bronze::BronzeTable;
use crate::catalog::{HiveCatalog, Lakehouse};
use crate::checkpoint::{OffsetRange, PartitionId};
use crate::error::{Context, Error, Result};
use crate::gold::{Again, GoldPlan, SilverRows, Standing, Touched};
use crate::metastore::HiveTable;
use crate::pipeline::redefine::{APPLY, misfit};
use crate::pipeline::silver_stage::SilverParts;
use crate::pipeline::specs::{bronze_spec, gold_plans, rejected_spec, silver_spec};
use crate::record::{OFFSET, PARTITION, TIMESTAMP, column, coordinates};
use crate::schema::with_added;
use crate::silver::{Reprocessing, SilverPlan, SilverTable, rejected};
use crate::table::logged::LoggedForm;
use crate::table::{OffsetRanges, Origin, RecordSpec, RecordTable};

pub(super) struct Ground<'a> {
    pub definition: &'a Definition,
    pub lakehouse: &'a Lakehouse,
    pub bronze: BronzeTable,
    pub silver: SilverTable,
    pub rejected: SilverTable,
    pub specs: (RecordSpec, RecordSpec),
    pub plan: Arc<SilverPlan>,
    pub gold_plans: Vec<GoldPlan>,
    pub origin: Origin,
}

impl<'a> Ground<'a> {
    /// Opens the tables. All three must exist.
    pub async fn open(definition: &'a Definition, lakehouse: &'a Lakehouse) -> Result<Self> {
        let (catalog, storages) = (lakehouse.catalog(), lakehouse.storages());
        let mut plan = Arc::new(SilverPlan::new(&definition.silver)?);
        let bronze_spec = bronze_spec(definition, storages)?;
        let mut specs = (silver_spec(definition, &plan, storages)?, rejected_spec(definition, storages)?);
        let bronze: BronzeTable = open(catalog, &bronze_spec).await?;
        let silver: SilverTable = open(catalog, &specs.0).await?;
        let rejected: SilverTable = open(catalog, &specs.1).await?;
        if let Some(table) = silver.lake() {
            let extended = with_added(&definition.silver, table);
            if extended != definition.silver {
                plan = Arc::new(SilverPlan::new(&extended)?);
                specs.0 = silver_spec(definition, &plan, storages)?;
            }
        }
        let gold_plans = gold_plans(definition, &plan, storages)?;
        let read = bronze.checkpoint()?.ok_or_else(|| {
            Error::config(format!("table {} has no records yet", bronze.ident())).hint("run the pipeline first: `lakesmith run`")
        })?;
        let origin = Origin { topic: read.topic, topic_id: read.topic_id, cluster_id: read.cluster_id };
        Ok(Self { definition, lakehouse, bronze, silver, rejected, specs, plan, gold_plans, origin })
    }

    pub fn catalog(&self) -> &HiveCatalog {
        self.lakehouse.catalog()
    }

    /// What a stage needs that computes records of bronze into these tables.
    pub fn parts(
        &self,
        specs: (RecordSpec, RecordSpec),
        extract: Extract,
        tally: &Tally,
        shutdown: &CancellationToken,
    ) -> SilverParts {
        let input = (self.origin.clone(), self.bronze.uuid());
        let parts = SilverParts::new(self.definition, self.catalog(), self.plan.clone(), specs, input, tally, shutdown);
        SilverParts { extract: Some(extract), ..parts }
    }

    /// Stops where silver's rows cannot be replaced.
    pub fn ensure_replaceable(&self) -> Result<()> {
        let Some(table) = self.silver.lake() else {
            return Err(Error::config(format!(
                "table {} is a plain Hive table, whose rows cannot be replaced in one step",
                self.silver.ident()
            ))
            .hint("compute them into new tables: `lakesmith reprocess --into _new`"));
        };
        match misfit(&self.silver, &self.plan)? {
            None => Ok(()),
            Some(steps) => {
                Err(Error::config(format!("the pipeline file does not fit table {}: {steps}", table.ident())).hint(APPLY))
            }
        }
    }

    /// Stops if a reprocessing that was begun is another one than what is asked for now.
    pub fn ensure_same(&self, noted: &Reprocessing, selection: &Selection) -> Result<()> {
        let begun = || {
            let rejected = if noted.only_rejected { ", of rejected records only," } else { "" };
            format!("a reprocessing of {}{rejected} was begun and not finished", noted.display_ranges())
        };
        const WAYS: &str = "`lakesmith reprocess` without a selection finishes it, `--abandon` takes it back";
        if noted.definition != self.plan.definition_hash() {
            return Err(Error::config(format!("{}, by another definition than the pipeline file's", begun()))
                .hint("let the file say what it said then to finish it, or take it back with `lakesmith reprocess --abandon`"));
        }
        let is_same = selection.is_everything() || selection.text()? == noted.asked;
        if is_same { Ok(()) } else { Err(Error::config(begun()).hint(WAYS)) }
    }

    /// Stops if a gold table is not what the pipeline file says.
    pub async fn ensure_gold_is_current(&self) -> Result<()> {
        for plan in &self.gold_plans {
            let Some(entry) = self.gold_entry(plan).await? else { continue };
            if plan.standing(&entry)? != Standing::Current {
                return Err(Error::config(format!("gold table {} is being computed again", plan.settings().table))
                    .hint("reprocess when that is done; a daemon or `lakesmith schema apply` does it"));
            }
        }
        Ok(())
    }

    async fn gold_entry(&self, plan: &GoldPlan) -> Result<Option<HiveTable>> {
        let (database, table) = (&self.definition.tables.database, &plan.settings().table);
        let entry = self.lakehouse.metastore().table(database, table).await;
        entry.with_context(|| format!("failed to load gold table {database}.{table}"))
    }

    /// The offsets that a selection means, of those that silver, rejected and bronze all have.
    pub async fn ranges(&self, selection: &Selection) -> Result<OffsetRanges> {
        let (bronze, silver) = (self.bronze.checkpoint()?.unwrap_or_default(), self.silver.checkpoint()?.unwrap_or_default());
        let lacking = rejected::lacking(
            self.silver.note(rejected::POSITIONS),
            self.silver.ident(),
            &self.rejected.checkpoint()?.unwrap_or_default(),
        )?;
        if !lacking.is_empty() {
            return Err(Error::failed(format!("table {} lacks records that silver has rejected", self.rejected.ident()))
                .hint("the pipeline was killed between two commits; start it, which completes the table, then reprocess"));
        }
        let both = bronze.partitions.iter().filter_map(|(partition, coverage)| {
            let known = silver.partitions.get(partition)?;
            Some((*partition, coverage.range.intersect(&known.range)))
        });
        let known: OffsetRanges = both.filter(|(_, range)| !range.is_empty()).collect();
        let mut ranges = known.clone();
        if !selection.offsets.is_empty() {
            let foreign = selection
                .offsets
                .iter()
                .find(|(partition, range)| known.get(partition).is_none_or(|known| known.intersect(range).is_empty()));
            if let Some((partition, range)) = foreign {
                let there = known.iter().map(|(partition, range)| format!("{partition}:{range}")).collect::<Vec<_>>().join(", ");
                return Err(Error::config(format!("silver has no offsets {range} of partition {partition}"))
                    .hint(format!("it has {there}")));
            }
            ranges = selection
                .offsets
                .iter()
                .filter_map(|(partition, range)| Some((*partition, known.get(partition)?.intersect(range))))
                .collect();
        }
        if selection.since_us.is_some() || selection.until_us.is_some() {
            ranges = self.between(&ranges, selection).await?;
        }
        if ranges.is_empty() {
            return Err(Error::config("no record is selected").hint("see what there is with `lakesmith offsets show`"));
        }
        Ok(ranges)
    }

    /// From the first to the last record of each partition whose timestamp lies in the selection's time.
    async fn between(&self, ranges: &OffsetRanges, selection: &Selection) -> Result<OffsetRanges> {
        let (since, until) = (selection.since_us.unwrap_or(i64::MIN), selection.until_us.unwrap_or(i64::MAX));
        let mut found: BTreeMap<PartitionId, OffsetRange> = BTreeMap::new();
        let mut batches = self.bronze.scan(Some(ranges), Some(&[PARTITION, OFFSET, TIMESTAMP])).await?;
        while let Some(batch) = batches.try_next().await? {
            let (partitions, offsets) = coordinates(&batch)?;
            let times: &TimestampMicrosecondArray = column(&batch, TIMESTAMP)?;
            for ((partition, offset), time) in partitions.values().iter().zip(offsets.values()).zip(times) {
                if time.is_some_and(|time| since <= time && time < until) {
                    let range = found.entry(*partition).or_insert(OffsetRange::new(*offset, offset + 1));
                    (range.start, range.end) = (range.start.min(*offset), range.end.max(offset + 1));
                }
            }
        }
        Ok(found)
    }

    /// Works out which partitions of gold have or will have such rows, and notes it. Call it before a row is replaced.
    pub async fn note_gold(&mut self, noted: &Reprocessing, twins: &Twins) -> Result<Reprocessing> {
        if noted.gold.is_some() {
            return Ok(noted.clone());
        }
        let mut gold = BTreeMap::new();
        let floor: BTreeMap<_, _> = noted.ranges.iter().map(|(partition, range)| (*partition, range.start)).collect();
        for plan in &self.gold_plans {
            if self.gold_entry(plan).await?.is_none() {
                continue;
            }
            let mut touched = Touched::by(plan);
            // Of rejected records silver has no rows yet.
            let before = (!noted.only_rejected).then_some(&self.silver);
            for silver in [before, twins.silver()].into_iter().flatten() {
                let mut batches = silver.read(&noted.ranges, &plan.columns(), None).await?;
                while let Some(batch) = batches.try_next().await? {
                    touched.add(&batch)?;
                }
            }
            let spans = touched.spans();
            if !spans.is_empty() {
                gold.insert(plan.settings().table.clone(), Again { id: noted.id, spans, floor: floor.clone() });
            }
        }
        let next = Reprocessing { gold: Some(gold), ..noted.clone() };
        exchange(&mut self.silver, Some(noted), Some(&next)).await?;
        Ok(next)
    }
}

async fn open<L: LoggedForm>(catalog: &HiveCatalog, spec: &RecordSpec) -> Result<RecordTable<L>> {
    RecordTable::open_spec(catalog, spec).await?.ok_or_else(|| {
        Error::config(format!("table {} does not exist", spec.ident())).hint("run the pipeline first: `lakesmith run`")
    })
}
