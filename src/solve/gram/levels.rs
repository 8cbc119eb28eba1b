//! The integers a weight may take.

use crate::quant::{GridSpec, round_half_even_f64};

/// The integers a weight may take, in rising order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Levels {
    low: f64,
    high: f64,
}

impl Levels {
    /// All integers of a grid.
    pub(super) fn uniform(grid: GridSpec) -> Self {
        Self { low: f64::from(grid.quantized_min()), high: f64::from(grid.quantized_max()) }
    }

    /// The level nearest to `value`.
    #[inline]
    pub(super) fn nearest(&self, value: f64) -> f64 {
        // In this order NaN becomes an end of the grid.
        round_half_even_f64(value.max(self.low).min(self.high))
    }
}
