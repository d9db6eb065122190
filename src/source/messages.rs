//! Turns a CSV row into the JSON message that carries it.
//!
//! One object per row, keys in the order of the header. A cell of a numeric column becomes a JSON number with exactly the digits of the
//! file (`269.8`, never `269.80000000000001`); an empty one becomes `null`; every other cell becomes a string. A row that can't be
//! carried that way is refused as a whole, with the reason.

use memchr::{memchr, memchr2};

use crate::error::{Error, Result};

/// Why a CSV row is not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRow {
    #[error("it holds {found} fields, the header names {expected}")]
    FieldCount { found: usize, expected: usize },
    #[error("column {column} holds `{text}`, which is not a number")]
    NotANumber { column: String, text: String },
    #[error("column {column} is not valid UTF-8")]
    NotUtf8 { column: String },
}

/// The cells of one CSV record, without quotes. Reused from record to record.
#[derive(Debug, Default)]
pub struct Cells {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Cells {
    /// Takes a record apart: a cell that begins with a quote ends at the next single quote, two quotes stand for one; quotes elsewhere
    /// are ordinary characters. The record comes without its line end.
    pub fn parse(&mut self, record: &[u8]) {
        self.bytes.clear();
        self.ends.clear();
        let mut rest = record;
        loop {
            if let Some(quoted) = rest.strip_prefix(b"\"") {
                rest = self.quoted(quoted);
            }
            let end = memchr(b',', rest).unwrap_or(rest.len());
            self.bytes.extend_from_slice(&rest[..end]);
            self.ends.push(self.bytes.len());
            if end == rest.len() {
                return;
            }
            rest = &rest[end + 1..];
        }
    }

    /// Copies a quoted text and returns what follows its closing quote.
    fn quoted<'a>(&mut self, mut rest: &'a [u8]) -> &'a [u8] {
        loop {
            let Some(end) = memchr(b'"', rest) else {
                self.bytes.extend_from_slice(rest);
                return &[];
            };
            self.bytes.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix(b"\"") {
                Some(after) => {
                    self.bytes.push(b'"');
                    rest = after;
                }
                None => return rest,
            }
        }
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn cell(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Some(&self.bytes[start..end])
    }
}

/// Where a CSV record ends, found piece by piece as the file is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CsvScan {
    #[default]
    CellStart,
    Plain,
    Quoted,
    /// Behind a quote inside a quoted cell: its end, or the first of two.
    Quote,
}

impl CsvScan {
    /// Continues over `bytes`; the position of the line feed that ends the record, if it is there.
    pub fn record_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            match self {
                Self::CellStart if bytes[at] == b'"' => {
                    *self = Self::Quoted;
                    at += 1;
                }
                Self::Quote if bytes[at] == b'"' => {
                    *self = Self::Quoted;
                    at += 1;
                }
                Self::CellStart | Self::Quote | Self::Plain => match memchr2(b',', b'\n', &bytes[at..]) {
                    Some(found) if bytes[at + found] == b'\n' => {
                        *self = Self::CellStart;
                        return Some(at + found);
                    }
                    Some(found) => {
                        *self = Self::CellStart;
                        at += found + 1;
                    }
                    None => {
                        *self = Self::Plain;
                        return None;
                    }
                },
                Self::Quoted => {
                    at += memchr(b'"', &bytes[at..])? + 1;
                    *self = Self::Quote;
                }
            }
        }
        None
    }
}

#[derive(Debug)]
struct Column {
    name: String,
    /// `"name":` as it stands in a message.
    json_key: Vec<u8>,
    numeric: bool,
}

/// Converts the rows below one header.
#[derive(Debug)]
pub struct RowToJson {
    columns: Vec<Column>,
    cells: Cells,
}

impl RowToJson {
    /// Reads a header record. Names must be unique: a JSON object with a key twice would be refused later, row by row.
    pub fn new(header: &[u8], numeric_columns: &[String]) -> Result<Self> {
        let mut cells = Cells::default();
        cells.parse(header);
        let mut columns: Vec<Column> = Vec::with_capacity(cells.len());
        for index in 0..cells.len() {
            let cell = cells.cell(index).unwrap_or_default();
            let name = std::str::from_utf8(cell)
                .map_err(|_| Error::failed(format!("column {} of the CSV header is not valid UTF-8", index + 1)))?;
            if columns.iter().any(|column| column.name == name) {
                return Err(Error::failed(format!("the CSV header names column `{name}` twice")));
            }
            let mut json_key = json_string(name);
            json_key.push(b':');
            columns.push(Column {
                name: name.to_owned(),
                json_key,
                numeric: numeric_columns.iter().any(|numeric| numeric == name),
            });
        }
        Ok(Self { columns, cells })
    }

