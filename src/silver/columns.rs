//! Values of messages become Arrow columns: one strict conversion per type, straight into the column's buffer.
//!
//! *Invariants*: between rows all columns have the same length. A row that fails half-way is rolled back by cutting every column to the
//! rows before it, so a bad message leaves nothing behind.
//!
//! *Failure*: a value that does not fit is refused with the column's name and what was found; nothing is converted in silence.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::builder::NullBufferBuilder;
use arrow::array::{ArrayRef, ArrowPrimitiveType, BooleanArray, BooleanBufferBuilder, PrimitiveArray, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow::error::ArrowError;

use super::decoder::{Fault, Stage, Value, excerpt};
use super::map_column::MapColumn;
use super::number::{self, NumberFault};
use super::settings::{OnError, ScaleExcess};
use super::time::TimeFormat;
use super::types::ColumnType;

/// How one column is read.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    /// The field of the message.
    pub field: String,
    pub column_type: ColumnType,
    /// A record without a value is rejected.
    pub required: bool,
    pub on_error: OnError,
    /// Forms of a date or timestamp.
    pub formats: Vec<TimeFormat>,
    pub scale_excess: ScaleExcess,
    /// Text is taken for a number or boolean and the other way round.
    pub lenient: bool,
}

/// The columns of the rows decoded so far, and perhaps a part of the next row.
pub struct Columns {
    columns: Arc<[Column]>,
    data: Vec<ColumnData>,
    others: Option<MapColumn>,
    rows: usize,
    /// Columns of the current row that have got a value, or null.
    set: usize,
}

impl Columns {
    /// Empty columns with room for so many rows.
    pub fn new(columns: Arc<[Column]>, rows: usize) -> Self {
        let data = columns.iter().map(|column| ColumnData::new(column.column_type, rows)).collect();
        Self { columns, data, others: None, rows: 0, set: 0 }
    }

    /// With a further column behind the others, for what [`Self::keep`] is called with.
    #[must_use]
    pub fn keeping_others(self) -> Self {
        Self { others: Some(MapColumn::new()), ..self }
    }

    /// A field of the current row that no column reads.
    pub fn keep(&mut self, name: &str, value: Option<&str>) {
        if let Some(others) = &mut self.others {
            others.put(name, value);
        }
    }

    /// Sets a column of the current row, which must not have a value yet.
    pub fn set(&mut self, index: usize, value: Value<'_>) -> Result<(), Fault> {
        let (column, data) = (&self.columns[index], &mut self.data[index]);
        debug_assert_eq!(data.nulls.len(), self.rows, "column {} is set twice", column.name);
        self.set += 1;
        let outcome = match value {
            Value::Null if column.required => Err("is null but required".into()),
            Value::Null => {
                data.push_null();
                Ok(())
            }
            value if column.lenient => data.push(column, &softened(value, column.column_type)),
            value => data.push(column, &value),
        };
        match outcome {
            Err(_) if column.on_error == OnError::Null => {
                data.push_null();
                Ok(())
            }
            outcome => outcome.map_err(|reason| column.fault(reason)),
        }
    }

    /// Completes the current row: a column without a value becomes null, if it may.
    pub fn end_row(&mut self) -> Result<(), Fault> {
        if self.set < self.data.len() {
            for (column, data) in self.columns.iter().zip(&mut self.data).filter(|(_, data)| data.nulls.len() == self.rows) {
                if column.required {
                    return Err(column.fault("is missing but required"));
                }
                data.push_null();
            }
        }
        self.set = 0;
        if let Some(others) = &mut self.others {
            others.end_row().map_err(|error| Fault::message(format!("has fields that cannot be kept: {error}")))?;
        }
        self.rows += 1;
        Ok(())
    }

    /// Forgets the current row.
    pub fn roll_back(&mut self) {
        self.set = 0;
        for data in &mut self.data {
            data.truncate(self.rows);
        }
        if let Some(others) = &mut self.others {
            others.roll_back();
        }
    }

