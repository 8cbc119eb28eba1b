//! The largest values of samples, and what those of other samples are likely to be.
//!
//! Of n samples from one source and one more, each is the one with the largest value of all with probability 1/(n + 1). So
//! in as many samples as were seen, one is to be expected whose largest value lies beyond all that were seen, however many
//! those are; with few, a range that ends at the largest value clips much of what comes. How far beyond, the spacings of
//! the largest values say, one value per sample, since values of one sample are alike. With the k + 1 largest ones
//! m₁ ≥ … ≥ m₍ₖ₊₁₎, the excess of the next over m₁ is taken for
//!
//! * that of an exponential tail, whose mean excess is estimated by σ = Σ mⱼ/k − m₍ₖ₊₁₎ (Rényi, 1953); as that is of k
//!   spacings only, the prediction is P(excess > t) = (1 + t/(k·σ))⁻ᵏ;
//! * that of a tail by a power, P(next > t·m₁) = t^(−1/γ), γ = Σ ln(mⱼ/m₍ₖ₊₁₎)/k (Hill, 1975), at most 1/2;
//!
//! each with half of the mass, since so few values do not tell which of the two they are from. Where the largest values
//! are all equal, as behind a clamp, in categories and in masks, there is no excess. Nor is one expected beyond zero of
//! values that are all on one side of it: a quantizer that stands for a `Relu` must end there.

use crate::quant::Range;
use serde::{Deserialize, Serialize};

/// Spacings that the excess is estimated by, at most. They are of the upper half of the samples, at most.
const SPACINGS: usize = 8;
/// How many times as far as all others few samples reach that are likely to be mistakes.
const FAR_OUT: f32 = 1e3;
/// Share of the samples that few are at most.
const FEW: u64 = 4;
/// The largest γ: the squares of a tail with more have no mean.
const STEEPEST: f64 = 0.5;
/// Values that stand for each of the two tails.
const QUANTILES: usize = 8;

/// The outermost of the largest and of the smallest values of samples. Parts merge exactly in any order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedPeaks")]
pub struct Peaks {
    samples: u64,
    /// Descending.
    largest: Vec<f32>,
    /// Of the negated smallest values; descending.
    smallest: Vec<f32>,
}

/// A few samples that reach very much farther than all others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FarOut {
    /// How many they are.
    pub samples: usize,
    /// The value that is farthest from zero.
    pub value: f32,
    /// The largest magnitude in all other samples.
    pub others: f32,
}

/// [`Peaks`] as read from a file.
#[derive(Deserialize)]
struct UncheckedPeaks {
    samples: u64,
    largest: Vec<f32>,
    smallest: Vec<f32>,
}

impl TryFrom<UncheckedPeaks> for Peaks {
    type Error = &'static str;

    fn try_from(UncheckedPeaks { samples, largest, smallest }: UncheckedPeaks) -> Result<Self, Self::Error> {
        let kept = samples.min(SPACINGS as u64 + 1) as usize;
        let sound = |side: &[f32]| {
            side.len() == kept && side.iter().all(|peak| peak.is_finite()) && side.is_sorted_by(|a, b| a >= b)
        };
        let both = sound(&largest) && sound(&smallest);
        both.then_some(Self { samples, largest, smallest }).ok_or("largest values of samples out of order")
    }
}

impl Peaks {
    /// Adds the extremes of a sample; those that are not finite are ignored.
    pub fn observe(&mut self, sample: Range) {
        if sample.min.is_finite() && sample.max.is_finite() {
            self.samples = self.samples.saturating_add(1);
            insert(&mut self.largest, sample.max);
            insert(&mut self.smallest, -sample.min);
        }
    }

    /// Adds other samples.
    pub fn merge(&mut self, other: &Self) {
        self.samples = self.samples.saturating_add(other.samples);
        other.largest.iter().for_each(|&peak| insert(&mut self.largest, peak));
        other.smallest.iter().for_each(|&peak| insert(&mut self.smallest, peak));
    }

