//! Defaults of columns as people write and read them.
//!
//! They came with version 3 of Iceberg's format, so a table that gets one becomes of that version, for good. Hive refuses such a table, and
//! Trino 476 reads the default as null in rows so far.

use chrono::{Datelike, NaiveDate, NaiveDateTime, Timelike};
use iceberg::spec::{Literal, PrimitiveLiteral, PrimitiveType, Schema, Type};

use super::types::type_name;
use crate::error::{Error, Result};
use crate::silver;

/// Years that every engine shows.
const YEARS: std::ops::RangeInclusive<i32> = 1..=9999;

/// Reads a value of a type: `7`, `1.50`, `true`, `2026-11-28`, `2026-11-28 12:00:00.5`; text is taken as it is.
pub(super) fn parse(text: &str, field_type: &Type) -> Result<Literal> {
    let Type::Primitive(primitive) = field_type else { return Err(none_for(field_type)) };
    let value = match primitive {
        PrimitiveType::Boolean => text.to_lowercase().parse().ok().map(PrimitiveLiteral::Boolean),
        PrimitiveType::Int => text.parse().ok().map(PrimitiveLiteral::Int),
        PrimitiveType::Long => text.parse().ok().map(PrimitiveLiteral::Long),
        PrimitiveType::Float => {
            text.parse().ok().filter(|value: &f32| value.is_finite()).map(|value| PrimitiveLiteral::Float(value.into()))
        }
        PrimitiveType::Double => {
            text.parse().ok().filter(|value: &f64| value.is_finite()).map(|value| PrimitiveLiteral::Double(value.into()))
        }
        PrimitiveType::Decimal { precision, scale } => {
            let (precision, scale) = (u8::try_from(*precision).ok(), u8::try_from(*scale).ok());
            precision
                .zip(scale)
                .and_then(|(precision, scale)| silver::exact_decimal(text, precision, scale))
                .map(PrimitiveLiteral::Int128)
        }
        PrimitiveType::Date => date(text).map(PrimitiveLiteral::Int),
        PrimitiveType::Timestamp => timestamp(text).map(PrimitiveLiteral::Long),
        PrimitiveType::String => Some(PrimitiveLiteral::String(text.to_owned())),
        _ => return Err(none_for(field_type)),
    };
    let wrong = || {
        Error::config(format!("`{text}` is no {}, and so no default for it", type_name(field_type)))
            .hint("write 7, 1.50, true, 2026-11-28 or 2026-11-28 12:00:00, as the type wants it; nothing is rounded")
    };
    let value = value.map(Literal::Primitive).ok_or_else(wrong)?;
    // What the table's metadata would not give back as it is would be lost without a word.
    let kept = value.clone().try_into_json(field_type).and_then(|json| Literal::try_from_json(json, field_type));
    match kept {
        Ok(Some(kept)) if kept == value => Ok(value),
        _ => Err(Error::config(format!("`{text}` cannot be kept as a default of type {}", type_name(field_type)))),
    }
}

/// A default as it is shown, and as [`parse`] takes it.
pub(super) fn text(value: &Literal, field_type: &Type) -> String {
    // In JSON it has the digits of a double.
    if let Literal::Primitive(PrimitiveLiteral::Float(value)) = value {
        return value.to_string();
    }
    match value.clone().try_into_json(field_type) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => format!("{value:?}"),
    }
}

/// The default of a column that is widened.
pub(super) fn widened(value: Literal, to: &Type) -> Literal {
    match (value, to) {
        (Literal::Primitive(PrimitiveLiteral::Int(value)), Type::Primitive(PrimitiveType::Long)) => {
            Literal::long(i64::from(value))
        }
        (Literal::Primitive(PrimitiveLiteral::Float(value)), Type::Primitive(PrimitiveType::Double)) => {
            Literal::double(f64::from(value.0))
        }
        (value, _) => value,
    }
}