    /// The finished columns, in order.
    pub fn finish(self) -> Result<Vec<ArrayRef>, ArrowError> {
        let columns = self.columns.iter().zip(self.data).map(|(column, data)| data.finish(column.column_type));
        columns.chain(self.others.map(|others| Ok(others.finish()))).collect()
    }
}

impl Column {
    #[cfg(test)]
    pub fn optional_text(field: &str) -> Self {
        Self {
            name: field.to_uppercase(),
            field: field.into(),
            column_type: ColumnType::String,
            required: false,
            on_error: OnError::Reject,
            formats: Vec::new(),
            scale_excess: ScaleExcess::Round,
            lenient: false,
        }
    }

    fn fault(&self, reason: impl Into<String>) -> Fault {
        Fault::field(Stage::Type, &self.name, reason)
    }
}

/// What a lenient column takes a value for; anything doubtful stays as it is and is refused by the strict conversion.
fn softened(value: Value<'_>, column_type: ColumnType) -> Value<'_> {
    match (column_type, value) {
        (ColumnType::String, Value::Number(text)) => Value::Text(text.into()),
        (ColumnType::String, Value::Boolean(boolean)) => Value::Text(boolean.to_string().into()),
        (ColumnType::Boolean, Value::Text(text)) => match text.trim() {
            "true" => Value::Boolean(true),
            "false" => Value::Boolean(false),
            _ => Value::Text(text),
        },
        (ColumnType::Date | ColumnType::Timestamp, Value::Number(text)) => Value::Text(text.into()),
        (_, value) => value,
    }
}

enum Slots {
    Text {
        ends: Vec<i32>,
        bytes: Vec<u8>,
    },
    Boolean(BooleanBufferBuilder),
    Int(Vec<i32>),
    Long(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Decimal(Vec<i128>),
    /// Days since 1970.
    Date(Vec<i32>),
    /// Microseconds since 1970.
    Timestamp(Vec<i64>),
}

struct ColumnData {
    slots: Slots,
    nulls: NullBufferBuilder,
}

impl ColumnData {
    fn new(column_type: ColumnType, rows: usize) -> Self {
        let slots = match column_type {
            ColumnType::String => {
                let mut ends = Vec::with_capacity(rows + 1);
                ends.push(0);
                Slots::Text { ends, bytes: Vec::with_capacity(rows * 8) }
            }
            ColumnType::Boolean => Slots::Boolean(BooleanBufferBuilder::new(rows)),
            ColumnType::Int => Slots::Int(Vec::with_capacity(rows)),
            ColumnType::Long => Slots::Long(Vec::with_capacity(rows)),
            ColumnType::Float => Slots::Float(Vec::with_capacity(rows)),
            ColumnType::Double => Slots::Double(Vec::with_capacity(rows)),
            ColumnType::Decimal { .. } => Slots::Decimal(Vec::with_capacity(rows)),
            ColumnType::Date => Slots::Date(Vec::with_capacity(rows)),
            ColumnType::Timestamp => Slots::Timestamp(Vec::with_capacity(rows)),
        };
        Self { slots, nulls: NullBufferBuilder::new(rows) }
    }

    /// Adds a value, or says why it does not fit and adds nothing.
    fn push(&mut self, column: &Column, value: &Value<'_>) -> Result<(), Cow<'static, str>> {
        match &mut self.slots {
            Slots::Text { ends, bytes } => {
                let Value::Text(text) = value else { return Err(unfit(column, value)) };
                bytes.extend_from_slice(text.as_bytes());
                // Below 2 GiB: the messages of a batch, which hold every text, are one Arrow column with offsets of this size.
                ends.push(bytes.len() as i32);
            }
            Slots::Boolean(values) => match value {
                Value::Boolean(boolean) => values.append(*boolean),
                _ => return Err(unfit(column, value)),
            },
            Slots::Int(values) => {
                let number = number::integer(number_text(column, value)?).map_err(|fault| misfit(column, value, fault))?;
                values.push(i32::try_from(number).map_err(|_| misfit(column, value, NumberFault::OutOfRange))?);
            }
            Slots::Long(values) => {
                values.push(number::integer(number_text(column, value)?).map_err(|fault| misfit(column, value, fault))?)
            }
            Slots::Float(values) => {
                let number: Option<f32> = number_text(column, value)?.parse().ok();
                values.push(
                    number.filter(|number| number.is_finite()).ok_or_else(|| misfit(column, value, NumberFault::OutOfRange))?,
                );
            }
            Slots::Double(values) => {
                let number: Option<f64> = number_text(column, value)?.parse().ok();
                values.push(
                    number.filter(|number| number.is_finite()).ok_or_else(|| misfit(column, value, NumberFault::OutOfRange))?,
                );
            }
            Slots::Decimal(values) => {
                let ColumnType::Decimal { precision, scale } = column.column_type else { return Err(unfit(column, value)) };
                let number = number::decimal(number_text(column, value)?, precision, scale, column.scale_excess);
                values.push(number.map_err(|fault| misfit(column, value, fault))?);
            }
            Slots::Date(values) => values.push(timed(column, value, TimeFormat::days)?),
            Slots::Timestamp(values) => values.push(timed(column, value, TimeFormat::micros)?),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    fn push_null(&mut self) {
        match &mut self.slots {
            Slots::Text { ends, bytes } => ends.push(bytes.len() as i32),
            Slots::Boolean(values) => values.append(false),
            Slots::Int(values) | Slots::Date(values) => values.push(0),
            Slots::Long(values) | Slots::Timestamp(values) => values.push(0),
            Slots::Float(values) => values.push(0.0),
            Slots::Double(values) => values.push(0.0),
            Slots::Decimal(values) => values.push(0),
        }
        self.nulls.append_null();
    }

    fn truncate(&mut self, rows: usize) {
        match &mut self.slots {
            Slots::Text { ends, bytes } => {
                ends.truncate(rows + 1);
                bytes.truncate(ends.last().map_or(0, |end| *end as usize));
            }
            Slots::Boolean(values) => values.truncate(rows),
            Slots::Int(values) | Slots::Date(values) => values.truncate(rows),
            Slots::Long(values) | Slots::Timestamp(values) => values.truncate(rows),
            Slots::Float(values) => values.truncate(rows),
            Slots::Double(values) => values.truncate(rows),
            Slots::Decimal(values) => values.truncate(rows),
        }
        self.nulls.truncate(rows);
    }

    fn finish(self, column_type: ColumnType) -> Result<ArrayRef, ArrowError> {
        let nulls = self.nulls.build();
        Ok(match self.slots {
            Slots::Text { ends, bytes } => {
                // Checks that the bytes are UTF-8 once more: cheaper than a doubt.
                Arc::new(StringArray::try_new(OffsetBuffer::new(ScalarBuffer::from(ends)), Buffer::from_vec(bytes), nulls)?)
            }
            Slots::Boolean(values) => Arc::new(BooleanArray::new(values.build(), nulls)),
            Slots::Int(values) => primitive::<Int32Type>(values, nulls, column_type)?,
            Slots::Long(values) => primitive::<Int64Type>(values, nulls, column_type)?,
            Slots::Float(values) => primitive::<Float32Type>(values, nulls, column_type)?,
            Slots::Double(values) => primitive::<Float64Type>(values, nulls, column_type)?,
            Slots::Decimal(values) => primitive::<Decimal128Type>(values, nulls, column_type)?,
            Slots::Date(values) => primitive::<Date32Type>(values, nulls, column_type)?,
            Slots::Timestamp(values) => primitive::<TimestampMicrosecondType>(values, nulls, column_type)?,
        })
    }
}

fn primitive<T: ArrowPrimitiveType>(
    values: Vec<T::Native>,
    nulls: Option<NullBuffer>,
    column_type: ColumnType,
) -> Result<ArrayRef, ArrowError> {
    let data_type: DataType = column_type.arrow();
    Ok(Arc::new(PrimitiveArray::<T>::try_new(values.into(), nulls)?.with_data_type(data_type)))
}

/// The text of a number; of a text that is one, if the column is lenient.
fn number_text<'v>(column: &Column, value: &'v Value<'_>) -> Result<&'v str, Cow<'static, str>> {
    match value {
        Value::Number(text) => Ok(text),
        Value::Text(text) if column.lenient && number::is_number(text.trim()) => Ok(text.trim()),
        _ => Err(unfit(column, value)),
    }
}

/// A date or instant by the first of the column's forms that matches.
fn timed<T>(column: &Column, value: &Value<'_>, read: impl Fn(&TimeFormat, &str) -> Option<T>) -> Result<T, Cow<'static, str>> {
    let mut formats = column.formats.iter();
    let found = match value {
        Value::Text(text) if column.lenient => formats.find_map(|format| read(format, text.trim())),
        Value::Text(text) => formats.filter(|format| !format.is_numeric()).find_map(|format| read(format, text)),
        Value::Number(text) => formats.filter(|format| format.is_numeric()).find_map(|format| read(format, text)),
        _ => None,
    };
    found.ok_or_else(|| {
        let formats: Vec<_> = column.formats.iter().map(TimeFormat::to_string).collect();
        let formats = formats.join(", ");
        match value {
            Value::Text(_) | Value::Number(_) => {
                format!("{} is no {} of the form {formats}", shown(value), column.column_type).into()
            }
            _ => unfit(column, value),
        }
    })
}

fn unfit(column: &Column, value: &Value<'_>) -> Cow<'static, str> {
    format!("is {} instead of {}", shown(value), column.column_type).into()
}

fn misfit(column: &Column, value: &Value<'_>, fault: NumberFault) -> Cow<'static, str> {
    let value = shown(value);
    match (fault, column.column_type) {
        (NumberFault::NotANumber, column_type) => format!("is {value} instead of {column_type}"),
        (NumberFault::ExcessDigits, ColumnType::Decimal { scale, .. }) => {
            format!("{value} has more than {scale} digits behind the point")
        }
        (NumberFault::ExcessDigits, _) => format!("{value} is not whole"),
        (NumberFault::OutOfRange, column_type) => format!("{value} is out of the range of {column_type}"),
    }
    .into()
}

/// A value in a sentence.
fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Boolean(boolean) => boolean.to_string(),
        Value::Number(text) => format!("number {}", excerpt(text)),
        Value::Text(text) => format!("text {:?}", excerpt(text)),
        Value::Composite(kind) => (*kind).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};

    use super::*;

    fn column(column_type: &str) -> Column {
        Column {
            name: "c".into(),
            field: "c".into(),
            column_type: column_type.parse().unwrap(),
            required: false,
            on_error: OnError::Reject,
            formats: vec![TimeFormat::Iso, TimeFormat::EpochMillis],
            scale_excess: ScaleExcess::Round,
            lenient: false,
        }
    }

    fn read(column: &Column, value: Value<'_>) -> Result<ArrayRef, String> {
        let mut columns = Columns::new(Arc::from([column.clone()]), 1);
        columns.set(0, value).map_err(|fault| fault.reason)?;
        columns.end_row().unwrap();
        Ok(columns.finish().unwrap().remove(0))
    }

    const TYPES: [&str; 9] = ["string", "int", "long", "float", "double", "boolean", "date", "timestamp", "decimal(4, 1)"];

    #[test]
    fn wrong_types_are_refused_and_named() {
        for (column_type, value, reason) in [
            ("string", Value::Number("5"), "is number 5 instead of string"),
            ("string", Value::Composite("an array"), "is an array instead of string"),
            ("int", Value::Text("5".into()), r#"is text "5" instead of int"#),
            ("int", Value::Number("2147483648"), "number 2147483648 is out of the range of int"),
            ("int", Value::Number("2.5"), "number 2.5 is not whole"),
            ("long", Value::Number("9223372036854775808"), "number 9223372036854775808 is out of the range of long"),
            ("float", Value::Number("1e39"), "number 1e39 is out of the range of float"),
            ("double", Value::Number("-1e999999999"), "number -1e999999999 is out of the range of double"),
            ("double", Value::Boolean(true), "is true instead of double"),
            ("boolean", Value::Number("1"), "is number 1 instead of boolean"),
            ("date", Value::Text("17-07-2023".into()), r#"text "17-07-2023" is no date of the form iso, epoch_ms"#),
            ("date", Value::Boolean(false), "is false instead of date"),
            (
                "timestamp",
                Value::Text("1689589230500".into()),
                r#"text "1689589230500" is no timestamp of the form iso, epoch_ms"#,
            ),
            ("decimal(4, 1)", Value::Number("1000"), "number 1000 is out of the range of decimal(4, 1)"),
        ] {
            assert_eq!(read(&column(column_type), value).unwrap_err(), reason);
        }
        let strict = Column { scale_excess: ScaleExcess::Reject, ..column("decimal(4, 1)") };
        assert_eq!(read(&strict, Value::Number("1.25")).unwrap_err(), "number 1.25 has more than 1 digits behind the point");
    }

    #[test]
    fn a_lenient_column_takes_what_is_meant_and_no_more() {
        let lenient = |column_type| Column { lenient: true, ..column(column_type) };
        let text = |text: &'static str| Value::Text(text.into());
        assert_eq!(read(&lenient("int"), text(" 5 ")).unwrap().as_primitive::<Int32Type>().value(0), 5);
        assert_eq!(read(&lenient("double"), text("1.5")).unwrap().as_primitive::<Float64Type>().value(0), 1.5);
        assert_eq!(read(&lenient("decimal(4, 1)"), text("1.25")).unwrap().as_primitive::<Decimal128Type>().value(0), 13);
        assert!(read(&lenient("boolean"), text("true")).unwrap().as_boolean().value(0));
        assert_eq!(read(&lenient("string"), Value::Number("1.50")).unwrap().as_string::<i32>().value(0), "1.50");
        assert_eq!(read(&lenient("timestamp"), text("5")).unwrap().as_primitive::<TimestampMicrosecondType>().value(0), 5000);
        for (column_type, value) in [("double", "inf"), ("double", "NaN"), ("int", "five"), ("int", ""), ("boolean", "yes")] {
            assert!(read(&lenient(column_type), text(value)).is_err(), "{value}");
        }
    }

    #[test]
    fn a_column_may_take_null_for_what_does_not_fit() {
        for column_type in TYPES {
            let column = Column { on_error: OnError::Null, ..column(column_type) };
            let array = read(&column, Value::Composite("an object")).unwrap();
            assert!(array.is_null(0) && array.len() == 1, "{column_type}");
            assert_eq!(*array.data_type(), column.column_type.arrow());
        }
    }

    #[test]
    fn a_row_rolled_back_leaves_nothing_behind() {
        let definitions: Arc<[Column]> = TYPES.map(column).into();
        let value = |column_type: &str| match column_type {
            "string" => Value::Text("text".into()),
            "boolean" => Value::Boolean(true),
            "date" => Value::Text("2024-01-01".into()),
            _ => Value::Number("7"),
        };
        let row = |columns: &mut Columns, some: &[usize]| {
            some.iter().for_each(|index| columns.set(*index, value(TYPES[*index])).unwrap());
        };
        let mut columns = Columns::new(definitions.clone(), 0);
        for reached in 0..=TYPES.len() {
            row(&mut columns, &(0..reached).collect::<Vec<_>>());
            columns.roll_back();
            row(&mut columns, &[0, reached.max(1)][..(1 + usize::from(reached < TYPES.len() && reached > 0))]);
            columns.end_row().unwrap();
        }
        let mut expected = Columns::new(definitions, 0);
        for reached in 0..=TYPES.len() {
            row(&mut expected, &[0, reached.max(1)][..(1 + usize::from(reached < TYPES.len() && reached > 0))]);
            expected.end_row().unwrap();
        }
        assert_eq!(format!("{:?}", columns.finish().unwrap()), format!("{:?}", expected.finish().unwrap()));
    }

    #[test]
    fn a_required_column_wants_a_value() {
        let required = Column { required: true, ..column("int") };
        let mut columns = Columns::new(Arc::from([required.clone()]), 1);
        assert_eq!(columns.end_row().unwrap_err(), Fault::field(Stage::Type, "c", "is missing but required"));
        assert_eq!(read(&required, Value::Null).unwrap_err(), "is null but required");
    }
}
