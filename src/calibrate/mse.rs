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

use super::search::{NARROW, Place, search};
use super::{Bin, Histogram};
use crate::quant::{Affine, GridSpec, Range};

/// The range of least expected squared error on `grid`.
pub(super) fn range(histogram: &Histogram, grid: GridSpec) -> Range {
    let bins: Vec<Bin> = histogram.bins().collect();
    search(histogram, grid, |affine| summed_error(&bins, affine))
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
