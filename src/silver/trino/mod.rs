//! Rows of silver as a query of Trino's, for the records that it reads exactly as lakesmith does.
//!
//! Trino's functions take other JSON, other numbers and other dates than silver. So the query decides no record: it computes the rows of *plain*
//! ones and leaves out all others, which lakesmith decides itself. A record is plain if its message is a flat object, without escapes but those
//! of one letter, each key once, each value in the narrowest form of its column's type, and if all derived columns can be computed and all
//! expectations hold.
//!
//! *Invariants*: the query is *sound*: a row of it is the row that [`SilverPlan::transform`] makes of the record. It need not be complete.
//! Whatever may fail stands under `TRY`, because the optimiser moves conditions about: no record makes the query fail.
//!
//! *Failure*: a definition of which no record would be plain is refused, with the column or expression that Trino has no equal of.

mod expression;
mod values;

use std::fmt::Write as _;

use datafusion::common::DFSchema;

use super::plan::SilverPlan;
use super::settings::UnknownFields;
use crate::error::{Context, Error, Result};
use crate::record::{KAFKA_TIMESTAMP, OFFSET, PARTITION, TIMESTAMP, TOPIC, VALUE};
use expression::{Translated, Translator};

/// The query of one definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrinoRows {
    /// Silver's columns in the order in which the query gives them, the time of processing last.
    columns: Vec<String>,
    /// The steps from `records` on, each a query with its name.
    steps: Vec<(String, String)>,
    max_value_bytes: u64,
}

/// Where the query reads and writes; names as they stand in SQL.
#[derive(Debug, Clone, Copy)]
pub struct TrinoInsert<'a> {
    pub table: &'a str,
    pub bronze: &'a str,
    /// Which records, as a condition over bronze's columns.
    pub records: &'a str,
    /// Microseconds since 1970.
    pub processing_timestamp_us: i64,
}

/// Larger messages are not plain: a regular expression needs memory for each pair of key and value.
const PLAIN_BYTES_MAX: u64 = 1 << 20;

/// JSON's white space.
const SPACE: &str = r"[ \t\n\r]*";
/// What stands between quotes: a key without escapes; a text with those of one letter.
const KEY: &str = r#"[^"\\\x00-\x1F]*"#;
const TEXT: &str = r#"[^"\\\x00-\x1F]*(?:\\["\\/bfnrt][^"\\\x00-\x1F]*)*"#;
const NUMBER: &str = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?";

