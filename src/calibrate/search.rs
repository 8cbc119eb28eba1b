//! The search for the range whose grid has the least error, for any definition of the error.
//!
//! Candidates are \[a·min, b·max\] with a and b in (0, 1\], on a coarse grid that is refined around its best point; for
//! symmetric grids and one-sided data there is one ratio, otherwise two. The error of a candidate is that of its final
//! grid, with the zero point rounded. Of candidates with equal errors the one that clips less wins.
//!
//! Where the error counts values that are expected beyond the extremes, ends are then moved outwards ([`grow`]).

use super::Histogram;
use crate::quant::{Affine, GridSpec, Range, round_half_even_f64};

/// Bins narrower than this many steps are too narrow for a difference quotient.
pub(super) const NARROW: f64 = 1e-6;
/// Candidates of the coarse search of one ratio.
const COARSE_SINGLE: u32 = 100;
/// Candidates of the coarse search of two ratios, for each ratio.
const COARSE_PAIR: u32 = 16;
/// How often the search of one ratio is refined, each time by [`FINER_SINGLE`].
const ROUNDS_SINGLE: usize = 2;
/// The factor by which the search of one ratio is refined.
const FINER_SINGLE: f32 = 5.0;
/// How often the search of two ratios is refined, each time by 2.
const ROUNDS_PAIR: usize = 4;

/// Parts of the width of a range by which its ends are moved, one after the other.
const STEPS: [f32; 5] = [0.5, 0.25, 0.125, 0.0625, 0.03125];
/// How often an end moves by the same part at most.
const MOVES: usize = 8;

/// The range of least `objective` on `grid`; zero to zero for an empty histogram.
pub(super) fn search(histogram: &Histogram, grid: GridSpec, objective: impl Fn(&Affine) -> f64) -> Range {
    let Some(extremes) = histogram.range() else { return Range::default() };
    let search = Search { grid, objective };
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

/// The range with those of its upper and lower end that are `open` moved to where the error is least, in steps that become
/// smaller: outwards first.
pub(super) fn grow(found: Range, open: [bool; 2], grid: GridSpec, objective: impl Fn(&Affine) -> f64) -> Range {
    let found = found.with_zero();
    let width = found.max - found.min;
    let error = |range: Range| objective(&grid.affine(range));
    let upper = |range: Range, by: f32| Range::new(range.min, range.max + by).with_zero();
    let lower = |range: Range, by: f32| Range::new(range.min - by, range.max).with_zero();
    let ends: [&dyn Fn(Range, f32) -> Range; 2] = [&upper, &lower];
    let mut best = (error(found), found);
    for step in STEPS.iter().flat_map(|&step| [step, -step]) {
        for (moved, _) in ends.iter().zip(open).filter(|(_, is_open)| *is_open) {
            for _ in 0..MOVES {
                let range = moved(best.1, step * width);
                let lost = error(range);
                if lost >= best.0 || lost.is_nan() {
                    break;
                }
                best = (lost, range);
            }
        }
    }
    best.1
}

/// Values in steps of a grid.
pub(super) struct Place {
    inverse: f64,
    low: f64,
    high: f64,
}

impl Place {
    pub(super) fn on(affine: &Affine) -> Self {
        Self {
            inverse: 1.0 / f64::from(affine.scale),
            low: f64::from(affine.quantized_min - affine.zero_point),
            high: f64::from(affine.quantized_max - affine.zero_point),
        }
    }

    /// u = x/s, and the integer n to which it is rounded and limited.
    pub(super) fn of(&self, value: f64) -> (f64, f64) {
        let unit = value * self.inverse;
        // Limits are integers, so clipping may come before rounding.
        let limited = if unit < self.low { self.low } else { unit };
        (unit, round_half_even_f64(if limited > self.high { self.high } else { limited }))
    }
}

/// A search of ranges for one grid.
struct Search<F> {
    grid: GridSpec,
    objective: F,
}

impl<F: Fn(&Affine) -> f64> Search<F> {
    /// The error of the grid of a range.
    fn error(&self, range: Range) -> f64 {
        (self.objective)(&self.grid.affine(range))
    }

    /// The best range with one ratio for both ends.
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
