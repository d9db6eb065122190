//! A record as one line of JSON text, which engines read as a row, and back without a loss.
//!
//! Key, value and header values stand as text, with JSON's escapes. Bytes that are no UTF-8 stand in base64 instead, under a name of their
//! own (`value_base64`). A null is left out. Times are written as SQL writes them, in UTC; one outside of the years 1 to 9999, which a
//! producer may send and no engine reads, is kept in microseconds as `timestamp_us`.

use std::borrow::Cow;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
    StringBuilder, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::DataType;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Datelike, NaiveDateTime};
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::record::{
    HEADERS, INGESTED_AT, KEY, OFFSET, PARTITION, TIMESTAMP, TOPIC, VALUE, column, header_fields, headers_type, raw_schema,
};

/// Name and Hive type of the columns of a table of such lines, in order.
pub const COLUMNS: [(&str, &str); 10] = [
    (TOPIC, "string"),
    (PARTITION, "int"),
    (OFFSET, "bigint"),
    (TIMESTAMP, "timestamp"),
    (KEY, "string"),
    (VALUE, "string"),
    (HEADERS, "array<struct<key:string,value:string,value_base64:string>>"),
    (INGESTED_AT, "timestamp"),
    ("key_base64", "string"),
    ("value_base64", "string"),
];

/// Writes rows of a batch with the columns of [`raw_schema`].
pub fn encode(records: &RecordBatch, rows: impl IntoIterator<Item = usize>, out: &mut Vec<u8>) -> Result<()> {
    let topics: &StringArray = column(records, TOPIC)?;
    let (partitions, offsets) = (column::<Int32Array>(records, PARTITION)?, column::<Int64Array>(records, OFFSET)?);
    let timestamps: &TimestampMicrosecondArray = column(records, TIMESTAMP)?;
    let ingested: &TimestampMicrosecondArray = column(records, INGESTED_AT)?;
    let (keys, values) = (column::<BinaryArray>(records, KEY)?, column::<BinaryArray>(records, VALUE)?);
    let headers = Headers::of(records)?;
    for row in rows {
        out.extend_from_slice(b"{\"topic\":");
        text(out, topics.value(row))?;
        write!(out, ",\"partition\":{},\"offset\":{}", partitions.value(row), offsets.value(row))?;
        if timestamps.is_valid(row) {
            instant(out, TIMESTAMP, timestamps.value(row))?;
        }
        bytes(out, KEY, keys.is_valid(row).then(|| keys.value(row)))?;
        bytes(out, VALUE, values.is_valid(row).then(|| values.value(row)))?;
        headers.write(out, row)?;
        instant(out, INGESTED_AT, ingested.value(row))?;
        out.extend_from_slice(b"}\n");
    }
    Ok(())
}

fn text(out: &mut Vec<u8>, text: &str) -> Result<()> {
    serde_json::to_writer(out, text).map_err(|error| Error::failed("a text has no JSON form").caused_by(error))
}

fn bytes(out: &mut Vec<u8>, name: &str, value: Option<&[u8]>) -> Result<()> {
    let Some(value) = value else { return Ok(()) };
    match std::str::from_utf8(value) {
        Ok(value) => {
            write!(out, ",\"{name}\":")?;
            text(out, value)
        }
        Err(_) => Ok(write!(out, ",\"{name}_base64\":\"{}\"", STANDARD.encode(value))?),
    }
}

fn instant(out: &mut Vec<u8>, name: &str, micros: i64) -> Result<()> {
    match DateTime::from_timestamp_micros(micros).filter(|at| (1..=9999).contains(&at.year())) {
        Some(at) if micros % 1_000 == 0 => write!(out, ",\"{name}\":\"{}\"", at.format("%Y-%m-%d %H:%M:%S%.3f"))?,
        Some(at) => write!(out, ",\"{name}\":\"{}\"", at.format("%Y-%m-%d %H:%M:%S%.6f"))?,
        None => write!(out, ",\"{name}_us\":{micros}")?,
    }
    Ok(())
}

/// The headers column, taken apart.
struct Headers<'a> {
    lists: &'a ListArray,
    keys: &'a StringArray,
    values: &'a BinaryArray,
}

impl<'a> Headers<'a> {
    fn of(records: &'a RecordBatch) -> Result<Self> {
        let unexpected = || Error::failed("the headers of a batch have an unexpected type");
        let lists: &ListArray = column(records, HEADERS)?;
        let entries = lists.values().as_struct_opt().filter(|entries| entries.num_columns() == 2).ok_or_else(unexpected)?;
        let keys = entries.column(0).as_string_opt::<i32>().ok_or_else(unexpected)?;
        let values = entries.column(1).as_binary_opt::<i32>().ok_or_else(unexpected)?;
        Ok(Self { lists, keys, values })
    }

