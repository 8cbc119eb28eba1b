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
//! are chosen (`"min-max"`, `"percentile"` and so on), `ranges` says it for single values.

use super::SchemeError;
use super::observer::ObserverKind;
use crate::quant::weight_grid::WeightGrid;
use indexmap::IndexMap;
use msq_passes::ir::Model;
use msq_passes::{Packing, Profile, TrellisRate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

/// The version of the document.
const VERSION: u32 = 1;

/// Bits of a layer's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightBits {
    /// Not quantized.
    Float,
    /// −1 and 1 times a scale: 1 bit on disk.
    Binary,
    /// −1, 0 and 1 times a scale: 1.6 bits on disk.
    Ternary,
    /// 2 to 8.
    Bits(u8),
}

/// Bits of the activation a layer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActivationBits {
    /// Not quantized: the layer computes in float, whatever its weights are stored as.
    Float,
    /// 2 to 8.
    Bits(u8),
}

/// The form in which weights are stored.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    strum::Display,
    strum::EnumString,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[strum(serialize_all = "kebab-case")]
#[serde(rename_all = "kebab-case")]
pub enum PackingForm {
    /// Digits in bytes, unpacked by a table; runs everywhere. A byte each where that is not smaller.
    #[default]
    Auto,
    /// A byte each.
    None,
    /// An INT4 tensor and a Cast, for 4 bits.
    Int4,
    /// An INT2 tensor and a Cast, for 2 bits. Opset 25: few runtimes take it.
    Int2,
}

/// What happens to a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LayerPlan {
    /// Bits of the weights: `"float"`, `"ternary"`, `"binary"` or 2 to 8.
    pub weights: WeightBits,
    /// Bits of the activation read: `"float"` or 2 to 8.
    pub activations: ActivationBits,
    /// The grid of the weights; `narrow` at 8 bits and `full` below unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grid: Option<WeightGrid>,
    /// How the weights are stored.
    #[serde(default, skip_serializing_if = "is_auto")]
    pub packing: PackingForm,
}

/// What happens to every layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BitPlan {
    version: u32,
    /// For layers not named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<LayerPlan>,
    /// By layer name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub layers: IndexMap<String, LayerPlan>,
    /// Nodes that are no layers and compute in float, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub float: Vec<String>,
    /// How the ranges of values are chosen, where not as the options say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observer: Option<ObserverKind>,
    /// The same for single values, by name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub ranges: IndexMap<String, ObserverKind>,
}

