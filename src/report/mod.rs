//! What is said of a run.

mod distribution;
mod document;
mod error;
mod floats;
pub mod numbers;
pub mod outputs;
pub mod page;
pub mod repair;
pub mod search;

pub use distribution::Distribution;
pub use document::{Document, Run};
pub use error::ReportError;
pub use floats::FloatGroup;

use self::repair::Repair;
use self::search::Outcome;
use crate::measure::agreement::AgreementFigures;
use crate::measure::metrics::{Loss, Metrics, OutputMetrics, drop_of};
use crate::scheme::bit_plan::{BitPlan, WeightBits};
use crate::scheme::gradient_code::GradientCode;
use crate::scheme::options::Options;
use indexmap::IndexMap;
use msq_passes::analysis::{Kept, LayerOp, StoredKind};
use schemars::JsonSchema;
use serde::Serialize;

/// A quantization run.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Report {
    /// Version of the operator set `ai.onnx` of the float model.
    pub opset: i64,
    /// Size of the float model in bytes, on disk.
    pub float_bytes: u64,
    /// Size of the quantized model in bytes, on disk.
    pub bytes: u64,
    /// Number of calibration samples.
    pub samples: usize,
    /// Where the data came from, in words.
    pub data: String,
    /// How image files became numbers, in words; null for other data.
    pub preprocessing: Option<String>,
    /// Whether the data were generated because none were given.
    pub synthetic: bool,
    /// Time that calibration took, in seconds.
    pub calibrate_seconds: f64,
    /// Time of the whole run, in seconds.
    pub seconds: f64,
    /// The options of the run; after a search, with the plan that was found.
    pub options: Options,
    /// The bits of every layer: with this plan the run can be repeated.
    pub plan: BitPlan,
    /// Names of inner values that were shortened, with their names in the file.
    pub names: IndexMap<String, String>,
    /// The layers with integer weights in graph order.
    pub layers: Vec<LayerReport>,
    /// The layers that stay in float.
    pub float_layers: Vec<LayerReport>,
    /// Weights that belong to no layer: embedding tables, recurrent weights, weights of sub-graphs.
    pub stored: Vec<StoredReport>,
    /// Messages about the file for its user.
    pub notes: Vec<String>,
    /// The nodes that stay in float, and why.
    pub kept: Vec<Kept>,
    /// What is stored in float16, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub float16: Option<HalfReport>,
    /// What layers learned before they were solved, with the solvers that let them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning: Option<LearningReport>,
    /// How close the outputs are to the float model's; null if that was not measured.
    pub quality: Option<Quality>,
    /// What was repaired; null if the loss was small enough.
    pub repair: Option<Repair>,
    /// The search for the bits; null if there was none.
    pub search: Option<Outcome>,
}

/// A quantized layer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LayerReport {
    /// Name.
    pub name: String,
    /// Operator.
    pub op: LayerOp,
    /// Shape of the weight.
    pub shape: Vec<usize>,
    /// Number of weights.
    pub weights: usize,
    /// Multiply-accumulates for one sample, where the shapes are known.
    pub macs: Option<u64>,
    /// Bits of the weights, a number or `ternary`; null for float.
    pub weight_bits: Option<WeightBits>,
    /// Bits of the input activation; null for float.
    pub activation_bits: Option<u8>,
    /// Why the runtime computes the layer in float although the file has it on integers, as rule `stays-float` of `lint`
    /// says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stays_float: Option<String>,
    /// Bytes of the weights as stored, without the nodes that unpack them.
    pub bytes: usize,
    /// Signal-to-quantization-noise ratio of the weights in decibels; null if rounding was exact.
    pub weight_sqnr: Option<f64>,
    /// Signal-to-quantization-noise ratio of what the layer computes on the calibration data, in decibels; only where
    /// the solver looks at that.
    pub output_sqnr: Option<f64>,
    /// Signal-to-quantization-noise ratio in decibels of what the layer hands on in the quantized network, the errors of
    /// the layers before included; only where details are asked for.
    pub network_sqnr: Option<f64>,
    /// The weights in steps of their channel's scale, and the integers that stand for them; only of the layers with the
    /// largest errors, where details are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_distribution: Option<Distribution>,
    /// What the layer reads on the calibration data, and the numbers its quantizer holds; of the same layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_distribution: Option<Distribution>,
}

