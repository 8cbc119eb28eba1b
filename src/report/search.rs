//! What a search found.

use crate::measure::metrics::Metrics;
use crate::scheme::bit_plan::BitPlan;
use schemars::JsonSchema;
use serde::Serialize;
use std::ops::AddAssign;

/// A finished search.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Outcome {
    /// Method of the search.
    pub method: &'static str,
    /// The target, in words.
    pub target: String,
    /// Whether the chosen plan meets the target.
    pub reached: bool,
    /// What the nearest plan reaches, in words, if no plan meets the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
    /// The plan chosen.
    pub plan: BitPlan,
    /// The search that proposed this plan; followed by `repair` if exchanges of bits between layers improved it.
    pub chosen: String,
    /// Average bits per weight, a ternary weight counted as 1.6.
    pub bits: f64,
    /// Size in bytes of the file with the weights that the search used.
    pub bytes: u64,
    /// Figures of the plan with the weights that the search used; those that the solver finds afterwards are better.
    #[serde(rename = "verdict")]
    pub metrics: Metrics,
    /// Figures of the float network on the same samples.
    pub float: Metrics,
    /// Number of samples that layers were solved on, and number that plans were measured on.
    pub samples: [usize; 2],
    /// The plan that each search proposed.
    pub proposals: Vec<Proposal>,
    /// The configurations that MSQ went through; empty if MSQ was not run.
    pub steps: Vec<Step>,
    /// What each layer adds to the distance when it alone is quantized; empty if that was not measured.
    pub sensitivities: Vec<Sensitivity>,
    /// Plans than which no other found is both smaller and more accurate, from small to large.
    pub front: Vec<FrontPoint>,
    /// Passes of the samples through the whole network.
    pub passes: Passes,
    /// Number of measurements that were taken from a journal.
    pub resumed: usize,
}

/// A plan that a search proposed.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Proposal {
    /// Name of the search.
    pub method: String,
    /// Average bits per weight.
    pub bits: f64,
    /// Figures of the plan.
    #[serde(rename = "verdict")]
    pub metrics: Metrics,
}

/// A configuration that MSQ went through.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Step {
    /// Average bits per weight.
    pub bits: f64,
    /// Bytes of the weights as packed.
    pub packed_bytes: u64,
    /// `Acc_1` to `Acc_N`, the imprinted accuracies of the layers.
    pub accuracies: Vec<f64>,
    /// The layers whose bits are lowered next.
    pub lowered: Vec<String>,
    /// The configuration.
    pub plan: BitPlan,
}

/// What one layer adds to the distance.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Sensitivity {
    /// Name of the layer.
    pub layer: String,
    /// Pairs: bits of the weights, and the increase of the distance when this layer alone has these bits.
    pub costs: Vec<(String, f64)>,
}

/// A plan of the front.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FrontPoint {
    /// Average bits per weight.
    pub bits: f64,
    /// Bytes of the weights as packed.
    pub packed_bytes: u64,
    /// Figures of the plan.
    #[serde(rename = "verdict")]
    pub metrics: Metrics,
    /// The search that found it.
    pub method: String,
    /// The plan.
    pub plan: BitPlan,
}

/// Passes of samples through the whole network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Passes {
    /// Passes that were run, counted in multiply-accumulates of one pass.
    pub run: f64,
    /// Passes that would have been run without reusing the results of layers that did not change.
    pub full: f64,
}

impl AddAssign for Passes {
    fn add_assign(&mut self, other: Self) {
        self.run += other.run;
        self.full += other.full;
    }
}
