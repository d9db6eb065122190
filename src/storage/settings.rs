//! Where files lie and how patiently they are written and read.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// The `[storage]` section of a pipeline file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageSettings {
    /// The root of everything written: `hdfs://NAMESERVICE/path`, `hdfs:///path` (the nameservice of fs.defaultFS), `file:///path` or a local
    /// path. When it is on HDFS, bare paths elsewhere in the configuration are on the same HDFS, otherwise they are local. Default ./lakehouse.
    pub warehouse: String,
    /// Directory with core-site.xml, hdfs-site.xml and hive-site.xml. Default: HADOOP_CONF_DIR, then HADOOP_HOME/etc/hadoop.
    pub hadoop_conf_dir: Option<PathBuf>,
    /// The user on HDFS; with Kerberos the user to impersonate. Default: HADOOP_USER_NAME, then the login name (with Kerberos the principal).
    pub user: Option<String>,
    /// How long one step (a request, a packet, a chunk, a close) may take. Default 60s.
    #[serde(with = "humantime_serde")]
    pub call_timeout: Duration,
    /// Bytes handed to the file system in one step. Default 1MiB.
    pub write_buffer: ByteSize,
    /// Copies that HDFS keeps of each block. Default: the cluster's dfs.replication.
    pub replication: Option<u32>,
    /// Block size of new HDFS files. Default: the cluster's dfs.blocksize. A DataNode keeps as much free for every file that is open.
    pub block_size: Option<ByteSize>,
}

impl Default for StorageSettings {
    fn default() -> Self {
        Self {
            warehouse: "./lakehouse".to_owned(),
            hadoop_conf_dir: None,
            user: None,
            call_timeout: Duration::from_secs(60),
            write_buffer: ByteSize::mib(1),
            replication: None,
            block_size: None,
        }
    }
}

/// The user that Hadoop services see without Kerberos: the configured one, else HADOOP_USER_NAME, else the login name.
pub fn user_name(configured: Option<&str>) -> String {
    let named = configured.map(str::to_owned).or_else(|| std::env::var("HADOOP_USER_NAME").ok());
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| whoami::username().unwrap_or_else(|_| "unknown".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_read_with_units_and_refuses_unknown_keys() {
        let settings: StorageSettings =
            toml::from_str("warehouse = \"hdfs://lake/w\"\ncall_timeout = \"5s\"\nblock_size = \"64MiB\"").unwrap();
        assert_eq!(settings.call_timeout, Duration::from_secs(5));
        assert_eq!(settings.block_size, Some(ByteSize::mib(64)));
        assert_eq!(settings.write_buffer, ByteSize::mib(1));
        assert!(toml::from_str::<StorageSettings>("warehous = \"/w\"").is_err());
    }

    #[test]
    fn the_configured_user_wins() {
        assert_eq!(user_name(Some("etl")), "etl");
        assert!(!user_name(None).is_empty());
    }
}
