//! What a computing engine's workers are told and what they answer: a job, its parts, and their results, as files and lines of text. Pure.
//!
//! A line is JSON in base64: no engine's row format has a character of it for its own. What a worker prints is marked in front, because engines
//! print other things beside it.
//!
//! *Invariants*: the parts of a job cover what the tables lack, each offset once; results are taken only if there is exactly one for each part,
//! of this job, for these offsets, with as many rows as its files have.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::checkpoint::{OffsetRange, PartitionId};
use crate::error::{Error, Result};
use crate::pipeline::reprocess::Definition;
use crate::table::{CarriedFiles, OffsetRanges};

/// In front of each result; what follows is one word in the alphabet of base64.
const MARK: &str = "lakesmith-part:";

/// Most parts of one job: a line of the script and a task of the engine each.
const PARTS_MAX: usize = 100_000;

/// What all parts have in common. Each run of a driver has a job of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Job {
    pub id: Uuid,
    /// As the driver has it, however it came by it; without what workers don't need, see [`Job::definition_for`].
    pub definition: Definition,
    /// `storage.block_size` to the byte: in the definition it is rounded.
    pub block_size_bytes: Option<u64>,
    /// Names what decides a record's fate; a worker whose own differs refuses.
    pub definition_hash: String,
    pub silver: Target,
    pub rejected: Target,
    pub bronze_uuid: Uuid,
    /// Of the records only those that the pipeline's rejected table holds.
    pub only_rejected: bool,
}

/// A table that is to get the rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Target {
    pub table: String,
    pub uuid: Uuid,
}

/// Offsets that one worker computes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub job: Uuid,
    pub number: usize,
    pub ranges: OffsetRanges,
}

/// What a worker wrote for a part. Nothing refers to the files yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartResult {
    pub part: Part,
    pub silver: CarriedFiles,
    pub rejected: CarriedFiles,
    /// Rows by topic partition.
    pub silver_rows: BTreeMap<PartitionId, u64>,
    pub rejected_rows: BTreeMap<PartitionId, u64>,
}

impl Job {
    /// The definition without source and gold: workers read bronze, and the source's options have passwords.
    pub fn definition_for(definition: &Definition) -> Definition {
        Definition { source: Default::default(), gold: Vec::new(), ..definition.clone() }
    }
}

impl Part {
    /// A part as the engine gets it.
    pub fn to_line(&self) -> Result<String> {
        to_word(self)
    }

    pub fn from_line(line: &str) -> Result<Self> {
        from_word(line).map_err(|error| error.context("this line names no part of a reprocessing"))
    }
}

impl PartResult {
    /// A result as a worker prints it.
    pub fn to_line(&self) -> Result<String> {
        Ok(format!("{MARK}{}", to_word(self)?))
    }

    /// The results in a line of an engine's output, whatever stands around them.
    pub fn in_line(line: &str) -> impl Iterator<Item = Result<Self>> {
        line.split(MARK).skip(1).map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"+/=".contains(c)).unwrap_or(rest.len());
            from_word(&rest[..end]).map_err(|error| error.context("the engine's output has a result that cannot be read"))
        })
    }
}

fn to_word<T: Serialize>(value: &T) -> Result<String> {
    let text = serde_json::to_vec(value).map_err(|error| Error::failed("this is not JSON").caused_by(error))?;
    Ok(STANDARD.encode(text))
}

fn from_word<T: DeserializeOwned>(word: &str) -> Result<T> {
    let text = STANDARD.decode(word.trim()).map_err(|error| Error::failed("this is not base64").caused_by(error))?;
    serde_json::from_slice(&text).map_err(|error| Error::failed("this is not what was expected").caused_by(error))
}

/// Cuts ranges into parts of so many offsets; the last one has what is left.
pub(super) fn split(job: Uuid, ranges: &OffsetRanges, offsets_per_part: u64) -> Result<Vec<Part>> {
    let size = i64::try_from(offsets_per_part).unwrap_or(i64::MAX).max(1);
    let offsets: i128 = ranges.values().map(|range| i128::from(range.len())).sum();
    if offsets / i128::from(size) >= PARTS_MAX as i128 {
        return Err(Error::config(format!("{offsets} offsets in parts of {size} are more than {PARTS_MAX} parts"))
            .hint("raise --part-records"));
    }
    let (mut parts, mut open, mut room) = (Vec::new(), OffsetRanges::new(), size);
    let mut close = |open: &mut OffsetRanges| {
        if !open.is_empty() {
            parts.push(Part { job, number: parts.len(), ranges: std::mem::take(open) });
        }
    };
    for (partition, range) in ranges {
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start.saturating_add(room));
            open.insert(*partition, OffsetRange { start, end });
            (room, start) = (room - (end - start), end);
            if room == 0 {
                close(&mut open);
                room = size;
            }
        }
    }
    close(&mut open);
    Ok(parts)
}

