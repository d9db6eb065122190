//! `COUNT(DISTINCT x)`, exact: the values of every group are held, as bytes one after the other.
//!
//! A window of a busy topic has millions of different values, so what each takes beside its own bytes decides how much memory gold needs:
//! here two to six bytes in the buffer, and five for each place in a table that is half full to seven eighths full.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};
use hashbrown::HashTable;
use integer_encoding::VarInt;

use super::accumulator::{Accumulator, Argument, for_each_valid, unexpected_argument};
use crate::error::{Error, Result};

#[derive(Default)]
pub struct CountDistinct {
    seen: ByteStrings,
    counts: Vec<i64>,
    /// A value behind its group's number, as it is looked up.
    key: Vec<u8>,
}

impl CountDistinct {
    fn add(&mut self, group: usize, value: &[u8]) -> Result<()> {
        let mut number = [0; 10];
        let length = group.encode_var(&mut number);
        self.key.clear();
        self.key.extend_from_slice(&number[..length]);
        self.key.extend_from_slice(value);
        self.counts[group] += i64::from(self.seen.insert(&self.key)?);
        Ok(())
    }
}

impl Accumulator for CountDistinct {
    fn update(&mut self, rows: &[u32], groups: &[u32], group_count: usize, argument: &Argument) -> Result<()> {
        self.counts.resize(group_count, 0);
        let mut added = Ok(());
        let mut add = |group, value: &[u8]| {
            if added.is_ok() {
                added = self.add(group, value);
            }
        };
        match argument {
            Argument::Bytes(values) => {
                for_each_valid(rows, groups, values.nulls(), |row, group| add(group, values.value(row)));
            }
            Argument::Encoded { rows: encoded, nulls } => {
                for_each_valid(rows, groups, nulls.as_ref(), |row, group| add(group, encoded.row(row).data()));
            }
            _ => return Err(unexpected_argument()),
        }
        added
    }

    fn finish(&self) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from(self.counts.clone())))
    }

    fn memory_bytes(&self) -> usize {
        self.seen.memory_bytes() + self.counts.capacity() * 8 + self.key.capacity()
    }
}

/// A set of byte strings in one buffer, each behind its length, with a table of where they begin.
#[derive(Default)]
struct ByteStrings {
    /// In units of [`ALIGNMENT`].
    starts: HashTable<u32>,
    bytes: Vec<u8>,
    hasher: ahash::RandomState,
}

/// What 32 bits can number reaches 16 GiB by it.
const ALIGNMENT: usize = 4;

fn at(bytes: &[u8], start: u32) -> &[u8] {
    let string = &bytes[start as usize * ALIGNMENT..];
    usize::decode_var(string).map_or(&[], |(length, prefix)| &string[prefix..prefix + length])
}

impl ByteStrings {
    /// Whether it is new.
    fn insert(&mut self, string: &[u8]) -> Result<bool> {
        let Self { starts, bytes, hasher } = self;
        let hash = hasher.hash_one(string);
        if starts.find(hash, |start| at(bytes, *start) == string).is_some() {
            return Ok(false);
        }
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        let start = u32::try_from(bytes.len() / ALIGNMENT).map_err(|_| {
            Error::stop("the different values of a window take more than 16 GiB").hint("count distinct values of shorter windows")
        })?;
        let mut length = [0; 10];
        let prefix = string.len().encode_var(&mut length);
        bytes.extend_from_slice(&length[..prefix]);
        bytes.extend_from_slice(string);
        starts.insert_unique(hash, start, |start| hasher.hash_one(at(bytes, *start)));
        Ok(true)
    }

    fn memory_bytes(&self) -> usize {
        self.starts.allocation_size() + self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use arrow::array::BinaryArray;
    use arrow::row::{RowConverter, SortField};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_of_byte_strings_holds_what_it_was_given(
            strings in prop::collection::vec(prop::collection::vec(0u8..3, 0..6), 0..200),
            long in 0usize..70_000,
        ) {
            let mut known = HashSet::new();
            let mut set = ByteStrings::default();
            for string in strings.iter().chain([&vec![7; long], &vec![7; long]]) {
                prop_assert_eq!(set.insert(string).unwrap(), known.insert(string.clone()));
            }
        }

        #[test]
        fn values_are_counted_by_group_in_either_form(
            values in prop::collection::vec((0u32..300, prop::option::of(prop::collection::vec(0u8..3, 0..3))), 1..200),
        ) {
            let array = BinaryArray::from_iter(values.iter().map(|(_, value)| value.as_deref()));
            let rows: Vec<u32> = (0..values.len() as u32).collect();
            let groups: Vec<u32> = values.iter().map(|(group, _)| *group).collect();
            let mut expected = vec![HashSet::new(); 300];
            for (group, value) in &values {
                expected[*group as usize].extend(value);
            }
            let expected: ArrayRef = Arc::new(Int64Array::from_iter_values(expected.iter().map(|values| values.len() as i64)));
            let converter = RowConverter::new(vec![SortField::new(arrow::datatypes::DataType::Binary)]).unwrap();
            let encoded = converter.convert_columns(&[Arc::new(array.clone())]).unwrap();
            let nulls = array.nulls().cloned();
            for argument in [Argument::Bytes(array), Argument::Encoded { rows: encoded, nulls }] {
                let mut count = CountDistinct::default();
                // Twice: nothing is new the second time.
                count.update(&rows, &groups, 300, &argument).unwrap();
                count.update(&rows, &groups, 300, &argument).unwrap();
                prop_assert_eq!(&count.finish().unwrap(), &expected);
            }
        }
    }

    #[test]
    fn a_value_of_ten_bytes_takes_less_than_thirty() {
        let count = 100_000;
        let array = BinaryArray::from_iter_values((0..count).map(|number| format!("ORD{number:07}")));
        let rows: Vec<u32> = (0..count).collect();
        let mut distinct = CountDistinct::default();
        distinct.update(&rows, &vec![0; count as usize], 1, &Argument::Bytes(array)).unwrap();
        assert!(distinct.memory_bytes() < 30 * count as usize, "{} bytes", distinct.memory_bytes());
    }
}
