//! One change of a table by a command of its own, and what the user is told of it.

use iceberg::spec::FormatVersion;

use super::{PartitionAction, Target, open_for_change};
use crate::catalog::Lakehouse;
use crate::cli::page;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::schema::{self, Change, FieldPath, PartitionChange};
use crate::table::LakeTable;

pub async fn changed(config: &Config, lakehouse: &Lakehouse, target: &Target, change: Change) -> Result<String> {
    let default = match &change {
        Change::Add { path, default: Some(default), .. } => Some((path, default.value.as_str())),
        _ => None,
    };
    if let Some((path, value)) = default
        && !config.tables.compatibility.reads_defaults()
    {
        return Err(unread_default(path, value));
    }
    let opened = open_for_change(config, lakehouse, target).await?;
    let table = &opened.table;
    let before = table.metadata().current_schema().clone();
    let kept: Vec<&str> = opened.kept.iter().map(String::as_str).collect();
    let Some(after) = schema::apply(table, &kept, std::slice::from_ref(&change)).await? else {
        return Ok(format!("{}: nothing to change", table.ident()));
    };
    if default.is_some() && table.metadata().format_version() < FormatVersion::V3 {
        page::note("note: it is a table of Iceberg's format version 3 now, for good; Hive does not read those");
    }
    let (Change::Add { path, .. } | Change::Rename { path, .. } | Change::Drop { path }) = &change else {
        return Ok(report(table, &before, &after));
    };
    let name = match &change {
        Change::Rename { to, .. } => Some(to.clone()),
        Change::Add { .. } => Some(path.name().to_owned()),
        _ => None,
    };
    if let Some(remark) = name.as_deref().and_then(schema::remark) {
        page::note(&format!("note: {remark}"));
    }
    let writes =
        config.silver.columns.iter().map(|column| &column.name).chain(config.silver.derive.iter().map(|column| &column.name));
    let is_written = opened.is_silver && writes.into_iter().any(|column| path.to_string().eq_ignore_ascii_case(column));
    match &change {
        Change::Add { .. } if opened.is_silver && !is_written => {
            let stays = if default.is_some() { "new rows have its default" } else { "it stays null" };
            page::note(&format!(
                "note: the pipeline file has no column {path}: {stays} until [[silver.columns]] or [[silver.derive]] names it"
            ));
        }
        Change::Rename { .. } | Change::Drop { .. } if is_written => {
            page::note(&format!(
                "note: the pipeline file still has {path}: silver waits until that says the same (a running daemon reads it again)"
            ));
        }
        _ => {}
    }
    Ok(report(table, &before, &after))
}

fn unread_default(column: &FieldPath, value: &str) -> Error {
    Error::config(format!(
        "{column} can have no default: tables.compatibility names engines that would not show it (Hive refuses the format version \
         that it needs, Trino and older Iceberg libraries read null)"
    ))
    .hint(format!(
        "add the column without, and let [[silver.derive]] compute it, for example name = \"{column}\", \
         sql = \"coalesce(OtherColumn, '{value}')\"; for rows so far `lakesmith reprocess` computes it too. If Spark alone reads the \
         tables, say so: compatibility = [\"spark\"]"
    ))
}

fn report(table: &LakeTable, before: &iceberg::spec::Schema, after: &iceberg::spec::Schema) -> String {
    let lines: Vec<_> = schema::difference(before, after).iter().map(|difference| format!("  {difference}")).collect();
    format!("{}: schema {}\n{}", table.ident(), after.schema_id(), lines.join("\n"))
}

pub async fn set_property(config: &Config, lakehouse: &Lakehouse, target: &Target, property: &str) -> Result<String> {
    let (key, value) = property
        .split_once('=')
        .ok_or_else(|| Error::config(format!("`{property}` is no property")).hint("write KEY=VALUE, or KEY= to take it away"))?;
    let opened = open_for_change(config, lakehouse, target).await?;
    let value = Some(value).filter(|value| !value.is_empty());
    let ident = opened.table.ident();
    Ok(match (schema::set_property(&opened.table, key.trim(), value).await?, value) {
        (false, _) => format!("{ident}: nothing to change"),
        (true, Some(value)) => format!("{ident}: {} = {value}", key.trim()),
        (true, None) => format!("{ident}: {} is taken away", key.trim()),
    })
}

pub async fn repartition(config: &Config, lakehouse: &Lakehouse, action: PartitionAction) -> Result<String> {
    let (target, change) = match action {
        PartitionAction::Add { target, field } => (target, PartitionChange::Add(field)),
        PartitionAction::Drop { target, field } => (target, PartitionChange::Drop(field)),
        PartitionAction::Replace { target, field, by } => (target, PartitionChange::Replace { old: field, new: by }),
    };
    let opened = open_for_change(config, lakehouse, &target).await?;
    let ident = opened.table.ident();
    Ok(match schema::repartition(&opened.table, &change).await? {
        None => format!("{ident}: nothing to change"),
        Some(fields) if fields.is_empty() => format!("{ident}: new files are not partitioned"),
        Some(fields) => format!("{ident}: new files are partitioned by {}", fields.join(", ")),
    })
}
