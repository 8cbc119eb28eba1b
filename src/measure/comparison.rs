//! Outputs of a network beside those of the float one: how far they are apart, and what that costs.
//!
//! An output holds class scores if it is the only one and `[N, C]`, or if all its rows are probabilities. Its *distance*
//! from the float one is the mean of KL(float ‖ network) over its rows, in nats (the measure of `ZeroQ`). That of any
//! other output is the squared error relative to it, Σ(a − b)²/Σa². A network's distance is the sum over its outputs.
//! Lower is better; 0 is the float network.

use crate::engine::EngineError;
use crate::execute::segment::Ran;
use crate::measure::agreement::{Accuracy, Agreement, AgreementFigures, is_probabilities};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How good a network is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Verdict")]
pub struct Metrics {
    /// Distance of the outputs from the float network's.
    pub distance: f64,
    /// Share of rows whose best class is the float network's; none where outputs are no class scores.
    pub agreement: Option<f64>,
    /// Share of rows whose best class is the label; none without labels.
    pub accuracy: Option<f64>,
}

impl Metrics {
    /// The share of answers lost: of the float network's accuracy with labels, of agreement with it without; of outputs
    /// that are no class scores, their distance.
    pub fn lost(&self, float_accuracy: Option<f64>) -> f64 {
        match (float_accuracy, self.accuracy, self.agreement) {
            (Some(float), Some(accuracy), _) => float - accuracy,
            (.., Some(agreement)) => 1.0 - agreement,
            _ => self.distance,
        }
    }
}

/// An output of a sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub values: &'a [f32],
    pub rank: usize,
    /// Length of the last axis.
    pub width: usize,
}

impl<'a> Found<'a> {
    pub(crate) fn of(values: &'a [f32], shape: &[usize]) -> Self {
        Self { values, rank: shape.len(), width: shape.last().copied().unwrap_or(0) }
    }
}

/// One output over samples.
#[derive(Clone, Debug)]
struct Compared {
    agreement: Agreement,
    rank: usize,
    /// Whether all rows of the float network are probabilities so far.
    probabilities: bool,
}

/// Sums over samples; parts merge.
#[derive(Clone, Debug, Default)]
pub(crate) struct Comparison {
    outputs: Vec<Compared>,
    own: Accuracy,
    float: Accuracy,
}

impl Comparison {
    /// Adds a sample: the float network's outputs, those of the network, and labels, one a row, if there are any.
    pub(crate) fn observe(&mut self, float: &[Vec<f32>], network: &[Found], labels: Option<&[i64]>) {
        for (at, (float, found)) in float.iter().zip(network).enumerate() {
            if self.outputs.len() == at {
                self.outputs.push(Compared { agreement: Agreement::default(), rank: found.rank, probabilities: true });
            }
            let compared = &mut self.outputs[at];
            compared.agreement.observe(float, found.values, found.width);
            compared.probabilities &= found.width > 1 && float.chunks(found.width).all(is_probabilities);
        }
        if let (Some(labels), [float, ..], [found @ Found { rank: 2, width: 2.., .. }, ..]) = (labels, float, network) {
            self.float.observe_rows(float, labels);
            self.own.observe_rows(found.values, labels);
        }
    }

    /// Adds a sample, where the network has just run: its outputs are the values wanted.
    pub(crate) fn observe_run(
        &mut self,
        float: &[Vec<f32>],
        ran: Ran,
        labels: Option<&[i64]>,
    ) -> Result<(), EngineError> {
        let values = (0..ran.len()).map(|at| ran.values(at)).collect::<Result<Vec<_>, _>>()?;
        let found: Vec<Found> =
            values.iter().enumerate().map(|(at, values)| Found::of(values, ran.shape(at))).collect();
        self.observe(float, &found, labels);
        Ok(())
    }

