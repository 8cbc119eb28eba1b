//! How much the loss may be on other samples.
//!
//! The loss is computed again without each of the parts of the samples (delete-a-group jackknife; Kott, *The Delete-a-Group
//! Jackknife*, 2001). With θ(i) the loss without part i of g, the standard error is
//!
//! `se² = (g − 1)/g · Σ (θ(i) − mean θ)²`,
//!
//! and the limit of one-sided 95 % confidence, with Student's t of g − 1 degrees of freedom,
//!
//! * of values and embeddings, on a logarithmic scale, since a few samples make most of an error: `θ·exp(t·se/θ)`;
//! * of shares of answers and accuracies `θ + t·se`, but no less than Wilson's limit of so many answers (*Probable
//!   Inference*, 1927): that none of few answers is lost does not say that none ever is.
//!
//! The network loses what its worst output loses, so its limit is the largest one. The samples are taken to be drawn as
//! others will be; what was chosen by them is no such sample.

use super::{Comparison, PARTS};
use crate::measure::metrics::Loss;
use crate::scheme::output_kind::OutputKind;

/// Parts that it takes to say anything.
const FEWEST: usize = 4;
/// Quantile of the normal distribution: 95 %, one-sided.
const NORMAL: f64 = 1.645;

impl Comparison {
    /// The standard error of the loss and its limit; nothing where the samples are too few or nothing was compared.
    pub(crate) fn loss(&self) -> Option<Loss> {
        let parts: Vec<usize> = (0..PARTS).filter(|&part| self.samples[part] > 0).collect();
        if parts.len() < FEWEST {
            return None;
        }
        let [own, float] = self.accuracies(None);
        let found = if let Some((own_share, float_share)) = own.share().zip(float.share()) {
            let without = |&part: &usize| {
                let [own, float] = self.accuracies(Some(part));
                float.share().unwrap_or(0.0) - own.share().unwrap_or(0.0)
            };
            let error = standard_error(&parts.iter().map(without).collect::<Vec<_>>());
            of_answers(float_share - own_share, error, own.samples(), parts.len())
        } else {
            let compared = (0..self.compared.len()).filter(|&at| self.is_compared(at, self.reading(at).kind));
            let outputs = compared.map(|at| self.output_loss(at, &parts));
            outputs.max_by(|a, b| a.at_most.total_cmp(&b.at_most))?
        };
        (found.error.is_finite() && found.at_most.is_finite()).then_some(found)
    }

    fn output_loss(&self, at: usize, parts: &[usize]) -> Loss {
        let (compared, kind) = (&self.compared[at], self.reading(at).kind);
        let output = self.read_output(at, kind);
        let uneven = if kind == OutputKind::Boxes { 0.0 } else { compared.share_uneven() };
        let (figures, lost, _) = output.figures(&compared.total(), &self.matches(None));
        let lost = lost.max(uneven);
        let without = |&part: &usize| {
            let boxes = self.matches(Some(part));
            output.figures(&compared.without(part), &boxes).1.max(uneven)
        };
        let error = standard_error(&parts.iter().map(without).collect::<Vec<_>>());
        let answers = match kind {
            OutputKind::Values | OutputKind::Embedding => {
                let limit = if lost > 0.0 { lost * (student(parts.len() - 1) * error / lost).exp() } else { 0.0 };
                return Loss { error, at_most: limit };
            }
            OutputKind::Boxes => figures.boxes,
            OutputKind::Sequence if !output.reads_tokens => Some(self.compared_samples()),
            OutputKind::Sequence | OutputKind::Scores => figures.rows,
        };
        of_answers(lost, error, answers.unwrap_or(0), parts.len())
    }
}

fn of_answers(lost: f64, error: f64, answers: u64, parts: usize) -> Loss {
    let at_most = (lost + student(parts - 1) * error).max(wilson(lost, answers)).min(1.0);
    Loss { error, at_most }
}

/// The standard error of a figure, by what it is without each of the parts.
fn standard_error(without: &[f64]) -> f64 {
    let parts = without.len() as f64;
    let mean = without.iter().sum::<f64>() / parts;
    let squares: f64 = without.iter().map(|figure| (figure - mean).powi(2)).sum();
    ((parts - 1.0) / parts * squares).sqrt()
}

/// The quantile of Student's distribution, by the first terms of its expansion in the degrees of freedom.
fn student(freedom: usize) -> f64 {
    let (z, freedom) = (NORMAL, freedom as f64);
    let (first, second) = ((z.powi(3) + z) / 4.0, (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0);
    z + first / freedom + second / (freedom * freedom)
}

/// Wilson's upper limit of a share, of which so many answers are lost.
fn wilson(share: f64, answers: u64) -> f64 {
    let (p, n, z2) = (share.clamp(0.0, 1.0), answers.max(1) as f64, NORMAL * NORMAL);
    let spread = NORMAL * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    (p + z2 / (2.0 * n) + spread) / (1.0 + z2 / n)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Student's t table: 1.753 with 15 degrees of freedom, 2.353 with 3.
    #[test]
    fn quantiles_are_students() {
        assert!((student(15) - 1.753).abs() < 0.002 && (student(3) - 2.353).abs() < 0.05);
    }

    /// The jackknife of a mean is the standard error of the mean.
    #[test]
    fn error_of_a_mean() {
        let values: Vec<f64> = (0..16).map(|at| f64::from(at * 7 % 16)).collect();
        let sum: f64 = values.iter().sum();
        let without: Vec<f64> = values.iter().map(|value| (sum - value) / 15.0).collect();
        let variance = values.iter().map(|value| (value - sum / 16.0).powi(2)).sum::<f64>() / 15.0;
        assert!((standard_error(&without) - (variance / 16.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn none_lost_of_few_answers_is_little_evidence() {
        assert!((wilson(0.0, 64) - 0.0406).abs() < 1e-3);
        assert!(wilson(0.0, 1000) < 0.003 && wilson(0.5, 1000) > 0.52);
        let none = of_answers(0.0, 0.0, 64, 16);
        assert!(none.error == 0.0 && none.at_most > 0.04);
        // An accuracy that rose.
        assert!(of_answers(-0.02, 0.01, 100, 16).at_most > 0.0);
    }
}
