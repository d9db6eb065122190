//! Messages that are one JSON object each.
//!
//! Most messages are flat and plain, and read by [`flat_json`]; this is the parser for all of them, and the one that says what is wrong.
//! Every value is taken as its own text first: numbers keep their digits, a wrong type is seen before anything is converted, and what no
//! column reads is skipped without being built.
//!
//! *Failure*: anything but one well-formed object is a fault with the byte where it went wrong: text that is not UTF-8, a byte order mark,
//! a message cut short, something behind the object, a key twice, nesting beyond the limit. Depth is counted in a loop, never by
//! recursion, so no message can exhaust the stack.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer as _, Error as _, MapAccess, Visitor};
use serde_json::Deserializer;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::columns::Columns;
use super::decoder::{Decoder, Fault, Layout, Value, excerpt};
use super::flat_json;
use super::keys::{Key, Keys};

/// A decoder of JSON objects.
pub fn decoder(layout: Layout<'_>) -> Box<dyn Decoder> {
    Box::new(JsonDecoder { keys: Keys::new(layout), max_depth: layout.max_depth })
}

struct JsonDecoder {
    keys: Keys,
    max_depth: usize,
}

impl Decoder for JsonDecoder {
    fn decode(&mut self, message: &[u8], row: &mut Columns) -> Result<(), Fault> {
        let text = std::str::from_utf8(message)
            .map_err(|error| Fault::message(format!("is not valid UTF-8 at byte {}", error.valid_up_to())))?;
        self.keys.begin_message();
        if flat_json::read(text, &mut self.keys, row).is_some() {
            return Ok(());
        }
        row.roll_back();
        self.decode_any(text, row)
    }

    fn unread(&self) -> Vec<String> {
        self.keys.unread().map(str::to_owned).collect()
    }
}

impl JsonDecoder {
    /// Reads any message, and says what is wrong with it.
    fn decode_any(&mut self, text: &str, row: &mut Columns) -> Result<(), Fault> {
        is_object(text)?;
        self.keys.begin_message();
        let mut fault = None;
        let mut json = Deserializer::from_str(text);
        let object = Object { keys: &mut self.keys, max_depth: self.max_depth, row, fault: &mut fault };
        let outcome = (&mut json).deserialize_map(object).and_then(|()| json.end());
        match (fault, outcome) {
            (Some(fault), _) => Err(fault),
            (None, Err(error)) => Err(syntax(text, &error)),
            (None, Ok(())) => Ok(()),
        }
    }
}

/// Whether the first character begins an object; if not, what there is instead.
fn is_object(text: &str) -> Result<(), Fault> {
    let found = match text.trim_ascii_start().as_bytes().first() {
        Some(b'{') => return Ok(()),
        None => "nothing but white space",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        Some(b'-' | b'0'..=b'9') => "a number",
        _ if text.starts_with('\u{feff}') => return Err(Fault::message("begins with a byte order mark")),
        _ => "something that is not JSON",
    };
    Err(Fault::message(format!("is {found} instead of a JSON object")))
}

/// A syntax error with its position in bytes, which for a message says more than line and column.
fn syntax(text: &str, error: &serde_json::Error) -> Fault {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    let line: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let byte = line + error.column().saturating_sub(1);
    Fault::message(match error.classify() {
        Category::Eof => format!("is cut short after {} bytes: {message}", text.len()),
        Category::Io | Category::Syntax | Category::Data => format!("is not valid JSON at byte {byte}: {message}"),
    })
}

/// Reads the fields of one object into a row. A fault is left in `fault`, since serde's errors carry text only.
struct Object<'a> {
    keys: &'a mut Keys,
    max_depth: usize,
    row: &'a mut Columns,
    fault: &'a mut Option<Fault>,
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(KeySeed(self.keys))? {
            let outcome = match key {
                Key::Refused(fault) => Err(fault),
                Key::Column(index) => {
                    let value: &'de RawValue = map.next_value()?;
                    value_of(value.get(), self.max_depth).and_then(|value| self.row.set(index, value))
                }
                Key::Ignored => {
                    let value: &'de RawValue = map.next_value()?;
                    check_depth(value.get(), self.max_depth)
                }
                Key::Kept(name) => {
                    let value: &'de RawValue = map.next_value()?;
                    value_of(value.get(), self.max_depth).map(|found| match found {
                        Value::Null => self.row.keep(&name, None),
                        Value::Text(text) => self.row.keep(&name, Some(&text)),
                        _ => self.row.keep(&name, Some(value.get())),
                    })
                }
            };
            if let Err(fault) = outcome {
                *self.fault = Some(fault);
                return Err(A::Error::custom("rejected"));
            }
        }
        Ok(())
    }
}

