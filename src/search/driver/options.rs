//! What a caller can choose about a search.

use super::registry::Method;
use crate::quant::weight_grid::WeightGrid;
#[cfg(feature = "cli")]
use crate::runtime::flags::at_least_one;
use crate::scheme::bit_plan::WeightBits;
use crate::scheme::bits::Activations;
use crate::search::layer_accuracy::Imprinting;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// What the plan has to keep to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Bytes of the float weights over bytes of the packed weights, at least.
    Ratio(f64),
    /// Bits of a weight on average, at most; a ternary weight has 1.6.
    Bits(f64),
    /// Bytes of the file, at most.
    Size(u64),
    /// What may be lost ([`crate::metrics`]): of the caller's own metric, a share of the float network's; else of the
    /// accuracy, with labels; else by the worst output, a share of answers, boxes or sequences that differ, of the
    /// variance of the worst channel of values, or 1 − cosine of embeddings. The smallest such plan; where the most bits
    /// lose more, with as few layers in float as it takes.
    MaxDrop(f64),
    /// Multiply-accumulates times bits of weight times bits of activation, relative to 8 bits everywhere, at most.
    MacBits(f64),
}

/// How it is found out what each layer costs at each width.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display, strum::EnumString, Serialize, Deserialize, JsonSchema,
)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[strum(serialize_all = "kebab-case")]
#[serde(rename_all = "kebab-case")]
pub enum Costs {
    /// By a run for each layer and width.
    #[default]
    Measured,
    /// By the gradients of all layers at once, to second order; measured where there are none.
    Gradient,
}

/// Choices of a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Search"))]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SearchOptions {
    /// How bits are chosen.
    #[cfg_attr(feature = "cli", arg(id = "search", long = "search", value_name = "NAME", default_value_t))]
    #[serde(rename = "search")]
    pub method: Method,
    /// What the plan has to keep to.
    #[cfg_attr(feature = "cli", arg(skip))]
    pub target: Target,
    /// Bits that the weights of a layer may have, from most to fewest [default:
    /// 8,7,6,5,4,3,2.5,2.25,2,1.75,1.5,1.25,1; 8,7,6,5,4,3,2,ternary without the grid trellis].
    #[cfg_attr(feature = "cli", arg(long, value_name = "LIST", value_delimiter = ','))]
    pub ladder: Option<Vec<WeightBits>>,
    /// The integers of weights on the rungs whose bits the grid has.
    #[cfg_attr(feature = "cli", arg(skip))]
    pub grid: Option<WeightGrid>,
    /// Bits of activations while bits of weights are searched for.
    #[cfg_attr(feature = "cli", arg(skip))]
    #[serde(rename = "act-bits")]
    pub activations: Activations,
    /// Layers that MSQ lowers in one step: more is faster and coarser.
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one))]
    pub step: usize,
    /// Let MSQ lower the first layer, whose gain is then counted from a guess.
    #[cfg_attr(feature = "cli", arg(id = "search_first_layer", long = "search-first-layer"))]
    #[serde(rename = "search-first-layer")]
    pub first_layer: bool,
    /// MSQ's task predictor.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub imprinting: Imprinting,
    /// Samples of the validation part that layers are measured on one by one.
    #[cfg_attr(
        feature = "cli",
        arg(id = "search_samples", long = "search-samples", value_name = "N", default_value_t = 256)
    )]
    #[cfg_attr(feature = "cli", arg(value_parser = at_least_one))]
    #[serde(rename = "search-samples")]
    pub samples: usize,
    /// How it is found out what each layer costs at each width.
    #[cfg_attr(feature = "cli", arg(long, value_name = "HOW", default_value_t))]
    pub costs: Costs,
    /// What layers cost, measured elsewhere: the files that `search --shard` wrote.
    #[cfg_attr(feature = "cli", arg(long, value_name = "PATH", num_args = 1..))]
    #[serde(skip)]
    pub measurements: Vec<PathBuf>,
    /// Exchanges of bits between layers that are tried at most.
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", default_value_t = 40))]
    pub repairs: usize,
    /// Where what is measured is written down, to go on from when killed. The caller removes it in the end.
    #[cfg_attr(feature = "cli", arg(skip))]
    #[serde(skip)]
    pub journal: Option<PathBuf>,
    /// Where the best plan so far is written that keeps to the target.
    #[cfg_attr(feature = "cli", arg(skip))]
    #[serde(skip)]
    pub best: Option<PathBuf>,
    /// Bits a weight of a plan that lost too much once it was carried out, though not in the search; plans within a drop
    /// have more.
    #[cfg_attr(feature = "cli", arg(skip))]
    #[serde(skip)]
    pub too_few_bits: Option<f64>,
}

impl Default for Target {
    /// A drop of one point.
    fn default() -> Self {
        Self::MaxDrop(0.01)
    }
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self {
            method: Method::default(),
            target: Target::default(),
            ladder: None,
            grid: None,
            activations: Activations::default(),
            step: 1,
            first_layer: false,
            imprinting: Imprinting::default(),
            samples: 256,
            costs: Costs::default(),
            measurements: Vec::new(),
            repairs: 40,
            journal: None,
            best: None,
            too_few_bits: None,
        }
    }
}

impl SearchOptions {
    /// A search for a target, all else as usual.
    pub fn new(target: Target) -> Self {
        Self { target, ..Self::default() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ratio(ratio) => write!(f, "weights packed {ratio} times"),
            Self::Bits(bits) => write!(f, "{bits} bits a weight"),
            Self::Size(bytes) => write!(f, "a file of {bytes} bytes"),
            Self::MaxDrop(drop) => write!(f, "a drop of {} %", 100.0 * drop),
            Self::MacBits(share) => write!(f, "{} % of the bit operations at 8 bits", 100.0 * share),
        }
    }
}
