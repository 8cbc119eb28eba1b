//! The range that contains a given share of the values.
//!
//! For an asymmetric grid the share left out is split evenly: with p percent, the ends are the quantiles (1 − p/100)/2
//! and (1 + p/100)/2. A symmetric grid takes the p/100 quantile of the magnitudes on both sides. The f-quantile of N
//! values is read off the histogram at rank f·N, linearly within a bin, so it lies within a bin width of the value that
//! sorting would give.

use super::{BINS, Bin, Histogram};
use crate::quant::{GridSpec, Range};
use crate::scheme::observer::DEFAULT_PERCENTILE;

/// The range that holds `percentile` percent of the binned values; NaN counts as the default, values outside 50 to
/// 100 as the nearer of these.
pub(super) fn range(histogram: &Histogram, percentile: f64, grid: GridSpec) -> Range {
    let Some(extremes) = histogram.range() else { return Range::default() };
    let percentile = if percentile.is_nan() { DEFAULT_PERCENTILE } else { percentile.clamp(50.0, 100.0) };
    let share = percentile / 100.0;
    let total = histogram.binned() as f64;
    if grid.is_symmetric() {
        let limit = f64::from(extremes.absolute_maximum());
        let magnitude = at_rank(magnitudes(histogram), share * total).unwrap_or(limit).min(limit) as f32;
        return Range::new(-magnitude, magnitude);
    }
    let tail = (1.0 - share) / 2.0;
    // The upper end is searched from above, so that both tails are treated equally and 100 percent gives the extremes.
    let mirrored = |bin: Bin| Bin { lower: -bin.upper, upper: -bin.lower, count: bin.count };
    let lower = at_rank(ascending(histogram).into_iter(), tail * total);
    let upper = at_rank(ascending(histogram).into_iter().rev().map(mirrored), tail * total);
    let min = lower.map_or(extremes.min, |end| end as f32);
    let max = upper.map_or(extremes.max, |end| -end as f32);
    // Interpolation within the outermost bins may exceed the extremes.
    Range::new(min.clamp(extremes.min, extremes.max), max.clamp(extremes.min, extremes.max))
}

/// All binned values in ascending order, zeros as a bin without width.
fn ascending(histogram: &Histogram) -> Vec<Bin> {
    let zeros = Bin { lower: 0.0, upper: 0.0, count: histogram.zeros() };
    let (mut bins, above): (Vec<Bin>, Vec<Bin>) = histogram.bins().partition(|bin| bin.lower < 0.0);
    bins.push(zeros);
    bins.extend(above);
    bins
}

/// The magnitudes of all binned values in ascending order.
fn magnitudes(histogram: &Histogram) -> impl Iterator<Item = Bin> {
    let width = histogram.bin_width();
    let zeros = Bin { lower: 0.0, upper: 0.0, count: histogram.zeros() };
    let side = |side: &[u64], index: usize| side.get(index).copied().unwrap_or(0);
    let bins = (0..BINS).map(move |index| Bin {
        lower: width * index as f64,
        upper: width * (index + 1) as f64,
        count: side(histogram.positive(), index).saturating_add(side(histogram.negative(), index)),
    });
    std::iter::once(zeros).chain(bins)
}

/// The position below which `rank` values lie; at most the end of the last bin.
fn at_rank(bins: impl Iterator<Item = Bin>, rank: f64) -> Option<f64> {
    let mut below = 0.0;
    for bin in bins.filter(|bin| bin.count > 0) {
        let count = bin.count as f64;
        if below + count >= rank {
            return Some(bin.lower + (bin.upper - bin.lower) * ((rank - below) / count));
        }
        below += count;
    }
    None
}
