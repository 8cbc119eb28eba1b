//! Values counted in bins of equal width, and the grid that they are rounded to.

use schemars::JsonSchema;
use serde::Serialize;

/// Bins of a distribution.
const BINS: usize = 64;

/// Values counted in bins of equal width, and the grid that they are rounded to.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Distribution {
    /// Where the first bin begins.
    pub min: f64,
    /// Where the last bin ends.
    pub max: f64,
    /// Values in each bin.
    pub counts: Vec<u64>,
    /// The numbers of the grid in ascending order.
    pub grid: Vec<f64>,
}

impl Distribution {
    /// Counts values, each as often as said, between `min` and `max`; one beyond these counts into the bin at that end.
    pub(crate) fn count(min: f64, max: f64, values: impl Iterator<Item = (f64, u64)>) -> Self {
        let mut counts = vec![0; BINS];
        let per_unit = if max > min { BINS as f64 / (max - min) } else { 0.0 };
        for (value, count) in values {
            // Saturates below 0.
            counts[(((value - min) * per_unit) as usize).min(BINS - 1)] += count;
        }
        Self { min, max, counts, grid: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_bins() {
        let values = [(-1.0, 1), (-0.99, 2), (0.0, 4), (1.0, 8), (9.0, 16), (-9.0, 32)];
        let found = Distribution::count(-1.0, 1.0, values.into_iter());
        let filled: Vec<(usize, u64)> = found.counts.iter().copied().enumerate().filter(|(_, n)| *n > 0).collect();
        assert_eq!(filled, [(0, 35), (32, 4), (63, 24)]);
        assert_eq!(Distribution::count(2.0, 2.0, [(2.0, 3)].into_iter()).counts[0], 3);
    }
}
