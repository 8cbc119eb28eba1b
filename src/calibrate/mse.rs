//! The range with the least expected squared error on a grid.
//!
//! The error of value x on a grid with step s is e(x) = x − s·n, n the integer round(x/s) limited to the grid. Within a
//! bin values are taken as evenly spread, and then the expectation is exact: with u = x/s, n(u) the limited integer
//! and r = u − n,
//!
//! ∫ e² dx = s³·F(u),  F(u) = n/12 + r³/3,
//!
//! because each full cell of the grid contributes ∫ r² = 1/12 and n stops growing where clipping begins. So a bin
//! \[l, h\] has mean error s³·(F(h/s) − F(l/s))/(h − l). One formula covers bins narrower than the step (where it becomes
//! the error at the bin's centre plus the variance within), wider ones (where it becomes s²/12), those that straddle
//! the clipping point, and clipped ones. The outermost bins end at the exact extremes, so a mass of values at the
//! largest one, as Clip makes, counts as what it is. Zeros cost nothing.
//!
//! The search tries \[a·min, b·max\] with a and b in (0, 1\], on a coarse grid that is made finer around its best point;
//! for symmetric grids and one-sided data there is one ratio, otherwise two. Each candidate is judged by the grid that
//! would really be used, zero point rounded.

use super::{Bin, Histogram};
use crate::quant::{Affine, GridSpec, Range, round_half_even_f64};

/// Places of the coarse search of one ratio.
const COARSE_SINGLE: u32 = 100;
/// Places of the coarse search of two ratios, for each.
const COARSE_PAIR: u32 = 16;
/// How often the search of one ratio is made finer, each time by [`FINER_SINGLE`].
const ROUNDS_SINGLE: usize = 2;
/// The factor by which the search of one ratio is made finer.
const FINER_SINGLE: f32 = 5.0;
/// How often the search of two ratios is made finer, each time by 2.
const ROUNDS_PAIR: usize = 4;

/// The range of least expected squared error on `grid`.
pub(super) fn range(histogram: &Histogram, grid: GridSpec) -> Range {
    let Some(extremes) = histogram.range() else { return Range::default() };
    let search = Search { bins: histogram.bins().collect(), grid };
    if grid.is_symmetric() {
        let magnitude = extremes.absolute_maximum();
        search.single(|ratio| Range::new(-magnitude * ratio, magnitude * ratio))
    } else if extremes.min >= 0.0 || extremes.max <= 0.0 {
        let extremes = extremes.with_zero();
        search.single(|ratio| Range::new(extremes.min * ratio, extremes.max * ratio))
    } else {
        search.pair(extremes)
    }
}

/// The mean of (x − x̂)² over the binned values, in squared units of the tensor; 0 if there are none.
///
/// Assumes that values are evenly spread within each bin, see the formula above.
pub fn expected_squared_error(histogram: &Histogram, affine: &Affine) -> f64 {
    let bins: Vec<Bin> = histogram.bins().collect();
    let total = histogram.binned();
    if total == 0 { 0.0 } else { summed_error(&bins, affine) / total as f64 }
}

/// The expectation of Σ (x − x̂)² over the bins.
fn summed_error(bins: &[Bin], affine: &Affine) -> f64 {
    let scale = f64::from(affine.scale);
    let inverse = 1.0 / scale;
    let low = f64::from(affine.quantized_min - affine.zero_point);
    let high = f64::from(affine.quantized_max - affine.zero_point);
    // The distance r to the grid, and F.
    let place = |value: f64| {
        let unit = value * inverse;
        let limited = if unit < low { low } else { unit };
        let integer = round_half_even_f64(if limited > high { high } else { limited });
        let rest = unit - integer;
        (unit, rest, integer / 12.0 + rest * rest * rest / 3.0)
    };
    let in_steps: f64 = bins
        .iter()
        .map(|bin| {
            let (start, rest, before) = place(bin.lower);
            let (end, _, after) = place(bin.upper);
            let width = end - start;
            // Too narrow for a difference quotient: all values are in one place.
            let mean = if width > 1e-6 { (after - before) / width } else { rest * rest };
            bin.count as f64 * mean
        })
        .sum();
    in_steps * scale * scale
}

/// A search of ranges for one grid.
struct Search {
    bins: Vec<Bin>,
    grid: GridSpec,
}

impl Search {
    /// The summed error of the grid that a range leads to.
    fn error(&self, range: Range) -> f64 {
        summed_error(&self.bins, &self.grid.affine(range))
    }

    /// The best of the ranges that one ratio gives.
    fn single(&self, range: impl Fn(f32) -> Range) -> Range {
        let mut spacing = 1.0 / COARSE_SINGLE as f32;
        // From wide to narrow, so that ties clip less.
        let coarse = (1..=COARSE_SINGLE).rev().map(|place| place as f32 * spacing);
        let mut best = self.best((f64::INFINITY, 1.0), coarse, &range);
        for _ in 0..ROUNDS_SINGLE {
            spacing /= FINER_SINGLE;
            let center = best.1;
            let finer = (-5..=5i8).rev().map(|place| center + f32::from(place) * spacing);
            best = self.best(best, finer, &range);
        }
        range(best.1)
    }

    /// The better of `best` and the candidates, as (error, ratio).
    fn best(
        &self,
        best: (f64, f32),
        candidates: impl Iterator<Item = f32>,
        range: &impl Fn(f32) -> Range,
    ) -> (f64, f32) {
        candidates.filter(|&ratio| is_ratio(ratio)).fold(best, |best, ratio| {
            let error = self.error(range(ratio));
            if error < best.0 { (error, ratio) } else { best }
        })
    }

    /// The best range with a ratio for each end.
    fn pair(&self, extremes: Range) -> Range {
        let mut spacing = 1.0 / COARSE_PAIR as f32;
        let places: Vec<f32> = (1..=COARSE_PAIR).rev().map(|place| place as f32 * spacing).collect();
        let mut best = self.best_pair((f64::INFINITY, [1.0, 1.0]), &places, &places, extremes);
        for _ in 0..ROUNDS_PAIR {
            spacing /= 2.0;
            let [below, above] = best.1.map(|center| [2.0, 1.0, 0.0, -1.0, -2.0].map(|place| center + place * spacing));
            best = self.best_pair(best, &below, &above, extremes);
        }
        scaled(extremes, best.1)
    }

    /// The better of `best` and all pairs of candidates, as (error, ratios of the lower and upper end).
    fn best_pair(&self, mut best: (f64, [f32; 2]), below: &[f32], above: &[f32], extremes: Range) -> (f64, [f32; 2]) {
        for &lower in below.iter().filter(|&&ratio| is_ratio(ratio)) {
            for &upper in above.iter().filter(|&&ratio| is_ratio(ratio)) {
                let error = self.error(scaled(extremes, [lower, upper]));
                if error < best.0 {
                    best = (error, [lower, upper]);
                }
            }
        }
        best
    }
}

/// Whether a candidate lies in (0, 1].
fn is_ratio(ratio: f32) -> bool {
    ratio > 0.0 && ratio <= 1.0
}

/// The range with each end multiplied by its ratio.
fn scaled(range: Range, [below, above]: [f32; 2]) -> Range {
    Range::new(range.min * below, range.max * above)
}
