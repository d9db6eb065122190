//! Messages that are one JSON object each.
//!
//! Most messages are flat and plain, and read by [`flat_json`]; this is the parser for all of them, and the one that says what is wrong.
//! Every value is taken as its own text first: numbers keep their digits, a wrong type is seen before anything is converted, and what no
//! column reads is skipped without being built. The key of the next field is guessed from the message before, because producers write
//! fields in one order; a guess costs one comparison, a wrong one a look into a hash table.
//!
//! *Failure*: anything but one well-formed object is a fault with the byte where it went wrong: text that is not UTF-8, a byte order mark,
//! a message cut short, something behind the object, a key twice, nesting beyond the limit. Depth is counted in a loop, never by
//! recursion, so no message can exhaust the stack.

use std::borrow::Cow;
use std::fmt;

use ahash::{HashMap, HashSet};
use serde::de::{DeserializeSeed, Deserializer as _, Error as _, MapAccess, Visitor};
use serde_json::Deserializer;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::columns::Columns;
use super::decoder::{Decoder, Fault, Layout, Stage, Value, excerpt};
use super::flat_json;
use super::settings::UnknownFields;

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
        self.keys.names[self.keys.columns..].iter().map(|name| name.to_string()).collect()
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

/// What a key of the object stands for.
pub(super) enum Key {
    Column(usize),
    Ignored,
    /// No column reads it, and it is kept with its name.
    Kept(Box<str>),
    Refused(Fault),
}

/// The keys seen so far: first those that columns read, then others as they come.
pub(super) struct Keys {
    names: Vec<Box<str>>,
    /// By key: its name between quotes, as it stands in a message; empty if it cannot stand there as it is.
    quoted: Vec<Box<str>>,
    indexes: HashMap<Box<str>, usize>,
    /// How many of the names are columns.
    columns: usize,
    /// By key: the key that followed it last time; at the end, the one that began a message.
    followers: Vec<usize>,
    /// By key: the last message that had it.
    seen: Vec<u64>,
    message: u64,
    /// The key before the next one; the number of names stands for the beginning.
    previous: Option<usize>,
    /// The first key of the message before.
    first: usize,
    /// Keys of this message beyond those that are remembered.
    strangers: HashSet<String>,
    unknown_fields: UnknownFields,
}

/// Keys that are remembered between messages; an object with keys made of data must not grow the memory.
const KEYS_MAX: usize = 1024;
const KEY_BYTES_MAX: usize = 256;

impl Keys {
    fn new(layout: Layout<'_>) -> Self {
        let mut keys = Self {
            names: Vec::new(),
            quoted: Vec::new(),
            indexes: HashMap::default(),
            columns: layout.columns.len(),
            followers: Vec::new(),
            seen: Vec::new(),
            message: 0,
            previous: None,
            first: 0,
            strangers: HashSet::default(),
            unknown_fields: layout.unknown_fields,
        };
        for column in layout.columns {
            keys.learn(&column.field);
        }
        keys
    }

