//! The engines that must read the tables, and what files have to be like for the oldest of them.
//!
//! | named | files of Iceberg tables | files of Hive tables |
//! |---|---|---|
//! | `hive-3.1` | snappy: unless Hadoop was built with zstd, Hive 3.1 counts zstd only without vectorised execution | snappy, instants as INT96 |
//! | `hive-4` | zstd | snappy, instants as INT96 |
//! | `iceberg-1.9` (Spark or Flink with an Iceberg older than 1.10) | 64-bit integers plain: its vectorised reader has no DELTA_BINARY_PACKED | |
//! | `trino`, `spark`, and nothing older | zstd | zstd, instants as INT64 microseconds without a zone |
//!
//! Each name only asks for more; the order says nothing. INT96 is what all Hives read, and with its footer key in any zone; INT64 is what
//! Trino reads in any zone, also with `hive.parquet.time-zone` set. Iceberg tables have format version 2. One becomes a table of version 3
//! when a column with a default is added, which only `spark` alone allows: Hive refuses that version, Trino 476 reads defaults as null, and
//! Iceberg's library reads them from 1.8 on.

use serde::{Deserialize, Serialize};

/// An engine, by the oldest version meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Engine {
    /// Hive 2.3 to 3.1, with Iceberg's runtime for it.
    #[serde(rename = "hive-3.1")]
    Hive3,
    #[serde(rename = "hive-4")]
    Hive4,
    #[serde(rename = "trino")]
    Trino,
    #[serde(rename = "spark")]
    Spark,
    /// An engine whose Iceberg library is older than 1.10.
    #[serde(rename = "iceberg-1.9")]
    OldIceberg,
}

/// `tables.compatibility`: the engines that must read every table. Default: Hive 4, Trino and Spark as they are today.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Compatibility(Vec<Engine>);

/// How the pages of a file are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    Snappy,
    Zstd,
}

/// How an instant stands in a file of a Hive table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instants {
    /// Nanoseconds of the day and the Julian day.
    Int96,
    /// Microseconds since 1970, not adjusted to UTC.
    Micros,
}

/// What the files of plain Hive tables are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HiveFiles {
    pub codec: Codec,
    pub instants: Instants,
}

impl Default for Compatibility {
    fn default() -> Self {
        Self(vec![Engine::Hive4, Engine::Trino, Engine::Spark])
    }
}

impl Default for HiveFiles {
    /// What every engine reads.
    fn default() -> Self {
        Self { codec: Codec::Snappy, instants: Instants::Int96 }
    }
}

impl Codec {
    /// As Iceberg's table property has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Snappy => "snappy",
            Self::Zstd => "zstd",
        }
    }
}

impl Compatibility {
    pub fn of(engines: &[Engine]) -> Self {
        Self(engines.to_vec())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn names(&self, engine: Engine) -> bool {
        self.0.contains(&engine)
    }

    /// The codec of Iceberg tables' data files.
    pub fn lake_codec(&self) -> Codec {
        if self.names(Engine::Hive3) { Codec::Snappy } else { Codec::Zstd }
    }

    /// Whether 64-bit integers of Iceberg tables may be delta encoded.
    pub fn reads_deltas(&self) -> bool {
        !self.names(Engine::OldIceberg)
    }

    /// Whether a column may have a default: whether every engine that is named shows it.
    pub fn reads_defaults(&self) -> bool {
        self.0.iter().all(|engine| *engine == Engine::Spark)
    }

    /// What plain Hive tables' files are like.
    pub fn hive_files(&self) -> HiveFiles {
        if self.names(Engine::Hive3) || self.names(Engine::Hive4) {
            HiveFiles { codec: Codec::Snappy, instants: Instants::Int96 }
        } else {
            HiveFiles { codec: Codec::Zstd, instants: Instants::Micros }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_engine_that_is_named_decides() {
        let newest = Compatibility::of(&[Engine::Spark, Engine::Trino]);
        assert_eq!((newest.lake_codec(), newest.reads_deltas()), (Codec::Zstd, true));
        assert!(!newest.reads_defaults() && Compatibility::of(&[Engine::Spark]).reads_defaults());
        assert_eq!(newest.hive_files(), HiveFiles { codec: Codec::Zstd, instants: Instants::Micros });
        let usual = Compatibility::default();
        assert_eq!((usual.lake_codec(), usual.hive_files()), (Codec::Zstd, HiveFiles::default()));
        let oldest = Compatibility::of(&[Engine::Spark, Engine::Hive3, Engine::OldIceberg]);
        assert_eq!(
            (oldest.lake_codec(), oldest.reads_deltas(), oldest.hive_files()),
            (Codec::Snappy, false, HiveFiles::default())
        );
    }
}