/// Whether a column of the schema has one, which tables of version 2 can't say.
pub(super) fn has_any(schema: &Schema) -> bool {
    schema.as_struct().fields().iter().any(|field| field.initial_default.is_some() || field.write_default.is_some())
}

fn date(text: &str) -> Option<i32> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|date| YEARS.contains(&date.year()))?;
    i32::try_from(date.signed_duration_since(NaiveDate::default()).num_days()).ok()
}

/// Microseconds since 1970.
fn timestamp(text: &str) -> Option<i64> {
    let at = NaiveDateTime::parse_from_str(&text.replacen(' ', "T", 1), "%Y-%m-%dT%H:%M:%S%.f").ok()?;
    let fits = YEARS.contains(&at.year()) && at.nanosecond() < 1_000_000_000 && at.nanosecond() % 1_000 == 0;
    fits.then(|| at.and_utc().timestamp_micros())
}

fn none_for(field_type: &Type) -> Error {
    Error::config(format!("a column of type {} can have no default", type_name(field_type)))
        .hint("numbers, boolean, string, date and timestamp can; add the column without, and rows so far are null")
}

#[cfg(test)]
mod tests {
    use super::super::types::parse_type;
    use super::*;

    #[test]
    fn a_default_is_read_as_it_is_shown() {
        for (field_type, written, shown) in [
            ("int", "-7", "-7"),
            ("long", "9223372036854775807", "9223372036854775807"),
            ("float", "0.1", "0.1"),
            ("double", "1e300", "1e+300"),
            ("boolean", "TRUE", "true"),
            ("decimal(6, 2)", "1.5", "1.50"),
            ("decimal(6, 2)", "-0.050", "-0.05"),
            ("decimal(38, 0)", "99999999999999999999999999999999999999", "99999999999999999999999999999999999999"),
            ("date", "2026-11-28", "2026-11-28"),
            ("date", "0001-01-01", "0001-01-01"),
            ("timestamp", "2026-11-28 12:00:00", "2026-11-28T12:00:00"),
            ("timestamp", "1969-12-31T23:59:59.999999", "1969-12-31T23:59:59.999999"),
            ("string", "", ""),
            ("string", " größe \"1\" ", " größe \"1\" "),
        ] {
            let field_type = parse_type(field_type, &mut 1).unwrap();
            let value = parse(written, &field_type).unwrap();
            assert_eq!(text(&value, &field_type), shown);
            assert_eq!(parse(shown, &field_type).unwrap(), value);
        }
    }

    #[test]
    fn what_is_no_value_of_the_type_is_refused() {
        for (field_type, written) in [
            ("int", "2147483648"),
            ("int", "1.0"),
            ("int", ""),
            ("long", "1e3"),
            ("double", "nan"),
            ("float", "1e39"),
            ("boolean", "yes"),
            ("decimal(4, 2)", "1.005"),
            ("decimal(4, 2)", "100"),
            ("date", "28.11.2026"),
            ("date", "2026-02-30"),
            ("date", "12026-01-01"),
            ("timestamp", "2026-11-28"),
            ("timestamp", "2026-11-28 12:00:00.0000001"),
            ("timestamp", "2026-11-28 12:00:00Z"),
            ("binary", "00"),
            ("list<int>", "[]"),
            ("struct<a: int>", "{}"),
        ] {
            let error = parse(written, &parse_type(field_type, &mut 1).unwrap()).unwrap_err();
            assert!(error.to_string().contains("default") && error.hint_text().is_some(), "{field_type} {written}: {error}");
        }
    }

    #[test]
    fn a_default_is_widened_with_its_column() {
        let to = |text: &str| parse_type(text, &mut 1).unwrap();
        assert_eq!(widened(Literal::int(7), &to("long")), Literal::long(7));
        assert_eq!(widened(Literal::float(0.5), &to("double")), Literal::double(0.5));
        assert_eq!(widened(Literal::decimal(150), &to("decimal(20, 2)")), Literal::decimal(150));
    }
}
