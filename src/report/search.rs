//! What a search found.

use crate::measure::metrics::Metrics;
use crate::scheme::bit_plan::BitPlan;
use schemars::JsonSchema;
use serde::Serialize;

/// A finished search.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Outcome {
    /// How bits were chosen.
    pub method: &'static str,
    /// What the plan had to keep to, in words.
    pub target: String,
    /// Whether it does.
    pub reached: bool,
    /// What the nearest plan reaches, in words, where the target is out of reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
    /// The plan chosen.
    pub plan: BitPlan,
    /// Which search it comes from; `repair` behind the name if exchanges improved it.
    pub chosen: String,
    /// Bits of a weight on average, a ternary weight 1.6.
    pub bits: f64,
    /// Bytes of the file by the weights of the search.
    pub bytes: u64,
    /// How good the plan is with the weights of the search, which the full solution improves on.
    #[serde(rename = "verdict")]
    pub metrics: Metrics,
    /// The float network on the same samples.
    pub float: Metrics,
    /// Samples layers were solved on, and samples plans were measured on.
    pub samples: [usize; 2],
    /// What each search proposed.
    pub proposals: Vec<Proposal>,
    /// The way MSQ went; empty where it was not asked.
    pub steps: Vec<Step>,
    /// What each layer costs alone; empty where that was not measured.
    pub sensitivities: Vec<Sensitivity>,
    /// Plans worth having, from small to large.
    pub front: Vec<FrontPoint>,
    /// Passes through the network.
    pub passes: Passes,
    /// Measurements taken over from a journal.
    pub resumed: usize,
}

/// A plan that a search proposed.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Proposal {
    /// The search.
    pub method: String,
    /// Bits of a weight on average.
    pub bits: f64,
    /// How good it is.
    #[serde(rename = "verdict")]
    pub metrics: Metrics,
}

/// A configuration on MSQ's way.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Step {
    /// Bits of a weight on average.
    pub bits: f64,
    /// Bytes of the weights as packed.
    pub packed_bytes: u64,
    /// `Acc_1` to `Acc_N`.
    pub accuracies: Vec<f64>,
    /// The layers lowered next.
    pub lowered: Vec<String>,
    /// The configuration.
    pub plan: BitPlan,
}

/// What a layer costs.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Sensitivity {
    /// The layer.
    pub layer: String,
    /// Bits of the weights, and what is added to the distance when this layer alone has them.
    pub costs: Vec<(String, f64)>,
}

/// A plan of the front.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FrontPoint {
    /// Bits of a weight on average.
    pub bits: f64,
    /// Bytes of the weights as packed.
    pub packed_bytes: u64,
    /// How good it is.
    #[serde(rename = "verdict")]
    pub metrics: Metrics,
    /// The search it comes from.
    pub method: String,
    /// The plan.
    pub plan: BitPlan,
}

/// Passes of samples through the whole network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Passes {
    /// What was run, by multiply-accumulates.
    pub run: f64,
    /// What running every variant from its start would have been.
    pub full: f64,
}
