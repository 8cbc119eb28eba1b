//! A plan's entry for one layer: its bits, grid and packing, the bytes they take, and what a target refuses.

use super::bits::{ActivationBits, WeightBits};
use crate::quant::BitRate;
use crate::quant::weight_grid::WeightGrid;
use msq_passes::{Blocks, Granularity, Packing, Profile, TrellisCode, TrellisRate, WideActivations};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// How a layer is quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LayerPlan {
    /// Bits of the weights: `"float"`, `"ternary"`, `"binary"`, 2 to 8, or what else the grid has, such as 1.75.
    pub weights: WeightBits,
    /// Bits of the activation read: `"float"`, 2 to 8, 16, or `"dynamic"` for 8 on ranges found at run time.
    pub activations: ActivationBits,
    /// The grid of the weights; unless given, `narrow` at 8 bits, `trellis` up to 4 where the target folds it and
    /// the solver is `gram`, else `full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grid: Option<WeightGrid>,
    /// How the weights are stored.
    #[serde(default, skip_serializing_if = "is_auto")]
    pub packing: PackingForm,
    /// How much of the weight shares a scale: `"tensor"`, `"channel"`, or `"block:32"` for blocks of 32 values of a channel,
    /// in products that compute in float; unless given, a channel where the target has one scale per channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granularity: Option<Granularity>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
fn is_auto(form: &PackingForm) -> bool {
    *form == PackingForm::Auto
}

impl Default for LayerPlan {
    fn default() -> Self {
        Self {
            weights: WeightBits::whole(8),
            activations: ActivationBits::Bits(8),
            grid: None,
            packing: PackingForm::Auto,
            granularity: None,
        }
    }
}

impl LayerPlan {
    /// A layer that is left in float.
    pub const FLOAT: Self = Self {
        weights: WeightBits::Float,
        activations: ActivationBits::Float,
        grid: None,
        packing: PackingForm::Auto,
        granularity: None,
    };

    /// The values in a block that has its own scale, where the plan asks for such.
    pub fn block(self) -> Option<usize> {
        match self.granularity {
            Some(Granularity::Block(size)) if self.weights != WeightBits::Float => Some(size),
            _ => None,
        }
    }

    /// This plan for a layer whose weight has no blocks.
    #[must_use]
    pub(crate) fn without_blocks(self) -> Self {
        let grid = self.grid.filter(|&grid| grid != WeightGrid::Asymmetric);
        Self { granularity: self.granularity.filter(|g| !matches!(g, Granularity::Block(_))), grid, ..self }
    }

    /// This plan with other bits, on a grid and in a packing that these bits allow.
    #[must_use]
    pub(crate) fn with_weight_bits(self, bits: u8) -> Self {
        let packing = match self.packing {
            PackingForm::Int4 if bits != 4 => PackingForm::Auto,
            PackingForm::Int2 if bits != 2 => PackingForm::Auto,
            packing => packing,
        };
        let grid = self.grid.filter(|grid| grid.fault(BitRate::whole(bits)).is_none());
        Self { weights: WeightBits::whole(bits), grid, packing, ..self }
    }

    /// This plan on trellis codes, where it asks for no grid or packing and has so few bits that they have them.
    #[must_use]
    pub(super) fn with_trellis(self) -> Self {
        let few = matches!(self.weights, WeightBits::Bits(rate) if WeightGrid::Trellis.fault(rate).is_none());
        let few = few && self.packing == PackingForm::Auto && self.block().is_none();
        let grid = self.grid.or(few.then_some(WeightGrid::Trellis));
        Self { grid, ..self }
    }

    /// The grid of the weights.
    pub fn weight_grid(self) -> WeightGrid {
        match self.weights {
            WeightBits::Binary => WeightGrid::Sign,
            WeightBits::Ternary => WeightGrid::Narrow,
            WeightBits::Bits(rate) => self.grid.unwrap_or(match rate.as_whole() {
                None | Some(1) => WeightGrid::Trellis,
                Some(8) => WeightGrid::Narrow,
                Some(_) => WeightGrid::Full,
            }),
            WeightBits::Float => self.grid.unwrap_or(WeightGrid::Full),
        }
    }

