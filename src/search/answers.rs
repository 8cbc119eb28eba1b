//! The loss that a plan is likely to have on other samples, where that is a share of answers.
//!
//! Of few answers a small share shows only roughly: where one in a hundred is lost, half of all draws of 64 show none. How
//! far the scores have moved shows on every sample. Noise of size σ on the scores changes the answers whose margin is
//! smaller, a share in proportion to σ, and makes a divergence in proportion to σ², so
//!
//! `share ≈ c·√KL`,
//!
//! with c by all plans that were measured. The share that is seen, of n answers with variance p/n, and the one expected, p,
//! of which a third may be wrong, are weighed by their variances:
//!
//! `likely = (n·seen + 8) / (n + 8/p)`,
//!
//! the mean of a Gamma distribution that has seen eight lost answers before. The accuracy lost is treated in the same way:
//! it moves in proportion to the answers that change, and these make its variance.

use crate::measure::metrics::{Metrics, OutputMetrics};
use crate::report::Quality;
use crate::scheme::output_kind::OutputKind;

/// Lost answers that the expectation counts as: 1/√8 is the relative error of c.
const WEIGHT: f64 = 8.0;
/// Share of lost answers from which on a plan says nothing of plans that lose few.
const RUINED: f64 = 0.25;

/// A ratio of sums: what is lost, and roots of divergences.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    lost: f64,
    roots: f64,
}

impl Rate {
    fn add(&mut self, lost: f64, divergence: f64) {
        self.lost += lost;
        self.roots += divergence.max(0.0).sqrt();
    }

    /// What is expected of such a divergence; nothing where nothing says so.
    fn expected(self, divergence: f64) -> Option<f64> {
        let expected = self.lost / self.roots * divergence.max(0.0).sqrt();
        (expected > 0.0 && expected.is_finite()).then_some(expected)
    }
}

/// Answers lost by how far scores have moved, in all plans measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct AnswerRates {
    /// Of each output.
    outputs: Vec<Rate>,
    /// Of the accuracy, by the divergence of the first output.
    accuracy: Rate,
}

impl AnswerRates {
    /// Of plans.
    pub(crate) fn of<'m>(plans: impl IntoIterator<Item = &'m Metrics>) -> Self {
        let mut rates = Self::default();
        plans.into_iter().for_each(|metrics| rates.observe(metrics));
        rates
    }

    /// Adds a plan.
    pub(crate) fn observe(&mut self, metrics: &Metrics) {
        if self.outputs.len() < metrics.outputs.len() {
            self.outputs.resize(metrics.outputs.len(), Rate::default());
        }
        for (rate, output) in self.outputs.iter_mut().zip(&metrics.outputs) {
            if let Some(changed) = changed(output).filter(|&changed| changed <= RUINED) {
                rate.add(changed, output.distance);
            }
        }
        if let (Some(_), None, Some(first)) = (metrics.accuracy, metrics.metric, metrics.outputs.first())
            && changed(first).is_some_and(|changed| changed <= RUINED)
        {
            self.accuracy.add(metrics.lost, first.distance);
        }
    }

    /// The likely loss of a plan that was measured on so many samples.
    pub(crate) fn likely(&self, metrics: &Metrics, samples: usize) -> f64 {
        let by_labels = metrics.accuracy.is_some();
        self.likely_of((metrics.lost, metrics.metric.is_some(), by_labels), &metrics.outputs, samples)
    }

    /// The likely loss of a file.
    pub(crate) fn likely_of_file(&self, quality: &Quality) -> f64 {
        let (by_metric, by_labels) = (quality.metric.is_some(), quality.accuracy.is_some());
        self.likely_of((quality.lost, by_metric, by_labels), &quality.outputs, quality.samples)
    }

    fn likely_of(
        &self,
        (lost, by_metric, by_labels): (f64, bool, bool),
        outputs: &[OutputMetrics],
        samples: usize,
    ) -> f64 {
        if by_metric {
            return lost;
        }
        if by_labels {
            return outputs.first().and_then(|first| self.likely_drop(lost, first)).unwrap_or(lost);
        }
        outputs.iter().enumerate().map(|(at, output)| self.likely_share(at, output, samples)).fold(0.0, f64::max)
    }

    fn likely_share(&self, at: usize, output: &OutputMetrics, samples: usize) -> f64 {
        let expected = self.outputs.get(at).and_then(|rate| rate.expected(output.distance));
        let (Some(expected), Some(_)) = (expected, changed(output)) else { return output.lost };
        let answers = match output.kind {
            OutputKind::Sequence => samples as u64,
            _ => output.figures.rows.unwrap_or(0),
        };
        weighed((output.lost, expected / answers.max(1) as f64), expected)
    }

    fn likely_drop(&self, lost: f64, first: &OutputMetrics) -> Option<f64> {
        let changed = self.outputs.first()?.expected(first.distance)?;
        let expected = self.accuracy.expected(first.distance)?;
        Some(weighed((lost, changed / first.figures.rows?.max(1) as f64), expected))
    }
}

