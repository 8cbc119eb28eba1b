//! What the guard found of a quantized model, and what it repaired.

use crate::measure::metrics::Metrics;
use schemars::JsonSchema;
use serde::Serialize;

/// The attempt to repair a loss that was too large.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Repair {
    /// The largest loss that is allowed.
    pub allowed: f64,
    /// Number of samples that repairs were measured on.
    pub samples: usize,
    /// Figures of the network before repairs.
    pub before: Metrics,
    /// Figures of the network with the repairs.
    pub after: Metrics,
    /// Whether the loss is now within what is allowed.
    pub reached: bool,
    /// Number of values whose range is now chosen by another observer.
    pub ranges: usize,
    /// Layers that now read activations of 16 bits.
    pub wide_layers: Vec<String>,
    /// Layers that now compute in float.
    pub float_layers: Vec<String>,
    /// Those of them whose weights are float as well, and weights beside the layers that are float now.
    pub float_weights: Vec<String>,
    /// Layers and weights beside them that now have 8 bits instead of fewer.
    pub eight_bit_weights: Vec<String>,
    /// Recurrent nodes that no longer quantize at run time what they read.
    pub float_recurrent: Vec<String>,
    /// Operators whose nodes now compute in float.
    pub float_operators: Vec<String>,
    /// Share of the network's multiply-accumulates that is now done in float.
    pub float_work: f64,
    /// The repairs that were tried.
    pub trials: Vec<RepairTrial>,
    /// Whether the budget ended before everything that seemed worth trying was tried.
    pub cut_short: bool,
}

/// A repair that was tried.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RepairTrial {
    /// The repair, in words.
    pub what: String,
    /// Loss of the network with it.
    pub lost: f64,
    /// Distance of the network's outputs from the float network's.
    pub distance: f64,
    /// Whether it was kept.
    pub kept: bool,
}
