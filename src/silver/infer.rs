//! A proposal for silver's columns, from messages as they come.
//!
//! Each field is followed over all samples: which kinds of values it had, how large they were, which date formats fit all of them. From
//! that follows the narrowest type that takes every value seen, with room to grow where that costs nothing. A proposal is for a person to
//! read and change; it says on how many values it rests.

use std::collections::HashMap;
use std::fmt::Write;

use serde_json::value::RawValue;

use super::names::{RESERVED, is_column_name};
use super::time::TimeFormat;
use super::types::ColumnType;

/// Date formats that are tried, those that leave no doubt first.
const DATES: [&str; 6] = ["iso", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%d/%m/%Y", "%m/%d/%Y"];

/// What the samples say.
#[derive(Debug, Clone, Default)]
pub struct Inferred {
    /// Messages that are JSON objects.
    pub messages: u64,
    /// Others: no JSON, or no object.
    pub unreadable: u64,
    /// In the order in which they were met.
    pub columns: Vec<Proposal>,
}

/// What is proposed for one field.
#[derive(Debug, Clone)]
pub struct Proposal {
    pub field: String,
    /// None for fields that no column can hold: objects and arrays.
    pub column_type: Option<ColumnType>,
    /// Date formats, in the order in which they are to be tried; none where `iso` alone does.
    pub formats: Vec<String>,
    /// Messages with a value that is not null.
    pub values: u64,
    /// Messages that have the field, but null in it.
    pub nulls: u64,
    /// Its values leave room for another type.
    pub is_doubtful: bool,
    /// What a person should look at.
    pub remark: Option<String>,
}

/// Collects samples.
#[derive(Debug, Default)]
pub struct Inference {
    messages: u64,
    unreadable: u64,
    order: Vec<String>,
    fields: HashMap<String, Seen>,
}

/// What a field has held.
#[derive(Debug, Default)]
struct Seen {
    nulls: u64,
    booleans: u64,
    integers: u64,
    decimals: u64,
    /// Numbers with an exponent, or with more digits than a decimal has.
    floats: u64,
    texts: u64,
    nested: u64,
    least: i128,
    greatest: i128,
    /// Digits before and behind the point.
    whole_digits: usize,
    scale: usize,
    /// How many texts each of [`DATES`] fits.
    dates: [u64; DATES.len()],
    /// Texts of which no date format was one.
    undated: u64,
    instants: u64,
}

impl Inference {
    /// Takes a message into account.
    pub fn add(&mut self, message: &[u8]) {
        self.add_fields(message, |_| true);
    }

    /// Takes some fields of a message into account.
    pub fn add_fields(&mut self, message: &[u8], wanted: impl Fn(&str) -> bool) {
        // Their order is that of the message.
        let Ok(fields) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(message) else {
            self.unreadable += 1;
            return;
        };
        let raw: HashMap<String, &RawValue> = serde_json::from_slice(message).unwrap_or_default();
        self.messages += 1;
        for field in fields.keys().filter(|field| wanted(field)) {
            let Some(value) = raw.get(field) else { continue };
            if !self.fields.contains_key(field) {
                self.order.push(field.clone());
            }
            self.fields.entry(field.clone()).or_default().add(value.get().trim());
        }
    }

    /// The proposal for what was added.
    pub fn finish(self) -> Inferred {
        let Self { messages, unreadable, order, fields } = self;
        let columns = order.into_iter().map(|field| fields[&field].proposal(field.clone())).collect();
        Inferred { messages, unreadable, columns }
    }
}

impl Seen {
    fn add(&mut self, text: &str) {
        match text.as_bytes().first() {
            Some(b'n') | None => self.nulls += 1,
            Some(b't' | b'f') => self.booleans += 1,
            Some(b'"') => match serde_json::from_str::<String>(text) {
                Ok(text) => self.add_text(&text),
                Err(_) => self.nested += 1,
            },
            Some(b'{' | b'[') => self.nested += 1,
            Some(_) => self.add_number(text),
        }
    }

    fn add_number(&mut self, text: &str) {
        let digits = text.trim_start_matches('-');
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if text.contains(['e', 'E']) || whole.len() + fraction.len() > 38 {
            self.floats += 1;
            return;
        }
        self.whole_digits = self.whole_digits.max(whole.len());
        // As written: 12.50 has two digits for a reason.
        self.scale = self.scale.max(fraction.len());
        match text.parse::<i128>() {
            Ok(value) => {
                let first = self.integers == 0;
                (self.least, self.greatest) =
                    if first { (value, value) } else { (self.least.min(value), self.greatest.max(value)) };
                self.integers += 1;
            }
            Err(_) => self.decimals += 1,
        }
    }

    fn add_text(&mut self, text: &str) {
        self.texts += 1;
        let fits = DATES.map(|format| format_of(format).is_some_and(|format| format.days(text).is_some()));
        if !fits.contains(&true) {
            self.undated += 1;
        }
        if format_of("iso").is_some_and(|format| format.micros(text).is_some()) {
            self.instants += 1;
        }
        for (count, fits) in self.dates.iter_mut().zip(fits) {
            *count += u64::from(fits);
        }
    }

    fn values(&self) -> u64 {
        self.booleans + self.integers + self.decimals + self.floats + self.texts + self.nested
    }

    fn proposal(&self, field: String) -> Proposal {
        let (column_type, formats, remark) = self.guess();
        let is_doubtful = remark.is_some();
        let remark = match (remark, is_column_name(&field), RESERVED.iter().find(|name| name.eq_ignore_ascii_case(&field))) {
            (_, _, Some(own)) => Some(format!("{own} is a column of every row: choose another name, and keep the field")),
            (_, false, _) => Some("not every engine takes this name: choose another, and keep the field".to_owned()),
            (remark, ..) => remark,
        };
        Proposal { field, column_type, formats, values: self.values(), nulls: self.nulls, is_doubtful, remark }
    }

    fn guess(&self) -> (Option<ColumnType>, Vec<String>, Option<String>) {
        let numbers = self.integers + self.decimals + self.floats;
        let kinds = [self.booleans, numbers, self.texts, self.nested].into_iter().filter(|count| *count > 0).count();
        let plain = |column_type| (Some(column_type), Vec::new(), None);
        if self.nested > 0 {
            let remark = "objects and arrays are in bronze alone";
            return (None, Vec::new(), Some(remark.to_owned()));
        }
        match kinds {
            0 => (Some(ColumnType::String), Vec::new(), Some("it never had a value".to_owned())),
            1 if self.booleans > 0 => plain(ColumnType::Boolean),
            1 if self.texts > 0 => self.text_type(),
            1 => (Some(self.number_type()), Vec::new(), None),
            _ => {
                let counts = [("booleans", self.booleans), ("numbers", numbers), ("texts", self.texts)];
                let mixed: Vec<_> =
                    counts.iter().filter(|(_, count)| *count > 0).map(|(kind, count)| format!("{count} {kind}")).collect();
                (Some(ColumnType::String), Vec::new(), Some(format!("{}: with `lenient = true` all are texts", mixed.join(", "))))
            }
        }
    }

    fn number_type(&self) -> ColumnType {
        if self.floats > 0 {
            return ColumnType::Double;
        }
        if self.decimals == 0 {
            let fits = |least: i128, greatest: i128| self.least >= least && self.greatest <= greatest;
            if fits(i32::MIN.into(), i32::MAX.into()) {
                return ColumnType::Int;
            }
            if fits(i64::MIN.into(), i64::MAX.into()) {
                return ColumnType::Long;
            }
        }
        // Room for two digits more: a wider decimal of up to 18 digits takes no more space.
        let precision = (self.whole_digits + self.scale + 2).clamp(1, 38);
        ColumnType::Decimal { precision: precision as u8, scale: self.scale.min(precision) as u8 }
    }

    fn text_type(&self) -> (Option<ColumnType>, Vec<String>, Option<String>) {
        if self.undated == 0 {
            let mut formats: Vec<(&str, u64)> = Vec::new();
            let mut doubt = None;
            for (format, fits) in DATES.iter().zip(self.dates).filter(|(_, fits)| *fits > 0) {
                // Of two that differ in what comes first, day or month, only one can be meant: the one that fits more.
                match formats.iter_mut().find(|(known, _)| same_but_for_order(known, format)) {
                    Some((known, count)) if *count == fits => {
                        doubt = Some(format!("{known} and {format} fit equally well: which one is meant?"));
                    }
                    Some(known) if known.1 < fits => *known = (format, fits),
                    Some(_) => {}
                    None => formats.push((format, fits)),
                }
            }
            let formats: Vec<_> = formats.into_iter().map(|(format, _)| format.to_owned()).collect();
            let formats = if formats == ["iso"] { Vec::new() } else { formats };
            return (Some(ColumnType::Date), formats, doubt);
        }
        match self.instants == self.texts {
            true => (Some(ColumnType::Timestamp), Vec::new(), None),
            false => (Some(ColumnType::String), Vec::new(), None),
        }
    }
}

/// Whether two date formats are the same but for day and month.
fn same_but_for_order(one: &str, other: &str) -> bool {
    let swap = |c| match c {
        'd' => 'm',
        'm' => 'd',
        c => c,
    };
    one != other && one.chars().map(swap).eq(other.chars())
}

fn format_of(text: &str) -> Option<TimeFormat> {
    text.parse().ok()
}

impl Inferred {
    /// The `[[silver.columns]]` of a pipeline file.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for column in &self.columns {
            let Some(column_type) = column.column_type else {
                let _ = writeln!(text, "# {}: {}\n", column.field, column.remark.as_deref().unwrap_or("no column can hold it"));
                continue;
            };
            let _ = writeln!(text, "[[silver.columns]]");
            if let Some(remark) = &column.remark {
                let _ = writeln!(text, "# {remark}");
            }
            let _ = writeln!(text, "name = {}", quoted(&column.field));
            if column_type != ColumnType::String {
                let _ = writeln!(text, "type = {}", quoted(&column_type.to_string()));
            }
            if !column.formats.is_empty() {
                let formats: Vec<_> = column.formats.iter().map(|format| quoted(format)).collect();
                let _ = writeln!(text, "formats = [{}]", formats.join(", "));
            }
            if column.values < self.messages {
                let _ = writeln!(text, "required = false");
            }
            text.push('\n');
        }
        text
    }
}

