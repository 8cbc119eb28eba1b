//! The range with the least expected squared error on a grid.
//!
//! The error of value x on a grid with step s is e(x) = x − s·n, n the integer round(x/s) limited to the grid. Values
//! are assumed to be uniform within a bin, and the expectation is then exact: with u = x/s, n(u) the limited integer
//! and r = u − n,
//!
//! ∫ e² dx = s³·F(u),  F(u) = n/12 + r³/3,
//!
//! because each full cell of the grid contributes ∫ r² = 1/12 and n stops growing where clipping begins. So a bin \[l,
//! h\] has mean error s³·(F(h/s) − F(l/s))/(h − l). One formula covers bins narrower than the step (where it becomes
//! the error at the bin's centre plus the variance within), wider bins (where it becomes s²/12), bins across the
//! clipping point, and clipped bins. The outermost bins end at the exact extremes, so that many values at one extreme,
//! as behind a Clip, have their exact error. Zeros have no error.
//!
//! Those that calibrate are not the only ones who are to be quantized: the values that other samples are likely to have
//! beyond the extremes ([`Peaks`](super::Peaks)) count as much as one value at each end. So the range of few values ends
//! beyond them, and among very many values one more decides nothing.

use super::search::{NARROW, Place, grow, search};
use super::{Bin, Histogram, Statistics};
use crate::quant::{Affine, GridSpec, Range};

/// Share of the error that is not worth a wider range.
const NEGLIGIBLE: f64 = 1e-3;

/// The range of least expected squared error on `grid`, of the values seen and of those to be expected.
pub(super) fn range(statistics: &Statistics, grid: GridSpec) -> Range {
    let bins: Vec<Bin> = statistics.histogram.bins().collect();
    let beyond = Beyond::of(statistics);
    let error = |affine: &Affine| summed_error(&bins, affine) + beyond.error(affine);
    let found = search(&statistics.histogram, grid, error);
    let affine = grid.affine(found);
    if beyond.error(&affine) <= NEGLIGIBLE * error(&affine) {
        return found;
    }
    let open = beyond.ends.each_ref().map(|end| !end.is_empty());
    grow(found, open, grid, error)
}

/// The share of the error to be expected on other samples that values have which lie beyond all seen; 0 without values.
pub(super) fn unseen_share(statistics: &Statistics, affine: &Affine) -> f64 {
    let bins: Vec<Bin> = statistics.histogram.bins().collect();
    let beyond = Beyond::of(statistics).error(affine);
    let total = summed_error(&bins, affine) + beyond;
    if total > 0.0 { beyond / total } else { 0.0 }
}

/// Values expected beyond those seen.
struct Beyond {
    ends: [Vec<f64>; 2],
    /// The share of all values that bins count, and so what a value at an end counts.
    weight: f64,
}

impl Beyond {
    fn of(Statistics { histogram, peaks, .. }: &Statistics) -> Self {
        let weight = histogram.binned() as f64 / histogram.count().max(1) as f64;
        Self { ends: peaks.beyond(), weight }
    }

    /// The expectation of (x − x̂)² of a value at each end, summed.
    fn error(&self, affine: &Affine) -> f64 {
        let place = Place::on(affine);
        let squared = |&value: &f64| {
            let (unit, integer) = place.of(value);
            (unit - integer).powi(2)
        };
        let mean = |end: &Vec<f64>| end.iter().map(squared).sum::<f64>() / end.len().max(1) as f64;
        self.weight * self.ends.iter().map(mean).sum::<f64>() * f64::from(affine.scale).powi(2)
    }
}

/// The mean of (x − x̂)² over the binned values, in squared units of the tensor; 0 if there are none.
///
/// Assumes that values are uniform within each bin.
pub fn expected_squared_error(histogram: &Histogram, affine: &Affine) -> f64 {
    let bins: Vec<Bin> = histogram.bins().collect();
    let total = histogram.binned();
    if total == 0 { 0.0 } else { summed_error(&bins, affine) / total as f64 }
}

/// The expectation of Σ (x − x̂)² over the bins.
fn summed_error(bins: &[Bin], affine: &Affine) -> f64 {
    let scale = f64::from(affine.scale);
    let place = Place::on(affine);
    let in_steps: f64 = bins
        .iter()
        .map(|bin| {
            let [(start, rest, before), (end, _, after)] = [bin.lower, bin.upper].map(|value| {
                let (unit, integer) = place.of(value);
                let rest = unit - integer;
                (unit, rest, integer / 12.0 + rest * rest * rest / 3.0)
            });
            let width = end - start;
            // Too narrow for a difference quotient: all values are treated as equal.
            let mean = if width > NARROW { (after - before) / width } else { rest * rest };
            bin.count as f64 * mean
        })
        .sum();
    in_steps * scale * scale
}
