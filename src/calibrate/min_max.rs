//! The range from the smallest to the largest value: nothing is clipped, but outliers cost resolution.

use super::Histogram;
use crate::quant::Range;

/// The exact extremes; zero to zero if there was no finite value.
pub(super) fn range(histogram: &Histogram) -> Range {
    histogram.range().unwrap_or_default()
}
