//! What is said of a run.

use crate::agreement::AgreementFigures;
use crate::search::Outcome;
use crate::{BitPlan, WeightBits};
use indexmap::IndexMap;
use msq_passes::analysis::{Kept, LayerOp};
use serde::Serialize;

/// A quantization run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Operator set of the float model.
    pub opset: i64,
    /// Size of the float model in bytes.
    pub float_bytes: u64,
    /// Size of the quantized model in bytes.
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
    /// How the bits were found, where they were searched for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<Outcome>,
}

/// A quantized layer.
#[derive(Clone, Debug, Serialize)]
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
}

/// Outputs compared with the float model's.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quality {
    /// Samples compared.
    pub samples: usize,
    /// Whether these samples were left out of calibration.
    pub held_out: bool,
    /// How far they agree.
    pub agreement: AgreementFigures,
    /// Share of labels that the quantized model gets right; only with labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Share of labels that the float model gets right; only with labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub float_accuracy: Option<f64>,
    /// The share of answers lost: of accuracy with labels, of agreement without; of outputs that are no class scores,
    /// their squared error relative to the float model's.
    pub lost: f64,
}
