//! The `[metastore]` block of a pipeline file.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};

/// Where the metastore is and how patient lakesmith is with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetastoreSettings {
    /// Addresses as `thrift://host:port` of servers on one database: connections are spread over them at random, and go on with another
    /// when one fails (default none: lakesmith starts its own metastore under the warehouse).
    pub uris: Vec<String>,
    /// How long a connection may take to come about, the server's first answer included where there is another server (default 5s).
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long the server may take to answer one call; afterwards its outcome is looked up (default 60s).
    #[serde(with = "humantime_serde")]
    pub call_timeout: Duration,
    /// Connections at the same time (default 4).
    pub connections_max: usize,
    /// A connection unused for longer is replaced instead of used (default 5m).
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// The user that `set_ugi` names (default: `HADOOP_USER_NAME`, else the login name).
    pub user: Option<String>,
    /// How long to wait for a lock that another holds (default 3m).
    #[serde(with = "humantime_serde")]
    pub lock_timeout: Duration,
    /// How often a held lock is kept alive; well below the server's `metastore.txn.timeout`, which is 300s by default (default 30s).
    #[serde(with = "humantime_serde")]
    pub lock_heartbeat: Duration,
    /// Port of the embedded metastore on 127.0.0.1; 0 takes a free one (default 0).
    pub embedded_port: u16,
}

impl Default for MetastoreSettings {
    fn default() -> Self {
        Self {
            uris: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(60),
            connections_max: 4,
            idle_timeout: Duration::from_secs(300),
            user: None,
            lock_timeout: Duration::from_secs(180),
            lock_heartbeat: Duration::from_secs(30),
            embedded_port: 0,
        }
    }
}

impl MetastoreSettings {
    /// `host:port` of each address.
    pub(super) fn servers(&self) -> Result<Vec<String>> {
        self.uris.iter().map(|uri| server(uri.trim()).with_context(|| format!("metastore.uris has {uri:?}"))).collect()
    }

    pub(super) fn user_name(&self) -> String {
        let named = self.user.clone().or_else(|| std::env::var("HADOOP_USER_NAME").ok()).filter(|name| !name.is_empty());
        named.or_else(|| whoami::username().ok()).unwrap_or_else(|| "lakesmith".into())
    }
}

fn server(uri: &str) -> Result<String> {
    let wrong = || Error::config("an address has the form thrift://host:port").hint("the default port is 9083");
    let rest = uri.strip_prefix("thrift://").ok_or_else(wrong)?.trim_end_matches('/');
    let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    if host.is_empty() || host.contains('/') {
        return Err(wrong());
    }
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_wrong_ones_are_named() {
        let uris = vec!["thrift://a:9083".into(), " thrift://[::1]:1/".into()];
        let settings = MetastoreSettings { uris, ..Default::default() };
        assert_eq!(settings.servers().unwrap(), ["a:9083", "[::1]:1"]);
        for wrong in ["a:9083", "thrift://a", "thrift://:1", "http://a:1"] {
            let settings = MetastoreSettings { uris: vec![wrong.into()], ..Default::default() };
            assert!(settings.servers().unwrap_err().chain().contains(wrong));
        }
    }
}
