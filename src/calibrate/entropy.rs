//! The range whose quantized distribution diverges least from the original one: `TensorRT`'s entropy calibration.
//!
//! For a candidate range of consecutive bins, P is the histogram with everything outside moved into the bins at the
//! ends, and Q is the inside at 2^b levels (2^(b−1) for the magnitudes of a symmetric grid): each level spreads its
//! counts evenly over those of its bins that P uses. The candidate with the least KL(P‖Q) = Σ P·ln(P/Q) wins; clipping
//! appears as mass of P at the ends that Q lacks.
//!
//! Differences from the usual implementations, whose choices make the result discontinuous:
//! * level boundaries are spread evenly over the bins, instead of leaving the remainder to the last level;
//! * Q is smoothed by ε at every bin that P uses, so that a level without counts inside has a large but finite cost;
//! * zeros are left out: every grid represents them exactly, so they do not affect the choice of the range;
//! * with values on both sides, the two ends are searched in turns.
//!
//! With prefix sums of n, of n·ln n and of the used bins, a candidate costs one logarithm per level.

use super::{BINS, Histogram};
use crate::quant::{GridSpec, Range};

/// ε: the share of the mass inside that is added to each bin in use.
const SMOOTHING: f64 = 1e-6;
/// Number of candidates for one end.
const CANDIDATES: usize = 256;
/// Number of searches of both ends.
const ROUNDS: usize = 3;
/// An end stays outside of the innermost 1/16 of its side, as in `TensorRT`.
const INNERMOST: usize = 16;

/// The range of least divergence; the exact extremes where there are fewer bins than levels.
pub(super) fn range(histogram: &Histogram, grid: GridSpec) -> Range {
    let Some(extremes) = histogram.range() else { return Range::default() };
    let width = histogram.bin_width();
    if grid.is_symmetric() {
        let magnitudes: Vec<u64> = (0..BINS)
            .map(|index| [histogram.positive(), histogram.negative()].iter().filter_map(|side| side.get(index)).sum())
            .collect();
        let magnitudes = &magnitudes[..used(&magnitudes)];
        let end = Line::new(magnitudes.iter()).best_end(0, 0, 1 << (grid.bits() - 1));
        let magnitude = ((end as f64 * width) as f32).min(extremes.absolute_maximum());
        return Range::new(-magnitude, magnitude);
    }
    let (below, above) = search_both(histogram, 1 << grid.bits());
    let (min, max) = (-(below as f64) * width, above as f64 * width);
    Range::new((min as f32).max(extremes.min), (max as f32).min(extremes.max))
}

/// The best numbers of bins below and above zero.
fn search_both(histogram: &Histogram, levels: usize) -> (usize, usize) {
    let (negative, positive) = (histogram.negative(), histogram.positive());
    let (negative, positive) = (&negative[..used(negative)], &positive[..used(positive)]);
    // One sequence of bins per direction, so that the same search moves either end.
    let rising = Line::new(negative.iter().rev().chain(positive));
    let falling = Line::new(positive.iter().rev().chain(negative));
    let (mut below, mut above) = (negative.len(), positive.len());
    for _ in 0..ROUNDS {
        let before = (below, above);
        above = rising.best_end(negative.len() - below, negative.len(), levels) - negative.len();
        below = falling.best_end(positive.len() - above, positive.len(), levels) - positive.len();
        if before == (below, above) {
            break;
        }
    }
    (below, above)
}

/// The number of bins up to the last one with a count.
fn used(side: &[u64]) -> usize {
    side.iter().rposition(|&count| count > 0).map_or(0, |last| last + 1)
}

/// Consecutive bins and their prefix sums, each one longer than the bins.
struct Line {
    counts: Vec<f64>,
    mass: Vec<f64>,
    in_use: Vec<f64>,
    weighted_logarithms: Vec<f64>,
}

impl Line {
    fn new<'a>(counts: impl Iterator<Item = &'a u64>) -> Self {
        let counts: Vec<f64> = counts.map(|&count| count as f64).collect();
        let mass = prefix_sums(&counts, |count| count);
        let in_use = prefix_sums(&counts, |count| f64::from(count > 0.0));
        let weighted_logarithms = prefix_sums(&counts, weighted_logarithm);
        Self { counts, mass, in_use, weighted_logarithms }
    }

    /// The best end of a range that begins at bin `start`; zero lies before bin `origin`.
    fn best_end(&self, start: usize, origin: usize, levels: usize) -> usize {
        let last = self.counts.len();
        let first = (origin + (last - origin).div_ceil(INNERMOST)).max(start + levels);
        if first >= last {
            return last;
        }
        // From wide to narrow, so that ties clip less.
        let step = (last - first).div_ceil(CANDIDATES);
        let mut best = (f64::INFINITY, last);
        for end in (first..=last).rev().step_by(step) {
            let divergence = self.divergence(start, end, levels);
            if divergence < best.0 {
                best = (divergence, end);
            }
        }
        best.1
    }

    /// KL(P‖Q) for the range of bins `start..end`, of which there are at least as many as `levels`, at least two.
    fn divergence(&self, start: usize, end: usize, levels: usize) -> f64 {
        let total = self.mass[self.counts.len()];
        let inside = self.mass[end] - self.mass[start];
        if inside <= 0.0 {
            return f64::INFINITY;
        }
        let (before, after) = (self.mass[start], total - self.mass[end]);
        let (first, last) = (self.counts[start], self.counts[end - 1]);
        // P alone may use the end bins.
        let extra_first = f64::from(first == 0.0 && before > 0.0);
        let extra_last = f64::from(last == 0.0 && after > 0.0);
        let in_use = self.in_use[end] - self.in_use[start] + extra_first + extra_last;
        let mut own = self.weighted_logarithms[end - 1] - self.weighted_logarithms[start + 1];
        own += weighted_logarithm(first + before) + weighted_logarithm(last + after);
        let mut cross = 0.0;
        for level in 0..levels {
            let low = start + level * (end - start) / levels;
            let high = start + (level + 1) * (end - start) / levels;
            let mass = self.mass[high] - self.mass[low];
            let mut in_use_here = self.in_use[high] - self.in_use[low];
            let mut clipped = mass;
            if level == 0 {
                (in_use_here, clipped) = (in_use_here + extra_first, clipped + before);
            }
            if level + 1 == levels {
                (in_use_here, clipped) = (in_use_here + extra_last, clipped + after);
            }
            if clipped > 0.0 {
                let told = (mass / in_use_here / inside + SMOOTHING) / (1.0 + SMOOTHING * in_use);
                cross += clipped * told.ln();
            }
        }
        (own - cross) / total - total.ln()
    }
}

/// n·ln n, 0 for 0.
fn weighted_logarithm(count: f64) -> f64 {
    if count > 0.0 { count * count.ln() } else { 0.0 }
}

/// The sums of the first 0, 1, 2, … of the counts, each mapped by `weigh`.
fn prefix_sums(counts: &[f64], weigh: impl Fn(f64) -> f64) -> Vec<f64> {
    let mut sum = 0.0;
    let sums = counts.iter().map(|&count| {
        sum += weigh(count);
        sum
    });
    std::iter::once(0.0).chain(sums).collect()
}
