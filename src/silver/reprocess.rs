//! The note of a reprocessing under way: which records are decided anew, and how far that is.
//!
//! Silver's table bears it from before the first row is computed until all tables agree again, so that whoever goes on after a kill knows what
//! is left, and whoever compares the tables knows where they may differ.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::checkpoint::{Coverage, OffsetRange, PartitionId, format_positions, parse_positions};
use crate::error::{Error, Result};
use crate::gold::Again;

/// Silver's note.
pub const REPROCESSING: &str = "lakesmith.reprocessing";

/// A reprocessing of records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reprocessing {
    /// Also the commit id of the replacements in silver and rejected.
    pub id: Uuid,
    /// Offsets whose records are decided anew, by topic partition.
    #[serde(with = "as_positions")]
    pub ranges: BTreeMap<PartitionId, OffsetRange>,
    /// Of these only the ones that were rejected.
    pub only_rejected: bool,
    /// What was asked for, in the words of whoever asks: silver has more offsets by the time at which it is asked again.
    pub asked: String,
    /// Fingerprint of the definition by which they are.
    pub definition: String,
    /// What it means for gold, by table; none until the rows are computed.
    pub gold: Option<BTreeMap<String, Again>>,
}

impl Reprocessing {
    /// Reads silver's note.
    pub fn of(note: Option<&str>) -> Result<Option<Self>> {
        let unreadable = |error| {
            Error::stop(format!("silver's property {REPROCESSING} cannot be read"))
                .caused_by(error)
                .hint("was it written by a newer lakesmith? finish the reprocessing with that one")
        };
        note.map(|note| serde_json::from_str(note).map_err(unreadable)).transpose()
    }

    pub fn to_note(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::failed("a note is not JSON").caused_by(error))
    }

    /// Offsets in all partitions.
    pub fn offsets(&self) -> u64 {
        self.ranges.values().map(|range| range.len() as u64).sum()
    }

    /// The ranges as a person reads them: `0:[120,340) 1:[7,9)`.
    pub fn display_ranges(&self) -> String {
        let range = |(partition, range): (&PartitionId, &OffsetRange)| format!("{partition}:[{},{})", range.start, range.end);
        self.ranges.iter().map(range).collect::<Vec<_>>().join(" ")
    }
}

/// Ranges in the form of a checkpoint's positions, which is the shortest.
mod as_positions {
    use serde::de::Error as _;
    use serde::{Deserializer, Serializer};

    use super::*;

    pub fn serialize<S: Serializer>(ranges: &BTreeMap<PartitionId, OffsetRange>, serializer: S) -> Result<S::Ok, S::Error> {
        let whole = |(partition, range): (&PartitionId, &OffsetRange)| {
            (*partition, Coverage { range: *range, records: range.len() as u64 })
        };
        serializer.serialize_str(&format_positions(&ranges.iter().map(whole).collect()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<PartitionId, OffsetRange>, D::Error> {
        let positions = parse_positions(&String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        Ok(positions.into_iter().map(|(partition, coverage)| (partition, coverage.range)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back() {
        let reprocessing = Reprocessing {
            id: Uuid::now_v7(),
            ranges: BTreeMap::from([(0, OffsetRange::new(3, 900)), (7, OffsetRange::new(0, 1))]),
            only_rejected: true,
            asked: "all of it".into(),
            definition: "abc".into(),
            gold: None,
        };
        let again = Again { id: reprocessing.id, spans: Vec::new(), floor: BTreeMap::from([(0, 3)]) };
        let later = Reprocessing { gold: Some(BTreeMap::from([("g".to_owned(), again)])), ..reprocessing.clone() };
        for known in [reprocessing, later] {
            assert_eq!(Reprocessing::of(Some(&known.to_note().unwrap())).unwrap(), Some(known));
        }
        assert_eq!(Reprocessing::of(None).unwrap(), None);
        assert!(Reprocessing::of(Some("{}")).is_err());
    }

    #[test]
    fn ranges_are_shown_half_open() {
        let text = r#"{"id":"00000000-0000-0000-0000-000000000000","ranges":"d;0:1+2","only_rejected":false,"asked":"","definition":"","gold":null}"#;
        let reprocessing = Reprocessing::of(Some(text)).unwrap().unwrap();
        assert_eq!((reprocessing.display_ranges().as_str(), reprocessing.offsets()), ("0:[1,3)", 2));
    }
}
