//! The twins in which new rows are gathered, and the steps by which these become the tables' rows.

use std::collections::BTreeMap;

use iceberg::TableIdent;
use tracing::info;
use uuid::Uuid;

use super::ground::Ground;
use super::{Definition, Lakehouse, engine, lake, rows_of};
use crate::error::{Context, Error, Result};
use crate::gold::progress::COMPUTED_AGAIN;
use crate::gold::{Again, GoldPlan, Grant, Work, Workplace, carry_out};
use crate::metastore::Metastore;
use crate::pipeline::specs::writer;
use crate::silver::{REPROCESSING, Reprocessing, SilverTable, rejected};
use crate::table::{LakeTable, OffsetRanges, RecordTable, Replaced, Replacement, WriterSettings};
use crate::window::Window;

/// A twin's note: the reprocessing that it belongs to.
const BELONGS_TO: &str = "lakesmith.reprocessing-id";

/// The twins of silver and rejected, as far as they exist.
pub(super) struct Twins {
    silver: Option<SilverTable>,
    rejected: Option<SilverTable>,
}

impl Twins {
    /// Opens what is there of them. Those of an earlier reprocessing are dropped.
    pub async fn open(ground: &Ground<'_>, id: Uuid) -> Result<Self> {
        let open = async |of: &SilverTable| -> Result<Option<SilverTable>> {
            let ident = twin_ident(of.ident());
            let Some(twin) = LakeTable::open(ground.catalog(), &ident).await? else { return Ok(None) };
            match twin.note(BELONGS_TO) {
                Some(found) if found == id.to_string() => Ok(Some(RecordTable::Lake(Box::new(twin)))),
                Some(_) => {
                    engine::clear(ground.catalog(), &ident).await?;
                    twin.drop_twin().await.map(|()| None)
                }
                None => Err(Error::config(format!("there is a table {ident} that lakesmith did not make"))
                    .hint("reprocessing needs that name for the time that it takes; rename the table, or drop it")),
            }
        };
        Ok(Self { silver: open(&ground.silver).await?, rejected: open(&ground.rejected).await? })
    }

    pub fn silver(&self) -> Option<&SilverTable> {
        self.silver.as_ref()
    }

    /// Both, created if they don't exist.
    pub async fn create(&mut self, ground: &Ground<'_>, id: Uuid) -> Result<(SilverTable, SilverTable)> {
        let create = async |twin: Option<SilverTable>, of: &SilverTable| -> Result<SilverTable> {
            if let Some(twin) = twin {
                return Ok(twin);
            }
            let of = of.lake().ok_or_else(|| Error::failed(format!("table {} has no twin", of.ident())))?;
            let ident = twin_ident(of.ident());
            let location = format!("{}_reprocessing", of.metadata().location());
            let comment = format!("rows that lakesmith reprocess puts into {}; gone when that is done", of.ident());
            let notes = BTreeMap::from([(BELONGS_TO.to_owned(), id.to_string())]);
            Ok(RecordTable::Lake(Box::new(of.create_twin(&ident, &location, &comment, &notes).await?)))
        };
        Ok((create(self.silver.take(), &ground.silver).await?, create(self.rejected.take(), &ground.rejected).await?))
    }

    /// Takes both back when they were filled.
    pub fn take(&mut self, silver: SilverTable, rejected: SilverTable) {
        (self.silver, self.rejected) = (Some(silver), Some(rejected));
    }

    /// Replaces silver's rows, then rejected's, where that is not done.
    pub async fn replace(
        &mut self,
        ground: &mut Ground<'_>,
        noted: &Reprocessing,
    ) -> Result<(Option<Replaced>, Option<Replaced>)> {
        let silver_writer = writer(ground.definition, ground.plan.no_dictionary(), &[]);
        // Rejected records have no rows in silver that could go.
        let ranges = if noted.only_rejected { OffsetRanges::new() } else { noted.ranges.clone() };
        let note = Some((REPROCESSING.to_owned(), noted.to_note()?));
        let silver = replace(&mut ground.silver, self.silver.as_mut(), noted, (ranges, note), &silver_writer).await?;
        Window::ReprocessedSilver.pass();
        let rejected_writer = writer(ground.definition, &rejected::NO_DICTIONARY, &rejected::NO_STATISTICS);
        let ranges = noted.ranges.clone();
        let rejected = replace(&mut ground.rejected, self.rejected.as_mut(), noted, (ranges, None), &rejected_writer).await?;
        Window::ReprocessedRejected.pass();
        Ok((silver, rejected))
    }

