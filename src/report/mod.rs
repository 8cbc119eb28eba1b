//! What is said of a run.

mod distribution;
mod document;
mod error;
pub mod numbers;
pub mod page;
pub mod repair;
pub mod search;

pub use distribution::Distribution;
pub use document::{Document, Run};
pub use error::ReportError;

use self::repair::Repair;
use self::search::Outcome;
use crate::measure::agreement::AgreementFigures;
use crate::scheme::bit_plan::{BitPlan, WeightBits};
use crate::scheme::options::Options;
use indexmap::IndexMap;
use msq_passes::analysis::{Kept, LayerOp};
use schemars::JsonSchema;
use serde::Serialize;

/// A quantization run.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Report {
    /// Operator set of the float model.
    pub opset: i64,
    /// Size of the float model in bytes, on disk.
    pub float_bytes: u64,
    /// Size of the quantized model in bytes, on disk.
    pub bytes: u64,
    /// Samples calibrated on.
    pub samples: usize,
    /// The data in words.
    pub data: String,
    /// Whether the data was made up.
    pub synthetic: bool,
    /// Seconds calibration took.
    pub calibrate_seconds: f64,
    /// Seconds in all.
    pub seconds: f64,
    /// The options that were in force; with a search the plan is the one that was found.
    pub options: Options,
    /// The bits of every layer as they are now: a plan that does the same again.
    pub plan: BitPlan,
    /// Names of inner values that were shortened, and what they are called in the file.
    pub names: IndexMap<String, String>,
    /// The layers with integer weights in graph order.
    pub layers: Vec<LayerReport>,
    /// The layers that stay float.
    pub float_layers: Vec<LayerReport>,
    /// What a user of the file should know.
    pub notes: Vec<String>,
    /// What stays float, and why.
    pub kept: Vec<Kept>,
    /// How close the outputs are to the float model's.
    pub quality: Option<Quality>,
    /// What was repaired, where the loss was too large.
    pub repair: Option<Repair>,
    /// How the bits were found, where they were searched for.
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
    /// Bits of the weights, a number or `ternary`; nothing for float.
    pub weight_bits: Option<WeightBits>,
    /// Bits of the input activation; nothing for float.
    pub activation_bits: Option<u8>,
    /// Bytes of the weights as stored, without what unpacks them.
    pub bytes: usize,
    /// Signal-to-quantization-noise ratio of the weights in decibels; absent when rounding was exact.
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

impl Report {
    /// The number of layers, those that stay float included.
    pub fn layer_count(&self) -> usize {
        self.layers.len() + self.float_layers.len()
    }

    /// The number of layers that compute on integers.
    pub fn on_integers(&self) -> usize {
        self.layers.iter().filter(|layer| layer.activation_bits.is_some()).count()
    }

    /// Bits of a weight on average as stored, of layers with integer weights.
    pub fn bits_on_disk(&self) -> f64 {
        let weights: usize = self.layers.iter().map(|layer| layer.weights).sum();
        let bytes: usize = self.layers.iter().map(|layer| layer.bytes).sum();
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
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct Quality {
    /// Samples compared.
    pub samples: usize,
    /// Whether these samples were left out of calibration.
    pub held_out: bool,
    /// How far they agree.
    pub agreement: AgreementFigures,
    /// Share of labels that the quantized model gets right; only with labels.
    pub accuracy: Option<f64>,
    /// Share of labels that the float model gets right; only with labels.
    pub float_accuracy: Option<f64>,
    /// The share of answers lost: of accuracy with labels, of agreement without; of outputs that are no class scores,
    /// their squared error relative to the float model's.
    pub lost: f64,
}
