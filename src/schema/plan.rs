//! What separates a table from its definition in the pipeline file, as steps; and doing exactly these.
//!
//! A plan names the state of the table before each of its steps and after the last. Whoever applies it looks which of these states the table
//! is in: the first means that nothing was done yet, a later one that an earlier try was interrupted there, and any other that somebody
//! changed the table since, so that nothing may be done. There is no journal that could disagree with the table.

use std::fmt;

use iceberg::spec::{NestedField, Schema, TableMetadata, TableMetadataBuilder, Transform};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::change::{Change, FieldPath, Position, is_wider};
use super::partitions::{self, PartitionChange, partition_fields};
use super::sorting::sort_keys;
use super::types::type_name;
use crate::error::{Context, Error, Result};
use crate::table::{LakeTable, SortKey, field_text, sort_order};
use crate::window::Window;

/// What a table is to be.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub schema: &'a Schema,
    pub partition_by: &'a [(String, Transform)],
    /// None for whatever it is.
    pub sort_by: Option<&'a [SortKey]>,
    /// Columns and the fields of messages that they are read from, where their names differ: a column that is missing, while one by the field's
    /// name is there which nothing else is read into, was given another name.
    pub read_from: &'a [(String, String)],
    /// Columns that stay what they are.
    pub kept: &'a [&'a str],
    /// Whether columns that the definition does not name are to go.
    pub drop_unnamed: bool,
}

/// What may be said of a step before it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every row reads as before.
    Safe,
    /// The rows of before have no values there.
    NeedsBackfill,
    /// Every row reads as before, under another name.
    Renamed,
    /// Values are no more to be seen, but in older snapshots.
    HidesValues,
    /// Every partition of the gold table is written anew.
    Recomputed,
    /// It cannot be done, and so the plan cannot.
    Refused(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Safe => f.write_str("safe"),
            Self::NeedsBackfill => f.write_str("needs backfill: null in the rows so far"),
            Self::Renamed => f.write_str("safe; queries need the new name"),
            Self::HidesValues => f.write_str("hides values, but in older snapshots"),
            Self::Recomputed => f.write_str("every partition is computed again from silver"),
            Self::Refused(reason) => write!(f, "refused: {reason}"),
        }
    }
}

/// One step of a plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// For people.
    pub what: String,
    pub verdict: Verdict,
    change: StepChange,
    /// The table after it; none for a step that is refused.
    after: Option<State>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StepChange {
    Columns(Change),
    Partitions(PartitionChange),
    Sorting(Vec<SortKey>),
    /// Nothing could do it.
    None,
}

/// What a plan depends on, and changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    fields: Value,
    partitions: Vec<String>,
    #[serde(default)]
    sorting: Vec<String>,
}

impl State {
    fn of(metadata: &TableMetadata) -> Result<Self> {
        let schema = serde_json::to_value(metadata.current_schema().as_ref());
        let mut schema = schema.map_err(|error| Error::failed("a schema is not JSON").caused_by(error))?;
        Ok(Self { fields: schema["fields"].take(), partitions: partition_fields(metadata), sorting: sort_keys(metadata) })
    }
}

/// Steps to a definition, from the state in which the table was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// `database.table`.
    pub table: String,
    table_uuid: Uuid,
    before: State,
    pub steps: Vec<Step>,
}

impl Plan {
    /// The plan that leads a table to what it is to be; without steps if it is that.
    pub fn new(table: &LakeTable, wanted: Wanted<'_>) -> Result<Self> {
        let mut now = table.metadata().clone();
        let before = State::of(&now)?;
        let mut steps = Vec::new();
        for (what, mut verdict, change) in differences(&now, wanted) {
            let after = match after(&now, wanted.kept, &change) {
                Ok(after) if !matches!(verdict, Verdict::Refused(_)) => {
                    now = after;
                    Some(State::of(&now)?)
                }
                Ok(_) => None,
                // What would be refused of a command is refused here.
                Err(error) => {
                    verdict = Verdict::Refused(error.chain());
                    None
                }
            };
            steps.push(Step { what, verdict, change, after });
        }
        Ok(Self { table: table.ident().to_string(), table_uuid: table.uuid(), before, steps })
    }

