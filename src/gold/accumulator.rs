//! Aggregates of one window, all its groups side by side: a column of numbers per aggregate, indexed by group.
//!
//! *Invariants*: integers and decimals are summed exactly, in 128 bits; what does not fit its column is an error, never a wrapped
//! number. Distinct values are held, not sketched (`distinct`). The order of rows changes no result (sums of floating-point numbers carry a
//! second number with what rounding lost, so that only their last bit could).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, Decimal128Array, Float64Array, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows};

use super::average::{AVERAGE_SCALE, average};
use crate::error::{Error, Result};

/// Digits of sums and averages of decimals.
pub const SUM_PRECISION: u8 = 38;

/// An aggregate's argument in a batch, in the form in which its accumulator takes it.
pub enum Argument {
    /// `COUNT(*)` looks at no value.
    None,
    /// `COUNT(x)` looks only at which values are null.
    Nulls(Option<NullBuffer>),
    Integers(Int64Array),
    Decimals(Decimal128Array),
    Floats(Float64Array),
    /// Texts and binary values as they are.
    Bytes(BinaryArray),
    /// Values as comparable bytes, for any type.
    Encoded {
        rows: Rows,
        nulls: Option<NullBuffer>,
    },
}

/// One aggregate of all groups of a window.
pub trait Accumulator: Send + Sync {
    /// Adds rows of a batch: `rows[i]` belongs to group `groups[i]`; there are `group_count` groups by now.
    fn update(&mut self, rows: &[u32], groups: &[u32], group_count: usize, argument: &Argument) -> Result<()>;

    /// The results, by group.
    fn finish(&self) -> Result<ArrayRef>;

    fn memory_bytes(&self) -> usize;
}

pub(super) fn unexpected_argument() -> Error {
    Error::failed("an aggregate got an argument of another type than it was planned for")
}

fn overflow(what: &str) -> Error {
    Error::stop(format!("{what} does not fit its column"))
        .hint("cast the measure's argument to a type with fewer places, or measure shorter windows")
}

pub(super) fn for_each_valid(rows: &[u32], groups: &[u32], nulls: Option<&NullBuffer>, mut f: impl FnMut(usize, usize)) {
    let pairs = rows.iter().zip(groups).map(|(row, group)| (*row as usize, *group as usize));
    match nulls.filter(|nulls| nulls.null_count() > 0) {
        None => pairs.for_each(|(row, group)| f(row, group)),
        Some(nulls) => pairs.filter(|(row, _)| nulls.is_valid(*row)).for_each(|(row, group)| f(row, group)),
    }
}

/// `COUNT(*)` and `COUNT(x)`.
#[derive(Default)]
pub struct Count {
    counts: Vec<i64>,
}

impl Accumulator for Count {
    fn update(&mut self, rows: &[u32], groups: &[u32], group_count: usize, argument: &Argument) -> Result<()> {
        self.counts.resize(group_count, 0);
        let nulls = match argument {
            Argument::None => None,
            Argument::Nulls(nulls) => nulls.as_ref(),
            _ => return Err(unexpected_argument()),
        };
        for_each_valid(rows, groups, nulls, |_, group| self.counts[group] += 1);
        Ok(())
    }

    fn finish(&self) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from(self.counts.clone())))
    }

    fn memory_bytes(&self) -> usize {
        self.counts.capacity() * 8
    }
}

/// What an exact sum becomes in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SumOutput {
    Integer,
    Decimal { scale: i8 },
    Average { scale: i8 },
}

/// `SUM` and `AVG` of integers and decimals.
pub struct ExactSum {
    output: SumOutput,
    sums: Vec<i128>,
    counts: Vec<i64>,
}

impl ExactSum {
    pub fn new(output: SumOutput) -> Self {
        Self { output, sums: Vec::new(), counts: Vec::new() }
    }
}

impl Accumulator for ExactSum {
    fn update(&mut self, rows: &[u32], groups: &[u32], group_count: usize, argument: &Argument) -> Result<()> {
        self.sums.resize(group_count, 0);
        self.counts.resize(group_count, 0);
        let (sums, counts) = (&mut self.sums, &mut self.counts);
        let mut overflowed = false;
        let mut add = |group: usize, value: i128| {
            let (sum, wrapped) = sums[group].overflowing_add(value);
            sums[group] = sum;
            counts[group] += 1;
            overflowed |= wrapped;
        };
        match argument {
            Argument::Integers(values) => {
                let numbers = values.values();
                for_each_valid(rows, groups, values.nulls(), |row, group| add(group, i128::from(numbers[row])));
            }
            Argument::Decimals(values) => {
                let numbers = values.values();
                for_each_valid(rows, groups, values.nulls(), |row, group| add(group, numbers[row]));
            }
            _ => return Err(unexpected_argument()),
        }
        if overflowed { Err(overflow("a sum")) } else { Ok(()) }
    }

