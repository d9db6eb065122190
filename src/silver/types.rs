//! The types a column of silver may have, and what they are called in a pipeline file and in Arrow.

use std::fmt;
use std::str::FromStr;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::record::INSTANT;

/// The type of a column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// Text in UTF-8.
    #[default]
    String,
    /// 32-bit integer.
    Int,
    /// 64-bit integer.
    Long,
    /// 32-bit floating point.
    Float,
    /// 64-bit floating point.
    Double,
    Boolean,
    /// A calendar day of the years 1 to 9999.
    Date,
    /// An instant in UTC, microseconds, of the years 1 to 9999.
    Timestamp,
    /// An exact number of at most `precision` digits, `scale` of them behind the point.
    Decimal {
        precision: u8,
        scale: u8,
    },
}

impl ColumnType {
    pub fn arrow(self) -> DataType {
        match self {
            Self::String => DataType::Utf8,
            Self::Int => DataType::Int32,
            Self::Long => DataType::Int64,
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Boolean => DataType::Boolean,
            Self::Date => DataType::Date32,
            Self::Timestamp => INSTANT,
            Self::Decimal { precision, scale } => DataType::Decimal128(precision, scale as i8),
        }
    }

    /// Whether values of this type usually repeat within a data file, so that a dictionary makes it smaller.
    pub(super) fn usually_repeats(self) -> bool {
        match self {
            Self::String | Self::Int | Self::Boolean | Self::Date => true,
            Self::Long | Self::Float | Self::Double | Self::Timestamp | Self::Decimal { .. } => false,
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String => f.write_str("string"),
            Self::Int => f.write_str("int"),
            Self::Long => f.write_str("long"),
            Self::Float => f.write_str("float"),
            Self::Double => f.write_str("double"),
            Self::Boolean => f.write_str("boolean"),
            Self::Date => f.write_str("date"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision}, {scale})"),
        }
    }
}

/// A type's name was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no column type: known are string, int, long, float, double, boolean, date, timestamp and decimal(precision, scale) \
     with 1 to 38 digits of which no more than all stand behind the point"
)]
pub struct UnknownType(String);

impl FromStr for ColumnType {
    type Err = UnknownType;

    fn from_str(text: &str) -> Result<Self, UnknownType> {
        let known = match text.trim() {
            "string" => Self::String,
            "int" => Self::Int,
            "long" => Self::Long,
            "float" => Self::Float,
            "double" => Self::Double,
            "boolean" => Self::Boolean,
            "date" => Self::Date,
            "timestamp" => Self::Timestamp,
            other => return decimal(other).ok_or_else(|| UnknownType(text.to_owned())),
        };
        Ok(known)
    }
}

fn decimal(text: &str) -> Option<ColumnType> {
    let arguments = text.strip_prefix("decimal")?.trim_start().strip_prefix('(')?.strip_suffix(')')?;
    let (precision, scale) = arguments.split_once(',')?;
    let (precision, scale): (u8, u8) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
    let fits = (1..=DECIMAL128_MAX_PRECISION).contains(&precision) && scale <= precision;
    fits.then_some(ColumnType::Decimal { precision, scale })
}

impl Serialize for ColumnType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ColumnType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for text in ["string", "int", "long", "float", "double", "boolean", "date", "timestamp", "decimal(12, 2)"] {
            assert_eq!(text.parse::<ColumnType>().unwrap().to_string(), text);
        }
        assert_eq!("decimal(5,4)".parse(), Ok(ColumnType::Decimal { precision: 5, scale: 4 }));
    }

    #[test]
    fn impossible_decimals_and_unknown_names_are_refused() {
        for text in
            ["", "Int", "decimal", "decimal()", "decimal(39, 2)", "decimal(0, 0)", "decimal(4, 5)", "decimal(4, -1)", "text"]
        {
            assert!(text.parse::<ColumnType>().is_err(), "{text}");
        }
    }
}