    /// The reason why the plan cannot be applied, if there is one.
    pub fn refusal(&self) -> Option<(&str, &str)> {
        self.steps.iter().find_map(|step| match &step.verdict {
            Verdict::Refused(reason) => Some((step.what.as_str(), reason.as_str())),
            _ => None,
        })
    }

    /// The steps without which the table does not take rows of its definition.
    pub fn needed(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| match &step.change {
            StepChange::Columns(change) => {
                matches!(change, Change::Add { .. } | Change::Rename { .. } | Change::Widen { .. } | Change::MakeOptional { .. })
            }
            StepChange::Partitions(_) | StepChange::Sorting(_) => false,
            StepChange::None => true,
        })
    }

    /// How many of the steps the table has behind it; fails if it is in no state of the plan.
    fn done(&self, table: &LakeTable) -> Result<usize> {
        let moved = || {
            Error::failed(format!("table {} is in no state of this plan: it was changed since", self.table))
                .hint("make a new plan with `lakesmith schema plan`; nothing was changed")
        };
        if table.uuid() != self.table_uuid {
            return Err(moved());
        }
        let now = State::of(table.metadata())?;
        // The last that fits: a plan may pass a state twice.
        let states = std::iter::once(Some(&self.before)).chain(self.steps.iter().map(|step| step.after.as_ref()));
        let states: Vec<_> = states.collect();
        states.iter().rposition(|state| *state == Some(&now)).ok_or_else(moved)
    }

    /// Does the steps that are still to be done, one commit each. `told` hears of each, with whether it was done before.
    pub async fn apply(&self, table: &mut LakeTable, kept: &[&str], mut told: impl FnMut(&Step, bool)) -> Result<()> {
        if let Some((what, reason)) = self.refusal() {
            return Err(Error::config(format!("the plan for table {} cannot be applied: {what}: {reason}", self.table))
                .hint("change the pipeline file, and make a new plan"));
        }
        let done = self.done(table)?;
        for step in &self.steps[..done] {
            told(step, true);
        }
        for step in &self.steps[done..] {
            match &step.change {
                StepChange::Columns(change) => _ = super::apply(table, kept, std::slice::from_ref(change)).await?,
                StepChange::Partitions(change) => _ = super::repartition(table, change).await?,
                StepChange::Sorting(keys) => super::resort(table, keys).await?,
                StepChange::None => {}
            }
            Window::SchemaStep.pass();
            table.refresh().await?;
            if step.after != Some(State::of(table.metadata())?) {
                return Err(Error::failed(format!(
                    "table {} was changed by someone else while the plan was applied",
                    self.table
                ))
                .hint("make a new plan with `lakesmith schema plan` for what is left"));
            }
            told(step, false);
        }
        Ok(())
    }
}

/// To the builder: the order that was added last.
const LAST_ADDED: i64 = -1;

/// The table's metadata as they will be, with the ids that it will give.
fn after(now: &TableMetadata, kept: &[&str], change: &StepChange) -> Result<TableMetadata> {
    let builder = |now: &TableMetadata| -> TableMetadataBuilder { now.clone().into_builder(None) };
    let built = match change {
        StepChange::Columns(change) => {
            let schema = super::change::apply(now, kept, std::slice::from_ref(change))?;
            builder(now).add_current_schema(schema)
        }
        StepChange::Partitions(change) => match partitions::changed(now, change)? {
            Some(spec) => builder(now).add_default_partition_spec(spec),
            None => return Ok(now.clone()),
        },
        StepChange::Sorting(keys) => builder(now)
            .add_sort_order(sort_order(now.current_schema(), keys)?)
            .and_then(|builder| builder.set_default_sort_order(LAST_ADDED)),
        StepChange::None => return Ok(now.clone()),
    };
    let built = built.and_then(TableMetadataBuilder::build).context("the changes lead to no valid table")?;
    Ok(built.metadata)
}

