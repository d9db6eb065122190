//! `config show`: the settings in force as a pipeline file, each with where it came from. Secrets are masked; what is printed can be read
//! back, but for those.

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::tree::{Node, Origin, Path, Value};

const MASK: &str = "********";

/// Column at which the origins stand, where the setting before is shorter.
const COMMENT_COLUMN: usize = 48;

/// Whether a key's value must not be printed.
pub fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    ["password", "secret", "token", "jaas", "credential", "key.pem"].iter().any(|word| key.contains(word))
}

/// Renders settings in the order in which their structs declare them.
pub fn render<T: Serialize>(settings: &T, origins: &Node) -> String {
    let mut page = Page { text: String::new(), origins };
    if let Ok(Json::Object(root)) = serde_json::to_value(settings) {
        page.table(&mut Vec::new(), &root);
    }
    page.text
}

struct Page<'a> {
    text: String,
    origins: &'a Node,
}

impl Page<'_> {
    /// Plain settings first, then the tables below: a TOML table ends where the next begins.
    fn table(&mut self, path: &mut Path, table: &Map<String, Json>) {
        for (key, value) in table.iter().filter(|(_, value)| !is_nested(value)) {
            path.push(key.clone());
            self.setting(path, value);
            path.pop();
        }
        for (key, value) in table.iter().filter(|(_, value)| is_nested(value)) {
            path.push(key.clone());
            match value {
                Json::Object(child) => {
                    self.header(path, "[", "]", has_settings(child));
                    self.table(path, child);
                }
                Json::Array(elements) => {
                    for (index, child) in elements.iter().enumerate() {
                        self.header(path, "[[", "]]", true);
                        path.push(index.to_string());
                        if let Json::Object(child) = child {
                            self.table(path, child);
                        }
                        path.pop();
                    }
                }
                _ => {}
            }
            path.pop();
        }
    }

    fn header(&mut self, path: &[String], open: &str, close: &str, needed: bool) {
        if needed {
            let gap = if self.text.is_empty() { "" } else { "\n" };
            // The numbers of list elements are no part of a TOML header.
            let names: Vec<_> = path.iter().filter(|part| part.parse::<usize>().is_err()).map(|part| toml_key(part)).collect();
            let _ = writeln!(self.text, "{gap}{open}{}{close}", names.join("."));
        }
    }

    fn setting(&mut self, path: &[String], value: &Json) {
        let Some(key) = path.last() else { return };
        let origin = match self.origin(path) {
            Origin::Default => "default".to_string(),
            Origin::Environment(name) => format!("env {name}"),
            other => other.to_string(),
        };
        let setting = match value {
            Json::Null => format!("# {} =", toml_key(key)),
            _ if is_secret(key) && value.as_str() != Some("") => format!("{} = \"{MASK}\"", toml_key(key)),
            _ => format!("{} = {}", toml_key(key), toml_value(value).to_string().trim()),
        };
        let origin = if value.is_null() { "not set" } else { &origin };
        let width = setting.lines().last().map_or(0, |line| line.chars().count());
        let _ = writeln!(self.text, "{setting}{:gap$} # {origin}", "", gap = COMMENT_COLUMN.saturating_sub(width));
    }

    /// The origin of the value at a path, or of the text that it was a part of.
    fn origin(&self, path: &[String]) -> Origin {
        let mut node = self.origins;
        for key in path {
            node = match &node.value {
                Value::Table(table) => match table.get(key) {
                    Some(child) => child,
                    None => return Origin::Default,
                },
                Value::List(list) => match key.parse::<usize>().ok().and_then(|index| list.get(index)) {
                    Some(child) => child,
                    None => return Origin::Default,
                },
                _ => break,
            };
        }
        node.origin.clone()
    }
}

fn is_nested(value: &Json) -> bool {
    match value {
        Json::Object(_) => true,
        Json::Array(elements) => !elements.is_empty() && elements.iter().all(Json::is_object),
        _ => false,
    }
}

fn has_settings(table: &Map<String, Json>) -> bool {
    table.is_empty() || table.values().any(|value| !is_nested(value))
}

fn toml_key(key: &str) -> String {
    toml_edit::Key::new(key).display_repr().into_owned()
}

fn toml_value(value: &Json) -> toml_edit::Value {
    match value {
        Json::Null => toml_edit::Value::from(""),
        Json::Bool(truth) => toml_edit::Value::from(*truth),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => toml_edit::Value::from(whole),
            None => toml_edit::Value::from(number.as_f64().unwrap_or_default()),
        },
        Json::String(text) => toml_edit::Value::from(text.as_str()),
        Json::Array(elements) => elements.iter().map(toml_value).collect::<toml_edit::Array>().into(),
        Json::Object(table) => {
            let entries =
                table.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.as_str(), toml_value(value)));
            entries.collect::<toml_edit::InlineTable>().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::tree::parse_file;

    #[test]
    fn each_setting_has_its_origin_and_secrets_are_masked() {
        let text = "[source]\ntopic = \"t\"\n[source.options]\n\"sasl.password\" = \"hunter2\"\n[[gold]]\ntable = \"g\"\n";
        let mut origins = parse_file("p.toml", text).unwrap();
        let variable = Origin::Environment("KAFKA_BROKER".into());
        origins.set(&["source".into(), "brokers".into()], Node::untyped("a,b", variable)).unwrap();
        let settings = json!({
            "source": {
                "topic": "t", "brokers": ["a", "b"], "start": null,
                "options": { "sasl.password": "hunter2", "client.id": "x" },
            },
            "gold": [{ "table": "g", "dimensions": [], "measures": [{ "name": "n", "sql": "count(*)" }] }],
        });
        let page = render(&settings, &origins);
        let squeezed: Vec<_> = page.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            squeezed,
            [
                "[source]",
                "topic = \"t\" # p.toml:2",
                "brokers = [\"a\", \"b\"] # env KAFKA_BROKER",
                "# start = # not set",
                "",
                "[source.options]",
                "\"sasl.password\" = \"********\" # p.toml:4",
                "\"client.id\" = \"x\" # default",
                "",
                "[[gold]]",
                "table = \"g\" # p.toml:6",
                "dimensions = [] # default",
                "",
                "[[gold.measures]]",
                "name = \"n\" # default",
                "sql = \"count(*)\" # default",
            ]
        );
        assert!(page.parse::<toml_edit::DocumentMut>().is_ok());
    }
}
