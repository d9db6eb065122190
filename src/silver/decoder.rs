//! What a message format has to do, and the formats there are.
//!
//! A decoder sees one message at a time and hands over its values by column; [`Columns`] converts them, and the caller ends the row or
//! rolls it back. So a format knows its syntax only, and a bad message cannot touch its neighbours.

use std::borrow::Cow;
use std::fmt;

use super::columns::{Column, Columns};
use super::json;
use super::settings::UnknownFields;
use crate::error::{Error, Result};

/// A value of a message, as far as the format tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    Null,
    Boolean(bool),
    /// A number as it is written, in the grammar of JSON.
    Number(&'a str),
    Text(Cow<'a, str>),
    /// Something with parts, named for people ("an array"); no column type takes it.
    Composite(&'static str),
}

/// Reads messages of one format.
pub trait Decoder {
    /// Reads one message and sets the columns that it has a value for. On a fault the row may be half filled.
    fn decode(&mut self, message: &[u8], row: &mut Columns) -> Result<(), Fault>;

    /// The fields of the messages so far that no column reads; those beyond a bound are left out.
    fn unread(&self) -> Vec<String>;
}

/// What a decoder has to know of the table.
#[derive(Debug, Clone, Copy)]
pub struct Layout<'a> {
    pub columns: &'a [Column],
    pub unknown_fields: UnknownFields,
    /// Levels of nesting that are read, at least 1.
    pub max_depth: usize,
}

/// A message format by its name in the pipeline file.
pub struct Format {
    pub name: &'static str,
    pub decoder: fn(Layout<'_>) -> Box<dyn Decoder>,
}

/// All formats. A new one is a module with a [`Decoder`] and a line here.
pub const FORMATS: &[Format] = &[Format { name: "json", decoder: json::decoder }];

/// The format of this name.
pub fn format(name: &str) -> Result<&'static Format> {
    FORMATS.iter().find(|format| format.name == name).ok_or_else(|| {
        let known: Vec<_> = FORMATS.iter().map(|format| format.name).collect();
        Error::config(format!("silver.message_format `{name}` is not known"))
            .hint(format!("known formats are {}", known.join(", ")))
    })
}

/// Where on its way a record was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The message is not of the format.
    Decode,
    /// A value does not fit its column.
    Type,
    /// A derived column could not be computed.
    Derive,
    /// An expectation does not hold.
    Expect,
    /// Another definition rejected it.
    Definition,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Type => "type",
            Self::Derive => "derive",
            Self::Expect => "expect",
            Self::Definition => "definition",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a record is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub stage: Stage,
    /// The column, field or expectation concerned.
    pub field: Option<String>,
    pub reason: String,
}

impl Fault {
    /// The message as a whole is wrong.
    pub fn message(reason: impl Into<String>) -> Self {
        Self { stage: Stage::Decode, field: None, reason: reason.into() }
    }

    /// One field of the message is wrong.
    pub fn field(stage: Stage, field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { stage, field: Some(field.into()), reason: reason.into() }
    }
}

/// The beginning of a text, for a reason that people read.
pub fn excerpt(text: &str) -> Cow<'_, str> {
    const CHARS: usize = 64;
    match text.char_indices().nth(CHARS) {
        None => text.into(),
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_format_is_refused_with_the_known_ones() {
        let error = format("avro").err().unwrap();
        assert_eq!(error.kind(), crate::Kind::Config);
        assert_eq!(error.hint_text(), Some("known formats are json"));
    }

    #[test]
    fn excerpts_are_cut_between_characters() {
        assert_eq!(excerpt("é"), "é");
        assert_eq!(excerpt(&"é".repeat(100)), format!("{}… (200 bytes)", "é".repeat(64)));
    }
}
