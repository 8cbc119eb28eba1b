//! The range from the smallest to the largest value seen: nothing is clipped, outliers cost resolution.

use super::Histogram;
use crate::quant::Range;

/// The exact extremes; zero to zero if nothing finite was seen.
pub(super) fn range(histogram: &Histogram) -> Range {
    histogram.range().unwrap_or_default()
}
