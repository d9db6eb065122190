//! Where reading begins when no table knows anything of the topic yet.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::checkpoint::PartitionId;

/// The configured beginning; applies only as long as the table has no checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Start {
    #[default]
    Earliest,
    /// Behind the newest record of the moment.
    Latest,
    /// The first record of this time or later.
    At(DateTime<Utc>),
    /// Given offsets; partitions that are not named begin at their earliest.
    Offsets(BTreeMap<PartitionId, i64>),
}

/// A text that names no beginning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("start `{0}` is neither earliest, latest, an instant such as 2025-01-01T00:00:00Z, nor offsets such as 0:100,1:250")]
pub struct BadStart(String);

impl FromStr for Start {
    type Err = BadStart;

    fn from_str(text: &str) -> Result<Self, BadStart> {
        match text.trim() {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        if let Ok(instant) = DateTime::parse_from_rfc3339(text.trim()) {
            return Ok(Self::At(instant.with_timezone(&Utc)));
        }
        let bad = || BadStart(text.to_owned());
        let mut offsets = BTreeMap::new();
        for pair in text.split(',') {
            let (partition, offset) = pair.split_once(':').ok_or_else(bad)?;
            let partition: PartitionId = partition.trim().parse().ok().filter(|id| *id >= 0).ok_or_else(bad)?;
            let offset: i64 = offset.trim().parse().ok().filter(|offset| *offset >= 0).ok_or_else(bad)?;
            if offsets.insert(partition, offset).is_some() {
                return Err(bad());
            }
        }
        Ok(Self::Offsets(offsets))
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earliest => f.write_str("earliest"),
            Self::Latest => f.write_str("latest"),
            Self::At(instant) => f.write_str(&instant.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)),
            Self::Offsets(offsets) => {
                let pairs: Vec<String> = offsets.iter().map(|(partition, offset)| format!("{partition}:{offset}")).collect();
                f.write_str(&pairs.join(","))
            }
        }
    }
}

impl TryFrom<String> for Start {
    type Error = BadStart;

    fn try_from(text: String) -> Result<Self, BadStart> {
        text.parse()
    }
}

impl From<Start> for String {
    fn from(start: Start) -> Self {
        start.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_back_as_written() {
        for text in ["earliest", "latest", "2025-01-01T00:00:00Z", "0:100,1:250"] {
            assert_eq!(text.parse::<Start>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_forms_that_exist() {
        for text in ["", "newest", "0", "0:x", "-1:5", "0:-2", "0:1,0:2"] {
            assert!(text.parse::<Start>().unwrap_err().to_string().contains("earliest"), "{text}");
        }
    }
}
