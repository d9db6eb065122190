//! The layers that settings come from, laid over each other: pipeline file, environment, flags.
//!
//! Every setting can be given in the environment as `LAKESMITH_` and its path, with `__` between the parts:
//! `LAKESMITH_SOURCE__TOPIC`, `LAKESMITH_GOLD__0__REFRESH_INTERVAL`. Variables of that prefix without `__` are no settings (a cluster puts
//! such ones there by itself: `LAKESMITH_PORT`). The names that Kafka and Hadoop users have in their environment anyway are honoured too
//! ([`ESTABLISHED`]); the longer, explicit name wins over them. A variable that is set to nothing is not set.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};

use super::problem::Problem;
use super::tree::{Node, Origin, Path, Value, parse_file};
use crate::error::{Error, Result};

const PREFIX: &str = "LAKESMITH_";

/// Names that are in many environments already, and the settings that they give a value to.
pub const ESTABLISHED: &[(&str, &[&str])] = &[
    ("KAFKA_BROKER", &["source.kafka.brokers"]),
    ("KAFKA_TOPIC", &["source.topic"]),
    ("HIVE_METASTORE_URIS", &["metastore.uris"]),
    ("HADOOP_CONF_DIR", &["storage.hadoop_conf_dir"]),
    ("HADOOP_USER_NAME", &["storage.user", "metastore.user"]),
];

/// Puts the warehouse onto an HDFS, keeping its path: see [`warehouse_on`].
pub const HDFS_URL: &str = "HDFS_URL";

/// Tables whose keys are names of others, with dots in them: what follows is one key.
const DOTTED: &[&str] = &["source.kafka.options"];

/// A pipeline file's text and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineFile {
    /// As messages name it.
    pub name: String,
    pub text: String,
    /// Relative paths in the file start here.
    pub directory: PathBuf,
}

impl PipelineFile {
    pub fn read(path: &FilePath) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::config(format!("pipeline file {} cannot be read", path.display()))
                .hint("name another with --config, or write one with `lakesmith init`")
                .caused_by(error)
        })?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(FilePath::new("."));
        Ok(Self { name: path.display().to_string(), text, directory: directory.to_path_buf() })
    }

    /// A file that is part of the program.
    pub fn built_in(name: &str, text: &str) -> Self {
        Self { name: name.to_string(), text: text.to_string(), directory: PathBuf::from(".") }
    }
}

/// A setting given by a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagSetting {
    pub path: String,
    pub value: String,
    /// The flag as its user knows it.
    pub flag: String,
}

impl FlagSetting {
    pub fn new(path: &str, value: impl ToString, flag: &str) -> Self {
        Self { path: path.to_string(), value: value.to_string(), flag: flag.to_string() }
    }

    /// Reads the `path=value` of `--set`.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        match text.split_once('=') {
            Some((path, value)) if !path.trim().is_empty() => Ok(Self::new(path.trim(), value, "--set")),
            _ => Err("expected PATH=VALUE, for example source.topic=orders".to_string()),
        }
    }
}

/// All that a configuration is made from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub file: Option<PipelineFile>,
    pub environment: BTreeMap<String, String>,
    pub flags: Vec<FlagSetting>,
}

impl Sources {
    /// The process's environment, as far as it is text.
    pub fn process_environment() -> BTreeMap<String, String> {
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
    }