    /// Whether what is left can be done once silver has the new rows.
    pub async fn can_finish(&self, rejected: &mut SilverTable, id: Uuid) -> Result<bool> {
        rejected.refresh().await?;
        Ok(self.rejected.is_some() || lake(rejected)?.has_replacement(id))
    }

    /// Drops both. Their data files stay: they are the tables'.
    pub async fn drop(self) -> Result<()> {
        for twin in [self.silver, self.rejected].into_iter().flatten() {
            if let RecordTable::Lake(twin) = twin {
                twin.drop_twin().await?;
            }
        }
        Ok(())
    }

    /// Drops both with their data files, which no table has.
    pub async fn delete(mut self, ground: &Ground<'_>) -> Result<()> {
        for twin in [self.silver.as_mut(), self.rejected.as_mut()].into_iter().flatten() {
            engine::delete(ground.catalog(), ground.lakehouse.storages(), twin.ident()).await?;
            for file in lake(twin)?.data_files().await? {
                ground.lakehouse.storages().delete_file(file.path()).await?;
            }
        }
        self.drop().await
    }
}

fn twin_ident(of: &TableIdent) -> TableIdent {
    TableIdent::new(of.namespace().clone(), format!("{}_reprocessing", of.name()))
}

async fn replace(
    table: &mut SilverTable,
    twin: Option<&mut SilverTable>,
    noted: &Reprocessing,
    (ranges, while_noted): (OffsetRanges, Option<(String, String)>),
    writer: &WriterSettings,
) -> Result<Option<Replaced>> {
    let table = lake(table)?;
    if table.has_replacement(noted.id) {
        return Ok(None);
    }
    let twin = twin.ok_or_else(|| {
        Error::stop(format!("table {} is gone, with rows for {}", twin_ident(table.ident()), table.ident()))
            .hint(
                "did somebody drop it? records of the ranges may be in none of the tables: `lakesmith reprocess --abandon` takes the note \
                 of the reprocessing away; then reprocess the same ranges again",
            )
    })?;
    let twin = lake(twin)?;
    let summary = BTreeMap::from([("lakesmith.replaced".to_owned(), noted.display_ranges())]);
    let (files, rows) = (twin.data_files().await?, rows_of(twin)?);
    let replacement = Replacement { commit_id: noted.id, ranges, files, rows, summary, while_noted };
    let replaced = table.replace(&replacement, writer).await?;
    if let Some(replaced) = &replaced {
        info!(
            table = %table.ident(),
            rows_added = replaced.rows_added,
            rows_removed = replaced.rows_removed,
            files_rewritten = replaced.files_rewritten,
            "rows replaced"
        );
    }
    Ok(replaced)
}

/// Has partitions of a gold table computed again: by the daemon that maintains it, or else here.
pub(super) async fn compute_gold_again(
    definition: &Definition,
    lakehouse: &Lakehouse,
    plan: &GoldPlan,
    again: &Again,
    silver: &mut SilverTable,
) -> Result<()> {
    let (metastore, database) = (lakehouse.metastore(), definition.tables.database.as_str());
    let grant = Grant { fingerprint: plan.definition().fingerprint(), work: Work::Again(again.clone()) };
    if tell(metastore, database, plan, &grant, again).await? {
        return Ok(());
    }
    let told = |left: usize| info!(table = plan.settings().table, partitions = left, "gold is being computed again");
    let place = Workplace { database, metastore, storages: lakehouse.storages() };
    // A maintainer that wrote its progress at the same moment may have written over it: it is told again.
    carry_out(plan.clone(), place, silver, told, async || tell(metastore, database, plan, &grant, again).await).await
}

/// Tells a table what to do, if it does not say so yet. Returns whether it is done.
async fn tell(metastore: &Metastore, database: &str, plan: &GoldPlan, grant: &Grant, again: &Again) -> Result<bool> {
    let table = &plan.settings().table;
    loop {
        let entry = metastore.table(database, table).await;
        // What was dropped will be computed from the rows that silver has by now.
        let Some(entry) = entry.with_context(|| format!("failed to load gold table {database}.{table}"))? else {
            return Ok(true);
        };
        match Grant::of_entry(&entry)? {
            None if again.is_done(entry.parameter(COMPUTED_AGAIN)) => return Ok(true),
            Some(found) if found == *grant => return Ok(false),
            Some(_) => {
                return Err(Error::failed(format!("gold table {database}.{table} is to get another definition"))
                    .hint("finish that with `lakesmith schema apply`; then the same command goes on"));
            }
            None => {}
        }
        if grant.write(metastore, entry).await? {
            return Ok(false);
        }
    }
}