/// The value of a well-formed JSON text.
fn value_of(text: &str, max_depth: usize) -> Result<Value<'_>, Fault> {
    Ok(match text.as_bytes() {
        [b'"', inside @ .., b'"'] => Value::Text(match memchr::memchr(b'\\', inside) {
            None => Cow::Borrowed(&text[1..text.len() - 1]),
            Some(_) => Cow::Owned(serde_json::from_str(text).map_err(|error| {
                let message = error.to_string();
                let message = message.split(" at line ").next().unwrap_or_default();
                Fault::message(format!("has a text with a bad escape, {}: {message}", excerpt(text)))
            })?),
        }),
        [b'{', ..] => check_depth(text, max_depth).map(|()| Value::Composite("an object"))?,
        [b'[', ..] => check_depth(text, max_depth).map(|()| Value::Composite("an array"))?,
        b"true" => Value::Boolean(true),
        b"false" => Value::Boolean(false),
        b"null" => Value::Null,
        _ => Value::Number(text),
    })
}

/// Whether a value within the message's object stays within the limit of nesting.
fn check_depth(text: &str, max_depth: usize) -> Result<(), Fault> {
    // The parser went through this text without recursion; a short one cannot be too deep.
    let mut bytes = text.as_bytes();
    if !matches!(bytes.first(), Some(b'{' | b'[')) || bytes.len() < 2 * max_depth {
        return Ok(());
    }
    let mut depth = 1;
    while let Some((byte, rest)) = bytes.split_first() {
        bytes = rest;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => bytes = behind_string(bytes),
            _ => {}
        }
        if depth > max_depth {
            return Err(Fault::message(format!("is nested deeper than {max_depth} levels")));
        }
    }
    Ok(())
}

/// What follows the end of a string whose opening quote has been read.
fn behind_string(mut bytes: &[u8]) -> &[u8] {
    while let Some(at) = memchr::memchr2(b'"', b'\\', bytes) {
        if bytes[at] == b'"' {
            return &bytes[at + 1..];
        }
        bytes = bytes.get(at + 2..).unwrap_or_default();
    }
    &[]
}

/// Looks a key up while it still lies in the message, so that no key is copied.
struct KeySeed<'a>(&'a mut Keys);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, name: &str) -> Result<Key, E> {
        Ok(self.0.resolve(name))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::columns::Column;
    use super::super::settings::{OnError, UnknownFields};
    use super::super::types::ColumnType;
    use super::*;

    #[test]
    fn depth_is_counted_outside_of_texts_only() {
        let limited = |text: &str| check_depth(text, 3).is_ok();
        assert!(limited("[[     ]]"));
        assert!(!limited("[[[   ]]]"));
        assert!(!limited(r#"[["]]", {}]]"#), "an object counts like an array");
        assert!(limited(r#"["[[[[[[", "\"[[[[", "\\", {}, [], "]"]"#));
    }

    /// Parts of messages, well-formed and not, that the quick parser has to take, or leave to the other.
    fn part() -> impl Strategy<Value = String> {
        let known = [
            "{",
            "}",
            ",",
            ":",
            "\"a\"",
            "\"b\"",
            "\"other\"",
            " ",
            "\n",
            "\t",
            "\u{b}",
            "null",
            "true",
            "false",
            "nul",
            "[",
            "]",
            "0",
            "-",
            "1.5",
            "01",
            "-0",
            "1.",
            ".5",
            "1e3",
            "1E+2",
            "1e",
            "\"\"",
            "\"text\"",
            "\"é€😀\"",
            "\"es\\\"caped\"",
            "\"\\u0061\"",
            "\"a\u{1}b\"",
            "\"",
        ];
        prop::sample::select(known.map(str::to_owned).to_vec())
    }

    fn message() -> impl Strategy<Value = String> {
        let key = prop::sample::select(vec!["a", "b", "other", "é", "c\\n"]);
        let field = (key, part()).prop_map(|(key, value)| format!("\"{key}\": {value}"));
        let object = prop::collection::vec(field, 0..5).prop_map(|fields| format!("{{{}}}", fields.join(", ")));
        prop_oneof![3 => object, 1 => prop::collection::vec(part(), 0..12).prop_map(|parts| parts.concat())]
    }

    proptest! {
        #[test]
        fn a_message_reads_the_same_whichever_parser_takes_it(
            messages in prop::collection::vec(message(), 1..6),
            unknown_fields in prop::sample::select(vec![UnknownFields::Ignore, UnknownFields::Keep, UnknownFields::Reject]),
        ) {
            let columns: Arc<[Column]> =
                [Column::optional_text("a"), Column { column_type: ColumnType::Double, on_error: OnError::Null, ..Column::optional_text("b") }]
                    .into();
            let layout = Layout { columns: &columns, unknown_fields, max_depth: 1 };
            let read = |quick: bool| {
                let mut decoder = JsonDecoder { keys: Keys::new(layout), max_depth: layout.max_depth };
                let mut rows = Columns::new(columns.clone(), 0).keeping_others();
                let outcomes: Vec<Result<(), Fault>> = messages
                    .iter()
                    .map(|message| {
                        let decoded = match quick {
                            true => decoder.decode(message.as_bytes(), &mut rows),
                            false => decoder.decode_any(message, &mut rows),
                        };
                        let outcome = decoded.and_then(|()| rows.end_row());
                        if outcome.is_err() {
                            rows.roll_back();
                        }
                        outcome
                    })
                    .collect();
                (outcomes, format!("{:?}", rows.finish().unwrap()), decoder.unread())
            };
            prop_assert_eq!(read(true), read(false));
        }
    }
}
