//! Bits, grid and packing that are the same for every layer: what stands in for a bit plan.

use super::bit_plan::{
    ActivationBits, BitPlan, LayerPlan, PackingForm, WeightBits, number_or_word, parse_activation_bits,
};
use crate::quant::weight_grid::WeightGrid;
use msq_passes::Granularity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Bits of the activations that layers read, relative to those of the weights or by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// As many as the weights; 2 where these are ternary or binary.
    Same,
    /// So many.
    Fixed(ActivationBits),
}

/// Bits, grid and packing of every layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Quantization"))]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct BitsOptions {
    /// Bits of the weights: 2 to 8, on the grid trellis also 1 and quarters such as 1.75, ternary, binary or float [default: 8 without a target].
    #[cfg_attr(feature = "cli", arg(long, value_name = "BITS"))]
    pub weight_bits: Option<WeightBits>,
    /// Bits of the activations that layers read: 2 to 8, 16 for NPUs, float to quantize weights alone, dynamic for 8 on ranges that
    /// products find at run time, without calibration, or same as the weights [default: 8].
    #[cfg_attr(feature = "cli", arg(long, value_name = "BITS", visible_alias = "activations"))]
    pub act_bits: Option<Activations>,
    /// Integers that weights are rounded to [default: narrow at 8 bits, full below; trellis up to 4
    /// where the target folds it and the solver is gram].
    #[cfg_attr(feature = "cli", arg(long, value_name = "GRID"))]
    pub grid: Option<WeightGrid>,
    /// How much of a weight shares a scale: tensor, channel, or block:N for N consecutive values of a channel, 16 to 256,
    /// of products, which compute in float then [default: channel, or as the target needs it].
    #[cfg_attr(feature = "cli", arg(long, value_name = "WHAT"))]
    pub granularity: Option<Granularity>,
    /// How weights below 8 bits are stored [default: auto].
    #[cfg_attr(feature = "cli", arg(long, value_name = "FORM", help_heading = "Output"))]
    pub packing: Option<PackingForm>,
}

impl BitsOptions {
    /// The plan that gives every layer these bits.
    pub fn plan(&self) -> BitPlan {
        let weights = self.weight_bits.unwrap_or(WeightBits::whole(8));
        let activations = match (self.act_bits, weights) {
            (Some(Activations::Same), _) | (None, WeightBits::Float) => weights.same_of_activations(),
            (Some(Activations::Fixed(bits)), _) => bits,
            (None, _) if matches!(self.granularity, Some(Granularity::Block(_))) => ActivationBits::Float,
            (None, _) => ActivationBits::Bits(8),
        };
        let (grid, packing, granularity) = (self.grid, self.packing.unwrap_or_default(), self.granularity);
        BitPlan::uniform(LayerPlan { weights, activations, grid, packing, granularity })
    }
}

impl Default for Activations {
    fn default() -> Self {
        Self::Fixed(ActivationBits::Bits(8))
    }
}

impl FromStr for Activations {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fixed = |bits| Self::Fixed(bits);
        let words = [
            ("float", fixed(ActivationBits::Float)),
            ("dynamic", fixed(ActivationBits::Dynamic)),
            ("same", Self::Same),
        ];
        parse_activation_bits(text, &words, |bits| Self::Fixed(ActivationBits::Bits(bits)))
    }
}

impl fmt::Display for Activations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same => f.write_str("same"),
            Self::Fixed(bits) => bits.fmt(f),
        }
    }
}

number_or_word!(Activations, { "type": "integer", "minimum": 2, "maximum": 8 }, [16, "float", "dynamic", "same"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_in_words() {
        for text in ["3", "16", "float", "dynamic", "same"] {
            let bits: Activations = text.parse().unwrap();
            assert_eq!(bits.to_string(), text);
            let json = serde_json::to_string(&bits).unwrap();
            assert_eq!(serde_json::from_str::<Activations>(&json).unwrap(), bits);
        }
        assert_eq!("9".parse::<Activations>(), Err("`9` is none of 2 to 8, 16, float, dynamic, same".to_owned()));
    }

    #[test]
    fn float_weights_leave_activations_in_float() {
        let plan = |bits: BitsOptions| bits.plan().default.map(|layer| (layer.weights, layer.activations));
        let of = |weight_bits, act_bits| BitsOptions { weight_bits, act_bits, ..BitsOptions::default() };
        assert_eq!(plan(of(None, None)), Some((WeightBits::whole(8), ActivationBits::Bits(8))));
        assert_eq!(plan(of(Some(WeightBits::Float), None)), Some((WeightBits::Float, ActivationBits::Float)));
        let ternary = of(Some(WeightBits::Ternary), Some(Activations::Same));
        assert_eq!(plan(ternary), Some((WeightBits::Ternary, ActivationBits::Bits(2))));
    }
}
