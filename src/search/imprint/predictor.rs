//! The class that the templates of a layer give a sample: (12)-(15).

use super::pyramid::{Layout, dot};
use super::{Features, ImprintError, Normalization};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the logits of the scales are weighed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display, strum::EnumString, Serialize, Deserialize, JsonSchema,
)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[strum(serialize_all = "kebab-case")]
#[serde(rename_all = "kebab-case")]
pub enum ScaleWeight {
    /// By their entropy H, as the paper has it (15).
    #[default]
    Entropy,
    /// By 1/H, so that a scale counts more the surer it is. Where H is 0 at some scales, only these count.
    Confidence,
}

/// The task predictor of one layer; [`Templates::finish`](super::Templates::finish) makes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictor {
    pub(super) normalization: Normalization,
    pub(super) weight: ScaleWeight,
    /// None without templates.
    pub(super) layout: Option<Layout>,
    /// Classes in rising order, each with its pooled template of every scale.
    pub(super) classes: Vec<(usize, Vec<Vec<f32>>)>,
}

/// What a predictor finds about one sample. Lists over classes follow `classes`.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// The classes that have a template, in rising order.
    pub classes: Vec<usize>,
    /// `S^d` of each class, a list a scale (12). Cosines, within [−1, 1] but for rounding, with [`Normalization::L2`].
    pub logits: Vec<Vec<f64>>,
    /// `H^d` of each scale, in nats, of softmax(`S^d`) (13, 14).
    pub entropies: Vec<f64>,
    /// S, the weighted mean of the scales' logits (15).
    pub scores: Vec<f64>,
}

impl Predictor {
    pub(super) fn empty(normalization: Normalization, weight: ScaleWeight) -> Self {
        Self { normalization, weight, layout: None, classes: Vec::new() }
    }

    /// The class whose score is largest, the lowest of equals; none without templates.
    pub fn predict(&self, features: &Features) -> Result<Option<usize>, ImprintError> {
        Ok(self.query(features)?.class())
    }

    /// Compares a sample with all templates.
    pub fn query(&self, features: &Features) -> Result<Query, ImprintError> {
        if let Some(layout) = &self.layout {
            layout.check(&features.layout)?;
        }
        let logits: Vec<Vec<f64>> = (0..features.maps.len()).map(|scale| self.logits(features, scale)).collect();
        let entropies: Vec<f64> = logits.iter().map(|logits| entropy(&softmax(logits))).collect();
        let scores = weighted_mean(&logits, &self.weight.of(&entropies));
        Ok(Query { classes: self.classes.iter().map(|(class, _)| *class).collect(), logits, entropies, scores })
    }

    fn logits(&self, features: &Features, scale: usize) -> Vec<f64> {
        let dual = features.layout.dual(scale, &features.maps[scale]);
        let factor = self.normalization.factor(features.norms[scale]);
        self.classes.iter().map(|(_, template)| factor * dot(&template[scale], &dual)).collect()
    }
}

impl Query {
    /// The class whose score is largest, the lowest of equals.
    pub fn class(&self) -> Option<usize> {
        let better = |best: usize, i: usize| if self.scores[i] > self.scores[best] { i } else { best };
        self.classes.get((1..self.scores.len()).fold(0, better)).copied()
    }
}

impl ScaleWeight {
    /// Weights of scales of the given entropies. Only their ratios matter, so the largest is 1: nothing overflows, and
    /// all are 1 where all entropies are 0.
    fn of(self, entropies: &[f64]) -> Vec<f64> {
        let ratio =
            |numerator: f64, denominator: f64| if numerator == denominator { 1.0 } else { numerator / denominator };
        match self {
            Self::Entropy => {
                let largest = entropies.iter().copied().fold(0.0, f64::max);
                entropies.iter().map(|&h| ratio(h, largest)).collect()
            }
            Self::Confidence => {
                let least = entropies.iter().copied().fold(f64::INFINITY, f64::min);
                entropies.iter().map(|&h| ratio(least, h)).collect()
            }
        }
    }
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|logit| (logit - top).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// −Σ p·ln p, where 0·ln 0 = 0.
fn entropy(probabilities: &[f64]) -> f64 {
    // Adding zero turns −0 into 0.
    0.0 - probabilities.iter().filter(|&&p| p > 0.0).map(|p| p * p.ln()).sum::<f64>()
}

/// Σ w·S / Σ w over the scales, class by class.
fn weighted_mean(logits: &[Vec<f64>], weights: &[f64]) -> Vec<f64> {
    let total: f64 = weights.iter().sum();
    let classes = logits.first().map_or(0, Vec::len);
    let mean = |class: usize| logits.iter().zip(weights).map(|(s, w)| w * s[class]).sum::<f64>() / total;
    (0..classes).map(mean).collect()
}
