//! Random numbers that are the same on every machine and in every version: row *n* of a seed has its own stream of a ChaCha8 cipher,
//! and numbers are mapped to ranges here, not by a library that may change how it does it.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::catalogue::{WEIGHT_SUM, Weighted};

/// The random numbers of one row.
pub struct Draw(ChaCha8Rng);

/// What is drawn about a row. Each purpose has streams of its own, so that a change to one leaves the others as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Sale = 0,
    Defect = 1,
    Time = 2,
}

impl Draw {
    pub fn new(seed: u64, purpose: Purpose, row: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8] = purpose as u8;
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(row);
        Self(generator)
    }

    /// A number below `bound`, evenly distributed (to within 2⁻³² of the bound).
    pub fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.0.next_u32()) * u64::from(bound)) >> 32) as u32
    }

    pub fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u32) as usize]
    }

    pub fn weighted<T: Copy>(&mut self, list: &[Weighted<T>]) -> T {
        let mut drawn = self.below(WEIGHT_SUM);
        for (item, weight) in list {
            match drawn.checked_sub(*weight) {
                Some(rest) => drawn = rest,
                None => return *item,
            }
        }
        list[list.len() - 1].0
    }

    /// True for about `share` (0 to 1) of the rows.
    pub fn happens(&mut self, share: f64) -> bool {
        f64::from(self.0.next_u32()) < share * 4_294_967_296.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_row_draws_the_same_and_other_rows_draw_others() {
        let five = |seed, purpose, row| {
            let mut draw = Draw::new(seed, purpose, row);
            [(); 5].map(|()| draw.below(1_000_000))
        };
        assert_eq!(five(42, Purpose::Sale, 7), five(42, Purpose::Sale, 7));
        assert_ne!(five(42, Purpose::Sale, 7), five(42, Purpose::Sale, 8));
        assert_ne!(five(42, Purpose::Sale, 7), five(43, Purpose::Sale, 7));
        assert_ne!(five(42, Purpose::Sale, 7), five(42, Purpose::Defect, 7));
    }

    /// Pins the numbers themselves: a dependency that changes them would change every demo and every test that counts.
    #[test]
    fn the_numbers_are_those_of_the_first_release() {
        let mut draw = Draw::new(42, Purpose::Sale, 0);
        assert_eq!([(); 4].map(|()| draw.below(1_000_000)), [99_848, 348_254, 88_347, 285_698]);
    }
}