/// The share of changed answers of an output whose scores have a divergence.
fn changed(output: &OutputMetrics) -> Option<f64> {
    output.figures.divergence?;
    match output.kind {
        OutputKind::Scores => output.figures.agreement.map(|same| 1.0 - same),
        OutputKind::Sequence => Some(output.lost),
        OutputKind::Values | OutputKind::Boxes | OutputKind::Embedding => None,
    }
}

/// The mean of what was seen, which has a variance, and of what is expected, by their variances.
fn weighed((seen, variance): (f64, f64), expected: f64) -> f64 {
    let weights = [1.0 / variance, WEIGHT / (expected * expected)];
    (weights[0] * seen + weights[1] * expected) / (weights[0] + weights[1])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::measure::metrics::KindFigures;

    fn metrics(kind: OutputKind, rows: u64, lost: f64, distance: f64) -> Metrics {
        let scored = kind == OutputKind::Scores;
        let figures = KindFigures {
            rows: scored.then_some(rows),
            agreement: scored.then_some(1.0 - lost),
            divergence: scored.then_some(distance),
            ..KindFigures::default()
        };
        let text = r#"{"name": "y", "kind": "values", "because": "", "lost": 0.0, "distance": 0.0, "sqnr": null,
            "worst_sqnr": null, "channels": 1}"#;
        let output: OutputMetrics = serde_json::from_str(text).unwrap();
        let output = OutputMetrics { kind, lost, distance, figures, ..output };
        Metrics { lost, distance, outputs: vec![output], ..Metrics::default() }
    }

    /// Plans that lose 1 % at a divergence of 0.01: one that has moved as far is likely to lose as much, whatever 64 answers
    /// show; many answers show it themselves.
    #[test]
    fn few_answers_count_little() {
        let rates = AnswerRates::of(&[
            metrics(OutputKind::Scores, 1000, 0.01, 0.01),
            metrics(OutputKind::Scores, 1000, 0.02, 0.04),
            // Says nothing.
            metrics(OutputKind::Scores, 1000, 0.9, 4.0),
        ]);
        let likely = |rows: u64, lost: f64, distance: f64| {
            rates.likely(&metrics(OutputKind::Scores, rows, lost, distance), rows as usize)
        };
        assert!((likely(64, 0.0, 0.01) - 8.0 / (64.0 + 800.0)).abs() < 1e-9);
        assert!(likely(64, 1.0 / 64.0, 0.01) < 0.0105);
        assert!(likely(100_000, 0.003, 0.01) < 0.0031);
        assert_eq!(likely(64, 0.0, 0.0), 0.0);
    }

    #[test]
    fn values_and_a_first_plan_lose_what_is_seen() {
        let value = metrics(OutputKind::Values, 0, 0.02, 0.03);
        assert_eq!(AnswerRates::of([&value]).likely(&value, 16), 0.02);
        let first = metrics(OutputKind::Scores, 64, 0.03, 0.01);
        assert!((AnswerRates::of([&first]).likely(&first, 64) - 0.03).abs() < 1e-12);
        assert_eq!(AnswerRates::default().likely(&first, 64), 0.03);
    }

    #[test]
    fn a_drop_in_accuracy_is_weighed_by_the_answers_that_change() {
        let labelled = |accuracy: f64, lost: f64, distance: f64| Metrics {
            accuracy: Some(accuracy),
            lost,
            ..metrics(OutputKind::Scores, 100, 2.0 * distance.sqrt() / 10.0, distance)
        };
        let rates = AnswerRates::of(&[labelled(0.9, 0.01, 0.01), labelled(0.89, 0.02, 0.04)]);
        // By the divergence 0.01 is lost, with a deviation of 0.0035; by the labels nothing, with one of √(0.02/100).
        let likely = rates.likely(&labelled(0.91, 0.0, 0.01), 100);
        assert!((0.008..0.01).contains(&likely), "{likely}");
    }
}
