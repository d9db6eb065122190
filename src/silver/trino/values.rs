//! Values of plain messages: a condition that a value's text must meet, and what Trino makes of it.
//!
//! *Invariants*: what meets the condition, silver reads as the same value; under `TRY`, what Trino refuses is null.
//!
//! A column with several forms of a date tries them in the order of the column. Parts of fixed widths are eight digits in each form, so a text
//! that one form takes with all its digits another one either takes in the same places or not at all. Forms with spaces, which match white space
//! or nothing, have no other form beside them, and so have those of instants, which may have fewer digits.

use super::literal;
use crate::error::{Error, Result};
use crate::silver::columns::Column;
use crate::silver::settings::ScaleExcess;
use crate::silver::time::{Piece, TimeFormat};
use crate::silver::types::ColumnType;

/// The value of a column as an expression over the text of its field; null if the text is not plain.
pub(super) fn plain(column: &Column, text: &str) -> Result<String> {
    let when = |pattern: &str, value: String| when(text, pattern, &value);
    let cast = |data_type: &str| format!("CAST({text} AS {data_type})");
    // That a number is well formed is known.
    const NUMBER: &str = r"-?[0-9].*";
    Ok(match column.column_type {
        ColumnType::String => {
            let inside = format!("substr({text}, 2, length({text}) - 2)");
            let decoded = format!("TRY(CAST(json_parse({text}) AS varchar))");
            format!(r#"CASE WHEN substr({text}, 1, 1) = '"' THEN IF(strpos({text}, '\') = 0, {inside}, {decoded}) END"#)
        }
        ColumnType::Boolean => format!("CASE {text} WHEN 'true' THEN true WHEN 'false' THEN false END"),
        // So many digits fit whatever they are.
        ColumnType::Int => when("-?(?:0|[1-9][0-9]{0,8})", cast("integer")),
        ColumnType::Long => when("-?(?:0|[1-9][0-9]{0,17})", cast("bigint")),
        ColumnType::Float => when(NUMBER, finite(&cast("real"))),
        ColumnType::Double => when(NUMBER, finite(&cast("double"))),
        ColumnType::Decimal { precision, scale } => {
            let whole = match precision - scale {
                0 => "0".to_owned(),
                1 => "[0-9]".to_owned(),
                digits => format!("(?:0|[1-9][0-9]{{0,{}}})", digits - 1),
            };
            let fraction = match (column.scale_excess, scale) {
                (ScaleExcess::Round, _) => r"(?:\.[0-9]+)?".to_owned(),
                (ScaleExcess::Reject, 0) => String::new(),
                (ScaleExcess::Reject, scale) => format!(r"(?:\.[0-9]{{1,{scale}}})?"),
            };
            when(&format!("-?{whole}{fraction}"), cast(&format!("decimal({precision}, {scale})")))
        }
        ColumnType::Date | ColumnType::Timestamp => timed(column, text)?,
    })
}

/// The value, if the whole text is like this; null if it isn't, or if Trino refuses it.
fn when(text: &str, pattern: &str, value: &str) -> String {
    format!("CASE WHEN regexp_like({text}, {}) THEN TRY({value}) END", literal(&format!(r"\A{pattern}\z")))
}

fn finite(value: &str) -> String {
    format!("IF(is_finite({value}), {value})")
}

/// A date or an instant.
fn timed(column: &Column, text: &str) -> Result<String> {
    let data_type = super::expression::type_name(&column.column_type.arrow()).unwrap_or_default();
    let is_date = column.column_type == ColumnType::Date;
    let mut forms: Vec<String> = Vec::new();
    let texts = column.formats.iter().filter(|format| column.lenient || !format.is_numeric());
    let mut may_be_next = true;
    // What stands behind a form that is not understood could be taken by that one.
    for (at, (pattern, order)) in texts.map_while(|format| form(format, is_date)).enumerate() {
        let has_space = pattern.contains(' ');
        if at > 0 && (has_space || !may_be_next) {
            break;
        }
        may_be_next = is_date && !has_space;
        let pattern = format!("\"{pattern}\"");
        let value = format!("CAST(regexp_replace({text}, {}, '{order}') AS {data_type})", literal(&pattern));
        forms.push(when(text, &pattern, &value));
    }
    // Of a lenient column a number may be taken for a text of an earlier form.
    if let Some(unit) = column.formats.iter().find(|format| format.is_numeric()).filter(|_| !column.lenient).and_then(nanos) {
        let instant = format!("CAST(from_unixtime_nanos(CAST({text} AS bigint) * {unit}) AT TIME ZONE 'UTC' AS timestamp(6))");
        forms.push(when(text, "(?:0|[1-9][0-9]{0,17})", &format!("CAST({instant} AS {data_type})")));
    }
    if forms.is_empty() {
        return Err(Error::config(format!(
            "silver column {} is not for Trino: it reads none of its formats as silver does",
            column.name
        )));
    }
    Ok(format!("coalesce({}, NULL)", forms.join(", ")))
}

/// The nanoseconds of a number's unit.
fn nanos(format: &TimeFormat) -> Option<u64> {
    match format {
        TimeFormat::EpochSeconds => Some(1_000_000_000),
        TimeFormat::EpochMillis => Some(1_000_000),
        TimeFormat::EpochMicros => Some(1_000),
        TimeFormat::Iso | TimeFormat::Pattern(_) => None,
    }
}

/// The pattern of a form, and its groups in the order of a literal of Trino's.
fn form(format: &TimeFormat, is_date: bool) -> Option<(String, String)> {
    const DATE: &str = "([1-9][0-9]{3}-[0-9]{2}-[0-9]{2})";
    if *format == TimeFormat::Iso {
        return Some(match is_date {
            true => (DATE.to_owned(), "$1".to_owned()),
            false => (format!(r"{DATE}[Tt ]([0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}}(?:\.[0-9]{{1,6}})?)?)Z?"), "$1 $2".to_owned()),
        });
    }
    let (mut pattern, mut groups) = (String::new(), Vec::new());
    let pieces = format.pieces()?;
    for piece in &pieces {
        match piece {
            Piece::Literal(text) => {
                let text = std::str::from_utf8(text).ok()?;
                let is_harmless = |c: char| c.is_ascii_graphic() && !c.is_ascii_digit() && !"+\"\\'".contains(c) || c == ' ';
                if !text.chars().all(is_harmless) {
                    return None;
                }
                text.chars().for_each(|c| match c {
                    c if c.is_ascii_alphabetic() || c == ' ' => pattern.push(c),
                    c => pattern.extend(['\\', c]),
                });
                continue;
            }
            Piece::Year => pattern.push_str("([1-9][0-9]{3})"),
            _ => pattern.push_str("([0-9]{2})"),
        }
        groups.push(piece);
    }
    let place = |piece: &Piece| match groups.iter().filter(|other| **other == piece).count() {
        1 => groups.iter().position(|other| *other == piece).map(|at| format!("${}", at + 1)),
        _ => None,
    };
    let date = format!("{}-{}-{}", place(&Piece::Year)?, place(&Piece::Month)?, place(&Piece::Day)?);
    let order = match (groups.len(), is_date) {
        (3, _) => date,
        (5, false) => format!("{date} {}:{}", place(&Piece::Hour)?, place(&Piece::Minute)?),
        (6, false) => format!("{date} {}:{}:{}", place(&Piece::Hour)?, place(&Piece::Minute)?, place(&Piece::Second)?),
        _ => return None,
    };
    Some((pattern, order))
}
