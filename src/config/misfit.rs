//! Why a value does not fit its setting, in plain words: serde's `u32` is a person's whole number from 0 to 4294967295.

use std::fmt;

use serde::de::{self, Expected, Unexpected};

use super::tree::Path;

/// Why a value could not be read.
#[derive(Debug)]
pub(super) struct Misfit {
    pub message: String,
    /// The innermost value concerned.
    pub path: Option<Path>,
    /// The field that is missing, if that is what is wrong.
    pub missing: Option<&'static str>,
}

impl Misfit {
    /// Says which value is concerned, unless that is known already.
    pub fn at(mut self, path: &[String]) -> Self {
        self.path.get_or_insert_with(|| path.to_vec());
        self
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Misfit {}

impl de::Error for Misfit {
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self { message: message.to_string(), path: None, missing: None }
    }

    fn invalid_type(found: Unexpected, expected: &dyn Expected) -> Self {
        Self::custom(format!("expected {}, found {}", plain_expected(expected), plain_found(found)))
    }

    fn invalid_value(found: Unexpected, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn missing_field(field: &'static str) -> Self {
        Self { message: format!("`{field}` is missing"), path: None, missing: Some(field) }
    }
}

fn plain_expected(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number that is not negative",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        other if other.starts_with("struct ") || other == "a map" => "a table",
        other => other,
    }
    .to_string()
}

fn plain_found(found: Unexpected) -> String {
    match found {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(value) => value.to_string(),
        Unexpected::Signed(value) => value.to_string(),
        Unexpected::Float(value) => value.to_string(),
        Unexpected::Str(value) => format!("\"{value}\""),
        Unexpected::Map => "a table".to_string(),
        Unexpected::Seq => "a list".to_string(),
        other => other.to_string(),
    }
}