    /// How this number of weights is stored: packed if the plan says so and that is smaller than one byte per weight.
    pub fn packing(self, weights: usize) -> Option<Packing> {
        // Size in bytes of the nodes and tensors that unpacking adds per weight.
        const OVERHEAD: usize = 48;
        if self.block().is_some() {
            // Read as they are: nothing unpacks them.
            return match self.weights {
                WeightBits::Bits(rate) if self.packing != PackingForm::None => match rate.as_whole() {
                    Some(4) => Some(Packing::Int4),
                    Some(2) => Some(Packing::Int2),
                    _ => None,
                },
                _ => None,
            };
        }
        let packing = match (self.packing, self.weights, self.weight_grid()) {
            (PackingForm::None, ..) | (_, WeightBits::Float, _) => return None,
            (_, WeightBits::Bits(rate), _) if rate >= BitRate::whole(8) => return None,
            (PackingForm::Int4, ..) => Packing::Int4,
            (PackingForm::Int2, ..) => Packing::Int2,
            (_, WeightBits::Binary, _) => Packing::Codebook,
            (_, WeightBits::Bits(rate), WeightGrid::Trellis) => {
                Packing::Trellis(TrellisRate::of_quarters(rate.quarters())?)
            }
            (_, _, grid) if grid.is_list() => Packing::Codebook,
            (_, WeightBits::Ternary, _) => Packing::Ternary,
            (_, WeightBits::Bits(rate), WeightGrid::Narrow | WeightGrid::Wage) if rate.ceil() == 2 => Packing::Ternary,
            (_, WeightBits::Bits(rate), _) => Packing::Bits(rate.ceil()),
        };
        (self.width(packing).bytes(weights) + OVERHEAD < weights).then_some(packing)
    }

    /// The packing that determines the bytes of the weights: for a list, that of the indices into it.
    fn width(self, packing: Packing) -> Packing {
        match (packing, self.weights) {
            (Packing::Codebook, WeightBits::Bits(rate)) => Packing::Bits(rate.ceil()),
            (Packing::Codebook, WeightBits::Binary) => Packing::Bits(1),
            _ => packing,
        }
    }

    /// Bytes of this number of weights, so many channels of them, without the nodes that unpack them. A trellis code has a
    /// string per value of a channel, of whole bytes. Scales count where each block has one.
    pub fn packed_bytes(self, weights: usize, channels: usize) -> usize {
        let channels = channels.max(1);
        let blocks = self.block().map_or(0, |block| channels * (weights / channels).div_ceil(block.max(1)));
        let scales = blocks * size_of::<f32>();
        scales
            + match (self.weights, self.packing(weights)) {
                (WeightBits::Float, _) => 4 * weights,
                (_, Some(Packing::Trellis(rate))) if channels >= TrellisCode::SHORTEST => {
                    rate.bytes(channels) * weights.div_ceil(channels)
                }
                (_, Some(packing)) => self.width(packing).bytes(weights),
                (_, None) => weights,
            }
    }