    /// Values that may be expected beyond those of as many samples as were seen: equally likely ones above all of them,
    /// and such below. An end without any has none to expect, or too few samples to tell.
    pub fn beyond(&self) -> [Vec<f64>; 2] {
        [self.above(&self.largest), self.above(&self.smallest).into_iter().map(|value| -value).collect()]
    }

    /// Samples, a quarter of all at most, that reach 1000 times as far as all others. `None` where the others are all zero.
    pub fn far_out(&self) -> Option<FarOut> {
        let few = (self.samples / FEW).min(SPACINGS as u64) as usize;
        let of_side = |side: &[f32], other: &[f32], sign: f32| {
            (1..=few).find_map(|samples| {
                let usual = side[samples - 1] / FAR_OUT;
                let opposite = other.iter().position(|peak| peak.abs() < usual).filter(|&beyond| beyond <= few)?;
                let others = side[samples].abs().max(other[opposite].abs());
                let is_far = others > 0.0 && others < usual;
                is_far.then(|| FarOut { samples: samples.max(opposite), value: sign * side[0], others })
            })
        };
        of_side(&self.largest, &self.smallest, 1.0).or_else(|| of_side(&self.smallest, &self.largest, -1.0))
    }

    fn above(&self, peaks: &[f32]) -> Vec<f64> {
        let spacings = SPACINGS.min(self.samples.min(u64::from(u32::MAX)) as usize / 2);
        let (Some(&most), Some(&base), true) = (peaks.first(), peaks.get(spacings), spacings > 0) else {
            return Vec::new();
        };
        let (most, base, count) = (f64::from(most), f64::from(base), spacings as f64);
        let upper = || peaks[..spacings].iter().map(|&peak| f64::from(peak));
        let excess = upper().sum::<f64>() / count - base;
        if excess <= 0.0 || most <= 0.0 {
            return Vec::new();
        }
        let shares = || (0..QUANTILES).map(|at| (at as f64 + 0.5) / QUANTILES as f64);
        let exponential = |share: f64| most + excess * count * (share.powf(-1.0 / count) - 1.0);
        // A ratio to what crosses zero means nothing.
        let logs = upper().map(|peak| if base > 0.0 { (peak / base).ln() } else { STEEPEST });
        let steepness = (logs.sum::<f64>() / count).min(STEEPEST);
        let power = |share: f64| most * share.powf(-steepness);
        shares().map(exponential).chain(shares().map(power)).collect()
    }
}

