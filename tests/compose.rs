//! The compose file, as far as it can be held to account without running it: everything pinned, healthy before it is needed, reachable from
//! this machine only, and in agreement with lakesmith's own defaults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lakesmith::config::preset::preset;
use quick_xml::Reader;
use quick_xml::events::Event;
use serde::Deserialize;
use serde_json::Value;

const FILE: &str = "docker-compose.yml";

#[derive(Deserialize)]
struct Compose {
    services: BTreeMap<String, Service>,
    volumes: BTreeMap<String, Option<Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    image: Option<String>,
    build: Option<String>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, Value>,
    #[serde(default)]
    volumes: Vec<String>,
    #[serde(default)]
    depends_on: BTreeMap<String, Dependency>,
    healthcheck: Option<HealthCheck>,
    #[serde(rename = "command")]
    _command: Option<Vec<String>>,
    #[serde(rename = "hostname")]
    _hostname: Option<String>,
    #[serde(rename = "user")]
    _user: Option<String>,
    restart: Option<String>,
    #[serde(rename = "stop_grace_period")]
    _stop_grace_period: Option<String>,
}

#[derive(Deserialize)]
struct Dependency {
    condition: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HealthCheck {
    test: Vec<String>,
    interval: String,
    timeout: String,
    retries: u32,
    #[serde(rename = "start_period")]
    _start_period: Option<String>,
}

fn text(file: impl AsRef<Path>) -> String {
    let path = crate::repository().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn compose() -> Compose {
    serde_yaml_ng::from_str(&text(FILE)).unwrap()
}

/// The images that a Dockerfile begins its stages with.
fn base_images(dockerfile: &str) -> Vec<String> {
    let froms = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM "));
    froms.filter_map(|from| from.split_whitespace().next()).map(str::to_owned).collect()
}

fn is_pinned(image: &str) -> bool {
    image.rsplit_once(':').is_some_and(|(_, tag)| tag != "latest" && tag.chars().next().is_some_and(|c| c.is_ascii_digit()))
}

#[test]
fn the_file_has_every_server_of_the_platform() {
    let compose = compose();
    let expected = ["datanode", "hiveserver2", "kafka", "lakesmith", "metastore", "namenode", "postgres", "topic", "trino"]
        .map(str::to_owned);
    assert_eq!(compose.services.into_keys().collect::<Vec<_>>(), expected);
}

#[test]
fn every_image_is_pinned() {
    for (name, service) in compose().services {
        let images = match (&service.image, &service.build) {
            (Some(image), None) => vec![image.clone()],
            (None, Some(directory)) => base_images(&text(Path::new(directory).join("Dockerfile"))),
            _ => panic!("{name} needs an image or a build, not both"),
        };
        assert!(!images.is_empty(), "{name} is built from nothing");
        for image in images {
            let a_variant = image.contains("-eclipse-temurin-");
            assert!(is_pinned(&image) || a_variant, "{name}: {image} is not pinned to a version");
        }
    }
}

#[test]
fn every_server_says_whether_it_is_healthy_and_starts_after_what_it_needs() {
    let compose = compose();
    let ends: Vec<&String> = compose
        .services
        .values()
        .flat_map(|service| &service.depends_on)
        .filter(|(_, dependency)| dependency.condition == "service_completed_successfully")
        .map(|(name, _)| name)
        .collect();
    for (name, service) in &compose.services {
        match &service.healthcheck {
            None => assert!(ends.contains(&name) && service.restart.is_none(), "{name} has no health check and does not end"),
            Some(check) => {
                assert!(matches!(check.test.first().map(String::as_str), Some("CMD" | "CMD-SHELL")), "{name}");
                assert!(check.test.len() > 1 && check.retries > 0, "{name} checks nothing");
                for time in [&check.interval, &check.timeout] {
                    humantime::parse_duration(time).unwrap();
                }
            }
        }
        for (needed, dependency) in &service.depends_on {
            let other = compose.services.get(needed).unwrap_or_else(|| panic!("{name} depends on {needed}, which is not there"));
            match dependency.condition.as_str() {
                "service_healthy" => assert!(other.healthcheck.is_some(), "{name} waits for the health of {needed}"),
                "service_completed_successfully" => assert!(other.healthcheck.is_none(), "{name} waits for the end of {needed}"),
                other => panic!("{name} starts when {needed} is {other}: that says nothing of whether it answers"),
            }
        }
    }
}

#[test]
fn ports_are_published_on_loopback_under_their_usual_numbers() {
    let mut published = BTreeMap::new();
    for (name, service) in compose().services {
        for port in service.ports {
            let numbers = port.strip_prefix("127.0.0.1:").unwrap_or_else(|| panic!("{name}: {port} is open to the network"));
            let (outside, inside) = numbers.split_once(':').unwrap();
            assert_eq!(outside, inside, "{name}");
            published.insert(outside.parse::<u16>().unwrap(), name.clone());
        }
    }
    let usual = [(8080, "trino"), (9083, "metastore"), (9092, "kafka"), (9870, "namenode"), (10_000, "hiveserver2")];
    assert_eq!(published, usual.map(|(port, name)| (port, name.to_owned())).into());
    // What the preset says, by default or in its comments, is what answers.
    let preset = preset("amazon-sales").unwrap().text;
    for address in ["brokers = \"localhost:9092\"", "thrift://metastore:9083", "hdfs://namenode:8020"] {
        assert!(preset.contains(address), "the preset has no {address}");
    }
}

#[test]
fn every_mounted_file_is_there_and_every_volume_is_declared() {
    let Compose { services, volumes } = compose();
    let mut used = Vec::new();
    for (name, service) in services {
        for volume in service.volumes {
            let (source, target) = volume.split_once(':').unwrap();
            assert!(target.starts_with('/'), "{name}: {volume}");
            match source.strip_prefix("./") {
                Some(path) => {
                    assert!(crate::repository().join(path).exists(), "{name} mounts {path}, which is not there");
                    assert!(target.ends_with(":ro"), "{name} may write to {path}");
                }
                None => used.push(source.to_owned()),
            }
        }
    }
    used.sort();
    assert_eq!(used, volumes.into_keys().collect::<Vec<_>>());
}

#[test]
fn addresses_name_services_that_are_there() {
    let compose = compose();
    let lakesmith = &compose.services["lakesmith"].environment;
    let address = |name: &str| lakesmith[name].as_str().unwrap().to_owned();
    assert_eq!(address("HDFS_URL"), property("hive/conf/core-site.xml", "fs.defaultFS"));
    let listeners = compose.services["kafka"].environment["KAFKA_ADVERTISED_LISTENERS"].as_str().unwrap();
    assert!(listeners.contains(&format!("INTERNAL://{}", address("KAFKA_BROKER"))), "{listeners}");
    // The metastore's address comes from hive-site.xml, in HADOOP_CONF_DIR.
    assert_eq!(property("hive/conf/hive-site.xml", "hive.metastore.uris"), "thrift://metastore:9083");
    for catalog in ["hive/trino/hive.properties", "hive/trino/iceberg.properties"] {
        assert!(text(catalog).contains("hive.metastore.uri=thrift://metastore:9083\n"), "{catalog}");
    }
}

#[test]
fn lakesmith_does_not_run_as_root() {
    let dockerfile = text("Dockerfile");
    let last_stage = dockerfile.rsplit("FROM ").next().unwrap();
    let user = last_stage.lines().find_map(|line| line.strip_prefix("USER ")).expect("a USER in the last stage");
    assert!(!["root", "0"].contains(&user.trim()));
}

#[test]
fn site_files_are_well_formed() {
    let files = std::fs::read_dir(crate::repository().join("hive/conf")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|extension| extension == "xml")).collect();
    assert_eq!(files.len(), 3);
    for file in files {
        assert!(!properties(&file).is_empty(), "{} has no property", file.display());
    }
}

fn property(file: &str, name: &str) -> String {
    let found = properties(&crate::repository().join(file)).remove(name);
    found.unwrap_or_else(|| panic!("{file} has no {name}"))
}

/// Names and values of a site file.
fn properties(file: &Path) -> BTreeMap<String, String> {
    let text = text(file);
    let mut reader = Reader::from_str(&text);
    let (mut found, mut name, mut element) = (BTreeMap::new(), String::new(), Vec::new());
    loop {
        match reader.read_event().unwrap_or_else(|error| panic!("{}: {error}", file.display())) {
            Event::Start(start) => element = start.name().as_ref().to_vec(),
            Event::End(_) => element.clear(),
            Event::Text(content) => match element.as_slice() {
                b"name" => name = content.decode().unwrap().into_owned(),
                b"value" => drop(found.insert(std::mem::take(&mut name), content.decode().unwrap().into_owned())),
                _ => {}
            },
            Event::Eof => return found,
            _ => {}
        }
    }
}
