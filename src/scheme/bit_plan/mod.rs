//! The bit plan: bits of each layer's weights and input activation, and the storage of the weights.
//!
//! A plan is a JSON document that people can edit:
//!
//! ```json
//! {
//!   "version": 1,
//!   "default": { "weights": 4, "activations": 8 },
//!   "layers": {
//!     "conv1": { "weights": 8, "activations": 8 },
//!     "layer3.0.conv2": { "weights": "ternary", "activations": 8 },
//!     "head": { "weights": "float", "activations": "float" }
//!   }
//! }
//! ```
//!
//! Layers have the names that `msq-onnx inspect` shows. `default` applies to layers that the plan does not name;
//! without it every layer has to be named. `grid` and `packing` may be given too, with the meaning of the fields of
//! [`LayerPlan`]. `float` lists nodes that are no layers and compute in float. `observer` says how the ranges of values
//! are chosen (`"min-max"`, `"percentile"` and so on), `ranges` says it for single values. A plan out of a file whose names
//! were shortened has a `sequence` instead of `layers`: the entries of all layers in the order of the graph.

mod bits;
mod layer;
mod sequence;

use super::SchemeError;
use super::observer::ObserverKind;
use crate::runtime::names;
pub use bits::{ActivationBits, WeightBits};
pub(super) use bits::{NumberOrWord, number_or_word};
pub(crate) use bits::{parse_activation_bits, parse_bits};
use indexmap::IndexMap;
pub use layer::{LayerPlan, PackingForm};
use msq_passes::Profile;
use msq_passes::analysis::layers;
use msq_passes::ir::Model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// The version of the document.
const VERSION: u32 = 1;

/// Layers that a message names.
const NAMED: usize = 8;

/// How every layer is quantized.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BitPlan {
    version: u32,
    /// Applies to layers that are not named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<LayerPlan>,
    /// Layers by name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub layers: IndexMap<String, LayerPlan>,
    /// All layers in the order of the graph, if their names are not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sequence: Vec<LayerPlan>,
    /// Names of nodes that are no layers and compute in float.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub float: Vec<String>,
    /// How ranges of values are chosen, if not as the options say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observer: Option<ObserverKind>,
    /// How the ranges of single values are chosen, by name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub ranges: IndexMap<String, ObserverKind>,
}

impl Default for BitPlan {
    /// 8 bits for every layer.
    fn default() -> Self {
        Self::uniform(LayerPlan::default())
    }
}

impl BitPlan {
    /// One entry for all layers.
    pub fn uniform(layer: LayerPlan) -> Self {
        Self { default: Some(layer), ..Self::of_layers(IndexMap::new()) }
    }

    /// One entry per layer.
    pub fn of_layers(layers: IndexMap<String, LayerPlan>) -> Self {
        Self {
            version: VERSION,
            default: None,
            layers,
            sequence: Vec::new(),
            float: Vec::new(),
            observer: None,
            ranges: IndexMap::new(),
        }
    }

    /// The plan with these entries for layers; what it says of nodes and values stays.
    #[must_use]
    pub(crate) fn with_layers(&self, layers: IndexMap<String, LayerPlan>) -> Self {
        Self { layers, default: None, sequence: Vec::new(), ..self.clone() }
    }

    /// The plan with trellis codes as the grid of few bits, where it asks for no other.
    #[must_use]
    pub(crate) fn with_trellis(&self) -> Self {
        let layers = self.layers.iter().map(|(name, layer)| (name.clone(), layer.with_trellis()));
        Self { default: self.default.map(LayerPlan::with_trellis), ..self.with_layers(layers.collect()) }
    }

    /// The plan of a prepared model, without blocks and ranges found at run time for layers that have none of these: which
    /// are no plain products with a matrix, or whose blocks the target does not run. Says which these are. A product with
    /// blocks quantizes its input by itself, if it does.
    #[must_use]
    pub(crate) fn with_fitting_products(&self, model: &Model, profile: &Profile) -> Self {
        let mut plan = self.clone();
        let partial = profile.blocks.is_some_and(|blocks| blocks.partial);
        let (mut others, mut float) = (Vec::new(), Vec::new());
        for layer in layers(model) {
            let Some(planned) = self.layer(&layer.name) else { continue };
            let inputs = layer.weights() / layer.channels().max(1);
            let product = layer.is_matrix_product(&model.graph);
            let mut fitting = planned;
            if planned.block().is_some_and(|block| !product || !(partial || inputs.is_multiple_of(block))) {
                fitting = fitting.without_blocks();
                others.push(layer.name.clone());
            }
            if planned.activations == ActivationBits::Dynamic && (!product || fitting.block().is_some()) {
                fitting.activations = ActivationBits::Float;
                float.extend((!product).then(|| layer.name.clone()));
            }
            if fitting != planned {
                plan.layers.insert(layer.name, fitting);
            }
        }
        tell(&others, "have one scale per channel, because their weights have no whole blocks");
        tell(&float, "compute in float, because they are no products with a matrix");
        plan
    }