    /// The position of a column by its name.
    pub fn column(&self, name: &str) -> Result<usize> {
        self.columns.iter().position(|column| column.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
            Error::config(format!("the CSV header has no column `{name}`")).hint(format!("columns are {}", names.join(", ")))
        })
    }

    /// Appends the message of a record to `message`; on an error nothing is appended.
    pub fn convert(&mut self, record: &[u8], message: &mut Vec<u8>) -> Result<(), BadRow> {
        let begin = message.len();
        let result = self.append(record, message);
        if result.is_err() {
            message.truncate(begin);
        }
        result
    }

    fn append(&mut self, record: &[u8], message: &mut Vec<u8>) -> Result<(), BadRow> {
        self.cells.parse(record);
        if self.cells.len() != self.columns.len() {
            return Err(BadRow::FieldCount { found: self.cells.len(), expected: self.columns.len() });
        }
        message.push(b'{');
        for (index, column) in self.columns.iter().enumerate() {
            if index > 0 {
                message.push(b',');
            }
            message.extend_from_slice(&column.json_key);
            let cell = self.cells.cell(index).unwrap_or_default();
            let text = std::str::from_utf8(cell).map_err(|_| BadRow::NotUtf8 { column: column.name.clone() })?;
            match (column.numeric, text.is_empty()) {
                (true, true) => message.extend_from_slice(b"null"),
                (true, false) if is_json_number(cell) => message.extend_from_slice(cell),
                (true, false) => {
                    let text = text.chars().take(60).collect();
                    return Err(BadRow::NotANumber { column: column.name.clone(), text });
                }
                (false, _) => append_json_string(text, message),
            }
        }
        message.push(b'}');
        Ok(())
    }

    /// A cell of the record converted last.
    pub fn cell(&self, index: usize) -> Option<&[u8]> {
        self.cells.cell(index)
    }
}

fn json_string(text: &str) -> Vec<u8> {
    let mut json = Vec::with_capacity(text.len() + 2);
    append_json_string(text, &mut json);
    json
}

/// Appends a text as a JSON string.
pub fn append_json_string(text: &str, json: &mut Vec<u8>) {
    json.push(b'"');
    for &byte in text.as_bytes() {
        match byte {
            b'"' | b'\\' => json.extend_from_slice(&[b'\\', byte]),
            b'\n' => json.extend_from_slice(b"\\n"),
            b'\r' => json.extend_from_slice(b"\\r"),
            b'\t' => json.extend_from_slice(b"\\t"),
            0..0x20 => json.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => json.push(byte),
        }
    }
    json.push(b'"');
}

