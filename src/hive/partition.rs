//! Names of partitions and their directories, escaped as Hive escapes them.

use std::fmt::Write;

use uuid::Uuid;

/// The values of one partition, in the order of the table's partition keys.
///
/// Its `Display` form is the partition's name and path below the table's directory: `window_date=2024-07-01/window_hour=13`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey(Vec<(String, String)>);

impl PartitionKey {
    pub fn new<K: Into<String>, V: Into<String>>(values: impl IntoIterator<Item = (K, V)>) -> Self {
        Self(values.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// The raw values, as `add_partitions` wants them.
    pub fn values(&self) -> Vec<String> {
        self.0.iter().map(|(_, value)| value.clone()).collect()
    }

    /// Where a version of this partition lies.
    pub fn version_location(&self, table_location: &str, version: &str) -> String {
        format!("{}/{self}/{version}", table_location.trim_end_matches('/'))
    }
}

impl std::fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, (name, value)) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "/" };
            write!(f, "{separator}{}={}", escape(name), if value.is_empty() { DEFAULT_PARTITION.into() } else { escape(value) })?;
        }
        Ok(())
    }
}

/// The value, and the directory, of a partition whose value is null or an empty text.
pub const DEFAULT_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

/// Hive's `FileUtils.escapePathName`: these characters, and control characters, become `%` and two hexadecimal digits.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(
            character,
            '\u{1}'..='\u{1f}' | '\u{7f}' | '"' | '#' | '%' | '\'' | '*' | '/' | ':' | '=' | '?' | '\\' | '{' | '[' | ']' | '^'
        ) {
            // Writing to a string does not fail.
            let _ = write!(escaped, "%{:02X}", character as u32);
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// The version directory that a partition's location names: its last path component. Locations of one directory may differ in
/// scheme and authority (`hdfs://nameservice` and `hdfs://host:port`); version names are unique and do not.
pub fn version_of(location: &str) -> &str {
    location.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// A new version's name: the epoch of the process that writes it, and an id that sorts by time.
pub fn version_name(epoch: u64) -> String {
    format!("v-{epoch}-{}", Uuid::now_v7())
}

/// When a version was named, in microseconds since 1970; none if the name is not ours.
pub fn written_us(name: &str) -> Option<i64> {
    let (_, id) = name.strip_prefix("v-")?.split_once('-')?;
    let (seconds, nanos) = Uuid::try_parse(id).ok()?.get_timestamp()?.to_unix();
    i64::try_from(seconds).ok()?.checked_mul(1_000_000)?.checked_add(i64::from(nanos / 1_000))
}

/// Whether a directory's name is one that [`version_name`] makes.
pub(super) fn is_version_name(name: &str) -> bool {
    let parts = name.strip_prefix("v-").and_then(|rest| rest.split_once('-'));
    parts.is_some_and(|(epoch, id)| epoch.parse::<u64>().is_ok() && Uuid::try_parse(id).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_as_hive_does() {
        for (value, path) in [
            ("2024-07-01", "c=2024-07-01"),
            ("a b", "c=a b"),
            ("a/b", "c=a%2Fb"),
            ("a%b", "c=a%25b"),
            ("a=b", "c=a%3Db"),
            ("a:b", "c=a%3Ab"),
            ("Ünï", "c=Ünï"),
            ("\n", "c=%0A"),
            ("", "c=__HIVE_DEFAULT_PARTITION__"),
        ] {
            assert_eq!(PartitionKey::new([("c", value)]).to_string(), path);
        }
    }

    #[test]
    fn only_our_own_version_names_are_known() {
        assert!(is_version_name(&version_name(7)));
        for name in ["v-7", "v-x-0190a0b0-0000-7000-8000-000000000000", "window_date=2024-07-01", "v-7-data", "_tmp"] {
            assert!(!is_version_name(name), "{name}");
        }
    }

    #[test]
    fn a_version_tells_when_it_was_named() {
        let now_us = i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros()).unwrap();
        let written_us = written_us(&version_name(7)).unwrap();
        assert!((now_us - 1_000..now_us + 60_000_000).contains(&written_us), "{written_us} is not about {now_us}");
        assert!(["v-7", "_tmp", "v-x-1"].iter().all(|name| super::written_us(name).is_none()));
    }

    #[test]
    fn a_version_lies_below_all_keys() {
        let key = PartitionKey::new([("window_date", "2024-07-01"), ("window_hour", "13")]);
        let location = key.version_location("hdfs://n/gold/", "v-1-x");
        assert_eq!(location, "hdfs://n/gold/window_date=2024-07-01/window_hour=13/v-1-x");
        assert_eq!(version_of(&location), "v-1-x");
        assert_eq!(key.values(), ["2024-07-01", "13"]);
    }
}