    fn learn(&mut self, name: &str) -> usize {
        let index = self.names.len();
        self.names.push(name.into());
        let needs_escapes = name.bytes().any(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
        self.quoted.push(if needs_escapes { Box::default() } else { format!("\"{name}\"").into() });
        self.indexes.insert(name.into(), index);
        self.followers.push(index + 1);
        self.seen.push(0);
        index
    }

    fn begin_message(&mut self) {
        self.message += 1;
        self.previous = None;
        if !self.strangers.is_empty() {
            self.strangers.clear();
        }
    }

    /// The key that is likely to come next.
    fn guess(&self) -> usize {
        self.previous.map_or(self.first, |previous| self.followers[previous])
    }

    /// The key that the text begins with, and how long it is there with its quotes, if it is the one that was to be expected: then nobody has
    /// to look where it ends.
    pub fn expected(&mut self, text: &str) -> Option<(Key, usize)> {
        let guess = self.guess();
        let length = self.quoted.get(guess).filter(|quoted| !quoted.is_empty() && text.starts_with(&***quoted))?.len();
        Some((self.found(guess, text.get(1..length - 1)?), length))
    }

    pub fn resolve(&mut self, name: &str) -> Key {
        let guess = self.guess();
        let known = match self.names.get(guess) {
            Some(guessed) if **guessed == *name => Some(guess),
            _ => self.indexes.get(name).copied(),
        };
        let index = match known {
            Some(index) => index,
            None if self.unknown_fields == UnknownFields::Reject => {
                return Key::Refused(Fault::field(
                    Stage::Decode,
                    excerpt(name),
                    "is not known, and silver.unknown_fields is reject",
                ));
            }
            None if self.names.len() < self.columns + KEYS_MAX && name.len() <= KEY_BYTES_MAX => self.learn(name),
            None if self.strangers.insert(name.to_owned()) => return self.other(name),
            None => return Key::twice(name),
        };
        if index != guess {
            match self.previous {
                None => self.first = index,
                Some(previous) => self.followers[previous] = index,
            }
        }
        self.found(index, name)
    }

    /// What becomes of a key that is known, once in each message.
    fn found(&mut self, index: usize, name: &str) -> Key {
        self.previous = Some(index);
        if std::mem::replace(&mut self.seen[index], self.message) == self.message {
            return Key::twice(name);
        }
        if index < self.columns { Key::Column(index) } else { self.other(name) }
    }

    /// What becomes of a key that no column reads.
    fn other(&self, name: &str) -> Key {
        match self.unknown_fields {
            UnknownFields::Keep => Key::Kept(name.into()),
            UnknownFields::Ignore | UnknownFields::Reject | UnknownFields::Add => Key::Ignored,
        }
    }
}

impl Key {
    fn twice(name: &str) -> Self {
        Self::Refused(Fault::field(Stage::Decode, excerpt(name), "stands twice in the object"))
    }
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
    use super::super::settings::{OnError, ScaleExcess};
    use super::super::types::ColumnType;
    use super::*;

    fn column(name: &str) -> Column {
        Column {
            name: name.to_uppercase(),
            field: name.into(),
            column_type: ColumnType::String,
            required: false,
            on_error: OnError::Reject,
            formats: Vec::new(),
            scale_excess: ScaleExcess::Round,
            lenient: false,
        }
    }

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
                [column("a"), Column { column_type: ColumnType::Double, on_error: OnError::Null, ..column("b") }].into();
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

    #[test]
    fn keys_are_found_in_any_order_and_twice_only_within_a_message() {
        let columns = ["a", "b"].map(column);
        let mut keys = Keys::new(Layout { columns: &columns, unknown_fields: UnknownFields::Ignore, max_depth: 1 });
        let long = "x".repeat(KEY_BYTES_MAX + 1);
        for message in [vec!["a", "b"], vec!["b", "z", "a"], vec!["z", "a", "b", &long], vec![&long, "b", "z"], vec!["a"], vec![]]
        {
            keys.begin_message();
            for name in &message {
                match (keys.resolve(name), *name) {
                    (Key::Column(0), "a") | (Key::Column(1), "b") | (Key::Ignored, _) => {}
                    _ => panic!("{name} in {message:?}"),
                }
            }
            assert!(message.iter().all(|name| matches!(keys.resolve(name), Key::Refused(_))), "{message:?}");
        }
    }

    #[test]
    fn remembered_keys_are_bounded() {
        let mut keys = Keys::new(Layout { columns: &[], unknown_fields: UnknownFields::Ignore, max_depth: 1 });
        for number in 0..3 * KEYS_MAX {
            keys.begin_message();
            assert!(matches!(keys.resolve(&number.to_string()), Key::Ignored));
        }
        assert_eq!(keys.names.len(), KEYS_MAX);
        assert_eq!(keys.strangers.len(), 1);
    }
}