/// Inserts a value in descending order and keeps the largest ones.
fn insert(peaks: &mut Vec<f32>, peak: f32) {
    let at = peaks.partition_point(|&known| known >= peak);
    if at <= SPACINGS {
        peaks.insert(at, peak + 0.0);
        peaks.truncate(SPACINGS + 1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::data::random::Random;
    use proptest::prelude::*;

    fn peaks(samples: &[[f32; 2]]) -> Peaks {
        let mut peaks = Peaks::default();
        for &[min, max] in samples {
            peaks.observe(Range::new(min, max));
        }
        peaks
    }

    #[test]
    fn few_samples_that_reach_far() {
        let usual = |at: usize| [-1.0 - at as f32, 0.5 * at as f32];
        let mut samples: Vec<[f32; 2]> = (0..8).map(usual).collect();
        assert_eq!(peaks(&samples).far_out(), None);
        samples[3][1] = 1e30;
        assert_eq!(peaks(&samples).far_out(), Some(FarOut { samples: 1, value: 1e30, others: 8.0 }));
        samples[5] = [-1e6, 2e6];
        assert_eq!(peaks(&samples).far_out(), Some(FarOut { samples: 1, value: 1e30, others: 2e6 }));
        samples[3][1] = 1e6;
        assert_eq!(peaks(&samples).far_out(), Some(FarOut { samples: 2, value: 2e6, others: 8.0 }));
        // Three of eight are no exception.
        samples[6][0] = -1e6;
        samples[7][1] = 1e6;
        assert_eq!(peaks(&samples).far_out(), None);
        assert_eq!(peaks(&[[-1e6, 0.0], [-1.0, 0.0], [-1.0, 0.0], [-2.0, 0.0]]).far_out().unwrap().value, -1e6);
        assert_eq!(peaks(&[[0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]).far_out(), None);
        assert_eq!(Peaks::default().far_out(), None);
    }

    proptest! {
        #[test]
        fn parts_merge_in_any_order(
            samples in proptest::collection::vec([-9_f32..0.0, 0_f32..9.0], 0..40),
            cut in 0_usize..40,
        ) {
            let (first, second) = samples.split_at(cut.min(samples.len()));
            let (mut forward, mut backward) = (peaks(first), peaks(second));
            let other = backward.clone();
            backward.merge(&forward);
            forward.merge(&other);
            prop_assert_eq!(&forward, &peaks(&samples));
            prop_assert_eq!(&forward, &backward);
            prop_assert!(forward.largest.len() <= SPACINGS + 1);
        }
    }

    /// The mean of an exponential distribution, and the exponent of a power, are found again.
    #[test]
    fn tails_are_those_that_values_are_drawn_from() {
        let (mut exponential, mut power) = (0.0, 0.0);
        let runs: u32 = 400;
        for seed in 0..runs {
            let mut random = Random::new(u64::from(seed), 0, 0);
            let mut next = || 1.0 - random.unit();
            let light = peaks(&(0..200).map(|_| [-1.0, 5.0 - 2.0 * next().ln()]).collect::<Vec<_>>());
            let heavy = peaks(&(0..200).map(|_| [-1.0, next().powf(-0.25)]).collect::<Vec<_>>());
            // The median of the prediction, and the share of the tail by a power that lies beyond twice the largest.
            let [above, _] = light.beyond();
            exponential += f64::midpoint(above[3], above[4]) - f64::from(light.largest[0]);
            let [above, _] = heavy.beyond();
            power += above[QUANTILES].ln() - f64::from(heavy.largest[0]).ln();
        }
        let (exponential, power) = (exponential / f64::from(runs), power / f64::from(runs));
        assert!((exponential - 2.0 * 2_f64.ln()).abs() < 0.15, "{exponential}");
        assert!((power - 0.25 * 16_f64.ln()).abs() < 0.07, "{power}");
    }

    #[test]
    fn where_all_are_alike_nothing_is_expected() {
        let none = [Vec::<f64>::new(), Vec::new()];
        assert_eq!(peaks(&[]).beyond(), none);
        assert_eq!(peaks(&[[-1.0, 1.0]]).beyond(), none, "one sample says nothing of others");
        assert_eq!(peaks(&[[0.0, 1.0]; 20]).beyond(), none, "categories");
        assert!(peaks(&[[2.0, 2.0], [3.0, 3.0], [5.0, 5.0]]).beyond()[1].is_empty(), "a range ends at zero");
        let clamped: Vec<[f32; 2]> = (0..20).map(|at| [0.0, at as f32]).collect();
        let [above, below] = peaks(&clamped).beyond();
        assert!(below.is_empty() && above.iter().all(|&value| value > 19.0), "{above:?} {below:?}");
        assert!(above.iter().all(|&value| value < 100.0), "{above:?}");
    }

    #[test]
    fn both_ends_are_treated_alike() {
        let samples = [[-3.0, 1.0], [-2.0, 1.5], [-5.0, 4.0], [-4.0, 2.5], [-1.0, 3.0], [-1.5, 6.0]];
        let [above, below] = peaks(&samples).beyond();
        let [turned_above, turned_below] = peaks(&samples.map(|[min, max]| [-max, -min])).beyond();
        let turned = |values: Vec<f64>| values.into_iter().map(|value| -value).collect::<Vec<_>>();
        assert_eq!((above, below), (turned(turned_below), turned(turned_above)));
    }

    #[test]
    fn a_file_out_of_order_is_refused() {
        let read = |text: &str| serde_json::from_str::<Peaks>(text);
        assert!(read(r#"{"samples": 2, "largest": [2.0, 1.0], "smallest": [0.0, -1.0]}"#).is_ok());
        assert!(read(r#"{"samples": 2, "largest": [1.0, 2.0], "smallest": [0.0, -1.0]}"#).is_err());
        assert!(read(r#"{"samples": 3, "largest": [2.0, 1.0], "smallest": [0.0, -1.0]}"#).is_err());
    }
}
