//! Storage against a real HDFS (`HDFS_URL`, `HADOOP_CONF_DIR`), and against servers that do not answer.

mod engines;
mod faults;
mod files;

use std::path::PathBuf;

use lakesmith::storage::{StorageSettings, Storages};
use uuid::Uuid;

/// A directory of its own on the HDFS of the environment.
struct Area {
    storages: Storages,
    root: String,
}

impl Area {
    fn new() -> Self {
        let url = environment("HDFS_URL");
        let settings = StorageSettings {
            warehouse: format!("{}/lakesmith-tests/storage-{}", url.trim_end_matches('/'), Uuid::new_v4().simple()),
            hadoop_conf_dir: Some(PathBuf::from(environment("HADOOP_CONF_DIR"))),
            ..StorageSettings::default()
        };
        let storages = Storages::new(&settings).expect("the configuration of the environment");
        let root = storages.warehouse();
        Self { storages, root }
    }

    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.root)
    }

    async fn remove(self) {
        self.storages.delete_dir(&self.root).await.expect("the test's directory can be deleted");
    }
}

fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: start the servers with `tests/stack/stack up`"))
}
