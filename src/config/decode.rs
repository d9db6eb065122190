//! From the tree to typed settings, reporting everything that is wrong and not only the first thing.
//!
//! serde stops at its first error. So this deserializer notes unknown keys itself (every struct tells it its fields) and passes over
//! them; and when a value does not fit, it is noted, taken out of the tree, and the rest is read again. The number of rounds is bounded by
//! the number of values.

use std::cell::RefCell;

use serde::Serialize;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};

use super::misfit::Misfit;
use super::problem::{Problem, nearest};
use super::tree::{Node, Path, Value, display_path, parse_value};

/// Reads settings out of a tree. The value is absent when something of it is missing; it is to be used only if there are no problems.
pub fn decode<T: DeserializeOwned + Serialize + Default>(root: &Node) -> (Option<T>, Vec<Problem>) {
    let defaults = serde_json::to_value(T::default()).unwrap_or_default();
    let mut tree = root.clone();
    let mut problems: Vec<Problem> = Vec::new();
    let value = loop {
        let unknown = RefCell::new(Vec::new());
        let outcome = T::deserialize(Decoder { path: Vec::new(), node: &tree, unknown: &unknown, defaults: &defaults });
        for problem in unknown.into_inner() {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        let error = match outcome {
            Ok(value) => break Some(value),
            Err(error) => error,
        };
        let path = error.path.clone().unwrap_or_default();
        let consequence = error.missing.is_some_and(|field| {
            let below = path.iter().map(String::as_str).chain([field]);
            problems.iter().any(|problem| problem.path.iter().map(String::as_str).eq(below.clone()))
        });
        if !consequence {
            let origin = tree.find(&path).unwrap_or(&tree).origin.clone();
            let message = match example(&defaults, &path, &error.message) {
                Some(example) if error.missing.is_none() => format!("{} (for example {example})", error.message),
                _ => error.message,
            };
            problems.push(Problem { origin, path: path.clone(), message, hint: None });
        }
        if !tree.remove(&path) {
            break None;
        }
    };
    (value, problems)
}

/// The default at a path, written as in a pipeline file; where there is none, a value of the kind that the message asks for.
fn example(defaults: &serde_json::Value, path: &[String], message: &str) -> Option<String> {
    let default = path.iter().try_fold(defaults, |value, key| value.get(key));
    match default {
        Some(serde_json::Value::String(text)) if !text.is_empty() => Some(format!("\"{text}\"")),
        Some(number @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => Some(number.to_string()),
        Some(serde_json::Value::Array(_)) => Some("[\"a\", \"b\"]".to_string()),
        _ if message.contains("duration") => Some("\"10s\"".to_string()),
        _ if message.contains("ByteSize") => Some("\"64MiB\"".to_string()),
        _ => None,
    }
}

/// The first settings of this name anywhere in the defaults: a key that stands in the wrong table.
fn find_elsewhere(defaults: &serde_json::Value, key: &str) -> Option<Path> {
    let table = defaults.as_object()?;
    if table.contains_key(key) {
        return Some(vec![key.to_string()]);
    }
    table.iter().find_map(|(name, child)| {
        let mut path = find_elsewhere(child, key)?;
        path.insert(0, name.clone());
        Some(path)
    })
}

#[derive(Clone)]
struct Decoder<'a> {
    path: Path,
    node: &'a Node,
    unknown: &'a RefCell<Vec<Problem>>,
    defaults: &'a serde_json::Value,
}

impl<'a> Decoder<'a> {
    fn child<'b>(&self, key: &str, node: &'b Node) -> Decoder<'b>
    where
        'a: 'b,
    {
        let mut path = self.path.clone();
        path.push(key.to_string());
        Decoder { path, node, unknown: self.unknown, defaults: self.defaults }
    }

    fn expected(&self, what: &str) -> Misfit {
        Misfit { message: format!("expected {what}, found {}", self.node.describe()), path: None, missing: None }
    }

    /// Visits a table; with `fields`, keys that are none of them are noted and passed over.
    fn visit_table<'de, V: Visitor<'de>>(self, fields: Option<&[&'static str]>, visitor: V) -> Result<V::Value, Misfit> {
        let parsed;
        let table = match &self.node.value {
            Value::Table(table) => table,
            Value::Untyped(text) => {
                parsed = parse_value(text, &self.node.origin);
                match parsed.as_ref().map(|node| &node.value) {
                    Some(Value::Table(table)) => table,
                    _ => return Err(self.expected("a table such as { key = \"value\" }")),
                }
            }
            _ => return Err(self.expected("a table")),
        };
        let mut entries = Vec::with_capacity(table.len());
        for (key, node) in table.iter().filter(|(_, node)| node.value != Value::Removed) {
            match fields {
                Some(fields) if !fields.contains(&key.as_str()) => self.note_unknown(key, node, fields),
                _ => entries.push((key.as_str(), node)),
            }
        }
        visitor.visit_map(TableAccess { decoder: &self, entries: entries.into_iter(), value: None })
    }

    fn note_unknown(&self, key: &str, node: &Node, fields: &[&'static str]) {
        let mut path = self.path.clone();
        path.push(key.to_string());
        let message = match (nearest(key, fields.iter().copied()), find_elsewhere(self.defaults, key)) {
            (Some(near), _) => format!("unknown key; did you mean `{near}`?"),
            (None, Some(elsewhere)) => format!("unknown key here; did you mean `{}`?", display_path(&elsewhere)),
            (None, None) => format!("unknown key; known here: {}", fields.join(", ")),
        };
        self.unknown.borrow_mut().push(Problem { origin: node.origin.clone(), path, message, hint: None });
    }
}

/// Numbers and truths that came as text are read as what the setting asks for.
macro_rules! parsed {
    ($($method:ident => $type:ty, $visit:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
            match &self.node.value {
                Value::Untyped(text) => match text.parse::<$type>() {
                    Ok(value) => visitor.$visit(value),
                    Err(_) => visitor.visit_str(text),
                },
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Decoder<'_> {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match &self.node.value {
            Value::Text(text) | Value::Untyped(text) => visitor.visit_str(text),
            Value::Integer(number) => match u64::try_from(*number) {
                Ok(number) => visitor.visit_u64(number),
                Err(_) => visitor.visit_i64(*number),
            },
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(truth) => visitor.visit_bool(*truth),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Table(_) => self.visit_table(None, visitor),
            Value::Removed => visitor.visit_unit(),
        }
    }

    parsed! {
        deserialize_bool => bool, visit_bool;
        deserialize_i8 => i64, visit_i64;
        deserialize_i16 => i64, visit_i64;
        deserialize_i32 => i64, visit_i64;
        deserialize_i64 => i64, visit_i64;
        deserialize_u8 => u64, visit_u64;
        deserialize_u16 => u64, visit_u64;
        deserialize_u32 => u64, visit_u64;
        deserialize_u64 => u64, visit_u64;
        deserialize_f32 => f64, visit_f64;
        deserialize_f64 => f64, visit_f64;
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let parsed: Vec<Node>;
        let list = match &self.node.value {
            Value::List(list) => list,
            Value::Untyped(text) if text.trim_start().starts_with('[') => match parse_value(text, &self.node.origin) {
                Some(Node { value: Value::List(list), .. }) => {
                    parsed = list;
                    &parsed
                }
                _ => return Err(self.expected("a list")),
            },
            Value::Untyped(text) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                parsed = parts.map(|part| Node::untyped(part, self.node.origin.clone())).collect();
                &parsed
            }
            _ => return Err(self.expected("a list")),
        };
        visitor.visit_seq(ListAccess { decoder: &self, list: list.iter().enumerate() })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.visit_table(None, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.visit_table(Some(fields), visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let (Value::Text(text) | Value::Untyped(text)) = &self.node.value else {
            return Err(self.expected(&format!("one of {}", variants.join(", "))));
        };
        if !variants.contains(&text.as_str()) {
            let found = self.expected(&format!("one of {}", variants.join(", "))).message;
            let hint = nearest(text, variants.iter().copied()).map(|near| format!("; did you mean `{near}`?"));
            return Err(de::Error::custom(found + &hint.unwrap_or_default()));
        }
        visitor.visit_enum(IntoDeserializer::<Misfit>::into_deserializer(text.as_str()))
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple_struct identifier ignored_any
    }
}

struct TableAccess<'a, I> {
    decoder: &'a Decoder<'a>,
    entries: I,
    value: Option<(&'a str, &'a Node)>,
}

impl<'a, 'de, I: Iterator<Item = (&'a str, &'a Node)>> de::MapAccess<'de> for TableAccess<'a, I> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misfit> {
        self.value = self.entries.next();
        match self.value {
            Some((key, _)) => seed.deserialize(IntoDeserializer::<Misfit>::into_deserializer(key)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        let (key, node) = self.value.take().ok_or_else(|| de::Error::custom("a value without its key"))?;
        let child = self.decoder.child(key, node);
        let path = child.path.clone();
        let dotted = matches!(node.value, Value::Table(_));
        seed.deserialize(child).map_err(|mut error| {
            if dotted && error.path.is_none() && error.message.starts_with("expected a string") {
                error.message.push_str("; a name with dots needs quotes, as in \"security.protocol\"");
            }
            error.at(&path)
        })
    }
}

struct ListAccess<'a, I> {
    decoder: &'a Decoder<'a>,
    list: I,
}

impl<'a, 'de, I: Iterator<Item = (usize, &'a Node)>> de::SeqAccess<'de> for ListAccess<'a, I> {
    type Error = Misfit;

    fn next_element_seed<E: DeserializeSeed<'de>>(&mut self, seed: E) -> Result<Option<E::Value>, Misfit> {
        let Some((index, node)) = self.list.by_ref().find(|(_, node)| node.value != Value::Removed) else { return Ok(None) };
        let child = self.decoder.child(&index.to_string(), node);
        let path = child.path.clone();
        seed.deserialize(child).map(Some).map_err(|error| error.at(&path))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use bytesize::ByteSize;
    use serde::Deserialize;

    use super::*;
    use crate::config::tree::{Origin, parse_file};

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        #[default]
        Kafka,
        Generator,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Stage {
        kind: Kind,
        rows: u32,
        share: f64,
        strict: bool,
        #[serde(with = "humantime_serde")]
        interval: Duration,
        size: ByteSize,
        topic: Option<String>,
        names: Vec<String>,
        options: BTreeMap<String, String>,
    }

    impl Default for Stage {
        fn default() -> Self {
            Self {
                kind: Kind::Kafka,
                rows: 5,
                share: 0.5,
                strict: false,
                interval: Duration::from_secs(10),
                size: ByteSize::mib(64),
                topic: None,
                names: vec![],
                options: BTreeMap::new(),
            }
        }
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Item {
        name: String,
        #[serde(default)]
        width: u16,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Root {
        stage: Stage,
        item: Vec<Item>,
    }

    fn decode_text(text: &str) -> (Option<Root>, Vec<String>) {
        let (value, problems) = decode::<Root>(&parse_file("p.toml", text).unwrap());
        (value, problems.iter().map(Problem::to_string).collect())
    }

    #[test]
    fn everything_wrong_is_reported_at_once_each_with_its_line() {
        let text = r#"
stagge = 1
[stage]
kind = "generater"
rows = -1
intervall = "1s"
interval = 10
size = "many"
strict = "yes"
names = "a"
options = { security.protocol = "SSL" }
[[item]]
width = 3
[[item]]
name = "a"
width = 70000
with = 3
[[item]]
name = 3
"#;
        let (_, problems) = decode_text(text);
        let all = problems.join("\n");
        for expected in [
            "p.toml:2: stagge: unknown key; did you mean `stage`?",
            "p.toml:4: stage.kind: expected one of kafka, generator, found \"generater\"; did you mean `generator`? (for example \"kafka\")",
            "p.toml:5: stage.rows: expected a whole number from 0 to 4294967295, found -1 (for example 5)",
            "p.toml:6: stage.intervall: unknown key; did you mean `interval`?",
            "p.toml:7: stage.interval: expected a duration, found 10 (for example \"10s\")",
            "p.toml:8: stage.size: ",
            "p.toml:9: stage.strict: expected true or false, found \"yes\" (for example false)",
            "p.toml:10: stage.names: expected a list, found \"a\" (for example [\"a\", \"b\"])",
            "p.toml:11: stage.options.security: expected a string, found a table; a name with dots needs quotes",
            "p.toml:12: item.0: `name` is missing",
            "p.toml:16: item.1.width: expected a whole number from 0 to 65535, found 70000",
            "p.toml:17: item.1.with: unknown key; did you mean `width`?",
            "p.toml:19: item.2.name: expected a string, found 3",
        ] {
            assert!(all.contains(expected), "{expected}\n\nis not in\n{all}");
        }
        assert_eq!(problems.len(), 13, "{all}");
    }

    #[test]
    fn a_key_of_another_table_is_sent_there() {
        let (_, problems) = decode_text("[stage]\n[stage.options]\n[[item]]\nname = \"x\"\ninterval = \"1s\"\n");
        assert_eq!(problems, ["p.toml:5: item.0.interval: unknown key here; did you mean `stage.interval`?"]);
    }

    #[test]
    fn text_from_outside_takes_the_type_of_its_setting() {
        let mut root = Node::table(Origin::Default);
        let origin = Origin::Environment("X".into());
        let settings = [
            ("kind", "generator"),
            ("rows", "7"),
            ("share", "0.25"),
            ("strict", "true"),
            ("interval", "2m"),
            ("size", "1KiB"),
            ("topic", "1234"),
            ("names", "a, b"),
            ("options", "{ \"security.protocol\" = \"SSL\" }"),
        ];
        for (key, text) in settings {
            root.set(&["stage".to_string(), key.to_string()], Node::untyped(text, origin.clone())).unwrap();
        }
        let (value, problems) = decode::<Root>(&root);
        assert_eq!(problems, []);
        let stage = value.unwrap().stage;
        assert_eq!(stage.kind, Kind::Generator);
        assert_eq!((stage.rows, stage.share, stage.strict), (7, 0.25, true));
        assert_eq!((stage.interval, stage.size), (Duration::from_secs(120), ByteSize::kib(1)));
        assert_eq!(stage.topic.as_deref(), Some("1234"));
        assert_eq!(stage.names, ["a", "b"]);
        assert_eq!(stage.options["security.protocol"], "SSL");
    }

    #[test]
    fn text_from_outside_that_does_not_fit_names_the_variable() {
        let mut root = Node::table(Origin::Default);
        let origin = Origin::Environment("LAKESMITH_STAGE__ROWS".into());
        root.set(&["stage".to_string(), "rows".to_string()], Node::untyped("many", origin)).unwrap();
        let (_, problems) = decode::<Root>(&root);
        let text: Vec<_> = problems.iter().map(Problem::to_string).collect();
        assert_eq!(
            text,
            [
                "environment variable LAKESMITH_STAGE__ROWS: stage.rows: expected a whole number from 0 to 4294967295, found \"many\" (for example 5)"
            ]
        );
    }
}
