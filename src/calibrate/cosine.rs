//! The range whose quantized values have the largest cosine with the values: `EasyQuant`'s measure.
//!
//! Equations (6) and (7) of the MSQ paper measure a grid by the cosine similarity of the values r and their quantized
//! form r̄, cos = Σ r·r̄ / √(Σ r² · Σ r̄²). In steps of the grid r = u = n + e, where n is u rounded and limited to the
//! grid. With E = Σ e², N = Σ n² and P = Σ n·e, Lagrange's identity gives
//!
//! `1 − cos² = (N·E − P²) / (N·Σ u²)`,  hence  `Σ r²·(1 − cos²) = s²·(E − P²/N)`,
//!
//! which is small where cos is near 1, has no cancellation there, and is the minimum of Σ (r − α·r̄)² over factors α.
//! As Σ r² is the same for all grids and cos is never negative, the grid with the least value has the largest cosine.
//!
//! Values are assumed to be uniform within a bin, and expectations are exact, as in [`mse`](super::mse): from zero to
//! u, with r now the remainder u − n,
//!
//! ∫ e² = n/12 + r³/3,  ∫ n² = n³/3 + n/6 + n²·r,  ∫ n·e = n·(r² − 1/4)/2,
//!
//! since a full cell around m adds 1/12, m² and 0, and the partial last cell the rest; beyond the clipping point n is
//! constant.
//!
//! The cosine does not depend on length: equal values could be clipped arbitrarily. So a small part of the squared
//! error s²·E is added to break ties.

use super::search::{NARROW, Place, search};
use super::{Bin, Histogram};
use crate::quant::{Affine, GridSpec, Range};

/// The part of the squared error that is added.
const PART: f64 = 1e-6;

/// The range of largest cosine similarity on `grid`.
pub(super) fn range(histogram: &Histogram, grid: GridSpec) -> Range {
    let bins: Vec<Bin> = histogram.bins().collect();
    search(histogram, grid, |affine| {
        let sums = Sums::of(&bins, affine);
        (sums.rejection() + PART * sums.error) * f64::from(affine.scale).powi(2)
    })
}

/// The cosine similarity of the binned values and their quantized form; 1 if all are zero, 0 if only the latter are.
///
/// Assumes that values are uniform within each bin.
pub fn cosine_similarity(histogram: &Histogram, affine: &Affine) -> f64 {
    let bins: Vec<Bin> = histogram.bins().collect();
    let Sums { error, integers, mixed, .. } = Sums::of(&bins, affine);
    let power = error + integers + 2.0 * mixed;
    match (power > 0.0, integers > 0.0) {
        (false, _) => 1.0,
        (true, false) => 0.0,
        (true, true) => ((integers + mixed) / (integers * power).sqrt()).min(1.0),
    }
}

/// Sums over all values, in steps of a grid.
struct Sums {
    /// E = Σ e².
    error: f64,
    /// N = Σ n².
    integers: f64,
    /// P = Σ n·e.
    mixed: f64,
}

impl Sums {
    fn of(bins: &[Bin], affine: &Affine) -> Self {
        let place = Place::on(affine);
        let mut sums = Self { error: 0.0, integers: 0.0, mixed: 0.0 };
        for bin in bins {
            let [lower, upper] = [bin.lower, bin.upper].map(|value| place.of(value));
            let width = upper.0 - lower.0;
            let means = if width > NARROW {
                let [before, after] = [integrals(lower), integrals(upper)];
                [0, 1, 2].map(|which| (after[which] - before[which]) / width)
            } else {
                let (n, e) = (lower.1, lower.0 - lower.1);
                [e * e, n * n, n * e]
            };
            let [error, integers, mixed] = means.map(|mean| bin.count as f64 * mean);
            sums.error += error;
            sums.integers += integers;
            sums.mixed += mixed;
        }
        sums
    }

    /// Σ u²·(1 − cos²); infinite where everything becomes zero.
    fn rejection(&self) -> f64 {
        if self.integers > 0.0 {
            (self.error - self.mixed * self.mixed / self.integers).max(0.0)
        } else {
            f64::INFINITY
        }
    }
}

/// ∫ e², ∫ n² and ∫ n·e from zero to u, which is rounded and limited to n.
fn integrals((unit, n): (f64, f64)) -> [f64; 3] {
    let rest = unit - n;
    [n / 12.0 + rest * rest * rest / 3.0, n * n * n / 3.0 + n / 6.0 + n * n * rest, n * (rest * rest - 0.25) / 2.0]
}