fn differences(now: &TableMetadata, wanted: Wanted<'_>) -> Vec<(String, Verdict, StepChange)> {
    let (have, want) = (now.current_schema(), wanted.schema);
    let mut found = Vec::new();
    // The columns in the order in which they will be.
    let mut order: Vec<String> = have.as_struct().fields().iter().map(|field| field.name.clone()).collect();
    let mut before: Option<String> = None;
    let is_kept = |name: &str| wanted.kept.iter().any(|kept| kept.eq_ignore_ascii_case(name));
    // The column that is to get this name, if it has not got another one yet.
    let renamed = |to: &str, order: &[String]| {
        let (_, from) = wanted.read_from.iter().find(|(column, _)| column == to)?;
        let known = super::column(have, from).filter(|known| order.contains(&known.name))?;
        (super::column(want, &known.name).is_none() && !is_kept(&known.name)).then_some(known)
    };
    for field in want.as_struct().fields() {
        match super::column(have, &field.name) {
            None if let Some(known) = renamed(&field.name, &order) => {
                let change = Change::Rename { path: FieldPath::column(&known.name), to: field.name.clone() };
                let what = format!("rename {} to {}", known.name, field.name);
                found.push((what, Verdict::Renamed, StepChange::Columns(change)));
                order.iter_mut().filter(|name| **name == known.name).for_each(|name| name.clone_from(&field.name));
                let known = NestedField { name: field.name.clone(), ..known.as_ref().clone() };
                found.extend(of_field(&known, field));
                before = Some(field.name.clone());
            }
            None => {
                let at = before.as_ref().and_then(|before| order.iter().position(|name| name == before));
                order.insert(at.map_or(order.len(), |at| at + 1), field.name.clone());
                let field_type = type_name(&field.field_type);
                let position = before.clone().map(Position::After);
                let change = Change::Add {
                    path: FieldPath::column(&field.name),
                    field_type: field_type.clone(),
                    doc: field.doc.clone(),
                    position,
                    default: None,
                };
                found.push((format!("add {} {field_type}", field.name), Verdict::NeedsBackfill, StepChange::Columns(change)));
                before = Some(field.name.clone());
            }
            Some(known) => {
                found.extend(of_field(known, field));
                before = Some(known.name.clone());
            }
        }
    }
    if wanted.drop_unnamed {
        for field in have.as_struct().fields() {
            let is_named = super::column(want, &field.name).is_some() || !order.contains(&field.name);
            if !is_named && !is_kept(&field.name) {
                let change = Change::Drop { path: FieldPath::column(&field.name) };
                found.push((format!("drop {}", field.name), Verdict::HidesValues, StepChange::Columns(change)));
            }
        }
    }
    found.extend(of_order(now, &order, want));
    found.extend(of_partitions(now, wanted));
    found.extend(of_sorting(now, wanted));
    found
}

/// The columns that stand elsewhere than they should among those that are wanted, as few as that can be said with. Columns that the table has
/// got by itself stand where they stand.
fn of_order(now: &TableMetadata, order: &[String], want: &Schema) -> Vec<(String, Verdict, StepChange)> {
    let own: Vec<String> = super::adopt::columns(now).into_iter().map(|column| column.name).collect();
    let wanted =
        want.as_struct().fields().iter().map(|field| field.name.as_str()).filter(|name| !own.iter().any(|own| own == name));
    let position = |name: &str| order.iter().position(|known| known.eq_ignore_ascii_case(name));
    let wanted: Vec<(&str, usize)> = wanted.filter_map(|name| Some((name, position(name)?))).collect();
    let staying = longest_rising(&wanted.iter().map(|(_, position)| *position).collect::<Vec<_>>());
    let mut found = Vec::new();
    for (at, (_, position)) in wanted.iter().enumerate().filter(|(at, _)| !staying.contains(at)) {
        let name = &order[*position];
        let (what, position) = match at.checked_sub(1).map(|before| &order[wanted[before].1]) {
            Some(before) => (format!("move {name} behind {before}"), Position::After(before.clone())),
            None => (format!("move {name} to the front"), Position::First),
        };
        let change = Change::Move { path: FieldPath::column(name), position };
        found.push((what, Verdict::Safe, StepChange::Columns(change)));
    }
    found
}