    /// Lays the layers over each other, later over earlier.
    pub(super) fn merge(&self) -> (Node, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut root = Node::table(Origin::Default);
        if let Some(file) = &self.file {
            match parse_file(&file.name, &file.text) {
                Ok(tree) => root = tree,
                Err(error) => problems.push(Problem {
                    origin: Origin::File { file: file.name.as_str().into(), line: error.line },
                    path: Vec::new(),
                    message: error.message,
                    hint: None,
                }),
            }
        }
        let mut put = |root: &mut Node, path: Path, value: &str, origin: Origin| {
            if let Err(missing) = root.set(&path, Node::untyped(unquoted(value), origin.clone())) {
                problems.push(Problem { origin, path, message: format!("there is no {missing}"), hint: None });
            }
        };
        for (name, settings) in ESTABLISHED {
            if let Some(value) = self.variable(name) {
                for setting in *settings {
                    put(&mut root, path_of(setting), value, Origin::Environment(name.to_string()));
                }
            }
        }
        if let Some(url) = self.variable(HDFS_URL) {
            let path = path_of("storage.warehouse");
            let configured = match root.find(&path).map(|node| &node.value) {
                Some(Value::Text(text)) => Some(text.clone()),
                _ => None,
            };
            let warehouse = warehouse_on(url, configured.as_deref());
            put(&mut root, path, &warehouse, Origin::Environment(HDFS_URL.to_string()));
        }
        for (name, value) in &self.environment {
            let Some(setting) = name.strip_prefix(PREFIX).filter(|setting| setting.contains("__")) else { continue };
            if !value.is_empty() {
                put(&mut root, path_of_variable(setting), value, Origin::Environment(name.clone()));
            }
        }
        for flag in &self.flags {
            put(&mut root, path_of(&flag.path), &flag.value, Origin::Flag(flag.flag.clone()));
        }
        (root, problems)
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// A path in the notation of `--set`; what follows a table of [`DOTTED`] is one key. Quotes around a part are accepted.
pub fn path_of(text: &str) -> Path {
    for table in DOTTED {
        if let Some(key) = text.strip_prefix(table).and_then(|rest| rest.strip_prefix('.')) {
            let mut path = path_of(table);
            path.push(key.trim_matches('"').to_string());
            return path;
        }
    }
    text.split('.').map(|part| part.trim().trim_matches('"').to_string()).collect()
}

/// `SOURCE__KAFKA__OPTIONS__SECURITY_PROTOCOL` → source, kafka, options, security.protocol.
fn path_of_variable(text: &str) -> Path {
    let mut path: Path = text.split("__").map(str::to_lowercase).collect();
    let parent = path.split_last().map(|(_, parent)| parent.join(".")).unwrap_or_default();
    if DOTTED.contains(&parent.as_str())
        && let Some(key) = path.last_mut()
    {
        *key = key.replace('_', ".");
    }
    path
}

/// A value in TOML's double quotes means the text inside.
fn unquoted(value: &str) -> String {
    match value.parse::<toml_edit::Value>() {
        Ok(toml_edit::Value::String(text)) if value.starts_with(['"', '\'']) => text.into_value(),
        _ => value.to_string(),
    }
}

/// The warehouse on the HDFS of a URL: the URL's own path if it has one, else the path that was configured; a relative local
/// directory has no place there and becomes the root.
fn warehouse_on(url: &str, configured: Option<&str>) -> String {
    let base = url.trim_end_matches('/');
    let has_path = base.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    let path = match configured.unwrap_or_default() {
        _ if has_path => "",
        text => match text.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
            None => text.strip_prefix("file:").unwrap_or(text),
        },
    };
    let path = if path.starts_with('/') { path.trim_end_matches('/') } else { "" };
    if has_path { base.to_string() } else { format!("{base}{}", if path.is_empty() { "/" } else { path }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(text: &str, environment: &[(&str, &str)], flags: &[&str]) -> Sources {
        Sources {
            file: Some(PipelineFile::built_in("p.toml", text)),
            environment: environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            flags: flags.iter().map(|text| FlagSetting::parse(text).unwrap()).collect(),
        }
    }

    fn origin_and_value(root: &Node, path: &str) -> (String, String) {
        let node = root.find(&path_of(path)).unwrap();
        (node.origin.to_string(), node.describe())
    }

    #[test]
    fn later_layers_win_and_leave_their_name() {
        let text = "[source]\ntopic = \"file\"\n[source.kafka]\nbrokers = \"file:1\"\n";
        let environment = [("KAFKA_TOPIC", "short"), ("LAKESMITH_SOURCE__TOPIC", "long"), ("KAFKA_BROKER", "b:9092")];
        let (root, problems) = sources(text, &environment, &[]).merge();
        assert_eq!(problems, []);
        let topic = origin_and_value(&root, "source.topic");
        assert_eq!(topic, ("environment variable LAKESMITH_SOURCE__TOPIC".into(), "\"long\"".into()));
        assert_eq!(origin_and_value(&root, "source.kafka.brokers").0, "environment variable KAFKA_BROKER");

        let (root, _) = sources(text, &environment, &["source.topic=\"flag\""]).merge();
        assert_eq!(origin_and_value(&root, "source.topic"), ("flag --set".into(), "\"flag\"".into()));

        let (root, _) = sources(text, &[("KAFKA_TOPIC", ""), ("LAKESMITH_PORT", "tcp://1.2.3.4:5")], &[]).merge();
        assert_eq!(origin_and_value(&root, "source.topic"), ("p.toml:2".into(), "\"file\"".into()));
        assert!(root.find(&path_of("port")).is_none());
    }

    #[test]
    fn names_with_dots_are_one_key() {
        let environment = [("LAKESMITH_SOURCE__KAFKA__OPTIONS__SECURITY_PROTOCOL", "SSL")];
        let (root, _) = sources("", &environment, &["source.kafka.options.ssl.ca.location=/ca"]).merge();
        let options = root.find(&["source".into(), "kafka".into(), "options".into()]).unwrap();
        assert_eq!(options.find(&["security.protocol".to_string()]).unwrap().describe(), "\"SSL\"");
        assert_eq!(options.find(&["ssl.ca.location".to_string()]).unwrap().describe(), "\"/ca\"");
    }

    #[test]
    fn the_warehouse_moves_to_the_hdfs_of_the_environment_and_keeps_its_path() {
        assert_eq!(warehouse_on("hdfs://n:9000", None), "hdfs://n:9000/");
        assert_eq!(warehouse_on("hdfs://n:9000/", Some("./lakehouse")), "hdfs://n:9000/");
        assert_eq!(warehouse_on("hdfs://n:9000", Some("hdfs://other:8020/warehouse/")), "hdfs://n:9000/warehouse");
        assert_eq!(warehouse_on("hdfs://n:9000", Some("/data/lake")), "hdfs://n:9000/data/lake");
        assert_eq!(warehouse_on("hdfs://n:9000", Some("file:/data/lake")), "hdfs://n:9000/data/lake");
        assert_eq!(warehouse_on("hdfs://n:9000/here", Some("/data/lake")), "hdfs://n:9000/here");
    }

    #[test]
    fn a_path_that_leads_nowhere_is_a_problem_with_its_origin() {
        let (_, problems) = sources("[[gold]]\ntable = \"g\"\n", &[], &["gold.3.table=x"]).merge();
        let text = problems[0].to_string();
        assert_eq!(text, "flag --set: gold.3.table: there is no gold.3 (the list has 1 elements, counted from 0)");
        assert!(FlagSetting::parse("topic").is_err());
    }
}
