//! Windows in memory: groups found by their dimensions' bytes, and their accumulators.
//!
//! *Invariants*: a window's groups depend only on which rows it was given, not on their order or batches. A window is dropped whole,
//! with everything it holds.

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, Rows, SortField};
use hashbrown::HashTable;

use super::accumulator::Accumulator;
use super::plan::{Evaluated, GoldPlan};
use crate::error::{Error, Result};

/// The rows of a batch by the window they belong to, in batch order.
pub fn rows_by_window(starts: &[i64]) -> Vec<(i64, Vec<u32>)> {
    let mut places: HashMap<i64, usize, ahash::RandomState> = HashMap::default();
    let mut windows: Vec<(i64, Vec<u32>)> = Vec::new();
    let mut current = None;
    for (row, start) in starts.iter().enumerate() {
        let place = match current {
            Some((known, place)) if known == *start => place,
            _ => match places.entry(*start) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    windows.push((*start, Vec::new()));
                    *new.insert(windows.len() - 1)
                }
            },
        };
        current = Some((*start, place));
        windows[place].1.push(row as u32);
    }
    windows
}

/// The groups of one window, by the bytes of their dimensions.
#[derive(Default)]
struct Groups {
    table: HashTable<u32>,
    bytes: Vec<u8>,
    /// Where each group's bytes end.
    ends: Vec<usize>,
    hasher: ahash::RandomState,
}

fn key<'a>(bytes: &'a [u8], ends: &[usize], group: u32) -> &'a [u8] {
    let group = group as usize;
    let start = if group == 0 { 0 } else { ends[group - 1] };
    &bytes[start..ends[group]]
}

impl Groups {
    fn find_or_add(&mut self, wanted: &[u8]) -> u32 {
        let Self { table, bytes, ends, hasher } = self;
        let hash = hasher.hash_one(wanted);
        if let Some(group) = table.find(hash, |group| key(bytes, ends, *group) == wanted) {
            return *group;
        }
        let group = ends.len() as u32;
        bytes.extend_from_slice(wanted);
        ends.push(bytes.len());
        table.insert_unique(hash, group, |group| hasher.hash_one(key(bytes, ends, *group)));
        group
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn memory_bytes(&self) -> usize {
        self.table.allocation_size() + self.bytes.capacity() + self.ends.capacity() * 8
    }
}

/// One window's aggregates.
pub struct Window {
    groups: Groups,
    accumulators: Vec<Box<dyn Accumulator>>,
    /// Silver rows in it.
    pub rows: u64,
    /// It has changed since it was written.
    pub dirty: bool,
}

impl Window {
    pub fn new(plan: &GoldPlan) -> Result<Self> {
        Ok(Self { groups: Groups::default(), accumulators: plan.accumulators()?, rows: 0, dirty: false })
    }

    /// Adds those rows of a batch that belong to this window.
    pub fn add(&mut self, rows: &[u32], batch: &Evaluated) -> Result<()> {
        let groups: Vec<u32> = match &batch.keys {
            Some(keys) => rows.iter().map(|row| self.find_group(keys, *row)).collect(),
            None => vec![self.groups.find_or_add(&[]); rows.len()],
        };
        for (accumulator, argument) in self.accumulators.iter_mut().zip(&batch.arguments) {
            accumulator.update(rows, &groups, self.groups.len(), argument)?;
        }
        self.rows += rows.len() as u64;
        self.dirty = true;
        Ok(())
    }

    fn find_group(&mut self, keys: &Rows, row: u32) -> u32 {
        self.groups.find_or_add(keys.row(row as usize).data())
    }

    pub fn memory_bytes(&self) -> usize {
        self.groups.memory_bytes() + self.accumulators.iter().map(|accumulator| accumulator.memory_bytes()).sum::<usize>()
    }

    /// The window's rows of the gold table.
    pub fn finish(&self, plan: &GoldPlan, start_us: i64) -> Result<RecordBatch> {
        let instants = |instant: i64| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from_value(instant, self.groups.len())) };
        let mut columns = vec![instants(start_us), instants(plan.windows().end_of(start_us))];
        if let Some(converter) = plan.dimensions() {
            let parser = converter.parser();
            let keys = (0..self.groups.len() as u32).map(|group| parser.parse(key(&self.groups.bytes, &self.groups.ends, group)));
            columns.extend(converter.convert_rows(keys)?);
        }
        for accumulator in &self.accumulators {
            columns.push(accumulator.finish()?);
        }
        Ok(RecordBatch::try_new(plan.schema().clone(), columns)?)
    }
}

/// Windows by their start.
#[derive(Default)]
pub struct State {
    pub windows: BTreeMap<i64, Window>,
    memory_bytes: usize,
}

impl State {
    /// Adds rows of one window, which is begun if it is not there.
    pub fn add(&mut self, plan: &GoldPlan, start_us: i64, rows: &[u32], batch: &Evaluated) -> Result<()> {
        let window = match self.windows.entry(start_us) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => new.insert(Window::new(plan)?),
        };
        let before = window.memory_bytes();
        window.add(rows, batch)?;
        self.memory_bytes = self.memory_bytes + window.memory_bytes() - before;
        Ok(())
    }

    pub fn remove(&mut self, start_us: i64) -> Option<Window> {
        let window = self.windows.remove(&start_us)?;
        self.memory_bytes -= window.memory_bytes();
        Some(window)
    }

    /// Drops the oldest window.
    pub fn remove_first(&mut self) -> Option<(i64, Window)> {
        let (start_us, _) = self.windows.first_key_value()?;
        let start_us = *start_us;
        Some((start_us, self.remove(start_us)?))
    }

    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }
}

/// Puts gold rows into the order in which files hold them: by window, then by dimensions, null first. No two rows are equal in these,
/// so the order depends on nothing else.
pub fn sorted(plan: &GoldPlan, batches: &[RecordBatch]) -> Result<RecordBatch> {
    let rows = concat_batches(plan.schema(), batches)?;
    let key_columns = 2 + plan.settings().dimensions.len();
    let keys: Vec<ArrayRef> = rows.columns()[..key_columns].to_vec();
    let converter = RowConverter::new(keys.iter().map(|array| SortField::new(DataType::clone(array.data_type()))).collect())?;
    let keys = converter.convert_columns(&keys)?;
    let mut order: Vec<u32> =
        (0..u32::try_from(rows.num_rows()).map_err(|_| Error::failed("a partition has over 2^32 rows"))?).collect();
    order.sort_unstable_by(|a, b| keys.row(*a as usize).cmp(&keys.row(*b as usize)));
    if let Some(pair) = order.windows(2).find(|pair| keys.row(pair[0] as usize) == keys.row(pair[1] as usize)) {
        return Err(Error::failed(format!("rows {} and {} of a partition are of the same group", pair[0], pair[1])));
    }
    Ok(take_record_batch(&rows, &UInt32Array::from(order))?)
}