    fn write(&self, out: &mut Vec<u8>, row: usize) -> Result<()> {
        if self.lists.is_null(row) {
            return Ok(());
        }
        out.extend_from_slice(b",\"headers\":[");
        let range = self.lists.value_offsets()[row] as usize..self.lists.value_offsets()[row + 1] as usize;
        for entry in range.clone() {
            if entry > range.start {
                out.push(b',');
            }
            out.extend_from_slice(b"{\"key\":");
            text(out, self.keys.value(entry))?;
            bytes(out, VALUE, self.values.is_valid(entry).then(|| self.values.value(entry)))?;
            out.push(b'}');
        }
        out.push(b']');
        Ok(())
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    partition: i32,
    offset: i64,
    timestamp: Option<&'a str>,
    timestamp_us: Option<i64>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    key_base64: Option<&'a str>,
    #[serde(borrow)]
    value: Option<Cow<'a, str>>,
    value_base64: Option<&'a str>,
    #[serde(borrow)]
    headers: Option<Vec<Header<'a>>>,
    ingested_at: Option<&'a str>,
    ingested_at_us: Option<i64>,
}

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: Option<Cow<'a, str>>,
    value_base64: Option<&'a str>,
}

/// The records of a file, in batches of at most `rows_max` with the columns of [`raw_schema`]; those whose coordinates `keep` refuses are left
/// out.
pub fn decode(content: &[u8], rows_max: usize, keep: impl Fn(i32, i64) -> bool) -> Result<Vec<RecordBatch>> {
    let (mut batches, mut columns) = (Vec::new(), Columns::default());
    for (number, line) in content.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        let bad = |error: Error| error.context(format!("line {} is no record of bronze", number + 1));
        let line: Line<'_> =
            serde_json::from_slice(line).map_err(|error| bad(Error::stop("it is not the JSON expected").caused_by(error)))?;
        if keep(line.partition, line.offset) {
            columns.push(&line).map_err(bad)?;
        }
        if columns.offsets.len() >= rows_max {
            batches.push(std::mem::take(&mut columns).finish()?);
        }
    }
    if !columns.offsets.is_empty() {
        batches.push(columns.finish()?);
    }
    Ok(batches)
}

#[derive(Default)]
struct Columns {
    topics: StringBuilder,
    partitions: Vec<i32>,
    offsets: Vec<i64>,
    timestamps: Vec<Option<i64>>,
    keys: BinaryBuilder,
    values: BinaryBuilder,
    header_keys: StringBuilder,
    header_values: BinaryBuilder,
    header_counts: Vec<usize>,
    header_valid: Vec<bool>,
    ingested: Vec<i64>,
}

impl Columns {
    fn push(&mut self, line: &Line<'_>) -> Result<()> {
        self.topics.append_value(&line.topic);
        self.partitions.push(line.partition);
        self.offsets.push(line.offset);
        self.timestamps.push(micros(line.timestamp, line.timestamp_us)?);
        self.keys.append_option(raw(line.key.as_deref(), line.key_base64)?);
        self.values.append_option(raw(line.value.as_deref(), line.value_base64)?);
        for header in line.headers.iter().flatten() {
            self.header_keys.append_value(&header.key);
            self.header_values.append_option(raw(header.value.as_deref(), header.value_base64)?);
        }
        self.header_counts.push(line.headers.as_ref().map_or(0, Vec::len));
        self.header_valid.push(line.headers.is_some());
        let ingested = micros(line.ingested_at, line.ingested_at_us)?;
        self.ingested.push(ingested.ok_or_else(|| Error::stop(format!("{INGESTED_AT} is missing")))?);
        Ok(())
    }

    fn finish(mut self) -> Result<RecordBatch> {
        let entries: Vec<ArrayRef> = vec![Arc::new(self.header_keys.finish()), Arc::new(self.header_values.finish())];
        let entries = StructArray::try_new(header_fields(), entries, None)?;
        let DataType::List(element) = headers_type() else { return Err(Error::failed("headers are no list")) };
        let offsets = OffsetBuffer::from_lengths(self.header_counts);
        let headers = ListArray::try_new(element, offsets, Arc::new(entries), Some(NullBuffer::from(self.header_valid)))?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.topics.finish()),
            Arc::new(Int32Array::from(self.partitions)),
            Arc::new(Int64Array::from(self.offsets)),
            Arc::new(TimestampMicrosecondArray::from(self.timestamps)),
            Arc::new(self.keys.finish()),
            Arc::new(self.values.finish()),
            Arc::new(headers),
            Arc::new(TimestampMicrosecondArray::from(self.ingested)),
        ];
        Ok(RecordBatch::try_new(raw_schema(), columns)?)
    }
}