/// Stops unless there is exactly one result for each part; returns them in the order of the parts.
pub(super) fn ensure_complete(parts: &[Part], results: Vec<PartResult>) -> Result<Vec<PartResult>> {
    let wrong = |what: String| Error::failed(format!("the engine's answer is not for what was asked: {what}"));
    let mut found: BTreeMap<usize, PartResult> = BTreeMap::new();
    for result in results {
        let number = result.part.number;
        if parts.get(number) != Some(&result.part) {
            return Err(wrong(format!("part {number} of job {} is none of this job's", result.part.job)));
        }
        if found.insert(number, result).is_some() {
            return Err(wrong(format!("part {number} is there twice")));
        }
    }
    match parts.iter().find(|part| !found.contains_key(&part.number)) {
        None => Ok(found.into_values().collect()),
        Some(missing) => {
            let (number, all) = (missing.number, parts.len());
            Err(wrong(format!("part {number} is missing, {} of {all} are there", found.len()))
                .hint("the command of --engine-command must print every row of the script's query on its standard output"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: Uuid = Uuid::from_u128(7);

    fn ranges(ranges: &[(PartitionId, i64, i64)]) -> OffsetRanges {
        ranges.iter().map(|&(partition, start, end)| (partition, OffsetRange { start, end })).collect()
    }

    fn result(part: &Part) -> PartResult {
        let files = CarriedFiles::default();
        let rows = BTreeMap::from([(0, 3)]);
        PartResult {
            part: part.clone(),
            silver: files.clone(),
            rejected: files,
            silver_rows: rows,
            rejected_rows: BTreeMap::new(),
        }
    }

    #[test]
    fn parts_cover_the_ranges_once_and_are_of_one_size() {
        let asked = ranges(&[(0, 5, 30), (1, 0, 3), (2, 7, 7), (3, 100, 119)]);
        for size in [1, 4, 10, 25, 1_000] {
            let parts = split(JOB, &asked, size).unwrap();
            let mut joined = OffsetRanges::new();
            for (at, part) in parts.iter().enumerate() {
                let offsets: i64 = part.ranges.values().map(|range| range.len()).sum();
                assert!(offsets == size as i64 || at + 1 == parts.len() && offsets > 0, "{part:?}");
                assert_eq!((part.job, part.number), (JOB, at));
                for (partition, range) in &part.ranges {
                    let known = joined.entry(*partition).or_insert(OffsetRange { start: range.start, end: range.start });
                    assert_eq!(known.end, range.start);
                    known.end = range.end;
                }
            }
            assert_eq!(joined, ranges(&[(0, 5, 30), (1, 0, 3), (3, 100, 119)]));
        }
        assert_eq!(split(JOB, &ranges(&[]), 5).unwrap(), []);
        let error = split(JOB, &ranges(&[(0, 0, i64::MAX), (1, 0, i64::MAX)]), 10).unwrap_err();
        assert_eq!(error.hint_text(), Some("raise --part-records"));
        assert_eq!(split(JOB, &ranges(&[(0, 0, i64::MAX)]), u64::MAX).unwrap().len(), 1);
    }

    #[test]
    fn lines_have_nothing_that_a_row_format_takes_for_its_own() {
        let part = split(JOB, &ranges(&[(0, 5, 30)]), 100).unwrap().remove(0);
        let line = part.to_line().unwrap();
        assert!(line.chars().all(|c| c.is_ascii_alphanumeric() || "+/=".contains(c)), "{line}");
        assert_eq!(Part::from_line(&format!("{line}\n")).unwrap(), part);
        assert!(Part::from_line("").is_err() && Part::from_line("e30=").is_err() && Part::from_line(&line[..9]).is_err());
    }

    #[test]
    fn results_are_found_wherever_an_engine_prints_them() {
        let parts = split(JOB, &ranges(&[(0, 0, 9)]), 3).unwrap();
        let line = |at: usize| result(&parts[at]).to_line().unwrap();
        let found = |line: &str| PartResult::in_line(line).collect::<Result<Vec<_>>>();
        assert_eq!(found(&line(0)).unwrap(), [result(&parts[0])]);
        assert_eq!(found(&format!("| {} |", line(1))).unwrap(), [result(&parts[1])]);
        let json = format!("{{\"rows\": [[\"{}\"], [\"{}\"]]}}", line(1), line(2));
        assert_eq!(found(&json).unwrap(), [result(&parts[1]), result(&parts[2])]);
        assert_eq!(found("spark.sql.leafNodeDefaultParallelism\t3").unwrap(), []);
        assert!(found(&line(0)[..90]).is_err());
    }

    #[test]
    fn an_answer_is_complete_or_refused() {
        let parts = split(JOB, &ranges(&[(0, 0, 9)]), 3).unwrap();
        let all = || parts.iter().rev().map(result).collect::<Vec<_>>();
        let sorted = ensure_complete(&parts, all()).unwrap();
        assert_eq!(sorted.iter().map(|result| result.part.number).collect::<Vec<_>>(), [0, 1, 2]);

        let refused = |results| ensure_complete(&parts, results).unwrap_err().to_string();
        let mut missing = all();
        missing.remove(1);
        assert!(refused(missing).contains("part 1 is missing, 2 of 3 are there"));
        assert!(refused(Vec::new()).contains("part 0 is missing"));
        let mut twice = all();
        twice.push(result(&parts[2]));
        assert!(refused(twice).contains("part 2 is there twice"));
        let mut foreign = all();
        foreign[0].part.job = Uuid::from_u128(8);
        assert!(refused(foreign).contains("part 2 of job 00000000-0000-0000-0000-000000000008 is none of this job's"));
        let mut other = all();
        other[0].part.ranges = ranges(&[(0, 6, 8)]);
        assert!(refused(other).contains("is none of this job's"));
    }

    #[test]
    fn a_definition_arrives_as_it_was_without_what_is_secret() {
        let preset: toml::Table = include_str!("../../../config/amazon-sales.toml").parse().unwrap();
        let mut definition = Definition { silver: preset["silver"].clone().try_into().unwrap(), ..Definition::default() };
        definition.storage.warehouse = "hdfs://n:8020/w".into();
        definition.source.kafka.options.insert("sasl.password".into(), "hunter2".into());
        let sent = Job::definition_for(&definition);
        let text = serde_json::to_string(&sent).unwrap();
        assert!(!text.contains("hunter2"));
        assert_eq!(serde_json::from_str::<Definition>(&text).unwrap(), sent);
        assert_eq!((sent.silver, sent.storage), (definition.silver, definition.storage));
    }
}
