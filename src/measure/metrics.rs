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

/// How good a network is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Verdict")]
#[serde(default)]
pub struct Metrics {
    /// Distance of the outputs from the float network's; lower is better, 0 is the float network.
    pub distance: f64,
    /// Share of rows whose best class is the float network's; none where no output holds scores.
    pub agreement: Option<f64>,
    /// Share of rows whose best class is the label; none without labels.
    pub accuracy: Option<f64>,
    /// The caller's own metric; none without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<f64>,
    /// What is lost, as `max-drop` counts it: of the caller's own metric, else of accuracy, else by the worst output.
    pub lost: f64,
    /// Output by output.
    pub outputs: Vec<OutputMetrics>,
}

/// How far one output is from the float network's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OutputMetrics {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: OutputKind,
    /// Why it is taken for that.
    pub because: String,
    /// What is lost, as `max-drop` counts it for this kind.
    pub lost: f64,
    /// Its share of the distance.
    pub distance: f64,
    /// Signal-to-noise ratio in decibels, signal being the variance: mean over channels; absent where all are equal.
    pub sqnr: Option<f64>,
    /// Signal-to-noise ratio of the worst channel in decibels; absent where all are equal.
    pub worst_sqnr: Option<f64>,
    /// The worst channel; absent where the output is compared as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_channel: Option<usize>,
    /// Channels compared, 1 where the output is compared as one.
    pub channels: usize,
    /// Largest root mean square error of a channel that does not vary in the float network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constant_error: Option<f64>,
    /// What is particular to the kind.
    #[serde(flatten)]
    pub figures: KindFigures,
    /// The quarter of the samples that is much worse than the rest, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_quarter: Option<Quarter>,
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
    /// Share of sequences that read the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_sequences: Option<f64>,
    /// Mean cosine with the float network's vector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine: Option<f64>,
    /// Least cosine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least_cosine: Option<f64>,
    /// Boxes that the float network finds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boxes: Option<u64>,
    /// Of those, boxes that the network finds too, with the same class and at an intersection over union of one half.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<u64>,
    /// Boxes that only the network finds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invented: Option<u64>,
}

/// A quarter of the samples beside the rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Quarter {
    /// Which of the four in the order of the samples, from 1 on; absent where the samples are scattered.
    pub quarter: Option<usize>,
    /// Some of the samples, counted from 0, where they are scattered.
    pub samples: Vec<usize>,
    /// What it loses.
    pub lost: f64,
    /// What the rest loses.
    pub rest: f64,
}

/// The share of the float network's score that is lost; where that is 0, the difference.
pub(crate) fn drop_of(metric: f64, float: f64) -> f64 {
    if float == 0.0 { float - metric } else { (float - metric) / float.abs() }
}

impl Metrics {
    /// The metrics with the caller's own metric, which then alone decides what is lost: the share of the float network's.
    #[must_use]
    pub(crate) fn scored(self, metric: f64, float: f64) -> Self {
        Self { metric: Some(metric), lost: drop_of(metric, float), ..self }
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
