//! What the guard found of a quantized model, and what it repaired.

use crate::measure::metrics::Metrics;
use schemars::JsonSchema;
use serde::Serialize;

/// What became of a loss that was too large.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Repair {
    /// The share that may be lost.
    pub allowed: f64,
    /// Samples that repairs were measured on.
    pub samples: usize,
    /// The network before repairs.
    pub before: Metrics,
    /// The network with the repairs.
    pub after: Metrics,
    /// Whether the loss is small enough now.
    pub reached: bool,
    /// Values whose range is chosen in another way now.
    pub ranges: usize,
    /// Layers that read activations of 16 bits now.
    pub wide_layers: Vec<String>,
    /// Layers that compute in float now.
    pub float_layers: Vec<String>,
    /// Those of them whose weights are float as well.
    pub float_weights: Vec<String>,
    /// Operators whose nodes compute in float now.
    pub float_operators: Vec<String>,
    /// Share of the work of the integer network that is done in float now, by multiply-accumulates.
    pub float_work: f64,
    /// What was tried.
    pub trials: Vec<RepairTrial>,
    /// Whether the budget of trials ended before all that seemed worth trying was tried.
    pub cut_short: bool,
}

/// A repair that was tried.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RepairTrial {
    /// What it was.
    pub what: String,
    /// What the network loses with it.
    pub lost: f64,
    /// The distance of its outputs from the float network's.
    pub distance: f64,
    /// Whether it was kept.
    pub kept: bool,
}