/// A weight that belongs to no layer of the main graph.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct StoredReport {
    /// Name of the tensor.
    pub name: String,
    /// How it is used.
    pub kind: StoredKind,
    /// The operator that reads it.
    pub op: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Number of weights.
    pub weights: usize,
    /// Bits of the integers; null for float.
    pub weight_bits: Option<WeightBits>,
    /// Bytes as stored, without scales and the nodes that unpack them.
    pub bytes: usize,
    /// Signal-to-quantization-noise ratio of the weights in decibels; null if rounding was exact, and for float.
    pub weight_sqnr: Option<f64>,
    /// Why it stays in float.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What is stored and computed in float16.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HalfReport {
    /// Nodes of the float model that compute in float16.
    pub nodes: usize,
    /// Constants stored in float16.
    pub constants: usize,
    /// Bytes of these constants.
    pub bytes: usize,
    /// Nodes and constants that stay in float32.
    pub left: Vec<LeftFloat>,
}

/// A node or a constant that stays in float32 although float16 was asked for.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LeftFloat {
    /// Name of the node or constant.
    pub name: String,
    /// Why it stays in float32.
    pub reason: String,
}

/// What layers learned by gradients before their weights became integers.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LearningReport {
    /// Processes that the mini-batches were shared among.
    pub processes: usize,
    /// How the gradients that they exchanged were encoded.
    pub gradient_code: GradientCode,
    /// Mini-batches, of all blocks together.
    pub steps: u64,
    /// Bytes of gradients that the processes received from each other, all together.
    pub exchanged_bytes: u64,
    /// The same if gradients had been exchanged as floats.
    pub float_bytes: u64,
    /// Distance of the outputs from the float network's, as searches measure it, on samples held out, without learning; null
    /// if no block gained.
    pub distance_without: Option<f64>,
    /// The same with learning.
    pub distance_with: Option<f64>,
    /// Whether what was learned went into the model.
    pub taken: bool,
}

impl Report {
    /// The number of layers, those that stay float included.
    pub fn layer_count(&self) -> usize {
        self.layers.len() + self.float_layers.len()
    }

    /// The number of layers that compute on integers.
    pub fn on_integers(&self) -> usize {
        let on_integers = |layer: &&LayerReport| layer.activation_bits.is_some() && layer.stays_float.is_none();
        self.layers.iter().filter(on_integers).count()
    }

    /// Whether the plan asks for no layer on integers.
    pub fn asks_for_floats(&self) -> bool {
        let plan = &self.options.scheme.plan;
        plan.layers.values().chain(&plan.default).all(|layer| !layer.activations.is_static())
    }

    /// Whether a plan was chosen among several, by a search or a repair.
    pub fn is_chosen(&self) -> bool {
        let repaired = || self.repair.as_ref().is_some_and(|repair| repair.trials.iter().any(|trial| trial.kept));
        self.search.is_some() || repaired()
    }