impl Default for BitPlan {
    /// 8 bits for every layer.
    fn default() -> Self {
        Self::uniform(LayerPlan::default())
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
fn is_auto(form: &PackingForm) -> bool {
    *form == PackingForm::Auto
}

impl Default for LayerPlan {
    fn default() -> Self {
        Self {
            weights: WeightBits::Bits(8),
            activations: ActivationBits::Bits(8),
            grid: None,
            packing: PackingForm::Auto,
        }
    }
}

impl WeightBits {
    /// Bits that hold the integers; 0 for float.
    pub(crate) fn width(self) -> u8 {
        match self {
            Self::Float => 0,
            Self::Binary => 1,
            Self::Ternary => 2,
            Self::Bits(bits) => bits,
        }
    }

    /// The same number of bits for an activation: 2 for ternary and binary weights.
    pub fn same_of_activations(self) -> ActivationBits {
        match self {
            Self::Float => ActivationBits::Float,
            Self::Ternary | Self::Binary => ActivationBits::Bits(2),
            Self::Bits(bits) => ActivationBits::Bits(bits),
        }
    }
}

impl LayerPlan {
    /// A layer that is left in float.
    pub const FLOAT: Self =
        Self { weights: WeightBits::Float, activations: ActivationBits::Float, grid: None, packing: PackingForm::Auto };

    /// This plan with other bits, on a grid and in a packing that these bits allow.
    #[must_use]
    pub(crate) fn with_weight_bits(self, bits: u8) -> Self {
        let packing = match self.packing {
            PackingForm::Int4 if bits != 4 => PackingForm::Auto,
            PackingForm::Int2 if bits != 2 => PackingForm::Auto,
            packing => packing,
        };
        let grid = self.grid.filter(|grid| grid.fault(bits).is_none());
        Self { weights: WeightBits::Bits(bits), grid, packing, ..self }
    }

    /// The grid of the weights.
    pub fn weight_grid(self) -> WeightGrid {
        match self.weights {
            WeightBits::Binary => WeightGrid::Sign,
            WeightBits::Ternary => WeightGrid::Narrow,
            WeightBits::Bits(8) => self.grid.unwrap_or(WeightGrid::Narrow),
            _ => self.grid.unwrap_or(WeightGrid::Full),
        }
    }

    /// How this number of weights is stored: packed if the plan says so and that is smaller than one byte per weight.
    pub fn packing(self, weights: usize) -> Option<Packing> {
        // Size in bytes of the nodes and tensors that unpacking adds per weight.
        const OVERHEAD: usize = 48;
        let packing = match (self.packing, self.weights, self.weight_grid()) {
            (PackingForm::None, ..) | (_, WeightBits::Float | WeightBits::Bits(8..), _) => return None,
            (PackingForm::Int4, ..) => Packing::Int4,
            (PackingForm::Int2, ..) => Packing::Int2,
            (_, WeightBits::Binary, _) => Packing::Codebook,
            (_, WeightBits::Bits(bits), WeightGrid::Trellis) => {
                Packing::Trellis(TrellisRate::of_quarters(4 * bits.min(8))?)
            }
            (_, _, grid) if grid.is_list() => Packing::Codebook,
            (_, WeightBits::Ternary, _) | (_, WeightBits::Bits(2), WeightGrid::Narrow | WeightGrid::Wage) => {
                Packing::Ternary
            }
            (_, WeightBits::Bits(bits), _) => Packing::Bits(bits),
        };
        (self.width(packing).bytes(weights) + OVERHEAD < weights).then_some(packing)
    }

    /// The packing that determines the bytes of the weights: for a list, that of the indices into it.
    fn width(self, packing: Packing) -> Packing {
        match (packing, self.weights) {
            (Packing::Codebook, WeightBits::Bits(bits)) => Packing::Bits(bits),
            (Packing::Codebook, WeightBits::Binary) => Packing::Bits(1),
            _ => packing,
        }
    }

    /// Bytes of this number of weights, without the nodes that unpack them.
    pub fn packed_bytes(self, weights: usize) -> usize {
        match (self.weights, self.packing(weights)) {
            (WeightBits::Float, _) => 4 * weights,
            (_, Some(packing)) => self.width(packing).bytes(weights),
            (_, None) => weights,
        }
    }

    /// Why the target does not support this plan, if it does not.
    fn fault(self, profile: &Profile) -> Option<String> {
        if let WeightBits::Bits(bits) = self.weights
            && !(2..=8).contains(&bits)
        {
            let words = "\"binary\", \"ternary\" or \"float\"";
            return Some(format!("weights of {bits} bits are not supported, use 2 to 8, {words}"));
        }
        let bits = self.weights.width();
        if let ActivationBits::Bits(bits) = self.activations
            && !(2..=8).contains(&bits)
        {
            return Some(format!("activations of {bits} bits are not supported, use 2 to 8 or \"float\""));
        }
        if bits == 0 && self.activations != ActivationBits::Float {
            return Some("weights are float, so activations must be \"float\" as well".to_owned());
        }
        match (self.packing, self.weight_grid()) {
            (PackingForm::Int4, _) if bits != 4 => Some("packing `int4` takes weights of 4 bits".to_owned()),
            (PackingForm::Int2, _) if bits != 2 => Some("packing `int2` takes weights of 2 bits".to_owned()),
            (PackingForm::Int4 | PackingForm::Int2, grid) if grid.is_list() || grid == WeightGrid::Trellis => {
                Some(format!("grid `{grid}` cannot be stored as INT4 or INT2"))
            }
            (PackingForm::Int4, _) if !profile.int4_cast => {
                Some(format!("`{}` does not run packing `int4`", profile.name))
            }
            (_, grid) => grid.fault(bits),
        }
    }
}

impl BitPlan {
    /// One entry for all layers.
    pub fn uniform(layer: LayerPlan) -> Self {
        Self { default: Some(layer), ..Self::of_layers(IndexMap::new()) }
    }

    /// One entry per layer.
    pub fn of_layers(layers: IndexMap<String, LayerPlan>) -> Self {
        Self { version: VERSION, default: None, layers, float: Vec::new(), observer: None, ranges: IndexMap::new() }
    }

    /// The same for nodes and values, with one entry per layer.
    #[must_use]
    pub(crate) fn with_layers(&self, layers: IndexMap<String, LayerPlan>) -> Self {
        Self { layers, default: None, ..self.clone() }
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
        self.layers.is_empty() && self.float.is_empty() && self.ranges.is_empty() && self.observer.is_none()
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
        let entries = self.layers.iter().map(|(name, layer)| (name.as_str(), layer));
        for (name, layer) in entries.chain(self.default.iter().map(|layer| ("default", layer))) {
            if let Some(reason) = layer.fault(profile) {
                return Err(SchemeError::PlanLayer { layer: name.to_owned(), reason });
            }
        }
        Ok(())
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

/// The number, or the word that stands for a choice without one.
pub(crate) fn parse_bits<T>(text: &str, words: &[(&str, T)], number: impl Fn(u8) -> T) -> Result<T, String>
where
    T: Copy,
{
    if let Some((_, choice)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*choice);
    }
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    match text.parse() {
        Ok(bits @ 2..=8) => Ok(number(bits)),
        _ => Err(format!("`{text}` is none of 2 to 8, {}", known.join(", "))),
    }
}

impl FromStr for WeightBits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_bits(text, &[("binary", Self::Binary), ("ternary", Self::Ternary), ("float", Self::Float)], Self::Bits)
    }
}

impl FromStr for ActivationBits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_bits(text, &[("float", Self::Float)], Self::Bits)
    }
}