    /// Adds what another part compared.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (at, other) in other.outputs.iter().enumerate() {
            match self.outputs.get_mut(at) {
                None => self.outputs.push(other.clone()),
                Some(own) => {
                    own.agreement.merge(&other.agreement);
                    own.probabilities &= other.probabilities;
                }
            }
        }
        self.own.merge(other.own);
        self.float.merge(other.float);
    }

    fn holds_scores(&self, output: &Compared) -> bool {
        let matrix = self.outputs.len() == 1 && output.rank == 2;
        output.agreement.rows() > 0 && (matrix || output.probabilities)
    }

    /// Whether the network has one output, class scores `[N, C]`.
    pub(crate) fn is_of_classifier(&self) -> bool {
        matches!(&self.outputs[..], [output] if output.rank == 2 && self.holds_scores(output))
    }

    /// How good the network is.
    pub(crate) fn metrics(&self) -> Metrics {
        let mut scored = Agreement::default();
        let mut distance = 0.0;
        for output in &self.outputs {
            let figures = output.agreement.figures();
            distance += if self.holds_scores(output) {
                scored.merge(&output.agreement);
                figures.divergence.unwrap_or(0.0)
            } else {
                output.agreement.relative_error()
            };
        }
        Metrics { distance, agreement: scored.figures().same_argmax, accuracy: self.own.share() }
    }

    /// Share of labels the float network gets right; none without labels.
    pub(crate) fn float_accuracy(&self) -> Option<f64> {
        self.float.share()
    }

    /// All outputs together.
    pub(crate) fn figures(&self) -> AgreementFigures {
        let mut total = Agreement::default();
        self.outputs.iter().for_each(|output| total.merge(&output.agreement));
        total.figures()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(values: &[f32], rank: usize, width: usize) -> Found<'_> {
        Found { values, rank, width }
    }

    #[test]
    fn a_matrix_of_scores() {
        let mut comparison = Comparison::default();
        let float = vec![vec![3.0, 1.0, 0.0]];
        comparison.observe(&float, &[found(&[1.0, 3.0, 0.0], 2, 3)], Some(&[0]));
        comparison.observe(&float, &[found(&[3.0, 1.0, 0.0], 2, 3)], Some(&[0]));
        assert!(comparison.is_of_classifier());
        let metrics = comparison.metrics();
        assert_eq!(
            (metrics.agreement, metrics.accuracy, comparison.float_accuracy()),
            (Some(0.5), Some(0.5), Some(1.0))
        );
        assert!(metrics.distance > 0.1);
        assert!((metrics.lost(comparison.float_accuracy()) - 0.5).abs() < 1e-12);
        assert!((metrics.lost(None) - 0.5).abs() < 1e-12);
    }

    /// Maps of floats have rows with a largest entry too, but that is no answer.
    #[test]
    fn outputs_that_are_no_scores() {
        let mut comparison = Comparison::default();
        let float = vec![vec![3.0, 4.0], vec![0.0, 10.0]];
        comparison.observe(&float, &[found(&[4.0, 3.0], 4, 2), found(&[0.0, 9.0], 4, 2)], Some(&[1]));
        let metrics = comparison.metrics();
        assert!(!comparison.is_of_classifier());
        assert_eq!((metrics.agreement, metrics.accuracy), (None, None));
        assert!((metrics.distance - (2.0 / 25.0 + 1.0 / 100.0)).abs() < 1e-12);
        assert_eq!(metrics.lost(None), metrics.distance);
    }

    #[test]
    fn rows_of_probabilities_and_parts_that_merge() {
        let float = vec![vec![0.5, 0.5, 0.25, 0.75], vec![1.0]];
        let network = [found(&[0.25, 0.75, 0.25, 0.75], 3, 2), found(&[1.0], 1, 1)];
        let mut whole = Comparison::default();
        whole.observe(&float, &network, None);
        whole.observe(&float, &network, None);
        let mut merged = Comparison::default();
        for _ in 0..2 {
            let mut part = Comparison::default();
            part.observe(&float, &network, None);
            merged.merge(&part);
        }
        assert_eq!(whole.metrics(), merged.metrics());
        let expected = f64::midpoint(0.5 * 2_f64.ln(), 0.5 * (2.0_f64 / 3.0).ln());
        assert!((whole.metrics().distance - expected).abs() < 1e-6);
    }
}
