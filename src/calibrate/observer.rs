//! Statistics of a tap, and the ways to choose a range from them.

use super::binning::Extremes;
use super::{Histogram, MovingAverage, Peaks, cosine, entropy, min_max, mse, percentile};
use crate::quant::{Affine, GridSpec, Range};
use crate::scheme::observer::ObserverKind;
use serde::{Deserialize, Serialize};

impl ObserverKind {
    /// The range that this observer chooses for `grid`; zero to zero if there was no finite value.
    pub fn range(self, statistics: &Statistics, grid: GridSpec) -> Range {
        let histogram = &statistics.histogram;
        let range = match self {
            Self::MinMax => min_max::range(histogram),
            Self::MovingAverage => statistics.moving_average.range().unwrap_or_default(),
            Self::Percentile(percent) => percentile::range(histogram, percent, grid),
            Self::Entropy => entropy::range(histogram, grid),
            Self::Mse => mse::range(statistics, grid),
            Self::Cosine => cosine::range(histogram, grid),
        };
        // Adding zero turns −0 into 0.
        Range::new(range.min + 0.0, range.max + 0.0)
    }
}

/// Statistics of one tap, sufficient for every observer.
///
/// Parts merge exactly in any order, except for the moving average, which needs the order of the samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Counts by bin and exact extremes.
    pub histogram: Histogram,
    /// The average of each sample's extremes.
    pub moving_average: MovingAverage,
    /// The outermost extremes of samples.
    pub peaks: Peaks,
}

impl Statistics {
    /// Empty statistics.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one sample, all values of it.
    pub fn observe(&mut self, sample: &[f32]) {
        self.observe_strided(sample, 1);
    }

    /// Adds one sample, of which only each `step`-th value is counted by bin; all values update the extremes.
    pub fn observe_strided(&mut self, sample: &[f32], step: usize) {
        let extremes = Extremes::of(sample);
        self.histogram.observe_known(sample, step, &extremes);
        if let Some(range) = extremes.range {
            self.moving_average.observe(range);
            self.peaks.observe(range);
        }
    }

    /// Adds a batch of `samples` samples, one after the other in memory.
    ///
    /// The result equals that of adding the samples one by one, so it does not depend on batching. A batch that cannot
    /// be divided evenly counts as one sample.
    pub fn observe_batch(&mut self, batch: &[f32], samples: usize, step: usize) {
        let samples = if samples == 0 || !batch.len().is_multiple_of(samples) { 1 } else { samples };
        for sample in batch.chunks((batch.len() / samples).max(1)) {
            self.observe_strided(sample, step);
        }
    }

    /// Adds statistics of samples that come after these.
    pub fn merge(&mut self, other: &Self) {
        self.histogram.merge(&other.histogram);
        self.moving_average.merge(&other.moving_average);
        self.peaks.merge(&other.peaks);
    }

    /// The grid that `kind` chooses.
    pub fn affine(&self, kind: ObserverKind, grid: GridSpec) -> Affine {
        grid.affine(kind.range(self, grid))
    }
}

/// Range widening: `range` with both ends moved away from zero by `factor`, for synthetic inputs, whose range real
/// inputs may exceed. A factor that is not positive and finite changes nothing; ends stay finite.
pub fn widen(range: Range, factor: f32) -> Range {
    if factor.is_finite() && factor > 0.0 {
        let end = |value: f32| (value * factor).clamp(f32::MIN, f32::MAX);
        Range::new(end(range.min), end(range.max))
    } else {
        range
    }
}
