//! The messages to produce, one after the other.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{ProduceInput, ProduceOptions};
use crate::error::{Context, Error, Result};
use crate::source::file::{FileFormat, Records};
use crate::source::generator::{GeneratorSettings, Messages};
use crate::source::messages::RowToJson;

/// A longer record ends the run; Kafka would hardly take it.
const RECORD_BYTES_MAX: usize = 256 << 20;

/// What [`Input::next`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// [`Input::key`] and [`Input::value`] are those of the next message.
    Message,
    BadRow {
        line: u64,
        reason: String,
    },
    End,
}

enum Form {
    Csv { rows: RowToJson, key: Option<usize> },
    JsonLines { key: Option<String> },
}

enum Origin {
    /// Without a form while the header has not been read, and for an empty CSV file.
    Records {
        records: Records<Box<dyn Read + Send>>,
        form: Option<Form>,
        bytes_total: Option<u64>,
    },
    Generator {
        messages: Box<Messages>,
        next: u64,
        rows: u64,
    },
}

pub(super) struct Input {
    name: String,
    origin: Origin,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    timestamp_ms: Option<i64>,
}

impl Input {
    pub fn open(options: &ProduceOptions) -> Result<Self> {
        let (name, origin) = match &options.input {
            ProduceInput::File { path, format } => {
                let format = format.map_or_else(|| FileFormat::from_path(path), Ok)?;
                let (file, bytes) = open_file(path)?;
                (path.display().to_string(), records(Box::new(file), format, Some(bytes), options)?)
            }
            ProduceInput::StandardInput { format } => {
                ("standard input".to_owned(), records(Box::new(std::io::stdin()), *format, None, options)?)
            }
            ProduceInput::Generator(settings) => ("the generator".to_owned(), generator(settings)?),
        };
        Ok(Self { name, origin, key: None, value: None, timestamp_ms: None })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    pub fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    /// A time that belongs to the message; without one the time of sending counts.
    pub fn timestamp_ms(&self) -> Option<i64> {
        self.timestamp_ms
    }

    /// Bytes read, bytes in all, messages in all, as far as they are known.
    pub fn extent(&self) -> (u64, Option<u64>, Option<u64>) {
        match &self.origin {
            Origin::Records { records, bytes_total, .. } => (records.bytes_read(), *bytes_total, None),
            Origin::Generator { rows, .. } => (0, None, Some(*rows)),
        }
    }

    /// Goes on to the next message.
    pub fn next(&mut self) -> Result<Next> {
        match &mut self.origin {
            Origin::Generator { messages, next, rows } => {
                if next >= rows {
                    return Ok(Next::End);
                }
                let message = messages.message(*next);
                set(&mut self.key, Some(message.key));
                set(&mut self.value, message.value);
                self.timestamp_ms = Some(message.timestamp_us / 1_000);
                *next += 1;
                Ok(Next::Message)
            }
            Origin::Records { form: None, .. } => Ok(Next::End),
            Origin::Records { records, form: Some(form), .. } => {
                let Some(record) = records.next_record().with_context(|| format!("{} can't be read", self.name))? else {
                    return Ok(Next::End);
                };
                match form {
                    Form::JsonLines { key } => {
                        set(&mut self.value, Some(record.bytes));
                        self.key = key.as_ref().and_then(|name| json_field(record.bytes, name));
                    }
                    Form::Csv { rows, key } => {
                        let message = self.value.get_or_insert_default();
                        message.clear();
                        if let Err(reason) = rows.convert(record.bytes, message) {
                            return Ok(Next::BadRow { line: record.line, reason: reason.to_string() });
                        }
                        set(&mut self.key, key.and_then(|column| rows.cell(column)));
                    }
                }
                Ok(Next::Message)
            }
        }
    }
}

fn open_file(path: &Path) -> Result<(File, u64)> {
    let opened = File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata.len())));
    opened.map_err(|error| Error::failed(format!("file {} can't be opened", path.display())).caused_by(error))
}

