//! What `lakesmith schema show`, `history` and `diff` print.

use crate::cli::page::{Page, instant, number};
use crate::error::{Error, Result};
use crate::schema;
use crate::table::LakeTable;

pub fn show(table: &LakeTable, schema_id: Option<i32>) -> Result<String> {
    let metadata = table.metadata();
    let schema = match schema_id {
        None => metadata.current_schema().clone(),
        Some(id) => metadata.schema_by_id(id).cloned().ok_or_else(|| unknown_schema(table, id))?,
    };
    let lines = schema::fields(metadata, &schema);
    let has_defaults = lines.iter().any(|line| line.default.is_some());
    let heads = ["id", "column", "type", "required", "since schema"].into_iter();
    let mut page = Page::new(heads.chain(has_defaults.then_some("default")).chain(["doc"])).right([0, 4]);
    for line in lines {
        let required = if line.required { "yes" } else { "" };
        let cells = [line.id.to_string(), line.path, line.field_type, required.to_owned(), line.since.to_string()].into_iter();
        let default = has_defaults.then(|| line.default.map_or_else(|| "-".to_owned(), |default| format!("'{default}'")));
        page.row(cells.chain(default).chain([line.doc.unwrap_or_default()]));
    }
    let mut text = format!("{}, schema {}", table.ident(), schema.schema_id());
    if schema.schema_id() == metadata.current_schema_id() {
        let partitions = schema::partition_fields(metadata);
        if !partitions.is_empty() {
            text.push_str(&format!(", partitioned by {}", partitions.join(", ")));
        }
        let keys = schema::sort_keys(metadata);
        if !keys.is_empty() {
            text.push_str(&format!(", to be sorted by {}", keys.join(", ")));
        }
    }
    Ok(format!("{text}\n{page}"))
}

pub fn history(table: &LakeTable) -> String {
    let mut page = Page::new(["schema", "snapshots", "first one (UTC)", "what it changed"]).right([0, 1]);
    for entry in schema::history(table.metadata()) {
        let changes = match entry.differences.is_empty() {
            true => "-".to_owned(),
            false => entry.differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        };
        let id = if entry.current { format!("{} (present)", entry.schema_id) } else { entry.schema_id.to_string() };
        page.row([id, number(entry.snapshots as u64), entry.first_ms.map_or_else(|| "-".to_owned(), instant), changes]);
    }
    format!("{}\n{page}", table.ident())
}

pub fn diff(table: &LakeTable, from: Option<i32>, to: Option<i32>) -> Result<String> {
    let metadata = table.metadata();
    let to = to.unwrap_or(metadata.current_schema_id());
    let before = || metadata.schemas_iter().map(|schema| schema.schema_id()).filter(|id| *id < to).max();
    let Some(from) = from.or_else(before) else { return Ok(format!("{} has had no schema before {to}", table.ident())) };
    let of = |id| metadata.schema_by_id(id).ok_or_else(|| unknown_schema(table, id));
    let differences = schema::difference(of(from)?, of(to)?);
    Ok(match differences.is_empty() {
        true => format!("{}: schemas {from} and {to} are the same", table.ident()),
        false => {
            let lines: Vec<_> = differences.iter().map(|difference| format!("  {difference}")).collect();
            format!("{}: from schema {from} to {to}\n{}", table.ident(), lines.join("\n"))
        }
    })
}

fn unknown_schema(table: &LakeTable, id: i32) -> Error {
    Error::config(format!("table {} has had no schema {id}", table.ident())).hint("`lakesmith schema history` lists them")
}