    /// Why the target does not support this plan, if it does not.
    pub(super) fn fault(self, profile: &Profile) -> Option<String> {
        let rate = match self.weights {
            WeightBits::Bits(rate) => rate,
            WeightBits::Float => BitRate::whole(0),
            WeightBits::Binary => BitRate::whole(1),
            WeightBits::Ternary => BitRate::whole(2),
        };
        if matches!(self.weights, WeightBits::Bits(_)) && !(BitRate::whole(1)..=BitRate::whole(8)).contains(&rate) {
            let words = "\"binary\", \"ternary\" or \"float\"";
            return Some(format!("weights of {rate} bits are not supported, use 2 to 8, {words}"));
        }
        if let ActivationBits::Bits(bits) = self.activations
            && !(2..=8).contains(&bits)
        {
            if bits != 16 {
                return Some(format!("activations of {bits} bits are not supported, use 2 to 8, 16 or \"float\""));
            }
            if profile.wide_activations == WideActivations::Refused {
                return Some(format!("`{}` does not run activations of 16 bits", profile.name));
            }
        }
        if self.weights == WeightBits::Float && self.activations != ActivationBits::Float {
            return Some("weights are float, so activations must be \"float\" as well".to_owned());
        }
        if self.activations == ActivationBits::Dynamic && !profile.dynamic {
            return Some(format!("`{}` does not quantize activations at run time", profile.name));
        }
        if let Some(fault) = self.granularity_fault(profile) {
            return Some(fault);
        }
        match (self.packing, self.weight_grid()) {
            (PackingForm::Int4, _) if rate != BitRate::whole(4) => {
                Some("packing `int4` takes weights of 4 bits".to_owned())
            }
            (PackingForm::Int2, _) if rate != BitRate::whole(2) => {
                Some("packing `int2` takes weights of 2 bits".to_owned())
            }
            (PackingForm::Int4 | PackingForm::Int2, grid) if grid.is_list() || grid == WeightGrid::Trellis => {
                Some(format!("grid `{grid}` cannot be stored as INT4 or INT2"))
            }
            (PackingForm::Int4, _) if !profile.int4_cast && self.block().is_none() => {
                Some(format!("`{}` does not run packing `int4`", profile.name))
            }
            _ if self.weights == WeightBits::Float => None,
            (_, grid) => grid.fault(rate),
        }
    }

