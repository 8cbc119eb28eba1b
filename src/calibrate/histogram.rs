//! A histogram of fixed size whose content does not depend on the order of the values.
//!
//! Each side of zero has [`BINS`] bins of one width 2^k: bin i above zero holds \[i·2^k, (i + 1)·2^k), bin i below zero
//! mirrors it, and zeros have a separate counter, since `ReLU` produces many exact zeros. k is the smallest exponent
//! with which the largest magnitude m fits: 2^(k+10) ≤ m < 2^(k+11), so at least half of the bins of one side are in
//! use and the resolution is m/1024 or better.
//!
//! When m grows, pairs of bins are added. Since all edges are multiples of 2^k, the sums are exactly the counts of the
//! wider bins: bin(x, k + 1) = ⌊bin(x, k) / 2⌋ in integers. Hence the histogram is a function of the multiset of values
//! alone, and merging is an exact, commutative and associative sum.

use serde::{Deserialize, Serialize};

use super::binning::{Counters, Extremes, SIDE, count};
use crate::quant::Range;

/// Bins on each side of zero.
pub const BINS: usize = SIDE;
/// The smallest k: widths stay normal floats, and so do their inverses.
const MINIMUM_EXPONENT: i32 = -126;
/// The largest k, that of the largest float.
const MAXIMUM_EXPONENT: i32 = 117;

/// Counts of finite values by bin, their exact extremes, and the number of all others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedHistogram")]
pub struct Histogram {
    /// k: bins are 2^k wide.
    exponent: i32,
    /// Counts above zero; empty until there is one.
    positive: Vec<u64>,
    /// Counts below zero; empty until there is one.
    negative: Vec<u64>,
    zeros: u64,
    range: Option<Range>,
    count: u64,
    nan: u64,
    infinite: u64,
}

/// [`Histogram`] as read from a file.
#[derive(Deserialize)]
struct UncheckedHistogram {
    exponent: i32,
    positive: Vec<u64>,
    negative: Vec<u64>,
    zeros: u64,
    range: Option<Range>,
    count: u64,
    nan: u64,
    infinite: u64,
}

impl TryFrom<UncheckedHistogram> for Histogram {
    type Error = &'static str;

    fn try_from(raw: UncheckedHistogram) -> Result<Self, Self::Error> {
        let UncheckedHistogram { exponent, positive, negative, zeros, range, count, nan, infinite } = raw;
        if [&positive, &negative].iter().any(|side| !side.is_empty() && side.len() != BINS) {
            return Err("a histogram of another number of bins");
        }
        let largest = range.map_or(0.0, Range::absolute_maximum);
        let ordered = range.is_none_or(|range| range.min <= range.max && largest.is_finite());
        if !ordered || exponent != exponent_for(largest) {
            return Err("a histogram whose bins do not fit its extremes");
        }
        Ok(Self { exponent, positive, negative, zeros, range, count, nan, infinite })
    }
}

/// One bin with a count above 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    /// Lower end of the bin, in the units of the tensor. No value of the bin lies below.
    pub lower: f64,
    /// Upper end of the bin. No value of the bin lies above.
    pub upper: f64,
    /// Number of values in the bin.
    pub count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            exponent: MINIMUM_EXPONENT,
            positive: Vec::new(),
            negative: Vec::new(),
            zeros: 0,
            range: None,
            count: 0,
            nan: 0,
            infinite: 0,
        }
    }
}

impl Histogram {
    /// An empty histogram.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts all values.
    pub fn observe(&mut self, values: &[f32]) {
        self.observe_strided(values, 1);
    }

    /// Takes the extremes of all values, but counts into bins only each `step`-th one, starting with the first.
    ///
    /// A `step` of 0 counts as 1. Choose one that shares no factor with the row length of the activation.
    ///
    /// Returns the extremes of the finite values among these.
    pub fn observe_strided(&mut self, values: &[f32], step: usize) -> Option<Range> {
        let extremes = Extremes::of(values);
        self.observe_known(values, step, &extremes);
        extremes.range
    }

    /// Counts every `step`-th value from that at `start` on; extremes are those of all values.
    pub(crate) fn observe_from(&mut self, values: &[f32], start: usize, step: usize) -> Option<Range> {
        let extremes = Extremes::of(values);
        self.observe_known(values.get(start..).unwrap_or_default(), step, &extremes);
        extremes.range
    }