impl fmt::Display for WeightBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float => f.write_str("float"),
            Self::Binary => f.write_str("binary"),
            Self::Ternary => f.write_str("ternary"),
            Self::Bits(bits) => write!(f, "{bits}"),
        }
    }
}

impl fmt::Display for ActivationBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float => f.write_str("float"),
            Self::Bits(bits) => write!(f, "{bits}"),
        }
    }
}

/// A number or a word in JSON.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum NumberOrWord {
    Number(serde_json::Number),
    Word(String),
}

impl fmt::Display for NumberOrWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Word(word) => word.fmt(f),
        }
    }
}

/// JSON of a type that is a number of bits or a word: what `Display` and `FromStr` say, numbers without quotes.
macro_rules! number_or_word {
    ($bits:ident, $words:tt) => {
        impl serde::Serialize for $bits {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let text = self.to_string();
                match text.parse() {
                    Ok(bits) => serializer.serialize_u8(bits),
                    Err(_) => serializer.serialize_str(&text),
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $bits {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = crate::scheme::bit_plan::NumberOrWord::deserialize(deserializer)?.to_string();
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $bits {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($bits).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "anyOf": [{ "type": "integer", "minimum": 2, "maximum": 8 }, { "enum": $words }] })
            }
        }
    };
}
pub(super) use number_or_word;

number_or_word!(WeightBits, ["float", "ternary", "binary"]);
number_or_word!(ActivationBits, ["float"]);

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
    }
  }
}
"#;

    #[test]
    fn a_plan_is_read_and_written() {
        let plan: BitPlan = serde_json::from_str(EXAMPLE).unwrap();
        assert_eq!(plan.to_json(), EXAMPLE);
        assert_eq!(plan.layer("a").unwrap().weights, WeightBits::Ternary);
        assert_eq!(plan.layer("z"), plan.default);
        assert!(plan.check(["a", "b", "c", "z"].into_iter(), &Profile::ORT_CPU).is_ok());
    }

    #[test]
    fn faults_are_named() {
        let fault = |text: &str| {
            let layer: Result<LayerPlan, _> = serde_json::from_str(text);
            layer.map_or_else(|e| Some(e.to_string()), |layer| layer.fault(&Profile::TRACT)).unwrap_or_default()
        };
        assert!(fault(r#"{"weights": 9, "activations": 8}"#).contains("`9` is none of 2 to 8, binary, ternary, float"));
        assert!(fault(r#"{"weights": 8, "activations": 1}"#).contains("`1` is none of 2 to 8, float"));
        assert!(fault(r#"{"weights": "float", "activations": 8}"#).contains("must be \"float\" as well"));
        assert!(fault(r#"{"weights": 3, "activations": 8, "packing": "int4"}"#).contains("takes weights of 4 bits"));
        assert!(fault(r#"{"weights": 4, "activations": 8, "packing": "int4"}"#).contains("`tract` does not run"));
        assert!(fault(r#"{"weights": 8, "activations": 8, "grid": "codebook"}"#).contains("2 to 7 bits"));
        assert!(fault(r#"{"weights": 8, "activations": 8, "grid": "sign"}"#).contains("weights that are \"binary\""));
        assert!(fault(r#"{"weights": 5, "activations": 8, "grid": "power-of-two"}"#).contains("2 to 4 bits"));
        assert!(
            fault(r#"{"weights": 4, "activations": 8, "grid": "power-of-two", "packing": "int4"}"#)
                .contains("grid `power-of-two` cannot be stored")
        );
        assert!(fault(r#"{"weights": 8, "activations": 8, "bits": 3}"#).contains("unknown field `bits`"));
        assert_eq!(fault(r#"{"weights": 4, "activations": 8}"#), "");
    }

    #[test]
    fn small_weights_are_not_packed() {
        let layer = LayerPlan { weights: WeightBits::Bits(4), ..LayerPlan::default() };
        assert_eq!(layer.packing(96), None);
        assert_eq!(layer.packing(200), Some(Packing::Bits(4)));
        let narrow = LayerPlan { weights: WeightBits::Bits(2), grid: Some(WeightGrid::Narrow), ..layer };
        assert_eq!(narrow.packing(200), Some(Packing::Ternary));
        let binary = LayerPlan { weights: WeightBits::Binary, ..layer };
        assert_eq!((binary.packing(200), binary.packed_bytes(200)), (Some(Packing::Codebook), 25));
        let powers = LayerPlan { grid: Some(WeightGrid::PowerOfTwo), ..layer };
        assert_eq!((powers.packing(200), powers.packed_bytes(200)), (Some(Packing::Codebook), 100));
    }
}
