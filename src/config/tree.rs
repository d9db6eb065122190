//! The merged settings before they have types: a tree in which every value knows where it came from.
//!
//! The pipeline file, the environment and the flags are laid over each other here, later over earlier. A table is merged key by key, a
//! list is replaced as a whole; single elements of a list are reached by their number (`gold.0.refresh_interval`).

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use toml_edit::{Item, Key, TableLike};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the pipeline file, counted from 1.
    File { file: Arc<str>, line: usize },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line, as its user knows it (`--set`).
    Flag(String),
    /// A file in the Hadoop configuration directory (`hive-site.xml`).
    Hadoop(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Hadoop(file) => f.write_str(file),
        }
    }
}

/// A value and its origin.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub value: Value,
    pub origin: Origin,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// Text from the environment or a flag: the setting it is for decides what it means.
    Untyped(String),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
    /// An element that was found wrong and reported; reading the rest goes on without it.
    Removed,
}

/// The way to a value from the root: table keys, and numbers for the elements of lists.
pub type Path = Vec<String>;

/// A path as people write it, `gold.0.table`.
pub fn display_path(path: &[String]) -> String {
    path.join(".")
}

impl Node {
    pub fn table(origin: Origin) -> Self {
        Self { value: Value::Table(BTreeMap::new()), origin }
    }

    pub fn untyped(text: impl Into<String>, origin: Origin) -> Self {
        Self { value: Value::Untyped(text.into()), origin }
    }

    /// The value at a path; none where nobody set one.
    pub fn find(&self, path: &[String]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| match &node.value {
            Value::Table(table) => table.get(key),
            Value::List(list) => list.get(key.parse::<usize>().ok()?),
            _ => None,
        })
    }

    fn find_mut(&mut self, path: &[String]) -> Option<&mut Node> {
        path.iter().try_fold(self, |node, key| match &mut node.value {
            Value::Table(table) => table.get_mut(key),
            Value::List(list) => list.get_mut(key.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// Puts a value at a path, making the tables on the way. `Err` says which part of the path is not there to be set.
    pub fn set(&mut self, path: &[String], leaf: Node) -> Result<(), String> {
        let Some((key, rest)) = path.split_first() else {
            *self = leaf;
            return Ok(());
        };
        match &mut self.value {
            Value::Table(table) => {
                let child = table.entry(key.clone()).or_insert_with(|| Node::table(leaf.origin.clone()));
                child.set(rest, leaf).map_err(|below| format!("{key}.{below}"))
            }
            Value::List(list) => {
                let count = list.len();
                match key.parse::<usize>().ok().and_then(|index| list.get_mut(index)) {
                    Some(child) => child.set(rest, leaf).map_err(|below| format!("{key}.{below}")),
                    None => Err(format!("{key} (the list has {count} elements, counted from 0)")),
                }
            }
            _ => Err(format!("{key} (not inside a table)")),
        }
    }

    /// Takes out what was found wrong. False when there is nothing at the path, or it is the root.
    pub fn remove(&mut self, path: &[String]) -> bool {
        let Some((key, parent)) = path.split_last() else { return false };
        match self.find_mut(parent).map(|node| &mut node.value) {
            Some(Value::Table(table)) => table.remove(key).is_some(),
            // The others keep their numbers, which later reports name.
            Some(Value::List(list)) => match key.parse::<usize>().ok().and_then(|index| list.get_mut(index)) {
                Some(node) if node.value != Value::Removed => {
                    node.value = Value::Removed;
                    true
                }
                _ => false,
            },
            _ => false,
        }
    }

    /// What the node is, as an error message says it.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Text(text) | Value::Untyped(text) => format!("\"{text}\""),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Boolean(truth) => truth.to_string(),
            Value::List(_) => "a list".to_string(),
            Value::Table(_) => "a table".to_string(),
            Value::Removed => "nothing".to_string(),
        }
    }
}

/// What is wrong with the text of a pipeline file before any setting is looked at.
#[derive(Debug, PartialEq, Eq)]
pub struct SyntaxError {
    pub line: usize,
    pub message: String,
}

/// Reads a pipeline file. `file` is its name as it appears in origins.
pub fn parse_file(file: &str, text: &str) -> Result<Node, SyntaxError> {
    let reader = Reader { file: file.into(), text };
    let document = toml_edit::Document::parse(text).map_err(|error| SyntaxError {
        line: error.span().map_or(1, |span| reader.line(span.start)),
        message: error.message().replace('\n', ", "),
    })?;
    Ok(reader.table(document.as_table(), Origin::File { file: reader.file.clone(), line: 1 }))
}

/// Reads a TOML value given outside a file, such as `["a", "b"]` in an environment variable.
pub fn parse_value(text: &str, origin: &Origin) -> Option<Node> {
    let value = text.parse::<toml_edit::Value>().ok()?;
    let mut node = Reader { file: "".into(), text }.item(&Item::Value(value), origin.clone());
    fn adopt(node: &mut Node, origin: &Origin) {
        node.origin = origin.clone();
        match &mut node.value {
            Value::List(list) => list.iter_mut().for_each(|child| adopt(child, origin)),
            Value::Table(table) => table.values_mut().for_each(|child| adopt(child, origin)),
            _ => {}
        }
    }
    adopt(&mut node, origin);
    Some(node)
}

struct Reader<'a> {
    file: Arc<str>,
    text: &'a str,
}

