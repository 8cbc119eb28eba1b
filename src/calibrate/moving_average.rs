//! The exponential moving average of each sample's extremes.
//!
//! `m_1 = x_1` and `m_t = (1 − c)·m_{t−1} + c·x_t`, with `c = 0.01` as in onnxruntime. Unrolled,
//!
//! `m_n = (1 − c)^n·x_1 + S_n`, `S_n = Σ_{t=1..n} c·(1 − c)^(n−t)·x_t`,
//!
//! where the term t = 1 of S completes the weight `(1 − c)^(n−1)` of `x_1`. A sequence of samples is therefore
//! determined by `(n, x_1, S)`, and a sequence a followed by b is `(n_a + n_b, x_1 of a, (1 − c)^(n_b)·S_a + S_b)`. The
//! order of samples matters; the division into sequences does not, up to rounding in double precision.

use super::dyadic::Sum;
use crate::quant::Range;
use serde::{Deserialize, Serialize};

/// c: the weight of the newest sample.
pub const AVERAGING_CONSTANT: f64 = 0.01;

/// The moving average of a sequence of samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MovingAverage {
    /// n: the number of samples.
    samples: u64,
    /// `x_1`, as \[min, max\].
    first: [f32; 2],
    /// `S_n`, as \[min, max\].
    weighted_sum: [f64; 2],
}

impl MovingAverage {
    /// Adds the extremes of the next sample; a range that is not finite is ignored.
    pub fn observe(&mut self, sample: Range) {
        let ends = [sample.min, sample.max];
        if ends.iter().all(|end| end.is_finite()) {
            let weighted_sum = ends.map(|end| AVERAGING_CONSTANT * f64::from(end));
            self.merge(&Self { samples: 1, first: ends, weighted_sum });
        }
    }

    /// Appends a later sequence of samples.
    pub fn merge(&mut self, later: &Self) {
        if self.samples == 0 {
            *self = *later;
            return;
        }
        let decay = decay(later.samples);
        for (sum, later) in self.weighted_sum.iter_mut().zip(later.weighted_sum) {
            *sum = *sum * decay + later;
        }
        self.samples = self.samples.saturating_add(later.samples);
    }

    /// Number of samples averaged.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The average of the smallest and of the largest values; none before the first sample.
    pub fn range(&self) -> Option<Range> {
        let end = |index: usize| (decay(self.samples) * f64::from(self.first[index]) + self.weighted_sum[index]) as f32;
        (self.samples > 0).then(|| Range::new(end(0), end(1)))
    }
}

impl Sum for MovingAverage {
    fn add(&mut self, later: &Self) {
        self.merge(later);
    }
}

/// (1 − c)^`samples`.
fn decay(samples: u64) -> f64 {
    // Beyond this the power is below the smallest double anyway.
    (1.0 - AVERAGING_CONSTANT).powi(samples.min(1 << 20) as i32)
}
