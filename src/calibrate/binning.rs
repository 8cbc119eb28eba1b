//! The two loops over every activation: extremes, and counting by bin.
//!
//! Both loops are written so that the compiler can vectorise them without `unsafe`: fixed numbers of partial results,
//! no branches, and conversions to integers separate from the increments. Counting is spread over several tables, since
//! increments of one address have to wait for each other, and neighbours in an activation often share a bin.

// Compiled into the function that chose the vectors.
#![allow(clippy::inline_always)]

use crate::quant::Range;
use pulp::{Arch, Simd, WithSimd};

/// Bins on each side of zero.
pub(super) const SIDE: usize = 2048;
/// Bins on both sides: those above zero, then those below.
const SLOTS: usize = 2 * SIDE;
/// Number of tables used in turns.
const TABLES: usize = 4;
/// Partial results of the extremes.
const LANES: usize = 16;
/// Values checked for NaN and infinity at once.
const BLOCK: usize = 4096;
/// Values whose bins are computed before they are counted.
const CHUNK: usize = 64;
/// Values below which several tables cost more than they gain.
const SMALL: usize = 8192;
/// Values counted before 32-bit counters are emptied.
const FLUSH: usize = 1 << 30;

/// The extremes of a slice.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extremes {
    /// The smallest and the largest finite value; `None` where there is no finite value.
    pub(super) range: Option<Range>,
    /// The number of finite values.
    pub(super) finite: u64,
    /// The number of NaN.
    pub(super) nan: u64,
    /// The number of infinities.
    pub(super) infinite: u64,
}

impl Extremes {
    /// Whether every value was finite.
    fn all_finite(&self) -> bool {
        self.nan == 0 && self.infinite == 0
    }

    /// Adds the extremes of another slice.
    fn merge(&mut self, other: Self) {
        self.range = match (self.range, other.range) {
            (Some(first), Some(second)) => Some(first.union(second)),
            (first, second) => first.or(second),
        };
        self.finite += other.finite;
        self.nan += other.nan;
        self.infinite += other.infinite;
    }

    /// The extremes of `values`.
    pub(super) fn of(values: &[f32]) -> Self {
        let mut total = Self::default();
        for block in values.chunks(BLOCK) {
            total.merge(Arch::new().dispatch(Finite(block)).unwrap_or_else(|| Self::of_any(block)));
        }
        total
    }

    /// The extremes of a block that is not empty; none if it holds NaN or infinity.
    #[inline(always)]
    fn of_finite(block: &[f32]) -> Option<Self> {
        let mut lows = [f32::INFINITY; LANES];
        let mut highs = [f32::NEG_INFINITY; LANES];
        // x·0 is NaN exactly for the values that are not finite, and NaN stays.
        let mut poison = [0.0f32; LANES];
        let (chunks, rest) = block.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                let value = chunk[lane];
                lows[lane] = if value < lows[lane] { value } else { lows[lane] };
                highs[lane] = if value > highs[lane] { value } else { highs[lane] };
                poison[lane] += value * 0.0;
            }
        }
        let finite = poison.iter().sum::<f32>() + rest.iter().map(|value| value * 0.0).sum::<f32>();
        let min = lows.iter().chain(rest).copied().fold(f32::INFINITY, f32::min);
        let max = highs.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
        // Adding zero turns −0 into 0, since the sign of a minimum of the two depends on the order.
        let range = Some(Range::new(min + 0.0, max + 0.0));
        (!finite.is_nan()).then_some(Self { range, finite: block.len() as u64, nan: 0, infinite: 0 })
    }

    /// The extremes of a block with values that are not finite.
    fn of_any(block: &[f32]) -> Self {
        let mut extremes = Self::default();
        for &value in block {
            if value.is_finite() {
                extremes.merge(Self {
                    range: Some(Range::new(value + 0.0, value + 0.0)),
                    finite: 1,
                    nan: 0,
                    infinite: 0,
                });
            } else if value.is_nan() {
                extremes.nan += 1;
            } else {
                extremes.infinite += 1;
            }
        }
        extremes
    }
}

/// A block of values, to be read with the vectors that the processor has. The result does not depend on them.
struct Finite<'a>(&'a [f32]);

impl WithSimd for Finite<'_> {
    type Output = Option<Extremes>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Option<Extremes> {
        Extremes::of_finite(self.0)
    }
}

/// The counters: one slice of [`SIDE`] counters per sign, and one counter for zeros.
pub(super) struct Counters<'a> {
    pub(super) positive: &'a mut [u64],
    pub(super) negative: &'a mut [u64],
    pub(super) zeros: &'a mut u64,
}

/// The slot of a finite value, where `inverse_width`·|value| < [`SIDE`]. Zeros share the first slot above zero.
#[inline]
fn slot(value: f32, inverse_width: f32) -> u32 {
    let bin = (value.abs() * inverse_width) as i32 as u32;
    bin | (u32::from(value < 0.0) * SIDE as u32)
}

/// Counts each `step`-th of the values, whose extremes are given; values that are not finite are skipped.
pub(super) fn count(values: &[f32], step: usize, extremes: &Extremes, inverse_width: f32, counters: &mut Counters) {
    if !extremes.all_finite() {
        let finite: Vec<f32> = values.iter().step_by(step).copied().filter(|value| value.is_finite()).collect();
        count_finite(&finite, inverse_width, counters);
    } else if step > 1 {
        let sampled: Vec<f32> = values.iter().step_by(step).copied().collect();
        count_finite(&sampled, inverse_width, counters);
    } else {
        count_finite(values, inverse_width, counters);
    }
}

/// Counts finite values.
fn count_finite(values: &[f32], inverse_width: f32, counters: &mut Counters) {
    if values.len() < SMALL {
        for &value in values {
            // Zeros add 0 to the bin they share: a branch would be mispredicted for every other ReLU output.
            let slot = slot(value, inverse_width) as usize;
            let side = if slot < SIDE { &mut *counters.positive } else { &mut *counters.negative };
            side[slot % SIDE] = side[slot % SIDE].saturating_add(u64::from(value != 0.0));
            *counters.zeros = counters.zeros.saturating_add(u64::from(value == 0.0));
        }
    } else {
        for part in values.chunks(FLUSH) {
            count_many(part, inverse_width, counters);
        }
    }
}

/// Counts up to 2^32 − 1 finite values by way of several tables.
fn count_many(values: &[f32], inverse_width: f32, counters: &mut Counters) {
    let mut tables = vec![[0u32; TABLES]; SLOTS];
    let mut zeros = 0u64;
    let (chunks, rest) = values.as_chunks::<CHUNK>();
    for chunk in chunks {
        let slots = chunk.map(|value| slot(value, inverse_width));
        zeros += u64::from(chunk.iter().map(|&value| u32::from(value == 0.0)).sum::<u32>());
        for turn in slots.as_chunks::<TABLES>().0 {
            for table in 0..TABLES {
                tables[turn[table] as usize % SLOTS][table] += 1;
            }
        }
    }
    for &value in rest {
        zeros += u64::from(value == 0.0);
        tables[slot(value, inverse_width) as usize % SLOTS][0] += 1;
    }
    // The first slot above zero has counted the zeros as well.
    let mut shared = zeros;
    let sides = counters.positive.iter_mut().chain(counters.negative.iter_mut());
    for (counter, turns) in sides.zip(&tables) {
        let sum: u64 = turns.iter().map(|&count| u64::from(count)).sum();
        *counter = counter.saturating_add(sum - std::mem::take(&mut shared));
    }
    *counters.zeros = counters.zeros.saturating_add(zeros);
}
