//! The table into which Trino writes rows, before lakesmith has looked at them: a twin of the one that is being filled.
//!
//! It bears what it was asked for. One `INSERT` is one commit, so it has the rows of the whole question, or none; whoever finds it with rows for
//! the question that he has goes on with these.
//!
//! *Invariants*: dropping it deletes no data file, because they may be another table's by then. [`delete`] does, before a commit was tried.

use std::collections::BTreeMap;

use iceberg::TableIdent;

use crate::catalog::HiveCatalog;
use crate::error::{Context, Result};
use crate::storage::Storages;
use crate::table::LakeTable;

/// The table's note: what its rows answer.
const ANSWERS: &str = "lakesmith.engine-question";

fn ident_of(table: &TableIdent) -> TableIdent {
    TableIdent::new(table.namespace().clone(), format!("{}_from_trino", table.name()))
}

/// The staging table of a table, if there is one. A table of that name which lakesmith did not make for this is none.
async fn find(catalog: &HiveCatalog, of: &TableIdent) -> Result<Option<LakeTable>> {
    let table = LakeTable::open(catalog, &ident_of(of)).await?;
    Ok(table.filter(|table| table.note(ANSWERS).is_some()))
}

/// The staging table with rows for this question, if an earlier driver has left it. One for another question is dropped.
pub(super) async fn answered(of: &LakeTable, question: &str) -> Result<Option<LakeTable>> {
    let Some(table) = find(of.catalog(), of.ident()).await? else { return Ok(None) };
    if table.note(ANSWERS) == Some(question) && table.metadata().current_snapshot().is_some() {
        return Ok(Some(table));
    }
    table.drop_twin().await?;
    Ok(None)
}

/// An empty one.
pub(super) async fn create(of: &LakeTable, question: &str) -> Result<LakeTable> {
    let location = format!("{}_from_trino", of.metadata().location());
    let comment = format!("rows that Trino computes for {}; gone when they are checked", of.ident());
    let notes = BTreeMap::from([(ANSWERS.to_owned(), question.to_owned())]);
    let created = of.create_twin(&ident_of(of.ident()), &location, &comment, &notes).await;
    created.context("the table for Trino's rows cannot be created: reprocessing needs its name for the time that it takes")
}

/// Drops what a driver that was killed has left of it; the table that was filled has its files, or nobody.
pub(in crate::pipeline::reprocess) async fn clear(catalog: &HiveCatalog, of: &TableIdent) -> Result<()> {
    match find(catalog, of).await? {
        Some(table) => table.drop_twin().await,
        None => Ok(()),
    }
}

/// Drops the staging table, if there is one, with its data files, which no table may have.
pub(in crate::pipeline::reprocess) async fn delete(catalog: &HiveCatalog, storages: &Storages, of: &TableIdent) -> Result<()> {
    let Some(mut table) = find(catalog, of).await? else { return Ok(()) };
    for file in table.data_files().await? {
        storages.delete_file(file.path()).await?;
    }
    table.drop_twin().await
}
