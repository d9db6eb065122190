//! Rows as text: CSV, JSON lines, and the cells of a table for people. Everything streams; nothing holds more than one batch.
//!
//! Bytes (Kafka's keys, values and header values) are shown as the text they are where they are UTF-8, else as `\x` and hexadecimal
//! digits. Instants are in UTC.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, ListArray, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::Answer;
use crate::error::{Context, Error, Result};

/// Writes an answer as CSV with a header line; returns the number of rows. Null is an empty field.
pub async fn write_csv(mut answer: Answer, out: &mut (dyn Write + Send)) -> Result<u64> {
    let mut rows = 0;
    let mut writer = csv::WriterBuilder::new().buffer_capacity(1 << 16).from_writer(out);
    writer.write_record(answer.schema.fields().iter().map(|field| field.name())).map_err(output_error)?;
    while let Some(batch) = answer.next().await {
        for row in cells(&batch?)? {
            writer.write_record(row.iter().map(|cell| cell.as_deref().unwrap_or_default())).map_err(output_error)?;
            rows += 1;
        }
        writer.flush()?;
    }
    Ok(rows)
}

/// Writes an answer as one JSON object per line, with its nulls; returns the number of rows.
pub async fn write_json(mut answer: Answer, out: &mut (dyn Write + Send)) -> Result<u64> {
    let mut rows = 0;
    while let Some(batch) = answer.next().await {
        let batch = batch?;
        out.write_all(json_lines(&batch)?.as_bytes())?;
        out.flush()?;
        rows += batch.num_rows() as u64;
    }
    Ok(rows)
}

/// A batch as one JSON object per line, with its nulls.
pub fn json_lines(batch: &RecordBatch) -> Result<String> {
    let mut lines = Vec::with_capacity(1 << 16);
    let mut writer =
        arrow::json::WriterBuilder::new().with_explicit_nulls(true).build::<_, arrow::json::writer::LineDelimited>(&mut lines);
    writer.write(&readable(batch)?)?;
    writer.finish()?;
    drop(writer);
    String::from_utf8(lines).map_err(|error| Error::failed("rows are not text").caused_by(error))
}

fn output_error(error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error.into(),
        other => Error::failed(format!("rows could not be written: {other:?}")),
    }
}

/// Every cell of a batch as text, row by row; none is null.
pub fn cells(batch: &RecordBatch) -> Result<Vec<Vec<Option<String>>>> {
    let batch = readable(batch)?;
    let options = FormatOptions::default()
        .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
        .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f%:z"));
    let columns: Vec<_> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options)).collect::<Result<_, _>>()?;
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let mut cells = Vec::with_capacity(columns.len());
        for (array, formatter) in batch.columns().iter().zip(&columns) {
            cells.push(match array.is_null(row) || *array.data_type() == DataType::Null {
                true => None,
                false => Some(formatter.value(row).try_to_string().context("a value could not be shown")?),
            });
        }
        rows.push(cells);
    }
    Ok(rows)
}

/// The same batch with bytes turned into text, also inside lists and structs.
fn readable(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns: Vec<ArrayRef> = batch.columns().iter().map(readable_column).collect();
    let fields: Vec<Field> = batch
        .schema()
        .fields()
        .iter()
        .zip(&columns)
        .map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true))
        .collect();
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

fn readable_column(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            match arrow::compute::cast(column, &DataType::Binary) {
                Ok(bytes) => Arc::new(texts(bytes.as_binary())),
                Err(_) => column.clone(),
            }
        }
        DataType::List(element) => {
            let list: &ListArray = column.as_list();
            let values = readable_column(list.values());
            let element = Arc::new(Field::new(element.name(), values.data_type().clone(), true));
            match ListArray::try_new(element, list.offsets().clone(), values, list.nulls().cloned()) {
                Ok(list) => Arc::new(list),
                Err(_) => column.clone(),
            }
        }
        DataType::Struct(fields) => {
            let structs = column.as_struct();
            let columns: Vec<_> = structs.columns().iter().map(readable_column).collect();
            let fields =
                fields.iter().zip(&columns).map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true));
            match StructArray::try_new(fields.collect(), columns, structs.nulls().cloned()) {
                Ok(structs) => Arc::new(structs),
                Err(_) => column.clone(),
            }
        }
        _ => column.clone(),
    }
}

fn texts(bytes: &BinaryArray) -> StringArray {
    let text = |value: &[u8]| match std::str::from_utf8(value) {
        Ok(text) => text.to_string(),
        Err(_) => value.iter().fold(String::from("\\x"), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        }),
    };
    bytes.iter().map(|value| value.map(text)).collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Int64Array, TimestampMicrosecondArray};
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

    use super::*;

    fn answer() -> Answer {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("n", Arc::new(Int64Array::from(vec![Some(1), None]))),
            ("value", Arc::new(BinaryArray::from(vec![b"{\"a\":1}".as_slice(), b"\xff\x00"]))),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![1_719_838_800_000_000, 1_719_838_800_123_456]))),
            ("amount", Arc::new(Decimal128Array::from(vec![12345, -5]).with_precision_and_scale(18, 2).unwrap())),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let schema = batch.schema();
        Answer::new(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter([Ok(batch)]))), None)
    }

    #[tokio::test]
    async fn csv_has_a_header_and_empty_fields_for_null() {
        let mut text = Vec::new();
        assert_eq!(write_csv(answer(), &mut text).await.unwrap(), 2);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "n,value,at,amount\n1,\"{\"\"a\"\":1}\",2024-07-01 13:00:00,123.45\n,\\xff00,2024-07-01 13:00:00.123456,-0.05\n"
        );
    }

    #[tokio::test]
    async fn json_lines_keep_nulls() {
        let mut text = Vec::new();
        assert_eq!(write_json(answer(), &mut text).await.unwrap(), 2);
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["value"], "{\"a\":1}");
        assert_eq!(lines[1]["n"], serde_json::Value::Null);
        assert_eq!(lines[1]["value"], "\\xff00");
        assert_eq!(lines[1]["at"], "2024-07-01T13:00:00.123456");
        assert!(text.contains("123.45"), "{text}");
    }
}
