//! Fields of messages that no column reads, followed until it is known what column each could be.
//!
//! Lanes meet them while they decode; between two cycles the session takes what was found and makes columns of it
//! (`silver.unknown_fields = "add"`). What cannot become a column is set aside for a while, so that it costs nothing in every batch.
//!
//! *Invariants*: what is kept is bounded by the names that a decoder remembers, whatever messages hold.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{BinaryArray, RecordBatch};

use super::infer::{Inference, Proposal};
use super::settings::{ColumnSettings, OnError};
use super::types::ColumnType;
use crate::error::Result;
use crate::record::{VALUE, column};

/// Messages of a batch that are looked at.
const SAMPLES: usize = 1_000;
/// After so long a field that was set aside is looked at again.
const ASIDE: Duration = Duration::from_secs(3_600);
/// Digits that a decimal has at least: its values will not all be as small as the first ones.
const LEAST_PRECISION: u8 = 18;

/// The fields met so far. Shared by all lanes.
#[derive(Debug, Default)]
pub struct Strangers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    inference: Inference,
    aside: HashMap<String, Instant>,
}

/// What a field could be.
#[derive(Debug, Clone, PartialEq)]
pub struct Stranger {
    pub field: String,
    /// Its column, under the field's own name; none for objects and arrays.
    pub column: Option<ColumnSettings>,
}

impl Strangers {
    /// Looks at fields of a batch's messages.
    pub fn meet(&self, fields: &[String], records: &RecordBatch) -> Result<()> {
        let mut state = self.state();
        let now = Instant::now();
        let is_aside = |field: &String| state.aside.get(field).is_some_and(|since| now.duration_since(*since) < ASIDE);
        let wanted: HashSet<&str> = fields.iter().filter(|field| !is_aside(field)).map(String::as_str).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let messages = column::<BinaryArray>(records, VALUE)?;
        messages
            .iter()
            .flatten()
            .take(SAMPLES)
            .for_each(|message| state.inference.add_fields(message, |name| wanted.contains(name)));
        Ok(())
    }

    /// What was found since the last call. Fields that had no value yet are not among it.
    pub fn take(&self) -> Vec<Stranger> {
        let found = std::mem::take(&mut self.state().inference).finish();
        let with_values = found.columns.into_iter().filter(|proposal| proposal.values > 0);
        with_values.map(|proposal| Stranger { field: proposal.field.clone(), column: column_of(&proposal) }).collect()
    }

    /// Leaves a field alone for a while.
    pub fn set_aside(&self, field: &str) {
        self.state().aside.insert(field.to_owned(), Instant::now());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A column that takes what was seen, and more of its kind. A value of another kind is null in it: no record is rejected for a column that
/// nobody has asked for.
fn column_of(proposal: &Proposal) -> Option<ColumnSettings> {
    let (column_type, formats) = match (proposal.column_type?, proposal.is_doubtful) {
        (ColumnType::Int, _) => (ColumnType::Long, Vec::new()),
        (ColumnType::Decimal { precision, scale }, _) => {
            (ColumnType::Decimal { precision: precision.max(LEAST_PRECISION), scale }, Vec::new())
        }
        // Nobody is there to say what was meant.
        (ColumnType::Date | ColumnType::Timestamp, true) => (ColumnType::String, Vec::new()),
        (found, _) => (found, proposal.formats.clone()),
    };
    Some(ColumnSettings {
        name: proposal.field.clone(),
        field: Some(proposal.field.clone()),
        column_type,
        required: false,
        formats,
        on_error: OnError::Null,
        lenient: true,
        doc: Some(format!("field {} of the message, added when messages had it", proposal.field)),
        ..ColumnSettings::default()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn batch(messages: &[&str]) -> RecordBatch {
        let values = BinaryArray::from_iter_values(messages.iter().map(|message| message.as_bytes()));
        RecordBatch::try_from_iter([(VALUE, Arc::new(values) as _)]).unwrap()
    }

    fn types(found: Vec<Stranger>) -> Vec<(String, Option<String>)> {
        found.into_iter().map(|found| (found.field, found.column.map(|column| column.column_type.to_string()))).collect()
    }

    #[test]
    fn fields_become_columns_with_room_for_more_of_their_kind() {
        let strangers = Strangers::default();
        let fields = ["n", "price", "on", "day", "odd", "note", "deep", "empty"].map(str::to_owned);
        let records = batch(&[
            r#"{"id": 1, "n": 5, "price": 1.50, "on": true, "day": "2024-12-31", "odd": "01-02-2024", "note": "x", "deep": {}, "empty": null}"#,
            "no JSON",
        ]);
        strangers.meet(&fields, &records).unwrap();
        let expected = [
            ("n", Some("long")),
            ("price", Some("decimal(18, 2)")),
            ("on", Some("boolean")),
            ("day", Some("date")),
            // Day or month first?
            ("odd", Some("string")),
            ("note", Some("string")),
            ("deep", None),
        ];
        let expected = expected.map(|(field, kind)| (field.to_owned(), kind.map(str::to_owned)));
        let found = strangers.take();
        assert!(found.iter().flat_map(|found| &found.column).all(|column| !column.required && column.on_error == OnError::Null));
        assert_eq!(types(found), expected);
        assert!(strangers.take().is_empty());
    }

    #[test]
    fn what_is_set_aside_is_not_found_again() {
        let strangers = Strangers::default();
        strangers.set_aside("deep");
        let fields = ["deep", "n"].map(str::to_owned);
        strangers.meet(&fields, &batch(&[r#"{"deep": [1], "n": 99999999999}"#])).unwrap();
        assert_eq!(types(strangers.take()), [("n".to_owned(), Some("long".to_owned()))]);
    }
}
