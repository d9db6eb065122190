//! Hadoop's site files, read as Hadoop reads them: core-site.xml, hdfs-site.xml and hive-site.xml of one directory.
//!
//! *Invariants*: a later file wins over an earlier one unless the earlier one says `<final>true</final>`; `${name}` in a value is another
//! property, `${env.NAME}` (with `:-default` or `-default`) the environment, `${user.name}` the user; what cannot be resolved stays as written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;

use super::settings::user_name;
use crate::error::{Error, Result};

const FILES: [&str; 3] = ["core-site.xml", "hdfs-site.xml", "hive-site.xml"];
/// As deep as Hadoop follows `${…}` (`Configuration.MAX_SUBST`).
const SUBSTITUTIONS_MAX: usize = 20;

/// The properties of a Hadoop configuration directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HadoopConf {
    directory: Option<PathBuf>,
    properties: BTreeMap<String, Property>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Property {
    value: String,
    is_final: bool,
}

impl HadoopConf {
    /// Reads the site files of a directory. Absent files are skipped, an absent directory is an error.
    pub fn load(directory: &Path) -> Result<Self> {
        if !directory.is_dir() {
            return Err(Error::config(format!("{} is not a directory", directory.display())).hint(
                "set storage.hadoop_conf_dir or HADOOP_CONF_DIR to the directory that holds core-site.xml and hdfs-site.xml",
            ));
        }
        let mut conf = Self { directory: Some(directory.to_owned()), properties: BTreeMap::new() };
        for file in FILES {
            let path = directory.join(file);
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::config(format!("{} cannot be read", path.display())).caused_by(error)),
            };
            conf.add(&text)
                .map_err(|reason| Error::config(format!("{} is not a Hadoop configuration: {reason}", path.display())))?;
        }
        Ok(conf)
    }

    /// Reads the directory given, else HADOOP_CONF_DIR, else HADOOP_HOME/etc/hadoop; without any of them the configuration is empty.
    pub fn locate(configured: Option<&Path>) -> Result<Self> {
        let from_environment = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(directory) = configured.map(Path::to_owned).or_else(|| from_environment("HADOOP_CONF_DIR")) {
            return Self::load(&directory);
        }
        match from_environment("HADOOP_HOME").map(|home| home.join("etc/hadoop")).filter(|directory| directory.is_dir()) {
            Some(directory) => Self::load(&directory),
            None => Ok(Self::default()),
        }
    }

    /// The directory that was read.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// The value of a property, with its variables replaced.
    pub fn get(&self, key: &str) -> Option<String> {
        self.properties.get(key).map(|property| self.substitute(&property.value))
    }

    /// Every property with its variables replaced.
    pub fn iter(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.properties.iter().map(|(key, property)| (key.clone(), self.substitute(&property.value)))
    }

    /// Adds the properties of one site file.
    fn add(&mut self, xml: &str) -> std::result::Result<(), String> {
        for (key, property) in read_properties(xml)? {
            if self.properties.get(&key).is_none_or(|earlier| !earlier.is_final) {
                self.properties.insert(key, property);
            }
        }
        Ok(())
    }

    fn substitute(&self, value: &str) -> String {
        let mut text = value.to_owned();
        let mut from = 0;
        for _ in 0..SUBSTITUTIONS_MAX {
            // The innermost variable first, so that `${a.${b}}` works.
            let Some(end) = text[from..].find('}').map(|at| from + at) else { break };
            let Some(start) = text[..end].rfind("${") else {
                from = end + 1;
                continue;
            };
            match self.variable(&text[start + 2..end]) {
                Some(replacement) => {
                    text.replace_range(start..=end, &replacement);
                    from = 0;
                }
                None => from = end + 1,
            }
        }
        text
    }

    fn variable(&self, name: &str) -> Option<String> {
        if let Some(name) = name.strip_prefix("env.") {
            let (name, default) = match name.split_once('-') {
                Some((name, default)) => (name.trim_end_matches(':'), Some(default.to_owned())),
                None => (name, None),
            };
            return std::env::var(name).ok().filter(|value| !value.is_empty()).or(default);
        }
        match self.properties.get(name) {
            Some(property) => Some(property.value.clone()),
            None if name == "user.name" => Some(user_name(None)),
            None => None,
        }
    }
}