    /// What layers on integers compute with, in words: `int8`, or more bits where some read activations of 16 bits.
    pub fn integer_words(&self) -> &'static str {
        let on_integers = || self.layers.iter().filter(|layer| layer.stays_float.is_none());
        let wide = |layer: &&LayerReport| layer.activation_bits.is_some_and(|bits| bits > 8);
        match (
            on_integers().any(|layer| wide(&layer)),
            on_integers().any(|layer| layer.activation_bits.is_some_and(|b| b <= 8)),
        ) {
            (false, _) => "int8",
            (true, false) => "on integers with activations of 16 bits",
            (true, true) => "on integers, some with activations of 16 bits",
        }
    }

    /// Bits of a weight on average as stored, of all integer weights: those of layers, and those beside them.
    pub fn bits_on_disk(&self) -> f64 {
        let of_layers = self.layers.iter().map(|layer| (layer.weights, layer.bytes));
        let beside = self.stored.iter().filter(|weight| weight.weight_bits.is_some());
        let all = of_layers.chain(beside.map(|weight| (weight.weights, weight.bytes)));
        let (weights, bytes) = all.fold((0, 0), |(weights, bytes), own| (weights + own.0, bytes + own.1));
        8.0 * bytes as f64 / weights.max(1) as f64
    }

    /// Bits of activations in words: `8`, `4 to 8` or `float`.
    pub fn activations(&self) -> String {
        let bits = || self.layers.iter().filter_map(|layer| layer.activation_bits);
        match (bits().min(), bits().max()) {
            (Some(least), Some(most)) if least < most => format!("{least} to {most}"),
            (Some(bits), _) => bits.to_string(),
            _ => "float".to_owned(),
        }
    }
}

impl LayerReport {
    /// The ratio that says most: of the network, of the layer's output, or of its weights.
    pub fn sqnr(&self) -> Option<f64> {
        self.network_sqnr.or(self.output_sqnr).or(self.weight_sqnr)
    }
}

/// Outputs compared with the float model's.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Quality {
    /// Number of samples compared.
    pub samples: usize,
    /// Whether these samples were held out of calibration.
    pub held_out: bool,
    /// Whether each of them was compared with ranges that were chosen from others, and those written were chosen from all.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cross_validated: bool,
    /// Whether the plan was chosen among several by these samples: on others it loses more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub chosen_by: bool,
    /// Figures over all outputs together.
    pub agreement: AgreementFigures,
    /// Share of labels that the quantized model predicts correctly; null without labels.
    pub accuracy: Option<f64>,
    /// Share of labels that the float model predicts correctly; null without labels.
    pub float_accuracy: Option<f64>,
    /// Value of the caller's own metric for the quantized model, if one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<f64>,
    /// Value of the caller's own metric for the float model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub float_metric: Option<f64>,
    /// The loss, as option `max-drop` counts it: in the caller's own metric, else in accuracy if the data have labels,
    /// else of the worst output.
    pub lost: f64,
    /// The standard error of this loss, by how it differs between samples; null with a metric of the caller's own, and for few
    /// samples.
    pub lost_error: Option<f64>,
    /// The loss that other samples of the same kind will hardly exceed: its limit of one-sided 95 % confidence; null where
    /// `lost_error` is.
    pub lost_at_most: Option<f64>,
    /// Every output: what it holds, and how far it is from the float model's.
    pub outputs: Vec<OutputMetrics>,
    /// Warnings: channels and outputs with a large error, answers that differ, samples that are much worse than the
    /// rest.
    pub warnings: Vec<String>,
}

impl Quality {
    /// Of a comparison.
    pub(crate) fn of(
        (metrics, loss): (Metrics, Option<Loss>),
        agreement: AgreementFigures,
        float_accuracy: Option<f64>,
        samples: usize,
        held_out: bool,
    ) -> Self {
        let Metrics { accuracy, lost, outputs, .. } = metrics;
        let warnings = outputs::warnings(&outputs);
        let (metric, float_metric, cross_validated, chosen_by) = (None, None, false, false);
        let (lost_error, lost_at_most) = loss.map(|loss| (loss.error, loss.at_most)).unzip();
        Self {
            samples,
            held_out,
            cross_validated,
            chosen_by,
            agreement,
            accuracy,
            float_accuracy,
            metric,
            float_metric,
            lost,
            lost_error,
            lost_at_most,
            outputs,
            warnings,
        }
    }

    /// The same, of samples that were compared with ranges from others.
    pub(crate) fn cross_validated(self) -> Self {
        Self { cross_validated: true, ..self }
    }

    /// The same with the caller's own metric, which then decides what is lost.
    pub(crate) fn scored(self, metric: f64, float: f64) -> Self {
        let lost = drop_of(metric, float);
        Self { metric: Some(metric), float_metric: Some(float), lost, lost_error: None, lost_at_most: None, ..self }
    }
}