    /// Why the target does not run weights whose scales lie so.
    fn granularity_fault(self, profile: &Profile) -> Option<String> {
        let (name, grid) = (profile.name, self.weight_grid());
        let asymmetric = grid == WeightGrid::Asymmetric;
        let Some(size) = self.block() else {
            let channel = self.granularity == Some(Granularity::Channel) && !profile.per_channel;
            return match () {
                () if asymmetric => Some("grid `asymmetric` takes weights with one scale per block".to_owned()),
                () if channel => Some(format!("`{name}` takes one scale per tensor")),
                () => None,
            };
        };
        let Some(Blocks { bits, sizes, zero_points, .. }) = profile.blocks else {
            return Some(format!("`{name}` does not run weights with one scale per block"));
        };
        let listed = |of: &[usize]| of.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        let width: Vec<usize> = bits.iter().map(|&bits| usize::from(bits)).collect();
        let whole =
            matches!(self.weights, WeightBits::Bits(rate) if rate.as_whole().is_some_and(|b| bits.contains(&b)));
        match grid {
            _ if !sizes.contains(&size) => Some(format!("`{name}` takes blocks of {}", listed(sizes))),
            _ if !whole => Some(format!("`{name}` takes weights of {} bits in blocks", listed(&width))),
            WeightGrid::Asymmetric if !zero_points => {
                Some(format!("`{name}` takes no zero points of blocks, leave out grid `asymmetric`"))
            }
            WeightGrid::Narrow | WeightGrid::Full | WeightGrid::Asymmetric => None,
            _ => Some(format!("grid `{grid}` takes no scales per block, use narrow, full or asymmetric")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_named() {
        let fault = |text: &str| {
            let layer: Result<LayerPlan, _> = serde_json::from_str(text);
            layer.map_or_else(|e| Some(e.to_string()), |layer| layer.fault(&Profile::TRACT)).unwrap_or_default()
        };
        assert!(
            fault(r#"{"weights": 9, "activations": 8}"#)
                .contains("`9` is none of 1 to 8, below 3 also in quarters, binary, ternary, float")
        );
        for (rest, part) in [
            (r#""weights": 1, "grid": "full""#, "grid `full` takes weights of 2 to 8 bits"),
            (r#""weights": 2.5, "grid": "codebook""#, "grid `codebook` takes whole numbers of bits, 2 to 7"),
            (r#""weights": 2.75"#, "grid `trellis` takes weights of 1, 1.25, 1.5, 1.75, 2, 2.25, 2.5, 3, 4 bits"),
            (r#""weights": 5, "grid": "trellis""#, "grid `trellis` takes weights of 1, 1.25,"),
            (r#""weights": 2.3"#, "`2.3` is none of 1 to 8, below 3 also in quarters, binary"),
            (r#""weights": 2.5, "packing": "int4""#, "takes weights of 4 bits"),
            (r#""weights": 1.5, "packing": "int2""#, "takes weights of 2 bits"),
        ] {
            let found = fault(&format!(r#"{{"activations": 8, {rest}}}"#));
            assert!(found.contains(part), "{rest}: {found}");
        }
        for allowed in ["1", "1.25", "2.5", r#"4, "grid": "trellis""#, r#""float", "grid": "trellis""#] {
            assert_eq!(fault(&format!(r#"{{"activations": "float", "weights": {allowed}}}"#)), "");
        }
        assert!(fault(r#"{"weights": 8, "activations": 1}"#).contains("`1` is none of 2 to 8, 16, float"));
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
    fn blocks_are_what_the_target_runs() {
        let fault = |text: &str, profile: &Profile| {
            let text = format!(r#"{{"activations": "float", {text}}}"#);
            serde_json::from_str::<LayerPlan>(&text).unwrap().fault(profile).unwrap_or_default()
        };
        let four = r#""weights": 4, "granularity": "block:32""#;
        assert_eq!(fault(four, &Profile::ORT_CPU), "");
        assert_eq!(fault(&format!(r#"{four}, "grid": "asymmetric""#), &Profile::ORT_CPU), "");
        for (text, profile, part) in [
            (four, Profile::TRACT, "`tract` does not run weights with one scale per block"),
            (four, Profile::TENSORRT, "`tensorrt` takes blocks of 64, 128"),
            (r#""weights": 4, "granularity": "block:64", "grid": "asymmetric""#, Profile::TENSORRT, "no zero points"),
            (r#""weights": 4, "granularity": "block:48""#, Profile::ORT_CPU, "blocks of 16, 32, 64, 128, 256"),
            (r#""weights": 3, "granularity": "block:32""#, Profile::ORT_CPU, "weights of 2, 4, 8 bits in blocks"),
            (r#""weights": 2, "granularity": "block:32""#, Profile::OPENVINO, "weights of 4, 8 bits in blocks"),
            (r#""weights": 4, "granularity": "block:32", "grid": "trellis""#, Profile::ORT_CPU, "no scales per block"),
            (r#""weights": 4, "grid": "asymmetric""#, Profile::ORT_CPU, "one scale per block"),
            (r#""weights": 4, "granularity": "channel""#, Profile::TRACT, "one scale per tensor"),
        ] {
            let found = fault(text, &profile);
            assert!(found.contains(part), "{text}: {found}");
        }
        let plan: LayerPlan = serde_json::from_str(&format!(r#"{{"activations": 8, {four}}}"#)).unwrap();
        assert_eq!(plan.packing(8), Some(Packing::Int4));
        assert_eq!(plan.packed_bytes(64 * 10, 10), 320 + 4 * 20);
        assert_eq!(plan.with_trellis(), plan);
        assert_eq!(plan.without_blocks(), LayerPlan { granularity: None, ..plan });
    }

    #[test]
    fn small_weights_are_not_packed() {
        let layer = LayerPlan { weights: WeightBits::whole(4), ..LayerPlan::default() };
        assert_eq!(layer.packing(96), None);
        assert_eq!(layer.packing(200), Some(Packing::Bits(4)));
        let narrow = LayerPlan { weights: WeightBits::whole(2), grid: Some(WeightGrid::Narrow), ..layer };
        assert_eq!(narrow.packing(200), Some(Packing::Ternary));
        let binary = LayerPlan { weights: WeightBits::Binary, ..layer };
        assert_eq!((binary.packing(200), binary.packed_bytes(200, 10)), (Some(Packing::Codebook), 25));
        let trellis = LayerPlan { weights: WeightBits::Bits(BitRate::of_quarters(7)), ..layer };
        let packing = TrellisRate::of_quarters(7).map(Packing::Trellis);
        assert_eq!((trellis.packing(320), trellis.packed_bytes(320, 16)), (packing, 80));
        // 17.5 bits take three bytes.
        assert_eq!(trellis.packed_bytes(640, 10), 64 * 3);
        let powers = LayerPlan { grid: Some(WeightGrid::PowerOfTwo), ..layer };
        assert_eq!((powers.packing(200), powers.packed_bytes(200, 10)), (Some(Packing::Codebook), 100));
    }
}
