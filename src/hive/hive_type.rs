//! Hive's type names as Arrow types, for tables whose files are Parquet or JSON lines.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};

use crate::error::{Error, Result};

/// The Arrow type of a Hive type such as `decimal(18,2)` or `array<struct<key:string,value:binary>>`.
pub fn arrow_type(hive: &str) -> Result<DataType> {
    let mut parser = Parser { rest: hive.trim() };
    match parser.any().filter(|_| parser.rest.is_empty()) {
        Some(data_type) => Ok(data_type),
        None => Err(Error::failed(format!("the Hive type `{hive}` is not supported"))),
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn word(&mut self) -> &'a str {
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ' ')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.trim()
    }

    fn skip(&mut self, expected: &str) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(expected)?.trim_start();
        Some(())
    }

    /// The numbers in parentheses behind a type.
    fn numbers(&mut self) -> Option<Vec<u8>> {
        if self.skip("(").is_none() {
            return Some(Vec::new());
        }
        let (inside, rest) = self.rest.split_once(')')?;
        self.rest = rest;
        inside.split(',').map(|number| number.trim().parse().ok()).collect()
    }

    fn any(&mut self) -> Option<DataType> {
        let word = self.word().to_lowercase();
        Some(match word.as_str() {
            "boolean" => DataType::Boolean,
            "tinyint" => DataType::Int8,
            "smallint" => DataType::Int16,
            "int" | "integer" => DataType::Int32,
            "bigint" => DataType::Int64,
            "float" => DataType::Float32,
            "double" | "double precision" => DataType::Float64,
            "string" => DataType::Utf8,
            "varchar" | "char" => {
                // The length is at most 65535: too long for `numbers`, and of no meaning here.
                if self.skip("(").is_some() {
                    self.rest = self.rest.split_once(')')?.1;
                }
                DataType::Utf8
            }
            "binary" => DataType::Binary,
            "date" => DataType::Date32,
            "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
            "timestamp with local time zone" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            "decimal" | "numeric" => match *self.numbers()?.as_slice() {
                [] => DataType::Decimal128(10, 0),
                [precision] => DataType::Decimal128(precision, 0),
                [precision, scale] if scale <= precision && precision <= 38 => {
                    DataType::Decimal128(precision, i8::try_from(scale).ok()?)
                }
                _ => return None,
            },
            "array" => {
                self.skip("<")?;
                let element = self.any()?;
                self.skip(">")?;
                DataType::List(Arc::new(Field::new("element", element, true)))
            }
            "map" => {
                self.skip("<")?;
                let key = self.any()?;
                self.skip(",")?;
                let value = self.any()?;
                self.skip(">")?;
                let entries = vec![Field::new("key", key, false), Field::new("value", value, true)];
                DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(entries.into()), false)), false)
            }
            "struct" => {
                self.skip("<")?;
                let mut fields = Vec::new();
                loop {
                    let name = self.word().to_string();
                    self.skip(":")?;
                    fields.push(Field::new(name, self.any()?, true));
                    if self.skip(",").is_none() {
                        self.skip(">")?;
                        break;
                    }
                }
                DataType::Struct(fields.into())
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_as_hive_writes_them() {
        for (hive, arrow) in [
            ("string", DataType::Utf8),
            ("bigint", DataType::Int64),
            ("decimal(18,2)", DataType::Decimal128(18, 2)),
            ("decimal(38, 10)", DataType::Decimal128(38, 10)),
            ("varchar(65535)", DataType::Utf8),
            ("timestamp", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ] {
            assert_eq!(arrow_type(hive).unwrap(), arrow, "{hive}");
        }
        let nested = arrow_type("array<struct<key:string,value:map<int,decimal(9,2)>>>").unwrap();
        let DataType::List(element) = nested else { panic!() };
        let DataType::Struct(fields) = element.data_type() else { panic!() };
        assert_eq!(fields[0].name(), "key");
        assert!(matches!(fields[1].data_type(), DataType::Map(_, false)));
    }

    #[test]
    fn other_types_are_refused_by_name() {
        for hive in ["interval_day_time", "decimal(39,2)", "decimal(2,3)", "array<int", "uniontype<int,string>", "int x", ""] {
            let error = arrow_type(hive).unwrap_err();
            assert!(error.to_string().contains(&format!("`{hive}`")), "{error}");
        }
    }
}