fn raw<'a>(text: Option<&'a str>, base64: Option<&str>) -> Result<Option<Cow<'a, [u8]>>> {
    match (text, base64) {
        (Some(text), _) => Ok(Some(Cow::Borrowed(text.as_bytes()))),
        (None, Some(base64)) => {
            let bytes = STANDARD.decode(base64);
            Ok(Some(Cow::Owned(bytes.map_err(|error| Error::stop(format!("{base64} is no base64")).caused_by(error))?)))
        }
        (None, None) => Ok(None),
    }
}

fn micros(text: Option<&str>, us: Option<i64>) -> Result<Option<i64>> {
    let Some(text) = text else { return Ok(us) };
    let parsed = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f");
    let parsed = parsed.map_err(|error| Error::stop(format!("{text} is no time")).caused_by(error))?;
    Ok(Some(parsed.and_utc().timestamp_micros()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A record as its columns: offset, timestamp, key, value, headers.
    type Sample = (i64, Option<i64>, Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<(String, Option<Vec<u8>>)>>);

    fn batch(samples: &[Sample]) -> RecordBatch {
        let mut columns = Columns::default();
        for (offset, timestamp, key, value, headers) in samples {
            columns.topics.append_value("sales");
            columns.partitions.push(3);
            columns.offsets.push(*offset);
            columns.timestamps.push(*timestamp);
            columns.keys.append_option(key.as_deref());
            columns.values.append_option(value.as_deref());
            for (key, value) in headers.iter().flatten() {
                columns.header_keys.append_value(key);
                columns.header_values.append_option(value.as_deref());
            }
            columns.header_counts.push(headers.as_ref().map_or(0, Vec::len));
            columns.header_valid.push(headers.is_some());
            columns.ingested.push(1_719_838_800_123_456);
        }
        columns.finish().unwrap()
    }

    fn lines(records: &RecordBatch) -> Vec<u8> {
        let mut out = Vec::new();
        encode(records, 0..records.num_rows(), &mut out).unwrap();
        out
    }

    #[test]
    fn a_line_shows_the_record_as_it_came() {
        let headers = Some(vec![("trace".to_string(), Some(b"1".to_vec())), ("raw".to_string(), Some(vec![0xff]))]);
        let records = batch(&[
            (7, Some(1_719_838_800_000_000), Some(b"k".to_vec()), Some(br#"{"Order ID": "Z\u00fc"}"#.to_vec()), headers),
            (8, None, None, Some(vec![0xff, 0x00]), None),
        ]);
        let expected = concat!(
            r#"{"topic":"sales","partition":3,"offset":7,"timestamp":"2024-07-01 13:00:00.000","key":"k","#,
            r#""value":"{\"Order ID\": \"Z\\u00fc\"}","headers":[{"key":"trace","value":"1"},{"key":"raw","value_base64":"/w=="}],"#,
            r#""ingested_at":"2024-07-01 13:00:00.123456"}"#,
            "\n",
            r#"{"topic":"sales","partition":3,"offset":8,"value_base64":"/wA=","ingested_at":"2024-07-01 13:00:00.123456"}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(lines(&records)).unwrap(), expected);
    }

    #[test]
    fn what_is_no_record_is_refused_with_its_line() {
        let records = batch(&[(7, None, None, None, None)]);
        for (bad, why) in [("{}", "topic"), ("nonsense", "JSON"), (r#"{"topic":"a","partition":1,"offset":2}"#, "ingested_at")] {
            let content = [lines(&records), bad.as_bytes().to_vec()].concat();
            let error = decode(&content, 10, |_, _| true).unwrap_err();
            assert!(error.chain().contains("line 2") && error.chain().contains(why), "{}", error.chain());
        }
    }

    #[test]
    fn batches_are_bounded_and_hold_what_was_asked_for() {
        let samples: Vec<Sample> = (0..10).map(|offset| (offset, None, None, None, None)).collect();
        let decoded = decode(&lines(&batch(&samples)), 3, |_, offset| offset >= 4).unwrap();
        assert_eq!(decoded.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [3, 3]);
    }

    fn bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
        prop_oneof![Just(None), any::<Vec<u8>>().prop_map(Some), any::<String>().prop_map(|text| Some(text.into_bytes()))]
    }

    proptest! {
        #[test]
        fn every_record_comes_back_as_it_was(samples in prop::collection::vec(
            (0i64..1 << 50, any::<Option<i64>>(), bytes(), bytes(), prop::option::of(prop::collection::vec((any::<String>(), bytes()), 0..3))),
            1..20,
        )) {
            let records = batch(&samples);
            let content = lines(&records);
            prop_assert_eq!(content.iter().filter(|byte| **byte == b'\n').count(), samples.len());
            let decoded = decode(&content, 1000, |_, _| true).unwrap();
            prop_assert_eq!(&decoded[0], &records);
        }
    }
}
