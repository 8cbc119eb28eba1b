//! What a comparison of a network with the float one found.
//!
//! Every output has a *loss*, one number that `max-drop` is compared with, and a *distance*, which searches add up and
//! minimise. The loss means, by what the output holds:
//!
//! | kind | loss |
//! |---|---|
//! | scores | share of rows with another answer than the float network's; with labels, the accuracy lost |
//! | values | share of its variance that the worst channel loses: E(ŷ − y)² / Var(y) |
//! | boxes | share of boxes that only one of the two networks finds |
//! | embedding | 1 − the mean cosine |
//! | sequence | share of sequences that read differently; for one label per input token, share of labels |
//!
//! The loss of a network is that of its worst output, or the drop in accuracy where there are labels, or in the
//! caller's own metric where there is one.

use crate::scheme::output_kind::OutputKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a network compares with the float network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Verdict")]
#[serde(default)]
pub struct Metrics {
    /// Distance of the outputs from the float network's; lower is better, 0 is the float network.
    pub distance: f64,
    /// Share of rows whose best class is the float network's; null if no output holds scores.
    pub agreement: Option<f64>,
    /// Share of rows whose best class is the label; null without labels.
    pub accuracy: Option<f64>,
    /// Value of the caller's own metric, if one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<f64>,
    /// The loss, as `max-drop` counts it: in the caller's own metric, else in accuracy, else of the worst output.
    pub lost: f64,
    /// Figures of every output.
    pub outputs: Vec<OutputMetrics>,
}

/// How far one output is from the float network's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OutputMetrics {
    /// Name of the output.
    pub name: String,
    /// What it holds.
    pub kind: OutputKind,
    /// Why the program takes it for that.
    pub because: String,
    /// Whether it is a state or a cache, for an input of the next run; absent if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub state: bool,
    /// Whether anything of it was compared; absent if so. Otherwise the loss of 0 says nothing.
    #[serde(default = "compared", skip_serializing_if = "Clone::clone")]
    pub compared: bool,
    /// The loss, as `max-drop` counts it for this kind of output.
    pub lost: f64,
    /// What this output contributes to the distance.
    pub distance: f64,
    /// Signal-to-noise ratio in decibels, signal being the variance: mean over channels; absent if all are equal or none
    /// varies.
    pub sqnr: Option<f64>,
    /// Signal-to-noise ratio of the worst channel in decibels; absent if all are equal or none varies.
    pub worst_sqnr: Option<f64>,
    /// Index of the worst channel; absent if the output is compared as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_channel: Option<usize>,
    /// Number of channels compared; 1 if the output is compared as a whole.
    pub channels: usize,
    /// Largest root mean square error of a channel that does not vary in the float network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constant_error: Option<f64>,
    /// What is particular to the kind.
    #[serde(flatten)]
    pub figures: KindFigures,
    /// A quarter of the samples that is much worse than the rest, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_quarter: Option<Quarter>,
}

/// How much the loss depends on which samples were compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Loss {
    /// Its standard error.
    pub(crate) error: f64,
    /// The limit that it keeps to on other samples, with one-sided confidence of 95 %.
    pub(crate) at_most: f64,
}

/// Reports say nothing of an output that was compared.
fn compared() -> bool {
    true
}

/// Figures of one kind of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct KindFigures {
    /// Rows compared: one per sample for a classifier, one per position for a sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Share of rows with the same answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// Mean Kullback-Leibler divergence KL(float ‖ network) of the rows in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub divergence: Option<f64>,
    /// Mean of 4·KL of the same rows at temperature 2, by which searches compare plans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub softened_divergence: Option<f64>,
    /// Share of sequences that are decoded to the same symbols.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_sequences: Option<f64>,
    /// Mean cosine with the float network's vector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine: Option<f64>,
    /// Smallest cosine with the float network's vector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least_cosine: Option<f64>,
    /// Number of boxes that the float network finds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boxes: Option<u64>,
    /// Number of those that the network finds too, with the same class and at an intersection over union of one half.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<u64>,
    /// Number of boxes that only the network finds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invented: Option<u64>,
    /// Signal-to-noise ratio, in decibels, of the further numbers of boxes that are kept, such as coefficients of masks, key
    /// points and angles: the power of each number's deviation from its mean over that of its error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beside: Option<f64>,
}

/// A quarter of the samples, compared with the rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Quarter {
    /// Which quarter in the order of the samples, counted from 1; absent if the bad samples are scattered.
    pub quarter: Option<usize>,
    /// Indices of some of the bad samples, from 0, if they are scattered.
    pub samples: Vec<usize>,
    /// Loss on this quarter.
    pub lost: f64,
    /// Loss on the other samples.
    pub rest: f64,
}

/// The share of the float network's score that is lost; where that is 0, the difference.
pub(crate) fn drop_of(metric: f64, float: f64) -> f64 {
    if float == 0.0 { float - metric } else { (float - metric) / float.abs() }
}

impl OutputMetrics {
    /// Whether the output holds values that differ between samples, or between positions, by more than rounding, so that
    /// an error can be compared with something; true for what holds no values, and for an output without error.
    pub fn varies(&self) -> bool {
        let is_constant = self.sqnr.is_none() && self.constant_error.is_some_and(|error| error > 0.0);
        self.kind != OutputKind::Values || !is_constant
    }
}

impl Metrics {
    /// The metrics with the caller's own metric, which then alone decides what is lost: the share of the float network's.
    #[must_use]
    pub(crate) fn scored(self, metric: f64, float: f64) -> Self {
        Self { metric: Some(metric), lost: drop_of(metric, float), ..self }
    }

    /// The distance that decides between plans: outputs with a divergence count by their softened one.
    ///
    /// The divergence of a row is in proportion to the variance p(1 − p) of its answers, so that a network that is certain
    /// of nearly all samples, as networks are of those they were trained on, is compared on the few others alone.
    pub(crate) fn softened_distance(&self) -> f64 {
        let change = |output: &OutputMetrics| Some(output.figures.softened_divergence? - output.figures.divergence?);
        self.distance + self.outputs.iter().filter_map(change).sum::<f64>()
    }

    /// Whether anything says what is lost: an output that is compared, labels, or the caller's own metric.
    pub(crate) fn is_measured(&self) -> bool {
        self.accuracy.is_some() || self.metric.is_some() || self.outputs.iter().any(|output| output.compared)
    }

    /// The output that loses most.
    pub fn worst_output(&self) -> Option<&OutputMetrics> {
        // Of equals the first.
        self.outputs.iter().rev().max_by(|a, b| a.lost.total_cmp(&b.lost))
    }

    /// The signal-to-noise ratio of the worst channel of all outputs that hold values, in decibels.
    pub fn worst_channel(&self) -> Option<f64> {
        let values = self.outputs.iter().filter(|output| output.kind == OutputKind::Values);
        values.filter_map(|output| output.worst_sqnr).min_by(f64::total_cmp)
    }
}