    fn finish(&self) -> Result<ArrayRef> {
        let groups = self.sums.iter().zip(&self.counts).map(|(sum, count)| (*count > 0).then_some((*sum, *count)));
        let decimals = |numbers: Result<Vec<Option<i128>>>, scale: i8| -> Result<ArrayRef> {
            Ok(Arc::new(Decimal128Array::from(numbers?).with_precision_and_scale(SUM_PRECISION, scale)?))
        };
        match self.output {
            SumOutput::Integer => {
                let number = |(sum, _)| i64::try_from(sum).map_err(|_| overflow("a sum of integers"));
                let sums: Vec<Option<i64>> = groups.map(|group| group.map(number).transpose()).collect::<Result<_>>()?;
                Ok(Arc::new(Int64Array::from(sums)))
            }
            SumOutput::Decimal { scale } => {
                let number = |(sum, _): (i128, i64)| {
                    if sum.unsigned_abs() < 10u128.pow(38) { Ok(sum) } else { Err(overflow("a sum of decimals")) }
                };
                decimals(groups.map(|group| group.map(number).transpose()).collect(), scale)
            }
            SumOutput::Average { scale } => {
                let number = |(sum, count)| average(sum, scale, count).ok_or_else(|| overflow("an average"));
                decimals(groups.map(|group| group.map(number).transpose()).collect(), AVERAGE_SCALE)
            }
        }
    }

    fn memory_bytes(&self) -> usize {
        self.sums.capacity() * 16 + self.counts.capacity() * 8
    }
}

/// `SUM` and `AVG` of floating-point numbers, with the rounding errors kept apart (Neumaier).
#[derive(Default)]
pub struct FloatSum {
    average: bool,
    sums: Vec<f64>,
    lost: Vec<f64>,
    counts: Vec<i64>,
}

impl FloatSum {
    pub fn sum() -> Self {
        Self::default()
    }

    pub fn average() -> Self {
        Self { average: true, ..Self::default() }
    }
}

impl Accumulator for FloatSum {
    fn update(&mut self, rows: &[u32], groups: &[u32], group_count: usize, argument: &Argument) -> Result<()> {
        self.sums.resize(group_count, 0.0);
        self.lost.resize(group_count, 0.0);
        self.counts.resize(group_count, 0);
        let Argument::Floats(values) = argument else { return Err(unexpected_argument()) };
        for_each_valid(rows, groups, values.nulls(), |row, group| {
            let (value, sum) = (values.value(row), self.sums[group]);
            let total = sum + value;
            if total.is_finite() {
                self.lost[group] += if sum.abs() >= value.abs() { (sum - total) + value } else { (value - total) + sum };
            }
            self.sums[group] = total;
            self.counts[group] += 1;
        });
        Ok(())
    }

    fn finish(&self) -> Result<ArrayRef> {
        let results = (0..self.sums.len()).map(|group| {
            let sum = self.sums[group] + self.lost[group];
            let divisor = if self.average { self.counts[group] as f64 } else { 1.0 };
            (self.counts[group] > 0).then_some(sum / divisor)
        });
        Ok(Arc::new(results.collect::<Float64Array>()))
    }

    fn memory_bytes(&self) -> usize {
        (self.sums.capacity() + self.lost.capacity() + self.counts.capacity()) * 8
    }
}

/// Which end of the order `MIN` or `MAX` keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extreme {
    Min,
    Max,
}

/// `MIN` and `MAX` of any type, compared by their encoded bytes. The encoding puts null behind every value for `MIN` and before every
/// value for `MAX`, so a group begins with null and nulls need no case of their own.
pub struct MinMax {
    keep: Extreme,
    converter: Arc<RowConverter>,
    null: Box<[u8]>,
    best: Vec<Box<[u8]>>,
    heap_bytes: usize,
}

impl MinMax {
    /// `converter` is the one that encodes the arguments, of one column of `data_type`.
    pub fn new(keep: Extreme, converter: Arc<RowConverter>, data_type: &DataType) -> Result<Self> {
        let null = converter.convert_columns(&[arrow::array::new_null_array(data_type, 1)])?;
        let null = null.row(0).data().into();
        Ok(Self { keep, converter, null, best: Vec::new(), heap_bytes: 0 })
    }
}

impl Accumulator for MinMax {
    fn update(&mut self, rows: &[u32], groups: &[u32], group_count: usize, argument: &Argument) -> Result<()> {
        let Argument::Encoded { rows: encoded, .. } = argument else { return Err(unexpected_argument()) };
        self.heap_bytes += (group_count - self.best.len()) * self.null.len();
        self.best.resize(group_count, self.null.clone());
        for_each_valid(rows, groups, None, |row, group| {
            let row = encoded.row(row);
            let value: &[u8] = row.data();
            let best = &mut self.best[group];
            let better = match self.keep {
                Extreme::Min => value < &best[..],
                Extreme::Max => value > &best[..],
            };
            if better {
                self.heap_bytes = self.heap_bytes + value.len() - best.len();
                *best = value.into();
            }
        });
        Ok(())
    }

    fn finish(&self) -> Result<ArrayRef> {
        let parser = self.converter.parser();
        let mut columns = self.converter.convert_rows(self.best.iter().map(|bytes| parser.parse(bytes)))?;
        columns.pop().ok_or_else(unexpected_argument)
    }

    fn memory_bytes(&self) -> usize {
        self.best.capacity() * 16 + self.heap_bytes
    }
}