fn read_properties(xml: &str) -> std::result::Result<Vec<(String, Property)>, String> {
    let mut reader = Reader::from_str(xml);
    let mut properties = Vec::new();
    let mut open: Vec<String> = Vec::new();
    let mut text = String::new();
    let mut key: Option<String> = None;
    let mut value: Option<String> = None;
    let mut is_final = false;
    loop {
        let event = reader.read_event().map_err(|error| format!("{error} at byte {}", reader.error_position()))?;
        match event {
            Event::Start(tag) => {
                open.push(String::from_utf8_lossy(tag.local_name().as_ref()).into_owned());
                text.clear();
                if open.len() == 1 && open[0] != "configuration" {
                    return Err(format!("its root element is <{}>", open[0]));
                }
            }
            Event::Empty(tag) => match tag.local_name().as_ref() {
                b"value" => value = Some(String::new()),
                b"include" => tracing::warn!("xi:include in a Hadoop site file is not followed; its properties are missing"),
                _ => {}
            },
            Event::Text(part) => text.push_str(&part.decode().map_err(|error| error.to_string())?),
            Event::CData(part) => text.push_str(&part.decode().map_err(|error| error.to_string())?),
            Event::GeneralRef(reference) => {
                let name = reference.decode().map_err(|error| error.to_string())?;
                match reference.resolve_char_ref().map_err(|error| error.to_string())? {
                    Some(character) => text.push(character),
                    None => text.push_str(resolve_predefined_entity(&name).ok_or_else(|| format!("unknown entity &{name};"))?),
                }
            }
            Event::End(_) => {
                let path: Vec<&str> = open.iter().map(String::as_str).collect();
                match path.as_slice() {
                    [_, "property", "name"] => key = Some(text.trim().to_owned()),
                    [_, "property", "value"] => value = Some(text.trim().to_owned()),
                    [_, "property", "final"] => is_final = text.trim() == "true",
                    [_, "property"] => {
                        if let (Some(key), Some(value)) = (key.take(), value.take()) {
                            properties.push((key, Property { value, is_final }));
                        }
                        (key, value, is_final) = (None, None, false);
                    }
                    _ => {}
                }
                text.clear();
                open.pop();
            }
            Event::Eof if open.is_empty() => return Ok(properties),
            Event::Eof => return Err(format!("<{}> is not closed", open.join("><"))),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORE: &str = r#"<?xml version="1.0"?>
<?xml-stylesheet type="text/xsl" href="configuration.xsl"?>
<configuration>
  <!-- the nameservice -->
  <property><name>fs.defaultFS</name><value>hdfs://${cluster}</value></property>
  <property><name>cluster</name><value> lake </value><final>true</final></property>
  <property><name>query</name><value>a &lt; b &amp;&amp; c &#x41;</value><description>x</description></property>
  <property><name>loop</name><value>${loop}</value></property>
  <property><name>data</name><value>${env.LAKESMITH_SURELY_UNSET:-/data}/${unknown}</value></property>
  <property><name>nested</name><value>${dfs.ha.namenodes.${cluster}}</value></property>
  <property><name>no.value</name></property>
</configuration>"#;
    const HDFS: &str = "<configuration>\
        <property><name>cluster</name><value>other</value></property>\
        <property><name>dfs.ha.namenodes.lake</name><value>nn1,nn2</value></property>\
        <property><name>query</name><value>later</value></property>\
        </configuration>";

    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("core-site.xml"), CORE).unwrap();
        std::fs::write(directory.path().join("hdfs-site.xml"), HDFS).unwrap();
        directory
    }

    #[test]
    fn later_files_win_unless_final_and_variables_are_replaced() {
        let directory = directory();
        let conf = HadoopConf::load(directory.path()).unwrap();
        assert_eq!(conf.directory(), Some(directory.path()));
        assert_eq!(conf.get("fs.defaultFS").as_deref(), Some("hdfs://lake"));
        assert_eq!(conf.get("cluster").as_deref(), Some("lake"));
        assert_eq!(conf.get("query").as_deref(), Some("later"));
        assert_eq!(conf.get("nested").as_deref(), Some("nn1,nn2"));
        assert_eq!(conf.get("data").as_deref(), Some("/data/${unknown}"));
        assert_eq!(conf.get("loop").as_deref(), Some("${loop}"));
        assert_eq!(conf.get("no.value"), None);
        assert_eq!(conf.get("hive.metastore.uris"), None);
    }

    #[test]
    fn entities_are_decoded() {
        let mut conf = HadoopConf::default();
        conf.add(CORE).unwrap();
        assert_eq!(conf.get("query").as_deref(), Some("a < b && c A"));
    }

    #[test]
    fn a_broken_file_is_named() {
        let directory = directory();
        std::fs::write(directory.path().join("hive-site.xml"), "<configuration><property>").unwrap();
        let error = HadoopConf::load(directory.path()).unwrap_err();
        assert!(error.to_string().contains("hive-site.xml is not a Hadoop configuration"), "{error}");
        let error = HadoopConf::load(&directory.path().join("absent")).unwrap_err();
        assert!(error.hint_text().is_some_and(|hint| hint.contains("HADOOP_CONF_DIR")));
        assert!(HadoopConf::default().add("<settings></settings>").is_err());
    }
}