impl Reader<'_> {
    fn line(&self, position: usize) -> usize {
        1 + self.text.as_bytes().iter().take(position).filter(|byte| **byte == b'\n').count()
    }

    fn origin(&self, span: Option<Range<usize>>, otherwise: &Origin) -> Origin {
        match span {
            Some(span) => Origin::File { file: self.file.clone(), line: self.line(span.start) },
            None => otherwise.clone(),
        }
    }

    fn table(&self, table: &dyn TableLike, origin: Origin) -> Node {
        let entries = table.iter().map(|(name, item)| {
            let span = table.key(name).and_then(Key::span).or_else(|| item.span());
            (name.to_string(), self.item(item, self.origin(span, &origin)))
        });
        Node { value: Value::Table(entries.collect()), origin }
    }

    fn item(&self, item: &Item, origin: Origin) -> Node {
        let value = match item {
            Item::None => Value::Removed,
            Item::Table(table) => return self.table(table, origin),
            Item::ArrayOfTables(tables) => {
                Value::List(tables.iter().map(|table| self.table(table, self.origin(table.span(), &origin))).collect())
            }
            Item::Value(value) => match value {
                toml_edit::Value::String(text) => Value::Text(text.value().clone()),
                toml_edit::Value::Integer(number) => Value::Integer(*number.value()),
                toml_edit::Value::Float(number) => Value::Float(*number.value()),
                toml_edit::Value::Boolean(truth) => Value::Boolean(*truth.value()),
                // No setting is a TOML date; as text it is what the writer most likely meant.
                toml_edit::Value::Datetime(instant) => Value::Text(instant.value().to_string()),
                toml_edit::Value::InlineTable(table) => return self.table(table, origin),
                toml_edit::Value::Array(array) => {
                    let element =
                        |value: &toml_edit::Value| self.item(&Item::Value(value.clone()), self.origin(value.span(), &origin));
                    Value::List(array.iter().map(element).collect())
                }
            },
        };
        Node { value, origin }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        text.split('.').map(str::to_string).collect()
    }

    #[test]
    fn every_value_knows_its_line() {
        let text = "[source]\ntopic = \"t\"\n\n[[gold]]\ntable = \"g\"\n[[gold]]\ndimensions = [\n  \"a\",\n  \"b\",\n]\n";
        let root = parse_file("p.toml", text).unwrap();
        let line = |at: &str| match &root.find(&path(at)).unwrap().origin {
            Origin::File { line, .. } => *line,
            other => panic!("{other}"),
        };
        assert_eq!(line("source.topic"), 2);
        assert_eq!(line("gold.0.table"), 5);
        assert_eq!(line("gold.1"), 6);
        assert_eq!(line("gold.1.dimensions"), 7);
        assert_eq!(line("gold.1.dimensions.1"), 9);
    }

    #[test]
    fn broken_text_is_reported_with_its_line() {
        let error = parse_file("p.toml", "[source]\ntopic = \n").unwrap_err();
        assert_eq!(error.line, 2);
        let error = parse_file("p.toml", "[a]\nx = 1\nx = 2\n").unwrap_err();
        assert!(error.message.contains("duplicate key"), "{}", error.message);
        assert_eq!(error.line, 3);
    }

    #[test]
    fn a_later_layer_replaces_a_leaf_and_keeps_its_neighbours() {
        let mut root = parse_file("p.toml", "[source]\nkind = \"kafka\"\ntopic = \"t\"\n[[gold]]\ntable = \"g\"\n").unwrap();
        let flag = Origin::Flag("--set".into());
        root.set(&path("source.topic"), Node::untyped("u", flag.clone())).unwrap();
        root.set(&path("gold.0.table"), Node::untyped("h", flag.clone())).unwrap();
        root.set(&path("bronze.table"), Node::untyped("b", flag.clone())).unwrap();
        assert_eq!(root.find(&path("source.topic")).unwrap().origin, flag);
        assert_eq!(root.find(&path("source.kind")).unwrap().value, Value::Text("kafka".into()));
        assert!(root.find(&path("bronze.table")).is_some());
        let error = root.set(&path("gold.1.table"), Node::untyped("x", flag.clone())).unwrap_err();
        assert_eq!(error, "gold.1 (the list has 1 elements, counted from 0)");
        assert!(root.set(&path("source.kind.deeper"), Node::untyped("x", flag)).is_err());
    }
}