/// The places of the longest subsequence that rises.
fn longest_rising(numbers: &[usize]) -> Vec<usize> {
    // By place: the length of the longest one that ends there, and the place before it.
    let mut ends: Vec<(usize, Option<usize>)> = Vec::with_capacity(numbers.len());
    for (at, number) in numbers.iter().enumerate() {
        let before = (0..at).filter(|before| numbers[*before] < *number).max_by_key(|before| ends[*before].0);
        ends.push((before.map_or(1, |before| ends[before].0 + 1), before));
    }
    let mut at = (0..ends.len()).max_by_key(|at| ends[*at].0);
    let mut places = Vec::new();
    while let Some(place) = at {
        places.push(place);
        at = ends[place].1;
    }
    places
}

/// What one column differs in.
fn of_field(known: &NestedField, wanted: &NestedField) -> Vec<(String, Verdict, StepChange)> {
    let path = || FieldPath::column(&known.name);
    let mut found = Vec::new();
    let (from, to) = (type_name(&known.field_type), type_name(&wanted.field_type));
    if known.field_type.is_primitive() && from != to {
        if is_wider(&known.field_type, &wanted.field_type) {
            let change = Change::Widen { path: path(), to: to.clone() };
            found.push((format!("widen {} from {from} to {to}", known.name), Verdict::Safe, StepChange::Columns(change)));
        } else if !is_wider(&wanted.field_type, &known.field_type) {
            let reason = format!("values of type {from} are no values of type {to}; choose another name for the column");
            found.push((format!("change {} from {from} to {to}", known.name), Verdict::Refused(reason), StepChange::None));
        }
    }
    if known.required && !wanted.required {
        let change = Change::MakeOptional { path: path() };
        found.push((format!("make {} optional", known.name), Verdict::Safe, StepChange::Columns(change)));
    }
    if wanted.doc.is_some() && known.doc != wanted.doc {
        let change = Change::Document { path: path(), doc: wanted.doc.clone() };
        found.push((format!("document {}", known.name), Verdict::Safe, StepChange::Columns(change)));
    }
    found
}

fn of_partitions(now: &TableMetadata, wanted: Wanted<'_>) -> Vec<(String, Verdict, StepChange)> {
    let have = partition_fields(now);
    let want: Vec<String> = wanted.partition_by.iter().map(|(column, transform)| field_text(column, *transform)).collect();
    let has = |fields: &[String], field: &String| fields.iter().any(|known| known.eq_ignore_ascii_case(field));
    let gone = have.iter().filter(|field| !has(&want, field)).map(|field| {
        let change = PartitionChange::Drop(field.clone());
        (format!("partition no longer by {field}"), Verdict::Safe, StepChange::Partitions(change))
    });
    let new = want.iter().filter(|field| !has(&have, field)).map(|field| {
        let change = PartitionChange::Add(field.clone());
        (format!("partition by {field}"), Verdict::Safe, StepChange::Partitions(change))
    });
    gone.chain(new).collect()
}

fn of_sorting(now: &TableMetadata, wanted: Wanted<'_>) -> Option<(String, Verdict, StepChange)> {
    let keys = wanted.sort_by?;
    let want: Vec<String> = keys.iter().map(SortKey::to_string).collect();
    if sort_keys(now) == want {
        return None;
    }
    let what = if want.is_empty() { "sort no longer".to_owned() } else { format!("sort by {}", want.join(", ")) };
    Some((what, Verdict::Safe, StepChange::Sorting(keys.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::longest_rising;

    #[test]
    fn as_few_columns_move_as_can_be() {
        for (numbers, places) in [
            (&[0, 1, 2, 3][..], &[0, 1, 2, 3][..]),
            (&[1, 2, 3, 0], &[0, 1, 2]),
            (&[3, 0, 1, 2], &[1, 2, 3]),
            (&[0, 2, 1, 3], &[0, 2, 3]),
            (&[], &[]),
        ] {
            let mut found = longest_rising(numbers);
            found.sort_unstable();
            let values: Vec<_> = found.iter().map(|at| numbers[*at]).collect();
            assert!(values.is_sorted() && found.len() == places.len(), "{numbers:?}: {found:?}");
        }
    }
}
