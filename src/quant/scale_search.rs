//! The scale of one channel of weights that makes plain rounding lose least.
//!
//! Minimises `E(s) = Σ (w − s·clip(round(w/s)))²` over `s = k·max|w| / q_max`. A smaller k clips the few largest weights
//! and rounds all others more finely; the fewer the bits, the smaller the best k. E is piecewise smooth with many
//! shallow local minima, hence: a coarse grid of k, a finer one around its best point twice, then the alternation
//! `s ← Σ w·q / Σ q²` (exact least squares for the integers q), `q ← round(w/s)`, neither half of which can raise E. The
//! result is compared with the unclipped scale in double precision, so it is never worse than that.
//!
//! Powers of two are few: those from the first that clips nothing down are all tried.
//!
//! The grids work on `w / max|w|` in single precision with a fixed number of partial sums: no overflow for any weight,
//! and the same bits on any machine and any number of threads.

use rayon::prelude::*;

use super::rounding::{limit, round_half_even};
use super::spec::{LARGEST_MAGNITUDE, normal_scale};
use super::{GridSpec, power_of_two};

/// Points of the coarse grid.
const COARSE_POINTS: usize = 32;
/// Points on either side of the best one in each finer grid.
const FINE_POINTS: usize = 4;
/// How often the grid is made finer.
const REFINEMENTS: usize = 2;
/// How often the least-squares alternation may run.
const REFITS: usize = 6;
/// How often a power of two is halved.
const HALVINGS: i32 = 6;
/// Partial sums of the error, so that they fill vector registers.
const LANES: usize = 16;
/// Values summed in single precision before the sum is widened.
const BLOCK: usize = 4096;
/// Values from which on one channel is worth more than one thread.
const PARALLEL_VALUES: usize = 1 << 18;

/// One channel's weights and the integers they may take.
pub(super) struct Channel<'a> {
    values: &'a [f32],
    low: f32,
    high: f32,
    bits: u8,
    absolute_maximum: f32,
}

impl<'a> Channel<'a> {
    /// A channel of finite values on a symmetric grid.
    pub(super) fn new(values: &'a [f32], grid: GridSpec) -> Self {
        let absolute_maximum = values.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
        let (low, high) = (grid.quantized_min() as f32, grid.quantized_max() as f32);
        Self { values, low, high, bits: grid.bits(), absolute_maximum }
    }

    /// Whether every value is zero, so that no scale is better than another.
    pub(super) fn is_zero(&self) -> bool {
        self.absolute_maximum == 0.0
    }

    /// The scale that clips nothing (except near the end of the floats).
    pub(super) fn unclipped_scale(&self) -> f32 {
        normal_scale(f64::from(self.absolute_maximum.min(LARGEST_MAGNITUDE)) / f64::from(self.high))
    }

    /// The integer of one weight, by the arithmetic of `QuantizeLinear`.
    fn round(&self, value: f32, scale: f32) -> f32 {
        round_half_even(limit(value / scale, self.low, self.high))
    }

    /// The channel's integers with the given scale.
    pub(super) fn quantize(&self, scale: f32) -> Vec<i8> {
        self.values.iter().map(|&value| self.round(value, scale) as i8).collect()
    }

    /// E(s), in double precision, with the products a runtime would compute.
    fn exact_error(&self, scale: f32) -> f64 {
        sum_blocks(self.values, |block| {
            block.iter().map(|&value| (f64::from(value) - f64::from(self.round(value, scale) * scale)).powi(2)).sum()
        })
    }

    /// The least-squares scale for the integers that `scale` gives; none if all of them are zero.
    fn refit(&self, scale: f32) -> Option<f32> {
        let moment = |block: &[f32], weigh: fn(f64, f64) -> f64| {
            block.iter().map(|&value| weigh(f64::from(value), f64::from(self.round(value, scale)))).sum()
        };
        let products = sum_blocks(self.values, |block| moment(block, |value, integer| value * integer));
        let squares = sum_blocks(self.values, |block| moment(block, |_, integer| integer * integer));
        (squares > 0.0).then(|| normal_scale(products / squares))
    }