/// Whether a text is a number by the grammar of JSON (RFC 8259, section 6): no leading zeros or plus sign, no bare point.
pub fn is_json_number(text: &[u8]) -> bool {
    fn digits(text: &[u8]) -> (usize, &[u8]) {
        let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (count, &text[count..])
    }
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    let (count, mut rest) = digits(unsigned);
    if count == 0 || (count > 1 && unsigned[0] == b'0') {
        return false;
    }
    if let Some(fraction) = rest.strip_prefix(b".") {
        let (count, after) = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = after;
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
        let (count, after) = digits(exponent);
        return count > 0 && after.is_empty();
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {

    use proptest::prelude::*;

    use super::*;

    const NUMERIC: [&str; 6] = ["Quantity", "UnitPrice", "Discount", "Tax", "ShippingCost", "TotalAmount"];

    fn converter(header: &str) -> RowToJson {
        RowToJson::new(header.as_bytes(), &NUMERIC.map(str::to_owned)).unwrap()
    }

    fn message(converter: &mut RowToJson, row: &[u8]) -> Result<String, BadRow> {
        let mut message = Vec::new();
        converter.convert(row, &mut message).map(|()| String::from_utf8(message).unwrap())
    }

    #[test]
    fn numbers_keep_their_digits_and_the_rest_are_strings() {
        let mut converter = converter("OrderID,Quantity,UnitPrice,ProductName");
        let json = message(&mut converter, br#"0001,3,269.80,"Mug, ""Big"" & blue""#).unwrap();
        assert_eq!(json, r#"{"OrderID":"0001","Quantity":3,"UnitPrice":269.80,"ProductName":"Mug, \"Big\" & blue"}"#);
        assert_eq!(
            message(&mut converter, b"1,,0,").unwrap(),
            r#"{"OrderID":"1","Quantity":null,"UnitPrice":0,"ProductName":""}"#
        );
    }

    #[test]
    fn a_row_that_is_no_message_says_why() {
        let mut converter = converter("OrderID,Quantity");
        for (row, reason) in [
            (&b"1"[..], "it holds 1 fields, the header names 2"),
            (b"1,2,3", "it holds 3 fields, the header names 2"),
            (b"1,two", "column Quantity holds `two`, which is not a number"),
            (b"1,007", "column Quantity holds `007`, which is not a number"),
            (b"\xff,1", "column OrderID is not valid UTF-8"),
        ] {
            assert_eq!(message(&mut converter, row).unwrap_err().to_string(), reason);
        }
    }

    #[test]
    fn a_header_with_a_name_twice_is_refused() {
        assert!(RowToJson::new(b"a,b,a", &[]).unwrap_err().to_string().contains("`a` twice"));
    }

    #[test]
    fn json_numbers_are_told_from_other_texts() {
        for good in ["0", "-0", "5", "5.0", "0.05", "10e3", "1E-7", "-12.50e+1"] {
            assert!(is_json_number(good.as_bytes()), "{good}");
        }
        for bad in ["", "-", "+1", "01", ".5", "5.", "1e", "1e+", "1,5", " 1", "NaN", "Infinity", "0x1", "1.2.3"] {
            assert!(!is_json_number(bad.as_bytes()), "{bad}");
        }
    }

    /// The real file's rows, where the workspace has them: 20 keys in order, and numbers that equal their cells digit by digit.
    #[test]
    fn the_real_sample_becomes_messages_of_twenty_keys() {
        let path = crate::repository().join("../shared/data/amazon_sales_sample.csv");
        let Ok(text) = std::fs::read_to_string(path) else { return };
        let mut lines = text.lines();
        let header = lines.next().unwrap();
        let mut converter = converter(header);
        for line in lines {
            let json = message(&mut converter, line.as_bytes()).unwrap();
            let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&json).unwrap();
            assert_eq!(object.keys().map(String::as_str).collect::<Vec<_>>(), header.split(',').collect::<Vec<_>>());
            for (name, cell) in header.split(',').zip(line.split(',')) {
                let written =
                    if NUMERIC.contains(&name) { format!("\"{name}\":{cell}") } else { format!("\"{name}\":\"{cell}\"") };
                assert!(json.contains(&written), "{written} in {json}");
            }
        }
    }

    proptest! {
        #[test]
        fn cells_come_out_as_the_csv_crate_wrote_them(cells in prop::collection::vec("[ab,\"\r\n' é]{0,8}", 2..6)) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(&cells).unwrap();
            let record = writer.into_inner().unwrap();
            let mut scan = CsvScan::default();
            prop_assert_eq!(scan.record_end(&record), Some(record.len() - 1));
            let mut parsed = Cells::default();
            parsed.parse(&record[..record.len() - 1]);
            let read: Vec<&[u8]> = (0..parsed.len()).filter_map(|index| parsed.cell(index)).collect();
            prop_assert_eq!(read, cells.iter().map(String::as_bytes).collect::<Vec<_>>());
        }

        #[test]
        fn a_record_end_is_found_wherever_the_reads_split(cells in prop::collection::vec("[ab,\"\n]{0,6}", 2..5), split in 0usize..40) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(&cells).unwrap();
            let record = writer.into_inner().unwrap();
            let split = split.min(record.len());
            let mut scan = CsvScan::default();
            let end = scan.record_end(&record[..split]).or_else(|| scan.record_end(&record[split..]).map(|end| end + split));
            prop_assert_eq!(end, Some(record.len() - 1));
        }

        #[test]
        fn strings_survive_json(text in ".{0,40}") {
            prop_assert_eq!(serde_json::from_slice::<String>(&json_string(&text)).unwrap(), text);
        }
    }
}
