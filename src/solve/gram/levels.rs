//! The integers a weight may take.

use crate::quant::{GridSpec, round_half_even_f64};

/// The integers a weight may take, in rising order.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::solve) enum Levels {
    /// All from the first to the last.
    Uniform(f64, f64),
    /// The entries of a codebook, with the middles between them.
    Entries(Vec<f64>, Vec<f64>),
}

impl Levels {
    /// All integers of a grid.
    pub(in crate::solve) fn uniform(grid: GridSpec) -> Self {
        Self::Uniform(f64::from(grid.quantized_min()), f64::from(grid.quantized_max()))
    }

    /// The entries of a codebook, in any order.
    pub(in crate::solve) fn entries(mut entries: Vec<f64>) -> Self {
        entries.sort_by(f64::total_cmp);
        entries.dedup();
        let middles = entries.windows(2).map(|pair| f64::midpoint(pair[0], pair[1])).collect();
        Self::Entries(entries, middles)
    }

    /// The level nearest to `value`.
    #[inline]
    pub(in crate::solve) fn nearest(&self, value: f64) -> f64 {
        match self {
            // In this order NaN becomes an end of the grid.
            Self::Uniform(low, high) => round_half_even_f64(value.max(*low).min(*high)),
            Self::Entries(entries, middles) => {
                entries.get(middles.partition_point(|&middle| middle < value)).copied().unwrap_or(0.0)
            }
        }
    }
}