/// A TOML string; JSON's escapes are TOML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::silver::{SilverPlan, SilverSettings};

    fn inferred(messages: &[&str]) -> Inferred {
        let mut inference = Inference::default();
        messages.iter().for_each(|message| inference.add(message.as_bytes()));
        inference.finish()
    }

    fn proposed(messages: &[&str]) -> Vec<String> {
        let shown = |column: Proposal| {
            let kind = column.column_type.map_or_else(|| "-".to_owned(), |kind| kind.to_string());
            format!("{} {kind} {:?}", column.field, column.formats)
        };
        inferred(messages).columns.into_iter().map(shown).collect()
    }

    #[test]
    fn the_narrowest_type_that_takes_all_values_is_proposed() {
        let found = proposed(&[
            r#"{"a": 1, "b": 3000000000, "c": 1.5, "d": "x", "e": true, "f": "2024-07-01", "g": "2024-07-01T10:00:00Z", "h": 1e3}"#,
            r#"{"a": -7, "b": 1, "c": 12.25, "d": "", "e": false, "f": "2023-01-31", "g": "2024-07-01T10:00:00.5Z", "h": 2}"#,
        ]);
        let wanted = [
            "a int []",
            "b long []",
            "c decimal(6, 2) []",
            "d string []",
            "e boolean []",
            "f date []",
            "g timestamp []",
            "h double []",
        ];
        assert_eq!(found, wanted);
        // Beyond 64 bits, and beyond what a decimal holds.
        assert_eq!(proposed(&[r#"{"a": 99999999999999999999}"#]), ["a decimal(22, 0) []"]);
        assert_eq!(proposed(&[&format!("{{\"a\": {}}}", "9".repeat(39))]), ["a double []"]);
    }

    #[test]
    fn dates_have_the_formats_that_they_came_in() {
        assert_eq!(proposed(&[r#"{"a": "2024-07-01"}"#, r#"{"a": "17-07-2023"}"#]), [r#"a date ["iso", "%d-%m-%Y"]"#]);
        let doubtful = inferred(&[r#"{"a": "01/02/2024"}"#]);
        assert_eq!(doubtful.columns[0].formats, ["%d/%m/%Y"]);
        assert!(doubtful.columns[0].remark.as_deref().is_some_and(|remark| remark.contains("%m/%d/%Y")));
        // One that only the second fits decides.
        assert_eq!(proposed(&[r#"{"a": "01/02/2024"}"#, r#"{"a": "01/31/2024"}"#]), [r#"a date ["%m/%d/%Y"]"#]);
        assert_eq!(proposed(&[r#"{"a": "2024-07-01"}"#, r#"{"a": "soon"}"#]), ["a string []"]);
    }

    #[test]
    fn what_is_missing_null_mixed_or_nested_is_said() {
        let found = inferred(&[
            r#"{"a": 1, "b": null, "c": 1, "d": {"x": 1}, "offset": 1, "a b": 1}"#,
            r#"{"c": "x", "d": []}"#,
            "nonsense",
            "[1]",
        ]);
        assert_eq!((found.messages, found.unreadable), (2, 2));
        let remarks: Vec<_> = found.columns.iter().map(|column| column.remark.as_deref().unwrap_or("")).collect();
        assert!(remarks[1].contains("never had a value") && remarks[2].contains("1 numbers, 1 texts"), "{remarks:?}");
        assert!(
            remarks[3].contains("bronze") && remarks[4].contains("every row") && remarks[5].contains("another"),
            "{remarks:?}"
        );
        let text = found.to_toml();
        assert!(text.contains("[[silver.columns]]\nname = \"a\"\ntype = \"int\"\nrequired = false\n"), "{text}");
        assert!(text.contains("# d: objects and arrays"), "{text}");
    }

    #[test]
    fn the_proposal_is_a_definition_that_takes_the_samples() {
        let found = inferred(&[r#"{"id": "A1", "amount": 12.50, "day": "17-07-2023"}"#, r#"{"id": "A2", "amount": 7}"#]);
        #[derive(serde::Deserialize)]
        struct File {
            silver: SilverSettings,
        }
        let file: File = toml::from_str(&found.to_toml()).unwrap();
        let plan = SilverPlan::new(&file.silver).unwrap();
        assert_eq!(plan.schema().field_by_name("amount").unwrap().field_type.to_string(), "decimal(6, 2)");
        assert!(!plan.schema().field_by_name("day").unwrap().required);
    }
}