    /// [`observe_strided`](Self::observe_strided) for values whose extremes are already known.
    pub(super) fn observe_known(&mut self, values: &[f32], step: usize, extremes: &Extremes) {
        self.add_extremes(extremes.range);
        self.count = self.count.saturating_add(extremes.finite);
        self.nan = self.nan.saturating_add(extremes.nan);
        self.infinite = self.infinite.saturating_add(extremes.infinite);
        let Some(range) = extremes.range else { return };
        reserve_side(&mut self.positive, range.max > 0.0);
        reserve_side(&mut self.negative, range.min < 0.0);
        if self.positive.is_empty() && self.negative.is_empty() {
            let zeros = values.iter().step_by(step.max(1)).filter(|value| **value == 0.0).count() as u64;
            self.zeros = self.zeros.saturating_add(zeros);
            return;
        }
        // A side without values uses temporary counters that stay at 0.
        let mut spare = Vec::new();
        let (positive, negative) = match (self.positive.is_empty(), self.negative.is_empty()) {
            (true, _) => (&mut spare, &mut self.negative),
            (_, true) => (&mut self.positive, &mut spare),
            _ => (&mut self.positive, &mut self.negative),
        };
        reserve_side(positive, true);
        reserve_side(negative, true);
        let mut counters = Counters { positive, negative, zeros: &mut self.zeros };
        count(values, step.max(1), extremes, power_of_two(-self.exponent), &mut counters);
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        self.add_extremes(other.range);
        let shift = self.exponent - other.exponent;
        add_side(&mut self.positive, &other.positive, shift);
        add_side(&mut self.negative, &other.negative, shift);
        self.zeros = self.zeros.saturating_add(other.zeros);
        self.count = self.count.saturating_add(other.count);
        self.nan = self.nan.saturating_add(other.nan);
        self.infinite = self.infinite.saturating_add(other.infinite);
    }

    /// Widens the range, and the bins until it fits.
    fn add_extremes(&mut self, range: Option<Range>) {
        let Some(range) = range else { return };
        let range = self.range.map_or(range, |known| known.union(range));
        self.range = Some(range);
        let exponent = exponent_for(range.absolute_maximum());
        let shift = exponent - self.exponent;
        if shift > 0 {
            for side in [&mut self.positive, &mut self.negative] {
                let narrow = std::mem::take(side);
                add_side(side, &narrow, shift);
            }
            self.exponent = exponent;
        }
    }

    /// The exact smallest and largest finite value; none before the first.
    pub fn range(&self) -> Option<Range> {
        self.range
    }

    /// Number of finite values, counted into bins or not.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Number of values counted into bins or as zeros.
    pub fn binned(&self) -> u64 {
        self.positive.iter().chain(&self.negative).fold(self.zeros, |sum, count| sum.saturating_add(*count))
    }

    /// Number of binned values that are exactly zero.
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// Number of NaN, which are not counted.
    pub fn nan(&self) -> u64 {
        self.nan
    }

    /// Number of infinities, which are not counted.
    pub fn infinite(&self) -> u64 {
        self.infinite
    }

    /// The width 2^k of the bins, in the units of the tensor.
    pub fn bin_width(&self) -> f64 {
        f64::from(power_of_two(self.exponent))
    }

    /// Counts above zero by distance from zero; empty if there are none.
    pub fn positive(&self) -> &[u64] {
        &self.positive
    }

    /// Counts below zero by distance from zero; empty if there are none.
    pub fn negative(&self) -> &[u64] {
        &self.negative
    }

    /// The bins with values in ascending order, zeros apart. The outermost are cut off at the exact extremes.
    pub fn bins(&self) -> impl Iterator<Item = Bin> {
        let range = self.range.unwrap_or_default();
        let (min, max) = (f64::from(range.min), f64::from(range.max));
        let width = self.bin_width();
        let below = self.negative.iter().enumerate().rev().map(move |(index, &count)| Bin {
            lower: (-width * (index + 1) as f64).max(min),
            upper: -width * index as f64,
            count,
        });
        let above = self.positive.iter().enumerate().map(move |(index, &count)| Bin {
            lower: width * index as f64,
            upper: (width * (index + 1) as f64).min(max),
            count,
        });
        below.chain(above).filter(|bin| bin.count > 0)
    }
}

/// Allocates the counters of a side before its first use.
fn reserve_side(side: &mut Vec<u64>, used: bool) {
    if used && side.is_empty() {
        side.resize(BINS, 0);
    }
}

/// Adds counts whose bins are narrower by a factor of 2^`shift`.
fn add_side(side: &mut Vec<u64>, narrow: &[u64], shift: i32) {
    reserve_side(side, !narrow.is_empty());
    let shift = shift.clamp(0, BINS.ilog2() as i32);
    for (index, count) in narrow.iter().enumerate() {
        let sum = &mut side[index >> shift];
        *sum = sum.saturating_add(*count);
    }
}

/// The smallest k for which bins of width 2^k reach beyond a finite magnitude.
fn exponent_for(magnitude: f32) -> i32 {
    let binary_exponent = ((magnitude.to_bits() >> 23) & 0xff) as i32 - 127;
    (binary_exponent + 1 - BINS.ilog2() as i32).clamp(MINIMUM_EXPONENT, MAXIMUM_EXPONENT)
}

/// 2^`exponent`, for exponents of normal floats.
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}
