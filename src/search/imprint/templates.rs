//! A template for each class and scale: (10).

use std::collections::BTreeMap;

use super::pyramid::Layout;
use super::{Features, ImprintError, Predictor, ScaleWeight};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether features and templates are brought to length 1.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display, strum::EnumString, Serialize, Deserialize, JsonSchema,
)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[strum(serialize_all = "kebab-case")]
#[serde(rename_all = "kebab-case")]
pub enum Normalization {
    /// Brought to Euclidean length 1, scale by scale; zero stays zero. Logits are cosines.
    #[default]
    L2,
    /// Taken as they are, as the paper writes it.
    None,
}

/// Sums of the features of one layer by class and scale; parts merge. Only classes that were seen take memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Templates {
    normalization: Normalization,
    /// That of all features so far.
    layout: Option<Layout>,
    classes: BTreeMap<usize, Sums>,
}

/// Σ Conf and Σ Conf·e of a class.
#[derive(Clone, Debug, PartialEq)]
struct Sums {
    confidence: f64,
    /// One pooled map a scale.
    maps: Vec<Vec<f64>>,
}

impl Normalization {
    /// What a feature of length `norm` is multiplied with.
    pub(super) fn factor(self, norm: f64) -> f64 {
        match self {
            Self::L2 if norm > 0.0 => 1.0 / norm,
            _ => 1.0,
        }
    }
}

impl Default for Templates {
    fn default() -> Self {
        Self::new(Normalization::default())
    }
}

impl Templates {
    /// Templates of nothing yet.
    pub fn new(normalization: Normalization) -> Self {
        Self { normalization, layout: None, classes: BTreeMap::new() }
    }

    /// Adds a sample: its class, the network's probability of that class, its features. A probability above 1, as
    /// rounding leaves it, counts as 1.
    pub fn observe(&mut self, class: usize, confidence: f64, features: &Features) -> Result<(), ImprintError> {
        if !(confidence >= 0.0 && confidence.is_finite()) {
            return Err(ImprintError::Confidence { confidence });
        }
        self.layout.get_or_insert_with(|| features.layout.clone()).check(&features.layout)?;
        let confidence = confidence.min(1.0);
        let zeros = || Sums { confidence: 0.0, maps: features.maps.iter().map(|map| vec![0.0; map.len()]).collect() };
        let sums = self.classes.entry(class).or_insert_with(zeros);
        sums.confidence += confidence;
        for ((sum, map), &norm) in sums.maps.iter_mut().zip(&features.maps).zip(&features.norms) {
            let factor = confidence * self.normalization.factor(norm);
            sum.iter_mut().zip(map).for_each(|(sum, &value)| *sum += factor * f64::from(value));
        }
        Ok(())
    }

    /// Adds what another part, later in order, has seen.
    pub fn merge(&mut self, later: Self) -> Result<(), ImprintError> {
        if self.normalization != later.normalization {
            return Err(ImprintError::Merge);
        }
        let Some(layout) = later.layout else { return Ok(()) };
        self.layout.get_or_insert_with(|| layout.clone()).check(&layout)?;
        for (class, sums) in later.classes {
            if let Some(known) = self.classes.get_mut(&class) {
                known.confidence += sums.confidence;
                let pairs = known.maps.iter_mut().flatten().zip(sums.maps.iter().flatten());
                pairs.for_each(|(a, b)| *a += b);
            } else {
                self.classes.insert(class, sums);
            }
        }
        Ok(())
    }

    /// The predictor with these templates. A class whose samples all have confidence 0 has none.
    pub fn finish(self, weight: ScaleWeight) -> Predictor {
        let normalization = self.normalization;
        let Some(layout) = self.layout else { return Predictor::empty(normalization, weight) };
        let mean = |(scale, map): (usize, Vec<f64>), confidence: f64| -> Vec<f32> {
            let mean: Vec<f64> = map.into_iter().map(|sum| sum / confidence).collect();
            let factor = normalization.factor(layout.norm(scale, &mean));
            mean.into_iter().map(|value| (value * factor) as f32).collect()
        };
        let template = |Sums { confidence, maps }: Sums| -> Vec<Vec<f32>> {
            maps.into_iter().enumerate().map(|indexed| mean(indexed, confidence)).collect()
        };
        let seen = self.classes.into_iter().filter(|(_, sums)| sums.confidence > 0.0);
        let classes = seen.map(|(class, sums)| (class, template(sums))).collect();
        Predictor { normalization, weight, layout: Some(layout), classes }
    }
}
