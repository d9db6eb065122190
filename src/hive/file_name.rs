//! Names of the files that a logged table's commits bring: which commit brought a file, and which offsets of which topic partitions it holds.
//!
//! `000000000017_0.0-1500_1.200-280.3.json`: commit 17; partition 0 from offset 0 to before 1500, partition 1 from 200 to before 280, where 3
//! offsets have no record. Numbers that would make a name too long are written in base 36, after an `x`.

use std::collections::BTreeMap;

use crate::checkpoint::{Coverage, OffsetRange, PartitionId, base36};

/// Topic partitions in one file. With more a name could outgrow the 255 bytes that HDFS and local file systems allow; so many fit with
/// offsets beyond 10^14.
pub const PARTITIONS_PER_FILE: usize = 6;

/// Names longer than this are written in base 36.
const DECIMAL_BYTES_MAX: usize = 200;

/// The name of a file that commit `sequence` brings; `suffix` begins with a dot and has eight bytes at the most.
pub fn format(sequence: u64, partitions: &BTreeMap<PartitionId, Coverage>, suffix: &str) -> String {
    let decimal = format_with(sequence, "", partitions, &|number| number.to_string());
    let name = if decimal.len() <= DECIMAL_BYTES_MAX { decimal } else { format_with(sequence, "_x", partitions, &base36) };
    name + suffix
}

fn format_with(
    sequence: u64,
    mark: &str,
    partitions: &BTreeMap<PartitionId, Coverage>,
    number: &dyn Fn(u64) -> String,
) -> String {
    let mut name = format!("{sequence:012}{mark}");
    for (partition, Coverage { range, records }) in partitions {
        let numbers = [*partition as u64, range.start as u64, range.end as u64].map(number);
        name.push_str(&format!("_{}.{}-{}", numbers[0], numbers[1], numbers[2]));
        let missing = (range.len() as u64).saturating_sub(*records);
        if missing > 0 {
            name.push_str(&format!(".{}", number(missing)));
        }
    }
    name
}

/// What a name says; none for a file that is not a commit's.
pub fn parse(name: &str, suffix: &str) -> Option<BTreeMap<PartitionId, Coverage>> {
    let mut parts = name.strip_suffix(suffix)?.split('_').peekable();
    let sequence = parts.next()?;
    if sequence.len() < 12 || !sequence.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let radix = if parts.next_if_eq(&"x").is_some() { 36 } else { 10 };
    let number = |digits: &str| i64::from_str_radix(digits, radix).ok().filter(|number| *number >= 0);
    let mut partitions = BTreeMap::new();
    for part in parts {
        let mut fields = part.split('.');
        let partition = PartitionId::try_from(number(fields.next()?)?).ok()?;
        let (start, end) = fields.next()?.split_once('-')?;
        let (start, end) = (number(start)?, number(end)?);
        let missing = fields.next().map_or(Some(0), number)?;
        let records = u64::try_from(end.checked_sub(start)?.checked_sub(missing)?).ok()?;
        let range = OffsetRange { start, end };
        if fields.next().is_some() || partitions.insert(partition, Coverage { range, records }).is_some() {
            return None;
        }
    }
    (!partitions.is_empty()).then_some(partitions)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn coverage(start: i64, end: i64, records: u64) -> Coverage {
        Coverage { range: OffsetRange::new(start, end), records }
    }

    #[test]
    fn a_person_can_read_a_name() {
        let partitions = BTreeMap::from([(0, coverage(0, 1500, 1500)), (1, coverage(200, 280, 77))]);
        assert_eq!(format(17, &partitions, ".json"), "000000000017_0.0-1500_1.200-280.3.json");
    }

    #[test]
    fn the_longest_name_fits_a_directory_entry() {
        let far = 200_000_000_000_000;
        let partitions =
            (0..PARTITIONS_PER_FILE as i32).map(|partition| (99_990 + partition, coverage(far, far + 40_000_000, 9)));
        let partitions = partitions.collect();
        let name = format(999_999_999_999, &partitions, ".parquet");
        assert!(name.len() <= 255, "{} bytes: {name}", name.len());
        assert_eq!(parse(&name, ".parquet"), Some(partitions));
    }

    #[test]
    fn names_of_others_are_not_understood() {
        for name in [
            "part-00000.json",
            "000000000017.json",
            "000000000017_0.0-1500",
            "000000000017_0.5-3.json",
            "000000000017_0.0-3.4.json",
            "000000000017_0.0-3_0.3-4.json",
            "17_0.0-3.json",
            "000000000017_0.0-3.1.1.json",
            "000000000017_-1.0-3.json",
        ] {
            assert_eq!(parse(name, ".json"), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_says_what_it_was_made_of(
            sequence in 0u64..1 << 40,
            ranges in prop::collection::btree_map(0i32..100_000, (0i64..1 << 40, 0i64..1 << 30, 0.0f64..=1.0), 1..=PARTITIONS_PER_FILE),
        ) {
            let partitions: BTreeMap<_, _> = ranges
                .into_iter()
                .map(|(partition, (start, length, share))| (partition, coverage(start, start + length, (length as f64 * share) as u64)))
                .collect();
            prop_assert_eq!(parse(&format(sequence, &partitions, ".json"), ".json"), Some(partitions));
        }
    }
}
