//! How far two models' outputs are apart.

use schemars::JsonSchema;
use serde::Serialize;

/// Agreement of a model's outputs with a reference, summed over samples; parts merge.
#[derive(Clone, Debug, Default)]
pub struct Agreement {
    rows: u64,
    same: u64,
    divergence: f64,
    signal: f64,
    noise: f64,
}

/// The figures a report shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct AgreementFigures {
    /// Rows compared: one a sample for a classifier, one a position for a sequence.
    pub rows: u64,
    /// Share of rows whose largest entry is the same, for outputs that look like class scores.
    pub same_argmax: Option<f64>,
    /// Mean Kullback-Leibler divergence KL(reference ‖ model) in nats of the softmax of the rows, for the same outputs.
    pub divergence: Option<f64>,
    /// Signal-to-noise ratio of the output in decibels; absent when the outputs are equal.
    pub sqnr: Option<f64>,
}

impl Agreement {
    /// Compares one output of a sample; its last axis, `width` long, holds the scores of a row.
    pub fn observe(&mut self, reference: &[f32], model: &[f32], width: usize) {
        for (&a, &b) in reference.iter().zip(model) {
            self.signal += f64::from(a) * f64::from(a);
            self.noise += (f64::from(a) - f64::from(b)).powi(2);
        }
        if width < 2 {
            return;
        }
        for (a, b) in reference.chunks_exact(width).zip(model.chunks_exact(width)) {
            self.rows += 1;
            self.same += u64::from(argmax(a) == argmax(b));
            self.divergence += divergence(a, b);
        }
    }

    /// Adds what another part compared.
    pub fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.same += other.same;
        self.divergence += other.divergence;
        self.signal += other.signal;
        self.noise += other.noise;
    }

    /// Rows compared.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Squared error relative to the reference; itself where the reference is 0.
    pub(crate) fn relative_error(&self) -> f64 {
        if self.signal > 0.0 { self.noise / self.signal } else { self.noise }
    }

    /// The figures.
    pub fn figures(&self) -> AgreementFigures {
        let mean = |sum: f64| (self.rows > 0).then(|| sum / self.rows as f64);
        AgreementFigures {
            rows: self.rows,
            same_argmax: mean(self.same as f64),
            divergence: mean(self.divergence),
            sqnr: (self.noise > 0.0).then(|| 10.0 * (self.signal / self.noise).log10()),
        }
    }
}

/// How many samples were predicted right; parts merge in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accuracy {
    samples: u64,
    right: u64,
}

impl Accuracy {
    /// Adds a sample: the class predicted, if any was, and its own.
    pub fn observe(&mut self, predicted: Option<usize>, class: usize) {
        self.samples += 1;
        self.right += u64::from(predicted == Some(class));
    }

    /// Adds rows of scores, one a label; the largest entry is the class predicted.
    pub fn observe_rows(&mut self, scores: &[f32], labels: &[i64]) {
        let width = (scores.len() / labels.len().max(1)).max(1);
        for (row, &label) in scores.chunks_exact(width).zip(labels) {
            // A label that is no class is got wrong.
            self.observe(Some(argmax(row)), usize::try_from(label).unwrap_or(usize::MAX));
        }
    }

    /// Adds what another part has seen.
    pub fn merge(&mut self, other: Self) {
        self.samples += other.samples;
        self.right += other.right;
    }

    /// The number of samples.
    pub fn samples(self) -> u64 {
        self.samples
    }

    /// The share predicted right; none before the first sample.
    pub fn share(self) -> Option<f64> {
        (self.samples > 0).then(|| self.right as f64 / self.samples as f64)
    }
}

/// Index of the largest entry; the first of equals.
pub fn argmax(row: &[f32]) -> usize {
    let better = |best: usize, i: usize| if row[i] > row[best] { i } else { best };
    (1..row.len()).fold(0, better)
}

/// KL(softmax(a) ‖ softmax(b)) in nats; rows that are probabilities already are taken as they are.
fn divergence(a: &[f32], b: &[f32]) -> f64 {
    let (p, q) = (probabilities(a), probabilities(b));
    let sum: f64 = p.iter().zip(&q).map(|(&p, &q)| if p > 0.0 { p * (p / q.max(1e-12)).ln() } else { 0.0 }).sum();
    // Never negative but for rounding.
    sum.max(0.0)
}

/// Whether a row holds probabilities: none negative, their sum 1.
pub(crate) fn is_probabilities(row: &[f32]) -> bool {
    let sum: f64 = row.iter().map(|&v| f64::from(v)).sum();
    row.iter().all(|&v| (0.0..=1.0).contains(&v)) && (sum - 1.0).abs() < 1e-2
}

/// A row as probabilities, by softmax unless it holds them already.
pub(crate) fn probabilities(row: &[f32]) -> Vec<f64> {
    if is_probabilities(row) {
        let sum: f64 = row.iter().map(|&v| f64::from(v)).sum();
        return row.iter().map(|&v| f64::from(v) / sum).collect();
    }
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = row.iter().map(|&v| f64::from(v - top).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|p| p / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_outputs_agree() {
        let mut agreement = Agreement::default();
        agreement.observe(&[1.0, 3.0, 2.0], &[1.0, 3.0, 2.0], 3);
        let figures = agreement.figures();
        assert_eq!((figures.same_argmax, figures.divergence, figures.sqnr), (Some(1.0), Some(0.0), None));
    }

    #[test]
    fn divergence_of_two_known_rows() {
        let found = divergence(&[0.5, 0.5], &[0.25, 0.75]);
        let expected = 0.5 * 2_f64.ln() + 0.5 * (2.0_f64 / 3.0).ln();
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }
}