fn records(
    input: Box<dyn Read + Send>,
    format: FileFormat,
    bytes_total: Option<u64>,
    options: &ProduceOptions,
) -> Result<Origin> {
    let mut records = Records::new(input, format, RECORD_BYTES_MAX);
    let form = match format {
        FileFormat::JsonLines => Some(Form::JsonLines { key: options.key_column.clone() }),
        FileFormat::Csv => match records.next_record()? {
            None => None,
            Some(header) => {
                let header = header.bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(header.bytes);
                let rows = RowToJson::new(header, &options.numeric_columns)?;
                let key = options.key_column.as_deref().map(|name| rows.column(name)).transpose()?;
                Some(Form::Csv { rows, key })
            }
        },
    };
    Ok(Origin::Records { records, form, bytes_total })
}

fn generator(settings: &GeneratorSettings) -> Result<Origin> {
    settings.validate()?;
    Ok(Origin::Generator { messages: Box::new(Messages::new(settings)), next: 0, rows: settings.rows })
}

/// Reuses the buffer that is there.
fn set(target: &mut Option<Vec<u8>>, bytes: Option<&[u8]>) {
    match bytes {
        None => *target = None,
        Some(bytes) => {
            let buffer = target.get_or_insert_default();
            buffer.clear();
            buffer.extend_from_slice(bytes);
        }
    }
}

/// The text of a field of a JSON object; none if the line is no object or lacks the field.
fn json_field(line: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(line).ok()?;
    match object.remove(name)? {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text.into_bytes()),
        other => Some(other.to_string().into_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::KafkaSettings;

    fn options(name: &str, text: &[u8], key: &str) -> (tempfile::TempDir, ProduceOptions) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let input = ProduceInput::File { path, format: None };
        (dir, ProduceOptions { key_column: Some(key.to_owned()), ..ProduceOptions::new(KafkaSettings::default(), "t", input) })
    }

    fn all(options: &ProduceOptions) -> Vec<(Next, Option<String>, Option<String>)> {
        let mut input = Input::open(options).unwrap();
        let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let mut found = Vec::new();
        loop {
            match input.next().unwrap() {
                Next::End => return found,
                Next::Message => found.push((Next::Message, text(input.key()), text(input.value()))),
                bad => found.push((bad, None, None)),
            }
        }
    }

    #[test]
    fn csv_rows_carry_their_key_and_bad_rows_their_line() {
        let (_dir, options) = options("a.csv", b"id,Tax\n1,0.50\n2,free\n3,1\n", "id");
        let options = ProduceOptions { numeric_columns: vec!["Tax".to_owned()], ..options };
        let bad = Next::BadRow { line: 3, reason: "column Tax holds `free`, which is not a number".to_owned() };
        assert_eq!(
            all(&options),
            [
                (Next::Message, Some("1".to_owned()), Some(r#"{"id":"1","Tax":0.50}"#.to_owned())),
                (bad, None, None),
                (Next::Message, Some("3".to_owned()), Some(r#"{"id":"3","Tax":1}"#.to_owned())),
            ]
        );
    }

    #[test]
    fn json_lines_pass_as_they_are() {
        let (_dir, options) = options("a.jsonl", b"{\"id\": 7 }\nbroken{\n\n", "id");
        let found: Vec<_> = all(&options).into_iter().map(|(_, key, value)| (key, value.unwrap())).collect();
        assert_eq!(
            found,
            [(Some("7".to_owned()), "{\"id\": 7 }".to_owned()), (None, "broken{".to_owned()), (None, String::new())]
        );
    }

    #[test]
    fn a_key_column_that_is_not_there_is_said_before_anything_is_sent() {
        let (_dir, options) = options("a.csv", b"id,Tax\n1,0\n", "name");
        assert_eq!(Input::open(&options).err().unwrap().kind(), crate::Kind::Config);
    }
}
