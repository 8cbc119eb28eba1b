//! What a caller can choose about a search.

use super::registry::Method;
use crate::scheme::bit_plan::{ActivationBits, WeightBits};
use crate::search::layer_accuracy::Imprinting;
use crate::search::space::SearchedActivations;
use std::fmt;
use std::path::PathBuf;

/// What the plan has to keep to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Bytes of the float weights over bytes of the packed weights, at least.
    Ratio(f64),
    /// Bits of a weight on average, at most; a ternary weight has 1.6.
    Bits(f64),
    /// Bytes of the file, at most.
    Size(u64),
    /// Share of answers that may be lost, of the float network's accuracy with labels, of agreement with it without; for
    /// outputs that are no class scores, their relative squared error. The smallest such plan; where the most bits lose
    /// more, with as few layers in float as it takes.
    MaxDrop(f64),
    /// Multiply-accumulates times bits of weight times bits of activation, relative to 8 bits everywhere, at most.
    MacBits(f64),
}

/// Choices of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchOptions {
    /// How bits are chosen.
    pub method: Method,
    /// What the plan has to keep to.
    pub target: Target,
    /// Bits a layer's weights may have, from most to fewest.
    pub ladder: Vec<WeightBits>,
    /// What becomes of activations.
    pub activations: SearchedActivations,
    /// Layers that MSQ lowers in one step.
    pub step: usize,
    /// Whether MSQ may lower the first layer, whose gain is then counted from a guess.
    pub first_layer: bool,
    /// MSQ's task predictor.
    pub imprinting: Imprinting,
    /// Samples that layers are measured on one by one, of the validation part.
    pub samples: usize,
    /// Plans measured at most while repairing.
    pub repairs: usize,
    /// Where what is measured is written down, to go on from when killed. The caller removes it in the end.
    pub journal: Option<PathBuf>,
    /// Where the best plan so far is written that keeps to the target.
    pub best: Option<PathBuf>,
}

impl SearchOptions {
    /// A search for a target, all else as usual.
    pub fn new(target: Target) -> Self {
        Self {
            method: Method::default(),
            target,
            ladder: [8, 7, 6, 5, 4, 3, 2].map(WeightBits::Bits).into_iter().chain([WeightBits::Ternary]).collect(),
            activations: SearchedActivations::Fixed(ActivationBits::Bits(8)),
            step: 1,
            first_layer: false,
            imprinting: Imprinting::default(),
            samples: 256,
            repairs: 40,
            journal: None,
            best: None,
        }
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