    /// The best scale found.
    pub(super) fn search(&self) -> f32 {
        let unclipped = self.unclipped_scale();
        let searched = normal_scale(f64::from(unclipped) * f64::from(self.search_ratio()));
        let mut best = [unclipped, searched]
            .map(|scale| (self.exact_error(scale), scale))
            .into_iter()
            .reduce(|first, second| if second.0 < first.0 { second } else { first })
            .unwrap_or((f64::INFINITY, unclipped));
        for _ in 0..REFITS {
            let Some(scale) = self.refit(best.1) else { break };
            let error = self.exact_error(scale);
            if error >= best.0 {
                break;
            }
            best = (error, scale);
        }
        best.1
    }

    /// The power of two with the least error; the larger of equals.
    pub(super) fn search_power_of_two(&self) -> f32 {
        let widest = power_of_two::ceiling(self.unclipped_scale().into());
        let candidates = (0..=HALVINGS).map(|halvings| (widest * 0.5_f32.powi(halvings)).max(f32::MIN_POSITIVE));
        let better = |best: (f64, f32), scale| {
            let error = self.exact_error(scale);
            if error < best.0 { (error, scale) } else { best }
        };
        candidates.fold((f64::INFINITY, widest), better).1
    }

    /// σ(b)·2^round(log2 max|w|).
    pub(super) fn shift(&self) -> f32 {
        let shift = f64::from(power_of_two::shift(self.absolute_maximum.into()));
        normal_scale(shift * 2_f64.powi(1 - i32::from(self.bits)))
    }

    /// The best k on the successively finer grids.
    fn search_ratio(&self) -> f32 {
        let unit: Vec<f32> = self.values.iter().map(|value| value / self.absolute_maximum).collect();
        let lowest = lowest_ratio(self.bits);
        let mut spacing = (1.0 - lowest) / (COARSE_POINTS - 1) as f32;
        // From wide to narrow, so that ties clip less.
        let coarse = (0..COARSE_POINTS).map(|step| 1.0 - step as f32 * spacing);
        let mut best = self.best_ratio(&unit, (f64::INFINITY, 1.0), coarse);
        for _ in 0..REFINEMENTS {
            spacing /= (FINE_POINTS + 1) as f32;
            let center = best.1;
            let steps = (1..=FINE_POINTS).flat_map(|step| [step as f32, -(step as f32)]);
            best = self.best_ratio(&unit, best, steps.map(|step| center + step * spacing));
        }
        best.1
    }

    /// The better of `best` and the candidates, as (error, k).
    fn best_ratio(&self, unit: &[f32], best: (f64, f32), candidates: impl Iterator<Item = f32>) -> (f64, f32) {
        candidates.fold(best, |best, ratio| {
            let error = self.unit_error(unit, ratio / self.high);
            if error < best.0 { (error, ratio) } else { best }
        })
    }

    /// E for weights divided by their largest magnitude.
    fn unit_error(&self, unit: &[f32], scale: f32) -> f64 {
        let inverse = 1.0 / scale;
        let squared = |value: f32| {
            let difference = value - round_half_even(limit(value * inverse, self.low, self.high)) * scale;
            difference * difference
        };
        sum_blocks(unit, |block| {
            let (chunks, rest) = block.as_chunks::<LANES>();
            let mut lanes = [0.0f32; LANES];
            for chunk in chunks {
                for (lane, &value) in lanes.iter_mut().zip(chunk) {
                    *lane += squared(value);
                }
            }
            let tail: f32 = rest.iter().map(|&value| squared(value)).sum();
            lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>() + f64::from(tail)
        })
    }
}

/// The smallest k worth trying. Gaussian weights want about 0.35 at 2 bits and 0.95 at 8; the margins below that are
/// for heavier tails and for whole tensors under one scale.
fn lowest_ratio(bits: u8) -> f32 {
    match bits {
        0..=2 => 0.05,
        3 => 0.1,
        4 => 0.2,
        5 => 0.35,
        6 => 0.5,
        7 => 0.65,
        _ => 0.8,
    }
}

/// Adds up `sum` over blocks of fixed size in their order; big slices use several threads for the blocks.
fn sum_blocks(values: &[f32], sum: impl Fn(&[f32]) -> f64 + Send + Sync) -> f64 {
    if values.len() < PARALLEL_VALUES {
        values.chunks(BLOCK).map(sum).sum()
    } else {
        let sums: Vec<f64> = values.par_chunks(BLOCK).map(sum).collect();
        sums.into_iter().sum()
    }
}