/// A key and a plain value with what may stand around them; the parentheses of the two begin as given.
fn pair(open: &str) -> String {
    format!(r#"{SPACE}"{open}{KEY})"{SPACE}:{SPACE}{open}"{TEXT}"|{NUMBER}|true|false|null){SPACE}"#)
}

impl SilverPlan {
    /// The query by which Trino computes rows of this silver.
    pub fn trino_rows(&self) -> Result<TrinoRows> {
        let schema = self.arrow_schema();
        let position = |name: &str| schema.fields().iter().position(|field| field.name() == name);
        let name = |name: &str| position(name).map(|at| format!("c{at}"));
        let planned = DFSchema::try_from(schema.as_ref().clone())
            .map_err(|error| Error::failed("silver's columns are none of a query").caused_by(error))?;
        let translator = Translator { schema: &planned, name: &name };

        let mut steps = Vec::new();
        let mut add = |step: &str, query: String| steps.push((step.to_owned(), query));
        let any = pair("(?:");
        let object = format!(r"\A{SPACE}\{{(?:{any}(?:,{any})*|{SPACE})\}}{SPACE}\z");
        let extract = |group: usize| format!("regexp_extract_all(message, {}, {group})", literal(&pair("(")));
        add(
            "pairs",
            format!(
                "SELECT c0, c1, c2, c3, {} AS keys, {} AS items\n  FROM records\n  WHERE strpos(message, {}) = 0 AND regexp_like(message, {})",
                extract(1),
                extract(2),
                literal("\u{fffd}"),
                literal(&object)
            ),
        );
        let known = self.columns.iter().map(|column| literal(&column.field)).collect::<Vec<_>>().join(", ");
        let strangers = match self.unknown_fields {
            UnknownFields::Ignore => String::new(),
            UnknownFields::Reject | UnknownFields::Keep | UnknownFields::Add => {
                format!(" AND cardinality(array_except(keys, ARRAY[{known}])) = 0")
            }
        };
        add(
            "objects",
            format!(
                "SELECT c0, c1, c2, c3, TRY(map(keys, items)) AS fields\n  FROM pairs\n  WHERE cardinality(array_distinct(keys)) = \
                 cardinality(keys){strangers}"
            ),
        );

        let mut fields = String::from("SELECT c0, c1, c2, c3");
        let mut typed = fields.clone();
        let mut conditions = Vec::new();
        for (at, column) in (COORDINATES..).zip(self.columns.iter()) {
            let value = values::plain(column, &format!("f{at}"))?;
            let _ = write!(fields, ",\n    element_at(fields, {}) AS f{at}", literal(&column.field));
            let _ = write!(typed, ",\n    {value} AS c{at}");
            if column.required {
                conditions.push(format!("c{at} IS NOT NULL"));
            } else {
                let _ = write!(typed, ", f{at}");
                conditions.push(format!("(c{at} IS NOT NULL OR f{at} IS NULL OR f{at} = 'null')"));
            }
        }
        add("fields", format!("{fields}\n  FROM objects\n  WHERE fields IS NOT NULL"));
        let mut next = COORDINATES + self.columns.len();
        if self.unknown_fields == UnknownFields::Keep {
            let _ = write!(typed, ",\n    CAST(map() AS map(varchar, varchar)) AS c{next}");
            next += 1;
        }
        add("typed", format!("{typed}\n  FROM fields"));

        let mut from = "typed".to_owned();
        for (at, derive) in (next..).zip(&self.derive) {
            let failed = || format!("derived column {} is not for Trino: `{}`", derive.name, derive.expression.sql());
            let translated = translator.translate(derive.expression.logical()).with_context(failed)?;
            let step = format!("derived{at}");
            let query = format!("SELECT *, TRY({}) AS c{at}\n  FROM {from}\n  WHERE {}", translated.sql, all(&conditions));
            add(&step, query);
            conditions = is_known(&translated, at);
            if schema.field(at).data_type().is_floating() {
                conditions.push(format!("(c{at} IS NULL OR is_finite(c{at}))"));
            }
            from = step;
        }
        for expect in &self.expect {
            let failed = || format!("expectation {} is not for Trino: `{}`", expect.name, expect.expression.sql());
            let translated = translator.conditions(expect.expression.logical()).with_context(failed)?;
            conditions.extend(translated.iter().map(|condition| format!("TRY({})", condition.sql)));
        }
        let all_columns = (0..schema.fields().len() - 1).map(|at| format!("c{at}")).collect::<Vec<_>>().join(", ");
        add("accepted", format!("SELECT {all_columns}\n  FROM {from}\n  WHERE {}", all(&conditions)));
        let columns = schema.fields().iter().map(|field| field.name().clone()).collect();
        Ok(TrinoRows { columns, steps, max_value_bytes: self.max_value_bytes.min(PLAIN_BYTES_MAX) })
    }
}

/// Topic, partition, offset and timestamp come first.
const COORDINATES: usize = 4;

fn all(conditions: &[String]) -> String {
    if conditions.is_empty() { "true".to_owned() } else { conditions.join("\n    AND ") }
}

/// When the value of a derived column is what it is here: it may have failed where it is null for no other reason.
fn is_known(translated: &Translated, at: usize) -> Vec<String> {
    if !translated.can_fail {
        return Vec::new();
    }
    let nulls = translated.columns.iter().filter(|_| translated.is_strict).map(|column| format!(" OR {column} IS NULL"));
    vec![format!("(c{at} IS NOT NULL{})", nulls.collect::<String>())]
}

impl TrinoRows {
    /// The statement that writes the rows of plain records.
    pub fn insert(&self, to: &TrinoInsert<'_>) -> Result<String> {
        let micros = chrono::DateTime::from_timestamp_micros(to.processing_timestamp_us)
            .ok_or_else(|| Error::failed("the time of processing is no time"))?;
        let made_at = micros.format("%Y-%m-%d %H:%M:%S%.6f");
        let coordinates = [TOPIC, PARTITION, OFFSET, TIMESTAMP];
        let selected: Vec<String> =
            coordinates.iter().enumerate().map(|(at, name)| format!("{} AS c{at}", identifier(name))).collect();
        debug_assert_eq!(self.columns[COORDINATES - 1], KAFKA_TIMESTAMP);
        let value = identifier(VALUE);
        let mut text = format!(
            "INSERT INTO {} ({})\nWITH records AS (\n  SELECT {}, from_utf8({value}) AS message\n  FROM {}\n  WHERE ({})\n    AND \
             length({value}) BETWEEN 1 AND {}\n)",
            to.table,
            self.columns.iter().map(|name| identifier(name)).collect::<Vec<_>>().join(", "),
            selected.join(", "),
            to.bronze,
            to.records,
            self.max_value_bytes,
        );
        for (name, query) in &self.steps {
            let _ = write!(text, ", {name} AS (\n  {query}\n)");
        }
        let _ = write!(text, "\nSELECT *, TIMESTAMP '{made_at}' FROM accepted");
        Ok(text)
    }
}

/// A name within its quotes.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text within its quotes, in ASCII.
fn literal(text: &str) -> String {
    if text.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let escaped = text.chars().map(|c| match c {
        '\'' => "''".to_owned(),
        '\\' => r"\\".to_owned(),
        c if c == ' ' || c.is_ascii_graphic() => c.to_string(),
        c => format!(r"\+{:06X}", u32::from(c)),
    });
    format!("U&'{}'", escaped.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::silver::SilverSettings;

    /// The query of a silver with these columns, derived columns and expectations, as TOML has them.
    fn rows(columns: &str, derive: &str, expect: &str) -> Result<TrinoRows> {
        let list = |key: &str, items: &str| if items.is_empty() { String::new() } else { format!("{key} = [{items}]\n") };
        let text = format!("{}{}{}", list("columns", columns), list("derive", derive), list("expect", expect));
        let settings: SilverSettings = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        SilverPlan::new(&settings)?.trino_rows()
    }

    const COLUMNS: &str = r#"{ name = "City", required = false }, { name = "Quantity", type = "int" }, { name = "Count", type = "long" },
        { name = "Price", type = "decimal(10, 2)" }, { name = "Wide", type = "decimal(30, 4)" }, { name = "Score", type = "double" },
        { name = "Day", type = "date" }, { name = "At", type = "timestamp" }"#;

    fn derived(data_type: &str, sql: &str) -> Result<String> {
        let rows = rows(COLUMNS, &format!("{{ name = \"d\", type = \"{data_type}\", sql = '''{sql}''' }}"), "")?;
        Ok(rows.steps.into_iter().find(|(name, _)| name == "derived12").expect("a step").1)
    }

    #[test]
    fn what_may_fail_is_told_from_what_is_null() {
        let step = |data_type: &str, sql: &str| {
            let rows = rows(COLUMNS, &format!("{{ name = \"d\", type = \"{data_type}\", sql = '''{sql}''' }}"), "").unwrap();
            let (_, accepted) = rows.steps.into_iter().next_back().unwrap();
            accepted.split("WHERE ").nth(1).unwrap().to_owned()
        };
        // It cannot fail; it can, and says so; nobody knows what a null means.
        assert_eq!(step("decimal(25, 4)", "Price * Price"), "true");
        assert_eq!(step("int", "Quantity + 1"), "(c12 IS NOT NULL OR c5 IS NULL)");
        assert_eq!(step("int", "Quantity + character_length(coalesce(City, ''))"), "(c12 IS NOT NULL)");
        assert_eq!(step("string", "upper(City)"), "(c12 IS NOT NULL OR c4 IS NULL)");
        assert_eq!(step("string", "trim(City)"), "true");
        assert_eq!(step("boolean", "Score > 1"), "(c12 IS NOT NULL OR c9 IS NULL)");
        assert_eq!(step("double", "Score * 2"), "(c12 IS NULL OR is_finite(c12))");
    }

    #[test]
    fn conditions_are_held_one_by_one() {
        let rows = rows(COLUMNS, "", r#"{ name = "e", sql = "Quantity + 1 > 0 AND (Price > 0.5 OR City IS NULL)" }"#).unwrap();
        let (_, accepted) = rows.steps.last().unwrap();
        assert!(accepted.contains("TRY((") && accepted.matches("AND TRY(").count() == 2, "{accepted}");
    }

    #[test]
    fn what_has_no_equal_is_refused_by_name() {
        for (data_type, sql, said) in [
            // -0.0 is not 0.0 to one of them, and this may not be null where they are compared.
            ("boolean", "Score IS DISTINCT FROM 1.0", "Trino has no equal of"),
            ("boolean", "Score > 1 OR Quantity > 1", "derived column of its own"),
            ("double", "Price / 3", "Trino has no equal of"),
            ("long", "Count % Quantity", "Trino has no equal of"),
            ("decimal(38, 8)", "Wide * Wide", "more than 38 digits"),
            ("int", "CASE WHEN Quantity > 0 THEN Quantity + 1 END", "derived column of its own"),
            ("int", "CAST(City AS INT)", "Trino has no equal of"),
            ("int", "CAST(Price AS INT)", "Trino has no equal of"),
            ("boolean", r"City LIKE 'a\%'", "Trino has no equal of"),
            ("boolean", "City ILIKE 'a%'", "Trino has no equal of"),
            ("string", "initcap(City)", "Trino has no equal of"),
            ("string", "trim('x' FROM City)", "Trino has no equal of"),
            ("string", "replace(City, '', 'x')", "Trino has no equal of"),
            ("string", "left(City, -1)", "Trino has no equal of"),
            ("string", "substr(City, Quantity)", "Trino has no equal of"),
            ("string", "substr(City, -1)", "Trino has no equal of"),
            ("int", "date_part('second', At)", "Trino has no equal of"),
        ] {
            let error = derived(data_type, sql).unwrap_err();
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            let text = format!("{error} {cause} {}", error.hint_text().unwrap_or_default());
            assert!(text.contains("derived column d is not for Trino") && text.contains(said), "{sql}: {text}");
        }
        let error = rows(COLUMNS, "", r#"{ name = "e", sql = "Score IN (1, 2)" }"#).unwrap_err();
        assert!(error.to_string().contains("expectation e is not for Trino: `Score IN (1, 2)`"), "{error}");
        for format in ["%y-%m-%d", "%d %b %Y", "%Y-%m-%dT%H:%M:%S%z", "%d+%m+%Y"] {
            let error = rows(&format!(r#"{{ name = "d", type = "date", formats = ["{format}", "iso"] }}"#), "", "").unwrap_err();
            assert!(error.to_string().contains("silver column d is not for Trino"), "{format}: {error}");
        }
    }

    #[test]
    fn a_form_that_could_take_a_text_of_another_one_hides_those_behind_it() {
        let forms = |data_type: &str, formats: &str| {
            let rows = rows(&format!(r#"{{ name = "d", type = "{data_type}", formats = [{formats}] }}"#), "", "").unwrap();
            let (_, typed) = rows.steps.iter().find(|(name, _)| name == "typed").unwrap();
            typed.matches("CASE WHEN").count()
        };
        assert_eq!(forms("date", r#""iso", "%d-%m-%Y", "%Y%m%d", "epoch_ms""#), 4);
        assert_eq!(forms("date", r#""iso", "%y-%m-%d", "%Y%m%d""#), 1);
        assert_eq!(forms("date", r#""%d %m %Y", "%m%d%Y""#), 1);
        assert_eq!(forms("date", r#""%m%d%Y", "%d %m %Y", "iso""#), 1);
        assert_eq!(forms("timestamp", r#""%d.%m.%Y %H:%M", "iso", "epoch_s""#), 2);
    }

    #[test]
    fn a_statement_names_its_columns_and_leaves_out_what_is_too_large() {
        let rows = rows(COLUMNS, "", "").unwrap();
        let to = TrinoInsert { table: "d.s", bronze: "d.b", records: "true", processing_timestamp_us: 1_700_000_000_123_456 };
        let text = rows.insert(&to).unwrap();
        assert!(
            text.starts_with("INSERT INTO d.s (\"topic\", \"partition\", \"offset\", \"kafka_timestamp\", \"City\", "),
            "{text}"
        );
        assert!(text.contains("WHERE (true)\n    AND length(\"value\") BETWEEN 1 AND 1048576\n"), "{text}");
        assert!(text.ends_with("SELECT *, TIMESTAMP '2023-11-14 22:13:20.123456' FROM accepted"), "{text}");
    }

    #[test]
    fn texts_stand_in_ascii() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("é\\'\n"), r"U&'\+0000E9\\''\+00000A'");
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
    }
}
