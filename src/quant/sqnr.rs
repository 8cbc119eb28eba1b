//! Signal-to-quantization-noise ratio.
//!
//! `SQNR = 10·log₁₀(Σ x² / Σ (x − x̂)²)` decibels, x the float values and x̂ those that replace them; each bit is
//! worth about 6 dB. The two sums are what is kept, so that parts can be merged.

use serde::{Deserialize, Serialize};

/// The sums behind a signal-to-quantization-noise ratio.
///
/// Merging adds them in double precision: the same parts merged in the same order give the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sqnr {
    /// Σ x², in squared units of the tensor.
    pub signal: f64,
    /// Σ (x − x̂)², in the same units.
    pub noise: f64,
    /// How many values were compared.
    pub count: u64,
}

impl Sqnr {
    /// The sums for one pair of slices; values beyond the shorter one are left out.
    pub fn of(reference: &[f32], approximation: &[f32]) -> Self {
        let mut sums = Self::default();
        sums.observe(reference, approximation);
        sums
    }

    /// Adds pairs of a value and what replaces it. Pairs that are not finite on either side are left out.
    pub fn observe(&mut self, reference: &[f32], approximation: &[f32]) {
        for (&value, &replacement) in reference.iter().zip(approximation) {
            if value.is_finite() && replacement.is_finite() {
                let value = f64::from(value);
                let difference = value - f64::from(replacement);
                self.signal += value * value;
                self.noise += difference * difference;
                self.count += 1;
            }
        }
    }

    /// Adds the sums of another part.
    pub fn merge(&mut self, other: &Self) {
        self.signal += other.signal;
        self.noise += other.noise;
        self.count = self.count.saturating_add(other.count);
    }

    /// The ratio in decibels: +∞ without noise, −∞ for noise without signal.
    pub fn decibels(&self) -> f64 {
        if self.noise == 0.0 { f64::INFINITY } else { 10.0 * (self.signal / self.noise).log10() }
    }

    /// The mean squared error, 0 when nothing was compared.
    pub fn mean_squared_error(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.noise / self.count as f64 }
    }
}