    /// Reads a plan from a JSON document.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let plan: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        match plan.version {
            VERSION => Ok(plan),
            version => Err(format!("version {version} is not known, {VERSION} is")),
        }
    }

    /// An equivalent shorter plan: the entry of most layers becomes the default.
    #[must_use]
    pub(crate) fn compact(&self) -> Self {
        let mut counts: IndexMap<LayerPlan, usize> = IndexMap::new();
        for &layer in self.layers.values() {
            *counts.entry(layer).or_default() += 1;
        }
        let rank = |&(at, (_, count)): &(usize, (&LayerPlan, &usize))| (*count, std::cmp::Reverse(at));
        let most = counts.iter().enumerate().max_by_key(rank).map(|(_, (&layer, _))| layer);
        let Some(default) = most.filter(|_| self.default.is_none()) else { return self.clone() };
        let others = self.layers.iter().filter(|(_, layer)| **layer != default);
        let layers = others.map(|(name, &layer)| (name.clone(), layer)).collect();
        Self { default: Some(default), layers, ..self.clone() }
    }

    /// The plan as JSON without line breaks.
    pub(crate) fn to_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The plan as a JSON document.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Whether the plan is one entry for all layers and says nothing of single layers, nodes or values.
    pub(crate) fn is_uniform(&self) -> bool {
        self.layers.is_empty()
            && self.sequence.is_empty()
            && self.float.is_empty()
            && self.ranges.is_empty()
            && self.observer.is_none()
    }

    /// Whether any layer reads activations of 16 bits.
    pub(crate) fn is_wide(&self) -> bool {
        let wide = |layer: &LayerPlan| matches!(layer.activations, ActivationBits::Bits(bits) if bits > 8);
        self.layers.values().chain(&self.default).any(wide)
    }

    /// How the range of a value is chosen, if the plan says so.
    pub(crate) fn observer_of(&self, value: &str) -> Option<ObserverKind> {
        self.ranges.get(value).copied().or(self.observer)
    }

    /// The plan's entry for a layer.
    pub fn layer(&self, name: &str) -> Option<LayerPlan> {
        self.layers.get(name).copied().or(self.default)
    }

    /// Checks the plan against the layers of a model and the target.
    pub fn check<'a>(&self, layers: impl Iterator<Item = &'a str>, profile: &Profile) -> Result<(), SchemeError> {
        let names: Vec<&str> = layers.collect();
        if let Some(name) = self.layers.keys().find(|name| !names.contains(&name.as_str())) {
            return Err(SchemeError::PlanLayer {
                layer: name.clone(),
                reason: "the model has no such layer".to_owned(),
            });
        }
        if let Some(name) = names.iter().find(|name| self.layer(name).is_none()) {
            let reason = "the plan neither names it nor has a default".to_owned();
            return Err(SchemeError::PlanLayer { layer: (*name).to_owned(), reason });
        }
        for (name, layer) in &self.layers {
            if let Some(reason) = layer.fault(profile) {
                return Err(SchemeError::PlanLayer { layer: name.clone(), reason });
            }
        }
        match self.default.and_then(|layer| layer.fault(profile)) {
            Some(reason) => Err(SchemeError::Combination { reason }),
            None => Ok(()),
        }
    }

    /// Checks that the nodes and values that the plan names are there.
    pub(crate) fn check_nodes(&self, model: &Model) -> Result<(), SchemeError> {
        let graph = &model.graph;
        let nodes: HashSet<&str> = graph.nodes().map(|(_, node)| node.label(graph)).collect();
        if let Some(name) = self.float.iter().find(|name| !nodes.contains(name.as_str())) {
            return Err(SchemeError::PlanName { what: "node", name: name.clone() });
        }
        match self.ranges.keys().find(|name| graph.find(name).is_none()) {
            Some(name) => Err(SchemeError::PlanName { what: "value", name: name.clone() }),
            None => Ok(()),
        }
    }
}

/// Says what became of layers, if there are any.
fn tell(layers: &[String], what: &str) {
    let named = names::quoted(layers.iter().take(NAMED));
    let more = if layers.len() > NAMED { ", …" } else { "" };
    if !layers.is_empty() {
        tracing::info!("{} layers {what}: {named}{more}", layers.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"{
  "version": 1,
  "default": {
    "weights": 4,
    "activations": 8
  },
  "layers": {
    "a": {
      "weights": "ternary",
      "activations": 4
    },
    "b": {
      "weights": 2,
      "activations": "float",
      "grid": "codebook"
    },
    "c": {
      "weights": 4,
      "activations": 8,
      "packing": "int4"
    },
    "d": {
      "weights": 1.75,
      "activations": 8
    }
  }
}
"#;

    #[test]
    fn few_bits_are_trellis_codes_unless_something_else_is_asked_for() {
        let plan: BitPlan = serde_json::from_str(EXAMPLE).unwrap();
        let coded = plan.with_trellis();
        let grid = |name: &str| coded.layer(name).unwrap().weight_grid().to_string();
        let found = ["a", "b", "c", "d", "z"].map(grid);
        assert_eq!(found, ["narrow", "codebook", "full", "trellis", "trellis"]);
        assert_eq!(BitPlan::default().with_trellis(), BitPlan::default());
    }

    #[test]
    fn a_plan_is_read_and_written() {
        let plan: BitPlan = serde_json::from_str(EXAMPLE).unwrap();
        assert_eq!(plan.to_json(), EXAMPLE);
        assert_eq!(plan.layer("a").unwrap().weights, WeightBits::Ternary);
        let seven_quarters = plan.layer("d").unwrap();
        assert_eq!(seven_quarters.weights, "1.75".parse().unwrap());
        assert_eq!(seven_quarters.weight_grid(), crate::WeightGrid::Trellis);
        assert_eq!(plan.layer("z"), plan.default);
        assert!(plan.check(["a", "b", "c", "d", "z"].into_iter(), &Profile::ORT_CPU).is_ok());
    }
}
